"""Fits the probability of a defect to held-out scores: temperature, Platt or isotonic, by cross-validated log loss.

All three are fitted to Platt's targets (1999), (m + 1) / (m + 2) for m defects and 1 / (n + 2) for n good parts: where
scores part good from bad completely, slopes stay finite and nothing says 0 or 1.
"""

from collections.abc import Sequence
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from anomaly.errors import CalibrationError
from anomaly.probability import (
    Isotonic,
    Kind,
    Platt,
    ProbabilityMap,
    Temperature,
    log_loss,
    standardised,
    why_no_probability,
)

FOLDS = 5
_FLATTEST = 1e-6  # slope of a temperature: a detector that ranks the wrong way round would need a negative one


def fit_probability(good: Sequence[float], defects: Sequence[float]) -> ProbabilityMap | None:
    """The kind that predicts left-out parts best, fitted to all of them.

    Equal scores give an equal map, in whatever order they come.

    Args:
        good: scores of held-out good parts, finite.
        defects: scores of held-out labelled defects.

    Returns:
        None with too few of either; `why_no_probability` says it in words.

    Raises:
        CalibrationError: a score is not finite.
    """
    if not np.isfinite([*good, *defects]).all():
        raise CalibrationError("held-out scores are not all finite: the detector is broken")
    if why_no_probability(len(good), len(defects)) is not None:
        return None
    ok, bad = sorted(good), sorted(defects)
    folds = min(FOLDS, len(ok), len(bad))
    losses = {kind: _left_out(kind, ok, bad, folds) for kind in get_args(Kind)}
    chosen = min(losses, key=lambda kind: losses[kind])  # of equal ones the first, which has fewer parameters
    return fit_kind(chosen, ok, bad).model_copy(update={"log_loss": losses, "folds": folds})


def fit_kind(kind: Kind, good: Sequence[float], defects: Sequence[float]) -> ProbabilityMap:
    """A map of this kind, whether it predicts well or not.

    Args:
        kind: of the curve.
        good: scores of held-out good parts, finite; at least one.
        defects: scores of held-out labelled defects; at least one.
    """
    centre, scale = standard(good, defects)
    z = np.array([standardised(score, centre, scale) for score in (*good, *defects)])
    n, m = len(good), len(defects)
    targets = np.repeat([1 / (n + 2), (m + 1) / (m + 2)], [n, m])
    curve: Temperature | Platt | Isotonic
    if kind == "temperature":
        slope, _ = _logistic_fit(z, targets, intercept=False)
        curve = Temperature(temperature=1 / max(slope, _FLATTEST))
    elif kind == "platt":
        slope, intercept = _logistic_fit(z, targets, intercept=True)
        if slope < 0:  # it ranks the wrong way round: the best that never falls is level
            slope, intercept = 0.0, float(np.log(targets.mean() / (1 - targets.mean())))
        curve = Platt(slope=slope, intercept=intercept)
    else:
        curve = _isotonic_fit(z, targets)
    return ProbabilityMap(centre=centre, scale=scale, curve=curve, prevalence=m / (n + m))


def _left_out(kind: Kind, good: list[float], defects: list[float], folds: int) -> float:
    """Log loss of every part under the map of the folds without it; centre and scale are those folds' too."""
    from sklearn.model_selection import StratifiedKFold

    scores, labels = np.array(good + defects), np.repeat([False, True], [len(good), len(defects)])
    said = np.empty(len(scores))
    for fitted, left_out in StratifiedKFold(folds, shuffle=True, random_state=0).split(scores, labels):
        kept, is_defect = scores[fitted], labels[fitted]
        found = fit_kind(kind, kept[~is_defect].tolist(), kept[is_defect].tolist())
        said[left_out] = [found.of(score) for score in scores[left_out].tolist()]
    return log_loss(said.tolist(), labels.tolist())


def standard(good: Sequence[float], defects: Sequence[float]) -> tuple[float, float]:
    """Centre and scale of held-out scores, in the detector's own units.

    The centre lies half-way between the two medians; the scale is the interquartile range of the good scores, or where
    that is 0 the deviation of all scores, or else 1.
    """
    centre = (float(np.median(good)) + float(np.median(defects))) / 2
    lower, upper = np.quantile(good, [0.25, 0.75])
    return centre, float(upper - lower) or float(np.std([*good, *defects])) or 1.0


def _logistic_fit(z: NDArray[np.float64], targets: NDArray[np.float64], *, intercept: bool) -> tuple[float, float]:
    """Slope and intercept of the logistic curve of least cross-entropy to targets strictly between 0 and 1."""
    from sklearn.linear_model import LogisticRegression

    if np.ptp(z) == 0:
        return 0.0, float(np.log(targets.mean() / (1 - targets.mean()))) if intercept else 0.0
    far = float(np.abs(z).max())  # one part at 1e6 scales would stall the solver
    twice = np.concatenate([z, z])[:, None] / far  # each part as a defect and as a good one, weighted by its target
    labels = np.repeat([True, False], len(z))
    model = LogisticRegression(C=np.inf, fit_intercept=intercept, tol=1e-8, max_iter=1000)
    model.fit(twice, labels, sample_weight=np.concatenate([targets, 1 - targets]))
    return float(model.coef_[0, 0]) / far, float(model.intercept_[0]) if intercept else 0.0


def _isotonic_fit(z: NDArray[np.float64], targets: NDArray[np.float64]) -> Isotonic:
    from sklearn.isotonic import IsotonicRegression

    model = IsotonicRegression(increasing=True).fit(z, targets)
    return Isotonic(knots=tuple(zip(model.X_thresholds_.tolist(), model.y_thresholds_.tolist(), strict=True)))
