"""Releasing into a local folder: the same content is the same commit, and whoever is killed leaves what was there."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from anomaly import hub as registry
from anomaly.errors import RegistryError, RevisionNotFoundError

REPO = "alice/cable"
FILES = ("config.json", "model.safetensors")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write(tmp_path / "model", b"one")


def write(folder: Path, weights: bytes) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(weights)
    return folder


def store(model: Path, cache: Path, tag: str | None = None) -> str:
    return registry.store(model, cache, REPO, files=FILES, tag=tag)


def source(cache: Path) -> registry.Source:
    return registry.Source(REPO, REPO, cache)


def seen(cache: Path) -> list[tuple[str, str, str]]:
    return [(revision.kind, revision.name, revision.commit) for revision in registry.list_revisions(source(cache))]


def test_the_same_files_are_the_same_commit_wherever_they_are_stored(model: Path, tmp_path: Path) -> None:
    commit = store(model, tmp_path / "a", "v1")
    assert store(model, tmp_path / "a", "v1") == store(model, tmp_path / "b") == commit
    assert len(commit) == 40
    assert seen(tmp_path / "a") == [("tag", "v1", commit), ("branch", "main", commit), ("commit", commit, commit)]


def test_other_files_are_another_commit(model: Path, tmp_path: Path) -> None:
    first = store(model, tmp_path / "a", "v1")
    second = store(write(tmp_path / "other", b"two"), tmp_path / "a", "v2")
    assert first != second
    assert [name for _, name, _ in seen(tmp_path / "a")][:3] == ["v2", "v1", "main"]
    assert registry.resolve(source(tmp_path / "a")) == second
    folder = registry.download(source(tmp_path / "a"), first, FILES)
    assert (folder / "model.safetensors").read_bytes() == b"one"


def test_a_tag_stays_at_its_commit(model: Path, tmp_path: Path) -> None:
    commit = store(model, tmp_path / "a", "v1")
    with pytest.raises(RegistryError, match=f"tag v1 already, at {commit[:12]}"):
        store(write(tmp_path / "other", b"two"), tmp_path / "a", "v1")
    assert seen(tmp_path / "a") == [("tag", "v1", commit), ("branch", "main", commit), ("commit", commit, commit)]


def test_a_file_that_does_not_exist_is_named(model: Path, tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match=r"README\.md missing"):
        registry.store(model, tmp_path / "a", REPO, files=[*FILES, "README.md"])
    assert not (tmp_path / "a").exists()


def test_whatever_is_half_written_is_not_seen(model: Path, tmp_path: Path) -> None:
    commit = store(model, tmp_path / "a", "v1")
    repo = tmp_path / "a" / "models--alice--cable"
    (repo / "snapshots" / f".{'f' * 40}").mkdir()
    (repo / "refs" / "v2.1a2b3c4d.tmp").write_text(commit)  # as huggingface_hub writes a ref
    (repo / "refs" / "v3").write_text("")
    assert seen(tmp_path / "a") == [("tag", "v1", commit), ("branch", "main", commit), ("commit", commit, commit)]
    with pytest.raises(RevisionNotFoundError):
        registry.resolve(source(tmp_path / "a"), "v3")


@pytest.mark.parametrize("moment", ["shutil.copyfile", "pathlib.Path.rename", "pathlib.Path.replace"])
@pytest.mark.parametrize("call", [1, 2])
def test_a_killed_release_is_seen_whole_or_not_at_all(model: Path, tmp_path: Path, moment: str, call: int) -> None:
    cache = tmp_path / "a"
    old = store(write(tmp_path / "old", b"old"), cache, "v1")
    code = f"""
import os, pathlib, shutil, signal
from anomaly import hub
calls = []
def dying(*args, original={moment}):
    calls.append(args)
    if len(calls) == {call}:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*args)
{moment} = dying
hub.store(pathlib.Path({str(model)!r}), pathlib.Path({str(cache)!r}), {REPO!r}, files={FILES!r}, tag="v2")
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == (0 if moment.endswith("rename") and call == 2 else -signal.SIGKILL)
    for kind, _, commit in seen(cache):
        assert commit == old or (registry.download(source(cache), commit, FILES) / FILES[1]).read_bytes() == b"one", (
            kind
        )
    assert ("tag", "v1", old) in seen(cache)
    new = store(model, cache, "v2")
    assert seen(cache)[:3] == [("tag", "v2", new), ("tag", "v1", old), ("branch", "main", new)]


def test_two_that_store_the_same_at_once_both_succeed(model: Path, tmp_path: Path) -> None:
    (model / "model.safetensors").write_bytes(bytes(4_000_000))
    commits: list[str] = []
    threads = [threading.Thread(target=lambda: commits.append(store(model, tmp_path / "a", "v1"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(commits) == 8
    assert len(set(commits)) == 1
    assert [path.name for path in (tmp_path / "a" / "models--alice--cable" / "snapshots").iterdir()] == commits[:1]


def test_a_release_can_be_read_by_another_user(model: Path, tmp_path: Path) -> None:
    store(model, tmp_path / "a", "v1")
    (snapshot,) = (tmp_path / "a" / "models--alice--cable" / "snapshots").iterdir()
    assert snapshot.stat().st_mode == snapshot.parent.stat().st_mode
