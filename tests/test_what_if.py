"""What would have been decided: the same as `next_step`, from the votes at hand, and never a guess."""

import math
import re
from pathlib import Path

import pytest
from browser_page import Open, choose, inspect, upload
from conftest import RunningApp
from playwright.sync_api import expect
from reports import make_report, make_vote

from anomaly.calibration import Calibration, calibrate
from anomaly.policy import AtLeastRule, CascadeRule, Cut, Failure, Policy, Rule, Step, Vote, cast_vote, replay
from anomaly.what_if import lines, votes_of, what_if

KNOWN: Calibration = calibrate(
    [index / 20 for index in range(20)], [1.5, 1.6, 1.7, 1.8, 1.9], split_hash="0" * 16, far=0.1
)
CALIBRATIONS = dict.fromkeys(("a", "b", "c"), KNOWN)
TEXT = {"en": "x", "fr": "x"}
MAJORITY = Policy(
    name="majority", description=TEXT, rule=Rule(kind="majority", members=("a", "b", "c"), threshold="f1")
)
CASCADE = Policy(
    name="cascade",
    description=TEXT,
    rule=CascadeRule(
        kind="cascade",
        steps=(
            Step(members=("a",), accept=Cut(p_value=0.5), reject=Cut(threshold="f1")),
            Step(members=("b", "c"), combine="all", accept=Cut(threshold="f1"), reject=Cut(threshold="f1")),
        ),
    ),
)


def cast(**scores: float) -> dict[str, Vote | Failure]:
    return {name: cast_vote(name, score, CALIBRATIONS[name]) for name, score in scores.items()}


@pytest.mark.parametrize("policy", [MAJORITY, CASCADE])
@pytest.mark.parametrize("a", [0.1, 0.9, 2.0])
@pytest.mark.parametrize("b", [0.1, 2.0])
def test_nothing_moved_is_what_the_policy_decides(policy: Policy, a: float, b: float) -> None:
    votes = cast(a=a, b=b, c=2.0)
    found = what_if(votes, policy, CALIBRATIONS)
    decision, asked = replay(votes, policy)
    assert found.decision == decision
    assert found.explanation is not None
    assert found.explanation.unasked == tuple(name for name in policy.members if name not in asked)


def test_votes_come_out_of_a_report_with_their_failures() -> None:
    rows = (make_vote("a", score=0.9, class_shares={"cut": 0.7}), make_vote("b", score=None, error="it crashed"))
    votes = votes_of(make_report(votes=rows), CALIBRATIONS)
    assert votes == {"a": cast_vote("a", 0.9, KNOWN, {"cut": 0.7}), "b": Failure("b", "it crashed")}


def test_a_line_that_is_moved_below_two_scores_makes_a_defect_of_a_good_part() -> None:
    votes = cast(a=1.0, b=1.0, c=0.1)
    line = lines(votes, MAJORITY, CALIBRATIONS)[0]
    assert line.value == KNOWN.thresholds["f1"].value > 1.0
    assert what_if(votes, MAJORITY, CALIBRATIONS).decision.verdict == "ok"  # type: ignore[union-attr]
    one = what_if(votes, MAJORITY, CALIBRATIONS, {"a": 0.9 - line.value})
    both = what_if(votes, MAJORITY, CALIBRATIONS, dict.fromkeys(("a", "b"), 0.9 - line.value))
    assert one.decision is not None
    assert both.decision is not None
    assert (one.decision.verdict, both.decision.verdict) == ("ok", "defect")
    assert both.decision.verdicts == {"a": "defect", "b": "defect", "c": "ok"}


def test_a_score_at_the_moved_line_is_a_defect_and_one_right_below_is_not() -> None:
    """As with a calibrated line; a power of two, so that the sums are exact."""
    policy = Policy(name="one", description=TEXT, rule=Rule(kind="single", members=("a",), threshold="f1"))
    line = KNOWN.thresholds["f1"].value
    for score, verdict in ((line + 0.25, "defect"), (math.nextafter(line + 0.25, 0), "ok")):
        found = what_if(cast(a=score), policy, CALIBRATIONS, {"a": 0.25})
        assert found.decision is not None
        assert found.decision.verdict == verdict


def test_scores_in_the_explanation_are_those_of_the_picture() -> None:
    votes = cast(a=2.0, b=2.0, c=0.1)
    line = KNOWN.thresholds["f1"].value
    found = what_if(votes, MAJORITY, CALIBRATIONS, {"a": 0.5})
    assert found.explanation is not None
    reading = found.explanation.readings[0]
    assert (reading.member, reading.cut) == ("a", "f1 (+0.5)")
    assert reading.distance == pytest.approx(2.0 - (line + 0.5))
    flip = found.explanation.flip
    assert flip is not None
    assert flip.member == "a"  # the nearer one, now that its line has moved
    assert flip.score == pytest.approx(line + 0.5)
    assert flip.score == pytest.approx(2.0 + flip.distance)


def test_all_lines_of_a_member_of_a_cascade_move_together() -> None:
    votes = cast(a=0.55)  # unsure: above p 0.5, below f1
    assert what_if(votes, CASCADE, CALIBRATIONS).needs == ("b", "c")
    accepted = what_if(votes, CASCADE, CALIBRATIONS, {"a": 0.5})
    rejected = what_if(votes, CASCADE, CALIBRATIONS, {"a": 0.5 - KNOWN.thresholds["f1"].value})
    assert accepted.decision is not None
    assert rejected.decision is not None
    assert (accepted.decision.verdict, rejected.decision.verdict) == ("ok", "defect")


def test_a_member_that_was_not_asked_is_asked_for_and_not_guessed() -> None:
    found = what_if(cast(a=0.1), MAJORITY, CALIBRATIONS)
    assert (found.decision, found.explanation, found.needs) == (None, None, ("b", "c"))


def test_a_cascade_that_stops_before_needs_no_vote_of_those_after() -> None:
    found = what_if(cast(a=0.1), CASCADE, CALIBRATIONS)
    assert found.decision is not None
    assert found.decision.verdict == "ok"
    assert found.explanation is not None
    assert found.explanation.unasked == ("b", "c")


def test_an_advisory_member_without_a_vote_is_no_reason_to_inspect_again() -> None:
    policy = MAJORITY.model_copy(
        update={"rule": Rule(kind="single", members=("a",), threshold="f1"), "advisory": ("b",)}
    )
    found = what_if(cast(a=2.0), policy, CALIBRATIONS)
    assert found.decision is not None
    assert found.decision.verdict == "defect"


def test_a_failure_stays_one_wherever_its_line_is() -> None:
    policy = MAJORITY.model_copy(update={"required": ("b",)})
    votes = cast(a=2.0, c=2.0) | {"b": Failure("b", "it crashed")}
    assert [line.member for line in lines(votes, policy, CALIBRATIONS)] == ["a", "c"]
    found = what_if(votes, policy, CALIBRATIONS, {"b": -9.0})
    assert found.decision is not None
    assert found.decision.verdict == "review"


def test_a_line_starts_at_the_calibrated_place_and_reaches_every_known_score() -> None:
    line = lines(cast(a=37.5, b=0.1, c=0.1), MAJORITY, CALIBRATIONS)[0]
    assert line.low < 0 < line.place < 37.5 < line.high
    assert line.moved_to(line.place) == line.moved_to(None) == line.moved_to(math.nan) == 0.0
    assert line.moved_to(line.place + line.step) == pytest.approx(line.place + line.step - line.value)
    assert (line.high - line.low) / line.step >= 1000
    assert len(str(line.place)) < 8
    assert line.place == pytest.approx(round(line.place / line.step) * line.step)


@pytest.mark.parametrize(
    ("policy", "cut"),
    [
        (MAJORITY, "f1"),
        (CASCADE, "f1"),
        (
            MAJORITY.model_copy(update={"rule": AtLeastRule(kind="at_least", k=1, members=("a",), threshold="safe")}),
            "safe",
        ),
        (
            CASCADE.model_copy(
                update={"rule": CascadeRule(kind="cascade", steps=(Step(members=("a",), reject=Cut(p_value=0.2)),))}
            ),
            "p ≤ 0.2",
        ),
        (
            CASCADE.model_copy(
                update={"rule": CascadeRule(kind="cascade", steps=(Step(members=("a",), reject=Cut(p_value=0.001)),))}
            ),
            "far",  # no score reaches the cut
        ),
    ],
)
def test_the_line_of_a_member_is_the_one_its_policy_asks_first(policy: Policy, cut: str) -> None:
    line = lines(cast(a=0.1, b=0.1, c=0.1), policy, CALIBRATIONS)[0]
    assert (line.member, line.cut) == ("a", cut)


# in Chromium


@pytest.mark.browser
def test_lines_and_policy_are_moved_without_another_inspection(open_page: Open, pictures: Path) -> None:
    page = open_page()
    upload(page, pictures / "missing.png")
    inspect(page)
    before = [page.locator(name).inner_text() for name in ("#verdict", "#votes", "#emissions")]
    page.locator("#what-if button").first.click()
    lead = page.locator("#what-if-answer .lead")
    expect(lead).to_contain_text("Nothing is changed yet")
    sliders = page.locator(".what-if-line input[type=range]:visible")
    decided = page.locator("#what-if-answer .real strong").inner_text()
    for end in ("min", "max"):  # below every line all are defects, above every line none is
        for index in range(sliders.count()):
            sliders.nth(index).fill(sliders.nth(index).get_attribute(end) or "")
        expected = "DEFECT" if end == "min" else re.compile("OK|REVIEW")
        expect(page.locator("#what-if-answer .hypothetical strong")).to_have_text(expected)
    expect(page.locator("#what-if-answer .real strong")).to_have_text(decided)
    assert [page.locator(name).inner_text() for name in ("#verdict", "#votes", "#emissions")] == before
    page.locator("#language label", has_text="Français").click()
    expect(page.locator("#what-if-answer")).to_contain_text("Hypothétique")
    page.locator("#what-if-reset").click()
    expect(lead).to_contain_text("Rien n'est encore changé")


@pytest.mark.browser
def test_a_link_leads_to_what_it_names_and_says_what_there_is_not(open_page: Open, app: RunningApp) -> None:
    page = open_page()
    choose(page, "#revision", "v1")
    page.locator("#link-copy").click()
    link = page.locator("#link-shown").locator("input, textarea")
    expect(link).to_have_value(re.compile(r"^http.*[?]inspector=.*&revision=[0-9a-f]{40}&policy="))
    page.goto(link.input_value())
    expect(page.locator("#inspect")).to_be_enabled()
    commit = re.findall("revision=([0-9a-f]{40})", page.url)[0]
    expect(page.locator("#revision input")).to_have_value(re.compile(commit[:7]))
    expect(page.locator("#link-notes")).to_be_hidden()

    page.goto(f"{app.url}?revision=%3Cimg src=x onerror=alert(1)%3E&policy=%3Cb%3Elenient")
    expect(page.locator("#link-notes")).to_contain_text("asks for the policy “<b>lenient”")
    expect(page.locator("#link-notes")).to_contain_text("the revision “<img src=x onerror=alert(1)>”")
    expect(page.locator("#link-notes img")).to_have_count(0)
    expect(page.locator("#revision input")).to_have_value(re.compile("^v2"))
    expect(page.locator("#inspect")).to_be_enabled()
