"""Thresholds of several members at once, with a bound on misses and false alarms together (Learn then Test).

Angelopoulos et al. 2021, arXiv 2110.01052, as MAPIE implements it (`BinaryClassificationController`, split fixed
sequence). `anomaly/guarantees.py` speaks of one threshold of one member: whoever tries many combinations and keeps the
best has no promise any more. Here half of the held-out parts ("learn") proposes and orders the combinations, and the
other half ("test") is asked about one after the other until the first that it cannot support. All that passed hold
together with the confidence that was asked for, so the best of them may be picked on any data.

It takes many parts: to support "at most 10 % missed" with 95 % confidence the half that tests needs 29 defects without
a miss, for 5 % it needs 59. With fewer the answer is None, not a weaker promise.
"""

import itertools
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anomaly.errors import CalibrationError
from anomaly.metrics import image_auroc
from anomaly.policy import CascadeRule, Cut, Failure, Policy, Step
from training.joint_votes import Joint

_COMBINATIONS = 300  # at most: each is tried on every part
_MEMBERS = 3  # at most: with more there would be too few thresholds of each to choose from


@dataclass(frozen=True, slots=True)
class Controlled:
    """One threshold a member; the two shares hold together, with `confidence`, for parts like those held out."""

    thresholds: dict[str, float]  # member -> score >= value is a vote for a defect
    needed: int  # votes that make a defect
    max_missed: float  # share of defects
    max_false_alarms: float  # share of good parts
    confidence: float
    missed: int  # on the half that tested
    defects: int
    false_alarms: int
    good: int
    tried: int  # combinations
    held: int  # of them


def least_defects(max_missed: float, confidence: float = 0.95) -> int:
    """Defects that the testing half needs at the least: (1 - max_missed)**m <= 1 - confidence."""
    return math.ceil(math.log(1 - confidence) / math.log(1 - max_missed) - 1e-9)


def control(
    scores: Mapping[str, Sequence[float]],
    defects: Sequence[bool],
    *,
    max_missed: float,
    max_false_alarms: float,
    needed: int = 1,
    confidence: float = 0.95,
    seed: int = 0,
) -> Controlled | None:
    """Thresholds for a rule "defect when at least `needed` members reach theirs", or None where the parts do not do.

    Of the combinations that hold, the one with the fewest false alarms on the testing half. Of many members, the three
    (or `needed`) that rank the learning half best.

    Args:
        scores: by member, one a held-out part, in the same order for each; a failed vote is NaN, which counts as a
            false alarm and as a miss.
        defects: whether each part is a defect.
        max_missed: share of defects, in (0, 1).
        max_false_alarms: share of good parts, in (0, 1).
        needed: votes that make a defect.
        confidence: that both shares are kept.
        seed: of the division into the two halves.

    Raises:
        CalibrationError: the lengths differ, a bound is no share, or a half would have no good part or no defect.
        ImportError: MAPIE is not installed; it comes with the [train] extra.
    """
    from mapie.risk_control import BinaryClassificationController, BinaryRisk

    labels = np.asarray(defects, bool)
    table = _checked(scores, labels, (max_missed, max_false_alarms, confidence), needed)
    learn = _half(labels, seed)
    best = _best(table[learn], labels[learn], max(_MEMBERS, needed))
    names, table = [list(scores)[i] for i in best], table[:, best]
    candidates = _candidates(table[learn])

    def rejects(parts: NDArray[np.float64], *thresholds: float) -> NDArray[np.float64]:
        reached = (parts >= np.asarray(thresholds, float)).sum(axis=1)
        return np.where(np.isnan(parts).any(axis=1), np.nan, reached >= needed)

    missed = BinaryRisk(lambda truth, said: said != 1, lambda truth, said: truth == 1, higher_is_better=False)
    alarms = BinaryRisk(lambda truth, said: said != 0, lambda truth, said: truth == 0, higher_is_better=False)
    controller = BinaryClassificationController(
        predict_function=rejects,
        risk=[missed, alarms],
        target_level=[max_missed, max_false_alarms],
        confidence_level=confidence,
        best_predict_param_choice=alarms,
        list_predict_params=candidates,
        fwer_method="split_fixed_sequence",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "no threshold controls the risk": that is the None below
        controller.learn_fixed_sequence_order(table[learn], labels[learn], np.logspace(-25, 0, 100), binary=True)
        controller.calibrate(table[~learn], labels[~learn])
    if controller.best_predict_param is None:
        return None
    chosen = [float(value) for value in controller.best_predict_param]
    said, truth = rejects(table[~learn], *chosen), labels[~learn]
    return Controlled(
        thresholds=dict(zip(names, chosen, strict=True)),
        needed=needed,
        max_missed=max_missed,
        max_false_alarms=max_false_alarms,
        confidence=confidence,
        missed=int((said[truth] != 1).sum()),
        defects=int(truth.sum()),
        false_alarms=int((said[~truth] != 0).sum()),
        good=int((~truth).sum()),
        tried=len(candidates),
        held=len(controller.valid_predict_params),
    )


def controlled_policy(
    joint: Joint, *, max_missed: float, max_false_alarms: float, confidence: float = 0.95
) -> tuple[Policy, Controlled] | None:
    """The policy CONTROLLED: a defect when any of its members reaches the score that `control` found for it.

    Args:
        joint: what the members say of held-out parts.
        max_missed: share of defects, as in `control`.
        max_false_alarms: share of good parts, likewise.
        confidence: likewise.

    Raises:
        CalibrationError: as `control`.
    """
    names = list(joint.parts[0].votes) if joint.parts else []
    scores = {
        name: [math.nan if isinstance(vote := part.votes[name], Failure) else vote.score for part in joint.parts]
        for name in names
    }
    labels = [part.is_defect for part in joint.parts]
    found = control(scores, labels, max_missed=max_missed, max_false_alarms=max_false_alarms, confidence=confidence)
    if found is None:
        return None
    cuts = {name: Cut(score=value) for name, value in found.thresholds.items()}
    *first, last = cuts
    steps = [Step(members=(name,), reject=cuts[name]) for name in first]
    rule = CascadeRule(kind="cascade", steps=(*steps, Step(members=(last,), accept=cuts[last], reject=cuts[last])))
    missed, alarms, sure = (f"{100 * share:g} %" for share in (max_missed, max_false_alarms, confidence))
    description = {
        "en": f"At most {missed} of defects missed and at most {alarms} of good parts rejected, both with {sure} "
        "confidence, for parts like those held out (Learn then Test). A defect when any detector reaches its score.",
        "fr": f"Au plus {missed} de défauts manqués et au plus {alarms} de bonnes pièces rejetées, les deux avec "
        f"{sure} de confiance, pour des pièces comme celles mises de côté (Learn then Test). Défaut dès qu'un "
        "détecteur atteint son score.",
    }
    fields = {"name": "CONTROLLED", "description": description, "rule": rule, "required": rule.members}
    return Policy.model_validate(fields), found


def _checked(
    scores: Mapping[str, Sequence[float]], labels: NDArray[np.bool_], shares: tuple[float, ...], needed: int
) -> NDArray[np.float64]:
    """(parts, members)."""
    if wrong := {name: len(values) for name, values in scores.items() if len(values) != len(labels)}:
        raise CalibrationError(f"{len(labels)} labels, but scores of {wrong}: give one a part and member, in one order")
    if not all(0 < share < 1 for share in shares) or not 1 <= needed <= len(scores):
        raise CalibrationError(
            f"bounds and confidence {shares} must lie in (0, 1), needed votes {needed} in 1 .. {len(scores)}"
        )
    if min(labels.sum(), (~labels).sum()) < 2:
        raise CalibrationError(f"{(~labels).sum()} good parts and {labels.sum()} defects cannot be halved")
    return np.column_stack([np.asarray(values, float) for values in scores.values()])


def _best(table: NDArray[np.float64], labels: NDArray[np.bool_], most: int) -> list[int]:
    """The columns with the highest AUROC, in their order; a failed vote counts as the lowest score."""
    lowest = np.nanmin(table, initial=0.0) - 1
    areas = [image_auroc(labels.tolist(), np.nan_to_num(column, nan=lowest).tolist()) or 0.0 for column in table.T]
    return sorted(sorted(range(len(areas)), key=lambda i: -areas[i])[:most])


def _half(labels: NDArray[np.bool_], seed: int) -> NDArray[np.bool_]:
    """Which parts learn: half of the good ones and half of the defects, rounded down."""
    rng, learn = np.random.default_rng(seed), np.zeros(len(labels), bool)
    for of in (np.flatnonzero(labels), np.flatnonzero(~labels)):
        learn[rng.permutation(of)[: len(of) // 2]] = True
    return learn


def _candidates(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Every combination of evenly spaced quantiles of each member's scores, as many as fit into `_COMBINATIONS`."""
    each = max(2, int(_COMBINATIONS ** (1 / table.shape[1]) + 1e-9))
    cuts = [np.nanquantile(column, np.linspace(0.02, 0.98, each)) for column in table.T]
    return np.array(list(itertools.product(*cuts)))
