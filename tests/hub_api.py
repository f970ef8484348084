"""The HTTP API of the Hub over bare git repositories, as huggingface_hub 2.4.0 speaks it (its hf_api.py and lfs.py).

The routes expect the path undecoded (a slash inside a revision stays %2F) and with the kind in front
(`/models/alice/cable/resolve/...`): loopback_hub.py sees to both.
Left out: Xet, pull requests, moving repos, squashing, pages of a listing (all comes at once).
"""

import base64
import json
import re
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import parse_qs, unquote

import bare_git
import hub_spaces
import yaml
from bare_git import BareRepo, Entry
from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse
from hub_access import (
    GIT_ERRORS,
    Body,
    Downloadable,
    HubError,
    Kind,
    Located,
    Readable,
    User,
    Writable,
    answer_error,
    readable,
    repo_at,
    writable,
)
from pydantic import AfterValidator

LFS_SUFFIXES = (".safetensors", ".bin", ".npz", ".onnx", ".png", ".jpg")
LFS_BYTES = 10_000_000  # anything larger goes to LFS, and anything with a zero byte in its first 512

Quoted = Annotated[str, AfterValidator(unquote)]  # one piece of the path as sent; a slash inside it came as %2F
Json = dict[str, Any]
router = APIRouter()


def build_app(root: Path, tokens: Mapping[str, str]) -> FastAPI:
    """The Hub whose repositories lie below `root`; `tokens` gives the user of each token."""
    app = FastAPI(openapi_url=None)
    app.state.root, app.state.tokens = root, tokens
    app.include_router(hub_spaces.router)
    app.include_router(router)
    app.add_exception_handler(HubError, answer_error)
    for error in GIT_ERRORS:
        app.add_exception_handler(error, answer_error)
    return app


# Accounts and repos


@router.get("/api/whoami-v2")
def whoami(user: User) -> Json:
    if user is None:
        raise HubError(401, "Invalid username or password.")
    token = {"displayName": "loopback", "role": "write"}
    return {"type": "user", "name": user, "fullname": user, "orgs": [], "auth": {"accessToken": token}}


@router.post("/api/repos/create")
def create_repo(request: Request, user: User, body: Json) -> JSONResponse:
    owner = body.get("organization") or user
    if user is None or owner != user:
        raise HubError(403 if user else 401, f"You have no write access to {owner}")
    kind = f"{body.get('type') or 'model'}s"
    repo = repo_at(request, kind, owner, body["name"])
    answer = {"url": _page(request, kind, repo.id), "name": repo.id, "id": repo.id}
    settings = bare_git.Settings(time.time(), body.get("visibility") == "private", sdk=body.get("sdk"))
    attributes = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS_SUFFIXES)
    try:
        created = BareRepo.create(repo.path, settings, [(".gitattributes", attributes.encode())])
    except bare_git.RefExistsError:  # the client reads the address from this answer as well
        return JSONResponse({"error": f"You already created {repo.id}", **answer}, 409)
    if kind == "spaces":
        hub_spaces.created(created, body)
    return JSONResponse(answer)


@router.delete("/api/repos/delete")
def delete_repo(request: Request, user: User, body: Json) -> Json:
    kind = f"{body.get('type') or 'model'}s"
    repo = repo_at(request, kind, body.get("organization") or user or "", body["name"])
    writable(readable(repo, user), user).delete()
    return {}


@router.put("/api/{kind}/{namespace}/{name}/settings")
def update_settings(repo: Writable, body: Json) -> Json:
    settings = repo.settings()
    private = body["visibility"] == "private" if "visibility" in body else settings.private
    repo.save_settings(replace(settings, private=private, gated=body.get("gated", settings.gated)))
    return body


@router.get("/api/{kind}")
def list_repos(request: Request, kind: Kind, user: User, author: str = "", search: str = "") -> list[Json]:
    repos = [BareRepo(path) for path in sorted((request.app.state.root / kind).glob(f"{author or '*'}/*.git"))]
    shown = [repo for repo in repos if search in repo.id and (repo.owner == user or not repo.settings().private)]
    return [_describe(repo, repo.resolve("main"), blobs=False) for repo in shown]


@router.get("/api/{kind}/{namespace}/{name}/auth-check")
def auth_check(repo: Downloadable) -> Json:
    return {}


@router.get("/api/{kind}/{namespace}/{name}")
@router.get("/api/{kind}/{namespace}/{name}/revision/{revision}")
def repo_info(repo: Readable, revision: Quoted = "main", blobs: bool = False) -> Json:
    return _describe(repo, repo.resolve(revision), blobs)


# Branches, tags, history, listings


@router.get("/api/{kind}/{namespace}/{name}/refs")
def list_refs(repo: Readable) -> Json:
    def below(prefix: str) -> list[Json]:
        refs = [(ref, commit) for ref, commit in repo.refs().items() if ref.startswith(prefix)]
        return [{"name": ref.removeprefix(prefix), "ref": ref, "targetCommit": commit} for ref, commit in refs]

    return {"branches": below("refs/heads/"), "tags": below("refs/tags/"), "converts": [], "pullRequests": []}


@router.post("/api/{kind}/{namespace}/{name}/branch/{branch}")
def create_branch(repo: Writable, branch: Quoted, body: Json) -> Json:
    repo.create_ref("branch", branch, repo.resolve(body.get("startingPoint") or "main"))
    return {}


@router.post("/api/{kind}/{namespace}/{name}/tag/{revision}")
def create_tag(repo: Writable, revision: Quoted, body: Json) -> Json:
    repo.create_ref("tag", body["tag"], repo.resolve(revision), body.get("message", ""))
    return {}


@router.delete("/api/{kind}/{namespace}/{name}/{ref_kind}/{ref}")
def delete_ref(repo: Writable, ref_kind: Literal["branch", "tag"], ref: Quoted) -> Json:
    repo.delete_ref(ref_kind, ref)
    return {}


@router.get("/api/{kind}/{namespace}/{name}/commits/{revision}")
def list_commits(repo: Readable, revision: Quoted) -> list[Json]:
    return [
        {
            "id": commit.oid,
            "title": commit.title,
            "message": commit.description,
            "date": _date(commit.date),
            "authors": [{"user": commit.author}],
        }
        for commit in repo.history(repo.resolve(revision))
    ]


@router.get("/api/{kind}/{namespace}/{name}/tree/{revision}")
@router.get("/api/{kind}/{namespace}/{name}/tree/{revision}/{folder:path}")
def list_tree(repo: Readable, revision: Quoted, folder: Quoted = "", recursive: bool = False) -> list[Json]:
    return [_tree_line(entry) for entry in repo.entries(repo.resolve(revision), folder, recursive=recursive)]


@router.post("/api/{kind}/{namespace}/{name}/paths-info/{revision}")
def paths_info(repo: Readable, revision: Quoted, body: Body) -> list[Json]:
    wanted = parse_qs(body.decode())["paths"]
    return [_tree_line(entry) for entry in repo.entries(repo.resolve(revision)) if entry.path in wanted]


# Upload: ask how each file goes, send the large ones to LFS, then one commit names them all


@router.post("/api/validate-yaml")
def validate_yaml(body: Json) -> JSONResponse:
    try:
        _front_matter(body["content"])
    except yaml.YAMLError as error:
        return JSONResponse({"errors": [{"message": str(error)}], "warnings": []}, 400)
    return JSONResponse({"errors": [], "warnings": []})


@router.post("/api/{kind}/{namespace}/{name}/preupload/{revision}")
def preupload(repo: Writable, revision: Quoted, body: Json) -> Json:
    stored = {entry.path: entry.lfs_oid or entry.oid for entry in repo.entries(repo.resolve(revision))}
    return {"files": [_upload_mode(file) | {"oid": stored.get(file["path"])} for file in body["files"]]}


def _upload_mode(file: Json) -> Json:
    binary = b"\0" in base64.b64decode(file["sample"])
    lfs = file["path"].endswith(LFS_SUFFIXES) or file["size"] > LFS_BYTES or binary
    return {"path": file["path"], "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": False}


@router.post("/{kind}/{namespace}/{name}.git/info/lfs/objects/batch")
def lfs_batch(request: Request, kind: Kind, repo: Writable, body: Json) -> Json:
    def answer(oid: str, size: int) -> Json:
        if repo.lfs_file(oid).exists():
            return {"oid": oid, "size": size}
        href = f"{request.base_url}api/lfs/{kind}/{repo.id}/{oid}"
        return {"oid": oid, "size": size, "actions": {"upload": {"href": href}, "verify": {"href": f"{href}/verify"}}}

    return {"transfer": "basic", "objects": [answer(wanted["oid"], wanted["size"]) for wanted in body["objects"]]}


@router.put("/api/lfs/{kind}/{namespace}/{name}/{oid}")
def upload_lfs(repo: Located, oid: str, body: Body) -> Json:  # the client sends no token here: a pre-signed address
    repo.store_lfs(oid, body)
    return {}


@router.post("/api/lfs/{kind}/{namespace}/{name}/{oid}/verify")
def verify_lfs(repo: Writable, oid: str, body: Json) -> Json:
    stored = repo.lfs_file(oid)
    if not stored.exists() or stored.stat().st_size != body["size"]:
        raise HubError(404, f"LFS object {oid} was not uploaded whole")
    return {}


@router.post("/api/{kind}/{namespace}/{name}/commit/{revision}")
def commit(
    request: Request, kind: Kind, repo: Writable, user: User, revision: Quoted, body: Body, create_pr: bool = False
) -> Json:
    if create_pr:
        raise HubError(400, "this Hub has no pull requests; commit to a branch instead")
    header, *operations = [json.loads(line) for line in body.splitlines() if line.strip()]
    wish = header["value"]
    changes = [_change(repo, operation["key"], operation["value"]) for operation in operations]
    message = f"{wish['summary']}\n\n{wish.get('description', '')}".strip()
    oid = repo.commit(revision, changes, message, str(user), wish.get("parentCommit", ""))
    return {"success": True, "commitOid": oid, "commitUrl": f"{_page(request, kind, repo.id)}/commit/{oid}"}


def _change(repo: BareRepo, operation: str, value: Json) -> tuple[str, bytes | None]:
    path = value["path"].rstrip("/")
    if operation in ("deletedFile", "deletedFolder"):
        return path, None
    if operation == "file":
        return path, base64.b64decode(value["content"])
    stored = repo.lfs_file(value["oid"])
    if not stored.exists():
        raise HubError(400, f"LFS object {value['oid']} of {path} was not uploaded")
    return path, bare_git.lfs_pointer(value["oid"], stored.stat().st_size)


# Download


@router.api_route("/{kind}/{namespace}/{name}/resolve/{revision}/{path:path}", methods=["GET", "HEAD"])
def resolve(repo: Downloadable, revision: Quoted, path: Quoted) -> FileResponse:
    commit = repo.resolve(revision)
    try:
        entry = repo.file(commit, path)
    except bare_git.UnknownEntryError as error:
        raise HubError(404, "Entry not found", "EntryNotFound", commit) from error
    headers = {"X-Repo-Commit": commit, "ETag": f'"{entry.lfs_oid or entry.oid}"'}
    if entry.lfs_oid:
        headers |= {"X-Linked-Etag": headers["ETag"], "X-Linked-Size": str(entry.size)}
    return FileResponse(repo.content_file(entry), headers=headers)  # serves Range and HEAD as well


# What the answers are made of


def _page(request: Request, kind: str, repo_id: str) -> str:
    return f"{request.base_url}{'' if kind == 'models' else f'{kind}/'}{repo_id}"


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _front_matter(card: str) -> Json:
    block = re.match(r"---\r?\n(.*?)\r?\n---", card, re.DOTALL)
    return (yaml.safe_load(block[1]) if block else None) or {}


def _lfs(entry: Entry) -> Json:
    return {"oid": entry.lfs_oid, "sha256": entry.lfs_oid, "size": entry.size, "pointerSize": entry.pointer_size}


def _tree_line(entry: Entry) -> Json:
    line: Json = {
        "type": "file" if entry.is_file else "directory",
        "path": entry.path,
        "oid": entry.oid,
        "size": entry.size,
    }
    return line | ({"lfs": _lfs(entry)} if entry.lfs_oid else {})


def _sibling(entry: Entry, blobs: bool) -> Json:
    details = {"size": entry.size, "blobId": entry.oid, "lfs": _lfs(entry) if entry.lfs_oid else None}
    return {"rfilename": entry.path} | (details if blobs else {})


def _describe(repo: BareRepo, commit: str, blobs: bool) -> Json:
    settings, files = repo.settings(), [entry for entry in repo.entries(commit) if entry.is_file]
    cards = [repo.content_file(entry).read_text() for entry in files if entry.path == "README.md"]
    card = json.loads(json.dumps(_front_matter(cards[0]) if cards else {}, default=str))  # a YAML date becomes text
    return {
        "id": repo.id,
        "author": repo.owner,
        "sha": commit,
        "createdAt": _date(settings.created),
        "lastModified": _date(repo.history(commit)[0].date),
        "private": settings.private,
        "gated": settings.gated,
        "sdk": settings.sdk,
        "tags": card.get("tags", []),
        "pipeline_tag": card.get("pipeline_tag"),
        "library_name": card.get("library_name"),
        "cardData": card,
        "siblings": [_sibling(entry, blobs) for entry in files],
    }
