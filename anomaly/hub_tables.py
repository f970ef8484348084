"""Labelled pictures in tables, as Hub data sets have them (metadata.csv, metadata.jsonl, Parquet) -> class folders.

The names on the disk are made here, from a number and what is harmless of the given name; the bytes are kept.
"""

import csv
import io
import json
import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from anomaly import images
from anomaly.datasets import GOOD_NAMES
from anomaly.errors import DataError, ImageError

__all__ = ["METADATA", "Row", "metadata_rows", "parquet_rows", "write_class_folders"]

_log = logging.getLogger(__name__)

METADATA = ("metadata.csv", "metadata.jsonl")
_SUFFIXES = {"PNG": ".png", "JPEG": ".jpg", "MPO": ".jpg", "BMP": ".bmp", "TIFF": ".tif", "WEBP": ".webp"}
_MASK_SUFFIXES = {"PNG": ".png", "BMP": ".bmp", "TIFF": ".tif"}  # without loss, see anomaly/datasets.py

# What `datasets` takes for the name of a split, in a file's name or a folder's. The first that fits counts.
_PARTS = {
    "test": ("test", "testing", "eval", "evaluation"),
    "validation": ("validation", "valid", "val", "dev"),
    "train": ("train", "training"),
}
_FOLDERS = {"train": "train", "validation": "train", "test": "test"}
_ROWS = 32  # read at a time: pictures may have megabytes each


@dataclass(frozen=True, slots=True)
class Row:
    """One picture of a table."""

    part: str  # train, validation or test
    label: str
    stem: str  # of the name it had; anything
    image: bytes  # of the file
    mask: bytes | None
    where: str  # file, row


def write_class_folders(rows: Iterable[Row], folder: Path) -> None:
    """Writes train/<label>/ and test/<label>/, and the masks of defects where `read_dataset` looks for them.

    Validation pictures become train pictures, which is said on the standard output.

    Raises:
        DataError: a picture or a mask is none, a label gives no name of a folder, or there are no rows.
    """
    count: Counter[str] = Counter()
    labels: dict[str, str] = {}
    for number, row in enumerate(rows):
        label = _harmless(row.label)
        if not label or labels.setdefault(label.lower(), row.label) != row.label:
            raise DataError(f"{row.where}: label {row.label!r} gives no folder name of its own; rename the class")
        name, part = f"{number:06d}_{_harmless(row.stem)}", _FOLDERS[row.part]
        _write(folder / part / label / f"{name}{_suffix(row)}", row.image)
        if row.mask is not None and label.lower() not in GOOD_NAMES:
            masks = "ground_truth" if part == "test" else "ground_truth_train"
            _write(folder / masks / label / f"{name}_mask{_mask_suffix(row.mask, row.where)}", row.mask)
        count[row.part] += 1
    if not count:
        raise DataError("its tables have no rows; expected a picture in each row")
    if count["validation"]:
        _log.warning("%d validation pictures are taken as train, beside %d others", count["validation"], count["train"])


def metadata_rows(root: Path, tables: Sequence[Path]) -> Iterator[Row]:
    """The pictures that metadata.csv or metadata.jsonl name, with the columns file_name, label, mask_file_name.

    Args:
        root: of the data set.
        tables: below it; file names in one are relative to its folder.

    Raises:
        DataError: a table cannot be read, a column or a file is missing, or a file lies elsewhere.
    """
    for table in tables:
        for number, line in enumerate(_lines(table, root), start=1):
            where = f"{_relative(table, root)} row {number}"
            path = _named(table, line, "file_name", where)
            mask = _named(table, line, "mask_file_name", where) if line.get("mask_file_name") else None
            label = line.get("label")
            if not isinstance(label, str) or not label or label.isdecimal():
                raise DataError(
                    f"{where}: column 'label' holds {label!r}; expected the name of a class, such as good or scratch"
                )
            part = _part(_relative(path, root))
            yield Row(part, label, path.stem, path.read_bytes(), None if mask is None else mask.read_bytes(), where)


def parquet_rows(root: Path, files: Sequence[Path]) -> Iterator[Row]:
    """The rows of Parquet files with the columns image, label and maybe mask.

    Args:
        root: of the data set.
        files: below it, of one configuration; names tell train, validation and test.

    Raises:
        DataError: a file cannot be read or belongs to another configuration, a column is missing or of another type.
    """
    import pyarrow as pa
    from pyarrow import parquet

    places = {"/".join(p for p in path.relative_to(root).parts[:-1] if not _is_part(p)) or "." for path in files}
    if len(places) > 1:
        raise DataError(
            f"several data sets in one repo: {sorted(places)}; name one of these folders after the revision"
        )
    for path in files:
        file_name = _relative(path, root)
        try:
            with parquet.ParquetFile(path) as file:
                columns = _Columns.of(file.schema_arrow, file_name)
                number = 0
                for batch in file.iter_batches(_ROWS, columns=columns.names):
                    for values in batch.to_pylist():
                        number += 1
                        yield columns.row(values, _part(file_name), f"{file_name} row {number}")
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{file_name} cannot be read as Parquet ({error}); publish it anew") from error


@dataclass(frozen=True, slots=True)
class _Columns:
    """Which columns of a Parquet file are what."""

    image: str
    label: str
    mask: str | None
    classes: tuple[str, ...] | None  # what the integers of `label` stand for

    @property
    def names(self) -> list[str]:
        return [name for name in (self.image, self.label, self.mask) if name is not None]

    @classmethod
    def of(cls, schema: Any, file_name: str) -> "_Columns":
        from pyarrow import types

        features = _features(schema)
        image = _column(schema, features, "image", "Image", file_name)
        label = _column(schema, features, "label", "ClassLabel", file_name)
        mask = "mask" if "mask" in schema.names else None
        for name in filter(None, (image, mask)):
            kind = schema.field(name).type
            has_bytes = types.is_struct(kind) and any(field.name == "bytes" for field in kind)
            if not (has_bytes or types.is_binary(kind) or types.is_large_binary(kind)):
                raise DataError(
                    f"{file_name}: column {name!r} is {kind}; expected pictures as {{bytes, path}} or binary"
                )
        kind = schema.field(label).type
        kind = kind.value_type if types.is_dictionary(kind) else kind
        classes = features.get(label, {}).get("names") or ()
        if types.is_integer(kind) and not classes:
            raise DataError(f"{file_name}: column {label!r} holds numbers without names; expected a ClassLabel or text")
        if not (types.is_integer(kind) or types.is_string(kind) or types.is_large_string(kind)):
            raise DataError(f"{file_name}: column {label!r} is {kind}; expected a ClassLabel or text")
        return cls(image, label, mask, tuple(map(str, classes)) if types.is_integer(kind) else None)

    def row(self, values: Mapping[str, Any], part: str, where: str) -> Row:
        image, stem = _bytes(values[self.image])
        if not image:
            raise DataError(f"{where}: column {self.image!r} holds no bytes; publish the pictures embedded")
        label = values[self.label]
        if self.classes is not None and label is not None:
            label = self.classes[label] if 0 <= label < len(self.classes) else None
        if not label:
            raise DataError(f"{where}: column {self.label!r} holds {values[self.label]!r}, which is no class; label it")
        mask = _bytes(values[self.mask])[0] if self.mask is not None else None
        return Row(part, str(label), stem, image, mask, f"{where}, column {self.image!r}")


def _features(schema: Any) -> dict[str, dict[str, Any]]:
    """What `datasets` wrote about the columns; nothing where something else wrote the file."""
    try:
        found = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        return {name: feature for name, feature in found.items() if isinstance(feature, dict)}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _column(schema: Any, features: Mapping[str, Mapping[str, Any]], name: str, kind: str, file_name: str) -> str:
    """The column of that name, else the only one of that kind."""
    if name in schema.names:
        return name
    others = [c for c in schema.names if features.get(c, {}).get("_type") == kind and c != "mask"]
    if len(others) != 1:
        raise DataError(f"{file_name}: column {name!r} is missing; found {schema.names}; rename one of them")
    return str(others[0])


def _bytes(value: Any) -> tuple[bytes | None, str]:
    """The bytes and the stem of the path that a cell holds."""
    if isinstance(value, Mapping):
        return value.get("bytes"), PurePosixPath(str(value.get("path") or "")).stem
    return value, ""


def _lines(table: Path, root: Path) -> list[dict[str, Any]]:
    name = _relative(table, root)
    try:
        text = table.read_text(encoding="utf-8-sig")
        if table.suffix == ".csv":
            reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
            lines: list[Any] = list(reader)
        else:
            lines = [json.loads(line) for line in text.splitlines() if line.strip()]
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{name} cannot be read ({error}); expected UTF-8 with the columns file_name, label") from error
    for number, line in enumerate(lines, start=1):
        if not isinstance(line, dict) or (missing := {"file_name", "label"} - line.keys()):
            found = list(line) if isinstance(line, dict) else line
            missing = missing if isinstance(line, dict) else {"file_name", "label"}
            raise DataError(f"{name} row {number}: column {sorted(missing)} is missing; found {found}")
    return lines


def _named(table: Path, line: Mapping[str, Any], column: str, where: str) -> Path:
    name = PurePosixPath(str(line[column] or ""))
    if not name.parts or name.is_absolute() or ".." in name.parts:
        raise DataError(f"{where}: column {column!r} {str(name)!r} is no path below the table's folder")
    path = table.parent / name
    if not path.is_file():
        raise DataError(f"{where}: column {column!r} names {str(name)!r}, which is not in the data set")
    return path


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def _part(name: str) -> str:
    """Which part a file belongs to; its own name counts before its folders', and train is what says nothing."""
    for piece in reversed(PurePosixPath(name).parts):
        for part, words in _PARTS.items():
            if re.search(rf"(?<![a-z])({'|'.join(words)})(?![a-z])", piece.lower()):
                return part
    return "train"


def _is_part(folder: str) -> bool:
    return any(folder.lower() in words for words in _PARTS.values())


def _harmless(name: str) -> str:
    """Letters, digits and _ - . in the middle: no folder, no hidden file, no name that another system refuses."""
    return re.sub(r"[^\w.-]+", "_", name)[:60].strip("._-")


def _suffix(row: Row) -> str:
    try:
        images.read(row.image)  # decodes all of it: a picture cut short shows now, not in the middle of training
        with Image.open(io.BytesIO(row.image)) as image:
            return _SUFFIXES[str(image.format)]
    except KeyError as error:
        raise DataError(f"{row.where}: is {error}; expected one of {list(_SUFFIXES)}") from error
    except ImageError as error:
        raise DataError(f"{row.where}: {error}") from error


def _mask_suffix(mask: bytes, where: str) -> str:
    try:
        with Image.open(io.BytesIO(mask)) as image:
            image.load()
            return _MASK_SUFFIXES[str(image.format)]
    except KeyError as error:
        raise DataError(
            f"{where}: its mask is {error}; expected one of {list(_MASK_SUFFIXES)}, without loss"
        ) from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{where}: its mask cannot be read ({error})") from error


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
