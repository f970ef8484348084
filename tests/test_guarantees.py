"""What held-out counts promise: worked by hand, simulated, and said in words."""

import math
from typing import get_args

import numpy as np
import pytest

from anomaly.calibration import Calibration, ThresholdName, calibrate
from anomaly.guarantees import CONFIDENCE, Guarantee, guarantee, guarantees, mean_share, promise, upper_share


def made(good: list[float], defects: list[float], far: float = 0.1) -> Calibration:
    return calibrate(good, defects, split_hash="0", far=far)


def binomial(count: int, of: int, share: float) -> float:
    """P(at most `count` of `of`)."""
    return sum(math.comb(of, k) * share**k * (1 - share) ** (of - k) for k in range(count + 1))


# --- the two figures --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "of"), [(0, 1), (0, 20), (1, 20), (7, 20), (19, 20), (3, 200)])
def test_above_the_upper_bound_so_few_would_be_seen_in_one_case_of_twenty(count: int, of: int) -> None:
    assert binomial(count, of, upper_share(count, of)) == pytest.approx(1 - CONFIDENCE)
    assert mean_share(count, of) == (count + 1) / (of + 1)


def test_without_a_count_the_bound_has_a_closed_form_and_it_is_scipys() -> None:
    from scipy.stats import binomtest

    for of in (1, 12, 20, 300):
        assert upper_share(0, of) == pytest.approx(1 - 0.05 ** (1 / of))
        test = binomtest(0, of, alternative="less")
        assert upper_share(0, of) == pytest.approx(test.proportion_ci(CONFIDENCE, "exact").high)


def test_where_all_or_none_count_the_bound_is_one() -> None:
    assert upper_share(5, 5) == upper_share(0, 0) == 1.0
    assert mean_share(5, 5) == mean_share(0, 0) == 1.0


# --- threshold by threshold -------------------------------------------------------------------------------------------


def test_every_threshold_has_a_guarantee_with_both_sides_in_both_languages() -> None:
    found = guarantees(made([float(i) for i in range(30)], [15.5, 40.0, 50.0]))
    assert set(found) == set(get_args(ThresholdName))
    for name, each in found.items():
        assert each == guarantee(made([float(i) for i in range(30)], [15.5, 40.0, 50.0]), name)
        assert each.threshold == name
        assert (each.misses.side, each.false_alarms.side) == ("misses", "false_alarms")
        assert (each.misses.of, each.false_alarms.of) == (3, 30)
        for promised in (each.misses, each.false_alarms):
            assert set(promised.text) == {"en", "fr"}
            assert (promised.mean is None) == (promised.upper is None) == ("no promise" in promised.text["en"])
        assert Guarantee.model_validate_json(each.model_dump_json()) == each


@pytest.mark.parametrize("name", ["f1", "f2", "youden"])
def test_a_threshold_that_its_counts_chose_promises_nothing(name: ThresholdName) -> None:
    found = guarantee(made([float(i) for i in range(30)], [15.5, 40.0, 50.0]), name)
    for promised in (found.misses, found.false_alarms):
        assert (promised.mean, promised.upper) == (None, None)
        assert promised.text["en"].endswith(": these counts chose the threshold, no promise.")
        assert promised.text["fr"].endswith(" : ces comptes ont choisi le seuil, aucune promesse.")


def test_safe_promises_what_no_miss_among_so_many_supports() -> None:
    found = guarantee(made([float(i) for i in range(30)], [15.5 + i for i in range(20)]), "safe")
    assert (found.misses.count, found.misses.of) == (0, 20)
    assert (found.misses.mean, found.misses.upper) == (1 / 21, pytest.approx(1 - 0.05 ** (1 / 20)))
    # 14 good ones lie above 15.5; the cut lies half-way down to 15, which is counted, too
    assert (found.false_alarms.count, found.false_alarms.counted_as) == (14, 15)
    assert found.false_alarms.mean == 16 / 31
    below_all = guarantee(made([1.0, 2.0, 3.0] * 4, [0.5, 4.0]), "safe").false_alarms
    assert (below_all.count, below_all.counted_as, below_all.upper) == (12, 12, 1.0)


def test_far_counts_the_defects_that_it_did_not_look_at() -> None:
    calibration = made([float(i) for i in range(30)], [5.0, 27.0, 40.0, 50.0])
    assert calibration.thresholds["far"].defects == 0
    found = guarantee(calibration, "far").misses
    assert (found.count, found.of, found.mean) == (2, 4, 3 / 5)
    assert found.upper == pytest.approx(upper_share(2, 4))


def test_far_counts_what_its_level_allows_where_ties_let_fewer_through() -> None:
    found = guarantee(made([1.0] * 15 + [2.0] * 4, [], far=0.1), "far").false_alarms  # one is allowed, the tie has four
    assert (found.count, found.counted_as, found.mean) == (0, 1, 2 / 20)
    assert "(counted as 1)" in found.text["en"]


def test_a_threshold_that_somebody_moved_promises_nothing() -> None:
    calibration = made([float(i) for i in range(30)], [15.5, 40.0, 50.0])
    for name, moved in (("safe", 45.0), ("far", 20.0)):
        threshold = calibration.thresholds[name].model_copy(update={"value": moved})  # type: ignore[index]
        changed = calibration.model_copy(update={"thresholds": {name: threshold}})
        assert guarantee(changed, name).false_alarms.mean is None  # type: ignore[arg-type]


# --- simulated: later parts of the same kind --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "side"), [("safe", "misses"), ("safe", "false_alarms"), ("far", "false_alarms"), ("far", "misses")]
)
def test_later_parts_keep_both_figures(name: ThresholdName, side: str) -> None:
    """Good uniform on (0, 1), defects on (0.5, 1.5): the true shares are known for every cut."""
    rng = np.random.default_rng(7)
    runs, true, mean, broken = 1500, 0.0, 0.0, 0
    for _ in range(runs):
        calibration = made(rng.uniform(0, 1, 25).tolist(), rng.uniform(0.5, 1.5, 10).tolist(), far=0.1)
        cut = calibration.thresholds[name].value
        share = 1 - min(max(cut, 0), 1) if side == "false_alarms" else min(max(cut - 0.5, 0), 1)
        promised = getattr(guarantee(calibration, name), side)
        true, mean, broken = true + share, mean + promised.mean, broken + (share > promised.upper)
    assert true / runs <= mean / runs + 0.01
    assert broken / runs <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)
    if (name, side) in {("far", "false_alarms")}:  # and gives nothing away where it is exact
        assert true / runs == pytest.approx(mean / runs, abs=0.01)
        assert broken / runs == pytest.approx(0.05, abs=0.02)


def test_the_bound_of_safe_on_false_alarms_is_kept_for_every_share() -> None:
    """Exactly, not simulated: the next good score below a fixed cut, with one more counted than reach the cut."""
    for of in (1, 2, 5, 19, 60):
        bounds = [upper_share(k + 1, of) for k in range(of + 1)]
        for share in np.linspace(0.001, 0.999, 111).tolist():
            broken = 0.0
            for k, bound in enumerate(bounds):
                if bound < share:
                    broken += math.comb(of, k) * share**k * (1 - share) ** (of - k)
                elif bound < 1:  # the gap down to the next good one is that wide
                    broken += math.comb(of, k) * share**k * (1 - bound) ** (of - k)
            assert broken <= 0.05


# --- in words ---------------------------------------------------------------------------------------------------------


def test_the_sentence_of_the_issue() -> None:
    text = promise("misses", 0, 20).text
    assert text["en"] == (
        "No defect missed among 20 held-out ones: 4.8 % missed is what this supports on average (1/(m+1), split "
        "conformal), at most 13.9 % with 95 % confidence (Clopper-Pearson); assumes parts like those."
    )
    assert text["fr"] == (
        "Aucun défaut manqué sur 20 mis de côté : 4,8 % de défauts manqués, voilà ce que cela soutient en moyenne "
        "(1/(m+1), prédiction conforme), au plus 13,9 % avec 95 % de confiance (Clopper-Pearson) ; suppose des pièces "
        "comme celles-là."
    )


@pytest.mark.parametrize(
    ("side", "count", "of", "en", "fr"),
    [
        ("misses", 1, 1, "1 defect missed among 1 held-out one:", "1 défaut manqué sur 1 mis de côté :"),
        ("misses", 3, 12, "3 defects missed among 12 held-out ones:", "3 défauts manqués sur 12 mis de côté :"),
        ("false_alarms", 0, 9, "No good part rejected among 9", "Aucune bonne pièce rejetée sur 9 mises de côté :"),
        ("false_alarms", 2, 9, "2 good parts rejected among 9", "2 bonnes pièces rejetées sur 9 mises de côté :"),
        ("misses", 0, 0, "No labelled defect was held out: nothing is known", "Aucun défaut étiqueté n'a été mis"),
    ],
)
def test_counts_in_words(side: str, count: int, of: int, en: str, fr: str) -> None:
    text = promise(side, count, of).text  # type: ignore[arg-type]
    assert text["en"].startswith(en)
    assert text["fr"].startswith(fr)


def test_a_share_that_is_not_0_is_never_said_to_be_0() -> None:
    text = promise("false_alarms", 0, 19_999).text
    assert "0.005 % of good parts rejected" in text["en"]
    assert "0,005 % de bonnes pièces rejetées" in text["fr"]
    assert "at most 100 % with" in promise("misses", 5, 5).text["en"]
