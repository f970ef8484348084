"""Held-out scores -> thresholds, p-values, probabilities. A score equal to a threshold is a defect, everywhere.

p-values are split-conformal (Vovk et al. 2005; Bates et al. 2023, arXiv 2104.08279): with n held-out good images no
p-value is below 1/(n + 1), and a good part falls at or below a level `far` with at most that probability, as long as
it comes from the same production as the held-out ones.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import count, pairwise
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from anomaly.errors import CalibrationError, ModelLoadError
from anomaly.probability import ProbabilityMap

Finite = Annotated[float, Field(allow_inf_nan=False)]
ThresholdName = Literal["far", "f1", "f2", "youden", "safe"]
PROBABILITIES = tuple(percent / 100 for percent in range(50, 100))  # 0.50, 0.51 .. 0.99: the rows of `sweep`


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Threshold(_Frozen):
    """A cut in a detector's own units, and what it did on the calibration images."""

    value: Finite  # score >= value is a defect
    false_alarms: int
    good: int  # how many good images `false_alarms` is out of
    missed: int
    defects: int  # how many defects `missed` is out of; 0 for a threshold set from good images alone
    level: float | None = None  # far only: the false-alarm probability that was asked for


class HeatmapScale(_Frozen):
    """The fixed scale a heatmap is drawn on, from the pixels of good held-out images."""

    low: Finite  # their median
    high: Finite  # their 99.9th percentile
    images: int


class PixelThreshold(_Frozen):
    """Where a heatmap says defect: a pixel >= value. Boxes, IoU and Dice stand on it."""

    value: Finite  # in the detector's own units
    source: Literal["dice", "good"]  # the best Dice on held-out masks, or a level that few good pictures reach at all
    images: int  # held-out pictures it stands on
    dice: float | None = None  # over all pixels of those pictures, for `dice`


class Calibration(_Frozen):
    """What makes one detector's score on one category comparable."""

    split_hash: str  # of the manifest that says which images were held out
    good_scores: tuple[Finite, ...] = Field(min_length=1)  # ascending
    defect_scores: tuple[Finite, ...] = ()  # ascending
    thresholds: dict[ThresholdName, Threshold]
    heatmap: HeatmapScale | None = None
    pixel: PixelThreshold | None = None  # None without heatmaps, and in files from before it was set
    probability: ProbabilityMap | None = None  # None with too few labelled defects, and in files from before it was set

    @model_validator(mode="after")
    def _sorted(self) -> Self:
        for scores in (self.good_scores, self.defect_scores):
            if any(later < earlier for earlier, later in pairwise(scores)):
                raise ValueError("held-out scores must be in ascending order")
        return self

    def p_value(self, score: float) -> float:
        """Share of good parts expected to score this high or higher: (1 + #{good >= score}) / (n + 1)."""
        return (1 + len(self.good_scores) - bisect_left(self.good_scores, score)) / (len(self.good_scores) + 1)

    def margin(self, score: float, name: ThresholdName) -> float:
        """How far above (>= 0) or below a threshold, in interquartile ranges of the good scores.

        That makes the distances of two detectors comparable; it is no probability.
        """
        lower, upper = (self.good_scores[int(q * (len(self.good_scores) - 1))] for q in (0.25, 0.75))
        return (score - self.thresholds[name].value) / max(upper - lower, 1e-12)

    @property
    def smallest_p_value(self) -> float:
        return 1 / (len(self.good_scores) + 1)


class CalibrationFile(_Frozen):
    """calibration.json: one calibration a category."""

    format: Literal[1] = 1
    categories: dict[str, Calibration]


def calibrate(
    good: Sequence[float],
    defects: Sequence[float],
    *,
    split_hash: str,
    far: float = 0.05,
    heatmap: HeatmapScale | None = None,
    pixel: PixelThreshold | None = None,
    probability: ProbabilityMap | None = None,
) -> Calibration:
    """Sets the thresholds from held-out scores.

    Args:
        good: scores of good images that were not trained on.
        defects: scores of labelled defects that were not trained on; without any there is only `far`.
        split_hash: of the manifest of the split.
        far: the false-alarm level that is asked for, in (0, 1).
        heatmap: the scale, for a detector that gives heatmaps.
        pixel: its threshold, likewise.
        probability: fitted to these very scores, by `training.probability.fit_probability`.

    Raises:
        CalibrationError: a score is not finite, or there are too few good images for the level.
    """
    if broken := [score for score in [*good, *defects] if not math.isfinite(score)]:
        raise CalibrationError(f"{len(broken)} held-out scores are not finite ({broken[0]}): the detector is broken")
    ok, bad = sorted(map(float, good)), sorted(map(float, defects))
    thresholds: dict[ThresholdName, Threshold] = {"far": _far(ok, far)}
    if bad:
        thresholds |= {
            "f1": _best(lambda counts: _f_beta(counts, beta=1), ok, bad),
            "f2": _best(lambda counts: _f_beta(counts, beta=2), ok, bad),
            "youden": _best(_youden, ok, bad),
            "safe": _counted(_below(bad[0], ok), ok, bad),
        }
    return Calibration(
        split_hash=split_hash,
        good_scores=tuple(ok),
        defect_scores=tuple(bad),
        thresholds=thresholds,
        heatmap=heatmap,
        pixel=pixel,
        probability=probability,
    )


class SweepRow(_Frozen):
    """What a cut in probability did on the calibration parts. They also shaped the probabilities: no promise."""

    probability: float  # parts of at least this probability are defects
    false_alarms: int
    good: int
    missed: int
    defects: int


def sweep(calibration: Calibration, probabilities: Sequence[float] = PROBABILITIES) -> tuple[SweepRow, ...]:
    """Counts at every one of these probabilities of a defect; none at all where there are no probabilities."""
    if calibration.probability is None:
        return ()
    good = [calibration.probability.of(score) for score in calibration.good_scores]  # ascending, as the scores are
    defects = [calibration.probability.of(score) for score in calibration.defect_scores]
    return tuple(
        SweepRow(
            probability=level,
            false_alarms=len(good) - bisect_left(good, level),
            good=len(good),
            missed=bisect_left(defects, level),
            defects=len(defects),
        )
        for level in probabilities
    )


def pixel_threshold(
    good_maxima: Sequence[float], pixels: NDArray[np.float32], masks: NDArray[np.bool_], *, far: float, images: int
) -> PixelThreshold:
    """Sets the threshold of heatmap pixels.

    Args:
        good_maxima: the largest pixel of each held-out good heatmap.
        pixels: (N,) of held-out heatmaps of good and defective pictures that have masks; empty without any.
        masks: (N,) whether the pixel is marked.
        far: without masks, the share of good pictures that may have a pixel beyond it.
        images: pictures that `pixels` come from.

    Raises:
        CalibrationError: too few good pictures for `far`.
    """
    if not masks.any():
        value = _far(sorted(map(float, good_maxima)), far).value
        return PixelThreshold(value=value, source="good", images=len(good_maxima))
    order = np.argsort(pixels, kind="stable")[::-1]
    found = np.cumsum(masks[order], dtype=np.int64)
    dice = 2 * found / (np.arange(1, len(order) + 1) + found[-1])
    ends = np.append(pixels[order][1:] != pixels[order][:-1], True)  # a cut lies between distinct values only
    best = int(np.argmax(np.where(ends, dice, -1)))
    return PixelThreshold(value=float(pixels[order[best]]), source="dice", images=images, dice=float(dice[best]))


def least_good(far: float) -> int:
    """How many held-out good images a false-alarm level needs: the least n with 1 / (n + 1) <= far."""
    around = max(1, round(1 / far) - 1)
    return next(n for n in count(around) if 1 / (n + 1) <= far)


def _far(good: list[float], far: float) -> Threshold:
    if not 0 < far < 1:
        raise CalibrationError(f"a false-alarm level must lie in (0, 1), not {far}")
    if len(good) < least_good(far):
        raise CalibrationError(
            f"a false-alarm level of {far} needs {least_good(far)} held-out good images, there are {len(good)}: "
            f"add good images or ask for a level of at least {1 / (len(good) + 1):.3f}"
        )
    # how many good scores at or above leave p <= far; the division of `p_value` itself, so that rounding is the same
    allowed = sum((1 + above) / (len(good) + 1) <= far for above in range(len(good))) - 1
    value = math.nextafter(good[-1 - allowed], math.inf)
    return _counted(value, good, []).model_copy(update={"level": far})


def _counted(value: float, good: list[float], defects: list[float]) -> Threshold:
    return Threshold(
        value=value,
        false_alarms=len(good) - bisect_left(good, value),
        good=len(good),
        missed=bisect_left(defects, value),
        defects=len(defects),
    )


def _below(score: float, scores: list[float]) -> float:
    """Half-way from `score` down to the next lower one: every cut in between did the same on the calibration images."""
    lower = bisect_left(scores, score)
    middle = score if lower == 0 else score - (score - scores[lower - 1]) / 2
    return middle if lower == 0 or middle > scores[lower - 1] else score  # between neighbouring floats there is nothing


def _best(figure: Callable[[Threshold], float], good: list[float], defects: list[float]) -> Threshold:
    """The cut of the largest figure; of equal ones the lowest, for a miss costs more than a false alarm.

    The figure may not fall when there are fewer false alarms and as many misses: so the best cut is at a defect.
    """
    best = max(defects, key=lambda cut: figure(_counted(cut, good, defects)))  # max keeps the first: the lowest
    return _counted(_below(best, sorted({*good, *defects})), good, defects)


def _f_beta(counts: Threshold, beta: float) -> float:
    hits = counts.defects - counts.missed
    return (1 + beta**2) * hits / ((1 + beta**2) * hits + beta**2 * counts.missed + counts.false_alarms)


def _youden(counts: Threshold) -> int:
    """Youden's J (1950), the true-positive less the false-positive rate, times good and defects: whole, so ties tie."""
    return (counts.defects - counts.missed) * counts.good - counts.false_alarms * counts.defects


def read_calibration(path: Path) -> CalibrationFile:
    """Reads calibration.json. Raises ModelLoadError naming the file and the key."""
    try:
        return CalibrationFile.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise ModelLoadError(f"{path}: {error}") from error
