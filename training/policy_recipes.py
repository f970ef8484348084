"""Policies made from calibration: what an inspector is released with.

All are chosen on the calibration pictures, so what they do there is no promise; a release measures them on test.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Literal

from anomaly.calibration import Calibration, ThresholdName, least_good
from anomaly.policy import (
    AtLeastRule,
    CascadeRule,
    Cut,
    Discount,
    Policy,
    PolicyException,
    ReviewBand,
    Rule,
    Step,
    Text,
    Vote,
)
from anomaly.policy_check import least_score
from training.green import SAFE, clear_good, green_rule
from training.joint_votes import Joint, Tally, left_out, tally

_REVIEW = 0.10  # p-value below which a member that does not reach its threshold is unsure
_STRONG = 0.02  # share of held-out defects, and of good parts, that a member may get wrong and still decide alone
_QUIET = (0.5, 0.3, 0.2, 0.1, 0.05)  # p-values that the others must stay above for a discount
Known = Mapping[str, Calibration]

_TEXTS: dict[str, Text] = {
    "majority": {
        "en": "Defect when more than half of the detectors it asks reach their threshold; review when it is close.",
        "fr": "Défaut quand plus de la moitié des détecteurs consultés atteint son seuil ; à revoir si limite.",
    },
    "safe": {
        "en": "Defect when any detector it asks reaches the threshold below which no held-out defect was missed.",
        "fr": "Défaut dès qu'un détecteur consulté atteint le seuil qui n'a manqué aucun défaut mis de côté.",
    },
    "careful": {
        "en": "Defect when any detector reaches its false-alarm threshold. No labelled defects were held out, so it is "
        "not known what it misses.",
        "fr": "Défaut dès qu'un détecteur atteint son seuil de fausse alarme. Aucun défaut étiqueté n'a été mis de "
        "côté : ce qu'elle manque n'est pas connu.",
    },
    "balanced": {
        "en": "Misses and false alarms weigh the same: the count of detectors with the best F1 on the calibration "
        "pictures.",
        "fr": "Manques et fausses alarmes pèsent autant : le compte de détecteurs au meilleur F1 sur les photos "
        "d'étalonnage.",
    },
    "precision": {
        "en": "Few false alarms: the count of detectors that rejected the fewest good calibration parts, and of those "
        "the one that found most defects. It lets more defects pass than the others do.",
        "fr": "Peu de fausses alarmes : le compte de détecteurs qui a rejeté le moins de bonnes pièces d'étalonnage "
        "et, parmi eux, trouvé le plus de défauts. Elle en laisse passer plus que les autres.",
    },
    "all": {
        "en": "Few false alarms: a defect only when every detector reaches its false-alarm threshold. No labelled "
        "defects were held out, so it is not known what it misses.",
        "fr": "Peu de fausses alarmes : défaut seulement si tous les détecteurs atteignent leur seuil de fausse "
        "alarme. Aucun défaut étiqueté n'a été mis de côté : ce qu'elle manque n'est pas connu.",
    },
    "industrial": {
        "en": "Where detectors are strong they decide alone. Elsewhere the best is asked first and decides if it is "
        "sure, then the next, then the majority.",
        "fr": "Là où des détecteurs sont forts, ils décident seuls. Ailleurs, le meilleur est consulté d'abord et "
        "décide s'il est sûr, puis le suivant, puis la majorité.",
    },
    "industrial_safe": {
        "en": "As SAFE_0FN, but one detector alone is not enough while the others see nothing, where that missed no "
        "held-out defect.",
        "fr": "Comme SAFE_0FN, mais un détecteur ne suffit pas à lui seul quand les autres ne voient rien, là où cela "
        "n'a manqué aucun défaut mis de côté.",
    },
    "green": {
        "en": "The cascade that needs the least energy and finds as many held-out defects as SAFE_0FN does.",
        "fr": "La cascade qui demande le moins d'énergie et trouve autant de défauts mis de côté que SAFE_0FN.",
    },
}


def default_policies(
    calibrations: Known, joint: Joint | None = None, category: str | None = None
) -> tuple[Policy, ...]:
    """What a release carries: `majority` and `safe` always, those of `generated` where all votes are known jointly.

    Args:
        calibrations: of each member.
        joint: what the members say of the calibration pictures.
        category: of the inspector; goes with `joint`.
    """
    both = (_majority("majority", calibrations), _safe("safe", calibrations))
    return both if joint is None or category is None else both + generated(calibrations, joint, category)


def generated(calibrations: Known, joint: Joint | None, category: str) -> tuple[Policy, ...]:
    """SAFE_0FN, BALANCED, PRECISION, MAJORITY, INDUSTRIAL_BALANCED, INDUSTRIAL_SAFE_0FN and GREEN.

    Those that the data permits: without labelled defects held out, MAJORITY and PRECISION; without the joint votes,
    neither BALANCED nor what needs to be searched for.

    Args:
        calibrations: of each member, from one split.
        joint: what the members say of its calibration pictures.
        category: that exceptions are for.
    """
    if not _labelled(calibrations):
        voters = _telling(calibrations, "far")
        every = Rule(kind="all", members=voters, threshold="far")
        precise = _policy("PRECISION", "all", every)
        return (_majority("MAJORITY", calibrations), precise)
    safe = _safe("SAFE_0FN", calibrations)
    plain = (safe, _majority("MAJORITY", calibrations), _industrial(calibrations, category))
    if joint is None:
        return plain
    joint = heard(joint, calibrations)
    return (
        safe,
        _balanced(calibrations, joint),
        _precision(calibrations, joint),
        *plain[1:],
        _industrial_safe(safe, calibrations, joint, category),
        _green(safe, calibrations, joint),
    )


def heard(joint: Joint, calibrations: Known) -> Joint:
    """The parts that every member voted on: a failure on a calibration picture says nothing of a policy."""
    parts = tuple(p for p in joint.parts if all(isinstance(p.votes[name], Vote) for name in calibrations))
    return replace(joint, parts=parts)


def _policy(name: str, text: str, rule: Rule | AtLeastRule | CascadeRule, **more: object) -> Policy:
    fields = {"name": name, "description": _TEXTS[text], "rule": rule, "required": rule.members}
    return Policy.model_validate(fields | more)


def _labelled(calibrations: Known) -> bool:
    return all(SAFE in calibration.thresholds for calibration in calibrations.values())


def _majority(name: str, calibrations: Known) -> Policy:
    """At the thresholds that every member has, among the members that can tell good from bad."""
    threshold: ThresholdName = "f1" if _labelled(calibrations) else "far"
    enough = min(len(calibration.good_scores) for calibration in calibrations.values()) >= least_good(_REVIEW)
    voters = _telling(calibrations, threshold)
    return _policy(
        name,
        "majority",
        Rule(kind="majority", members=voters, threshold=threshold),
        advisory=tuple(member for member in calibrations if member not in voters),
        review=ReviewBand(p_value=_REVIEW) if enough else None,
    )


def _safe(name: str, calibrations: Known) -> Policy:
    threshold: ThresholdName = SAFE if _labelled(calibrations) else "far"
    rule = Rule(kind="any", members=_telling(calibrations, threshold), threshold=threshold)
    return _policy(name, "safe" if threshold == SAFE else "careful", rule)


def _telling(calibrations: Known, threshold: ThresholdName) -> tuple[str, ...]:
    """Members that let at least half of the held-out good parts pass; the others call nearly everything a defect.

    A weak detector reaches its best F1, and misses no defect, by rejecting all. If all are such, the least bad vote.
    """
    found = {name: calibration.thresholds[threshold] for name, calibration in calibrations.items()}
    least = min(t.false_alarms for t in found.values())
    return tuple(n for n, t in found.items() if t.false_alarms <= max(t.good / 2, least))


def _counts(members: tuple[str, ...], threshold: ThresholdName) -> Iterable[Rule | AtLeastRule]:
    """Every member alone, then every count of all of them."""
    for name in members:
        yield Rule(kind="single", members=(name,), threshold=threshold)
    for k in range(1, len(members) + 1 if len(members) > 1 else 1):
        kind: Literal["any", "all"] = "any" if k == 1 else "all"
        if k in (1, len(members)):
            yield Rule(kind=kind, members=members, threshold=threshold)
        else:
            yield AtLeastRule(kind="at_least", k=k, members=members, threshold=threshold)


def _balanced(calibrations: Known, joint: Joint) -> Policy:
    rules = list(_counts(_telling(calibrations, "f1"), "f1"))
    found = [_policy("BALANCED", "balanced", rule) for rule in rules]
    tallies = [tally(policy, joint) for policy in found]
    best = max(range(len(found)), key=lambda i: (tallies[i].f1, -tallies[i].missed, -len(rules[i].members)))
    return found[best]


def _precision(calibrations: Known, joint: Joint) -> Policy:
    cuts: tuple[ThresholdName, ...] = ("f1", "far")
    rules = [rule for name in cuts for rule in _counts(_telling(calibrations, name), name)]
    found = [_policy("PRECISION", "precision", rule) for rule in rules]
    tallies = [tally(policy, joint) for policy in found]

    def worth(i: int) -> tuple[bool, int, int, int]:
        hits = tallies[i].defects - tallies[i].missed
        return hits > 0, -tallies[i].false_alarms, hits, -len(rules[i].members)

    return found[max(range(len(found)), key=worth)]


def _industrial(calibrations: Known, category: str) -> Policy:
    best = sorted(calibrations, key=lambda name: _area(calibrations[name]), reverse=True)[:2]
    steps = [_sure(name, calibrations[name]) for name in best if len(calibrations) > 1]
    voters, line = _telling(calibrations, "f1"), Cut(threshold="f1")
    steps.append(Step(members=voters, combine="majority", accept=line, reject=line))
    exceptions: tuple[PolicyException, ...] = ()
    if strong := tuple(name for name, calibration in calibrations.items() if _is_strong(calibration)):
        kind: Literal["single", "majority"] = "single" if len(strong) == 1 else "majority"
        alone = Rule(kind=kind, members=strong, threshold="f1")
        exceptions = (PolicyException(category=category, rule=alone),)
    return _policy(
        "INDUSTRIAL_BALANCED", "industrial", CascadeRule(kind="cascade", steps=tuple(steps)), exceptions=exceptions
    )


def _sure(name: str, calibration: Calibration) -> Step:
    """ok below every held-out defect, defect above every good part; where those overlap, at the first of them."""
    accept, reject = Cut(threshold=SAFE), clear_good(calibration)
    low, high = least_score(accept, calibration), least_score(reject, calibration)
    overlap = low is not None and high is not None and low <= high
    return Step(members=(name,), accept=accept, reject=reject if overlap else accept)


def _is_strong(calibration: Calibration) -> bool:
    t = calibration.thresholds["f1"]
    return t.missed <= _STRONG * t.defects and t.false_alarms <= _STRONG * t.good


def _area(calibration: Calibration) -> float:
    """Image AUROC on the held-out scores."""
    from anomaly.metrics import image_auroc

    good, bad = calibration.good_scores, calibration.defect_scores
    return image_auroc([False] * len(good) + [True] * len(bad), [*good, *bad]) or 0.0


def _industrial_safe(safe: Policy, calibrations: Known, joint: Joint, category: str) -> Policy:
    """Adds the exception that buys back the most false alarms, as long as one does and none misses a defect.

    It must miss none of the calibration defects, and no more than SAFE_0FN where each is judged at thresholds that were
    set without it.
    """
    apart = left_out(joint, calibrations)
    allowed = tally(safe, apart).missed
    policy = safe.model_copy(update={"name": "INDUSTRIAL_SAFE_0FN", "description": _TEXTS["industrial_safe"]})
    while True:
        now = tally(policy, joint)
        options: list[tuple[int, Policy]] = []
        for exception in _discounts(policy, calibrations, category):
            tried = policy.model_copy(update={"exceptions": (*policy.exceptions, exception)})
            found: Tally = tally(tried, joint)
            if found.false_alarms < now.false_alarms and found.missed == 0 and tally(tried, apart).missed <= allowed:
                options.append((found.false_alarms, tried))
        if not options:
            asked = policy.members  # whoever may buy a part free has to be there
            return policy.model_copy(update={"required": asked})
        policy = min(options, key=lambda option: option[0])[1]


def _discounts(policy: Policy, calibrations: Known, category: str) -> Iterable[PolicyException]:
    """For every member that has none yet; the mildest first, for of equally good ones the first is taken."""
    done = {e.discount.member for e in policy.exceptions if e.discount is not None}
    for name in policy.rule.members:
        others = tuple(other for other in calibrations if other != name)
        if name in done or not others:
            continue
        known = calibrations[name].thresholds
        limits = [Cut(threshold="f1")] if known["f1"].value > known[SAFE].value else []
        for unless in (*limits, None):
            for p_value in _QUIET:
                if all(p_value >= calibrations[other].smallest_p_value for other in others):
                    discount = Discount(
                        member=name, others=others, below=Cut(p_value=p_value), unless=unless, verdict="ok"
                    )
                    yield PolicyException(category=category, discount=discount)


def _green(safe: Policy, calibrations: Known, joint: Joint) -> Policy:
    assert isinstance(safe.rule, Rule)
    return _policy("GREEN", "green", green_rule(safe, _telling(calibrations, SAFE), calibrations, joint))
