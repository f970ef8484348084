"""Bare git repositories as the loopback Hub keeps them: atomic commits, refs, LFS objects. `git` does the work."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

_AUTHOR_ENV = {f"GIT_{role}_{key}": "hub" for role in ("AUTHOR", "COMMITTER") for key in ("NAME", "EMAIL")}
# Not the caller's environment: inside a git hook GIT_DIR, GIT_INDEX_FILE and friends point at another repository.
_ENV = {"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C"}
_LFS_POINTER = re.compile(rb"version https://git-lfs\S*\noid sha256:([0-9a-f]{64})\nsize (\d+)\n")
_MAX_POINTER_BYTES = 200
_NO_COMMIT = "0" * 40
_WRITING = threading.Lock()  # read the head, compare, move it: one writer at a time


class GitError(Exception):
    """git refused: its own message."""


class UnknownRevisionError(LookupError):
    """No branch, tag or full commit of that name."""


class UnknownEntryError(LookupError):
    """No file or folder of that name at that commit."""


class RefExistsError(Exception):
    """The branch or tag is there already."""


class StaleParentError(Exception):
    """The branch has moved since the commit that the writer started from."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What git does not know about a Hub repo."""

    created: float  # seconds since 1970
    private: bool = False
    gated: bool | str = False
    sdk: str | None = None  # spaces only


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a tree. A file stored with LFS has the sha256 of its content in `lfs_oid`."""

    path: str
    is_file: bool
    oid: str  # git's own object id
    size: int  # bytes of the content; of the LFS object where there is one
    lfs_oid: str | None = None
    pointer_size: int | None = None


@dataclass(frozen=True, slots=True)
class Commit:
    """One line of the history."""

    oid: str
    date: float  # seconds since 1970
    author: str
    title: str
    description: str


class BareRepo:
    """One repository of the Hub, at `<root>/<kind>/<owner>/<name>.git`. Holds no state: every call asks git."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.owner = path.parent.name
        self.id = f"{self.owner}/{path.name.removesuffix('.git')}"

    @classmethod
    def create(cls, path: Path, settings: Settings, files: Sequence[tuple[str, bytes]]) -> Self:
        """Makes the repository with a first commit on `main`; it appears whole, by one rename.

        Raises:
            RefExistsError: There is a repository at `path`.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        unborn = cls(path.with_name(f".{uuid.uuid4().hex}"))
        subprocess.run(["git", "init", "-q", "--bare", "--template=", "-b", "main", unborn.path], check=True, env=_ENV)
        unborn.save_settings(settings)
        unborn._write("refs/heads/main", None, files, "initial commit", path.parent.name)
        try:
            unborn.path.rename(path)
        except OSError as error:
            shutil.rmtree(unborn.path)
            raise RefExistsError(path.name) from error
        return cls(path)

    def delete(self) -> None:
        """Takes the repository away, by one rename, then clears it."""
        grave = self.path.rename(self.path.with_name(f".{uuid.uuid4().hex}"))
        shutil.rmtree(grave)

    def exists(self) -> bool:
        return self.path.is_dir()

    def settings(self) -> Settings:
        return Settings(**json.loads((self.path / "hub.json").read_text()))

    def save_settings(self, settings: Settings) -> None:
        _write_whole(self.path / "hub.json", json.dumps(asdict(settings)).encode())

    # Reading

    def refs(self) -> dict[str, str]:
        """Full ref name -> commit, for branches and tags; an annotated tag gives the commit it points to."""
        form = "--format=%(refname) %(objectname) %(*objectname)"
        lines = self._git("for-each-ref", form, "refs/heads", "refs/tags").decode().splitlines()
        return {fields[0]: fields[-1] for fields in map(str.split, lines)}

    def resolve(self, revision: str) -> str:
        """The commit of a branch, a tag, a full ref or 40 hex digits, in that order."""
        refs = self.refs()
        for name in (f"refs/heads/{revision}", f"refs/tags/{revision}", revision):
            if name in refs:
                return refs[name]
        if re.fullmatch("[0-9a-f]{40}", revision):
            try:
                self._git("cat-file", "-e", f"{revision}^{{commit}}")
            except GitError as error:
                raise UnknownRevisionError(f"Invalid rev id: {revision}") from error
            return revision
        raise UnknownRevisionError(f"Invalid rev id: {revision}")

    def entries(self, commit: str, folder: str = "", *, recursive: bool = True) -> list[Entry]:
        """Files and folders below `folder`, with paths from the top of the repository."""
        depth = ["-r", "-t"] if recursive else []
        try:
            listing = self._git("ls-tree", "-l", "-z", *depth, f"{commit}:{folder}")
        except GitError as error:
            raise UnknownEntryError(f"{folder!r} does not exist on {commit}") from error
        prefix = f"{folder}/" if folder else ""
        entries = []
        for line in listing.decode().split("\0")[:-1]:
            fields, path = line.split("\t", 1)
            _, kind, oid, size = fields.split()
            entries.append(Entry(prefix + path, kind == "blob", oid, int(size) if kind == "blob" else 0))
        return self._with_lfs(entries)

    def file(self, commit: str, path: str) -> Entry:
        for entry in self.entries(commit):
            if entry.path == path and entry.is_file:
                return entry
        raise UnknownEntryError(f"{path!r} does not exist on {commit}")

    def history(self, commit: str) -> list[Commit]:
        """Newest first."""
        log = self._git("log", "-z", "--format=%H%x1f%ct%x1f%an%x1f%s%x1f%b", commit).decode()
        lines = (line.split("\x1f") for line in log.split("\0")[:-1])
        return [Commit(oid, float(date), author, title, body.strip()) for oid, date, author, title, body in lines]

    def content_file(self, entry: Entry) -> Path:
        """Where the content of `entry` lies as a plain file, so that byte ranges of it can be served."""
        if entry.lfs_oid:
            return self.lfs_file(entry.lfs_oid)
        plain = self.path / "plain" / entry.oid
        if not plain.exists():
            _write_whole(plain, self._git("cat-file", "blob", entry.oid))
        return plain

    def lfs_file(self, oid: str) -> Path:
        return self.path / "lfs" / "objects" / oid[:2] / oid[2:4] / oid

    # Writing

    def store_lfs(self, oid: str, content: bytes) -> None:
        """Keeps an LFS object; nothing is kept if the content is not what `oid` (its sha256) says."""
        digest = hashlib.sha256(content).hexdigest()
        if digest != oid:
            raise GitError(f"the content has sha256 {digest}, not {oid}")
        _write_whole(self.lfs_file(oid), content)

    def commit(
        self, branch: str, changes: Sequence[tuple[str, bytes | None]], message: str, author: str, parent: str = ""
    ) -> str:
        """One commit on top of `branch`; a reader sees all of it or nothing.

        Args:
            changes: Path and new content, None to delete a file or a folder; applied in order.
            parent: The head (or its first digits) that the writer started from; empty takes whatever the head is.

        Raises:
            UnknownRevisionError: There is no such branch.
            UnknownEntryError: A path to delete is not there.
            StaleParentError: The head is not `parent` any more.
        """
        ref = f"refs/heads/{branch}"
        with _WRITING:
            head = self.refs().get(ref)
            if head is None:
                raise UnknownRevisionError(f"Invalid rev id: {branch}")
            if not head.startswith(parent):
                raise StaleParentError(f"{branch} is at {head}, not at {parent}")
            deleted = {path for path, content in changes if content is None}
            if deleted and (missing := deleted - {entry.path for entry in self.entries(head)}):
                raise UnknownEntryError(f"A file with this name doesn't exist: {', '.join(sorted(missing))}")
            return self._write(ref, head, changes, message, author)

    def create_ref(self, kind: str, name: str, commit: str, message: str = "") -> None:
        """`kind` is "branch" or "tag"; a message makes an annotated tag."""
        with _WRITING:
            if _ref(kind, name) in self.refs():
                raise RefExistsError(f"{kind} {name!r} exists already")
            self._git(kind, *(["-a", "-m", message] if message else []), "--", name, commit)

    def delete_ref(self, kind: str, name: str) -> None:
        with _WRITING:
            if _ref(kind, name) not in self.refs():
                raise UnknownRevisionError(f"Invalid rev id: {name}")
            self._git("update-ref", "-d", _ref(kind, name))

    def _write(
        self, ref: str, head: str | None, changes: Sequence[tuple[str, bytes | None]], message: str, author: str
    ) -> str:
        # fast-import fills a ref that nobody lists; then one transaction moves the branch, if it is still at `head`.
        # git counts whole seconds: a date after the parent's keeps the order of commits made within one second.
        date = max(int(time.time()), int(self.history(head)[0].date) + 1 if head else 0)
        incoming = f"refs/incoming/{uuid.uuid4().hex}"
        stream = [f"commit {incoming}\nmark :1\ncommitter {author} <{author}@loopback> {date} +0000\n".encode()]
        stream.append(_data(message.encode()))
        if head:
            stream.append(f"from {head}\n".encode())
        for path, content in changes:
            quoted = '"' + path.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
            if content is None:
                stream.append(f"D {quoted}\n".encode())
            else:
                stream.append(f"M 100644 inline {quoted}\n".encode() + _data(content))
        stream.append(b"get-mark :1\ndone\n")
        commit = self._git("fast-import", "--quiet", "--done", stdin=b"".join(stream)).decode().strip()
        moves = f"update {ref} {commit} {head or _NO_COMMIT}\ndelete {incoming} {commit}\n"
        try:
            self._git("update-ref", "--stdin", stdin=moves.encode())
        except GitError as error:
            raise StaleParentError(f"{ref} is not at {head} any more") from error
        return commit

    def _with_lfs(self, entries: list[Entry]) -> list[Entry]:
        small = [entry.oid for entry in entries if entry.is_file and entry.size <= _MAX_POINTER_BYTES]
        batch = self._git("cat-file", "--batch", stdin="\n".join(small).encode()) if small else b""
        pointers: dict[str, re.Match[bytes]] = {}
        start = 0
        for oid in small:  # `<oid> blob <size>\n<content>\n` each
            content = batch.index(b"\n", start) + 1
            end = content + int(batch[start:content].split()[2])
            if pointer := _LFS_POINTER.fullmatch(batch[content:end]):
                pointers[oid] = pointer
            start = end + 1
        return [
            Entry(entry.path, True, entry.oid, int(found[2]), found[1].decode(), entry.size)
            if (found := pointers.get(entry.oid))
            else entry
            for entry in entries
        ]

    def _git(self, *arguments: str, stdin: bytes = b"") -> bytes:
        command = ["git", "-c", "core.fsync=none", "--git-dir", str(self.path), *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, check=False, env=_ENV | _AUTHOR_ENV)
        if done.returncode:
            raise GitError(f"git {arguments[0]}: {done.stderr.decode().strip()}")
        return done.stdout


def lfs_pointer(oid: str, size: int) -> bytes:
    """What git keeps in place of an LFS object."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {size}\n".encode()


def _ref(kind: str, name: str) -> str:
    return f"refs/{'heads' if kind == 'branch' else 'tags'}/{name}"


def _data(content: bytes) -> bytes:
    return b"data %d\n%b\n" % (len(content), content)


def _write_whole(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    partial.write_bytes(content)
    partial.replace(path)
