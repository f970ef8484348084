"""Bulk scoring on Ray: the files of a local run, whatever dies on the way. Real clusters on this machine's loopback."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image
from pyarrow import parquet

from anomaly.score import score
from training.synthetic_cable import render

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PICTURES, PART_SIZE = 61, 2
PARTS = 31


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty cables and a file that is no picture."""
    folder = tmp_path_factory.mktemp("in")
    for seed in range(PICTURES - 1):
        Image.fromarray(render(None if seed % 2 else "missing_cable", seed=seed, size=64)[0]).save(
            folder / f"{seed:02d}.png"
        )
    (folder / "17b.png").write_text("no picture")
    return folder


@pytest.fixture(scope="module")
def local(folder: Path, inspector_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files that a run without Ray writes."""
    output = tmp_path_factory.mktemp("local")
    score(str(folder), str(inspector_folder), output, revision="v1", part_size=PART_SIZE)
    return files_of(output)


@pytest.fixture
def two_nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A cluster of a CPU here and a CPU there."""
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # before the import: on the loopback only
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    small = {"num_cpus": 1, "object_store_memory": 80_000_000}
    cluster = Cluster(initialize_head=True, head_node_args={**small, "include_dashboard": False})
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    cluster.add_node(**small)
    yield cluster
    cluster.shutdown()


def files_of(output: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((output / "rows").iterdir())}


def workers_of(output: Path) -> Counter[int]:
    """How many parts each process wrote."""
    files = [output / "measured" / file.name for file in (output / "rows").glob("*.parquet")]
    first = [parquet.read_table(file, columns=["worker"])["worker"][0].as_py() for file in files]
    return Counter(int(worker.rpartition(":")[2]) for worker in first)


def started(folder: Path, output: Path, inspector: Path, *more: str) -> subprocess.Popen[str]:
    words = ["--input", folder, "--output", output, "--inspector", inspector, "--revision", "v1", *more]
    return subprocess.Popen(
        [sys.executable, "-m", "anomaly", "score", *map(str, words), "--part-size", str(PART_SIZE)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def wait_for(what: Any, process: subprocess.Popen[str]) -> Any:
    deadline = time.monotonic() + 240
    while not (found := what()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def parts_there(output: Path) -> int:
    return len(list((output / "rows").glob("*.parquet")))


def test_a_node_that_is_killed_half_way_costs_no_row_and_changes_none(
    two_nodes: Any, folder: Path, local: dict[str, bytes], inspector_folder: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    process = started(folder, output, inspector_folder, "--engine", "ray")
    (doomed,) = two_nodes.worker_nodes
    raylet = psutil.Process(doomed.all_processes["raylet"][0].process.pid)

    def worked_there() -> set[int]:
        return {child.pid for child in raylet.children(recursive=True)} & workers_of(output).keys()

    there = wait_for(worked_there, process)
    two_nodes.remove_node(doomed, allow_graceful=False)
    assert 1 <= parts_there(output) < PARTS, "it was killed half-way"
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    said = out.splitlines()[-1]  # before it, Ray tells of the node
    assert said.startswith(f"{output}: {PICTURES} pictures in {PARTS} parts, {PARTS} now: ")
    assert files_of(output) == local
    by = workers_of(output)
    assert by.total() == PARTS
    assert any(by[pid] for pid in there)
    assert len(by) >= 2


def test_a_driver_that_is_killed_half_way_is_gone_on_with_also_by_the_other_engine(
    folder: Path, local: dict[str, bytes], inspector_folder: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    process = started(folder, output, inspector_folder, "--engine", "ray", "--workers", "1")
    wait_for(lambda: parts_there(output) >= 3, process)
    listening = {
        socket.laddr.ip.removeprefix("::ffff:")
        for child in psutil.Process(process.pid).children(recursive=True)
        for socket in child.net_connections()
        if socket.status == psutil.CONN_LISTEN
    }
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert listening == {"127.0.0.1"}, "a cluster of its own is nobody else's"
    assert 3 <= parts_there(output) < PARTS
    for engine in ("ray", "local"):
        process = started(folder, output, inspector_folder, "--engine", engine, "--workers", "1")
        if engine == "ray":
            had = parts_there(output)
            wait_for(lambda had=had: parts_there(output) >= had + 3, process)
            process.send_signal(signal.SIGKILL)
        out, err = process.communicate()
    assert process.returncode == 0, err
    assert out.startswith(f"{output}: {PICTURES} pictures in {PARTS} parts, ")
    assert files_of(output) == local
