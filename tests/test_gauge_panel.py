"""How far from the threshold: of the vote that decides, never 0 for one that failed, in words as well."""

import pytest
from reports import make_report, make_vote
from test_why_panel import ANY_F1, CALIBRATIONS, NAMES, ONE, policy, reported

from anomaly.calibration import Calibration, Threshold
from anomaly.gauge_panel import deciding, gauge_html
from anomaly.policy import Rule
from anomaly.texts import TEXTS, Language

MAJORITY = policy(Rule(kind="majority", members=NAMES, threshold="f1"))
LINE = ONE.thresholds["f1"].value


def one(typical: float = 1.0, threshold: float = 5.0) -> dict[str, Calibration]:
    cut = Threshold(value=threshold, false_alarms=0, good=3, missed=0, defects=0, level=0.25)
    return {"a": Calibration(split_hash="0", good_scores=(typical,) * 3, thresholds={"far": cut})}


@pytest.mark.parametrize(
    ("score", "at", "now", "said"),
    [
        (0.5, "0.000", "0", "at a typical good part or below"),
        (3.0, "0.250", "25", "0.500 × the threshold"),
        (5.0, "0.500", "50", "1.00 × the threshold"),
        (7.4, "0.800", "80", "1.60 × the threshold"),
        (99.0, "1.000", "100", "24.5 × the threshold"),  # the words go on where the scale ends
    ],
)
def test_the_marker_lies_where_the_bar_of_the_vote_ends_and_the_words_say_it(
    score: float, at: str, now: str, said: str
) -> None:
    html = gauge_html(make_report(votes=(make_vote("a", score=score),)), one(), "en").replace("&#39;", "'")
    assert f'style="--at:{at}"' in html
    assert f'aria-valuenow="{now}"' in html
    assert html.count(said) == 2  # to be read, and for who cannot see the scale
    assert 'role="meter"' in html
    assert 'aria-label="a against its threshold"' in html


@pytest.mark.parametrize(("score", "side", "at"), [(4.0, "below", "0.250"), (6.0, "beyond", "1.000")])
def test_a_threshold_below_a_typical_good_part_has_two_sides_and_no_distance(score: float, side: str, at: str) -> None:
    html = gauge_html(make_report(votes=(make_vote("a", score=score),)), one(typical=8.0), "en")
    assert f"{side} its threshold (5.00), which most good parts reach" in html
    assert f"--at:{at}" in html
    assert "×" not in html
    assert "typical" not in html


@pytest.mark.parametrize("language", ["en", "fr"])
def test_a_vote_that_failed_is_named_and_never_drawn(language: Language) -> None:
    alone = gauge_html(make_report(votes=(make_vote("a", score=None),)), one(), language)
    assert "meter" not in alone
    assert TEXTS["gauge_failed"][language].format(names="a") in alone
    votes = (make_vote("a", score=3.0), make_vote("<b>", score=None), make_vote("c", score=None, counted=False))
    beside = gauge_html(make_report(votes=votes), one(), language)
    assert beside.count('role="meter"') == 1
    assert TEXTS["gauge_failed"][language].format(names="&lt;b&gt;") in beside


def test_the_vote_is_the_one_whose_change_would_change_the_decision() -> None:
    report = reported(MAJORITY, a=LINE + 50, b=LINE + 3, c=LINE - 30)  # two of three: a or b would, b is nearer
    vote = deciding(report, CALIBRATIONS)
    assert vote is not None
    assert vote.member == "b"
    assert report.explanation is not None
    assert report.explanation.flip is not None
    assert report.explanation.flip.member == "b"


def test_where_no_single_vote_would_it_is_the_nearest_of_those_that_agree() -> None:
    report = reported(MAJORITY, a=LINE + 50, b=LINE + 3, c=LINE + 9)
    assert report.explanation is not None
    assert report.explanation.flip is None
    vote = deciding(report, CALIBRATIONS)
    assert vote is not None
    assert vote.member == "b"


def test_a_member_that_only_advises_is_not_drawn() -> None:
    report = reported(ANY_F1, a=3.0, b=4.0, c=LINE + 1)
    vote = deciding(report, CALIBRATIONS)
    assert vote is not None
    assert vote.member in ("a", "b")


def test_a_clean_part_is_drawn_in_the_colour_of_ok() -> None:
    html = gauge_html(make_report(votes=(make_vote("a", score=2.0),)), one(), "en")
    assert '<div class="gauge ok">' in html
