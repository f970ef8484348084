"""Publishing to the Hub: one commit and one tag, or what was there before. Real processes are really killed."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import HfApi, ModelCard
from loopback_hub import DROPPED, LoopbackHub
from released import Release, file_of, release, served

from anomaly import hub as registry
from anomaly.errors import HubUnreachableError, RegistryError, StaleParentError, VigieError
from anomaly.model_repo import MODEL_FILES

__all__ = ["release", "served"]  # fixtures

REPO = "alice/waves-autoencoder"
SOURCE = registry.Source(REPO, REPO)


@pytest.fixture
def model(release: Release, tmp_path: Path) -> Path:
    """A folder with the files of a third release of REPO."""
    folder = tmp_path / "model"
    folder.mkdir()
    for name in MODEL_FILES:
        (folder / name).write_bytes((release.folder / "v2" / "patch_knn" / name).read_bytes())
    return folder


def push(folder: Path, tag: str | None = "v3", **options: str) -> str:
    return registry.push(folder, REPO, files=MODEL_FILES, message="third", tag=tag, **options)


def state(hub: LoopbackHub) -> list[tuple[str, str]]:
    """What a reader sees."""
    return [(revision.name, revision.commit) for revision in registry.list_revisions(SOURCE)]


def writes(hub: LoopbackHub) -> list[str]:
    return [path for method, path, _ in hub.log if method not in ("GET", "HEAD")]


def same_files(folder: Path, commit: str) -> bool:
    there = registry.download(SOURCE, commit, MODEL_FILES)
    return all((there / name).read_bytes() == (folder / name).read_bytes() for name in MODEL_FILES)


# What a push does


def test_a_push_is_one_commit_with_its_tag(served: LoopbackHub, model: Path) -> None:
    before = state(served)
    commit = push(model)
    assert state(served)[0] == ("v3", commit)
    assert len(served.repo(REPO).history(commit)) == len(served.repo(REPO).history(before[0][1])) + 1
    assert same_files(model, commit)


def test_a_push_uploads_the_named_files_and_nothing_else(served: LoopbackHub, model: Path) -> None:
    (model / "secret.txt").write_text("not for the world")
    (model / "sub").mkdir()
    (model / "sub" / "config.json").write_text("{}")
    commit = push(model)
    names = {entry.path for entry in served.repo(REPO).entries(commit)}
    assert names == {*MODEL_FILES, ".gitattributes"}


def test_the_same_files_again_are_the_same_commit(served: LoopbackHub, model: Path) -> None:
    commit = push(model)
    assert push(model, "v4") == commit
    assert push(model, None) == commit
    assert state(served)[:2] == [("v4", commit), ("v3", commit)]


def test_a_repo_that_is_not_there_is_created(served: LoopbackHub, model: Path) -> None:
    commit = registry.push(model, "alice/new", files=MODEL_FILES, message="first", tag="v1", private=True)
    assert registry.resolve(registry.Source("alice/new", "alice/new"), "v1") == commit
    assert HfApi(endpoint=served.url).model_info("alice/new").private


def test_a_card_that_is_not_valid_is_refused_before_the_commit(served: LoopbackHub, model: Path) -> None:
    before = state(served)
    (model / "README.md").write_text("---\ntags: [a\n---\n# Card\n")
    with pytest.raises(RegistryError):
        registry.push(model, REPO, files=[*MODEL_FILES, "README.md"], message="card", tag="v3")
    assert state(served) == before
    ModelCard("---\ntags:\n- vigie\n---\n# Card\n").save(model / "README.md")
    registry.push(model, REPO, files=[*MODEL_FILES, "README.md"], message="card", tag="v3")


# What is refused before anything is uploaded


def test_a_tag_that_exists_is_refused_before_anything_is_uploaded(served: LoopbackHub, model: Path) -> None:
    before = state(served)
    with pytest.raises(RegistryError, match=f"tag v1 already, at {before[1][1][:12]}"):
        push(model, "v1")
    assert writes(served) == []
    assert state(served) == before


def test_a_stale_parent_is_refused_before_anything_is_uploaded(
    served: LoopbackHub, model: Path, release: Release
) -> None:
    first, second = (ref_commit(release, tag) for tag in ("v1", "v2"))
    with pytest.raises(StaleParentError, match=second):
        push(model, parent=first)
    assert writes(served) == []
    push(model, parent=second)


def test_a_tag_that_git_or_a_reader_would_mistake_is_refused(served: LoopbackHub, model: Path) -> None:
    odd = ("", "v 1", "é", "..", "v..1", "-v", "v1.lock", "a/b", "main", "v1\n", "deadbeef", "0" * 40, "v" * 200)
    for tag in odd:
        with pytest.raises(RegistryError, match="cannot be a tag"):
            push(model, tag)
        with pytest.raises(RegistryError, match="cannot be a tag"):
            registry.store(model, model / "cache", REPO, files=MODEL_FILES, tag=tag)
    assert served.log == []


def test_a_repo_id_the_hub_would_not_take_is_refused(served: LoopbackHub, model: Path) -> None:
    for repo in ("alice/wäves", "alice/a b", "alice/a--b", "alice/x.git", "a/b/c", "alice/", "", "../x"):
        with pytest.raises(RegistryError, match="is not the id of a repo"):
            registry.push(model, repo, files=MODEL_FILES, message="first")
        with pytest.raises(RegistryError, match="is not the id of a repo"):
            registry.store(model, model / "cache", repo, files=MODEL_FILES)
    assert served.log == []


def test_a_file_that_does_not_exist_is_named(served: LoopbackHub, model: Path) -> None:
    (model / "config.json").unlink()
    with pytest.raises(RegistryError, match=r"config\.json missing"):
        push(model)
    assert served.log == []


# Somebody else at the same time


def test_a_commit_in_between_is_not_overwritten(served: LoopbackHub, model: Path) -> None:
    served.fail_next(path_contains="/preupload/", delay_s=0.6)
    errors: list[VigieError] = []

    def late() -> None:
        with pytest.raises(StaleParentError) as caught:
            push(model)
        errors.append(caught.value)

    pusher = threading.Thread(target=late)
    pusher.start()
    wait_for(lambda: any(path.endswith("/refs") for _, path, _ in served.log))
    other = served.repo(REPO).commit("main", [("notes.txt", b"mine")], "in between", "alice")
    pusher.join()
    assert len(errors) == 1
    assert state(served)[0][0] == "v2"
    assert registry.resolve(SOURCE) == other
    push(model)


# A push that dies


@pytest.mark.parametrize("fault", [{"drop": True}, {"status": 502}])
def test_a_push_that_loses_the_hub_leaves_what_was_there_and_can_be_repeated(
    served: LoopbackHub, model: Path, fault: dict[str, int]
) -> None:
    before = state(served)
    served.fail_next(path_contains="/commit/", **fault)
    with pytest.raises(HubUnreachableError):
        push(model)
    assert state(served) == before
    assert same_files(model, push(model))


def test_a_push_that_loses_the_hub_before_its_tag_gets_it_the_next_time(served: LoopbackHub, model: Path) -> None:
    served.fail_next(path_contains="/tag/", drop=True)
    with pytest.raises(HubUnreachableError):
        push(model)
    commit = registry.resolve(SOURCE)
    assert same_files(model, commit)  # main is whole
    assert "v3" not in dict(state(served))
    assert push(model) == commit
    assert state(served)[0] == ("v3", commit)


def test_an_upload_that_is_cut_off_is_tried_again(served: LoopbackHub, model: Path) -> None:
    served.fail_next(path_contains="/api/lfs/", drop=True)
    assert same_files(model, push(model))
    assert DROPPED in [status for _, path, status in served.log if path.startswith("/api/lfs/")]


@pytest.mark.parametrize(("stage", "last_answer", "answers"), [("/api/lfs/", "/batch", 1), ("/commit/", "/verify", 2)])
def test_a_killed_push_leaves_what_was_there_and_can_be_repeated(
    served: LoopbackHub, model: Path, stage: str, last_answer: str, answers: int
) -> None:
    before = state(served)
    served.fail_next(path_contains=stage, delay_s=1, drop=True)
    push_and_die(served, model, last_answer, answers)
    assert state(served) == before
    assert same_files(model, push(model))
    assert state(served)[0][0] == "v3"


def push_and_die(served: LoopbackHub, model: Path, last_answer: str, answers: int) -> None:
    code = f"""
from pathlib import Path
from anomaly import hub
hub.push(Path({str(model)!r}), {REPO!r}, files={MODEL_FILES!r}, message="third", tag="v3")
"""
    with subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"HF_HUB_DISABLE_XET": "1"}) as process:
        wait_for(lambda: sum(path.endswith(last_answer) for _, path, _ in served.log) == answers)
        time.sleep(0.2)  # now it waits for the answer to its next request
        process.kill()
    assert process.returncode == -signal.SIGKILL


def ref_commit(release: Release, tag: str) -> str:
    return next(ref.commit for ref in file_of(release, tag).members if ref.repo == REPO)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
