"""Metrics from raw scores: AUROC, exact AU-PRO (MVTec definition, Bergmann et al. 2021, IJCV 129), confusion counts.

Nothing here thresholds, clamps or rescales a score, so every area is invariant under a monotone transform that keeps
distinct scores distinct.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, NonNegativeInt

__all__ = ["Confusion", "au_pro", "confusion", "image_auroc", "pixel_auroc"]


class Confusion(BaseModel):
    """Counts of parts by truth and decision: `tp` is a defect decided `defect`; a review is none of the first four."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tp: NonNegativeInt
    fp: NonNegativeInt
    fn: NonNegativeInt
    tn: NonNegativeInt
    review_defect: NonNegativeInt
    review_good: NonNegativeInt

    @property
    def review(self) -> int:
        """Parts sent to a person, defective or good."""
        return self.review_defect + self.review_good

    @property
    def total(self) -> int:
        """All parts counted."""
        return self.tp + self.fp + self.fn + self.tn + self.review


def image_auroc(labels: ArrayLike, scores: ArrayLike) -> float | None:
    """Area under the ROC curve of one score an image, ties counted half.

    Args:
        labels: (N,) bool, True = defect.
        scores: (N,) float, higher = more anomalous.

    Returns:
        In [0, 1], or None where only one class is present and the area is undefined.

    Raises:
        ValueError: the lengths differ or a score is NaN or infinite.
    """
    from sklearn.metrics import roc_auc_score

    truth = np.asarray(labels, dtype=bool)
    values = np.asarray(scores)
    if truth.ndim != 1 or truth.shape != values.shape:
        raise ValueError(f"labels {truth.shape} and scores {values.shape} must both be (N,): give one score an image")
    _check_finite(values, "scores")
    if truth.all() or not truth.any():
        return None
    return float(roc_auc_score(truth, values))


def pixel_auroc(masks: Sequence[NDArray[np.bool_]], maps: Sequence[NDArray[np.float32]]) -> float | None:
    """Area under the ROC curve of all pixels of all images, each pixel weighing the same.

    Args:
        masks: one (H, W) bool an image, True = defect; all False for a good part. Sizes may differ between images.
        maps: one (H, W) float an image, higher = more anomalous, of the size of its mask.

    Returns:
        In [0, 1], or None where there is no defective or no good pixel.

    Raises:
        ValueError: counts or sizes differ, or a map holds NaN or infinity.
    """
    return _area(_checked(masks, maps), [np.ravel(mask).astype(bool).astype(np.float64) for mask in masks], limit=1.0)


def au_pro(masks: Sequence[NDArray[np.bool_]], maps: Sequence[NDArray[np.float32]], limit: float = 0.3) -> float | None:
    """Area under the per-region-overlap curve up to a false-positive rate, divided by that rate.

    Exact: the curve has a point for every distinct score. The false-positive rate counts the good pixels of all images,
    so the good test images belong in the lists. Every connected component (8 neighbours) of the masks weighs the same.
    Takes about 0.25 us and 50 bytes a pixel (one sort of all pixels).

    Args:
        masks: one (H, W) bool an image, True = defect; all False for a good part. Sizes may differ between images.
        maps: one (H, W) float an image, higher = more anomalous, of the size of its mask.
        limit: false-positive rate in (0, 1] at which the curve ends (MVTec AD 0.3; LOCO and AD 2 0.05).

    Returns:
        In [0, 1], or None where there is no component or no good pixel.

    Raises:
        ValueError: counts or sizes differ, a map holds NaN or infinity, or the limit is out of range.
    """
    if not 0 < limit <= 1:
        raise ValueError(f"limit={limit} must lie in (0, 1]: MVTec AD uses 0.3")
    return _area(_checked(masks, maps), [_component_weights(mask) for mask in masks], limit)


def confusion(labels: Sequence[bool], decisions: Sequence[str]) -> Confusion:
    """Count parts by truth and decision.

    Args:
        labels: one an image, True = defect.
        decisions: one an image, `ok`, `defect` or `review`. A review counts only as review.

    Raises:
        ValueError: the lengths differ or a decision is none of the three.
    """
    if len(labels) != len(decisions):
        raise ValueError(f"{len(labels)} labels for {len(decisions)} decisions: give one decision an image")
    if unknown := sorted(set(decisions) - {"ok", "defect", "review"}):
        raise ValueError(f"unknown decisions {unknown}; expected 'ok', 'defect' or 'review'")
    pairs = [(bool(label), decision) for label, decision in zip(labels, decisions, strict=True)]
    return Confusion(
        tp=pairs.count((True, "defect")),
        fp=pairs.count((False, "defect")),
        fn=pairs.count((True, "ok")),
        tn=pairs.count((False, "ok")),
        review_defect=pairs.count((True, "review")),
        review_good=pairs.count((False, "review")),
    )


def _check_finite(values: NDArray[Any], what: str) -> None:
    if bad := int(np.count_nonzero(~np.isfinite(values))):
        raise ValueError(f"{what}: {bad} of {values.size} are NaN or infinite; a metric needs finite scores")


def _checked(masks: Sequence[NDArray[np.bool_]], maps: Sequence[NDArray[np.float32]]) -> list[NDArray[Any]]:
    """The maps, each flattened; their dtype is kept because rounding would make new ties."""
    if len(masks) != len(maps):
        raise ValueError(f"{len(masks)} masks for {len(maps)} maps: give one mask an image, all False for a good part")
    flat = []
    for i, (mask, heatmap) in enumerate(zip(masks, maps, strict=True)):
        if np.ndim(heatmap) != 2 or np.shape(mask) != np.shape(heatmap):
            raise ValueError(f"image {i}: mask {np.shape(mask)} and map {np.shape(heatmap)} must be of one size (H, W)")
        values = np.asarray(heatmap).ravel()
        _check_finite(values, f"map {i}")
        flat.append(values)
    return flat


def _component_weights(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(H*W,) float64: 1 / pixels of its component for a defective pixel, 0 for a good one."""
    from scipy.ndimage import label

    components, _ = label(mask, structure=np.ones((3, 3)))
    sizes = np.bincount(components.ravel())
    weights: NDArray[np.float64] = (components > 0) / sizes[components]
    return weights.ravel()


def _area(maps: list[NDArray[Any]], weights: list[NDArray[np.float64]], limit: float) -> float | None:
    """Area up to x = `limit`, over `limit`, of: x share of the good pixels, y share of the weight, above each score."""
    good = sum(int(np.count_nonzero(weight == 0)) for weight in weights)
    if good == sum(weight.size for weight in weights) or good == 0:
        return None
    scores, weight = np.concatenate(maps), np.concatenate(weights)
    order = np.argsort(scores)[::-1]
    scores, weight = scores[order], weight[order]
    del order
    last = np.append(np.flatnonzero(scores[1:] != scores[:-1]), scores.size - 1)  # equal scores are passed together
    del scores
    x = np.append(0.0, np.cumsum(weight == 0)[last] / good)
    y = np.append(0.0, np.cumsum(weight)[last])
    y /= y[-1]  # the sum of all weights, so that the curve ends at exactly 1
    end = int(np.searchsorted(x, limit, side="right"))  # the first point beyond the limit
    if end < x.size:
        at_limit = np.interp(limit, x[end - 1 : end + 1], y[end - 1 : end + 1])
        x, y = np.append(x[:end], limit), np.append(y[:end], at_limit)
    return float(np.trapezoid(y, x) / limit)
