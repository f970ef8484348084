"""Scores -> probabilities of a defect: worked by hand, against scikit-learn, and held against what came true."""

import itertools
import json
import math
import random
import warnings
from typing import get_args

import numpy as np
import pytest
from pydantic import ValidationError

from anomaly.errors import CalibrationError
from anomaly.probability import (
    Isotonic,
    Kind,
    Platt,
    ProbabilityMap,
    Temperature,
    expected_calibration_error,
    log_loss,
    reliability,
    why_no_probability,
)
from training.probability import fit_kind, fit_probability, standard

FARTHEST = [-1.7976931348623157e308, -1e300, -5e-324, 0.0, 5e-324, 1e300, 1.7976931348623157e308]
CURVES = [
    Temperature(temperature=0.5),
    Temperature(temperature=1e6),
    Platt(slope=3.0, intercept=-1.0),
    Platt(slope=0.0, intercept=2.0),
    Platt(slope=1e9, intercept=1e9),
    Isotonic(knots=((0.0, 0.3),)),
    Isotonic(knots=((-1.0, 0.1), (0.0, 0.1), (0.5, 0.7), (math.nextafter(0.5, 1), 0.9))),
    Isotonic(knots=((-1.7e308, 0.1), (1.7e308, 0.9))),
    Isotonic(knots=((0.0, 0.1), (5e-324, 0.9))),
]


def mapped(
    curve: Temperature | Platt | Isotonic, centre: float = 0.0, scale: float = 1.0, prevalence: float = 0.25
) -> ProbabilityMap:
    return ProbabilityMap(centre=centre, scale=scale, curve=curve, prevalence=prevalence)


def drawn(good: int, defects: int, distance: float, seed: int = 0) -> tuple[list[float], list[float]]:
    rng = np.random.default_rng(seed)
    return rng.normal(0, 1, good).tolist(), rng.normal(distance, 1, defects).tolist()


# --- what a score says ------------------------------------------------------------------------------------------------


def test_the_three_curves_by_hand() -> None:
    # centre 10, scale 2: a score of 14 is z = 2
    assert mapped(Temperature(temperature=4.0), 10.0, 2.0).of(14.0) == pytest.approx(1 / (1 + math.exp(-0.5)))
    assert mapped(Temperature(temperature=4.0), 10.0, 2.0).of(10.0) == 0.5
    assert mapped(Platt(slope=3.0, intercept=-1.0), 10.0, 2.0).of(14.0) == pytest.approx(1 / (1 + math.exp(-5)))
    between = mapped(Isotonic(knots=((0.0, 0.2), (1.0, 0.2), (3.0, 0.6))), 10.0, 2.0)
    assert [round(between.of(score), 12) for score in (-99, 10, 12, 14, 16, 99)] == [0.2, 0.2, 0.2, 0.4, 0.6, 0.6]


@pytest.mark.parametrize("curve", CURVES, ids=repr)
@pytest.mark.parametrize(("centre", "scale"), [(0.0, 1.0), (1e308, 5e-324), (-1e308, 1e308), (3.7, 1e-9)])
def test_a_probability_is_finite_in_0_to_1_and_never_falls(
    curve: Temperature | Platt | Isotonic, centre: float, scale: float
) -> None:
    probability = mapped(curve, centre, scale)
    rng = random.Random(0)
    near = [centre + scale * rng.gauss(0, 2) for _ in range(300)]
    near += [centre + scale * knot for knot in (0.5, -1.0)]
    scores = sorted(
        {x for s in [*FARTHEST, centre, *near] if math.isfinite(s) for x in (s, math.nextafter(s, 1e308))} - {math.inf}
    )
    for prevalence in (None, 0.02):
        said = [probability.of(score, prevalence) for score in scores]
        assert all(0 <= p <= 1 for p in said)
        assert all(later >= earlier for earlier, later in itertools.pairwise(said))


def test_the_last_bit_of_a_score_never_lowers_the_probability() -> None:
    for curve in (Temperature(temperature=1.3), Platt(slope=0.7, intercept=-0.2)):
        probability = mapped(curve)
        for start in (-30.0, -3.0, -0.7, 0.0, 0.3, 5.0):
            score, before = start, 0.0
            for _ in range(400):
                now = probability.of(score)
                assert now >= before
                score, before = math.nextafter(score, math.inf), now


def test_another_prevalence_moves_the_odds_by_the_ratio_of_prior_odds() -> None:
    probability = mapped(Temperature(temperature=1.0), prevalence=0.5)
    assert probability.of(0.0) == 0.5
    assert probability.of(0.0, prevalence=0.02) == pytest.approx(0.02)  # even odds before: the prior alone is left
    assert probability.of(2.0, prevalence=0.5) == pytest.approx(probability.of(2.0))
    odds = math.exp(2.0) * 0.02 / 0.98
    assert probability.of(2.0, prevalence=0.02) == pytest.approx(odds / (1 + odds))


def test_json_gives_the_very_same_probabilities() -> None:
    for good, defects in (drawn(40, 12, 2.0), drawn(30, 8, 20.0), drawn(200, 90, 0.7)):
        before = fit_probability(good, defects)
        assert before is not None
        after = ProbabilityMap.model_validate_json(before.model_dump_json())
        assert after == before
        assert [after.of(score) for score in good + defects] == [before.of(score) for score in good + defects]


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"scale": 0.0}, "greater than 0"),
        ({"centre": math.nan}, "finite"),
        ({"prevalence": 1.0}, "less than 1"),
        ({"curve": {"kind": "platt", "slope": -1.0, "intercept": 0.0}}, "greater than or equal to 0"),
        ({"curve": {"kind": "temperature", "temperature": math.inf}}, "finite"),
        ({"curve": {"kind": "isotonic", "knots": [[0.0, 0.5], [1.0, 0.4]]}}, "never falls"),
        ({"curve": {"kind": "isotonic", "knots": [[1.0, 0.4], [1.0, 0.5]]}}, "rising z"),
        ({"curve": {"kind": "isotonic", "knots": []}}, "at least 1"),
        ({"curve": {"kind": "venn"}}, "venn"),
    ],
)
def test_numbers_that_are_no_rising_probability_are_refused(changed: dict[str, object], match: str) -> None:
    right = mapped(Temperature(temperature=1.0)).model_dump()
    with pytest.raises(ValidationError, match=match):
        ProbabilityMap.model_validate(right | changed)


# --- fitting ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("good", "defects", "made"), [(0, 5, False), (1, 5, False), (5, 1, False), (2, 2, True)])
def test_fewer_than_two_of_either_give_none_with_the_reason(good: int, defects: int, made: bool) -> None:
    found = fit_probability([float(i) for i in range(good)], [10.0 + i for i in range(defects)])
    reason = why_no_probability(good, defects)
    assert (found is not None) == made == (reason is None)
    if reason is not None:
        assert reason == f"it needs 2 held-out defects and 2 good parts, there are {defects} and {good}"


@pytest.mark.parametrize(("good", "defects", "folds"), [(40, 12, 5), (40, 3, 3), (2, 9, 2)])
def test_folds_are_five_or_as_many_as_the_rarer_label_has(good: int, defects: int, folds: int) -> None:
    found = fit_probability(*drawn(good, defects, 2.0))
    assert found is not None
    assert found.folds == folds
    assert found.prevalence == defects / (good + defects)
    assert set(found.log_loss) == set(get_args(Kind))
    assert found.log_loss[found.kind] == min(found.log_loss.values())


def test_the_order_of_the_scores_does_not_matter_and_neither_does_the_unit() -> None:
    good, defects = drawn(30, 10, 1.5)
    found = fit_probability(good, defects)
    assert found is not None
    assert fit_probability(good[::-1], defects[3:] + defects[:3]) == found
    other = fit_probability([1e-6 * score + 5 for score in good], [1e-6 * score + 5 for score in defects])
    assert other is not None
    assert other.kind == found.kind
    assert [other.of(1e-6 * s + 5) for s in defects] == pytest.approx([found.of(s) for s in defects], abs=1e-4)


def test_temperature_is_chosen_where_it_is_true_and_isotonic_where_no_logistic_fits() -> None:
    rng = np.random.default_rng(1)
    symmetric = fit_probability(rng.normal(-1, 1, 400).tolist(), rng.normal(1, 1, 400).tolist())
    assert symmetric is not None
    assert symmetric.kind in ("temperature", "platt")
    steps = rng.uniform(0, 1, 800)
    labels = rng.uniform(size=800) < np.select([steps < 0.5, steps < 0.6], [0.1, 0.5], 0.6)
    staircase = fit_probability(steps[~labels].tolist(), steps[labels].tolist())
    assert staircase is not None
    assert staircase.log_loss["isotonic"] < staircase.log_loss["platt"]
    assert staircase.kind == "isotonic"
    rare = fit_probability(rng.normal(0, 1, 600).tolist(), rng.normal(1, 1, 30).tolist())
    assert rare is not None
    assert rare.kind != "temperature"  # one half is not at the centre when defects are rare


def test_no_other_numbers_have_a_smaller_cross_entropy_to_platts_targets() -> None:
    good, defects = drawn(25, 9, 1.2, seed=3)
    scores, targets = np.array(good + defects), np.repeat([1 / 27, 10 / 11], [25, 9])

    def cross_entropy(curve: Temperature | Platt) -> float:
        centre, scale = standard(good, defects)
        said = np.array([curve.of(z) for z in (scores - centre) / scale])
        return float(-(targets * np.log(said) + (1 - targets) * np.log(1 - said)).mean())

    for kind in ("temperature", "platt"):
        curve = fit_kind(kind, good, defects).curve
        assert not isinstance(curve, Isotonic)
        for change in (0.99, 1.01):
            if isinstance(curve, Temperature):
                others = [Temperature(temperature=curve.temperature * change)]
            else:
                others = [
                    Platt(slope=curve.slope * change, intercept=curve.intercept),
                    Platt(slope=curve.slope, intercept=curve.intercept * change),
                ]
            assert all(cross_entropy(other) > cross_entropy(curve) for other in others)


@pytest.mark.parametrize(
    ("good", "defects"),
    [
        ([0.0] * 10, [0.0] * 4),  # it says nothing
        ([0.0] * 10, [1.0] * 4),  # no spread among the good ones
        ([1.0, 2.0, 3.0], [0.0, -1.0]),  # the wrong way round
        ([0.0, 1e-30], [1e-30, 2e-30]),
        ([0.0, 1.0, 2.0], [1.0, 3.0, 3e38]),  # the largest of float32
        (drawn(30, 10, 50.0)),  # parted completely
    ],
)
def test_whatever_the_scores_a_map_is_made_without_a_warning_and_says_neither_0_nor_1(
    good: list[float], defects: list[float]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for kind in get_args(Kind):
            said = [fit_kind(kind, good, defects).of(score) for score in sorted(good + defects)[:-1]]
            assert all(0 < p < 1 for p in said)
            assert said == sorted(said)
        assert fit_probability(good, defects) is not None


def test_a_detector_that_ranks_the_wrong_way_round_says_the_same_of_every_part() -> None:
    found = fit_probability(*drawn(40, 20, -3.0))
    assert found is not None
    assert found.of(-100.0) == pytest.approx(found.of(100.0))
    assert found.of(0.0) == pytest.approx(found.prevalence, abs=0.02)


def test_scores_that_are_not_finite_are_refused() -> None:
    with pytest.raises(CalibrationError, match="not all finite"):
        fit_probability([1.0, math.nan], [2.0, 3.0])


# --- how good probabilities are ---------------------------------------------------------------------------------------


def test_bins_hold_about_equally_many_parts_and_equal_probabilities_stay_together() -> None:
    first, second = reliability([0.1, 0.2, 0.7, 0.9], [False, True, True, True], bins=2)
    assert (first.parts, first.said, first.found, first.low, first.high) == (2, pytest.approx(0.15), 0.5, 0.1, 0.2)
    assert (second.parts, second.said, second.found) == (2, pytest.approx(0.8), 1.0)
    tied = reliability([0.5] * 7 + [0.8], [True] * 8, bins=4)
    assert [b.parts for b in tied] == [8] or [b.parts for b in tied] == [7, 1]
    assert [b.parts for b in reliability([i / 100 for i in range(100)], [True] * 100)] == [10] * 10


def test_ece_by_hand() -> None:
    # |.15 - .5| for half of the parts, |.8 - 1| for the other half
    assert expected_calibration_error([0.1, 0.2, 0.7, 0.9], [False, True, True, True], bins=2) == pytest.approx(0.275)
    assert expected_calibration_error([0.25] * 4, [True, False, False, False]) == 0
    with pytest.raises(ValueError, match="0 probabilities and 0 labels"):
        expected_calibration_error([], [])
    with pytest.raises(ValueError, match="2 probabilities and 1 labels"):
        reliability([0.1, 0.2], [True])


def test_log_loss_is_scikit_learns_and_stays_finite() -> None:
    from sklearn.metrics import log_loss as theirs

    said, found = [0.1, 0.5, 0.9, 0.8], [False, True, True, False]
    assert log_loss(said, found) == pytest.approx(theirs(found, said))
    assert log_loss([0.0], [True]) == pytest.approx(-math.log(1e-6))


def test_fitted_probabilities_come_true_more_nearly_than_the_plain_logistic() -> None:
    good, defects = drawn(300, 100, 1.0, seed=5)
    found = fit_probability(good, defects)
    assert found is not None
    later_good, later_defects = drawn(3000, 1000, 1.0, seed=6)
    scores, labels = later_good + later_defects, [False] * 3000 + [True] * 1000
    before = mapped(Temperature(temperature=1.0), found.centre, found.scale)
    errors = [expected_calibration_error([p.of(score) for score in scores], labels) for p in (before, found)]
    assert errors[1] < 0.05 < errors[0]


def test_the_json_is_plain_numbers() -> None:
    found = fit_probability(*drawn(40, 12, 2.0))
    assert found is not None
    assert set(json.loads(found.model_dump_json())) == {"centre", "scale", "curve", "prevalence", "log_loss", "folds"}
