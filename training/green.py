"""GREEN: the cascade of least energy that finds as many held-out defects as the safe policy does."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anomaly.calibration import Calibration, ThresholdName
from anomaly.policy import CascadeRule, Cut, Policy, Step, Vote, reaches, replay
from anomaly.policy_check import least_score
from training.joint_votes import Joint, left_out
from training.risk_control import least_defects

SAFE: ThresholdName = "safe"
_COMMON = (0.5, 0.3, 0.2, 0.1)  # p-values above which a first member may say ok
_MOST_FIRST = 2  # steps before the last one

# Held-out defects from which on a part may pass before all have been asked: none missed then supports "at most 5 %"
# with 95 % confidence. Measured on drawn cables, 20 divisions of the calibration pictures, eight detectors: the cascade
# that just misses none of 8 defects misses 24 % of the others where the safe policy misses 7 %; of 60, 2.9 % and 2.4 %.
ENOUGH = least_defects(0.05)
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
    refused: Flags  # by the safe policy
    once: Flags  # the parts as they are; the others cost nothing


@dataclass(frozen=True, slots=True)
class _Path:
    """Steps so far and what they left open."""

    steps: tuple[Step, ...]
    open: Flags
    false_alarms: int
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

    It must let no held-out part pass that the safe policy rejects, be it a defect, a defect judged at `safe` thresholds
    that were set without it, or a good part: there are more good parts near the thresholds than defects, and a cascade
    that passes those would pass the next defect there as well. And it must reject no more good parts.

    With fewer defects than `ENOUGH` nothing says `ok` before all of the safe policy's members have been asked, which
    never misses what they find: of many cascades that miss none of a few defects, the cheapest misses others.

    Args:
        safe: the safe policy.
        telling: members that may decide at `safe` alone.
        calibrations: by member.
        joint: parts that every member voted on.

    Returns:
        The cheapest, at worst the safe policy itself as a cascade of one step.
    """
    parts = (*joint.parts, *left_out(joint, calibrations).defects)
    refused = np.array([replay(part.votes, safe)[0].verdict == "defect" for part in parts], bool)
    bad, once = np.array([part.is_defect for part in parts], bool), np.arange(len(parts)) < len(joint.parts)
    rows = _Rows(~bad, refused, once)
    most, may_pass = int((rows.good & refused).sum()), len(joint.defects) >= ENOUGH

    def reached(name: str, cut: Cut) -> Flags:
        votes = [part.votes[name] for part in parts]
        return np.array([isinstance(vote, Vote) and reaches(vote, cut) for vote in votes], bool)

    line = Cut(threshold=SAFE)
    at_line = {name: reached(name, line) for name in calibrations}
    firsts = {name: list(_firsts(name, c, reached, may_pass)) for name, c in calibrations.items()}
    lasts = dict.fromkeys([safe.rule.members, *((name,) for name in telling if may_pass)])
    best: tuple[tuple[float, int, int], tuple[Step, ...]] | None = None
    paths = [_Path((), np.ones(len(parts), bool), 0, 0.0)]
    for length in range(_MOST_FIRST + 1):
        longer: list[_Path] = []
        for path in paths:
            for members in lasts:
                says = np.logical_or.reduce([at_line[name] for name in members])
                false_alarms = path.false_alarms + int((path.open & says & rows.good).sum())
                cost = path.cost + int((path.open & once).sum()) * joint.price.of({*path.asked, *members})
                rank = (round(cost, 6), false_alarms, len(path.steps))  # a sum in another order is no saving
                if (path.open & ~says & refused).any() or false_alarms > most:
                    continue
                if best is None or rank < best[0]:
                    best = rank, (*path.steps, Step(members=members, accept=line, reject=line))
            if length < _MOST_FIRST:
                others = (first for name in firsts if name not in path.asked for first in firsts[name])
                longer += [_after(path, first, rows, joint) for first in others if not _passes(path, first, refused)]
        least = np.inf if best is None else best[0][0]
        paths = [path for path in longer if path.false_alarms <= most and path.cost < least]
    assert best is not None  # the safe policy's own members are among the last ones
    return CascadeRule(kind="cascade", steps=best[1])


def _passes(path: _Path, first: _First, refused: Flags) -> bool:
    """Whether a part that the safe policy rejects would be ok."""
    return bool((path.open & ~first.rejects & first.accepts & refused).any())


def _after(path: _Path, first: _First, rows: _Rows, joint: Joint) -> _Path:
    rejected, accepted = path.open & first.rejects, path.open & first.accepts
    decided = int(((rejected | accepted) & rows.once).sum())
    return _Path(
        (*path.steps, first.step),
        path.open & ~rejected & ~accepted,
        path.false_alarms + int((rejected & rows.good).sum()),
        path.cost + decided * joint.price.of((*path.asked, *first.step.members)),
    )


def _firsts(
    name: str, calibration: Calibration, reached: Callable[[str, Cut], Flags], may_pass: bool
) -> Iterator[_First]:
    """Every pair of bands that can be: what is rejected must not be accepted as well."""
    accepts: list[Cut | None] = [None]
    if may_pass:
        accepts = [Cut(p_value=p) for p in _COMMON if p >= calibration.smallest_p_value]
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
