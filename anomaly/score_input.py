"""What a bulk run scores: a folder of pictures, Parquet with pictures in a column, or a data set of the Hub of either.

The pictures stand in one order, by name and then by row, and a part of the run is a stretch of it.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from anomaly.errors import DataError
from anomaly.hub_data import PREFIX, parse_hub_data, snapshot
from anomaly.watch import SUFFIXES

TABLE = ".parquet"
_ROWS = 16  # read at a time: pictures may have megabytes each


class Listed(NamedTuple):
    """A file of the input."""

    name: str  # below the root, with /
    stamp: str  # size and time of change; empty where a commit says which bytes these are
    pictures: int  # 1, or the rows of a table


class Span(NamedTuple):
    """A stretch of one file."""

    file: str
    first: int  # row; 0 of a picture
    rows: int


@dataclass(frozen=True, slots=True)
class Inputs:
    """All pictures, in their order."""

    named: str  # a path, or hf://datasets/ORG/NAME@COMMIT/folder
    root: Path  # here
    files: tuple[Listed, ...]

    @property
    def count(self) -> int:
        """How many there are."""
        return sum(file.pictures for file in self.files)

    @property
    def sha256(self) -> str:
        """Tells one list of files from another: names, sizes, times of change, rows."""
        digest = hashlib.sha256()
        for file in self.files:
            digest.update(json.dumps(file).encode() + b"\n")
        return digest.hexdigest()


def find(text: str) -> Inputs:
    """Lists what there is; of tables only the footers are read.

    Args:
        text: a folder, looked through at any depth, a Parquet file, or `hf://datasets/ORG/NAME[@REVISION][/folder]`,
            which is brought here at the commit that the revision is now.

    Raises:
        DataError: no pictures, or pictures and tables mixed, or a table that cannot be read.
        RegistryError: of the kind that tells why the Hub did not give it.
    """
    if text.startswith("hf:"):
        root, commit = snapshot(text)
        wanted = parse_hub_data(text)
        folder = f"/{wanted.folder}" if wanted.folder else ""
        return Inputs(f"{PREFIX}{wanted.repo_id}@{commit}{folder}", root, _listed(root, stamped=False))
    path = Path(text).expanduser().resolve()
    if path.is_file() and path.suffix.lower() == TABLE:
        return Inputs(str(path), path.parent, (_look(path.parent, path, stamped=True),))
    if not path.is_dir():
        raise DataError(f"{text} is neither a folder nor a {TABLE} file; expected one of them, or {PREFIX}ORG/NAME")
    return Inputs(str(path), path, _listed(path, stamped=True))


def at_hand(named: str, root: Path, spans: Sequence[Span]) -> Path:
    """Where the files of a part are on this machine; on another node than the first, the Hub's may have to be fetched.

    Args:
        named: as in `Inputs`.
        root: where they were when they were listed.
        spans: of the part.

    Raises:
        RegistryError: of the kind that tells why the Hub did not give them.
    """
    if named.startswith(PREFIX) and not all((root / span.file).is_file() for span in spans):
        return snapshot(named)[0]
    return root


def parts(inputs: Inputs, size: int) -> list[tuple[Span, ...]]:
    """Cuts the order into stretches of `size` pictures, the last one shorter."""
    found: list[tuple[Span, ...]] = []
    part: list[Span] = []
    room = size
    for file in inputs.files:
        first = 0
        while first < file.pictures:
            rows = min(room, file.pictures - first)
            part.append(Span(file.name, first, rows))
            first, room = first + rows, room - rows
            if not room:
                found.append(tuple(part))
                part, room = [], size
    return [*found, tuple(part)] if part else found


def pictures(root: Path, spans: Sequence[Span]) -> Iterator[tuple[str, Path | bytes | DataError]]:
    """The name of each picture, and its file, or its bytes in a table, or why these cannot be read."""
    for span in spans:
        if not span.file.lower().endswith(TABLE):
            yield readable(span.file), root / span.file
            continue
        row = span.first
        try:
            for data in _cells(root / span.file, span):
                yield f"{readable(span.file)}#{row}", data
                row += 1
        except DataError as error:
            for rest in range(row, span.first + span.rows):
                yield f"{readable(span.file)}#{rest}", error


def readable(text: str) -> str:
    """Names of files need not be UTF-8, what Parquet holds must be."""
    return text.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _listed(root: Path, *, stamped: bool) -> tuple[Listed, ...]:
    pictures, tables = [], []
    for place, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if name.startswith("."):
                continue
            if name.lower().endswith(SUFFIXES):
                pictures.append(Path(place, name))
            elif name.lower().endswith(TABLE):
                tables.append(Path(place, name))
    if pictures and tables:
        raise DataError(
            f"{root} holds {len(pictures)} pictures and {len(tables)} {TABLE} files, and which are meant is not known; "
            "name a folder of one kind"
        )
    if not pictures and not tables:
        raise DataError(f"{root} holds no pictures ({' '.join(SUFFIXES)}) and no {TABLE} files")
    return tuple(sorted(_look(root, path, stamped=stamped) for path in pictures or tables))


def _look(root: Path, path: Path, *, stamped: bool) -> Listed:
    state = path.stat()
    stamp = f"{state.st_size} {state.st_mtime_ns}" if stamped else ""
    return Listed(path.relative_to(root).as_posix(), stamp, _rows(path) if path.suffix.lower() == TABLE else 1)


def _rows(path: Path) -> int:
    from pyarrow import ArrowException, parquet

    try:
        with parquet.ParquetFile(path) as file:
            _column(file.schema_arrow, path.name)
            return int(file.metadata.num_rows)
    except (ArrowException, OSError) as error:
        raise DataError(f"{path.name} cannot be read as Parquet ({error}); write it anew") from error


def _cells(path: Path, span: Span) -> Iterator[bytes]:
    """The bytes in some rows; of the row groups, only those that hold them are read."""
    from pyarrow import ArrowException, parquet

    try:
        with parquet.ParquetFile(path) as file:
            column = _column(file.schema_arrow, path.name)
            start, groups, before = 0, [], 0
            for group in range(file.num_row_groups):
                end = start + file.metadata.row_group(group).num_rows
                if end <= span.first:
                    before = end
                elif start < span.first + span.rows:
                    groups.append(group)
                start = end
            row = before
            for batch in file.iter_batches(_ROWS, row_groups=groups, columns=[column]):
                for cell in batch.column(0):
                    if span.first <= row < span.first + span.rows:
                        yield _bytes(cell.as_py())
                    row += 1
                if row >= span.first + span.rows:
                    return
    except (ArrowException, OSError) as error:
        raise DataError(f"{path.name} cannot be read as Parquet ({error}); write it anew") from error


def _column(schema: Any, name: str) -> str:
    """`image`, or else the only column that is made like one of `datasets`: {bytes, path}."""
    from pyarrow import types

    def is_picture(kind: Any) -> bool:
        return types.is_struct(kind) and any(field.name == "bytes" for field in kind)

    if "image" in schema.names:
        kind = schema.field("image").type
        if is_picture(kind) or types.is_binary(kind) or types.is_large_binary(kind):
            return "image"
        raise DataError(f"{name}: column 'image' is {kind}; expected pictures as {{bytes, path}} or binary")
    found = [field.name for field in schema if is_picture(field.type)]
    if len(found) != 1:
        raise DataError(f"{name}: column 'image' is missing; found {schema.names}; rename the one with the pictures")
    return str(found[0])


def _bytes(cell: Any) -> bytes:
    data = cell.get("bytes") if isinstance(cell, dict) else cell
    return data or b""
