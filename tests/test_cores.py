"""What a process takes of the machine: cores, memory."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from anomaly.cores import given_cores, use_given_cores


@pytest.mark.parametrize(("words", "cores"), [("100000 100000", 1), ("50000 100000", 1), ("900000000 100000", None)])
def test_a_quota_of_version_2_counts_where_it_is_less(tmp_path: Path, words: str, cores: int | None) -> None:
    (tmp_path / "cpu.max").write_text(words + "\n")
    assert given_cores(tmp_path) == (cores or len(os.sched_getaffinity(0)))


def test_a_quota_of_version_1_counts_too(tmp_path: Path) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("100000\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert given_cores(tmp_path) == 1


@pytest.mark.parametrize("words", ["max 100000", "-1 100000", "nonsense"])
def test_without_a_quota_it_is_the_affinity(tmp_path: Path, words: str) -> None:
    (tmp_path / "cpu.max").write_text(words)
    assert given_cores(tmp_path) == given_cores(tmp_path / "missing") == len(os.sched_getaffinity(0))


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """torch's threads may be set, and are put back; no variable speaks of them."""
    before = torch.get_num_threads()
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(variable, raising=False)
    yield monkeypatch
    torch.set_num_threads(before)


def test_threads_are_lowered_to_the_cores_and_never_raised(threads: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(given_cores() + 5)
    assert use_given_cores() == torch.get_num_threads() == given_cores()
    torch.set_num_threads(1)
    assert use_given_cores() == torch.get_num_threads() == 1


@pytest.mark.parametrize("variable", ["OMP_NUM_THREADS", "MKL_NUM_THREADS"])
def test_threads_that_the_environment_asks_for_are_left(threads: pytest.MonkeyPatch, variable: str) -> None:
    wanted = given_cores() + 3
    threads.setenv(variable, str(wanted))
    torch.set_num_threads(wanted)
    assert use_given_cores() == torch.get_num_threads() == wanted


FAULTS = """
import resource
import torch
from anomaly.cores import keep_freed_memory
keep_freed_memory()
def picture():
    maps = [torch.ones(2**20) for _ in range(15)]  # 4 MB each
for _ in range(5):
    picture()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    picture()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(
    not hasattr(os, "confstr") or "glibc" not in (os.confstr("CS_GNU_LIBC_VERSION") or ""), reason="glibc"
)
def test_memory_of_one_picture_is_kept_for_the_next() -> None:
    """Three processes: without asking for it, it is kept in some and handed back in others."""
    for _ in range(3):
        told = subprocess.run([sys.executable, "-c", FAULTS], check=True, capture_output=True, text=True).stdout
        assert int(told) < 100  # of 15,000 pages a picture
