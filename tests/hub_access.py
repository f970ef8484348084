"""Who asks the loopback Hub, for which repo, and may they: its refusals and the FastAPI dependencies of its routes."""

from typing import Annotated, Literal

import bare_git
from bare_git import BareRepo
from fastapi import Depends, Request
from fastapi.responses import JSONResponse

Kind = Literal["models", "datasets", "spaces"]


class HubError(Exception):
    """An answer other than 200. huggingface_hub picks its exception by `code` (X-Error-Code), else by status."""

    def __init__(self, status: int, message: str, code: str = "", commit: str = "") -> None:
        super().__init__(message)
        self.status, self.code, self.commit = status, code, commit


GIT_ERRORS: dict[type[Exception], tuple[int, str]] = {
    bare_git.UnknownRevisionError: (404, "RevisionNotFound"),
    bare_git.UnknownEntryError: (404, "EntryNotFound"),
    bare_git.RefExistsError: (409, ""),
    bare_git.StaleParentError: (412, ""),
    bare_git.GitError: (400, ""),
}


def answer_error(request: Request, error: Exception) -> JSONResponse:
    """What `error` looks like on the wire; `error` is a HubError or one of GIT_ERRORS."""
    if not isinstance(error, HubError):
        status, code = GIT_ERRORS[type(error)]
        error = HubError(status, str(error), code)
    headers = {"X-Error-Message": str(error), "X-Error-Code": error.code, "X-Repo-Commit": error.commit}
    sendable = {name: ascii(value)[1:-1] for name, value in headers.items() if value}  # one line of ASCII each
    return JSONResponse({"error": str(error)}, error.status, sendable)


def current_user(request: Request) -> str | None:
    token = request.headers.get("authorization", "").removeprefix("Bearer ")
    if token and token not in request.app.state.tokens:
        raise HubError(401, "Invalid credentials in Authorization header")
    user: str | None = request.app.state.tokens.get(token)
    return user


User = Annotated[str | None, Depends(current_user)]


def located(request: Request, kind: Kind, namespace: str, name: str) -> BareRepo:
    return repo_at(request, kind, namespace, name)


def repo_at(request: Request, kind: str, owner: str, name: str) -> BareRepo:
    return BareRepo(request.app.state.root / kind / owner / f"{name}.git")


def readable(repo: Annotated[BareRepo, Depends(located)], user: User) -> BareRepo:
    if not repo.exists() or (repo.settings().private and user != repo.owner):
        # A private repo looks like a missing one, and without a token both look like a missing token.
        raise HubError(404 if user else 401, "Repository not found", "RepoNotFound")
    return repo


def downloadable(repo: Annotated[BareRepo, Depends(readable)], user: User) -> BareRepo:
    # Only the files of a gated repo are closed; its info, refs and listing stay open, as on the real Hub.
    if repo.settings().gated and user != repo.owner:
        raise HubError(403 if user else 401, f"Access to {repo.id} is restricted", "GatedRepo")
    return repo


def writable(repo: Annotated[BareRepo, Depends(readable)], user: User) -> BareRepo:
    if user != repo.owner:
        raise HubError(403 if user else 401, f"You have no write access to {repo.id}")
    return repo


async def raw_body(request: Request) -> bytes:
    return await request.body()


Located = Annotated[BareRepo, Depends(located)]
Readable = Annotated[BareRepo, Depends(readable)]
Downloadable = Annotated[BareRepo, Depends(downloadable)]
Writable = Annotated[BareRepo, Depends(writable)]
Body = Annotated[bytes, Depends(raw_body)]
