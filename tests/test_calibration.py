"""Held-out scores -> p-values and thresholds: worked by hand, and held against what they promise."""

import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from anomaly.calibration import (
    PROBABILITIES,
    Calibration,
    CalibrationFile,
    HeatmapScale,
    calibrate,
    least_good,
    read_calibration,
    sweep,
)
from anomaly.errors import CalibrationError, ModelLoadError
from anomaly.policy import Policy, Rule, Vote, member_verdict
from anomaly.probability import Platt, ProbabilityMap

HASH = "0" * 16
LEVELS = [0.01, 0.05, 0.1, 1 - 0.9, 0.1 + 0.2, 1 / 3, 0.15, 0.2, 0.5, 0.7, 0.95, 0.999, math.nextafter(1, 0)]


def made(good: list[float], defects: list[float] | None = None, far: float = 0.5) -> Calibration:
    return calibrate(good, defects or [], split_hash=HASH, far=far)


def value(calibration: Calibration, name: str) -> float:
    return calibration.thresholds[name].value  # type: ignore[index]


# --- p-values -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("score", "p"),
    # (1 + how many of 1, 2, 2, 3 are as high or higher) / 5
    [(0.0, 5 / 5), (1.0, 5 / 5), (1.5, 4 / 5), (2.0, 4 / 5), (2.5, 2 / 5), (3.0, 2 / 5), (3.5, 1 / 5), (1e300, 1 / 5)],
)
def test_a_p_value_is_the_share_of_good_parts_that_score_as_high_or_higher(score: float, p: float) -> None:
    calibration = made([3.0, 2.0, 1.0, 2.0])  # in any order, with a tie
    assert calibration.p_value(score) == p
    assert calibration.smallest_p_value == 1 / 5


def test_a_p_value_never_rises_with_the_score() -> None:
    calibration = made([0.5, 1.0, 1.0, 2.0, 4.0])
    scores = sorted(s for g in calibration.good_scores for s in (math.nextafter(g, -9), g, math.nextafter(g, 9)))
    values = [calibration.p_value(score) for score in scores]
    assert values == sorted(values, reverse=True)
    assert len(set(values)) == 5


def test_p_values_of_good_parts_are_at_most_as_often_small_as_they_say() -> None:
    rng = np.random.default_rng(0)
    values = np.array([made(scores[:-1].tolist()).p_value(scores[-1]) for scores in rng.normal(size=(4000, 20))])
    for level in (0.05, 0.1, 0.25, 0.5):
        noise = 3 * math.sqrt(level * (1 - level) / len(values))
        assert (values <= level).mean() == pytest.approx(level, abs=noise)  # 20 levels of 1/20: exactly, here


# --- the false-alarm threshold --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("far", "below", "false_alarms"),
    # with 1 .. 19 a level of k/20 lets k - 1 of the good ones through: the cut lies just above the next
    [(0.05, 19.0, 0), (0.09, 19.0, 0), (0.1, 18.0, 1), (0.25, 15.0, 4), (0.5, 10.0, 9)],
)
def test_far_by_hand(far: float, below: float, false_alarms: int) -> None:
    threshold = made([float(score) for score in range(1, 20)], far=far).thresholds["far"]
    assert threshold.value == math.nextafter(below, math.inf)
    assert (threshold.false_alarms, threshold.good) == (false_alarms, 19)
    assert (threshold.missed, threshold.defects) == (0, 0)  # set from good images alone
    assert threshold.level == far


def test_far_passes_a_whole_tie_rather_than_half_of_it() -> None:
    threshold = made([1.0] * 10 + [2.0] * 9, far=0.1).thresholds["far"]  # one false alarm is allowed, the tie has nine
    assert (threshold.value, threshold.false_alarms) == (math.nextafter(2.0, math.inf), 0)


@pytest.mark.parametrize("far", LEVELS)
@pytest.mark.parametrize("decimals", [None, 1, 0], ids=["continuous", "some ties", "many ties"])
def test_reaching_far_and_a_p_value_within_the_level_are_the_same_for_every_score(
    far: float, decimals: int | None
) -> None:
    rng = random.Random(f"{far} {decimals}")
    for count in {least_good(far), least_good(far) + 1, least_good(far) + 7, 2 * least_good(far) + 1}:
        good = [rng.gauss(0, 2) for _ in range(count)]
        good = good if decimals is None else [round(score, decimals) for score in good]
        calibration = made(good, far=far)
        cut = value(calibration, "far")
        scores = [*good, cut, -1e300, 0.0, 1e300, *(rng.gauss(0, 2) for _ in range(20))]
        scores += [math.nextafter(score, away) for score in scores for away in (-math.inf, math.inf)]
        assert [calibration.p_value(score) <= far for score in scores] == [score >= cut for score in scores]


@pytest.mark.parametrize(("count", "far"), [(19, 0.05), (40, 0.05), (30, 0.1), (9, 0.2)])
@pytest.mark.parametrize("ties", [False, True], ids=["continuous", "ties"])
def test_the_simulated_false_alarm_rate_keeps_the_level(count: int, far: float, ties: bool) -> None:
    rng = np.random.default_rng(count)
    runs = 3000
    scores = rng.lognormal(size=(runs, count + 1))
    scores = np.round(scores) if ties else scores
    alarms = np.mean([row[-1] >= value(made(row[:-1].tolist(), far=far), "far") for row in scores])
    noise = 3 * math.sqrt(far * (1 - far) / runs)
    assert alarms <= far + noise
    if not ties:  # nor does it give away more than the steps of 1/(n + 1) cost
        assert alarms >= math.floor(far * (count + 1) + 1e-9) / (count + 1) - noise


@pytest.mark.parametrize("far", LEVELS)
def test_least_good_is_the_least_number_with_which_a_p_value_can_be_that_small(far: float) -> None:
    count = least_good(far)
    assert 1 / (count + 1) <= far
    assert count == 1 or 1 / count > far
    assert made([0.0] * count, far=far).thresholds["far"].level == far
    if count > 1:
        with pytest.raises(CalibrationError, match=f"needs {count} held-out good images, there are {count - 1}"):
            made([0.0] * (count - 1), far=far)


def test_too_few_good_images_are_refused_with_both_counts_and_the_way_out() -> None:
    with pytest.raises(CalibrationError) as caught:
        made([1.0, 2.0, 3.0], far=0.05)
    assert str(caught.value) == (
        "a false-alarm level of 0.05 needs 19 held-out good images, there are 3: "
        "add good images or ask for a level of at least 0.250"
    )
    with pytest.raises(CalibrationError, match="needs 19 held-out good images, there are 0"):
        made([], [5.0], far=0.05)


@pytest.mark.parametrize("far", [0.0, 1.0, -0.1, 5.0, math.nan])
def test_a_level_that_is_no_probability_is_refused(far: float) -> None:
    with pytest.raises(CalibrationError, match=r"must lie in \(0, 1\), not"):
        made([1.0, 2.0], far=far)


# --- the thresholds from labelled defects ---------------------------------------------------------------------------


def test_without_labelled_defects_there_is_only_far() -> None:
    assert list(made([1.0, 2.0]).thresholds) == ["far"]
    assert list(made([1.0, 2.0], [3.0]).thresholds) == ["far", "f1", "f2", "youden", "safe"]


def test_f1_f2_and_safe_by_hand() -> None:
    # good 1 2 3 4, defects .5 5 6. At a cut of  5: 2 hits, 1 missed, no false alarm   F1 .8     F2 .714
    #                                           .5: 3 hits, none missed, 4 false alarms F1 .6     F2 .789
    #                                            6: 1 hit, 2 missed, no false alarm     F1 .5     F2 .385
    calibration = made([1.0, 2.0, 3.0, 4.0], [5.0, 0.5, 6.0])
    f1, f2, safe = (calibration.thresholds[name] for name in ("f1", "f2", "safe"))
    assert (f1.value, f1.false_alarms, f1.good, f1.missed, f1.defects) == (4.5, 0, 4, 1, 3)  # half-way from 5 to 4
    assert (f2.value, f2.false_alarms, f2.good, f2.missed, f2.defects) == (0.5, 4, 4, 0, 3)  # nothing is below .5
    assert (safe.value, safe.false_alarms, safe.good, safe.missed, safe.defects) == (0.5, 4, 4, 0, 3)
    assert all(threshold.level is None for threshold in (f1, f2, safe))


def test_safe_lies_half_way_between_the_lowest_defect_and_the_next_good_image() -> None:
    safe = made([1.0, 2.0, 7.0], [4.0, 6.0]).thresholds["safe"]
    assert (safe.value, safe.missed, safe.false_alarms) == (3.0, 0, 1)


def test_of_equally_good_cuts_the_lowest_is_taken() -> None:
    # good 2 3 4 5, defects 1 1 6 6. Cut 1: 4 hits, 4 false alarms; cut 6: 2 hits, 2 missed. F1 = 2/3 both times
    assert value(made([2.0, 3.0, 4.0, 5.0], [1.0, 1.0, 6.0, 6.0]), "f1") == 1.0


def test_a_defect_that_ties_with_a_good_image_is_caught_with_it() -> None:
    calibration = made([1.0, 2.0], [2.0])
    for name in ("f1", "f2", "safe"):
        threshold = calibration.thresholds[name]  # type: ignore[index]
        assert (threshold.value, threshold.missed, threshold.false_alarms) == (1.5, 0, 1)


def test_between_two_neighbouring_floats_the_cut_is_the_defect_itself() -> None:
    above = math.nextafter(1.0, 2.0)
    for good, defect in ((1.0, above), (math.nextafter(above, 2.0), math.nextafter(math.nextafter(above, 2.0), 2.0))):
        threshold = made([good], [defect]).thresholds["safe"]
        assert (threshold.value, threshold.missed, threshold.false_alarms) == (defect, 0, 0)


@pytest.mark.parametrize(("name", "beta"), [("f1", 1), ("f2", 2)])
def test_no_other_cut_has_a_larger_f_score(name: str, beta: int) -> None:
    rng = random.Random(name)
    for _ in range(200):
        good = [float(rng.randint(0, 12)) for _ in range(rng.randint(1, 12))]
        defects = [float(rng.randint(4, 16)) for _ in range(rng.randint(1, 12))]

        def f_score(cut: float, good: list[float] = good, defects: list[float] = defects) -> float:
            hits, alarms = sum(d >= cut for d in defects), sum(g >= cut for g in good)
            return (1 + beta**2) * hits / (beta**2 * len(defects) + hits + alarms)

        threshold = made(good, defects).thresholds[name]  # type: ignore[index]
        assert f_score(threshold.value) == pytest.approx(max(f_score(x / 2) for x in range(-2, 34)), abs=1e-12)
        assert threshold.false_alarms == sum(g >= threshold.value for g in good)
        assert threshold.missed == sum(d < threshold.value for d in defects)
        assert value(made(good, defects), "safe") <= min(defects)


def test_youden_by_hand() -> None:
    # good 1 2 3 4, defects .5 5 6. J at a cut of .5: 1 - 1 = 0; 5: 2/3 - 0; 6: 1/3 - 0
    youden = made([1.0, 2.0, 3.0, 4.0], [5.0, 0.5, 6.0]).thresholds["youden"]
    assert (youden.value, youden.false_alarms, youden.good, youden.missed, youden.defects) == (4.5, 0, 4, 1, 3)


def test_of_cuts_with_the_same_youden_index_the_lowest_is_taken() -> None:
    # good 1 3 5, defects 2 4 6: J = 1/3 at each of the defects, which no two floats need agree on
    youden = made([1.0, 3.0, 5.0], [2.0, 4.0, 6.0]).thresholds["youden"]
    assert (youden.value, youden.missed, youden.false_alarms) == (1.5, 0, 2)
    wrong_way_round = made([5.0, 6.0], [1.0, 2.0]).thresholds["youden"]  # J = 0 for "all" and for "none"
    assert (wrong_way_round.value, wrong_way_round.missed, wrong_way_round.false_alarms) == (1.0, 0, 2)


def test_no_other_cut_has_a_larger_youden_index() -> None:
    rng = random.Random("youden")
    for _ in range(200):
        good = [float(rng.randint(0, 12)) for _ in range(rng.randint(1, 12))]
        defects = [float(rng.randint(0, 16)) for _ in range(rng.randint(1, 12))]

        def youden(cut: float, good: list[float] = good, defects: list[float] = defects) -> int:
            return sum(d >= cut for d in defects) * len(good) - sum(g >= cut for g in good) * len(defects)

        threshold = made(good, defects).thresholds["youden"]
        cuts = [x / 2 for x in range(-2, 36)]
        best = max(map(youden, cuts))
        assert youden(threshold.value) == best
        assert all(
            cut > threshold.value
            for cut in cuts
            if youden(cut) == best and _counts_differ(cut, threshold.value, good + defects)
        )


def _counts_differ(a: float, b: float, scores: list[float]) -> bool:
    return sum(s >= a for s in scores) != sum(s >= b for s in scores)


# --- a score equal to the threshold is a defect -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["far", "f1", "f2", "youden", "safe"])
def test_a_score_equal_to_the_threshold_is_a_defect_also_after_json(name: str) -> None:
    rng = random.Random(name)
    policy = Policy(name="alone", description={}, rule=Rule(kind="any", members=("m",), threshold=name))  # type: ignore[arg-type]
    for exponent in (-300, -6, 0, 6, 300):
        good = [rng.gauss(0, 1) * 10.0**exponent for _ in range(30)]
        defects = [rng.gauss(2, 1) * 10.0**exponent for _ in range(9)]
        kept = made(good, defects, far=0.1)
        for calibration in (kept, Calibration.model_validate_json(kept.model_dump_json())):
            cut = value(calibration, name)
            thresholds = {key: threshold.value for key, threshold in calibration.thresholds.items()}
            for score, verdict in (
                (cut, "defect"),
                (math.nextafter(cut, math.inf), "defect"),
                (math.nextafter(cut, -math.inf), "ok"),
            ):
                assert member_verdict(Vote("m", score, calibration.p_value(score), thresholds), policy) == verdict
            assert calibration.margin(cut, name) == 0  # type: ignore[arg-type]
            assert calibration.margin(math.nextafter(cut, -math.inf), name) <= 0  # type: ignore[arg-type]


def test_held_out_scores_at_a_threshold_are_counted_as_it_will_decide() -> None:
    rng = random.Random(3)
    for _ in range(50):
        good = [float(np.float32(rng.gauss(0, 1))) for _ in range(25)]
        defects = [float(np.float32(rng.gauss(1, 1))) for _ in range(8)] + good[:2]  # also ties
        for name, threshold in made(good, defects, far=0.1).thresholds.items():
            assert threshold.false_alarms == sum(score >= threshold.value for score in good)
            if name != "far":
                assert threshold.missed == sum(score < threshold.value for score in defects)


# --- the sweep over probabilities -------------------------------------------------------------------------------------


def with_probability(good: list[float], defects: list[float]) -> Calibration:
    """P = 1 / (1 + exp(-score)): one half at 0."""
    curve = Platt(slope=1.0, intercept=0.0)
    found = ProbabilityMap(centre=0.0, scale=1.0, curve=curve, prevalence=0.5)
    return calibrate(good, defects, split_hash=HASH, far=0.5, probability=found)


def test_the_sweep_counts_what_a_cut_in_probability_would_do() -> None:
    calibration = with_probability([-3.0, -1.0, 0.0, 1.0], [-0.5, 2.0, 3.0])
    rows = {row.probability: row for row in sweep(calibration)}
    assert tuple(rows) == PROBABILITIES
    assert (PROBABILITIES[0], PROBABILITIES[-1], len(PROBABILITIES)) == (0.5, 0.99, 50)
    at_half = rows[0.5]  # a probability of just one half is a defect
    assert (at_half.false_alarms, at_half.good, at_half.missed, at_half.defects) == (2, 4, 1, 3)
    assert (rows[0.9].false_alarms, rows[0.9].missed) == (0, 2)  # P(2) = .88, P(3) = .95
    assert (rows[0.99].false_alarms, rows[0.99].missed) == (0, 3)
    assert [row.missed for row in sweep(calibration, [0.0, 1.0])] == [0, 3]


def test_without_probabilities_there_is_nothing_to_sweep() -> None:
    assert sweep(made([1.0, 2.0], [3.0])) == ()


def test_a_calibration_from_before_probabilities_still_loads_and_one_with_them_comes_back_whole() -> None:
    old = json.loads(made([1.0, 2.0], [3.0]).model_dump_json())
    del old["probability"], old["thresholds"]["youden"]
    assert Calibration.model_validate(old).probability is None
    new = with_probability([-0.1 - 0.2, 1 / 3], [2.0, 3.0])
    assert Calibration.model_validate_json(new.model_dump_json()) == new


# --- what is refused, and what is kept ------------------------------------------------------------------------------


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_scores_that_are_not_finite_are_refused_and_counted(broken: float) -> None:
    with pytest.raises(CalibrationError, match=rf"2 held-out scores are not finite \({broken}\)"):
        made([1.0, broken, broken])
    with pytest.raises(CalibrationError, match="1 held-out scores are not finite"):
        made([1.0, 2.0], [broken])


@pytest.mark.parametrize("scores", [[2.0, 1.0], [1.0, 3.0, 2.0]])
@pytest.mark.parametrize("field", ["good_scores", "defect_scores"])
def test_unsorted_scores_are_refused(scores: list[float], field: str) -> None:
    calibration = json.loads(made([1.0, 2.0], [3.0]).model_dump_json()) | {field: scores}
    with pytest.raises(ValidationError, match="ascending"):
        Calibration.model_validate(calibration)


def test_json_gives_every_number_back_to_the_last_bit() -> None:
    rng = random.Random(0)
    awkward = [
        0.1 + 0.2,
        1 / 3,
        5e-324,
        -5e-324,
        1.7976931348623157e308,
        math.pi * 1e-200,
        float(np.float32(0.1)),
        -0.0,
    ]
    good = [*awkward, *(rng.gauss(0, 1) * 10 ** rng.randint(-30, 30) for _ in range(300))]
    defects = [rng.gauss(2, 1) for _ in range(50)]
    before = calibrate(good, defects, split_hash=HASH, far=0.05, heatmap=HeatmapScale(low=0.1, high=1 / 3, images=9))
    after = Calibration.model_validate_json(before.model_dump_json())
    assert after == before
    assert [score.hex() for score in after.good_scores] == [score.hex() for score in before.good_scores]
    assert {n: t.value.hex() for n, t in after.thresholds.items()} == {
        n: t.value.hex() for n, t in before.thresholds.items()
    }


def test_a_file_gives_back_what_was_written_and_names_itself_when_it_cannot(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    file = CalibrationFile(categories={"cable": made([1.0, 2.0], [3.0])})
    path.write_text(file.model_dump_json())
    assert read_calibration(path) == file
    path.write_text(file.model_dump_json()[:-5])
    with pytest.raises(ModelLoadError, match=str(path)):
        read_calibration(path)
    with pytest.raises(ModelLoadError, match=r"absent\.json"):
        read_calibration(tmp_path / "absent.json")


def test_a_margin_is_in_interquartile_ranges_of_the_good_scores() -> None:
    calibration = made([float(score) for score in range(1, 10)], [20.0], far=0.5)  # quartiles 3 and 7; safe at 14.5
    assert value(calibration, "safe") == 14.5
    assert calibration.margin(14.5, "safe") == 0
    assert calibration.margin(18.5, "safe") == 1
    assert calibration.margin(10.5, "safe") == -1
