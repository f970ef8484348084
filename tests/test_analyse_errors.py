"""Errors: counted by hand-made decisions, and exceptions judged on pictures that they were not chosen on."""

import dataclasses
import json
from pathlib import Path

import pytest
from levels import MEMBERS, inspector_of, tiny_scored

from anomaly.evaluation import Scored
from anomaly.policy import Failure, Policy, Rule, Vote
from training import analyse_errors
from training.analyse_errors import ErrorsFile, analyse, render, worst
from training.exception_trials import halves, trials


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Scored:
    """9 good, 6 bent, 4 cut."""
    return tiny_scored(tmp_path_factory.mktemp("errors"))


def decided(scored: Scored, **alarms: set[str]) -> Scored:
    """The same pictures, where each of these members votes for a defect on these pictures, and no other member does."""
    rows = []
    for row in scored.rows:
        ballots = dict(row.ballots)
        for name, ballot in ballots.items():
            calibration = scored.inspector.members[name].calibration
            score = 1e6 if row.sample.relative in alarms.get(name, set()) else calibration.good_scores[0] - 1e6
            thresholds = {key: threshold.value for key, threshold in calibration.thresholds.items()}
            shares = ballot.class_shares and {"good": 0.2, "bent": 0.8 if score == 1e6 else 0.0, "cut": 0.0}
            vote = Vote(name, score, calibration.p_value(score), thresholds, class_shares=shares)
            ballots[name] = dataclasses.replace(ballot, vote=vote, class_shares=shares)
        rows.append(dataclasses.replace(row, ballots=ballots))
    return dataclasses.replace(scored, rows=tuple(rows))


def of(scored: Scored, label: str) -> list[str]:
    return [row.sample.relative for row in scored.rows if row.sample.label == label]


def test_misses_and_false_alarms_are_counted_by_type_member_and_policy(scored: Scored) -> None:
    good, bent, cut = (of(scored, label) for label in ("good", "bent", "cut"))
    found = analyse(decided(scored, patch_knn={*good[:2], *bent[:5], *cut}), data="waves", pictures="all")
    knn = found.members["patch_knn"]
    assert [(label, t.n, t.wrong) for label, t in knn.items()] == [("good", 9, 2), ("bent", 6, 1), ("cut", 4, 0)]
    assert [t.wrong for t in found.members["autoencoder"].values()] == [0, 6, 4]
    assert {label: t.wrong for label, t in found.policies["any"].items()} == {"good": 2, "bent": 1, "cut": 0}
    assert {(e.path, e.kind) for e in found.errors["any"]} == {
        (good[0], "false alarm"),
        (good[1], "false alarm"),
        (bent[5], "miss"),
    }
    assert found.errors["any"][0].margins.keys() == set(MEMBERS)
    assert [t.wrong for t in found.policies["majority"].values()] == [0, 6, 4]


def test_a_member_without_a_vote_is_counted_apart(scored: Scored) -> None:
    row = scored.rows[0]
    ballot = dataclasses.replace(row.ballots["patch_knn"], vote=Failure("patch_knn", "it crashed"))
    broken = dataclasses.replace(row, ballots={**row.ballots, "patch_knn": ballot})
    found = analyse(dataclasses.replace(scored, rows=(broken, *scored.rows[1:])), data="waves", pictures="all")
    assert found.members["patch_knn"]["good"].failed == 1
    error = next(error for error in found.errors["any"] if error.path == row.sample.relative)
    assert (error.kind, error.margins["patch_knn"]) == ("review", None)


def test_halves_share_no_picture_and_divide_every_label(scored: Scored) -> None:
    first, second = ({row.sample.relative for row in half} for half in halves(scored.rows))
    assert not first & second
    assert len(first | second) == 19
    labels = [[row.sample.label for row in half].count("cut") for half in halves(scored.rows)]
    assert labels == [2, 2]
    assert halves(scored.rows[::-1]) == halves(scored.rows)


def test_a_discount_is_found_against_lone_false_alarms_and_judged_on_the_other_half(scored: Scored) -> None:
    good, defects = of(scored, "good"), {*of(scored, "bent"), *of(scored, "cut")}
    hand_made = decided(scored, patch_knn={*good, *defects}, mahalanobis_global=defects)
    policy = hand_made.inspector.policies["any"]
    found = next(t for t in trials(hand_made.inspector, policy, hand_made.rows) if t.exception.discount is not None)
    assert found.exception.discount is not None
    assert found.exception.discount.member == "patch_knn"
    assert found.words.startswith("a vote of patch_knn counts as")
    first, second = halves(hand_made.rows)
    assert found.chosen_on.good + found.chosen_on.defects == len(first)
    assert found.judged_on.good + found.judged_on.defects == len(second)
    assert found.judged_on.mended_false_alarms == found.judged_on.good
    assert found.judged_on.new_misses == 0


def test_a_type_head_is_found_against_misses_and_its_price_is_said(scored: Scored) -> None:
    """The head names every bent part, and one good part: that is the price."""
    good, bent = of(scored, "good"), of(scored, "bent")
    hand_made = decided(scored, baseline_cnn={good[0], *bent})
    rule = Rule(kind="any", members=("patch_knn",), threshold="far")
    policy = Policy(name="lone", description={}, rule=rule)
    found = trials(hand_made.inspector, policy, hand_made.rows)
    both = [t for t in found if t.exception.verdict == "defect"]
    assert both
    assert {t.exception.defect_type.name for t in both if t.exception.defect_type} == {"bent"}
    for trial in both:
        assert trial.chosen_on.mended_misses == trial.judged_on.mended_misses == 3
        assert trial.chosen_on.new_false_alarms + trial.judged_on.new_false_alarms == 1


def test_the_page_shows_what_the_default_policy_gets_wrong(scored: Scored) -> None:
    good, bent = of(scored, "good"), of(scored, "bent")
    hand_made = decided(scored, **{name: {good[0], *bent} for name in MEMBERS})
    found = analyse(hand_made, data="<b>waves</b>", pictures="all")
    shown = worst(hand_made, found, found.default_policy)
    assert [case.rank for case in shown] == ["miss"] * 4 + ["false alarm"]
    page = render(found, shown, found.default_policy)
    assert page.count("data:image/jpeg;base64,") == 5 * (1 + len(MEMBERS)) - 5 * sum(
        scored.inspector.members[name].calibration.heatmap is None for name in MEMBERS
    )
    assert "<b>waves</b>" not in page
    assert "http" not in page


def test_the_command_writes_both_files(
    scored: Scored, tmp_path: Path, capsys: pytest.CaptureFixture[str], inspector_folder: Path, cables: Path
) -> None:
    assert scored.inspector.members.keys() == inspector_of().members.keys()
    words = [str(inspector_folder), "--data", str(cables), "--out", str(tmp_path / "out")]
    assert analyse_errors.main(words) == 0
    assert "wrong or in review" in capsys.readouterr().out
    found = ErrorsFile.model_validate_json((tmp_path / "out/errors.json").read_bytes())
    assert found.policies.keys() == {"majority", "any_alarm"}
    assert json.loads((tmp_path / "out/errors.json").read_text())["category"] == "cable"
    assert "<h1>What goes wrong: cable</h1>" in (tmp_path / "out/errors.html").read_text()
    assert analyse_errors.main([str(tmp_path / "nowhere"), "--data", str(cables), "--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--policy", "NOPE"], "unknown policy 'NOPE'"),
        (["--manifest", "nowhere.json"], "nowhere.json is no file: give the manifest.json of a run"),
        (["--revision", "v9"], "no revision 'v9'"),
    ],
)
def test_a_wrong_input_is_one_line_that_says_what_to_give(
    more: list[str],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    inspector_folder: Path,
    cables: Path,
) -> None:
    words = [str(inspector_folder), "--data", str(cables), "--out", str(tmp_path / "out"), *more]
    assert analyse_errors.main(words) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert said in error
    assert error.count("\n") == 1


def test_an_exception_that_does_the_same_as_another_is_not_shown_twice(scored: Scored) -> None:
    good, defects = of(scored, "good"), {*of(scored, "bent"), *of(scored, "cut")}
    hand_made = decided(scored, patch_knn={*good, *defects}, mahalanobis_global=defects)
    found = trials(hand_made.inspector, hand_made.inspector.policies["any"], hand_made.rows)
    about = [(t.exception.discount and t.exception.discount.member, t.chosen_on) for t in found]
    assert len(set(about)) == len(about)
