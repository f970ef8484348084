"""Score -> probability of a defect, as plain numbers; how good such probabilities are.

Temperature (Guo et al. 2017, arXiv 1706.04599), Platt (1999) and isotonic (Zadrozny and Elkan 2002), fitted by
`training/probability.py` on labelled held-out parts. A score is in a detector's own units and no logit, so all three
work on z = (score - centre) / scale, with a centre and a scale that are set before anything is fitted.

A probability of a defect stands on how common defects were among the held-out parts. Where that is different in
production, give `of` the prevalence there.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, lt=1)]
Kind = Literal["temperature", "platt", "isotonic"]

LEAST = 2  # held-out good parts and defects, each: with fewer no fold could leave one out
_FARTHEST = 700.0  # of an exponent: exp(710) overflows


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Temperature(_Frozen):
    """1 / (1 + exp(-z / temperature)): one parameter; one half stays at the centre."""

    kind: Literal["temperature"] = "temperature"
    temperature: Positive

    def of(self, z: float) -> float:
        return _logistic(z / self.temperature)


class Platt(_Frozen):
    """1 / (1 + exp(-(slope z + intercept)))."""

    kind: Literal["platt"] = "platt"
    slope: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    intercept: Finite

    def of(self, z: float) -> float:
        return _logistic(self.slope * z + self.intercept)


class Isotonic(_Frozen):
    """Straight lines between knots, level beyond the outer ones.

    Lines rather than steps, as scikit-learn draws them: with steps a hair's breadth of score, at a place that a few
    held-out parts happened to choose, would move the probability by all there is.
    """

    kind: Literal["isotonic"] = "isotonic"
    knots: tuple[tuple[Finite, Share], ...] = Field(min_length=1)  # (z, probability): z rises, probability never falls

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if any(b[0] <= a[0] or b[1] < a[1] for a, b in pairwise(self.knots)):
            raise ValueError("knots must have rising z and a probability that never falls")
        return self

    def of(self, z: float) -> float:
        after = bisect_right(self.knots, z, key=lambda knot: knot[0])
        if after in (0, len(self.knots)):
            return self.knots[min(after, len(self.knots) - 1)][1]
        (z0, p0), (z1, p1) = self.knots[after - 1], self.knots[after]
        way = (z - z0) / (z1 - z0)
        return min(p0 + (p1 - p0) * (way if math.isfinite(way) else 0.0), p1)  # rounding may go beyond p1


class ProbabilityMap(_Frozen):
    """One detector's score -> probability of a defect, for parts like the held-out ones."""

    centre: Finite  # half-way between the medians of the good and of the defective scores
    scale: Positive  # interquartile range of the good scores, as in `Calibration.margin`
    curve: Annotated[Temperature | Platt | Isotonic, Field(discriminator="kind")]
    prevalence: Share  # of defects among the held-out parts
    log_loss: dict[Kind, Finite] = {}  # cross-validated, nats a part; the smallest is the kind that was chosen
    folds: int = 0  # of the cross-validation; 0 where the kind was not chosen by one

    @property
    def kind(self) -> Kind:
        return self.curve.kind

    def of(self, score: float, prevalence: float | None = None) -> float:
        """Probability of a defect, in [0, 1]; never falls as the score rises.

        Args:
            score: finite, the detector's own units.
            prevalence: share of defects in production, in (0, 1), where it is not that of the held-out parts. The odds
                are multiplied by the ratio of prior odds (Saerens et al. 2002): that assumes that good parts still
                score as good parts did, and defects as defects did.
        """
        found = self.curve.of(standardised(score, self.centre, self.scale))
        if prevalence is None:
            return found
        ratio = (prevalence / (1 - prevalence)) / (self.prevalence / (1 - self.prevalence))
        return 0.0 if found <= 0 else 1 / (1 + (1 / found - 1) / ratio)


def standardised(score: float, centre: float, scale: float) -> float:
    """(score - centre) / scale, kept finite."""
    return max(-1e300, min(1e300, (score - centre) / scale))


def why_no_probability(good: int, defects: int) -> str | None:
    """Why so many held-out parts give no probability of a defect; None where they do."""
    if good >= LEAST and defects >= LEAST:
        return None
    return f"it needs {LEAST} held-out defects and {LEAST} good parts, there are {defects} and {good}"


@dataclass(frozen=True, slots=True)
class Bin:
    """Parts with about the same probability: what was said, and what was so."""

    parts: int
    said: float  # mean probability
    found: float  # share of defects
    low: float  # the least and the largest probability in it
    high: float


def reliability(probabilities: Sequence[float], defects: Sequence[bool], bins: int = 10) -> tuple[Bin, ...]:
    """The data of a reliability diagram, in bins of about equally many parts.

    Equal mass rather than equal width: scores pile up at 0 and 1, where bins of equal width have nearly all parts in
    two of them and single parts in the others. Equal probabilities stay together, so there may be fewer bins.

    Args:
        probabilities: of a defect, one a part.
        defects: whether it is one.
        bins: how many at the most.

    Raises:
        ValueError: there are no parts, or not as many labels as probabilities.
    """
    said, found = np.asarray(probabilities, float), np.asarray(defects, bool)
    if said.shape != found.shape or not said.size:
        raise ValueError(f"{said.size} probabilities and {found.size} labels: one each is needed, and at least one")
    ordered = np.sort(said)
    starts = np.unique([part[0] for part in np.array_split(ordered, min(bins, said.size))])
    index = np.searchsorted(starts, said, side="right") - 1
    return tuple(_bin(said[index == i], found[index == i]) for i in range(len(starts)))


def expected_calibration_error(probabilities: Sequence[float], defects: Sequence[bool], bins: int = 10) -> float:
    """ECE (Naeini et al. 2015): mean distance of said and found over `reliability`'s bins, weighted by their parts.

    Bins of few parts differ by chance alone: even true probabilities have an ECE above 0.

    Raises:
        ValueError: as `reliability`.
    """
    diagram = reliability(probabilities, defects, bins)
    return sum(b.parts * abs(b.said - b.found) for b in diagram) / sum(b.parts for b in diagram)


def log_loss(probabilities: Sequence[float], defects: Sequence[bool], clip: float = 1e-6) -> float:
    """Mean of -ln(probability given to what was so), nats a part; probabilities are kept `clip` away from 0 and 1."""
    said = np.clip(np.asarray(probabilities, float), clip, 1 - clip)
    return float(-np.log(np.where(np.asarray(defects, bool), said, 1 - said)).mean())


def _bin(said: NDArray[np.float64], found: NDArray[np.bool_]) -> Bin:
    return Bin(len(said), float(said.mean()), float(found.mean()), float(said.min()), float(said.max()))


def _logistic(x: float) -> float:
    """In this one form it never falls as x rises, whatever is rounded: exp(x) / (1 + exp(x)) does, by a last bit."""
    return 1 / (1 + math.exp(-max(-_FARTHEST, min(_FARTHEST, x))))
