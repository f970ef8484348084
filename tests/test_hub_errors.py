"""Whatever goes wrong between here and the Hub is one clear error, soon, and never shows a token."""

import http.server
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from huggingface_hub import close_session, get_session
from loopback_hub import LoopbackHub
from released import INSPECTOR, Release, file_of, release, served

from anomaly import hub as registry
from anomaly.errors import (
    DiskFullError,
    HubUnreachableError,
    RegistryError,
    RepoGatedError,
    RepoNotFoundError,
    VigieError,
)
from anomaly.inspector import INSPECTOR_FILE
from anomaly.model_repo import MODEL_FILES

__all__ = ["release", "served"]  # fixtures

SOURCE = registry.Source(INSPECTOR, INSPECTOR)


def questions(release: Release) -> dict[str, Callable[[], object]]:
    """Everything that asks the Hub, by a part of the path of its first request."""
    commit, inspector = release.commits["v1"], release.folder / "v1" / "inspector"
    return {
        "/revision/v1": lambda: registry.resolve(SOURCE, "v1"),
        f"/revision/{commit}": lambda: registry.resolve(SOURCE, commit),
        "/refs": lambda: registry.list_revisions(SOURCE),
        "/commits/": lambda: registry.list_revisions(SOURCE),
        "/resolve/": lambda: registry.download(SOURCE, commit, [INSPECTOR_FILE]),
        f"/resolve/{commit}": lambda: registry.holds(SOURCE, commit, INSPECTOR_FILE),
        "waves/refs": lambda: registry.push(inspector, INSPECTOR, files=[INSPECTOR_FILE], message="again", tag="v3"),
    }


def refused(question: Callable[[], object]) -> VigieError:
    with pytest.raises(VigieError) as caught:
        question()
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "ANSWER_S", 0.3)


# No answer


def test_without_a_hub_every_question_is_answered_at_once(served: LoopbackHub, release: Release) -> None:
    served.stop()
    for question in questions(release).values():
        started = time.monotonic()
        assert isinstance(refused(question), HubUnreachableError)
        assert time.monotonic() - started < 3  # huggingface_hub alone takes 23 s


def test_a_silent_hub_is_given_up_soon(served: LoopbackHub, release: Release, impatient: None) -> None:
    for path, question in questions(release).items():
        served.fail_next(path_contains=path, delay_s=5)
        started = time.monotonic()
        assert isinstance(refused(question), HubUnreachableError)
        assert time.monotonic() - started < 2


def test_an_answer_is_waited_for_less_than_five_seconds(served: LoopbackHub) -> None:
    served.fail_next(path_contains="/revision/", delay_s=8)
    started = time.monotonic()
    assert isinstance(refused(lambda: registry.resolve(SOURCE, "v1")), HubUnreachableError)
    assert time.monotonic() - started < 5


def test_a_busy_or_broken_hub_is_told_with_its_status(served: LoopbackHub, release: Release) -> None:
    for status in (408, 429, 500, 502, 503, 504):
        for path, question in questions(release).items():
            served.fail_next(path_contains=path, status=status)
            error = refused(question)
            assert isinstance(error, HubUnreachableError)
            assert str(status) in str(error)


def test_a_dropped_connection_is_no_answer(served: LoopbackHub, release: Release) -> None:
    for path, question in questions(release).items():
        served.fail_next(path_contains=path, drop=True)
        assert isinstance(refused(question), HubUnreachableError)


def test_offline_mode_says_so(served: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    error = refused(lambda: registry.resolve(SOURCE, "v1"))
    assert isinstance(error, HubUnreachableError)
    assert "HF_HUB_OFFLINE" in str(error)


def test_a_connection_that_another_thread_closed_is_no_crash(served: LoopbackHub, release: Release) -> None:
    """huggingface_hub closes the one client of the process whenever a thread cannot connect."""
    get_session().close()
    try:
        assert isinstance(refused(lambda: registry.resolve(SOURCE, "v1")), HubUnreachableError)
    finally:
        close_session()
    assert registry.resolve(SOURCE, "v1") == release.commits["v1"]


class LoginPage(http.server.BaseHTTPRequestHandler):
    """What many a factory's proxy answers to everything."""

    body = b"<html>Please log in</html>"

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def login_page(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), LoginPage) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        yield
        server.shutdown()


def test_a_login_page_is_not_taken_for_the_hub(
    login_page: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    for body in (b"<html>Please log in</html>", b"{}", b'{"sha": "latest"}'):
        monkeypatch.setattr(LoginPage, "body", body)
        error = refused(lambda: registry.resolve(SOURCE, "v1"))
        assert isinstance(error, HubUnreachableError)
        assert "not" in str(error)


@pytest.mark.parametrize("endpoint", ["huggingface.co", "ftp://127.0.0.1", "https://a b:x"])
def test_a_wrong_address_of_the_hub_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, endpoint: str) -> None:
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert "HF_ENDPOINT" in str(refused(lambda: registry.resolve(SOURCE, "v1")))


# No permission


def test_a_gated_repo_is_told_from_a_missing_one(
    served: LoopbackHub, release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.set_gated(INSPECTOR)
    for token in ("hf_loopback_bob", ""):
        monkeypatch.setenv("HF_TOKEN", token)
        commit = registry.resolve(SOURCE, "v1")
        assert isinstance(refused(lambda: registry.download(SOURCE, commit, [INSPECTOR_FILE])), RepoGatedError)  # noqa: B023
    monkeypatch.setenv("HF_TOKEN", "hf_loopback_alice")
    registry.download(SOURCE, commit, [INSPECTOR_FILE])


def test_a_private_repo_looks_missing_to_everybody_else(
    served: LoopbackHub, release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.set_private(INSPECTOR)
    reading = [question for path, question in questions(release).items() if path != "waves/refs"]
    for token in ("hf_loopback_bob", ""):
        monkeypatch.setenv("HF_TOKEN", token)
        for question in reading:
            assert isinstance(refused(question), RepoNotFoundError)
    missing = registry.Source("alice/nothing", "alice/nothing")
    assert isinstance(refused(lambda: registry.resolve(missing)), RepoNotFoundError)


def test_only_the_owner_may_push(served: LoopbackHub, release: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    push = questions(release)["waves/refs"]
    for token, word in (("hf_loopback_bob", "may not do this"), ("", "set HF_TOKEN"), ("hf_wrong", "set HF_TOKEN")):
        monkeypatch.setenv("HF_TOKEN", token)
        error = refused(push)
        assert type(error) is RegistryError
        assert word in str(error)
    assert served.repo(INSPECTOR).refs()["refs/heads/main"] == release.commits["v2"]


def test_no_error_shows_the_token(served: LoopbackHub, release: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    served.set_private(INSPECTOR)
    for token in ("hf_wrong_secret", "hf_secret\x01", "hf_sécret", "hf secret", "hf_loopback_bob"):
        monkeypatch.setenv("HF_TOKEN", token)
        for question in questions(release).values():
            told = "".join(traceback.format_exception(refused(question)))
            for part in (token, repr(token)[1:-1], token.encode().decode("latin-1"), repr(token.encode())[2:-1]):
                assert part not in told


# No room


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "none", folder], capture_output=True, check=False, text=True
    )
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.filterwarnings("ignore:Not enough free disk space")
def test_a_full_disk_stops_a_download_and_leaves_no_half_file(
    served: LoopbackHub, release: Release, small_disk: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(small_disk))
    ref = file_of(release, "v1").members[0]
    source = SOURCE.sibling(ref.repo)
    assert (release.folder / "v1" / ref.name / "model.safetensors").stat().st_size > 64 * 1024
    error = refused(lambda: registry.download(source, ref.commit, MODEL_FILES))
    assert isinstance(error, DiskFullError)
    assert "HF_HUB_CACHE" in str(error)
    assert not list(small_disk.rglob("*.incomplete"))
    assert not list(small_disk.rglob("model.safetensors"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "elsewhere"))
    registry.download(source, ref.commit, MODEL_FILES)


def test_a_full_disk_stops_a_release_into_a_folder_and_leaves_nothing(release: Release, small_disk: Path) -> None:
    error = refused(
        lambda: registry.store(
            release.folder / "v1" / "autoencoder", small_disk, "alice/x", files=MODEL_FILES, tag="v1"
        )
    )
    assert isinstance(error, DiskFullError)
    assert not [path for path in small_disk.rglob("*") if path.is_file()]
    assert isinstance(refused(lambda: registry.resolve(registry.Source("x", "alice/x", small_disk))), RegistryError)


def test_a_limit_on_the_size_of_files_is_no_room_either(served: LoopbackHub, release: Release, tmp_path: Path) -> None:
    """The same without a mount: a quota of the process, which needs no rights."""
    ref = file_of(release, "v1").members[0]
    code = f"""
import resource
from anomaly import hub
from anomaly.errors import DiskFullError
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
try:
    hub.download(hub.Source("x", "{ref.repo}"), "{ref.commit}", ["model.safetensors"])
except DiskFullError as error:
    print("full:", error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout.startswith(f"full: {ref.repo}@{ref.commit[:12]}")
    assert not list((tmp_path / "cache").rglob("*.incomplete"))
