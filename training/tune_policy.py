"""A policy with its cuts chosen anew, for costs: coordinate descent over a small grid of attained values.

The structure stays: who is asked, in which order, how many make a defect. A rule that counts has only thresholds by
name, so it becomes a cascade of one step, which can also have a review band where that pays.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from anomaly.calibration import Calibration
from anomaly.costs import Costs, Decided, part_costs
from anomaly.errors import PolicyError
from anomaly.policy import CascadeRule, Cut, Policy, Rule, Step, Text, Vote, WeightedRule, check_policy, replay
from anomaly.rules import AtLeastRule
from training.decide_many import Table
from training.joint_votes import Joint

CANDIDATES = 24  # cuts that are tried at a place, at the most
SUFFIX = "_TUNED"
_ROUNDS = 3
_LONGEST = 64  # of a policy's name
_LESS = 1e-9  # what a cost must be lower by

_KEYS: tuple[Literal["accept"], Literal["reject"]] = ("accept", "reject")

Place = tuple[int, tuple[Literal["accept", "reject"], ...]]  # step, and its cuts that move together
Known = Mapping[str, Calibration]


def decided(policies: Sequence[Policy], joint: Joint, g_per_kwh: float | None = None) -> Decided:
    """What every policy says of the parts, by `replay`."""
    verdicts, energy = {}, {}
    severity = {"ok": 0, "review": 1, "defect": 2}
    for policy in policies:
        found = [replay(part.votes, policy) for part in joint.parts]
        verdicts[policy.name] = np.array([severity[decision.verdict] for decision, _ in found], np.int8)
        energy[policy.name] = np.array([joint.price.of(asked) for _, asked in found], float)
    groups = [part.group or f"part {i}" for i, part in enumerate(joint.parts)]
    return Decided(
        np.array([part.is_defect for part in joint.parts], bool),
        verdicts,
        energy if joint.price.unit == "mJ" else None,
        g_per_kwh,
        np.unique(groups, return_inverse=True)[1].astype(np.int64),
    )


def mean_cost(policy: Policy, joint: Joint, costs: Costs, g_per_kwh: float | None = None) -> float:
    """Of one part of production, by `replay`."""
    found = decided([policy], joint, g_per_kwh)
    return _weighed(part_costs(found, costs)[0], found.defect, costs)


def tuned(
    policy: Policy, joint: Joint, calibrations: Known, costs: Costs, g_per_kwh: float | None = None
) -> Policy | None:
    """The policy with cuts that cost least on these parts; None where none cost less than its own.

    Args:
        policy: as it is for the category.
        joint: what the members say of the parts.
        calibrations: of the members, as these votes were cast with.
        costs: of the decisions.
        g_per_kwh: of the grid, where carbon has a price.
    """
    heard = [part for part in joint.parts if all(isinstance(vote, Vote) for vote in part.votes.values())]
    if len({part.is_defect for part in heard}) < 2:
        return None
    table = Table(heard, joint.price)

    def cost(tried: Policy) -> float:
        verdicts, energy = table.decide(tried)
        known = {tried.name: energy} if joint.price.unit == "mJ" else None
        found = Decided(table.defect, {tried.name: verdicts}, known, g_per_kwh)
        return _weighed(part_costs(found, costs)[0], table.defect, costs)

    moved = _movable(policy, costs)
    best = cost(moved)
    for _ in range(_ROUNDS):
        before = best
        for place in _places(moved):
            for cut in candidates(moved, place, table, calibrations):
                tried = _with(moved, place, cut)
                if (now := cost(tried)) < best - _LESS and _possible(tried, calibrations):
                    best, moved = now, tried
        if best > before - _LESS:
            break
    if not _possible(moved, calibrations):
        return None
    worth = mean_cost(moved, joint, costs, g_per_kwh) < mean_cost(policy, joint, costs, g_per_kwh) - _LESS
    return moved if worth else None


def _weighed(each: NDArray[np.float64], defect: NDArray[np.bool_], costs: Costs) -> float:
    return float(costs.prevalence * each[defect].mean() + (1 - costs.prevalence) * each[~defect].mean())


def _movable(policy: Policy, costs: Costs) -> Policy:
    """The same decisions, but for a review band, in a form whose cuts are numbers that can be moved."""
    rule, changes = policy.rule, dict[str, object]()
    if isinstance(rule, Rule | AtLeastRule):
        combine = "any" if rule.kind == "single" else rule.kind
        k = rule.k if isinstance(rule, AtLeastRule) else None
        step = Step(members=rule.members, combine=combine, k=k, accept=rule.cut, reject=rule.cut)
        changes = {"rule": CascadeRule(kind="cascade", steps=(step,)), "review": None}
        changes["required"] = tuple(name for name in policy.required if name in rule.members)
    name = policy.name[: _LONGEST - len(SUFFIX)] + SUFFIX
    return policy.model_copy(update={"name": name, "description": _description(policy.name, costs), **changes})


def _description(name: str, costs: Costs) -> Text:
    return {
        "en": f"{name} with its cuts chosen for these costs: miss {costs.miss:g}, false alarm {costs.false_alarm:g}, "
        f"review {costs.review:g}, {100 * costs.prevalence:g} % defects, tonne of CO₂e {costs.carbon_price:g}.",
        "fr": f"{name}, ses seuils choisis pour ces coûts : manque {costs.miss:g}, fausse alarme "
        f"{costs.false_alarm:g}, revue {costs.review:g}, {100 * costs.prevalence:g} % de défauts, tonne de CO₂e "
        f"{costs.carbon_price:g}.",
    }


def _places(policy: Policy) -> list[Place]:
    rule, found = policy.rule, list[Place]()
    if not isinstance(rule, CascadeRule):
        return [(0, ())]
    for index, step in enumerate(rule.steps):
        if step.accept is not None and step.accept == step.reject:
            found.append((index, ("accept", "reject")))
        found += [(index, (key,)) for key in _KEYS if getattr(step, key) is not None]
    return found


def _with(policy: Policy, place: Place, cut: Cut) -> Policy:
    """The policy with this cut at a place."""
    index, keys = place
    if isinstance(policy.rule, WeightedRule):
        return policy.model_copy(update={"rule": policy.rule.model_copy(update={"probability": cut.probability})})
    assert isinstance(policy.rule, CascadeRule)
    steps = list(policy.rule.steps)
    steps[index] = steps[index].model_copy(update=dict.fromkeys(keys, cut))
    return policy.model_copy(update={"rule": CascadeRule(kind="cascade", steps=tuple(steps))})


def candidates(policy: Policy, place: Place, table: Table, known: Known) -> list[Cut]:
    """Cuts for a place: the thresholds by name, then p-values and probabilities that parts attained."""
    rule = policy.rule
    if isinstance(rule, WeightedRule):
        columns = [table.column(name, "probability") for name in rule.members]
        mean = np.average(columns, axis=0, weights=list(rule.weights.values()))
        band = policy.review.probability if policy.review is not None else None
        return [Cut(probability=value) for value in _spread(mean[mean > (band or 0.0)], CANDIDATES)]
    assert isinstance(rule, CascadeRule)
    step = rule.steps[place[0]]
    first, *others = step.members
    shared = [n for n in known[first].thresholds if all(n in known[name].thresholds for name in others)]
    cuts = [Cut(threshold=name) for name in shared]
    likely = all(known[name].probability is not None for name in step.members)
    room = CANDIDATES - len(cuts)
    p_values = np.concatenate([table.column(name, "p_value") for name in step.members])
    probabilities = np.concatenate([table.column(name, "probability") for name in step.members])
    for value in _spread(p_values[p_values < 1], room - room // 2 if likely else room, log=True):
        cuts.append(Cut(p_value=value))
    if likely:
        cuts += [Cut(probability=value) for value in _spread(probabilities[probabilities > 0], room // 2)]
    return cuts


def _spread(values: NDArray[np.float64], count: int, *, log: bool = False) -> list[float]:
    """At most `count` of the distinct values, evenly by rank; with `log` closer where they are small."""
    distinct = np.unique(values)
    if not len(distinct) or count < 1:
        return []
    ends = len(distinct) - 1
    at = np.geomspace(1, ends + 1, count) - 1 if log else np.linspace(0, ends, count)
    return [float(value) for value in distinct[np.unique(np.rint(at).astype(int))]]


def _possible(policy: Policy, known: Known) -> bool:
    try:
        check_policy(policy, known)
    except PolicyError:
        return False
    return True
