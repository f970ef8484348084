"""A Hugging Face Hub on 127.0.0.1 for tests: bare git repositories behind the Hub's HTTP API, faults on demand.

By hand: `python tests/loopback_hub.py --root DIR --port N`, then set HF_ENDPOINT, HF_TOKEN and HF_HUB_DISABLE_XET=1.
"""

import argparse
import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import pytest
import uvicorn
from bare_git import BareRepo
from fastapi.responses import JSONResponse
from hub_api import build_app
from huggingface_hub import constants
from starlette.types import Message, Receive, Scope, Send

TOKENS = {"hf_loopback_alice": "alice", "hf_loopback_bob": "bob"}
DROPPED = 0  # the status in `LoopbackHub.log` of a request that got no answer


@dataclass(slots=True)
class _Fault:
    path_contains: str
    status: int | None
    drop: bool
    delay_s: float
    times_left: int


class LoopbackHub:
    """Serves the repositories below `root` from a daemon thread while the `with` block runs.

    Args:
        root: Folder of the repositories; what an earlier Hub left there is served again.
        tokens: Token -> user. A user may write below the namespace of the same name and nowhere else.
        port: 0 takes a free one.

    Attributes:
        url: `http://127.0.0.1:PORT`, the same before, during and after a `stop`.
        log: (method, path?query as sent, status) of every request, in the order of the answers.
    """

    def __init__(self, root: Path, tokens: dict[str, str] | None = None, port: int = 0) -> None:
        self.root = root
        self.log: list[tuple[str, str, int]] = []
        self._app = build_app(root, TOKENS if tokens is None else tokens)
        self._faults: list[_Fault] = []
        self._socket = _bind(port)
        self._port: int = self._socket.getsockname()[1]
        self._server: uvicorn.Server | None = None
        self._thread = threading.Thread()
        self.url = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Answers from now on."""
        if self._server is not None:
            return
        # Without a log configuration of its own, the traceback of a 500 reaches pytest's captured log.
        config = uvicorn.Config(
            self._serve, interface="asgi3", log_config=None, lifespan="off", timeout_graceful_shutdown=1
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), daemon=True)
        self._thread.start()
        while not self._server.started:
            if not self._thread.is_alive():
                raise RuntimeError(f"the Hub did not start on {self.url}; is the port taken?")
            time.sleep(0.005)

    def stop(self) -> None:
        """Goes away: connections are refused until `start`. A request under way has one second left."""
        if self._server is None:
            return
        self._server.should_exit = True
        self._thread.join()
        self._server = None
        # Bound without listening: refuses every connection, and nobody else can take the port meanwhile.
        self._socket = _bind(self._port)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()
        self._socket.close()

    def set_gated(self, repo_id: str, gated: bool = True, *, repo_type: str = "model") -> None:
        """Files open to the owner only (GatedRepoError); info, refs and listing stay open, as on the real Hub."""
        repo = self.repo(repo_id, repo_type)
        repo.save_settings(replace(repo.settings(), gated="manual" if gated else False))

    def set_private(self, repo_id: str, private: bool = True, *, repo_type: str = "model") -> None:
        """To everybody but the owner the repo looks as if it did not exist (RepositoryNotFoundError)."""
        repo = self.repo(repo_id, repo_type)
        repo.save_settings(replace(repo.settings(), private=private))

    def fail_next(
        self,
        *,
        path_contains: str,
        status: int | None = None,
        drop: bool = False,
        delay_s: float = 0,
        times: int = 1,
    ) -> None:
        """Spoils the next `times` requests whose path?query, as sent, contains `path_contains`.

        They wait for `delay_s`; then `drop` closes the socket without an answer, `status` answers that and does
        nothing else. With a delay alone the request is then served, even if its client has given up.
        """
        self._faults.append(_Fault(path_contains, status, drop, delay_s, times))

    def flip_byte(self, repo_id: str, path: str, revision: str = "main", *, repo_type: str = "model") -> None:
        """Inverts the middle byte of a stored LFS object: downloads have the right size and the wrong sha256.

        Raises:
            ValueError: The file is not stored with LFS.
        """
        repo = self.repo(repo_id, repo_type)
        entry = repo.file(repo.resolve(revision), path)
        if entry.lfs_oid is None:
            raise ValueError(f"{path!r} of {repo_id} is not an LFS file; choose one of its weights")
        with repo.lfs_file(entry.lfs_oid).open("r+b") as stored:
            stored.seek(entry.size // 2)
            byte = stored.read(1)[0]
            stored.seek(entry.size // 2)
            stored.write(bytes([byte ^ 0xFF]))

    def repo(self, repo_id: str, repo_type: str = "model") -> BareRepo:
        """The git repository itself, to look behind the HTTP API."""
        return BareRepo(self.root / f"{repo_type}s" / f"{repo_id}.git")

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["raw_path"].decode()
        sent_path = f"{path}?{scope['query_string'].decode()}".removesuffix("?")

        async def send_logged(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.log.append((scope["method"], sent_path, message["status"]))
            await send(message)

        fault = self._take_fault(sent_path)
        if fault:
            await asyncio.sleep(fault.delay_s)
        if fault and fault.drop:
            self.log.append((scope["method"], sent_path, DROPPED))
            # ASGI has no word for it; uvicorn's request cycle, whose method `receive` is, holds the TCP transport.
            cycle: Any = receive.__self__  # type: ignore[attr-defined]
            cycle.transport.abort()
        elif fault and fault.status:
            await JSONResponse({"error": "injected fault"}, fault.status)(scope, receive, send_logged)
        else:
            # Matched as sent, so that %2F stays inside a revision; models have no kind in their page addresses.
            kind = "" if path.startswith(("/api/", "/datasets/", "/spaces/")) else "/models"
            await self._app({**scope, "path": kind + path}, receive, send_logged)

    def _take_fault(self, sent_path: str) -> _Fault | None:
        for fault in self._faults:
            if fault.times_left and fault.path_contains in sent_path:
                fault.times_left -= 1
                return fault
        return None


def _bind(port: int) -> socket.socket:
    # asyncio turns Nagle's algorithm off only where the protocol is named; with it every answer takes 40 ms longer.
    bound = socket.socket(proto=socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(("127.0.0.1", port))
    return bound


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """A running, empty Hub. The client in this process uploads through LFS (Xet needs the real Hub) and is online."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with LoopbackHub(tmp_path / "hub") as running:
        yield running


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="folder of the repositories")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    args = parser.parse_args()
    with LoopbackHub(args.root, port=args.port) as served:
        print(f"{served.url} tokens: {', '.join(TOKENS)}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
