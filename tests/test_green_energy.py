"""The benchmark of GREEN: what it measures on real inspections, and when the claim holds."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from levels import inspector_of, write_pictures

from anomaly.errors import DataError
from anomaly.inspector import Inspector
from anomaly.policy import CascadeRule, Cut, Policy, Rule, Step
from benchmarks.green_energy import COSTS, full_vote, measure, ratio, table, verdict

NAMES = ("autoencoder", "mahalanobis_global", "patch_knn")
LINE = Cut(threshold="far")


def of(*policies: Policy) -> Inspector:
    found = inspector_of(*NAMES)
    found.policies = {policy.name: policy for policy in policies}
    return found


def policy(name: str, rule: Rule | CascadeRule, advisory: tuple[str, ...] = ()) -> Policy:
    return Policy(name=name, description={}, rule=rule, advisory=advisory)


def alone(member: str) -> CascadeRule:
    return CascadeRule(kind="cascade", steps=(Step(members=(member,), accept=LINE, reject=LINE),))


SAFE = policy("SAFE_0FN", Rule(kind="any", members=NAMES, threshold="far"))
MAJORITY = policy("MAJORITY", Rule(kind="majority", members=NAMES[:1], threshold="far"), advisory=NAMES[1:])


def row(**changed: Any) -> dict[str, Any]:
    given = {
        "ratios": {"energy_mj": {"value": 0.4, "low": 0.3, "high": 0.49}},
        "missed_by_green_only": 0,
        "missed_by_safe_only": 0,
        "held_out_defects": 80,
        "members_asked": {"one": 1.0, "two": 0.5},
    }
    return given | changed


def test_every_picture_is_scored_and_really_inspected_both_ways(tmp_path: Path) -> None:
    samples = write_pictures(tmp_path)
    found = measure(of(SAFE, MAJORITY, policy("GREEN", alone("patch_knn"))), samples, repeats=2, most=10)
    assert (found["good"], found["defects"], found["inspected"], found["full_vote"]) == (9, 10, 10, "MAJORITY")
    assert found["members_asked"] == {"autoencoder": 0, "mahalanobis_global": 0, "patch_knn": 1}
    (step,) = found["steps"]
    assert (step["decides_good"], step["decides_defects"]) == (9, 10)
    assert found["recall"]["SAFE_0FN"]["count"] - found["recall"]["GREEN"]["count"] == found["missed_by_green_only"]
    for cost in COSTS:
        assert found["ratios"][cost]["low"] <= found["ratios"][cost]["value"] <= found["ratios"][cost]["high"]
    assert found["ratios"]["cpu_ms"]["value"] < 1  # of a busy machine the wall time says little
    said = table({"inspectors": [found], "hardware": "a processor"})
    assert found["verdict"] in said
    assert "step 1 asks patch_knn (ok below at far, defect at far) and decides 100%" in said


def test_without_labelled_defects_it_is_said_that_there_is_no_green(tmp_path: Path) -> None:
    found = measure(of(MAJORITY), write_pictures(tmp_path))
    assert found["verdict"].startswith("does not hold: no GREEN and no SAFE_0FN, as ")
    assert found["verdict"] in table({"inspectors": [found], "hardware": "a processor"})


def test_the_full_vote_asks_everybody() -> None:
    assert full_vote(of(SAFE, MAJORITY)).name == "MAJORITY"
    assert full_vote(of(SAFE)).name == "SAFE_0FN"
    with pytest.raises(DataError, match="no policy asks all of"):
        full_vote(of(policy("MAJORITY", Rule(kind="any", members=NAMES[:2], threshold="far"))))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, "holds"),
        ({"missed_by_safe_only": 1}, "holds"),
        ({"missed_by_green_only": 2, "missed_by_safe_only": 1}, "recall below SAFE_0FN's: 2 missed by GREEN alone, 1"),
        (
            {"ratios": {"energy_mj": {"value": 0.6, "low": 0.5, "high": 0.7}}},
            "energy 60% of the full vote, as it has to ask 1.5 of 2",
        ),
        (
            {"ratios": {"energy_mj": {"value": 0.6, "low": 0.5, "high": 0.7}}, "held_out_defects": 4},
            "energy 60% of the full vote, as with 4 held-out defects",
        ),
        ({"ratios": {"energy_mj": {"value": 0.48, "low": 0.4, "high": 0.6}}}, "its interval reaches 60%"),
    ],
)
def test_the_claim_is_judged_by_the_interval_and_by_the_misses(changed: dict[str, Any], said: str) -> None:
    assert said in verdict(row(**changed))
    assert verdict(row(**changed)).startswith("holds" if said == "holds" else "does not hold")


def test_the_interval_of_the_ratio_keeps_pairs_together() -> None:
    """Pictures differ a hundredfold, the two ways by exactly a half: so does every draw of pictures."""
    full = np.geomspace(1, 100, 40)
    found = ratio(np.column_stack([full / 2, full]), np.arange(40) < 10, np.random.default_rng(0))
    assert (found.low, found.value, found.high) == pytest.approx((0.5, 0.5, 0.5))
