"""What deploys Vigie off the Hub and what stands beside the code: Dockerfile, systemd unit, licence, citation."""

import fnmatch
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from huggingface_hub import snapshot_download
from loopback_hub import LoopbackHub
from released import PAIR, PAIR_KINDS, PICTURE, release, served

from anomaly import __version__, load_inspector
from anomaly.loading import load_at
from anomaly.service import Service
from anomaly.settings import Settings
from anomaly.source import parse_source
from training import space_plan

__all__ = ["release", "served"]  # fixtures

ROOT = space_plan.ROOT
DOCKERFILE = re.sub(r"\\\n\s*", "", re.sub(r"(?m)^#.*\n", "", (ROOT / "Dockerfile").read_text()))
LINES = [line.split(" ", 1) for line in DOCKERFILE.splitlines() if line]
UNIT = re.search(r"```ini\n(.*?)```", (ROOT / "docs" / "DEPLOY.md").read_text(), re.S)[1]
APACHE = (
    "c71d239df91726fc519c6eb72d318ec65820627232b2f796219e87dcf35d0ab4"  # sha256 of the text with its blanks to fill in
)


def arguments(instruction: str) -> list[str]:
    return [rest for word, rest in LINES if word == instruction]


def copied() -> list[str]:
    return [path for line in arguments("COPY") for path in line.split()[:-1]]


def environment() -> dict[str, str]:
    return dict(pair.split("=", 1) for line in arguments("ENV") for pair in line.split())


def health_check() -> list[str]:
    command: list[str] = json.loads(arguments("HEALTHCHECK")[0].split(" CMD ")[1])
    return command


# Docker. Nothing here builds the image


def test_what_the_image_copies_exists_and_is_not_ignored() -> None:
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert ignored[0] == "*"
    for path in copied():
        assert (ROOT / path).exists(), path
        assert f"!{path}" in ignored
    assert not any(fnmatch.fnmatch(name, "*.pt") for name in copied())


def test_the_image_has_all_that_a_space_has() -> None:
    assert {path.split("/")[0] for path in space_plan.app_files(starter=True)} == set(copied())


def test_the_image_runs_without_rights_and_listens_where_it_says() -> None:
    order = [word for word, _ in LINES]
    assert order.index("USER") > max(index for index, word in enumerate(order) if word in ("RUN", "COPY"))
    assert arguments("USER") == ["vigie"]
    assert arguments("EXPOSE") == [environment()["GRADIO_SERVER_PORT"]]
    assert environment()["GRADIO_SERVER_NAME"] == "0.0.0.0"
    assert environment()["HF_HOME"].startswith(arguments("VOLUME")[0])
    assert json.loads(arguments("CMD")[0]) == ["python", "app.py"]


def test_torch_comes_without_cuda_and_in_the_pinned_version() -> None:
    install = next(line for line in arguments("RUN") if "pip install" in line)
    pattern = re.search(r"grep -E '(.*?)' requirements.txt", install)[1]
    picked = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if re.search(pattern, line)]
    assert sorted(line.split("==")[0] for line in picked) == ["torch", "torchvision"]
    assert "--index-url https://download.pytorch.org/whl/cpu -r /tmp/torch.txt" in install
    assert install.endswith("pip install -r requirements.txt")


@pytest.fixture
def deployed(inspector_folder: Path, tmp_path: Path) -> Iterator[int]:
    """The port of the app, started as the image does from nothing but what is sent to a Space."""
    for name, content in space_plan.app_files(starter=False).items():
        path = tmp_path / "app" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    told = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "GRADIO_SERVER_NAME": "127.0.0.1",
        "GRADIO_SERVER_PORT": str(port),
        "VIGIE_INSPECTORS": str(inspector_folder),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "TMPDIR": str(tmp_path),
    }
    log = tmp_path / "log"
    with log.open("w") as out:
        app = subprocess.Popen([sys.executable, "app.py"], cwd=tmp_path / "app", env=told, stdout=out, stderr=out)
        try:
            yield port
        finally:
            app.terminate()
            app.wait(timeout=30)
    assert "Traceback" not in log.read_text()


def healthy(port: int) -> bool:
    check = [sys.executable, *health_check()[1:]]
    told = {**os.environ, "GRADIO_SERVER_PORT": str(port)}
    return subprocess.run(check, env=told, capture_output=True, check=False).returncode == 0


def test_what_is_sent_is_enough_to_serve_and_the_health_check_knows_when(deployed: int) -> None:
    assert not healthy(deployed)  # nothing listens yet, or it is starting
    deadline = time.monotonic() + 120
    while not healthy(deployed):
        assert time.monotonic() < deadline, "never healthy"
        time.sleep(1)


# systemd, offline


def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is missing")
    unit = tmp_path / "vigie.service"
    unit.write_text(re.sub(r"(?m)^ExecStart=.*$", f"ExecStart={sys.executable}", UNIT))
    checked = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_the_unit_keeps_the_app_in() -> None:
    for line in ("DynamicUser=yes", "ProtectSystem=strict", "NoNewPrivileges=yes", "CapabilityBoundingSet="):
        assert line in UNIT.splitlines()


def test_what_was_downloaded_as_the_documents_say_needs_no_hub(
    served: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = tmp_path / "models"
    monkeypatch.setenv("HF_HUB_CACHE", str(models))
    snapshot_download(PAIR, revision="v1", cache_dir=models, endpoint=served.url)  # what `hf download` does
    loaded = load_at(parse_source(PAIR), snapshot := served.repo(PAIR).resolve("v1"), "v1")  # what `pull` does
    assert set(loaded.members) == set(PAIR_KINDS)
    served.stop()
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "elsewhere"))
    assert load_inspector(str(models), "v1").commit == snapshot
    report = Service(Settings(inspectors=(str(models),))).inspect(PICTURE).report
    assert (report.revision, report.commit) == ("v1", snapshot)


# Beside the code


def test_the_licence_is_the_apache_licence_to_the_letter() -> None:
    assert hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest() == APACHE


def test_the_citation_has_what_the_format_asks_for_and_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert (citation["version"], citation["license"]) == (__version__, "Apache-2.0")


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "SECURITY.md", "docs/DEPLOY.md"])
def test_what_the_documents_name_exists(name: str) -> None:
    text = (ROOT / name).read_text()
    paths = re.findall(r"`((?:anomaly|tests|training|model_cards|docs)/[\w./]+\.\w+)`", text)
    paths += re.findall(r"\]\(((?!http)[^)#]+)\)", text)
    for path in paths:
        assert ((ROOT / name).parent / path).exists() or (ROOT / path).exists(), path
    for module in re.findall(r"python -m (training\.\w+)", text):
        assert (ROOT / f"{module.replace('.', '/')}.py").is_file()
    settings = {f"VIGIE_{field.upper()}" for field in Settings.model_fields} | {"VIGIE_"}
    assert set(re.findall(r"VIGIE_[A-Z_]*", text)) <= settings
