"""What policies do with parts that nothing was set on: K folds of the calibration pictures, each judged by the others.

On the pictures that its thresholds were set on, `safe` misses nothing by construction, so counts there would make it
the cheapest at any price. Here the thresholds, p-values and probabilities that a fold is judged with come from the
other folds. A policy that `training.policy_recipes` makes from the calibration is made again from the other folds, and
cuts that are tuned are tuned on them. A policy of a person's own is taken as it is.

A fold's parts make about as many false alarms and misses as the whole will, a little more: it has a fifth less to stand
on. A false-alarm level or a p-value that so few good parts cannot support is taken at the strictest they do.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomaly.calibration import Calibration, calibrate
from anomaly.costs import Costs, Decided, Outcomes
from anomaly.emissions import EmissionsMeter
from anomaly.errors import DataError
from anomaly.policy import Failure, Policy, Vote, cast_vote
from training.joint_votes import Joint
from training.policy_recipes import default_policies
from training.probability import fit_probability
from training.tune_policy import SUFFIX, decided, tuned

FOLDS = 5
Known = Mapping[str, Calibration]


def held_out(
    policies: Sequence[Policy], calibrations: Known, joint: Joint, category: str, g_per_kwh: float | None = None
) -> dict[str, Outcomes]:
    """The counts of every policy, for metrics.json.

    Raises:
        DataError: there are too few parts for folds.
    """
    return cross_validated(policies, calibrations, joint, category, g_per_kwh=g_per_kwh).outcomes()


def cross_validated(
    policies: Sequence[Policy],
    calibrations: Known,
    joint: Joint,
    category: str,
    *,
    tune_for: Costs | None = None,
    g_per_kwh: float | None = None,
    seed: int = 0,
) -> Decided:
    """What every policy says of each part, with everything that can be learned from parts learned from other folds.

    Args:
        policies: of any category.
        calibrations: of the members, from these very parts.
        joint: what the members say of them.
        category: whose rules count.
        tune_for: also the policies with the cuts that cost least on the other folds, with `_TUNED` after their names.
        g_per_kwh: of the grid.
        seed: of the folds.

    Raises:
        DataError: there are too few parts for folds.
    """
    fold = folds(joint, seed=seed)
    made = {policy.name: policy for policy in default_policies(calibrations, joint, category)}
    recipes = {policy.name for policy in policies if made.get(policy.name) == policy}
    found: list[Decided] = []
    for index in range(FOLDS):
        seen = Joint(tuple(p for p, f in zip(joint.parts, fold, strict=True) if f != index), joint.price)
        known = refitted(seen, calibrations, probabilities=tune_for is not None or _by_probability(policies))
        seen = recast(seen, known)
        left = recast(Joint(tuple(p for p, f in zip(joint.parts, fold, strict=True) if f == index), joint.price), known)
        again = {p.name: p for p in default_policies(known, seen, category)} if recipes else {}
        rules = []
        for policy in policies:
            rule = again.get(policy.name, policy) if policy.name in recipes else policy
            rule = within_reach(rule, known).for_category(category)
            rules.append(rule)
            if tune_for is not None:
                better = tuned(rule, seen, known, tune_for, g_per_kwh) or rule
                rules.append(better.model_copy(update={"name": f"{policy.name}{SUFFIX}"}))
        found.append(decided(rules, left, g_per_kwh))
    return _joined(found, fold, joint, g_per_kwh)


def folds(joint: Joint, count: int = FOLDS, seed: int = 0) -> NDArray[np.int64]:
    """(N,) the fold of each part: about as many good parts and defects in each, parts of one group in the same.

    Raises:
        DataError: fewer good parts, defects or groups of either than folds.
    """
    units: dict[str, list[int]] = {}
    for index, part in enumerate(joint.parts):
        units.setdefault(f"group {part.group}" if part.group is not None else f"part {index}", []).append(index)
    of_defects = {name: sum(joint.parts[i].is_defect for i in each) for name, each in units.items()}
    bad = sum(1 for n in of_defects.values() if n)
    good = sum(1 for name, each in units.items() if len(each) > of_defects[name])
    if min(bad, good) < count:
        what = "" if len(units) == len(joint.parts) else " (counted by group)"
        raise DataError(
            f"{count} folds need {count} good parts and {count} defects held out for calibration, there are {good} "
            f"and {bad}{what}: label more defects and train again with them, then costs can be estimated"
        )
    names = list(units)
    order = np.random.default_rng(seed).permutation(len(names))
    sized = sorted(order.tolist(), key=lambda i: -len(units[names[i]]))  # the large ones first, they fit worst
    place, held = np.zeros(len(joint.parts), np.int64), np.zeros((count, 2), int)
    for unit in (names[i] for i in sized):
        defects, others = of_defects[unit], len(units[unit]) - of_defects[unit]
        mainly = int(defects > 0)
        chosen = min(range(count), key=lambda f: (held[f, mainly], held[f].sum(), f))
        place[units[unit]] = chosen
        held[chosen] += (others, defects)
    return place


def refitted(seen: Joint, calibrations: Known, *, probabilities: bool) -> dict[str, Calibration]:
    """The calibrations that these parts alone make: thresholds at the same level, maps where there were some."""
    found = {}
    for name, old in calibrations.items():
        good, bad = (
            [v.score for p in side if isinstance(v := p.votes[name], Vote)] for side in (seen.good, seen.defects)
        )
        if not good:
            raise DataError(f"{name} failed on every good part of the other folds: it cannot be calibrated on them")
        level = old.thresholds["far"].level
        far = max(0.5 if level is None else level, 1 / (len(good) + 1))
        likely = fit_probability(good, bad) if probabilities and old.probability is not None else None
        found[name] = calibrate(good, bad, split_hash=old.split_hash, far=far, probability=likely)
    return found


def recast(joint: Joint, calibrations: Known) -> Joint:
    """The same scores, said with other calibrations."""

    def again(name: str, vote: Vote | Failure) -> Vote | Failure:
        return vote if isinstance(vote, Failure) else cast_vote(name, vote.score, calibrations[name], vote.class_shares)

    parts = (replace(p, votes={name: again(name, vote) for name, vote in p.votes.items()}) for p in joint.parts)
    return replace(joint, parts=tuple(parts))


def within_reach(policy: Policy, calibrations: Known) -> Policy:
    """With p-values raised to the least that every member's good parts support: below that a cut could never fire."""
    least = max(calibration.smallest_p_value for calibration in calibrations.values())

    def raised(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: max(v, least) if k == "p_value" and v is not None else raised(v) for k, v in value.items()}
        return [raised(each) for each in value] if isinstance(value, list | tuple) else value

    return Policy.model_validate(raised(policy.model_dump()))


def grid_of(meter: EmissionsMeter) -> float | None:
    """CO2e of the meter's grid, in g/kWh; None where CodeCarbon has no figure."""
    with meter.measure() as measurement:
        pass
    return None if measurement.emissions is None else measurement.emissions.g_per_kwh


def _by_probability(policies: Sequence[Policy]) -> bool:
    return any(Counter(_keys(policy.model_dump()))["probability"] for policy in policies)


def _keys(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [k for k, v in value.items() if v is not None] + [k for v in value.values() for k in _keys(v)]
    return [k for each in value for k in _keys(each)] if isinstance(value, list | tuple) else []


def _joined(found: Sequence[Decided], fold: NDArray[np.int64], joint: Joint, g_per_kwh: float | None) -> Decided:
    """The folds' parts in their own order again."""
    order = np.argsort(np.concatenate([np.flatnonzero(fold == index) for index in range(len(found))]))
    whole = decided([], joint)

    def put(each: Sequence[NDArray[Any]]) -> NDArray[Any]:
        joined: NDArray[Any] = np.concatenate(each)[order]
        return joined

    names = list(found[0].verdicts)
    energies = [f.energy_mj for f in found if f.energy_mj is not None]
    return Decided(
        whole.defect,
        {name: put([f.verdicts[name] for f in found]) for name in names},
        {name: put([e[name] for e in energies]) for name in names} if len(energies) == len(found) else None,
        g_per_kwh,
        whole.groups,
    )
