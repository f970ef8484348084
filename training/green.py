"""GREEN: the cascade of least energy that finds as many held-out defects as the safe policy does."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anomaly.calibration import Calibration, ThresholdName
from anomaly.policy import CascadeRule, Cut, Policy, Step, Vote, reaches, replay
from anomaly.policy_check import least_score
from training.joint_votes import Joint, left_out

SAFE: ThresholdName = "safe"
_COMMON = (0.5, 0.3, 0.2, 0.1)  # p-values above which a first member may say ok
_MOST_FIRST = 2  # steps before the last one
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class _First:
    """A member that may decide before the others are asked."""

    step: Step
    rejects: Flags  # (N,) of the rows
    accepts: Flags


@dataclass(frozen=True, slots=True)
class _Rows:
    """What is counted: the held-out parts as they are, and each defect again at thresholds that were set without it."""

    good: Flags  # (N,)
    bad: Flags
    apart: Flags  # the defects again; these cost nothing

    def counts(self, rejected: Flags, accepted: Flags) -> "_Counts":
        return _Counts(
            int((accepted & self.bad).sum()), int((accepted & self.apart).sum()), int((rejected & self.good).sum())
        )


@dataclass(frozen=True, slots=True)
class _Counts:
    missed: int
    missed_apart: int
    false_alarms: int

    def plus(self, other: "_Counts") -> "_Counts":
        return _Counts(
            self.missed + other.missed,
            self.missed_apart + other.missed_apart,
            self.false_alarms + other.false_alarms,
        )

    def within(self, most: "_Counts") -> bool:
        return (
            self.missed <= most.missed
            and self.missed_apart <= most.missed_apart
            and self.false_alarms <= most.false_alarms
        )


@dataclass(frozen=True, slots=True)
class _Path:
    """Steps so far and what they left open."""

    steps: tuple[Step, ...]
    open: Flags
    counts: _Counts
    cost: float  # of the parts that are decided, summed

    @property
    def asked(self) -> tuple[str, ...]:
        return tuple(step.members[0] for step in self.steps)


def clear_good(calibration: Calibration) -> Cut:
    """Reached by scores above every held-out good one."""
    return Cut(p_value=calibration.smallest_p_value)


def green_rule(
    safe: Policy, telling: tuple[str, ...], calibrations: Mapping[str, Calibration], joint: Joint
) -> CascadeRule:
    """Tries every cascade of up to two members that may decide early, before one or all of the safe policy's do.

    It may miss no more of the held-out defects than the safe policy (which misses none), no more of them where each is
    judged at `safe` thresholds that were set without it (there a single member misses the one that it scores lowest),
    and reject no more good parts.

    Args:
        safe: the safe policy.
        telling: members that may decide at `safe` alone.
        calibrations: by member.
        joint: parts that every member voted on.

    Returns:
        The cheapest, at worst the safe policy itself as a cascade of one step.
    """
    parts = (*joint.parts, *left_out(joint, calibrations).defects)
    first_again, bad = len(joint.parts), np.array([part.is_defect for part in parts], bool)
    again = np.arange(len(parts)) >= first_again
    rows = _Rows(good=~bad, bad=bad & ~again, apart=bad & again)
    rejected = np.array([replay(part.votes, safe)[0].verdict == "defect" for part in parts], bool)
    most = rows.counts(rejected, ~rejected)

    def reached(name: str, cut: Cut) -> Flags:
        votes = [part.votes[name] for part in parts]
        return np.array([isinstance(vote, Vote) and reaches(vote, cut) for vote in votes], bool)

    line = Cut(threshold=SAFE)
    at_line = {name: reached(name, line) for name in calibrations}
    firsts = {name: list(_firsts(name, c, reached)) for name, c in calibrations.items()}
    lasts = dict.fromkeys([safe.rule.members, *((name,) for name in telling)])
    best: tuple[tuple[float, int, int], tuple[Step, ...]] | None = None
    paths = [_Path((), np.ones(len(parts), bool), _Counts(0, 0, 0), 0.0)]
    for length in range(_MOST_FIRST + 1):
        longer: list[_Path] = []
        for path in paths:
            for members in lasts:
                says = np.logical_or.reduce([at_line[name] for name in members])
                found = path.counts.plus(rows.counts(path.open & says, path.open & ~says))
                cost = path.cost + int((path.open & ~again).sum()) * joint.price.of({*path.asked, *members})
                rank = (cost, found.false_alarms, len(path.steps))
                if found.within(most) and (best is None or rank < best[0]):
                    best = rank, (*path.steps, Step(members=members, accept=line, reject=line))
            if length < _MOST_FIRST:
                others = (first for name in firsts if name not in path.asked for first in firsts[name])
                longer += [_after(path, first, rows, joint) for first in others]
        least = np.inf if best is None else best[0][0]
        paths = [path for path in longer if path.counts.within(most) and path.cost < least]
    assert best is not None  # the safe policy's own members are among the last ones
    return CascadeRule(kind="cascade", steps=best[1])


def _after(path: _Path, first: _First, rows: _Rows, joint: Joint) -> _Path:
    rejected, accepted = path.open & first.rejects, path.open & first.accepts
    decided = int(((rejected | accepted) & ~rows.apart).sum())
    return _Path(
        (*path.steps, first.step),
        path.open & ~rejected & ~accepted,
        path.counts.plus(rows.counts(rejected, accepted)),
        path.cost + decided * joint.price.of((*path.asked, *first.step.members)),
    )


def _firsts(name: str, calibration: Calibration, reached: Callable[[str, Cut], Flags]) -> Iterator[_First]:
    """Every pair of bands that can be: what is rejected must not be accepted as well."""
    accepts: list[Cut | None] = [Cut(p_value=p) for p in _COMMON if p >= calibration.smallest_p_value]
    accepts += [Cut(threshold=SAFE), None]
    never = np.zeros_like(reached(name, Cut(threshold="far")))
    for accept in accepts:
        for reject in (clear_good(calibration), None):
            if accept is None and reject is None:
                continue
            if accept is not None and reject is not None:
                low, high = least_score(accept, calibration), least_score(reject, calibration)
                if low is None or high is None or low > high:
                    continue
            over = never if reject is None else reached(name, reject)
            under = never if accept is None else ~reached(name, accept) & ~over
            yield _First(Step(members=(name,), accept=accept, reject=reject), over, under)
