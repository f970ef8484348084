"""GREEN: what it may let pass, and from how many held-out defects on."""

import random

import pytest

from anomaly.calibration import Calibration, calibrate
from anomaly.policy import CascadeRule, Policy, Verdict, cast_vote, replay
from training.green import ENOUGH
from training.joint_votes import Joint, Part, Price, tally
from training.policy_recipes import generated

POWER = {"cheap": 2.0, "middling": 2.5, "dear": 3.5}
COST = {"cheap": 1.0, "middling": 5.0, "dear": 20.0}
Scores = list[tuple[str, dict[str, float]]]


def drawn(rng: random.Random, good: int, defects: int) -> Scores:
    """Parts whose difficulty the members share."""
    found: Scores = []
    for label in ["good"] * good + ["cut"] * defects:
        hard = rng.gauss(0, 1)
        found.append(
            (label, {n: hard + rng.gauss(0, 0.7) + (power if label == "cut" else 0) for n, power in POWER.items()})
        )
    return found


def parts(scores: Scores, calibrations: dict[str, Calibration]) -> Joint:
    made = [Part(label, {n: cast_vote(n, s, calibrations[n]) for n, s in said.items()}) for label, said in scores]
    return Joint(tuple(made), Price(COST, {}))


def made(scores: Scores) -> tuple[Policy, Policy, dict[str, Calibration]]:
    """SAFE_0FN, GREEN and the calibrations."""
    calibrations = {
        name: calibrate(
            [said[name] for label, said in scores if label == "good"],
            [said[name] for label, said in scores if label != "good"],
            split_hash="0" * 16,
        )
        for name in POWER
    }
    found = {policy.name: policy for policy in generated(calibrations, parts(scores, calibrations), "cable")}
    return found["SAFE_0FN"], found["GREEN"], calibrations


def said(policy: Policy, joint: Joint) -> list[Verdict]:
    return [replay(part.votes, policy)[0].verdict for part in joint.parts]


@pytest.mark.parametrize("defects", [3, 12, ENOUGH - 1])
def test_with_few_defects_it_never_passes_what_the_safe_policy_rejects(defects: int) -> None:
    """On any later part, by the order of its steps: ok comes only after all of them."""
    for seed in range(4):
        rng = random.Random(seed)
        safe, green, calibrations = made(drawn(rng, 60, defects))
        assert isinstance(green.rule, CascadeRule)
        assert all(step.accept is None for step in green.rule.steps[:-1])
        assert green.rule.steps[-1].members == safe.rule.members
        later = parts(drawn(rng, 300, 300), calibrations)
        assert not any(a == "defect" and b == "ok" for a, b in zip(said(safe, later), said(green, later), strict=True))
        assert tally(green, later).cost <= tally(safe, later).cost


def test_with_enough_it_passes_no_held_out_part_that_the_safe_policy_rejects_and_saves() -> None:
    saved = []
    for seed in range(4):
        scores = drawn(random.Random(seed), 120, 2 * ENOUGH)
        safe, green, calibrations = made(scores)
        joint = parts(scores, calibrations)
        assert not any(a == "defect" and b == "ok" for a, b in zip(said(safe, joint), said(green, joint), strict=True))
        assert tally(green, joint).false_alarms <= tally(safe, joint).false_alarms
        saved.append(tally(green, joint).cost < 0.9 * tally(safe, joint).cost)
    assert any(saved)


def test_enough_is_where_none_missed_supports_five_percent() -> None:
    assert 0.95**ENOUGH <= 0.05 < 0.95 ** (ENOUGH - 1)
