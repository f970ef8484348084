"""The Hugging Face Hub (huggingface_hub) and local folders in its cache layout: resolve, list, download, push, store.

What is downloaded lies in the Hub's cache, a local folder has the same layout, and both are read in the same way. What
is resolved once is used at that commit.
"""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from huggingface_hub import errors

from anomaly import local_repo
from anomaly.errors import HubUnreachableError, ModelLoadError, RegistryError, RevisionNotFoundError, StaleParentError
from anomaly.hub_errors import explained
from anomaly.local_repo import COMMIT, store
from anomaly.source import Revision, Source, latest_first, parse_source

if TYPE_CHECKING:
    from huggingface_hub import HfApi

__all__ = [
    "COMMIT",
    "Revision",
    "Source",
    "download",
    "holds",
    "list_revisions",
    "parse_source",
    "push",
    "resolve",
    "store",
]

ANSWER_S = 4.0  # the longest wait for one answer; HfApi's own listings wait for ever, or retry for 23 s
_RECENT_COMMITS = 20


def resolve(source: Source, revision: str | None = None) -> str:
    """The 40 hex digits of the commit that a revision is right now; one request, none for a commit that is here.

    Args:
        source: the repo.
        revision: tag, branch, commit or the first digits of one (7 or more); `main` by default.

    Raises:
        RegistryError: of the kind that tells the cause; HubUnreachableError after about `ANSWER_S`.
    """
    name = revision or "main"
    if source.folder is not None:
        with explained(f"{source.repo_id}@{name}"):
            return local_repo.resolve(_repo(source), name)
    local_repo.check_revision(name)
    if COMMIT.fullmatch(name) and _snapshot(source, name).is_dir():
        return name
    with explained(f"{source.repo_id}@{name}"):
        try:
            commit = str(_get(f"{source.repo_id}/revision/{quote(name, safe='')}?expand=sha").get("sha"))
        except errors.RevisionNotFoundError:
            found = local_repo.complete(name, [recent.commit for recent in _recent(source)])
            if found is None:
                raise
            return found
    if not COMMIT.fullmatch(commit):
        raise HubUnreachableError(f"{source.repo_id}@{name}: what answers is not a Hub, its commit is {commit!r}")
    return commit


def list_revisions(source: Source) -> list[Revision]:
    """Tags (latest first), branches, then the most recent commits of main. Two requests each time."""
    with explained(source.repo_id):
        if source.folder is None:
            refs, recent = _get(f"{source.repo_id}/refs"), _recent(source)
            tags = {ref["name"]: str(ref["targetCommit"]) for ref in refs["tags"]}
            branches = {ref["name"]: str(ref["targetCommit"]) for ref in refs["branches"]}
        else:
            tags = local_repo.refs(_repo(source))
            branches = {name: tags.pop(name) for name in ("main",) if name in tags}
            recent = [Revision(commit, "commit", commit) for commit in local_repo.commits(_repo(source))]
    known = {revision.commit: revision for revision in recent}
    bare = Revision("", "commit", "")
    return [
        *latest_first([replace(known.get(at, bare), name=name, kind="tag", commit=at) for name, at in tags.items()]),
        *(replace(known.get(at, bare), name=name, kind="branch", commit=at) for name, at in branches.items()),
        *recent,
    ]


def holds(source: Source, commit: str, name: str) -> bool:
    """Whether a file belongs to a commit. Raises RegistryError where that cannot be found out."""
    if (_snapshot(source, commit) / name).is_file():
        return True
    if source.folder is not None:
        return False
    with explained(f"{source.repo_id}@{commit[:12]}"):
        try:
            _head(source, commit, name)
        except errors.RemoteEntryNotFoundError:
            return False
    return True


def download(source: Source, commit: str, files: Sequence[str]) -> Path:
    """Brings these files of one commit here, and nothing else; what is here already costs no request.

    Returns:
        The folder of the snapshot.

    Raises:
        RegistryError: of the kind that tells the cause.
        ModelLoadError: a file is missing from the repo, or its bytes are not those the Hub has a hash of.
    """
    if not COMMIT.fullmatch(commit):
        raise RegistryError(f"{source.text}: {commit!r} is not a full commit of 40 hex digits; resolve it first")
    snapshot = _snapshot(source, commit)
    missing = [name for name in files if not (snapshot / name).is_file()]
    if missing and source.folder is None:
        with ThreadPoolExecutor(len(missing)) as pool:
            list(pool.map(lambda name: _fetch(source, commit, name), missing))
    elif missing and not snapshot.is_dir():
        raise RevisionNotFoundError(f"{source.repo_id} in {source.folder} has no commit {commit}")
    elif missing:
        raise ModelLoadError(f"{source.repo_id}@{commit[:12]} has no {', '.join(missing)}")
    with explained(f"{source.repo_id}@{commit[:12]}"):
        for name in files:
            _check_bytes(source, snapshot / name)
    return snapshot


def _fetch(source: Source, commit: str, name: str) -> None:
    with explained(f"{source.repo_id}@{commit[:12]}"):
        try:
            _head(source, commit, name)  # a single try: hf_hub_download goes on trying for 23 s to 6 minutes
            api = client()
            api.hf_hub_download(source.repo_id, name, revision=commit, cache_dir=cache_dir(), etag_timeout=ANSWER_S)
        except errors.RemoteEntryNotFoundError as error:
            raise ModelLoadError(f"{source.repo_id}@{commit[:12]} has no {name}") from error


def _check_bytes(source: Source, path: Path) -> None:
    """The cache names a file by its hash (sha256 behind LFS, a git blob's sha1 otherwise): a flipped byte shows."""
    if not path.is_symlink():
        return
    blob = path.parent / path.readlink()  # one step only: a file that came by Xet is itself a link, to another name
    with blob.open("rb") as file:
        if len(blob.name) == 64:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        elif len(blob.name) == 40:
            header = b"blob %d\0" % blob.stat().st_size
            found = hashlib.sha1(header + file.read(), usedforsecurity=False).hexdigest()
        else:
            return
    if found == blob.name:
        return
    if source.folder is None:  # so that the next try downloads it again; a person's own folder is left as it is
        for bad in (path.resolve(), blob, path):
            bad.unlink(missing_ok=True)
    raise ModelLoadError(f"{source.repo_id}: {path.name} is corrupt (its hash is {found[:16]}, not {blob.name[:16]})")


def push(
    folder: Path,
    repo_id: str,
    *,
    files: Sequence[str],
    message: str,
    tag: str | None = None,
    parent: str | None = None,
    private: bool = False,
) -> str:
    """Uploads these files of a folder in one atomic commit and tags it.

    Nothing is visible before the commit, so a push that dies half-way leaves what was there; another push completes it.

    Args:
        folder: holds the files.
        repo_id: org/name; created where it does not exist.
        files: names, each of which must exist.
        message: of the commit.
        tag: for the new commit; must not exist yet.
        parent: the commit that this one must follow; by default what main is when the push begins.
        private: for a repo that is created.

    Returns:
        The new commit; the old one if nothing changed.

    Raises:
        RegistryError: of the kind that tells the cause; StaleParentError when somebody else committed in between.
    """
    local_repo.check_repo_id(repo_id)
    local_repo.check_files(folder, files)
    if tag is not None:
        local_repo.check_tag(tag)
    with explained(repo_id if tag is None else f"{repo_id}@{tag}"):
        api = client()
        refs = _refs_or_create(api, repo_id, private)
        local_repo.check_free(repo_id, tag, {ref["name"]: ref["targetCommit"] for ref in refs["tags"]})
        head = next((ref["targetCommit"] for ref in refs["branches"] if ref["name"] == "main"), None)
        if parent not in (None, head):
            raise StaleParentError(f"{repo_id}: main is at {head}, not at {parent}; look at it and push again")
        info = api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            allow_patterns=list(files),
            commit_message=message,
            parent_commit=head,
        )
        if tag is not None:
            api.create_tag(repo_id, tag=tag, revision=info.oid, tag_message=message)
        return str(info.oid)


def _refs_or_create(api: "HfApi", repo_id: str, private: bool) -> Any:
    try:
        return _get(f"{repo_id}/refs")
    except errors.GatedRepoError:  # a kind of RepositoryNotFoundError
        raise
    except errors.RepositoryNotFoundError:
        api.create_repo(repo_id, exist_ok=True, private=private or None)
        return _get(f"{repo_id}/refs")


def _recent(source: Source) -> list[Revision]:
    """Latest first. One page: HfApi.list_repo_commits would fetch the whole history."""
    commits = _get(f"{source.repo_id}/commits/main")[:_RECENT_COMMITS]
    return [Revision(c["id"], "commit", c["id"], c["title"], c["date"]) for c in commits]


def _get(path: str) -> Any:
    """Asks about a repo once; the answer or an error comes within ANSWER_S."""
    from huggingface_hub import get_session
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status  # type: ignore[attr-defined]

    url = f"{endpoint()}/api/models/{path}"
    response = get_session().get(url, headers=build_hf_headers(library_name="vigie"), timeout=ANSWER_S)
    hf_raise_for_status(response)
    return response.json()


def _head(source: Source, commit: str, name: str) -> None:
    from huggingface_hub import hf_hub_url

    api = client()
    url = hf_hub_url(source.repo_id, name, revision=commit, endpoint=api.endpoint)
    api.get_hf_file_metadata(url=url, timeout=ANSWER_S)


def _repo(source: Source) -> Path:
    return local_repo.repo_folder(source.folder or cache_dir(), source.repo_id)


def _snapshot(source: Source, commit: str) -> Path:
    return _repo(source) / "snapshots" / commit


def cache_dir() -> Path:
    """Where everything from the Hub is kept: HF_HUB_CACHE, or the client's own place."""
    from huggingface_hub import constants

    return Path(os.environ.get("HF_HUB_CACHE") or constants.HF_HUB_CACHE).expanduser()


def endpoint() -> str:
    """The Hub that HF_ENDPOINT names, as an address without a slash at its end."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or "https://huggingface.co"


def client() -> "HfApi":
    """The client of that Hub."""
    from huggingface_hub import HfApi

    return HfApi(endpoint=endpoint(), library_name="vigie")
