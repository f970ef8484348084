"""What a running app keeps of its inspections to see whether production has moved: one monitor of `anomaly.drift` a
detector, for each commit of an inspector. In memory, so that a restart forgets it.

Only detectors that the policy asks about every part are watched: the later ones of a cascade see the parts that the
earlier ones were unsure of, and such a choice looks like drift.
"""

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

from anomaly.calibration import Calibration
from anomaly.drift import LEAST_REFERENCE, Drift, DriftSettings, Finding, begin, finding, observe
from anomaly.policy import Policy, Run, next_step
from anomaly.report import Report

LINES = 8  # commits of inspectors that are kept, the latest used ones
PARTS = 20_000  # of a monitor: without an alarm it then begins anew, with one it stands


class Watched(NamedTuple):
    """What is known of one detector."""

    member: str
    finding: Finding | None  # None: too few held-out scores
    good: int  # held-out good scores
    cut: float | None  # parts above it count apart
    earlier: int  # parts of monitors before this one, none of which saw drift
    failed: int  # parts that it gave no vote on
    chosen: int  # votes on parts that other detectors were unsure of, which are left out


class Seen(NamedTuple):
    """What is known of one commit of an inspector."""

    pictures: int
    repeats: int  # inspections of a picture that was there before, which is no new part
    members: tuple[Watched, ...]


@dataclass(slots=True)
class _Monitor:
    good: tuple[float, ...]
    drift: Drift | None
    earlier: int = 0
    failed: int = 0
    chosen: int = 0


@dataclass(slots=True)
class _Line:
    monitors: dict[str, _Monitor] = field(default_factory=dict)
    seen: dict[str, frozenset[str]] = field(default_factory=dict)  # sha256 of a picture -> members that saw it
    pictures: int = 0
    repeats: int = 0


class DriftWatch:
    """Thread-safe and bounded. One for each process."""

    def __init__(self, settings: DriftSettings, *, lines: int = LINES, parts: int = PARTS) -> None:
        self.settings = settings
        self._most_lines, self._most_parts = lines, parts
        self._lock = threading.Lock()
        self._lines: OrderedDict[tuple[str, str, str], _Line] = OrderedDict()

    def add(self, report: Report, policy: Policy, calibrations: Mapping[str, Calibration]) -> None:
        """Takes in one inspection, after those before it.

        Args:
            report: of it.
            policy: that decided, as it is for the category.
            calibrations: by member.
        """
        first = next_step({}, policy)
        always = first.members if isinstance(first, Run) else ()
        with self._lock:
            line = self._line(report)
            before = line.seen.get(report.image_sha256, frozenset())
            new = False
            for vote in report.votes:
                if vote.member in before:
                    continue
                monitor = line.monitors.get(vote.member)
                if monitor is None:
                    monitor = line.monitors[vote.member] = self._begun(calibrations[vote.member])
                if vote.member not in always:
                    monitor.chosen += 1
                    continue
                new = True
                before |= {vote.member}
                if vote.score is None:
                    monitor.failed += 1
                else:
                    self._observe(monitor, vote.score, report, vote.member)
            line.repeats += not new and report.image_sha256 in line.seen
            line.pictures += report.image_sha256 not in line.seen
            line.seen[report.image_sha256] = before
            if len(line.seen) > self._most_parts:
                del line.seen[next(iter(line.seen))]

    def seen(self, inspector: str, commit: str, category: str) -> Seen:
        """What is known of an inspector at a commit.

        Args:
            inspector: as reports name it.
            commit: 40 hex digits.
            category: of the inspector.
        """
        with self._lock:
            line = self._lines.get((inspector, commit, category), _Line())
            members = tuple(_watched(name, monitor) for name, monitor in line.monitors.items())
            return Seen(line.pictures, line.repeats, members)

    def _line(self, report: Report) -> _Line:
        key = (report.inspector, report.commit, report.category)
        line = self._lines.setdefault(key, _Line())
        self._lines.move_to_end(key)
        while len(self._lines) > self._most_lines:
            self._lines.popitem(last=False)
        return line

    def _begun(self, calibration: Calibration) -> _Monitor:
        good = calibration.good_scores
        return _Monitor(good, begin(good, self.settings) if len(good) >= LEAST_REFERENCE else None)

    def _observe(self, monitor: _Monitor, score: float, report: Report, member: str) -> None:
        drift = monitor.drift
        if drift is None:
            return
        if drift.parts >= self._most_parts:
            if drift.noticed is not None:
                return
            monitor.earlier += drift.parts
            drift = monitor.drift = begin(monitor.good, self.settings)
        at = datetime.fromisoformat(report.created_at).astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
        observe(drift, score, at=at, key=f"{report.image_sha256} {member}")


def _watched(name: str, monitor: _Monitor) -> Watched:
    drift = monitor.drift
    found, cut = (None, None) if drift is None else (finding(drift), drift.cut)
    return Watched(name, found, len(monitor.good), cut, monitor.earlier, monitor.failed, monitor.chosen)
