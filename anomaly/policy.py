"""Votes and a policy -> which members to run next, or the decision. A pure function; the heart of the product.

It fails closed: a required member without a vote means `review`, and so does a policy that nobody could vote on.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from anomaly.calibration import Calibration, ThresholdName
from anomaly.errors import PolicyError

Verdict = Literal["ok", "defect", "review"]
Text = dict[Literal["en", "fr"], str]


@dataclass(frozen=True, slots=True)
class Vote:
    """One member's calibrated opinion."""

    member: str
    score: float  # the detector's own units, higher = more anomalous
    p_value: float  # share of good parts expected to score this high or higher
    thresholds: Mapping[ThresholdName, float]

    def __post_init__(self) -> None:
        if not math.isfinite(self.score):  # NaN is below no threshold and above none: it would pass for ok
            raise ValueError(f"{self.member!r} scored {self.score}: that is a Failure, not a Vote")


@dataclass(frozen=True, slots=True)
class Failure:
    """A member that could not vote. Never a vote for ok."""

    member: str
    reason: str


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Rule(_Frozen):
    """`any`: one member is enough. `majority`: more than half of those that voted; half is a tie and a review."""

    kind: Literal["any", "majority"]
    members: tuple[str, ...] = Field(min_length=1)
    threshold: ThresholdName  # which of each member's thresholds counts


class ReviewBand(_Frozen):
    """A member below its threshold whose p-value is this small is unsure."""

    p_value: Annotated[float, Field(gt=0, lt=1)]


class Policy(_Frozen):
    """The rule that turns votes into a decision: plain JSON, edited without retraining."""

    format: Literal[1] = 1
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    description: Text
    rule: Rule
    advisory: tuple[str, ...] = ()  # members that vote for people to see, and do not count
    required: tuple[str, ...] = ()  # without a vote of each of these the decision is review
    review: ReviewBand | None = None


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


def next_step(votes: Mapping[str, Vote | Failure], policy: Policy) -> Run | Decision:
    """Says what comes next.

    Args:
        votes: what the members said so far, by member.
        policy: the rule.
    """
    rule = policy.rule
    asked = dict.fromkeys((*rule.members, *policy.required, *policy.advisory))
    waiting = tuple(name for name in asked if name not in votes)
    if waiting:
        return Run(waiting)

    cast = {name: vote for name in rule.members if isinstance(vote := votes[name], Vote)}
    heard = {n: vote for n in (*rule.members, *policy.advisory) if isinstance(vote := votes[n], Vote)}
    verdicts = {name: member_verdict(vote, policy) for name, vote in heard.items()}
    for name in policy.required:
        if isinstance(failure := votes[name], Failure):
            return Decision(
                "review",
                {
                    "en": f"{name}, which this policy requires, gave no vote: {failure.reason}.",
                    "fr": f"{name}, exigé par cette politique, n'a pas voté : {failure.reason}.",
                },
                verdicts,
            )
    if not cast:
        return Decision("review", {"en": "No detector gave a vote.", "fr": "Aucun détecteur n'a voté."}, verdicts)

    needed = votes_needed(rule, len(cast))
    against = [name for name in cast if verdicts[name] == "defect"]
    unsure = [name for name in cast if verdicts[name] == "review"]
    if len(against) >= needed:
        return Decision("defect", _count_text(against, cast, needed, rule.threshold), verdicts)
    tie = rule.kind == "majority" and 2 * len(against) == len(cast)
    if tie or len(against) + len(unsure) >= needed:
        names, count = ", ".join(against + unsure), len(against + unsure)
        return Decision(
            "review",
            {
                "en": f"Close call: with the unsure, {count} of {len(cast)} for a defect, {needed} needed: {names}.",
                "fr": f"Cas limite : indécis compris, {count} sur {len(cast)} pour défaut, {needed} requis : {names}.",
            },
            verdicts,
        )
    return Decision("ok", _count_text(against, cast, needed, rule.threshold), verdicts)


def votes_needed(rule: Rule, cast: int) -> int:
    """How many of the votes that were cast make a defect."""
    return 1 if rule.kind == "any" else cast // 2 + 1


def member_verdict(vote: Vote, policy: Policy) -> Verdict:
    """One member's opinion under a policy. A score equal to the threshold is a defect.

    Raises:
        PolicyError: the member was not calibrated for the policy's threshold; `check_policy` would have said so.
    """
    threshold = vote.thresholds.get(policy.rule.threshold)
    if threshold is None:
        raise PolicyError(
            f"policy {policy.name!r}: rule.threshold {policy.rule.threshold!r} is not calibrated for {vote.member!r}, "
            f"which has {sorted(vote.thresholds)}"
        )
    if vote.score >= threshold:
        return "defect"
    if policy.review is not None and vote.p_value <= policy.review.p_value:
        return "review"
    return "ok"


def _count_text(against: list[str], cast: Mapping[str, Vote], needed: int, threshold: str) -> Text:
    names = f": {', '.join(against)}" if against else ""
    noms = f" : {', '.join(against)}" if against else ""
    return {
        "en": f"{len(against)} of {len(cast)} detectors reach their {threshold} threshold, {needed} needed{names}.",
        "fr": f"{len(against)} détecteurs sur {len(cast)} au seuil {threshold} ou au-dessus, {needed} requis{noms}.",
    }


def check_policy(policy: Policy, calibrations: Mapping[str, Calibration]) -> None:
    """Refuses a policy that names what does not exist or that could never reject a part.

    Args:
        policy: as read from JSON.
        calibrations: of each member of the inspector, by name.

    Raises:
        PolicyError: with the path of the wrong key and what is known.
    """
    where = f"policy {policy.name!r}"
    named = {"rule.members": policy.rule.members, "required": policy.required, "advisory": policy.advisory}
    for key, names in named.items():
        for name in names:
            if name not in calibrations:
                raise PolicyError(f"{where}: {key} names {name!r}; this inspector has {sorted(calibrations)}")
    if unheard := [name for name in policy.required if name not in policy.rule.members]:
        raise PolicyError(f"{where}: required names {unheard[0]!r}, whose vote does not count: add it to rule.members")
    if len(set(policy.rule.members)) != len(policy.rule.members):
        raise PolicyError(f"{where}: rule.members names a member twice: {list(policy.rule.members)}")
    for name in (*policy.rule.members, *policy.advisory):
        calibration = calibrations[name]
        threshold = calibration.thresholds.get(policy.rule.threshold)
        if threshold is None:
            raise PolicyError(
                f"{where}: rule.threshold {policy.rule.threshold!r} is not calibrated for {name!r}, which has "
                f"{sorted(calibration.thresholds)} (f1, f2 and safe need labelled defects in the calibration split)"
            )
        for key, level in (
            ("rule.threshold", threshold.level),
            ("review.p_value", policy.review.p_value if policy.review else None),
        ):
            if level is not None and level < calibration.smallest_p_value:
                raise PolicyError(
                    f"{where}: {key} asks {name!r} for a level of {level}, but with {len(calibration.good_scores)} "
                    f"good images held out no p-value is below {calibration.smallest_p_value:.4f}: it could never fire"
                )
