"""What members say, and what becomes of it: votes, failures, decisions."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from anomaly.calibration import Calibration, ThresholdName
from anomaly.errors import PolicyError
from anomaly.rules import Cut, Text, Verdict

SEVERITY: Mapping[Verdict, int] = {"ok": 0, "review": 1, "defect": 2}


@dataclass(frozen=True, slots=True)
class Vote:
    """One member's calibrated opinion."""

    member: str
    score: float  # the detector's own units, higher = more anomalous
    p_value: float  # share of good parts expected to score this high or higher
    thresholds: Mapping[ThresholdName, float]
    probability: float | None = None  # of a defect; only where it was calibrated on labelled defects
    class_shares: Mapping[str, float] | None = None  # softmax of a type head

    def __post_init__(self) -> None:
        if not math.isfinite(self.score):  # NaN is below no threshold and above none: it would pass for ok
            raise ValueError(f"{self.member!r} scored {self.score}: that is a Failure, not a Vote")
        if self.probability is not None and not 0 <= self.probability <= 1:
            raise ValueError(f"{self.member!r} gave a probability of {self.probability}: that is a Failure, not a Vote")


@dataclass(frozen=True, slots=True)
class Failure:
    """A member that could not vote. Never a vote for ok."""

    member: str
    reason: str


@dataclass(frozen=True, slots=True)
class Run:
    """Not decided yet: these members have to vote."""

    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """What the policy says, and why."""

    verdict: Verdict
    reason: Text
    verdicts: Mapping[str, Verdict]  # of each member that voted
    fired: str = "rule"  # or rule.steps[0], required, exceptions[1]: of the policy as it is for this category
    cuts: Mapping[str, Cut] = field(default_factory=dict)  # by member that was asked: where its own verdict is defect
    discounted: tuple[str, ...] = ()  # members whose vote counted less


def cast_vote(
    member: str, score: float, calibration: Calibration, class_shares: Mapping[str, float] | None = None
) -> Vote:
    """The vote of a member that scored; raises ValueError for a score that is not finite."""
    thresholds = {name: threshold.value for name, threshold in calibration.thresholds.items()}
    if not math.isfinite(score):
        return Vote(member, score, math.nan, thresholds)
    probability = None if calibration.probability is None else calibration.probability.of(score)
    return Vote(member, score, calibration.p_value(score), thresholds, probability, class_shares)


def reaches(vote: Vote, cut: Cut) -> bool:
    """Whether a vote is at a cut or beyond. A score equal to the threshold is.

    Raises:
        PolicyError: the member was not calibrated for it.
    """
    if cut.p_value is not None:
        return vote.p_value <= cut.p_value
    if cut.score is not None:
        return vote.score >= cut.score
    if cut.probability is not None:
        if vote.probability is None:
            raise PolicyError(f"{cut} needs a probability of a defect, and {vote.member!r} is not calibrated for one")
        return vote.probability >= cut.probability
    assert cut.threshold is not None
    threshold = vote.thresholds.get(cut.threshold)
    if threshold is None:
        raise PolicyError(
            f"rule.threshold {cut.threshold!r} is not calibrated for {vote.member!r}, which has "
            f"{sorted(vote.thresholds)}"
        )
    return vote.score >= threshold
