"""The accordion of costs: what its table says, in both languages, and what it says without figures."""

import html
import json
import shutil
from pathlib import Path

import pytest
from browser_page import Open, inspect, upload
from playwright.sync_api import expect
from reports import make_report, make_vote

from anomaly import hub as registry
from anomaly.at_hand import AtHand
from anomaly.calibration import calibrate
from anomaly.cost_panel import FIRST, costs_html, decided_here, priced
from anomaly.costs import Costs, Decisions, Outcomes, compare
from anomaly.errors import ModelLoadError
from anomaly.figures import DataFigures, InspectorMetrics
from anomaly.inspector import INSPECTOR_FILE
from anomaly.policy import Policy, Rule
from anomaly.service import Service
from anomaly.settings import Settings
from anomaly.texts import Language
from anomaly.what_if import votes_of


def outcomes(good: tuple[int, int, int], defects: tuple[int, int, int]) -> Outcomes:
    sides = [Decisions(ok=ok, review=review, defect=defect) for ok, review, defect in (good, defects)]
    return Outcomes(good=sides[0], defects=sides[1])


SAFE = outcomes((60, 0, 40), (0, 0, 40))
HELD = {"SAFE": SAFE, "PRECISE": outcomes((100, 0, 0), (8, 0, 32)), "<mine>": None}
PRICES = [50.0, 1.0, 5.0, 2.0, 0.0]


def test_one_sentence_says_the_winner_and_the_next_one() -> None:
    text, winner = priced(HELD, PRICES, "en")
    assert winner == "PRECISE"
    expected = compare({name: held for name, held in HELD.items() if held}, FIRST)
    assert list(expected.policies) == ["PRECISE", "SAFE"]
    assert "PRECISE costs least: 200 (" in text  # 1000 x 0.02 x 8/40 x 50
    assert "next SAFE, 192 more" in text
    assert text.index("costs least:") < text.index("<table")
    assert text.count("<tr") == 3
    assert text.index('class="best"') < text.index("<b>PRECISE") < text.index("<b>SAFE")
    assert "8 / 40" in text
    assert "40 / 100" in text


def test_another_price_is_another_winner() -> None:
    assert priced(HELD, [500.0, 1.0, 5.0, 2.0, 0.0], "en")[1] == "SAFE"


def test_policies_that_are_not_counted_yet_are_named_and_escaped() -> None:
    text, _ = priced(HELD, PRICES, "en")
    assert "Not counted yet: &lt;mine&gt;." in text


@pytest.mark.parametrize(("language", "said"), [("en", "CO₂e is left out"), ("fr", "n'est pas compté")])
def test_a_price_of_carbon_that_cannot_be_counted_is_told(language: Language, said: str) -> None:
    assert said not in html.unescape(priced(HELD, PRICES, language)[0])
    assert said in html.unescape(priced(HELD, [*PRICES[:4], 100.0], language)[0])


@pytest.mark.parametrize("held", [{}, {"new": None}])
def test_without_figures_a_sentence_says_what_to_do(held: dict[str, None]) -> None:
    for language, word in (("en", "Release"), ("fr", "Publiez")):
        text, winner = priced(held, PRICES, language)
        assert winner is None
        assert "<table" not in text
        assert word in text
        assert "python -m training.release" in text


@pytest.mark.parametrize(
    ("place", "value", "name"),
    [
        (0, -1.0, "A missed defect costs"),
        (2, None, "A review costs"),
        (3, 100.0, "Defects in"),
        (3, None, "Defects in"),
    ],
)
def test_a_price_that_makes_no_sense_is_named(place: int, value: float | None, name: str) -> None:
    text, winner = priced(HELD, [*PRICES[:place], value, *PRICES[place + 1 :]], "en")
    assert winner is None
    assert f"“{name}" in text


def test_an_error_and_a_wait_are_told_in_their_words() -> None:
    assert "no &lt;Hub&gt;" in priced("no <Hub>", PRICES, "en")[0]
    assert "Aucun inspecteur" in priced(None, PRICES, "fr")[0]


def test_a_policy_alone_has_no_runner_up() -> None:
    only = compare({"A": SAFE}, Costs(miss=1, false_alarm=1, review=1, prevalence=0.5))
    assert "A costs 200" in costs_html(only, "en")


def test_the_figures_come_from_the_revision_that_serves(inspector_folder: Path, tmp_path: Path) -> None:
    """Beside inspector.json; a release without metrics.json has none, and a wrong one is told."""
    folder = Path(shutil.copytree(inspector_folder, tmp_path / "inspector", symlinks=True))
    assert Service(Settings(inspectors=(str(folder),))).figures(None, "v1") is None
    source = registry.parse_source(str(folder))
    at = registry.download(source, registry.resolve(source, "v1"), [INSPECTOR_FILE])
    work = tmp_path / "work"
    work.mkdir()
    (work / INSPECTOR_FILE).write_bytes((at / INSPECTOR_FILE).read_bytes())
    data = DataFigures(name="x", layout="mvtec", seed=0, split_hash="0", counts={})
    metrics = InspectorMetrics(
        category="cable", data=data, members={}, policies={}, hardware="", country="", versions={}, held_out=HELD
    )
    for tag, text in (("v3", metrics.model_dump_json()), ("v4", json.dumps({"format": 9}))):
        (work / "metrics.json").write_text(text)
        files = [INSPECTOR_FILE, "metrics.json"]
        registry.store(work, folder, source.repo_id, files=files, tag=tag)
    service = Service(Settings(inspectors=(str(folder),)))
    found = service.figures(None, "v3")
    assert found is not None
    assert found.held_out == HELD
    with pytest.raises(ModelLoadError, match=r"metrics\.json"):
        service.figures(None, "v4")


# of the part that is shown

KNOWN = calibrate([i / 20 for i in range(20)], [1.5, 1.6, 1.7, 1.8, 1.9], split_hash="0" * 16, far=0.1)
TEXT = {"en": "x", "fr": "x"}
ONE = Policy(name="ONE", description=TEXT, rule=Rule(kind="single", members=("a",), threshold="f1"))
TWO = Policy(name="TWO", description=TEXT, rule=Rule(kind="all", members=("a", "b"), threshold="f1"))
ANY = Policy(name="ANY", description=TEXT, rule=Rule(kind="any", members=("a",), threshold="far"))


def at_hand(score: float) -> AtHand:
    """A part that ONE decided from the score of a."""
    calibrations = dict.fromkeys(("a", "b"), KNOWN)
    report = make_report(policy="ONE", decision="ok", votes=(make_vote("a", score=score),))
    policies = {policy.name: policy for policy in (ONE, TWO, ANY)}
    return AtHand(report, votes_of(report, calibrations), calibrations, policies)


@pytest.mark.parametrize(
    ("language", "said"),
    [("en", "ANY, the cheapest at these costs, would decide DEFECT (it was OK, by ONE)"), ("fr", "déciderait DÉFAUT")],
)
def test_the_cheapest_policy_says_what_it_would_decide_here(language: Language, said: str) -> None:
    far, f1 = (KNOWN.thresholds[name].value for name in ("far", "f1"))
    between = (far + f1) / 2
    assert far < between < f1
    assert said in decided_here(at_hand(between), "ANY", language)
    assert "would decide OK" in decided_here(at_hand(between), "ONE", "en")


def test_members_that_were_not_asked_are_named_and_not_guessed() -> None:
    text = decided_here(at_hand(2.0), "TWO", "en")
    assert "votes that were not asked for (b)" in text
    assert "would decide" not in text


@pytest.mark.parametrize(("hand", "winner"), [(None, "ONE"), (at_hand(2.0), None), (at_hand(2.0), "gone")])
def test_without_a_part_or_a_winner_there_is_nothing_to_say(hand: AtHand | None, winner: str | None) -> None:
    assert decided_here(hand, winner, "en") == ""


@pytest.mark.browser
def test_other_costs_decide_again_on_the_part_that_is_shown_and_on_no_other(open_page: Open, pictures: Path) -> None:
    page = open_page()
    page.locator("#costs button").first.click()
    expect(page.locator("#cost-table")).not_to_be_empty()
    here = page.locator("#cost-here")
    expect(here).to_be_hidden()
    if not page.locator("#cost-table table").count():
        pytest.skip("the starter is not built here (make starter), so no costs of policies are known")
    upload(page, pictures / "missing.png")
    inspect(page)
    expect(here).to_contain_text("cheapest at these costs")
    votes = page.locator("#votes").inner_text()
    page.locator("#cost-miss input").fill("0")  # then the policy that rejects least is the cheapest
    page.locator("#cost-false-alarm input").fill("1000")
    winner = page.locator("#cost-table .best b")
    expect(winner).to_be_visible()
    expect(here).to_contain_text(winner.inner_text())
    assert page.locator("#votes").inner_text() == votes
    page.get_by_label("Remove Image").click()
    expect(here).to_be_hidden()
