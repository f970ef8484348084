"""What a link says of What if?: written and read again, and everything of it that is not there is named."""

import re
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from browser_page import Open, inspect, ready, upload
from conftest import RunningApp
from playwright.sync_api import expect

from anomaly import deep_link
from anomaly.deep_link import Moved, moved_by, query, read
from anomaly.service import Service
from anomaly.settings import Settings

POLICIES, MEMBERS = ("majority", "safe"), ("a", "b", "c:d")
MOVED = Moved("safe", {"a": -0.25, "c:d": 1234567.5})


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(inspectors=(str(tmp_path),))


def test_what_is_set_in_what_if_goes_there_and_back(settings: Settings) -> None:
    said = query(settings, settings.inspectors[0], "a" * 40, "majority", MOVED)
    assert said.endswith("&policy=majority&whatif=safe&thresholds=a:-0.25,c:d:1234567.5")
    link = read({key: values[0] for key, values in parse_qs(said[1:]).items()})
    assert moved_by(link, POLICIES, MEMBERS, "en") == (MOVED, [])


def test_a_link_without_it_is_as_short_as_ever(settings: Settings) -> None:
    assert query(settings, settings.inspectors[0], "a" * 40, "majority").endswith(
        f"revision={'a' * 40}&policy=majority"
    )


@pytest.mark.parametrize("text", ["nan", "1e999", "-inf", "much", "", "0x10", "1;2"])
def test_a_line_that_is_no_number_is_named_and_left_out(text: str) -> None:
    moved, notes = moved_by({"thresholds": f"a:{text},b:2"}, POLICIES, MEMBERS, "en")
    assert moved == Moved("", {"b": 2.0})
    assert len(notes) == 1
    assert f"“a:{text}” cannot be read" in notes[0]


@pytest.mark.parametrize("part", ["a", ":1", "0.5"])
def test_a_line_without_member_or_number_is_named(part: str) -> None:
    moved, notes = moved_by({"thresholds": part}, POLICIES, MEMBERS, "fr")
    assert not moved
    assert f"« {part} »" in notes[0]


def test_thresholds_that_are_too_long_are_left_out_whole_and_said() -> None:
    link = read({"thresholds": ",".join(["a:1.25"] * 400)})
    moved, notes = moved_by(link, POLICIES, MEMBERS, "en")
    assert not moved
    assert "longer than 2000 characters" in notes[0]


def test_what_the_revision_does_not_have_is_named() -> None:
    moved, notes = moved_by({"thresholds": "ghost:1,a:1,a:2", "whatif": "mine"}, POLICIES, MEMBERS, "en")
    assert moved == Moved("", {"a": 1.0})
    assert [word in note for word, note in zip(("“mine”", "“ghost”", "“a:2”"), notes, strict=True)] == [True] * 3


def test_landing_gives_what_the_revision_has(inspector_folder: Path) -> None:
    settings = Settings(inspectors=(str(inspector_folder),))
    link = {"revision": "v1", "whatif": "any_alarm", "thresholds": "patch_knn:2,ghost:1"}
    landed = deep_link.land(link, settings, Service(settings), "en")
    assert (landed.revision, landed.moved) == ("v1", Moved("any_alarm", {"patch_knn": 2.0}))
    assert len(landed.notes) == 1
    assert "ghost" in landed.notes[0]


@pytest.mark.browser
def test_moved_lines_go_along_with_a_link_and_open_what_if_there(open_page: Open, pictures: Path) -> None:
    page = open_page()
    upload(page, pictures / "missing.png")
    inspect(page)
    page.locator("#what-if button").first.click()
    expect(page.locator("#what-if-answer .lead")).to_contain_text("Nothing is changed yet")
    line = page.locator(".what-if-line input[type=range]:visible").first
    line.fill(line.get_attribute("max") or "")
    place = line.input_value()
    expect(page.locator("#what-if-answer .lead")).not_to_contain_text("Nothing is changed")
    page.locator("#link-copy").click()
    link = page.locator("#link-shown").locator("input, textarea")
    expect(link).to_have_value(re.compile(rf"&thresholds=[a-z_]+:{place}$"))
    page.goto(link.input_value())
    ready(page)
    expect(page.locator("#link-notes")).to_contain_text("inspect a part to see them")
    upload(page, pictures / "missing.png")
    inspect(page)
    expect(page.locator(".what-if-line input[type=range]:visible").first).to_have_value(place)
    expect(page.locator("#what-if-answer .lead")).not_to_contain_text("Nothing is changed")
    expect(page.locator("#link-notes")).to_be_hidden()
    inspect(page)  # once: the next part is shown as it was decided
    expect(page.locator("#what-if-answer .lead")).to_contain_text("Nothing is changed")


@pytest.mark.browser
def test_a_line_that_this_part_cannot_have_is_named_after_its_inspection(
    open_page: Open, app: RunningApp, pictures: Path
) -> None:
    page = open_page()
    member = Service(app.settings).inspector().policy().members[0]
    page.goto(f"{app.url}?thresholds={member}:1e30,%3Cb%3Eghost:1")
    ready(page)
    expect(page.locator("#link-notes")).to_contain_text("“<b>ghost”")
    upload(page, pictures / "missing.png")
    inspect(page)
    expect(page.locator("#link-notes")).to_contain_text(f"puts the threshold of {member} at 1e+30")
    expect(page.locator("#link-notes")).to_contain_text("“<b>ghost”")
    expect(page.locator("#what-if-answer .lead")).to_contain_text("Nothing is changed")
