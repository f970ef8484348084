"""Reports -> Parquet files, with a schema made from the model of a report (Apache Arrow, arrow.apache.org).

A row of `rows/` holds what a repetition gives again; what is measured anew each time lies in `measured/`, in files of
the same names with the same order. Keys that are known beforehand (languages) become a struct, others (types of
defect) a map.
"""

import os
import types
import uuid
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from anomaly.errors import VigieError
from anomaly.report import Report

if TYPE_CHECKING:
    import pyarrow as pa

ROWS, MEASURED = "rows", "measured"  # folders of the output
_OF_AN_INSPECTION = ("emissions", "duration_ms", "created_at")
_OF_A_VOTE = ("duration_ms", "energy_share_mj")


def need_pyarrow() -> None:
    """Raises VigieError where Parquet cannot be written, and says what to install."""
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise VigieError("scoring writes Parquet, which needs pyarrow: pip install 'vigie[score]'") from error


@cache
def schemas() -> "tuple[pa.Schema, pa.Schema]":
    """Of the files in `rows/` and in `measured/`."""
    import pyarrow as pa

    report = {name: _type(field.annotation) for name, field in Report.model_fields.items()}
    vote = report["votes"].value_type
    said = pa.struct([field for field in vote if field.name not in _OF_A_VOTE])
    timed = pa.struct([vote.field("member"), *(vote.field(name) for name in _OF_A_VOTE)])
    picture = [("image", pa.string())]
    kept = {name: kind for name, kind in report.items() if name not in _OF_AN_INSPECTION}
    rows = [*(kept | {"votes": pa.list_(said)}).items(), ("error", pa.string()), ("code", pa.string())]
    measured = [(name, report[name]) for name in _OF_AN_INSPECTION]
    return (
        pa.schema(picture + rows),
        pa.schema([*picture, *measured, ("votes", pa.list_(timed)), ("worker", pa.string())]),
    )


def write(output: Path, name: str, rows: Sequence[dict[str, Any]]) -> None:
    """Writes one part; it is there, whole, from the moment at which its file in `rows/` appears.

    Args:
        output: folder.
        name: of the two files.
        rows: what both schemas ask for, by name; what is not there is null.
    """
    import pyarrow as pa
    from pyarrow import parquet

    kept, measured = schemas()
    for folder, schema in ((MEASURED, measured), (ROWS, kept)):
        partial = output / "partial" / f"{name}.{uuid.uuid4().hex}"
        for place in (partial.parent, output / folder):
            place.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            parquet.write_table(pa.Table.from_pylist(list(rows), schema=schema), file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(output / folder / name)


def _type(annotation: Any) -> Any:
    """The Arrow type of a field of a model. Everything may be null: a picture without a report has nothing."""
    import pyarrow as pa

    simple = {str: pa.string(), bool: pa.bool_(), int: pa.int64(), float: pa.float64()}
    origin, inside = get_origin(annotation), get_args(annotation)
    found = simple.get(annotation)
    if origin in (Union, types.UnionType):
        kinds = {_type(kind) for kind in inside if kind is not type(None)}
        found = kinds.pop() if len(kinds) == 1 else None
    elif origin is Literal:
        found = _type(type(inside[0]))
    elif origin is tuple:
        found = pa.list_(_type(inside[0]))
    elif origin is dict and get_origin(inside[0]) is Literal:
        found = pa.struct([(key, _type(inside[1])) for key in get_args(inside[0])])
    elif origin is dict:
        found = pa.map_(pa.string(), _type(inside[1]))
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        found = pa.struct([(name, _type(field.annotation)) for name, field in annotation.model_fields.items()])
    if found is None:
        raise TypeError(f"no Arrow type is known for {annotation}, a field of a report; add it here")
    return found
