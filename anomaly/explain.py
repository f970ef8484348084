"""A decision -> what it stands on: the rule that fired, who agreed and by how much, and what would have changed it."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict

from anomaly.calibration import Calibration
from anomaly.policy import next_step
from anomaly.policy_check import least_score, score_range
from anomaly.reasons import comma
from anomaly.rules import AnyRule, CascadeRule, Cut, Policy, Text, Verdict, WeightedRule
from anomaly.votes import Decision, Failure, Vote, cast_vote

Votes = Mapping[str, Vote | Failure]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Reading(_Frozen):
    """One member's vote against the line that its own verdict is at."""

    member: str
    verdict: Verdict
    agrees: bool  # with the decision
    counted: bool
    cut: str  # f1, p ≤ 0.01, P ≥ 0.5
    distance: float | None  # score - the least score that reaches the line, own units: >= 0 reaches it; None: none does
    distance_iqr: float | None  # the same in interquartile ranges of its good scores, comparable between members


class Flip(_Frozen):
    """The smallest change of a single vote that changes the decision."""

    member: str
    score: float  # that it would have had to give
    distance: float  # from what it gave, own units; below 0: a lower score
    distance_iqr: float
    verdict: Verdict | None  # then; None: other members would have been asked
    asks: tuple[str, ...] = ()


class Explanation(_Frozen):
    """Why, in numbers and in words."""

    fired: str  # rule, rule.steps[0], required, exceptions[1]: of the policy as it is for this category
    agreed: tuple[str, ...]  # members that count and say what was decided
    discounted: tuple[str, ...] = ()  # members whose vote counted less, by an exception
    unasked: tuple[str, ...] = ()  # members of the policy that a cascade decided without
    readings: tuple[Reading, ...]
    flip: Flip | None  # None: no change of a single vote
    sentences: dict[Literal["en", "fr"], tuple[str, ...]]  # the first one is the reason


def explain(votes: Votes, policy: Policy, decision: Decision, calibrations: Mapping[str, Calibration]) -> Explanation:
    """Explains what `next_step` decided.

    Args:
        votes: that were cast, by member.
        policy: that decided, as it is for the category.
        decision: what it decided.
        calibrations: by member.
    """
    readings = tuple(
        _reading(vote, policy, decision, calibrations[name])
        for name in decision.verdicts
        if isinstance(vote := votes[name], Vote)
    )
    flip = find_flip(votes, policy, decision, calibrations)
    unasked = tuple(name for name in dict.fromkeys((*policy.members, *policy.advisory)) if name not in votes)
    rest = (_distances(readings), change_words(flip), _unasked(unasked))
    return Explanation(
        fired=decision.fired,
        agreed=tuple(r.member for r in readings if r.counted and r.agrees),
        discounted=decision.discounted,
        unasked=unasked,
        readings=readings,
        flip=flip,
        sentences={
            language: (decision.reason[language], *(text[language] for text in rest if text))
            for language in ("en", "fr")
            if language in decision.reason
        },
    )


def find_flip(votes: Votes, policy: Policy, decision: Decision, calibrations: Mapping[str, Calibration]) -> Flip | None:
    """The smallest change of one vote, in interquartile ranges of its member's good scores, that changes the decision.

    Found by asking `next_step` itself: what is tried are the scores where something in the policy changes. A vote's
    type of defect stays.
    """
    flips = [
        flip
        for vote in votes.values()
        if isinstance(vote, Vote)
        for up in (True, False)
        if (flip := _flip(vote, votes, policy, decision, calibrations[vote.member], up=up)) is not None
    ]
    return min(flips, key=lambda flip: abs(flip.distance_iqr), default=None)


def _flip(
    vote: Vote, votes: Votes, policy: Policy, decision: Decision, calibration: Calibration, *, up: bool
) -> Flip | None:
    def after(score: float) -> tuple[Verdict | None, tuple[str, ...]]:
        changed = cast_vote(vote.member, score, calibration, vote.class_shares)
        step = next_step({**votes, vote.member: changed}, policy)
        return (step.verdict, ()) if isinstance(step, Decision) else (None, step.members)

    for score in _turning_points(vote, policy, calibration, up=up):
        verdict, asks = after(score)
        if verdict == decision.verdict:
            continue
        if _weighs(policy):  # the mean moves between the turning points, too
            score = _nearest(vote.score, score, lambda tried: after(tried)[0] != decision.verdict)  # noqa: PLW2901
            verdict, asks = after(score)
        distance = score - vote.score
        return Flip(
            member=vote.member,
            score=score,
            distance=distance,
            distance_iqr=distance / interquartile_range(calibration),
            verdict=verdict,
            asks=asks,
        )
    return None


def _turning_points(vote: Vote, policy: Policy, calibration: Calibration, *, up: bool) -> list[float]:
    """The scores above (or below) a vote's where something in the policy changes, the nearest first."""
    points = set(score_range(calibration)) if _weighs(policy) else set()
    for cut in _cuts(policy):
        if cut.threshold is not None and cut.threshold not in calibration.thresholds:
            continue
        if cut.probability is not None and calibration.probability is None:
            continue
        least = least_score(cut, calibration)
        if least is not None and math.isfinite(least):
            points |= {least, math.nextafter(least, -math.inf)}
    return sorted(p for p in points if p > vote.score) if up else sorted(p for p in points if p < vote.score)[::-1]


def _cuts(policy: Policy) -> Iterator[Cut]:
    yield Cut(threshold="far")
    yield from _rule_cuts(policy.rule)
    if policy.review is not None:
        yield policy.review
    for exception in policy.exceptions:
        if exception.rule is not None:
            yield from _rule_cuts(exception.rule)
        if exception.discount is not None:
            yield exception.discount.below
            yield from filter(None, [exception.discount.unless])


def _rule_cuts(rule: AnyRule) -> Iterator[Cut]:
    if isinstance(rule, CascadeRule):
        for step in rule.steps:
            yield from filter(None, [step.accept, step.reject])
    else:
        yield rule.cut


def _weighs(policy: Policy) -> bool:
    return any(isinstance(rule, WeightedRule) for rule in (policy.rule, *(e.rule for e in policy.exceptions)))


def _nearest(same: float, other: float, differs: Callable[[float], bool]) -> float:
    """The score nearest to `same` that differs, as `other` does."""
    while (middle := same + (other - same) / 2) not in (same, other):
        same, other = (same, middle) if differs(middle) else (middle, other)
    return other


def interquartile_range(calibration: Calibration) -> float:
    """Of the good scores, as in `Calibration.margin`."""
    lower, upper = (calibration.good_scores[int(q * (len(calibration.good_scores) - 1))] for q in (0.25, 0.75))
    return max(upper - lower, 1e-12)


def _reading(vote: Vote, policy: Policy, decision: Decision, calibration: Calibration) -> Reading:
    cut, verdict = decision.cuts[vote.member], decision.verdicts[vote.member]
    least = least_score(cut, calibration)
    distance = None if least is None or math.isinf(least) else vote.score - least
    return Reading(
        member=vote.member,
        verdict=verdict,
        agrees=verdict == decision.verdict,
        counted=vote.member in policy.members,
        cut=str(cut),
        distance=distance,
        distance_iqr=None if distance is None else distance / interquartile_range(calibration),
    )


def _distances(readings: tuple[Reading, ...]) -> Text:
    said: dict[Literal["en", "fr"], list[str]] = {"en": [], "fr": []}
    for r in readings:
        if not r.counted or r.distance is None or r.distance_iqr is None:
            continue
        beyond, own, ranges = r.distance >= 0, f"{abs(r.distance):.3g}", f"{abs(r.distance_iqr):.2g}"
        said["en"].append(f"{r.member} {own} {'above' if beyond else 'below'} {r.cut} ({ranges} IQR)")
        side = "au-dessus de" if beyond else "au-dessous de"
        said["fr"].append(f"{r.member} {comma(own)} {side} {comma(r.cut)} ({comma(ranges)} EIQ)")
    if not said["en"]:
        return {}
    return {
        "en": f"Distance to the line, in its own units and in interquartile ranges of good scores: "
        f"{'; '.join(said['en'])}.",
        "fr": f"Distance à la limite, dans l'unité du détecteur et en écarts interquartiles des scores de bonnes "
        f"pièces : {' ; '.join(said['fr'])}.",
    }


_WORDS: dict[Verdict, Text] = {
    "ok": {"en": "ok", "fr": "conforme"},
    "defect": {"en": "a defect", "fr": "un défaut"},
    "review": {"en": "a review", "fr": "à vérifier"},
}


def change_words(flip: Flip | None) -> Text:
    """What would have changed the decision, in a sentence."""
    if flip is None:
        return {
            "en": "No change of a single vote would have changed that.",
            "fr": "Aucun changement d'un seul vote n'y aurait rien changé.",
        }
    by, ranges, score = f"{abs(flip.distance):.3g}", f"{abs(flip.distance_iqr):.2g}", f"{flip.score:.6g}"
    more = flip.distance > 0
    if flip.verdict is None:
        asks = ", ".join(flip.asks)
        then: Text = {"en": f"{asks} would have been asked", "fr": f"{asks} aurait été consulté"}
    else:
        word = _WORDS[flip.verdict]
        then = {"en": f"it would have been {word['en']}", "fr": f"ce serait {word['fr']}"}
    return {
        "en": f"With a score of {flip.member} {by} {'higher' if more else 'lower'} ({score}, {ranges} IQR away) "
        f"{then['en']}.",
        "fr": f"Avec un score de {flip.member} {'supérieur' if more else 'inférieur'} de {comma(by)} "
        f"({comma(score)}, à {comma(ranges)} EIQ), {then['fr']}.",
    }


def _unasked(names: tuple[str, ...]) -> Text:
    if not names:
        return {}
    listed = ", ".join(names)
    return {
        "en": f"Not asked, for the cascade stopped before: {listed}.",
        "fr": f"Sans être consulté, la cascade s'étant arrêtée avant : {listed}.",
    }
