"""Votes and a policy -> which members to run next, or the decision. A pure function; the heart of the product.

It fails closed: a required member without a vote means `review`, and so does a policy that nobody could vote on. A
higher score of any member never makes the verdict milder (defect, review, ok), and what a cascade did not ask would not
have changed its decision: `next_step` takes votes in the policy's order and stops where it would have stopped.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from anomaly import reasons
from anomaly.errors import PolicyError
from anomaly.policy_check import check_policy, read_policy
from anomaly.rules import (
    AnyRule,
    AtLeastRule,
    CascadeRule,
    Cut,
    DefectType,
    Discount,
    Policy,
    PolicyException,
    ReviewBand,
    Rule,
    Step,
    Text,
    Verdict,
    WeightedRule,
)
from anomaly.votes import SEVERITY, Decision, Failure, Run, Vote, cast_vote, reaches

__all__ = [
    "SEVERITY",
    "AnyRule",
    "AtLeastRule",
    "CascadeRule",
    "Cut",
    "Decision",
    "DefectType",
    "Discount",
    "Failure",
    "Policy",
    "PolicyException",
    "ReviewBand",
    "Rule",
    "Run",
    "Step",
    "Text",
    "Verdict",
    "Vote",
    "WeightedRule",
    "cast_vote",
    "check_policy",
    "member_verdict",
    "next_step",
    "reaches",
    "read_policy",
    "replay",
    "votes_needed",
]

_ANYBODY = Cut(threshold="far")  # what every member has


def next_step(votes: Mapping[str, Vote | Failure], policy: Policy) -> Run | Decision:
    """Says what comes next.

    Args:
        votes: what the members said so far, by member.
        policy: the rule, as it is for the category (`Policy.for_category`).

    Raises:
        PolicyError: the policy is not the one of a single category, or asks for a cut that a member does not have;
            `check_policy` would have said so.
    """
    if any(e.replaces or e.category != policy.exceptions[0].category for e in policy.exceptions):
        raise PolicyError(f"policy {policy.name!r} has exceptions per category: take Policy.for_category first")
    rule = policy.rule
    first = rule.steps[0].members if isinstance(rule, CascadeRule) else (*policy.members, *policy.required)
    if waiting := _waiting((*first, *policy.advisory), votes):
        return Run(waiting)
    decision = _by_rule(votes, policy)
    return decision if isinstance(decision, Run) else _stricter(decision, votes, policy)


def replay(votes: Mapping[str, Vote | Failure], policy: Policy) -> tuple[Decision, tuple[str, ...]]:
    """The decision where every member's vote is known, and which members were asked for it, in that order."""
    asked: dict[str, Vote | Failure] = {}
    while not isinstance(step := next_step(asked, policy), Decision):
        asked |= {name: votes[name] for name in step.members}
    return step, tuple(asked)


def votes_needed(rule: Rule | AtLeastRule, cast: int) -> int:
    """How many of the votes that were cast make a defect."""
    if isinstance(rule, AtLeastRule):
        return rule.k
    return {"any": 1, "majority": cast // 2 + 1, "all": len(rule.members), "single": 1}[rule.kind]


def member_verdict(vote: Vote, policy: Policy) -> Verdict:
    """One member's own opinion under a policy that counts or weighs. A score equal to the threshold is a defect.

    Raises:
        PolicyError: the member was not calibrated for the policy's threshold; `check_policy` would have said so.
    """
    if reaches(vote, _own_cut(vote.member, policy)):
        return "defect"
    band = policy.review
    if band is not None and (band.probability is None or vote.probability is not None) and reaches(vote, band):
        return "review"
    return "ok"


def _own_cut(name: str, policy: Policy) -> Cut:
    if isinstance(policy.rule, CascadeRule) or (
        isinstance(policy.rule, WeightedRule) and name not in policy.rule.members
    ):
        return _ANYBODY
    return policy.rule.cut


@dataclass(frozen=True, slots=True)
class _Shown:
    """Members' own verdicts, and the cuts that these are at."""

    verdicts: dict[str, Verdict]
    cuts: dict[str, Cut]

    def beside(self, other: "_Shown") -> "_Shown":
        """With those of others that are not here yet."""
        return _Shown(other.verdicts | self.verdicts, other.cuts | self.cuts)


def _shown(names: Iterable[str], votes: Mapping[str, Vote | Failure], policy: Policy) -> _Shown:
    cuts = {name: _own_cut(name, policy) for name in names}
    return _Shown({n: member_verdict(vote, policy) for n in cuts if isinstance(vote := votes[n], Vote)}, cuts)


def _waiting(names: tuple[str, ...], votes: Mapping[str, Vote | Failure]) -> tuple[str, ...]:
    return tuple(name for name in dict.fromkeys(names) if name not in votes)


def _by_rule(votes: Mapping[str, Vote | Failure], policy: Policy) -> Run | Decision:
    if isinstance(policy.rule, CascadeRule):
        return _by_steps(votes, policy, policy.rule)
    shown = _shown((*policy.members, *policy.advisory), votes, policy)
    verdicts, cuts = shown.verdicts, shown.cuts
    if (lost := _lost(policy.required, votes, policy)) is not None:
        return replace(lost, verdicts=verdicts, cuts=cuts)
    if not any(name in verdicts for name in policy.rule.members):
        return Decision("review", reasons.NO_VOTE, verdicts, cuts=cuts)
    if isinstance(policy.rule, WeightedRule):
        found = _by_weight(votes, policy, policy.rule)
    else:
        found = _by_count(votes, policy, policy.rule, verdicts)
    return replace(found, verdicts=verdicts, cuts=cuts)


def _lost(names: tuple[str, ...], votes: Mapping[str, Vote | Failure], policy: Policy) -> Decision | None:
    """The review that a failure of a required one of these members means."""
    for name in names:
        if name in policy.required and isinstance(failure := votes[name], Failure):
            return Decision("review", reasons.no_vote_of(name, failure.reason), {}, "required")
    return None


def _by_count(
    votes: Mapping[str, Vote | Failure], policy: Policy, rule: Rule | AtLeastRule, own: Mapping[str, Verdict]
) -> Decision:
    cast = [name for name in rule.members if isinstance(votes[name], Vote)]
    caps = {name: _cap(name, votes, policy)[0] for name in cast if own[name] != "ok"}
    said = {name: min(own[name], caps.get(name, "defect"), key=SEVERITY.__getitem__) for name in cast}
    less = tuple(name for name in cast if said[name] != own[name])
    against = [name for name in cast if said[name] == "defect"]
    unsure = [name for name in cast if said[name] == "review"]
    left_out = rule.kind in ("any", "majority")  # a member that failed
    silent = [] if left_out else [name for name in rule.members if name not in cast]
    of = len(cast) if left_out else len(rule.members)
    needed = votes_needed(rule, of)
    if len(against) >= needed:
        verdict: Verdict = "defect"
    else:
        tie = rule.kind == "majority" and 2 * len(against) == of
        verdict = "review" if tie or len(against) + len(unsure) + len(silent) >= needed else "ok"
    if verdict == "review":
        text = reasons.close(against + unsure, silent, of, needed)
    else:
        text = reasons.counted(against, of, needed, rule.threshold)
    return Decision(verdict, reasons.discounted(text, less) if less else text, {}, discounted=less)


def _by_weight(votes: Mapping[str, Vote | Failure], policy: Policy, rule: WeightedRule) -> Decision:
    sums, bounds = math.fsum(rule.weights.values()), []
    for unknown in (0.0, 1.0):
        said = {name: _probability(votes[name], unknown) for name in rule.members}
        bounds.append(min(math.fsum(weight * said[name] for name, weight in rule.weights.items()) / sums, 1.0))
    low, high = bounds
    band = policy.review.probability if policy.review is not None else None
    verdict: Verdict = "ok" if high < (rule.probability if band is None else band) else "review"
    if low >= rule.probability:
        verdict = "defect"
    return Decision(verdict, reasons.weighed(low, high, rule.probability), {})


def _probability(vote: Vote | Failure, unknown: float) -> float:
    if isinstance(vote, Failure):
        return unknown
    if vote.probability is None:
        raise PolicyError(f"a weighted rule needs a probability of a defect, and {vote.member!r} gives none")
    return vote.probability


def _by_steps(votes: Mapping[str, Vote | Failure], policy: Policy, rule: CascadeRule) -> Run | Decision:
    so_far = _shown(policy.advisory, votes, policy)
    less: dict[str, None] = {}
    for number, step in enumerate(rule.steps, 1):
        if waiting := _waiting(step.members, votes):
            return Run(waiting)
        cast = {name: vote for name in step.members if isinstance(vote := votes[name], Vote)}
        own = {name: _at_step(vote, step) for name, vote in cast.items()}
        line = step.reject or step.accept or _ANYBODY
        so_far = _Shown(so_far.verdicts | own, so_far.cuts | dict.fromkeys(step.members, line))
        if (lost := _lost(step.members, votes, policy)) is not None:
            return replace(lost, verdicts=so_far.verdicts, cuts=so_far.cuts, discounted=tuple(less))
        said = dict(own)
        for name in [name for name, verdict in own.items() if verdict != "ok"]:
            cap, consulted = _cap(name, votes, policy)
            if waiting := _waiting(consulted, votes):
                return Run(waiting)
            so_far = so_far.beside(_shown(consulted, votes, policy))
            said[name] = min(own[name], cap, key=SEVERITY.__getitem__)
            less |= {name: None} if said[name] != own[name] else {}
        against = [name for name, verdict in said.items() if verdict == "defect"]
        open_ = [name for name in step.members if name not in said or said[name] != "ok"]
        of, needed, kept = len(step.members), *step.needs
        decided: tuple[Verdict, Text] | None = None
        if step.reject is not None and len(against) >= needed:
            decided = "defect", reasons.step_rejects(number, len(rule.steps), against, of, needed, step.reject)
        elif step.accept is not None and len(open_) < kept:
            decided = "ok", reasons.step_accepts(number, len(rule.steps), open_, of, kept, step.accept)
        if decided is not None:
            break
    else:
        nobody = not any(isinstance(votes[name], Vote) for name in rule.members)
        decided, number = ("review", reasons.NO_VOTE if nobody else reasons.undecided(len(rule.steps))), 0
    assert decided is not None
    verdict, text = decided
    return Decision(
        verdict,
        reasons.discounted(text, tuple(less)) if less else text,
        so_far.verdicts,
        f"rule.steps[{number - 1}]" if number else "rule",
        so_far.cuts,
        tuple(less),
    )


def _at_step(vote: Vote, step: Step) -> Verdict:
    """defect: it reaches `reject`. review: it reaches `accept`. ok: neither."""
    if step.reject is not None and reaches(vote, step.reject):
        return "defect"
    return "review" if step.accept is not None and reaches(vote, step.accept) else "ok"


def _cap(name: str, votes: Mapping[str, Vote | Failure], policy: Policy) -> tuple[Verdict, tuple[str, ...]]:
    """What the vote of a member counts at the most, and whose votes say so: if one of them is not there, ask first."""
    vote = votes[name]
    cap: Verdict = "defect"
    consulted: dict[str, None] = {}
    for exception in policy.exceptions:
        discount = exception.discount
        if discount is None or discount.member != name or not isinstance(vote, Vote):
            continue
        if discount.unless is not None and reaches(vote, discount.unless):
            continue
        consulted |= dict.fromkeys(exception.members)
        if _waiting(exception.members, votes):
            continue
        others = [votes[other] for other in discount.others]
        quiet = all(isinstance(other, Vote) and not reaches(other, discount.below) for other in others)
        wanted = exception.defect_type
        if quiet and (wanted is None or _names(votes[wanted.member], wanted)):
            cap = min(cap, discount.verdict, key=SEVERITY.__getitem__)
    return cap, tuple(consulted)


def _names(vote: Vote | Failure, wanted: DefectType) -> bool:
    return isinstance(vote, Vote) and (vote.class_shares or {}).get(wanted.name, 0.0) >= wanted.share


def _stricter(decision: Decision, votes: Mapping[str, Vote | Failure], policy: Policy) -> Run | Decision:
    """The decision after the exceptions for types of defect, which can only make it stricter."""
    for index, exception in enumerate(policy.exceptions):
        wanted = exception.defect_type
        if exception.discount is not None or wanted is None or decision.verdict == "defect":
            continue
        if waiting := _waiting((wanted.member,), votes):
            return Run(waiting)
        so_far = _Shown(dict(decision.verdicts), dict(decision.cuts)).beside(_shown((wanted.member,), votes, policy))
        decision = replace(decision, verdicts=so_far.verdicts, cuts=so_far.cuts)
        if isinstance(head := votes[wanted.member], Failure):
            found: Run | Decision = Decision("review", reasons.unnamed(wanted.member, head.reason), {})
        elif not _names(head, wanted):
            continue
        elif exception.verdict is not None:
            found = Decision(exception.verdict, reasons.AT_LEAST[exception.verdict], {})
        else:
            found = _as_rule(exception, votes, policy)
        if isinstance(found, Run):
            return found
        shown = so_far.beside(_Shown(dict(found.verdicts), dict(found.cuts)))
        decision = replace(decision, verdicts=shown.verdicts, cuts=shown.cuts)
        if SEVERITY[found.verdict] > SEVERITY[decision.verdict]:
            text = found.reason
            if isinstance(head, Vote):
                text = reasons.named(wanted.member, wanted.name, (head.class_shares or {})[wanted.name], text)
            decision = replace(decision, verdict=found.verdict, reason=text, fired=f"exceptions[{index}]")
    return decision


def _as_rule(exception: PolicyException, votes: Mapping[str, Vote | Failure], policy: Policy) -> Run | Decision:
    """What the rule of an exception says by itself."""
    assert exception.rule is not None
    if waiting := _waiting(
        exception.rule.steps[0].members if isinstance(exception.rule, CascadeRule) else exception.rule.members, votes
    ):
        return Run(waiting)
    required = tuple(name for name in policy.required if name in exception.rule.members)
    alone = {"rule": exception.rule, "exceptions": (), "advisory": (), "required": required, "review": None}
    return _by_rule(votes, policy.model_copy(update=alone))
