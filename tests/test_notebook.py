"""The notebook runs from its first cell to its last, on a loopback Hub; it is committed without what it printed."""

import os
from pathlib import Path
from typing import Any

import pytest
from hub_spaces import STATE
from loopback_hub import LoopbackHub

pytest.importorskip("ipykernel", reason="ipykernel is missing: uv pip install -e '.[dev]'")
nbclient = pytest.importorskip("nbclient", reason="nbclient is missing: uv pip install -e '.[dev]'")
nbformat = pytest.importorskip("nbformat", reason="nbformat is missing: uv pip install -e '.[dev]'")

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "notebooks" / "train_on_your_parts.ipynb"
NOBODY = 'ORG = ""'


def notebook() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


def code_cells(found: Any) -> list[Any]:
    return [cell for cell in found.cells if cell.cell_type == "code"]


def printed(found: Any) -> str:
    return "".join(output.text for cell in code_cells(found) for output in cell.outputs if "text" in output)


def test_it_is_committed_without_outputs_and_with_nobody_to_push_to() -> None:
    found = notebook()
    nbformat.validate(found)
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code_cells(found))
    assert NOBODY in code_cells(found)[0].source
    assert "dry_run=True" in code_cells(found)[-1].source


def test_it_goes_from_a_folder_to_a_space(hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": "hf_loopback_alice",
        "HF_HUB_CACHE": str(tmp_path / "cache"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0",
        "TMPDIR": str(tmp_path),
        "OMP_NUM_THREADS": "1",
        "IPYTHONDIR": str(tmp_path / "ipython"),
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
    }.items():
        monkeypatch.setenv(name, value)
    found = notebook()
    first = code_cells(found)[0]
    first.source = first.source.replace(NOBODY, 'ORG = "alice"')
    nbclient.NotebookClient(found, timeout=240, kernel_name="python3", resources={"metadata": {"path": ROOT}}).execute()
    said = printed(found)
    assert "released alice/vigie-cable@" in said
    assert "Space alice/cable-inspection" in said
    assert "VIGIE_INSPECTORS=alice/vigie-cable" in said
    assert said.rstrip().endswith("dry run: nothing was sent")
    assert any("image/png" in output.get("data", {}) for cell in code_cells(found) for output in cell.outputs)
    assert "v1" in {ref.removeprefix("refs/tags/") for ref in hub.repo("alice/vigie-cable").refs()}
    assert not list(hub.root.rglob(STATE))  # no Space
