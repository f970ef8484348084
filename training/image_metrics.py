"""Is a part good or not: figures of one score a picture, with bootstrap intervals (Efron 1979).

A resample draws good and defective pictures apart, so that it always has both. All resamples are counted at once, as
tables of how often each distinct score was drawn.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anomaly.figures import Estimate, ImageLevel

RESAMPLES = 1000
CONFIDENCE = 0.95
_CHUNK = 2_000_000  # numbers a resampled table holds at the most: 16 MB

Floats = NDArray[np.float64]


def image_level(
    defect: ArrayLike, scores: ArrayLike, threshold: float, *, name: str, resamples: int = RESAMPLES, seed: int = 0
) -> ImageLevel:
    """Figures of one score a picture, each with its interval.

    Args:
        defect: (N,) bool, with both values.
        scores: (N,) float, higher = more anomalous.
        threshold: calibrated; a score at or above it is a defect.
        name: of the threshold.
        resamples: of the bootstrap; 0 leaves the intervals out.
        seed: of the bootstrap.
    """
    truth, values = np.asarray(defect, dtype=bool), np.asarray(scores, dtype=np.float64)
    distinct, rank = np.unique(values, return_inverse=True)
    cut = int(np.searchsorted(distinct, threshold))  # ranks from here on are rejected
    parts = rank[truth], rank[~truth]
    exact = _figures(*(np.bincount(part, minlength=distinct.size)[None] for part in parts), cut=cut)
    drawn = [_figures(*tables, cut=cut) for tables in _resampled(parts, distinct.size, resamples, seed)]

    def estimate(key: str) -> Estimate:
        value = float(exact[key][0])
        known = None if np.isnan(value) else value
        sample = np.concatenate([table[key] for table in drawn]) if drawn else np.empty(0)
        sample = sample[~np.isnan(sample)]
        if known is None or not sample.size:
            return Estimate(value=known)
        low, high = np.quantile(sample, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        return Estimate(value=known, low=float(low), high=float(high))

    return ImageLevel(
        good=int((~truth).sum()),
        defects=int(truth.sum()),
        threshold=name,
        resamples=resamples,
        **{key: estimate(key) for key in exact},
    )


def _resampled(
    parts: Sequence[NDArray[np.intp]], size: int, resamples: int, seed: int
) -> Iterator[list[NDArray[np.intp]]]:
    """Yields (defect, good) tables (B, size): how often each rank was drawn, a part drawn from itself."""
    generators = [np.random.default_rng([seed, which]) for which in range(len(parts))]
    step = max(1, _CHUNK // size)
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        tables = []
        for part, generator in zip(parts, generators, strict=True):
            drawn = part[generator.integers(0, part.size, (count, part.size))]
            places = drawn + size * np.arange(count)[:, None]
            tables.append(np.bincount(places.ravel(), minlength=count * size).reshape(count, size))
        yield tables


def _figures(defect: NDArray[np.intp], good: NDArray[np.intp], *, cut: int) -> dict[str, Floats]:
    """Every figure of every row.

    Args:
        defect: (B, K) defects at each rank of score, ascending.
        good: (B, K) good parts.
        cut: the rank from which on a part is rejected.

    Returns:
        (B,) each; NaN where it is undefined.
    """
    tp, fp = (np.cumsum(table[:, ::-1], axis=1)[:, ::-1] for table in (defect, good))  # at or above each rank
    n_defect, n_good = tp[:, 0], fp[:, 0]
    below = n_good[:, None] - fp  # good parts below each rank
    flagged = np.maximum(tp + fp, 1)
    rejected = [np.zeros_like(n_good) if cut == table.shape[1] else table[:, cut] for table in (tp, fp)]
    hits, alarms = rejected
    misses = n_defect - hits
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = hits / (hits + alarms)
        return {
            "auroc": (defect * (below + 0.5 * good)).sum(axis=1) / (n_defect * n_good),
            "ap": (defect * (tp / flagged)).sum(axis=1) / n_defect,
            "f1": 2 * hits / (2 * hits + alarms + misses),
            "f2": 5 * hits / (5 * hits + alarms + 4 * misses),
            "precision": precision,
            "recall": hits / n_defect,
            "accuracy": (hits + n_good - alarms) / (n_defect + n_good),
            "false_alarms_at_full_recall": _alarms_at(tp, fp, n_defect),
            "false_alarms_at_95_recall": _alarms_at(tp, fp, np.ceil(0.95 * n_defect)),
        }


def _alarms_at(tp: NDArray[np.intp], fp: NDArray[np.intp], needed: NDArray[Any]) -> Floats:
    """Share of good parts at or above the highest rank at which `needed` defects are found."""
    enough = (tp >= needed[:, None]).sum(axis=1) - 1  # tp falls with the rank
    return np.asarray(fp[np.arange(len(fp)), enough] / fp[:, 0], dtype=np.float64)
