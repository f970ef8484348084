"""Which parts a person should look at first: those of one visit on which the detectors are unsure or disagree.

The order: a decision of review before any other; then the smallest distance of a counted detector from its line, in
interquartile ranges of its good scores. One whose distances are not known comes after those whose are.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from anomaly.batch import Entry
from anomaly.report import Report

MOST = 500  # parts that wait in one visit; beyond it the least ambiguous are left out


@dataclass(frozen=True, slots=True)
class Waiting:
    """A part that waits for a person."""

    entry: Entry  # where its picture is
    report: Report


Queue = tuple[Waiting, ...]


def unsure(report: Report | None) -> bool:
    """The decision is review, or members that count disagree."""
    if report is None:
        return False
    verdicts = {vote.verdict for vote in report.votes if vote.counted}
    return report.decision == "review" or {"ok", "defect"} <= verdicts


def nearest(report: Report) -> tuple[str, float] | None:
    """The counted member nearest to its line, and how far beyond it that is in interquartile ranges."""
    readings = [] if report.explanation is None else report.explanation.readings
    known = [(r.member, r.distance_iqr) for r in readings if r.counted and r.distance_iqr is not None]
    return min(known, key=lambda pair: abs(pair[1]), default=None)


def rank(part: Waiting) -> tuple[bool, float]:
    """Less is more ambiguous."""
    near = nearest(part.report)
    return part.report.decision != "review", math.inf if near is None else abs(near[1])


def queued(queue: Queue, inspected: Iterable[tuple[Entry, Report]]) -> Queue:
    """The queue after more inspections. Of each picture the latest one counts, also where that one is sure."""
    parts = {_key(part.report): part for part in queue}
    for entry, report in inspected:
        parts.pop(_key(report), None)
        if unsure(report):
            parts[_key(report)] = Waiting(entry, report)
    return tuple(sorted(parts.values(), key=rank)[:MOST])


def without(queue: Queue, part: Waiting) -> Queue:
    """The queue without the picture of a part."""
    return tuple(other for other in queue if _key(other.report) != _key(part.report))


def _key(report: Report) -> tuple[str, str]:
    return report.category, report.image_sha256
