"""How far from the line: of the vote that the decision hangs on, never 0 for one that failed, in words as well."""

import pytest
from test_why_panel import ANY_F1, NAMES, ONE, policy, reported

from anomaly.explain import interquartile_range
from anomaly.gauge_panel import REACH, deciding, gauge_html
from anomaly.policy import Rule
from anomaly.texts import TEXTS, Language

MAJORITY = policy(Rule(kind="majority", members=NAMES, threshold="f1"))
ONE_ALONE = policy(Rule(kind="any", members=("a",), threshold="f1"))
SPREAD = interquartile_range(ONE)
LINE = ONE.thresholds["f1"].value


@pytest.mark.parametrize(
    ("spreads", "at", "now", "said"),
    [
        (-1.0, "0.400", "-1.00", "1.00 × the spread of good parts short of its line f1"),
        (0.0, "0.500", "0.00", "0 × the spread of good parts beyond its line f1"),
        (2.5, "0.750", "2.50", "2.50 × the spread of good parts beyond its line f1"),
        (24.0, "1.000", "5.00", "24.0 × the spread of good parts beyond its line f1"),  # words go on past the end
    ],
)
def test_the_marker_lies_in_spreads_of_good_parts_and_the_words_say_it(
    spreads: float, at: str, now: str, said: str
) -> None:
    assert REACH == 5
    html = gauge_html(reported(ONE_ALONE, a=LINE + spreads * SPREAD), "en").replace("&#39;", "'")
    assert f'style="--at:{at}"' in html
    assert f'aria-valuenow="{now}"' in html
    assert html.count(said) == 2  # to be read, and for who cannot see the scale
    assert 'role="meter"' in html
    assert 'aria-label="a against its line"' in html


@pytest.mark.parametrize("language", ["en", "fr"])
def test_a_vote_that_failed_is_named_and_never_drawn(language: Language) -> None:
    alone = gauge_html(reported(ONE_ALONE, a=None), language)
    assert "meter" not in alone
    assert TEXTS["gauge_failed"][language].format(names="a") in alone
    beside = gauge_html(reported(MAJORITY, a=3.0, b=None, c=4.0), language)
    assert beside.count('role="meter"') == 1
    assert TEXTS["gauge_failed"][language].format(names="b") in beside


def test_the_vote_is_the_one_whose_change_would_change_the_decision() -> None:
    report = reported(MAJORITY, a=LINE + 50, b=LINE + 3, c=LINE - 30)  # two of three: a or b would, b is nearer
    reading = deciding(report)
    assert reading is not None
    assert reading.member == "b"
    assert report.explanation is not None
    assert report.explanation.flip is not None
    assert report.explanation.flip.member == "b"


def test_where_no_single_vote_would_it_is_the_nearest_of_those_that_agree() -> None:
    report = reported(MAJORITY, a=LINE + 50, b=LINE + 3, c=LINE + 9)
    assert report.explanation is not None
    assert report.explanation.flip is None
    reading = deciding(report)
    assert reading is not None
    assert reading.member == "b"


def test_a_member_that_only_advises_is_not_drawn() -> None:
    reading = deciding(reported(ANY_F1, a=3.0, b=4.0, c=LINE + 1))
    assert reading is not None
    assert reading.member in ("a", "b")


def test_a_clean_part_is_drawn_in_the_colour_of_ok() -> None:
    assert '<div class="gauge ok">' in gauge_html(reported(ONE_ALONE, a=2.0), "en")
