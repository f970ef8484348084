"""Data sets from the Hub: `hf://datasets/ORG/NAME[@REVISION][/folder]` -> a folder that `read_dataset` reads.

Three layouts, looked for in this order:

*class folders*  as in anomaly/datasets.py; the snapshot in the Hub's cache is read where it lies.
*metadata*       the Hub's ImageFolder: pictures and a metadata.csv or metadata.jsonl with the columns file_name, label
                 and maybe mask_file_name.
*Parquet*        the columns image, label (ClassLabel or text) and maybe mask, as `datasets` writes them.

Of the last two the pictures are written once, with their bytes unchanged, as class folders beside the snapshot, and
validation pictures among them as train. A folder `validation` of the first is passed over.
"""

import glob
import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from huggingface_hub import errors

from anomaly import hub, local_repo
from anomaly.datasets import GOOD_NAMES, IMAGE_SUFFIXES, VISA_CSV
from anomaly.errors import DataError, HubUnreachableError, RegistryError, RevisionNotFoundError
from anomaly.hub import ANSWER_S, COMMIT
from anomaly.hub_errors import explained
from anomaly.hub_tables import METADATA, Row, metadata_rows, parquet_rows, write_class_folders

__all__ = ["HubData", "local_data", "parse_hub_data", "snapshot"]

PREFIX = "hf://datasets/"
_FORM = f"{PREFIX}ORG/NAME@REVISION/folder, the last two optional"
_TABLES = (".csv", ".jsonl", ".txt", ".parquet")  # .txt: boxes, YOLO labels
_VERSION = "vigie-1"  # of what is written below; another number, and all is written anew


@dataclass(frozen=True, slots=True)
class HubData:
    """What a person names."""

    repo_id: str  # org/name
    revision: str = "main"
    folder: str = ""  # posix path inside the repo, such as one category of several


def parse_hub_data(text: str) -> HubData:
    """Takes `hf://datasets/...` apart; a slash inside a revision is written %2F.

    Raises:
        RegistryError: it is not of that form.
    """
    pieces = text.removeprefix(PREFIX).rstrip("/").split("/")
    if not text.startswith(PREFIX) or len(pieces) < 2:
        raise RegistryError(f"{text!r} names no data set on the Hub; expected {_FORM}")
    (org, rest), folder = pieces[:2], pieces[2:]
    name, at, revision = rest.partition("@")
    if (at and not revision) or any(piece in ("", ".", "..") for piece in folder):
        raise RegistryError(f"{text!r} names no data set on the Hub; expected {_FORM}")
    local_repo.check_repo_id(f"{org}/{name}")
    revision = unquote(revision) or "main"
    local_repo.check_revision(revision)
    return HubData(f"{org}/{name}", revision, "/".join(folder))


def local_data(data: str) -> tuple[Path, str]:
    """Brings the data here, where it is not here yet.

    Args:
        data: a folder, or `hf://datasets/ORG/NAME[@REVISION][/folder]`. What was downloaded before is read from the
            cache; named by its full commit it needs no Hub.

    Returns:
        The folder that `read_dataset` takes, and what a card calls the data: the folder's name, or `ORG/NAME@commit`.

    Raises:
        RegistryError: of the kind that tells why the Hub did not give it.
        DataError: no layout that can be read, a missing column, a picture that is none.
    """
    if not data.startswith("hf:"):
        path = Path(data).expanduser()
        return path, path.resolve().name
    wanted = parse_hub_data(data)
    commit = wanted.revision
    folder = _kept(wanted, commit) if COMMIT.fullmatch(commit) else None
    if folder is None:
        commit, files = _ask(wanted)
        folder = _kept(wanted, commit) or _brought(wanted, commit, files)
    return folder, f"{wanted.repo_id}@{commit}"


def snapshot(data: str) -> tuple[Path, str]:
    """Brings the pictures and tables here as they were published, labelled or not; asks the Hub what there is.

    Args:
        data: `hf://datasets/ORG/NAME[@REVISION][/folder]`.

    Returns:
        The folder, in the Hub's cache, and the commit.

    Raises:
        RegistryError: of the kind that tells why the Hub did not give it.
        DataError: no pictures and no tables.
    """
    wanted = parse_hub_data(data)
    commit, files = _ask(wanted)
    return _downloaded(wanted, commit, files) / wanted.folder, commit


def _kept(wanted: HubData, commit: str) -> Path | None:
    """What an earlier run left whole: class folders made of tables, or a snapshot with every file of its list."""
    made = _made(wanted, commit)
    if made.is_dir():
        return made
    try:
        files = json.loads(_list_of(made).read_bytes())
    except FileNotFoundError:
        return None
    snapshot = _repo(wanted) / "snapshots" / commit
    return snapshot / wanted.folder if all((snapshot / name).is_file() for name in files) else None


def _ask(wanted: HubData) -> tuple[str, list[str]]:
    """The commit that the revision is now, and the files of it that matter; one request."""
    what = f"{PREFIX}{wanted.repo_id}@{wanted.revision}"
    with explained(what):
        try:
            info = hub.client().dataset_info(
                wanted.repo_id, revision=wanted.revision, expand=["sha", "siblings"], timeout=ANSWER_S
            )
        except errors.RevisionNotFoundError as error:
            raise RevisionNotFoundError(f"{what}: no such branch, tag or commit (all 40 digits) of it") from error
    if not COMMIT.fullmatch(str(info.sha)):
        raise HubUnreachableError(f"{what}: what answers is not a Hub, its commit is {info.sha!r}")
    below = f"{wanted.folder}/" if wanted.folder else ""
    names = [sibling.rfilename for sibling in info.siblings or ()]
    files = [name for name in names if name.startswith(below) and _matters(name)]
    if not files:
        raise DataError(
            f"{what}: no pictures and no tables {f'below {wanted.folder!r} ' if wanted.folder else ''}among its "
            f"{len(names)} files, such as {names[:3]}; archives are not opened: publish the pictures themselves"
        )
    return str(info.sha), files


def _matters(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in (*IMAGE_SUFFIXES, *_TABLES)


def _brought(wanted: HubData, commit: str, files: Sequence[str]) -> Path:
    """Downloads, and makes class folders of tables. The list of files is written last: who finds it has them all."""
    name = f"{PREFIX}{wanted.repo_id}@{commit[:12]}"
    made = _made(wanted, commit)
    folder = _downloaded(wanted, commit, files) / wanted.folder
    with explained(name):
        try:
            rows = _rows(folder)
            if rows is not None:
                _make(made, rows)
                return made
        except DataError as error:
            raise DataError(f"{name}: {error}") from error
        made.parent.mkdir(parents=True, exist_ok=True)
        partial = made.with_name(f".{made.name}.{os.getpid()}")
        partial.write_text(json.dumps(files))
        partial.replace(_list_of(made))
    return folder


def _downloaded(wanted: HubData, commit: str, files: Sequence[str]) -> Path:
    """The snapshot, with all of these files."""
    name = f"{PREFIX}{wanted.repo_id}@{commit[:12]}"
    with explained(name):
        folder = Path(
            hub.client().snapshot_download(
                wanted.repo_id,
                repo_type="dataset",
                revision=commit,
                cache_dir=hub.cache_dir(),
                allow_patterns=_patterns(wanted.folder, files),
                etag_timeout=ANSWER_S,
            )
        )
    if missing := [file for file in files if not (folder / file).is_file()]:  # the Hub went away half-way
        raise HubUnreachableError(f"{name}: {len(missing)} of {len(files)} files did not come, try again later")
    return folder


def _patterns(folder: str, files: Sequence[str]) -> list[str]:
    """Suffixes as they are written: a pattern for each of thousands of files would be compared with every file."""
    below = f"{glob.escape(folder)}/" if folder else ""
    return sorted({f"{below}*{PurePosixPath(name).suffix}" for name in files})


def _rows(folder: Path) -> Iterator[Row] | None:
    """What a table lists; None where the folders tell the classes."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    pictures = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    if (folder / VISA_CSV).is_file() or any(_is_in_good(path.relative_to(folder)) for path in pictures):
        return None
    if tables := [path for path in files if path.name in METADATA]:
        return metadata_rows(folder, tables)
    if parquet := [path for path in files if path.suffix == ".parquet"]:
        return parquet_rows(folder, parquet)
    return None  # read_dataset says what is wrong


def _is_in_good(path: Path) -> bool:
    parts = [part.lower() for part in path.parts[:-1]]
    return any(a in ("train", "test") and b in GOOD_NAMES for a, b in itertools.pairwise(parts))


def _make(target: Path, rows: Iterator[Row]) -> None:
    """The folder appears by one rename; what a killed run left is cleared by the next."""
    from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]

    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    with WeakFileLock(target.with_name(f".{target.name}.lock")):
        if target.is_dir():  # by another process, while this one waited
            return
        shutil.rmtree(partial, ignore_errors=True)
        try:
            write_class_folders(rows, partial)
            partial.rename(target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _made(wanted: HubData, commit: str) -> Path:
    """Where class folders of this commit are written, beside the snapshots."""
    folder = hashlib.sha256(wanted.folder.encode()).hexdigest()[:12]
    return _repo(wanted) / _VERSION / f"{commit}-{folder}"


def _list_of(made: Path) -> Path:
    return made.with_name(f"{made.name}.json")


def _repo(wanted: HubData) -> Path:
    return hub.cache_dir() / f"datasets--{wanted.repo_id.replace('/', '--')}"
