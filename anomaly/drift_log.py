"""A log of inspections (one JSON report a line, as `inspect --json` writes) -> what `anomaly.drift` says of each
detector.

A detector that some reports of a policy have and others of it do not is a later one of a cascade: it saw the parts that
the earlier ones were unsure of. Such a choice looks like drift, so its votes under that policy are left out.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from anomaly import hub
from anomaly.calibration import read_calibration
from anomaly.drift import LEAST_REFERENCE, DriftSettings, Finding, begin, finding, observe
from anomaly.errors import DataError, ModelLoadError

FIRST = 50  # parts that stand in for a calibration nobody gave


class Stream(NamedTuple):
    """Whose scores can be compared: one detector, at one commit, on one category."""

    category: str
    member: str
    commit: str  # of the member, 40 hex digits


@dataclass(slots=True)
class Log:
    """What was read."""

    scores: dict[Stream, list[tuple[datetime, float, str]]] = field(default_factory=dict)  # when, score, key
    failed: dict[Stream, int] = field(default_factory=dict)  # parts that the member gave no vote on
    chosen: dict[Stream, int] = field(default_factory=dict)  # votes on parts that others were unsure of, left out
    reports: int = 0
    repeats: int = 0  # reports on a picture that was inspected before by the same commit, which is no new part
    wrong: dict[int, str] = field(default_factory=dict)  # line number -> what is wrong with it


class MemberDrift(BaseModel):
    """One stream of a log."""

    model_config = ConfigDict(frozen=True)

    category: str
    member: str
    commit: str
    failed: int  # parts without a vote
    chosen: int = 0  # votes left out: a cascade asked only where others were unsure
    reference: str  # what it is compared with, in words
    finding: Finding | None  # None where there is too little to say anything
    note: str | None = None  # why


class DriftReport(BaseModel):
    """What `python -m anomaly drift --json` prints."""

    model_config = ConfigDict(frozen=True)

    log: str
    reports: int
    repeats: int
    wrong_lines: dict[int, str]
    settings: DriftSettings
    members: tuple[MemberDrift, ...]


class _Vote(BaseModel):
    model_config = ConfigDict(extra="ignore")  # other versions have other fields

    member: str
    commit: str
    score: Annotated[float, Field(allow_inf_nan=False)] | None


class _Line(BaseModel):
    model_config = ConfigDict(extra="ignore")

    category: str
    commit: str = ""  # of the inspector
    policy: str = ""
    image_sha256: str
    created_at: datetime
    votes: tuple[_Vote, ...]


def watch(
    path: Path,
    settings: DriftSettings,
    *,
    inspector: str | None = None,
    revision: str | None = None,
    member: str | None = None,
) -> DriftReport:
    """Goes through a log in the order of time.

    Args:
        path: of the log.
        settings: of the monitors.
        inspector: whose calibration the scores are compared with; without it the first parts of the log stand in.
        revision: of the inspector.
        member: only this one.

    Raises:
        DataError: the log cannot be read, has no right line, or knows no such member.
        RegistryError, ModelLoadError: the inspector cannot be had.
    """
    log = read_log(path)
    found = log.scores.keys() | log.failed.keys() | log.chosen.keys()
    known = sorted({stream.member for stream in found})
    if member is not None and member not in known:
        raise DataError(f"{path} has no votes of {member!r}; it has those of {known}")
    good = held_out(inspector, revision) if inspector is not None else {}
    streams = sorted(stream for stream in found if member in (None, stream.member))
    return DriftReport(
        log=str(path),
        reports=log.reports,
        repeats=log.repeats,
        wrong_lines=log.wrong,
        settings=settings,
        members=tuple(_of(log, stream, settings, good, inspector is not None) for stream in streams),
    )


def read_log(path: Path) -> Log:
    """Reads a log. A line that is no report is noted, and the others count.

    Raises:
        DataError: the file cannot be read, or no line of it is a report.
    """
    log = Log()
    lines: list[_Line] = []
    try:
        with path.open("rb") as file:
            for number, text in enumerate(file, 1):
                if not text.strip():
                    continue
                try:
                    lines.append(_Line.model_validate(json.loads(text)))
                except (ValueError, RecursionError) as error:
                    log.wrong[number] = _why(error)
    except OSError as error:
        raise DataError(f"{path}: the log cannot be read ({error.strerror})") from error
    if not lines:
        first = next(iter(log.wrong.items()), None)
        why = f"the first, line {first[0]}, is wrong: {first[1]}" if first else "it is empty"
        raise DataError(f"{path}: no line is a report as `python -m anomaly inspect --json` writes it; {why}")
    always = _asked_always(lines)
    seen: set[tuple[Stream, str]] = set()
    for line in sorted(lines, key=lambda line: _utc(line.created_at)):  # stable: several logs may be put together
        log.reports += 1
        new = False
        for vote in line.votes:
            stream = Stream(line.category, vote.member, vote.commit)
            if (stream, line.image_sha256) in seen:
                continue
            new = True
            seen.add((stream, line.image_sha256))
            if vote.member not in always[line.commit, line.policy]:
                log.chosen[stream] = log.chosen.get(stream, 0) + 1
            elif vote.score is None:
                log.failed[stream] = log.failed.get(stream, 0) + 1
            else:
                key = f"{line.image_sha256} {vote.member}"
                log.scores.setdefault(stream, []).append((_utc(line.created_at), vote.score, key))
        log.repeats += bool(line.votes) and not new
    return log


def _asked_always(lines: Sequence[_Line]) -> dict[tuple[str, str], set[str]]:
    """By commit of the inspector and policy: the members that every report of it has."""
    found: dict[tuple[str, str], set[str]] = {}
    for line in lines:
        members = {vote.member for vote in line.votes}
        found[line.commit, line.policy] = found.get((line.commit, line.policy), members) & members
    return found


def held_out(inspector: str, revision: str | None) -> dict[Stream, tuple[float, ...]]:
    """The held-out good scores of every member of an inspector; no model is loaded.

    Raises:
        RegistryError, ModelLoadError: it cannot be had, or a file of it is not right.
    """
    from anomaly.inspector import INSPECTOR_FILE, InspectorFile

    place = hub.parse_source(inspector)
    folder = hub.download(place, hub.resolve(place, revision), [INSPECTOR_FILE])
    try:
        file = InspectorFile.model_validate_json((folder / INSPECTOR_FILE).read_bytes())
    except ValidationError as error:
        raise ModelLoadError(f"{folder / INSPECTOR_FILE}: {error}") from error
    found = {}
    for ref in file.members:
        home = hub.download(place.sibling(ref.repo), ref.commit, ["calibration.json"])
        categories = read_calibration(home / "calibration.json").categories
        if file.category in categories:
            found[Stream(file.category, ref.name, ref.commit)] = categories[file.category].good_scores
    return found


def _of(
    log: Log, stream: Stream, settings: DriftSettings, good: Mapping[Stream, Sequence[float]], asked: bool
) -> MemberDrift:
    scores = log.scores.get(stream, [])
    chosen = log.chosen.get(stream, 0)
    said: dict[str, Any] = {**stream._asdict(), "failed": log.failed.get(stream, 0), "chosen": chosen}
    if chosen and not scores:
        note = f"{chosen} votes, all on parts that a cascade asked it about because others were unsure"
        return MemberDrift(**said, reference="", finding=None, note=note)
    if (calibrated := good.get(stream)) is not None:
        reference, rest = [*calibrated], scores
        words = f"{len(reference)} held-out good parts"
    else:
        reference, rest = [score for _, score, _ in scores[:FIRST]], scores[FIRST:]
        words = f"the first {len(reference)} parts of the log" + (
            " (the inspector has no such member at this commit)" if asked else ""
        )
    if len(reference) < LEAST_REFERENCE:
        note = f"too few to compare with: {len(reference)}, at least {LEAST_REFERENCE} are needed"
        return MemberDrift(**said, reference=words, finding=None, note=note)
    drift = begin(reference, settings)
    for at, score, key in rest:
        observe(drift, score, at=at.isoformat(timespec="seconds"), key=key)
    return MemberDrift(**said, reference=words, finding=finding(drift))


def _utc(time: datetime) -> datetime:
    return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)


def _why(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        if first["type"] == "model_type":
            return "it is not a JSON object"
        return f"{'.'.join(map(str, first['loc'])) or 'the line'}: {first['msg']}"
    return " ".join(str(error).split()) or type(error).__name__
