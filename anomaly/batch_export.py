"""The rows of a batch -> CSV, JSONL, and a ZIP of drawings (csv and zipfile of Python)."""

import csv
import io
import json
import re
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import Any

from anomaly.batch import Row, by_distance
from anomaly.emissions import Emissions
from anomaly.report import MemberVote, Report

_AS_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet would run it

_REPORT_JSON = ("explanation", "warnings")  # of variable shape: JSON in one cell
_VOTE_JSON = ("class_shares", "boxes")
_VOTE_FIELDS = tuple(name for name in MemberVote.model_fields if name != "member")


def jsonl(rows: Iterable[Row]) -> str:
    """A line a row: the report as `inspect --json` writes it, or `image`, `error` and its `code`."""
    return "".join(json.dumps(_flat(row), ensure_ascii=False) + "\n" for row in rows)


def _flat(row: Row) -> dict[str, Any]:
    said = {"error": row.error, "code": row.code} if row.report is None else row.report.model_dump(mode="json")
    return {"image": row.file, **said}


def csv_text(rows: Sequence[Row]) -> str:
    """The fields of the reports as columns, the same for every batch that the same members voted in.

    `reason` and `emissions` are `reason.en`, `emissions.energy_mj` and so on; a vote is `votes.MEMBER.score` and so on;
    lists and the explanation are JSON. A text that a spreadsheet would take for a formula has a ' in front.
    """
    members = dict.fromkeys(vote.member for row in rows if row.report is not None for vote in row.report.votes)
    names = ["image", "error", "code"]
    for field in Report.model_fields:
        if field == "reason":
            names += ["reason.en", "reason.fr"]
        elif field == "emissions":
            names += [f"emissions.{name}" for name in Emissions.model_fields]
        elif field == "votes":
            names += [f"votes.{member}.{name}" for member in members for name in _VOTE_FIELDS]
        else:
            names.append(field)
    file = io.StringIO()
    writer = csv.DictWriter(file, names, lineterminator="\r\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in _columns(row).items()} for row in rows)
    return file.getvalue()


def _columns(row: Row) -> dict[str, Any]:
    values = _flat(row)
    for name in _REPORT_JSON:
        if values.get(name) is not None:
            values[name] = json.dumps(values[name], ensure_ascii=False)
    for name in ("reason", "emissions"):
        values |= {f"{name}.{key}": value for key, value in values.pop(name, {}).items()}
    for vote in values.pop("votes", ()):
        for name in _VOTE_FIELDS:
            value = vote[name]
            kept = json.dumps(value, ensure_ascii=False) if name in _VOTE_JSON and value is not None else value
            values[f"votes.{vote['member']}.{name}"] = kept
    return values


def _cell(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(_AS_FORMULA) else value


def annotated_zip(rows: Iterable[Row]) -> bytes:
    """The drawings, the most suspicious first, named by rank, decision and picture; with the reports as JSONL."""
    rows = list(rows)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for rank, row in enumerate(by_distance(rows), 1):
            assert row.report is not None
            name = re.sub(r"[^\w.-]+", "_", PurePosixPath(row.file).stem)[-80:]
            archive.writestr(f"{rank:03d}-{row.report.decision}-{name}.jpg", row.drawn, zipfile.ZIP_STORED)
        archive.writestr("reports.jsonl", jsonl(rows))
    return file.getvalue()
