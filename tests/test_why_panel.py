"""Why a decision, on the page: what fired, who agreed, how far, what was not asked, and what a threshold promises."""

import pytest
from reports import make_report, make_vote

from anomaly.calibration import Calibration, calibrate
from anomaly.explain import explain
from anomaly.guarantees import guarantee
from anomaly.panels import votes_html
from anomaly.policy import CascadeRule, Cut, Policy, PolicyException, Rule, Step, WeightedRule, cast_vote, next_step
from anomaly.report import Report
from anomaly.rules import AnyRule, Discount
from anomaly.texts import LANGUAGES, Language
from anomaly.votes import Decision, Failure, Vote
from anomaly.why_panel import promises_html, why_html

NAMES = ("a", "b", "c")
ONE = calibrate([float(score) for score in range(40)], [50.0 + score for score in range(12)], split_hash="0", far=0.05)
CALIBRATIONS: dict[str, Calibration] = dict.fromkeys(NAMES, ONE)


def policy(rule: AnyRule, exceptions: tuple[PolicyException, ...] = (), advisory: tuple[str, ...] = ()) -> Policy:
    return Policy(
        name="p", description={"en": "x", "fr": "x"}, rule=rule, exceptions=exceptions, advisory=advisory, required=()
    )


def reported(rule: Policy, **scores: float | None) -> Report:
    """What a policy makes of these scores; None: the member failed."""
    votes: dict[str, Vote | Failure] = {}
    while not isinstance(step := next_step(votes, rule), Decision):
        for name in step.members:
            score = scores[name]
            votes[name] = Failure(name, "it crashed") if score is None else cast_vote(name, score, ONE)
    rows = tuple(
        make_vote(name, score=scores[name], threshold=ONE.thresholds["f1"].value, counted=name in rule.members)
        for name in votes
    )
    why = explain(votes, rule, step, CALIBRATIONS)
    return make_report(decision=step.verdict, reason=step.reason, explanation=why, votes=rows)


CASCADE = policy(
    CascadeRule(
        kind="cascade",
        steps=(
            Step(members=("a",), accept=Cut(p_value=0.3), reject=Cut(threshold="far")),
            Step(members=("b", "c"), accept=Cut(threshold="f1"), reject=Cut(threshold="f1")),
        ),
    )
)
ANY_F1 = policy(Rule(kind="any", members=("a", "b"), threshold="f1"), advisory=("c",))


def test_a_cascade_says_which_step_decided_and_whom_it_did_not_ask() -> None:
    report = reported(CASCADE, a=60.0)
    html = why_html(report, "en")
    assert "<dd>step 1 of the cascade <code>rule.steps[0]</code></dd>" in html
    assert "<dt>Agree with it</dt><dd><b>a</b></dd>" in html
    assert "<dt>Not asked: the cascade stopped before</dt><dd><b>b</b>, <b>c</b></dd>" in html
    assert "l&#39;étape 1 de la cascade" in why_html(report, "fr")
    assert report.explanation is not None
    assert report.explanation.sentences["en"][-1] == "Not asked, for the cascade stopped before: b, c."


def test_not_asked_not_counted_and_failed_are_told_apart() -> None:
    cascade = votes_html(reported(CASCADE, a=60.0), CALIBRATIONS, "en")
    assert cascade.count("chip unasked") == 2
    assert cascade.count("the cascade stopped before") == 2
    counted = votes_html(reported(ANY_F1, a=60.0, b=None, c=1.0), CALIBRATIONS, "en")
    assert "chip unasked" not in counted
    assert counted.count("chip failed") == 1
    assert counted.count("shown, not counted by this policy") == 1


def test_a_member_that_is_no_part_of_the_policy_is_named() -> None:
    alone = policy(Rule(kind="single", members=("a",), threshold="safe"))
    assert "Not part of this policy: b, c." in votes_html(reported(alone, a=1.0), CALIBRATIONS, "en")


def test_the_distance_of_each_counted_vote_and_what_would_have_changed_it() -> None:
    report = reported(ANY_F1, a=60.0, b=40.5, c=1.0)
    html = why_html(report, "en")
    least = ONE.thresholds["f1"].value
    assert f"<b>a</b> {60 - least:.1f} above f1" in html
    assert "<b>b</b>" in html
    assert "<li><b>c</b>" not in html
    assert "it would have been ok" in html
    assert "au-dessus de f1" in why_html(report, "fr")


def test_a_discounted_vote_is_told_on_its_row_and_in_the_reasons() -> None:
    lone = PolicyException(
        category="cable", discount=Discount(member="a", others=("b",), below=Cut(threshold="f1"), verdict="review")
    )
    rule = policy(Rule(kind="any", members=("a", "b"), threshold="f1"), (lone,))
    report = reported(rule, a=60.0, b=1.0)
    assert report.decision == "review"
    assert "<dt>Counted less, by an exception</dt><dd><b>a</b></dd>" in why_html(report, "en")
    assert votes_html(report, CALIBRATIONS, "en").count("counts less here: an exception") == 1


def test_a_report_from_before_there_were_explanations_has_none() -> None:
    assert why_html(make_report(), "en") == ""


@pytest.mark.parametrize("language", LANGUAGES.values())
@pytest.mark.parametrize("threshold", ["far", "f1", "safe"])
def test_a_count_never_stands_without_what_it_supports(threshold: str, language: Language) -> None:
    html = promises_html(
        policy(Rule(kind="any", members=("a", "b"), threshold=threshold)), CALIBRATIONS, language
    ).replace("&#39;", "'")  # fmt: skip
    said = guarantee(ONE, threshold)  # type: ignore[arg-type]
    assert html.count(said.misses.text[language]) == 2
    assert html.count(said.false_alarms.text[language]) == 2


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (Rule(kind="single", members=("a",), threshold="safe"), "both sentences hold for the policy"),
        (Rule(kind="any", members=("a", "b"), threshold="safe"), "Of the false alarms of the policy nothing"),
        (Rule(kind="any", members=("a", "b"), threshold="f1"), "do not add up to a promise"),
        (Rule(kind="all", members=("a", "b"), threshold="safe"), "do not add up to a promise"),
        (Rule(kind="majority", members=NAMES, threshold="safe"), "do not add up to a promise"),
        (CASCADE.rule, "do not add up to a promise"),
        (WeightedRule(kind="weighted", weights={"a": 1.0, "b": 1.0}, probability=0.5), "one line for all of them"),
    ],
)
def test_a_policy_promises_only_what_follows_from_its_members(rule: AnyRule, said: str) -> None:
    assert said in promises_html(policy(rule), CALIBRATIONS, "en")


def test_an_exception_that_discounts_takes_the_promise_of_the_policy_away() -> None:
    lone = PolicyException(
        category="cable", discount=Discount(member="a", others=("b",), below=Cut(threshold="safe"), verdict="ok")
    )
    rule = policy(Rule(kind="any", members=("a", "b"), threshold="safe"), (lone,))
    assert "do not add up to a promise" in promises_html(rule, CALIBRATIONS, "en")


def test_a_line_in_another_unit_shows_its_counts_and_promises_nothing() -> None:
    html = promises_html(CASCADE, CALIBRATIONS, "en")
    assert "<b>a</b> <code>p ≤ 0.3</code><br>Held out: 0 of 12 defects below it, 11 of 40 good parts" in html
    assert "These counts may have chosen the line, no promise." in html
