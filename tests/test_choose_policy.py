"""A policy chosen by cost: what is tuned, what it is judged on, and the way from runs to a release."""

import argparse
import json
import random
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from test_make_policies import Scores, at_random, held_out

from anomaly.calibration import Calibration, calibrate
from anomaly.costs import Costs, compare_jointly
from anomaly.emissions import EmissionsMeter
from anomaly.errors import DataError
from anomaly.policy import AtLeastRule, CascadeRule, Cut, Policy, Rule, Step, WeightedRule, check_policy, replay
from anomaly.policy_check import read_policy
from training import choose_policy, cross_validated
from training.cross_validated import FOLDS, folds, recast, refitted, within_reach
from training.decide_many import Table
from training.joint_votes import Joint
from training.policy_recipes import generated
from training.probability import fit_kind, fit_probability
from training.tune_policy import SUFFIX, candidates, decided, mean_cost, tuned

COSTS = Costs(miss=50, false_alarm=1, review=5, prevalence=0.05)


def with_probabilities(known: dict[str, Calibration], joint: Joint) -> tuple[dict[str, Calibration], Joint]:
    likely = {
        name: c.model_copy(update={"probability": fit_probability(c.good_scores, c.defect_scores)})
        for name, c in known.items()
    }
    return likely, recast(joint, likely)


def policy(name: str, rule: Rule | AtLeastRule | WeightedRule | CascadeRule, **more: object) -> Policy:
    return Policy.model_validate({"name": name, "description": {"en": name, "fr": name}, "rule": rule} | more)


def every_kind(names: tuple[str, ...], *, likely: bool) -> list[Policy]:
    found = [policy(kind, Rule(kind=kind, members=names, threshold="f1")) for kind in ("any", "all", "majority")]
    found.append(policy("two", AtLeastRule(kind="at_least", k=2, members=names, threshold="safe")))
    found.append(policy("one", Rule(kind="single", members=names[:1], threshold="youden")))
    first = Step(members=names[:1], accept=Cut(p_value=0.3), reject=Cut(threshold="far"))
    last = Step(members=names, combine="majority", accept=Cut(threshold="f1"), reject=Cut(threshold="f1"))
    found.append(policy("steps", CascadeRule(kind="cascade", steps=(first, last))))
    if likely:
        weights = {name: float(i + 1) for i, name in enumerate(names)}
        found.append(policy("mean", WeightedRule(kind="weighted", weights=weights, probability=0.5)))
    return found


# --- tuning ----------------------------------------------------------------------------------------------------------


def test_many_parts_are_decided_as_each_is_by_itself() -> None:
    rng = random.Random(0)
    compared = 0
    for _ in range(3):
        known, joint = with_probabilities(*at_random(rng))
        table = Table(joint.parts, joint.price)
        names = tuple(known)
        asked = generated(known, joint, "cable") + tuple(every_kind(names, likely=True) if len(names) > 1 else ())
        own = [p.for_category("cable") for p in asked]
        for each in [
            p if isinstance(p.rule, CascadeRule | WeightedRule) else tuned(p, joint, known, COSTS) for p in own
        ]:
            if each is None:
                continue
            verdicts, cost = table.decide(each)
            found = [replay(part.votes, each) for part in joint.parts]
            assert [("ok", "review", "defect")[v] for v in verdicts] == [decision.verdict for decision, _ in found]
            assert cost.tolist() == pytest.approx([joint.price.of(names) for _, names in found])
            compared += 1
    assert compared > 6


def test_a_tuned_policy_is_possible_and_never_dearer_on_the_parts_it_was_tuned_on() -> None:
    rng = random.Random(3)
    better = 0
    for turn in range(5):
        known, joint = at_random(rng)
        if turn % 2:
            known, joint = with_probabilities(known, joint)
        names = tuple(known)
        made = every_kind(names, likely=bool(turn % 2)) if len(names) > 1 else generated(known, joint, "cable")
        for each in (p.for_category("cable") for p in made):
            costs = COSTS.model_copy(update={"miss": rng.choice([1, 20, 500]), "review": rng.choice([0.1, 5.0])})
            found = tuned(each, joint, known, costs)
            if found is None:
                continue
            better += 1
            assert mean_cost(found, joint, costs) < mean_cost(each, joint, costs)
            check_policy(found, known, category="cable")
            assert Policy.model_validate_json(found.model_dump_json()) == found
            assert found.name == each.name + SUFFIX
            assert found.rule.members == each.rule.members
    assert better > 8


def test_the_dearer_a_miss_the_lower_the_cut() -> None:
    good, bad = {"m": [float(i) for i in range(30)]}, {"m": [20.0 + i for i in range(20)]}
    known, joint = held_out(good, bad)
    mid = policy("mid", Rule(kind="single", members=("m",), threshold="f1"))
    rates = []
    for miss in (0.01, 20, 10_000):
        costs = COSTS.model_copy(update={"miss": miss, "review": 1e6})
        found = decided([tuned(mid, joint, known, costs) or mid], joint)
        rejected = next(iter(found.verdicts.values())) == 2
        rates.append((int(rejected[~found.defect].sum()), int((~rejected[found.defect]).sum())))
    assert rates[0][0] <= rates[1][0] <= rates[2][0]
    assert rates[0][1] >= rates[1][1] >= rates[2][1]
    assert rates[0][0] == 0
    assert rates[2][1] == 0


def test_a_probability_reaches_beyond_the_highest_good_part() -> None:
    """No p-value can tell apart two cuts above every good part; a probability can."""
    good, bad = {"m": [float(i) for i in range(40)]}, {"m": [10.0, 11.0, 12.0, 60.0, 61.0, 62.0, 63.0, 64.0]}
    known, joint = held_out(good, bad)
    known = {"m": known["m"].model_copy(update={"probability": fit_kind("platt", good["m"], bad["m"])})}
    joint = recast(joint, known)
    table = Table(joint.parts, joint.price)
    rule = policy("p", CascadeRule(kind="cascade", steps=(Step(members=("m",), reject=Cut(p_value=0.5)),)))
    cuts = candidates(rule, (0, ("reject",)), table, known)
    assert len(cuts) <= 24
    strictest = max(cut.probability for cut in cuts if cut.probability is not None)
    assert table.reaches("m", Cut(probability=strictest)).sum() < table.reaches("m", Cut(p_value=1 / 41)).sum()


# --- folds -----------------------------------------------------------------------------------------------------------


def line(good: int, bad: int) -> tuple[dict[str, Calibration], Joint]:
    scores: Scores = {"m": [float(i) for i in range(good)]}
    return held_out(scores, {"m": [100.0 + i for i in range(bad)]})


def test_folds_hold_about_as_many_of_both_and_keep_a_group_together() -> None:
    _, joint = line(23, 12)
    fold = folds(joint)
    defect = np.array([part.is_defect for part in joint.parts])
    for side in (defect, ~defect):
        counts = np.bincount(fold[side], minlength=FOLDS)
        assert counts.max() - counts.min() <= 1
    parts = tuple(replace(part, group=str(i // 2)) for i, part in enumerate(joint.parts))
    fold = folds(replace(joint, parts=parts))
    for group in {part.group for part in parts}:
        assert len({fold[i] for i, part in enumerate(parts) if part.group == group}) == 1
    assert set(fold) == set(range(FOLDS))


def test_too_few_parts_are_told_with_their_counts() -> None:
    _, joint = line(30, 3)
    with pytest.raises(DataError, match=r"5 good parts and 5 defects .* there are 30 and 3: label more"):
        folds(joint)


def test_the_lowest_defect_of_a_fold_does_not_set_the_threshold_that_it_is_judged_by() -> None:
    """On all parts `safe` misses none, by construction; where the lowest is left out, the gap below it is unknown."""
    scores: Scores = {"m": [float(i) for i in range(0, 60, 2)]}
    known, joint = held_out(scores, {"m": [21.0, 51.0, 61.0, 70.0, 71.0, 72.0, 73.0, 74.0, 75.0, 76.0]})
    safe = next(p for p in generated(known, joint, "cable") if p.name == "SAFE_0FN")
    naive = decided([safe], joint).outcomes()["SAFE_0FN"]
    found = cross_validated.cross_validated([safe], known, joint, "cable")
    apart = found.outcomes()["SAFE_0FN"]
    assert naive.defects.ok == 0
    assert apart.defects.ok == 1
    assert apart.defects.total == 10
    lowest = [part.votes["m"].score for part in joint.parts].index(21.0)  # type: ignore[union-attr]
    assert found.verdicts["SAFE_0FN"][lowest] == 0
    tried = cross_validated.cross_validated([safe], known, joint, "cable", tune_for=COSTS)
    assert set(tried.verdicts) == {"SAFE_0FN", f"SAFE_0FN{SUFFIX}"}
    assert tried.verdicts[f"SAFE_0FN{SUFFIX}"][lowest] == 0


def test_a_fold_is_calibrated_by_the_others_alone() -> None:
    known, joint = line(30, 10)
    fold = folds(joint)
    seen = Joint(tuple(p for p, f in zip(joint.parts, fold, strict=True) if f != 2), joint.price)
    again = refitted(seen, known, probabilities=False)["m"]
    expected = [p.votes["m"].score for p in seen.good]  # type: ignore[union-attr]
    assert again == calibrate(
        expected,
        [p.votes["m"].score for p in seen.defects],  # type: ignore[union-attr]
        split_hash=known["m"].split_hash,
        far=0.05,
    )


def test_a_cut_above_every_good_part_can_still_fire_in_a_fold() -> None:
    known, joint = line(30, 10)
    strict = Step(members=("m",), reject=Cut(p_value=known["m"].smallest_p_value), accept=Cut(p_value=0.5))
    rule = policy("strict", CascadeRule(kind="cascade", steps=(strict,)))
    fewer = refitted(Joint(joint.parts[:20] + joint.parts[30:], joint.price), known, probabilities=False)
    assert known["m"].smallest_p_value < fewer["m"].smallest_p_value
    check_policy(within_reach(rule, fewer), fewer)
    assert cross_validated.cross_validated([rule], known, joint, "x").outcomes()["strict"].defects.defect > 0


def test_costs_move_the_winner_of_real_votes() -> None:
    known, joint = at_random(random.Random(12))
    policies = [p for p in generated(known, joint, "cable") if p.name in ("SAFE_0FN", "PRECISION", "MAJORITY")]
    found = cross_validated.cross_validated(policies, known, joint, "cable")
    dear_miss = compare_jointly(found, COSTS.model_copy(update={"miss": 1e5}))
    dear_alarm = compare_jointly(found, COSTS.model_copy(update={"miss": 0.1, "false_alarm": 100}))
    rows = dear_miss.policies
    assert rows[dear_miss.winner].missed == min(row.missed for row in rows.values())
    assert rows[dear_alarm.winner].false_alarms == min(row.false_alarms for row in rows.values())
    assert dear_miss.winner != dear_alarm.winner


# --- the command -----------------------------------------------------------------------------------------------------

FLAGS = {"--cost-miss": "50", "--cost-false-alarm": "1", "--cost-review": "5", "--prevalence": "0.02"}


def arguments(**changes: str) -> list[str]:
    named = FLAGS | {"--" + key.replace("_", "-"): value for key, value in changes.items()}
    return [text for pair in named.items() for text in pair]


@pytest.mark.parametrize(
    ("flag", "value", "wanted"),
    [
        ("cost_miss", "-1", "0 or more"),
        ("cost_review", "nan", "0 or more"),
        ("prevalence", "0", "between 0 and 1"),
        ("prevalence", "1.5", "between 0 and 1"),
        ("carbon_price", "inf", "0 or more"),
    ],
)
def test_a_wrong_cost_is_one_line_that_names_its_flag(
    flag: str, value: str, wanted: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = arguments(**{flag: value})
    pairs = [f"{key}={text}" for key, text in zip(given[::2], given[1::2], strict=True)]  # or -1 reads as a flag
    assert choose_policy.main([str(tmp_path), *pairs]) == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert f"--{flag.replace('_', '-')} {float(value):g}: it has to be" in said
    assert wanted in said


def test_a_choice_is_written_with_its_winner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the votes on; `test_make_policies` covers how they are asked for."""
    known, joint = with_probabilities(*at_random(random.Random(5)))
    inspector = SimpleNamespace(
        file=SimpleNamespace(category="cable", policies=()),
        members={name: SimpleNamespace(calibration=c) for name, c in known.items()},
        meter=EmissionsMeter("FRA"),
    )
    sources = SimpleNamespace(inspector=inspector, joint=joint, of_runs=True, tested=lambda _: joint)
    monkeypatch.setattr(choose_policy, "read_sources", lambda *_: sources)
    monkeypatch.setattr(choose_policy, "grid_of", lambda _: 56.0)
    parsed = choose_policy._parser().parse_args(["RUN", *arguments(carbon_price="100"), "--out", str(tmp_path)])
    choice = choose_policy.choose(parsed)
    written = json.loads((tmp_path / "choice.json").read_text())
    assert set(written) >= {"costs", "policies", "winner", "runner_up", "difference", "test"}
    assert written["costs"]["carbon_price"] == 100
    assert choice.bootstrap == "parts"
    assert choice.test is not None
    assert choice.test.not_used_to_choose
    assert set(choice.test.policies) == set(choice.policies)
    for name, row in choice.policies.items():
        assert row.tuned_from == (name.removesuffix(SUFFIX) if name.endswith(SUFFIX) else None)
        assert row.low <= row.high
        assert row.cautious >= row.cost
    assert choice.winner == min(choice.policies, key=lambda name: choice.policies[name].cost)
    made = list(tmp_path.glob("*_TUNED.json"))
    assert [path.stem for path in made] == ([choice.winner] if choice.winner.endswith(SUFFIX) else [])
    for path in made:
        check_policy(read_policy(path), known)
    printed = capsys.readouterr().out
    assert f"{choice.winner} costs least" in printed
    assert "not used to choose" in printed


def test_without_the_calibration_pictures_nothing_is_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = SimpleNamespace(inspector=None, joint=None, of_runs=False)
    monkeypatch.setattr(choose_policy, "read_sources", lambda *_: sources)
    args: argparse.Namespace = choose_policy._parser().parse_args(["INSPECTOR", *arguments()])
    with pytest.raises(DataError, match=r"released with its votes\.json"):
        choose_policy.choose(args)
