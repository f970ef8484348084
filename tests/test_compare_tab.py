"""One picture, two revisions or policies: what differs, what is told where a side fails, and what a program gets."""

import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser_page import Open, inspect, upload
from conftest import RunningApp
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from playwright.sync_api import expect
from reports import make_emissions, make_report, make_vote

from anomaly import deep_link
from anomaly.at_hand import AtHand, answered, at_hand
from anomaly.calibration import Calibration, HeatmapScale, Threshold
from anomaly.compare_pair import Ask, Pair, as_json, read_ask
from anomaly.compare_panels import drawings, facts_html, lead_html, side_html, views, votes_html
from anomaly.differences import Differences, differences
from anomaly.errors import DataError, RevisionNotFoundError
from anomaly.render import ALL, NONE, Exhibit
from anomaly.service import Service
from anomaly.settings import Settings
from anomaly.texts import Language

EVIL = "<script>alert('x')</script>"
FIRST = make_report(
    votes=(make_vote("a", score=7.0), make_vote("b", score=1.0), make_vote("gone", score=1.0)), decision="defect"
)
SECOND = make_report(
    votes=(make_vote("a", score=7.0), make_vote("b", score=6.0, commit="d" * 40), make_vote("new", score=1.0)),
    decision="review",
    commit="b" * 40,
    duration_ms=11.0,
    emissions=make_emissions(energy_mj=100.0),
)
KNOWN = Calibration(
    split_hash="0",
    good_scores=(1.0, 2.0, 3.0),
    thresholds={"far": Threshold(value=5.0, false_alarms=0, good=3, missed=0, defects=0, level=0.25)},
    heatmap=HeatmapScale(low=0, high=1, images=3),
)


def exhibit(report: Any, *drawn: str) -> Exhibit:
    maps = {name: np.full((8, 8), 9, np.float32) for name in drawn}
    return Exhibit(report, np.zeros((8, 8, 3), np.uint8), maps, {vote.member: KNOWN for vote in report.votes})


PAIR: Pair = (exhibit(FIRST, "a", "gone"), exhibit(SECOND, "a", "new"))
HALF: Pair = (exhibit(FIRST, "a"), RevisionNotFoundError(f"no revision {EVIL}"))


def test_every_member_of_either_report_is_compared_field_by_field() -> None:
    found = differences(FIRST, SECOND)
    assert (found.decision, found.commit, found.policy) == (True, True, False)
    assert (found.energy_mj, found.duration_ms) == (-55.0, -10.0)
    assert [(vote.member, vote.only, vote.changed) for vote in found.votes] == [
        ("a", None, ()),
        ("b", None, ("verdict", "score", "commit")),
        ("gone", "first", ()),
        ("new", "second", ()),
    ]
    assert Differences.model_validate_json(found.model_dump_json()) == found


def test_rounding_is_no_difference_and_a_failure_is_one() -> None:
    votes = [make_vote("a", score=7.0), make_vote("a", score=7.0 * (1 + 1e-8)), make_vote("a", score=None)]
    reports = [make_report(votes=(vote,)) for vote in votes]
    assert differences(reports[0], reports[1]).votes[0].changed == ()
    assert differences(reports[0], reports[2]).votes[0].changed == ("verdict", "score", "p_value")


def test_energy_that_one_side_does_not_know_makes_no_difference_up() -> None:
    unknown = make_report(emissions=make_emissions(energy_mj=None))
    assert differences(FIRST, unknown).energy_mj is None
    assert "not known" in lead_html((exhibit(FIRST), exhibit(unknown)), "en")


def test_one_sentence_says_what_changed() -> None:
    said = lead_html(PAIR, "en")
    assert "The decisions differ. Votes that differ: b, gone, new." in said
    assert "−10.0 ms, −55.0 mJ (estimated)" in said
    assert "The same decision. Every detector votes the same." in lead_html((PAIR[0], PAIR[0]), "en")


def test_what_differs_is_marked_in_words_too() -> None:
    table = votes_html(PAIR, "en")
    rows = {row.split("</b>")[0].split("<b>")[1]: row for row in table.split("<tr>")[2:]}
    assert list(rows) == ["a", "b", "gone", "new"]
    assert "changed" not in rows["a"]
    assert "nothing" in rows["a"]
    assert 'class="changed">ok → defect<' in rows["b"]
    assert "vote, score, commit" in rows["b"]
    assert "1.00 → –" in rows["gone"]
    assert "only in the second" in rows["new"]
    assert 'class="changed"><a href="https://huggingface.co/acme/b/tree/' in facts_html(PAIR, "en")


@pytest.mark.parametrize("language", ["en", "fr"])
def test_a_side_without_an_answer_says_why_and_the_other_one_still_shows(language: Language) -> None:
    assert "&lt;script&gt;" in side_html(HALF[1], "second", language)
    assert "<script" not in side_html(HALF[1], "second", language)
    assert 'data-decision="defect"' in side_html(HALF[0], "first", language)
    assert votes_html(HALF, language) == ""
    assert "<td" in facts_html(HALF, language)
    assert [drawn is None for drawn in drawings(HALF, "a", 0.7)] == [False, True]
    assert views(HALF) == ["a", NONE]
    found = as_json(HALF)
    assert (found["second"], found["differences"]) == (None, None)
    assert found["errors"]["second"]["code"] == "unknown_revision"
    assert found["first"]["decision"] == "defect"


@pytest.mark.parametrize("language", ["en", "fr"])
def test_what_others_wrote_is_escaped(language: Language) -> None:
    votes = (make_vote(EVIL, score=7.0, repo=EVIL, threshold_name=EVIL),)
    pair = exhibit(make_report(votes=votes), EVIL), exhibit(SECOND, "a")
    for said in (lead_html(pair, language), votes_html(pair, language), facts_html(pair, language)):
        assert "<script" not in said
        assert "&lt;script&gt;" in said


def test_both_sides_show_the_same_view_each_on_its_own_scale_or_the_picture_alone() -> None:
    assert views(PAIR) == ["a", ALL, "gone", "new", NONE]
    first, second = drawings(PAIR, "gone", 1.0)
    assert np.asarray(first).max() > 0
    assert np.asarray(second).max() == 0


@pytest.mark.parametrize("given", [{"rev": "v1"}, ["v1"], "v1", {"revision": 1}])
def test_what_is_no_side_is_refused_with_what_is(given: object) -> None:
    with pytest.raises(DataError, match=r"second: .* an object with the texts revision and policy"):
        read_ask(given, "second")
    assert read_ask(None, "first") == read_ask({}, "first") == Ask()


@pytest.fixture(scope="module")
def client(running_app: RunningApp) -> Iterator[Client]:
    connected = Client(running_app.url, verbose=False)
    yield connected
    connected.close()


def test_compare_gives_both_reports_and_what_differs(client: Client, picture_file: Path) -> None:
    sides: list[dict[str, str]] = [{"revision": "v1"}, {"policy": "any_alarm"}]
    found = client.predict(handle_file(picture_file), "", *sides, api_name="/compare")
    assert [(found[side]["revision"], found[side]["policy"]) for side in ("first", "second")] == [
        ("v1", "majority"),
        ("v2", "any_alarm"),
    ]
    assert found["first"]["image_sha256"] == found["second"]["image_sha256"]
    assert found["errors"] == {}
    told = Differences.model_validate(found["differences"])
    assert (told.commit, told.policy) == (True, True)
    assert {vote.member for vote in told.votes} == {"autoencoder", "patch_knn"}


def test_compare_tells_the_error_of_one_side_and_fails_where_both_do(client: Client, picture_file: Path) -> None:
    found = client.predict(handle_file(picture_file), "", {}, {"revision": "v9"}, api_name="/compare")
    assert found["first"]["revision"] == "v2"
    assert "no revision 'v9'" in found["errors"]["second"]["message"]
    with pytest.raises(AppError, match="no revision 'v8'"):
        client.predict(handle_file(picture_file), "", {"revision": "v8"}, {"revision": "v9"}, api_name="/compare")


# what if, and links: what they say of a real inspection


@pytest.fixture(scope="module")
def hand(running_app: RunningApp, picture_file: Path) -> AtHand:
    from anomaly import serving

    return at_hand(serving.inspect(running_app.settings, str(picture_file), "", "v2", "majority"), running_app.settings)


@pytest.mark.parametrize(("language", "said"), [("en", "Nothing is changed yet"), ("fr", "Rien n'est encore changé")])
def test_what_if_begins_with_what_was_decided(hand: AtHand, language: Language, said: str) -> None:
    answer, detail = answered(hand, "majority", [], language)
    assert said in html.unescape(answer)
    assert answer.count(f'class="side real {hand.report.decision}"') == 1
    assert answer.count(f'class="side hypothetical {hand.report.decision}"') == 1
    assert all(f"<b>{vote.member}</b>" in detail for vote in hand.report.votes)


def test_what_if_of_another_policy_is_what_that_policy_decides(
    hand: AtHand, running_app: RunningApp, picture_file: Path
) -> None:
    real = Service(running_app.settings).inspect(picture_file, revision="v2", policy="any_alarm").report
    before = hand.report.model_dump_json()
    answer, _ = answered(hand, "any_alarm", [], "en")
    assert f'class="side hypothetical {real.decision}"' in answer
    assert real.reason["en"] in html.unescape(answer)
    assert hand.report.model_dump_json() == before


def test_what_if_says_who_was_not_asked(hand: AtHand) -> None:
    one = {"autoencoder": hand.votes["autoencoder"]}
    short = AtHand(hand.report, one, hand.calibrations, hand.policies)
    answer, _ = answered(short, "any_alarm", [], "en")
    assert "Needs a new inspection: patch_knn was not asked." in answer
    assert 'class="side hypothetical unknown"' in answer


def test_a_link_is_pinned_to_the_commit_and_leads_back_without_telling_the_folder(running_app: RunningApp) -> None:
    settings, service = running_app.settings, Service(running_app.settings)
    folder = settings.inspectors[0]
    commit = service.inspector(revision="v1").commit
    query = deep_link.query(settings, folder, commit, "any_alarm")
    assert commit in query
    assert "%2F" not in query
    link = deep_link.read({"inspector": Path(folder).name, "revision": commit, "policy": "any_alarm", "other": "x"})
    assert link == {"inspector": Path(folder).name, "revision": commit, "policy": "any_alarm"}
    landed = deep_link.land(link, settings, service, "en")
    assert (landed.inspector, landed.revision, landed.notes) == (folder, commit, ())


@pytest.mark.parametrize(
    ("link", "said"), [({"inspector": EVIL}, "does not serve"), ({"revision": EVIL}, "cannot be had; v2 is chosen")]
)
def test_a_link_to_what_is_not_there_leads_to_the_default_with_a_sentence(
    running_app: RunningApp, link: dict[str, str], said: str
) -> None:
    landed = deep_link.land(link, running_app.settings, Service(running_app.settings), "en")
    assert (landed.inspector, landed.revision) == (running_app.settings.inspectors[0], "v2")
    assert said in landed.notes[0]


def test_two_folders_of_one_name_are_told_apart(tmp_path: Path) -> None:
    folders = [tmp_path / side / "inspector" for side in ("a", "b")]
    for folder in folders:
        folder.mkdir(parents=True)
    sources = (*map(str, folders), "acme/cable")
    assert deep_link.names(Settings(inspectors=sources)) == dict(
        zip(("inspector", "inspector (2)", "acme/cable"), sources, strict=True)
    )


@pytest.mark.browser
def test_the_tab_takes_the_picture_over_and_tells_what_changed(open_page: Open, pictures: Path) -> None:
    page = open_page()
    tab = page.get_by_role("tab", name="Compare")
    if not tab.count():
        pytest.skip("the page has no tab named Compare")
    upload(page, pictures / "missing.png")
    inspect(page)
    tab.click()
    for side, revision in (("first", "v1"), ("second", "v2")):
        expect(page.locator(f"#cmp-{side}-revision input")).to_have_value(re.compile(f"^{revision}"))
        expect(page.locator(f"#cmp-{side}-policy input")).not_to_have_value("")
    expect(page.locator("#cmp-picture img")).to_be_visible()
    page.locator("#cmp-run").click()
    expect(page.locator("#cmp-lead .lead")).to_contain_text(re.compile("The same decision|The decisions differ"))
    expect(page.locator("#cmp-results .verdict")).to_have_count(2)
    expect(page.locator("#cmp-facts td.changed").first).to_be_visible()
    for side in ("first", "second"):
        expect(page.locator(f"#cmp-{side}-overlay img")).to_be_visible()

    page.locator("#cmp-second-revision input").fill("v99")
    page.keyboard.press("Enter")
    expect(page.locator("#cmp-results")).to_be_hidden()
    expect(page.locator("#cmp-run")).to_be_enabled()
    page.locator("#cmp-run").click()
    expect(page.locator("#cmp-lead .lead")).to_contain_text("Only one side")
    expect(page.locator("#cmp-second-verdict")).to_contain_text("no revision 'v99'")
    expect(page.locator("#cmp-first-verdict .verdict")).to_be_visible()
