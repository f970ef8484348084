"""Thresholds of several members at once: the bounds hold together, and too few parts give none."""

import numpy as np
import pytest

from anomaly.calibration import calibrate
from anomaly.errors import CalibrationError
from anomaly.policy import cast_vote, check_policy
from training.joint_votes import Joint, Part, Price, tally
from training.risk_control import control, controlled_policy, least_defects

TRUE = {"one": 3.0, "two": 2.0}  # how far defects lie above good parts, in deviations


def drawn(good: int, defects: int, seed: int) -> tuple[dict[str, list[float]], list[bool]]:
    rng = np.random.default_rng(seed)
    labels = [False] * good + [True] * defects
    return {
        name: (rng.normal(size=len(labels)) + far * np.array(labels)).tolist() for name, far in TRUE.items()
    }, labels


@pytest.mark.parametrize(("share", "least"), [(0.1, 29), (0.05, 59), (0.5, 5)])
def test_so_many_defects_without_a_miss_are_needed(share: float, least: int) -> None:
    assert least_defects(share) == least
    assert (1 - share) ** least <= 0.05 < (1 - share) ** (least - 1)


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"defects": [True, False]}, "2 labels, but scores of"),
        ({"max_missed": 0.0}, r"must lie in \(0, 1\)"),
        ({"needed": 3}, "needed votes 3 in 1 .. 2"),
        ({"defects": [False] * 19 + [True]}, "19 good parts and 1 defects cannot be halved"),
    ],
)
def test_what_cannot_be_controlled_is_refused(changed: dict[str, object], match: str) -> None:
    scores, labels = drawn(10, 10, 0)
    given: dict[str, object] = {"defects": labels, "max_missed": 0.1, "max_false_alarms": 0.1}
    with pytest.raises(CalibrationError, match=match):
        control(scores, **given | changed)  # type: ignore[arg-type]


def test_both_bounds_hold_together_for_later_parts() -> None:
    later, truth = drawn(20_000, 20_000, 99)
    table, is_defect = np.column_stack(list(later.values())), np.array(truth)
    found = [control(*drawn(150, 150, seed), max_missed=0.2, max_false_alarms=0.2, seed=seed) for seed in range(12)]
    held = [one for one in found if one is not None]
    assert len(held) >= 9  # there are such thresholds, and so many parts find them
    broken = 0
    for one in held:
        rejected = (table >= np.array(list(one.thresholds.values()))).any(axis=1)
        broken += (~rejected[is_defect]).mean() > 0.2 or rejected[~is_defect].mean() > 0.2
        assert (one.good, one.defects, one.tried) == (75, 75, 289)
        assert 1 <= one.held <= one.tried
        assert one.missed / one.defects < 0.2
        assert one.false_alarms / one.good < 0.2
    assert broken <= 3  # of 12 at a confidence of 95 %: more in 3 of 1,000 cases


def test_too_few_parts_give_none_and_the_same_seed_the_same_answer() -> None:
    scores, labels = drawn(100, 40, 1)
    assert control(scores, labels, max_missed=0.1, max_false_alarms=0.5) is None  # 20 defects test; 29 are needed
    once = control(scores, labels, max_missed=0.3, max_false_alarms=0.3)
    assert once is not None
    assert once == control(scores, labels, max_missed=0.3, max_false_alarms=0.3)


def test_a_failed_vote_is_an_error_on_either_side() -> None:
    scores, labels = drawn(100, 100, 2)
    scores["one"] = [float("nan")] * 100 + scores["one"][100:]  # no good part has a vote: all count as false alarms
    assert control(scores, labels, max_missed=0.3, max_false_alarms=0.3) is None


def test_the_policy_decides_as_the_thresholds_that_were_found() -> None:
    scores, labels = drawn(120, 120, 3)
    calibrations = {name: calibrate(values[:120], values[120:], split_hash="0" * 16) for name, values in scores.items()}
    parts = tuple(
        Part("cut" if defect else "good", {n: cast_vote(n, scores[n][i], calibrations[n]) for n in scores})
        for i, defect in enumerate(labels)
    )
    joint = Joint(parts, Price(dict.fromkeys(scores, 1.0), {}))
    made = controlled_policy(joint, max_missed=0.2, max_false_alarms=0.3)
    assert made is not None
    policy, held = made
    check_policy(policy, calibrations)
    found = tally(policy, joint)
    rejected = [any(scores[n][i] >= held.thresholds[n] for n in scores) for i in range(len(labels))]
    assert found.missed == sum(defect and not said for defect, said in zip(labels, rejected, strict=True))
    assert found.false_alarms == sum(said and not defect for defect, said in zip(labels, rejected, strict=True))
    assert "20 %" in policy.description["en"]


def test_of_many_members_the_three_that_rank_best_are_tuned() -> None:
    scores, labels = drawn(150, 150, 4)
    rng = np.random.default_rng(5)
    scores |= {f"noise {i}": rng.normal(size=300).tolist() for i in range(3)}
    found = control(scores, labels, max_missed=0.4, max_false_alarms=0.4)
    assert found is not None
    assert len(found.thresholds) == 3
    assert {"one", "two"} <= found.thresholds.keys()
