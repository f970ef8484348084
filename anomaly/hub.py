"""The Hugging Face Hub and local folders in its cache layout: resolve, list, download, push, tag.

A local folder is read by the same huggingface_hub calls as the Hub's cache, with `local_files_only=True`, so there is
one code path. What is resolved once is used at that commit.
"""

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from anomaly.errors import (
    DiskFullError,
    HubUnreachableError,
    ModelLoadError,
    RegistryError,
    RepoGatedError,
    RepoNotFoundError,
    RevisionNotFoundError,
    StaleParentError,
)

if TYPE_CHECKING:
    from huggingface_hub import HfApi

COMMIT = re.compile(r"[0-9a-f]{40}")
_REPO_ID = re.compile(r"[\w.-]+/[\w.-]+")
_RECENT_COMMITS = 20


@dataclass(frozen=True, slots=True)
class Source:
    """Where a repo is: on the Hub, or in a local folder."""

    text: str  # as a person wrote it
    repo_id: str  # org/name
    folder: Path | None = None  # of the cache layout; None = the Hub

    def sibling(self, repo_id: str) -> "Source":
        """Another repo in the same place."""
        return replace(self, text=repo_id, repo_id=repo_id)


@dataclass(frozen=True, slots=True)
class Revision:
    """One thing a person may choose."""

    name: str
    kind: Literal["tag", "branch", "commit"]
    commit: str  # 40 hex digits
    title: str = ""  # of the commit, where it is known
    date: str = ""  # ISO 8601, where it is known


def parse_source(text: str, marker: str = "inspector.json") -> Source:
    """Says what a SOURCE means: a local folder if there is one of that name, else a Hub repo id.

    Args:
        text: `org/name`, a folder in the Hub's cache layout, or one repo's `models--org--name` folder in it.
        marker: the file that tells the wanted repo of a folder from the others.

    Raises:
        RegistryError: for what is neither, or for a folder without exactly one such repo.
    """
    path = Path(text).expanduser()
    if path.is_dir():
        if path.name.startswith("models--"):
            return Source(text, _repo_id(path), path.resolve().parent)
        repos = [repo for repo in sorted(path.glob("models--*")) if any(repo.glob(f"snapshots/*/{marker}"))]
        if len(repos) == 1:
            return Source(text, _repo_id(repos[0]), path.resolve())
        found = f"found {[repo.name for repo in repos]}: name one of these folders" if repos else "found none"
        raise RegistryError(
            f"folder {text!r} should hold one repo with {marker} (models--org--name/snapshots), {found}"
        )
    if _REPO_ID.fullmatch(text) and not text.startswith((".", "/")):
        return Source(text, text)
    raise RegistryError(f"{text!r} is neither a folder here nor a Hub repo id (org/name)")


def _repo_id(folder: Path) -> str:
    return "/".join(folder.name.removeprefix("models--").split("--", 1))


def resolve(source: Source, revision: str | None = None) -> str:
    """The 40 hex digits of the commit that a revision is right now; `main` by default.

    Raises:
        RegistryError: of the kind that tells the cause.
    """
    name = revision or "main"
    if source.folder is not None:
        repo = _local_repo(source)
        if COMMIT.fullmatch(name) and (repo / "snapshots" / name).is_dir():
            return name
        refs = _local_refs(repo)
        if name in refs:
            return refs[name]
        near = [snapshot.name for snapshot in (repo / "snapshots").iterdir() if snapshot.name.startswith(name)]
        if len(near) == 1 and re.fullmatch(r"[0-9a-f]{7,40}", name):
            return near[0]
        raise RevisionNotFoundError(f"{source.text}: no revision {name!r}; there are {sorted(refs)}")
    if COMMIT.fullmatch(name) and _cached(source, name):
        return name
    with _explained(source, name):
        info = _api().repo_info(source.repo_id, revision=name)
        return str(info.sha)


def list_revisions(source: Source) -> list[Revision]:
    """Tags (latest first), branches, then the most recent commits of main. Asks the Hub each time."""
    if source.folder is not None:
        repo = _local_repo(source)
        refs = _local_refs(repo)
        named = [Revision(name, "branch" if name == "main" else "tag", commit) for name, commit in refs.items()]
        recent = [
            Revision(snapshot.name, "commit", snapshot.name)
            for snapshot in sorted((repo / "snapshots").iterdir())
            if snapshot.name not in refs.values()
        ]
    else:
        with _explained(source, None):
            api = _api()
            git_refs = api.list_repo_refs(source.repo_id)
            commits = api.list_repo_commits(source.repo_id)[:_RECENT_COMMITS]
        known = {commit.commit_id: commit for commit in commits}
        named = []
        for kind, entries in (("tag", git_refs.tags), ("branch", git_refs.branches)):
            for ref in entries:
                commit = known.get(ref.target_commit)
                title, date = (commit.title, commit.created_at.isoformat()) if commit else ("", "")
                named.append(Revision(ref.name, "tag" if kind == "tag" else "branch", ref.target_commit, title, date))
        recent = [Revision(c.commit_id, "commit", c.commit_id, c.title, c.created_at.isoformat()) for c in commits]
    tags = sorted((r for r in named if r.kind == "tag"), key=lambda r: _natural(r.name), reverse=True)
    return [*tags, *(r for r in named if r.kind == "branch"), *recent]


def download(source: Source, commit: str, files: Sequence[str]) -> Path:
    """Brings these files of one commit here; what is here already costs no request.

    Returns:
        The folder of the snapshot.

    Raises:
        RegistryError: of the kind that tells the cause.
        ModelLoadError: a file is missing from the repo, or its bytes are not those the Hub has a hash of.
    """
    if not COMMIT.fullmatch(commit):
        raise RegistryError(f"{source.text}: {commit!r} is not a full commit of 40 hex digits; resolve it first")
    with _explained(source, commit):
        folder = Path(
            _api().snapshot_download(
                source.repo_id,
                revision=commit,
                allow_patterns=list(files),
                cache_dir=source.folder or _cache_dir(),
                local_files_only=source.folder is not None or _cached(source, commit, files),
            )
        )
    for name in files:
        if not (folder / name).is_file():
            raise ModelLoadError(f"{source.repo_id}@{commit[:12]} has no {name}")
        _check_bytes(source, folder / name)
    return folder


def _check_bytes(source: Source, path: Path) -> None:
    """The cache names a file by its hash (sha256 behind LFS, a git blob's sha1 otherwise): a flipped byte shows."""
    if not path.is_symlink():
        return
    blob = path.resolve()
    content = blob.read_bytes()
    if len(blob.name) == 64:
        found = hashlib.sha256(content).hexdigest()
    elif len(blob.name) == 40:
        found = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    else:
        return
    if found != blob.name:
        blob.unlink()  # so that the next try downloads it again
        path.unlink()
        raise ModelLoadError(
            f"{source.repo_id}: {path.name} is corrupt (its hash is {found[:16]}, not {blob.name[:16]})"
        )


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

    Nothing is visible before the commit, so a push that dies half-way leaves what was there.

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
    source = Source(repo_id, repo_id)
    if missing := [name for name in files if not (folder / name).is_file()]:
        raise RegistryError(f"cannot push {folder}: {', '.join(missing)} missing")
    with _explained(source, tag):
        api = _api()
        api.create_repo(repo_id, exist_ok=True, private=private or None)
        refs = api.list_repo_refs(repo_id)
        taken = {ref.name: ref.target_commit for ref in refs.tags}
        if tag in taken:
            raise RegistryError(f"{repo_id} has a tag {tag} already, at {taken[tag][:12]}: choose another")
        head = parent or next((ref.target_commit for ref in refs.branches if ref.name == "main"), None)
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


def store(folder: Path, cache: Path, repo_id: str, *, files: Sequence[str], tag: str | None = None) -> str:
    """What `push` is for the Hub, for a local folder in its cache layout; the commit is a hash of the content.

    Returns:
        The commit.

    Raises:
        RegistryError: the tag exists and is another commit.
        DiskFullError: no room.
    """
    repo = cache / f"models--{repo_id.replace('/', '--')}"
    commit = _content_commit(folder, files)
    refs = _local_refs(repo) if repo.is_dir() else {}
    if tag in refs and refs[tag] != commit:
        raise RegistryError(f"{repo_id} in {cache} has a tag {tag} already, at {refs[tag][:12]}: choose another")
    snapshot = repo / "snapshots" / commit
    with _explained(Source(repo_id, repo_id, cache), tag):
        if not snapshot.is_dir():
            partial = repo / "snapshots" / f".{commit}.{os.getpid()}"
            partial.mkdir(parents=True)
            for name in files:
                shutil.copyfile(folder / name, partial / name)
            partial.rename(snapshot)
        for name in filter(None, ("main", tag)):
            path = repo / "refs" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(commit)
    return commit


def _content_commit(folder: Path, files: Sequence[str]) -> str:
    """sha1 of names and contents, in the form of a git tree: the same files are the same commit."""
    entries = b""
    for name in sorted(files):
        content = (folder / name).read_bytes()
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).digest()
        entries += b"100644 " + name.encode() + b"\0" + blob
    return hashlib.sha1(b"tree %d\0" % len(entries) + entries, usedforsecurity=False).hexdigest()


def _local_repo(source: Source) -> Path:
    assert source.folder is not None
    repo = source.folder / f"models--{source.repo_id.replace('/', '--')}"
    if not (repo / "snapshots").is_dir():
        raise RepoNotFoundError(f"{source.folder} holds no repo {source.repo_id}")
    return repo


def _local_refs(repo: Path) -> dict[str, str]:
    refs = repo / "refs"
    return {str(path.relative_to(refs)): path.read_text().strip() for path in sorted(refs.rglob("*")) if path.is_file()}


def _cached(source: Source, commit: str, files: Sequence[str] = ()) -> bool:
    from huggingface_hub.file_download import repo_folder_name

    repo = _cache_dir() / repo_folder_name(repo_id=source.repo_id, repo_type="model")
    snapshot = repo / "snapshots" / commit
    return snapshot.is_dir() and all((snapshot / name).exists() for name in files)


def _cache_dir() -> Path:
    from huggingface_hub import constants

    return Path(os.environ.get("HF_HUB_CACHE") or constants.HF_HUB_CACHE)


def _api() -> "HfApi":
    from huggingface_hub import HfApi

    return HfApi(endpoint=os.environ.get("HF_ENDPOINT"), library_name="vigie")


def _natural(name: str) -> list[tuple[int, str]]:
    """v10 behind v9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


@contextmanager
def _explained(source: Source, revision: str | None) -> Iterator[None]:
    """Turns what huggingface_hub and the disk raise into one error that says what a person can do."""
    from huggingface_hub import errors
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # httpx or httpx2, whichever it uses

    what = source.repo_id + (f"@{revision}" if revision else "")
    try:
        yield
    except errors.GatedRepoError as error:  # before its base class
        raise RepoGatedError(
            f"{what}: access is granted by the owner; ask on its Hub page and set HF_TOKEN to a token of that account"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise RepoNotFoundError(
            f"{what}: no such repo, or it is private and HF_TOKEN is missing or not allowed to read it"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise RevisionNotFoundError(f"{what}: no such revision (any more); list them with `revisions`") from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, httpx.TransportError) as error:
        raise HubUnreachableError(
            f"{what}: the Hub does not answer, and this is not here yet; try again later"
        ) from error
    except errors.EntryNotFoundError as error:
        raise ModelLoadError(f"{what}: a file is missing from the repo ({error})") from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        if status == 412:
            raise StaleParentError(
                f"{what}: somebody else committed in the meantime; look at it and push again"
            ) from error
        if status == 429 or status >= 500:
            raise HubUnreachableError(f"{what}: the Hub answers {status}; try again later") from error
        raise RegistryError(f"{what}: the Hub refuses with {status}: {error}") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(f"{what}: no room left on the disk ({error}); free some or set HF_HUB_CACHE") from error
        raise RegistryError(f"{what}: {error}") from error
    except ValueError as error:  # huggingface_hub's validation of names
        raise RegistryError(f"{what}: {error}") from error
