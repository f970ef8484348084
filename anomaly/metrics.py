"""Metrics from raw scores: AUROC, exact AU-PRO (MVTec definition, Bergmann et al. 2021, IJCV 129), confusion counts.

Nothing here thresholds, clamps or rescales a score, so every area is invariant under a monotone transform that keeps
distinct scores distinct.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, NonNegativeInt

__all__ = ["Confusion", "PixelScores", "au_pro", "confusion", "image_auroc", "pixel_auroc", "pixel_scores"]


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


@dataclass(frozen=True, slots=True)
class PixelScores:
    """The pixels of all images: from these two sorted lists every curve follows exactly, without being stored.

    As a threshold falls, each defective pixel is found at one false-positive rate; an area is the mean over the
    defective pixels of what is left of the rate axis from there on. Ties are crossed on a straight line.
    """

    good: NDArray[Any]  # (G,) scores of the good pixels, ascending
    defect: NDArray[Any]  # (D,) scores of the defective pixels, ascending
    weight: NDArray[np.float64]  # (D,) 1 / pixels of its component
    image: NDArray[np.int64]  # (D,) index of its image

    @property
    def defined(self) -> bool:
        """Whether there is a good and a defective pixel; otherwise no area is."""
        return bool(self.good.size and self.defect.size)

    def false_alarms(self, scores: Any, side: str = "left") -> NDArray[np.int64]:
        """How many good pixels are at or above each score (`left`), or above it (`right`)."""
        found = np.searchsorted(self.good, np.asarray(scores, dtype=self.good.dtype), side=side)  # type: ignore[call-overload]
        return np.asarray(self.good.size - found, dtype=np.int64)

    def area(self, weights: NDArray[np.float64], limit: float = 1.0) -> float | None:
        """Area, up to a false-positive rate and divided by it, under the share of `weights` that is found.

        Args:
            weights: (D,) of the defective pixels: ones give the ROC curve, `weight` the per-region overlap.
            limit: in (0, 1].

        Returns:
            In [0, 1], or None without a good pixel or without any weight.
        """
        if not self.good.size or not weights.sum() > 0:
            return None
        first = self.false_alarms(self.defect, "right") / self.good.size  # the rate at which a pixel begins to be found
        last = self.false_alarms(self.defect, "left") / self.good.size  # where it is, with all good pixels it ties with
        beyond = np.maximum(limit - last, 0.0)
        crossed = np.clip(limit, first, last) - first
        # a line from 0 at `first` to 1 at `last`, as far as the limit, then 1
        ramp = np.divide(crossed**2, 2 * (last - first), out=np.zeros_like(crossed), where=last > first)
        return float((weights * ((beyond + ramp) / limit)).sum() / weights.sum())

    def average_precision(self) -> float | None:
        """Sum over the distinct thresholds of precision times the gain in recall, as scikit-learn defines it."""
        if not self.defined:
            return None
        values, first, counts = np.unique(self.defect, return_index=True, return_counts=True)
        found = self.defect.size - first
        precision = found / (found + self.false_alarms(values))
        return float((counts * precision).sum() / self.defect.size)

    def best_overlap(self) -> tuple[float, float] | None:
        """The largest IoU that any threshold reaches, and that threshold: chosen on these very pixels, an oracle."""
        if not self.defined:
            return None
        values, first = np.unique(self.defect, return_index=True)
        iou = (self.defect.size - first) / (self.defect.size + self.false_alarms(values))
        best = int(np.argmax(iou))
        return float(iou[best]), float(values[best])


def pixel_scores(masks: Sequence[NDArray[np.bool_]], maps: Sequence[NDArray[np.float32]]) -> PixelScores:
    """Sorts the pixels of all images.

    Args:
        masks: one (H, W) bool an image, True = defect; all False for a good part. Sizes may differ between images.
        maps: one (H, W) float an image, higher = more anomalous, of the size of its mask. They may lie on disk: what is
            kept is one copy of the scores, and 24 bytes more for each defective pixel.

    Raises:
        ValueError: counts or sizes differ, or a map holds NaN or infinity.
    """
    flat = _checked(masks, maps)
    truths = [np.ravel(mask).astype(bool) for mask in masks]
    empty: NDArray[Any] = np.empty(0, np.float32)
    good = np.concatenate([values[~truth] for values, truth in zip(flat, truths, strict=True)] or [empty])
    good.sort()
    defect = np.concatenate([values[truth] for values, truth in zip(flat, truths, strict=True)] or [empty])
    weight = np.concatenate([_component_weights(mask) for mask in masks] or [np.empty(0)])
    image = np.repeat(np.arange(len(truths)), [int(truth.sum()) for truth in truths])
    order = np.argsort(defect)
    return PixelScores(good, defect[order], weight[order], image[order])


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
    pixels = pixel_scores(masks, maps)
    return pixels.area(np.ones(pixels.defect.size))


def au_pro(masks: Sequence[NDArray[np.bool_]], maps: Sequence[NDArray[np.float32]], limit: float = 0.3) -> float | None:
    """Area under the per-region-overlap curve up to a false-positive rate, divided by that rate.

    Exact: the curve has a point for every distinct score. The false-positive rate counts the good pixels of all images,
    so the good test images belong in the lists. Every connected component (8 neighbours) of the masks weighs the same.

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
    pixels = pixel_scores(masks, maps)
    return pixels.area(pixels.weight, limit)


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
    """1 / pixels of its component for each defective pixel, in the order of the flattened mask."""
    from scipy.ndimage import label

    components, _ = label(mask, structure=np.ones((3, 3)))
    sizes = np.bincount(components.ravel())
    weights: NDArray[np.float64] = 1.0 / sizes[components[components > 0]]
    return weights
