"""What if? The votes of an inspection under another policy, or with members' lines moved. No model runs.

A member's line moves in its own units, and with it every cut that a policy asks of that member. So its vote is cast
with a score that is as much lower, `next_step` decides as it does when a picture is inspected, and what the explanation
says of scores is moved back. A member that was not asked has no vote: where one is needed, that is the answer.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from anomaly.calibration import Calibration
from anomaly.explain import Explanation, change_words, explain
from anomaly.policy import Cut, Decision, Failure, Policy, Vote, cast_vote, next_step
from anomaly.policy_check import least_score
from anomaly.report import Report
from anomaly.rules import CascadeRule, WeightedRule

_FAR = Cut(threshold="far")  # what every member has
_STEPS = 1000  # of a slider, at the least
_BEYOND = 0.1  # how far a slider goes beyond all known scores, in their range


@dataclass(frozen=True, slots=True)
class Line:
    """Where one member's own verdict turns, and the range that it can be moved in. All in the member's own units."""

    member: str
    cut: str  # f1, p ≤ 0.01, P ≥ 0.5
    value: float  # as calibrated
    score: float  # of this inspection
    low: float  # low, high and what lies between them are whole multiples of `step`
    high: float
    step: float

    @property
    def place(self) -> float:
        """The multiple of `step` that stands for the calibrated line."""
        return _rounded(round(self.value / self.step) * self.step, self.step)

    def moved_to(self, place: float | None) -> float:
        """How far a line at a place has been moved; 0 where it stands for the calibrated line, or for nothing."""
        if place is None or not math.isfinite(place) or abs(place - self.place) < self.step / 2:
            return 0.0
        return place - self.value


@dataclass(frozen=True, slots=True)
class WhatIf:
    """What would have been decided."""

    policy: str
    decision: Decision | None  # None: these members have no vote, and the policy cannot do without
    explanation: Explanation | None
    needs: tuple[str, ...] = ()


def votes_of(report: Report, calibrations: Mapping[str, Calibration]) -> dict[str, Vote | Failure]:
    """The votes of a report, as its policy got them.

    Args:
        report: of an inspection.
        calibrations: by member, of the commits that the report names.
    """
    return {
        row.member: Failure(row.member, row.error or "")
        if row.score is None
        else cast_vote(row.member, row.score, calibrations[row.member], row.class_shares)
        for row in report.votes
    }


def what_if(
    votes: Mapping[str, Vote | Failure],
    policy: Policy,
    calibrations: Mapping[str, Calibration],
    moved: Mapping[str, float] | None = None,
) -> WhatIf:
    """Decides again.

    Args:
        votes: at hand, by member.
        policy: as it is for the category. Advisory members without a vote are left out: they decide nothing.
        calibrations: by member.
        moved: by member, how far up its line is moved, own units.
    """
    by = {name: distance for name, distance in (moved or {}).items() if distance}
    shifted = {name: _shifted(vote, calibrations[name], by.get(name, 0.0)) for name, vote in votes.items()}
    rule = policy.model_copy(update={"advisory": tuple(name for name in policy.advisory if name in votes)})
    asked: dict[str, Vote | Failure] = {}
    while not isinstance(step := next_step(asked, rule), Decision):
        if needs := tuple(name for name in step.members if name not in shifted):
            return WhatIf(policy.name, None, None, needs)
        asked |= {name: shifted[name] for name in step.members}
    return WhatIf(policy.name, step, _moved_back(explain(asked, rule, step, calibrations), by))


def lines(
    votes: Mapping[str, Vote | Failure], policy: Policy, calibrations: Mapping[str, Calibration]
) -> tuple[Line, ...]:
    """The line of every member that counts and voted, in the order of the policy.

    Args:
        votes: at hand, by member.
        policy: as it is for the category.
        calibrations: by member.
    """
    voted = [vote for name in policy.members if isinstance(vote := votes.get(name), Vote)]
    return tuple(_line(vote, policy, calibrations[vote.member]) for vote in voted)


def _shifted(vote: Vote | Failure, calibration: Calibration, by: float) -> Vote | Failure:
    if isinstance(vote, Failure) or not by:
        return vote
    return cast_vote(vote.member, vote.score - by, calibration, vote.class_shares)


def _moved_back(why: Explanation, by: Mapping[str, float]) -> Explanation:
    """Distances stay; scores are those of the picture, and a line that was moved says so."""
    readings = tuple(
        r.model_copy(update={"cut": f"{r.cut} ({by[r.member]:+.3g})"}) if r.member in by else r for r in why.readings
    )
    flip = why.flip
    if flip is not None and flip.member in by:
        flip = flip.model_copy(update={"score": flip.score + by[flip.member]})
    changed = change_words(flip)
    sentences = {language: (said[0], changed[language]) for language, said in why.sentences.items()}
    return why.model_copy(update={"readings": readings, "flip": flip, "sentences": sentences})


def _line(vote: Vote, policy: Policy, calibration: Calibration) -> Line:
    cut = _cut_of(vote.member, policy)
    least = least_score(cut, calibration)
    if least is None or math.isinf(least):  # every score reaches the cut, or none
        cut, least = _FAR, calibration.thresholds["far"].value
    known = (*calibration.good_scores, *calibration.defect_scores, vote.score, least)
    low, high = min(known), max(known)
    width = (high - low) or abs(high) or 1.0
    step = 10.0 ** math.floor(math.log10(width / _STEPS))
    low, high = math.floor((low - _BEYOND * width) / step), math.ceil((high + _BEYOND * width) / step)
    return Line(vote.member, str(cut), least, vote.score, _rounded(low * step, step), _rounded(high * step, step), step)


def _cut_of(name: str, policy: Policy) -> Cut:
    """The cut that a policy asks of a member first, be there votes or not; far where it only looks at it otherwise."""
    rule = policy.rule
    if isinstance(rule, CascadeRule):
        step = next((step for step in rule.steps if name in step.members), None)
        return _FAR if step is None else step.reject or step.accept or _FAR
    return rule.cut if name in rule.members or not isinstance(rule, WeightedRule) else _FAR


def _rounded(value: float, step: float) -> float:
    """Without the dust of binary fractions: a slider shows every digit it is given."""
    return round(value, max(0, -math.floor(math.log10(step) + 0.5)))
