"""One repo in the Hub's cache layout (huggingface_hub): refs/<name> hold commits, snapshots/<commit>/ the files.

The Hub's own cache looks like this, and so does a folder that an inspector was released into without any Hub.
"""

import hashlib
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from anomaly.errors import RegistryError, RepoNotFoundError, RevisionNotFoundError
from anomaly.hub_errors import explained

COMMIT = re.compile(r"[0-9a-f]{40}")
SHORT_COMMIT = re.compile(r"[0-9a-f]{7,39}")
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_REF = re.compile(r"(?!/)(?!.*(\.\.|//|@\{))(?!.*[/.]$)(?!(.*/)?\.)[^\x00-\x20\x7f~^:?*[\\]+")  # git check-ref-format


def repo_folder(cache: Path, repo_id: str) -> Path:
    """Where a repo lies in a cache."""
    return cache / f"models--{repo_id.replace('/', '--')}"


def repo_id_of(repo: Path) -> str:
    """`org/name` from the name of its folder."""
    return "/".join(repo.name.removeprefix("models--").split("--", 1))


def check_repo_id(repo_id: str) -> None:
    """Raises RegistryError for what the Hub does not take as the name of a repo."""
    from huggingface_hub.utils import HFValidationError, validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise RegistryError(f"{repo_id!r} is not the id of a repo (org/name): {error}") from error


def check_files(folder: Path, files: Sequence[str]) -> None:
    """Raises RegistryError where one of the files to publish does not exist."""
    if missing := [name for name in files if not (folder / name).is_file()]:
        raise RegistryError(f"cannot publish {folder}: {', '.join(missing)} missing")


def check_tag(tag: str) -> None:
    """Raises RegistryError for a tag that git refuses or that reads like a branch or a commit."""
    if not _TAG.fullmatch(tag) or ".." in tag or tag.endswith((".", ".lock", ".tmp")):
        raise RegistryError(f"{tag!r} cannot be a tag: take letters, digits, '.', '_' and '-', such as v1 or 2024-05")
    if tag == "main" or COMMIT.fullmatch(tag) or SHORT_COMMIT.fullmatch(tag):
        raise RegistryError(f"{tag!r} cannot be a tag, it reads like a branch or a commit: take one such as v1")


def check_revision(name: str) -> None:
    """Raises RevisionNotFoundError for what git lets nothing be called: a URL would make something else of `..`."""
    if not _REF.fullmatch(name):
        raise RevisionNotFoundError(f"{name!r} is not the name of a revision: give a tag, a branch or a commit")


def check_free(where: str, tag: str | None, tags: dict[str, str]) -> None:
    """Raises RegistryError where the tag is taken."""
    if tag in tags:
        raise RegistryError(f"{where} has a tag {tag} already, at {tags[tag][:12]}: choose another")


def refs(repo: Path) -> dict[str, str]:
    """Name -> commit, of every tag and branch."""
    if not (repo / "snapshots").is_dir():
        raise RepoNotFoundError(f"{repo.parent} holds no repo {repo_id_of(repo)}")
    found = {}
    for path in sorted((repo / "refs").rglob("*")):
        name = path.relative_to(repo / "refs").as_posix()
        # huggingface_hub writes a ref as name.<random>.tmp first
        if path.is_file() and path.suffix != ".tmp" and COMMIT.fullmatch(commit := path.read_text().strip()):
            found[name] = commit
    return found


def commits(repo: Path) -> list[str]:
    """Whatever snapshots there are; half-written ones have a dot in front."""
    return sorted(path.name for path in (repo / "snapshots").iterdir() if COMMIT.fullmatch(path.name))


def resolve(repo: Path, name: str) -> str:
    """The commit of a tag, a branch, a commit or its first digits (7 or more).

    Raises:
        RepoNotFoundError, RevisionNotFoundError: there is no such thing.
    """
    check_revision(name)
    known, there = refs(repo), commits(repo)
    if name in known:
        return known[name]
    if name in there:
        return name
    if (commit := complete(name, there)) is None:
        raise RevisionNotFoundError(f"{repo_id_of(repo)} has no revision {name!r}; it has {sorted(known)} and commits")
    return commit


def complete(name: str, there: Sequence[str]) -> str | None:
    """The one commit that begins with these 7 to 39 digits, if there is just one."""
    near = [commit for commit in there if commit.startswith(name)] if SHORT_COMMIT.fullmatch(name) else []
    return near[0] if len(near) == 1 else None


def store(folder: Path, cache: Path, repo_id: str, *, files: Sequence[str], tag: str | None = None) -> str:
    """What `hub.push` is for the Hub, for a local folder; the commit is a hash of names and contents.

    The snapshot appears whole by one rename, then each ref by one: whoever is killed leaves what was there.

    Returns:
        The commit.

    Raises:
        RegistryError: a file is missing, a name is not possible, or the tag exists and is another commit.
        DiskFullError: no room.
    """
    check_repo_id(repo_id)
    check_files(folder, files)
    repo = repo_folder(cache, repo_id)
    commit = _content_commit(folder, files)
    if tag is not None:
        check_tag(tag)
        tags = refs(repo) if (repo / "snapshots").is_dir() else {}
        check_free(f"{repo_id} in {cache}", tag, {name: at for name, at in tags.items() if at != commit})
    with explained(f"{repo_id} in {cache}"):
        (repo / "snapshots").mkdir(parents=True, exist_ok=True)
        if not (repo / "snapshots" / commit).is_dir():
            _copy_whole(folder, files, repo / "snapshots" / commit)
        for name in filter(None, (tag, "main")):
            _write_whole(repo / "refs" / name, commit)
    return commit


def _copy_whole(folder: Path, files: Sequence[str], snapshot: Path) -> None:
    partial = Path(tempfile.mkdtemp(prefix=".", dir=snapshot.parent))
    try:
        partial.chmod(snapshot.parent.stat().st_mode)  # mkdtemp lets nobody else in
        for name in files:
            shutil.copyfile(folder / name, partial / name)
        try:
            partial.rename(snapshot)
        except OSError:  # somebody else stored the very same content meanwhile
            if not snapshot.is_dir():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_whole(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", dir=path.parent.parent) as partial:
        (Path(partial) / path.name).write_text(text)
        (Path(partial) / path.name).replace(path)


def _content_commit(folder: Path, files: Sequence[str]) -> str:
    """sha1 of names and contents, in the form of a git tree: the same files are the same commit."""
    entries = b""
    for name in sorted(files):
        content = (folder / name).read_bytes()
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).digest()
        entries += b"100644 " + name.encode() + b"\0" + blob
    return hashlib.sha1(b"tree %d\0" % len(entries) + entries, usedforsecurity=False).hexdigest()
