"""The page in Chromium: from a picture to a verdict, and never a verdict beside what it does not belong to."""

import json
import re
import threading
from pathlib import Path

import pytest
from browser_page import PHONE, Open, choose, inspect, upload, write
from conftest import RunningApp
from gradio_client import Client
from PIL import Image
from playwright.sync_api import Page, expect

from anomaly import serving
from anomaly.render import Exhibit

pytestmark = pytest.mark.browser


def commits(page: Page) -> list[str]:
    return page.locator("#members code").all_inner_texts()


def test_before_the_first_inspection_the_page_says_what_to_do(open_page: Open) -> None:
    page = open_page()
    expect(page.locator("#verdict")).to_contain_text("press Inspect")
    expect(page.locator("#results")).to_be_hidden()
    page.locator("#inspect").click()
    expect(page.locator(".toast-body")).to_contain_text("There is no picture yet")
    expect(page.locator("#inspect")).to_be_enabled()
    expect(page.locator("#verdict")).to_contain_text("press Inspect")


def test_a_picture_gets_a_verdict_with_its_evidence(open_page: Open, app: RunningApp, pictures: Path) -> None:
    page = open_page()
    upload(page, pictures / "missing.png")
    inspect(page)
    expect(page.locator("#verdict strong")).to_have_text(re.compile("^(OK|DEFECT|REVIEW)$"))
    expect(page.locator("#verdict p").first).to_contain_text(".")
    expect(page.locator("#overlay img").last).to_be_visible()
    revisions = Client(app.url, verbose=False).predict(api_name="/revisions")
    members = page.locator("#votes tbody tr")
    assert commits(page)[0] == revisions[0]["commit"]
    assert len(commits(page)) == members.count() + 1
    expect(page.locator("#emissions")).to_contain_text("estimated")
    expect(page.locator("#emissions .big").first).not_to_have_text(re.compile(r"^0"))

    with page.expect_download() as download:
        page.locator("#download").click()
    report = json.loads(Path(download.value.path()).read_text())
    assert report["commit"] == revisions[0]["commit"]
    assert download.value.suggested_filename.startswith("vigie-cable-")


def test_an_example_fills_the_picture(open_page: Open) -> None:
    page = open_page()
    examples = page.locator("#ask .gallery-item")
    if not examples.count():
        pytest.skip("the starter is not built here (make starter), so there are no examples")
    examples.first.click()
    expect(page.locator("#picture img")).to_be_visible()
    inspect(page)


def test_opacity_and_detector_redraw_without_another_inspection(open_page: Open, pictures: Path) -> None:
    page = open_page()
    upload(page, pictures / "missing.png")
    inspect(page)
    votes, energy = page.locator("#votes").inner_text(), page.locator("#emissions").inner_text()
    drawn = page.locator("#overlay img").last.get_attribute("src")
    page.locator("#view label", has_text="none").click()
    expect(page.locator("#overlay img").last).not_to_have_attribute("src", drawn or "")
    page.locator("#view label").first.click()
    expect(page.locator("#overlay img").last).to_have_attribute("src", drawn or "")
    page.locator("#opacity input[type=range]").fill("0")
    expect(page.locator("#overlay img").last).not_to_have_attribute("src", drawn or "")  # boxes stay, the heatmap goes
    assert (page.locator("#votes").inner_text(), page.locator("#emissions").inner_text()) == (votes, energy)


def test_picture_and_heatmap_meet_where_a_person_wants_by_keys_and_by_hand(open_page: Open, pictures: Path) -> None:
    page = open_page()
    upload(page, pictures / "missing.png")
    inspect(page)
    above = page.locator("#overlay img").last

    def hidden() -> float:
        """Percent of the heatmap's picture."""
        return float(re.findall(r"([\d.]+)%\)", above.evaluate("image => image.style.clipPath"))[0])

    def settled(low: float, high: float) -> None:
        for _ in range(50):
            if low < hidden() < high:
                return
            page.wait_for_timeout(100)
        assert low < hidden() < high

    settled(2, 7)
    drawn = above.get_attribute("src")
    page.locator("#split-at input[type=range]").focus()
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    settled(11, 17)
    page.locator("#overlay").scroll_into_view_if_needed()
    handle = page.locator("#overlay .icon-wrap").bounding_box()
    assert handle is not None
    page.mouse.move(handle["x"] + 15, handle["y"] + 10)
    page.mouse.down()
    page.mouse.move(handle["x"] + 165, handle["y"] + 10, steps=5)
    page.mouse.up()
    settled(30, 70)
    assert above.get_attribute("src") == drawn
    before = page.evaluate("scrollY")
    page.mouse.move(handle["x"] + 80, handle["y"] + 60)
    page.mouse.wheel(0, 200)  # over the picture it scrolls the page, as everywhere
    page.wait_for_function(f"scrollY > {before}")
    with page.expect_download() as download:
        page.locator("#overlay a[download]").click()
    with Image.open(download.value.path()) as kept:
        assert kept.info["Title"].startswith("cable: ")


def test_why_and_what_it_can_promise_stand_beside_the_votes(open_page: Open, pictures: Path) -> None:
    page = open_page()
    upload(page, pictures / "missing.png")
    inspect(page)
    expect(page.locator("#why")).to_contain_text("What would have changed it")
    expect(page.locator("#promises li").first).to_be_hidden()
    page.locator("#promises summary").click()
    expect(page.locator("#promises li").first).to_contain_text("held-out")


def test_the_drift_panel_follows_the_inspections_and_knows_a_repeat(open_page: Open, pictures: Path) -> None:
    page = open_page()
    page.locator("#moved button").first.click()
    expect(page.locator("#drift")).to_contain_text("A restart forgets all this")
    upload(page, pictures / "missing.png")
    inspect(page)
    expect(page.locator("#drift")).to_contain_text(re.compile(r"API: [1-9]"))
    before = int(re.findall(r"no new part: (\d+)", page.locator("#drift").inner_text())[0])
    inspect(page)
    expect(page.locator("#drift")).to_contain_text(f"no new part: {before + 1}")
    page.locator("#language label", has_text="Français").click()
    expect(page.locator("#drift")).to_contain_text("Un redémarrage oublie tout cela")


def test_another_revision_clears_the_verdict_and_then_shows_its_own_commits(
    open_page: Open, app: RunningApp, pictures: Path
) -> None:
    found = {entry["name"]: entry["commit"] for entry in Client(app.url, verbose=False).predict(api_name="/revisions")}
    page = open_page()
    upload(page, pictures / "good.png")
    inspect(page)
    newer = commits(page)
    choose(page, "#revision", "v1")
    expect(page.locator("#verdict .verdict")).to_be_hidden()
    expect(page.locator("#results")).to_be_hidden()
    inspect(page)
    older = commits(page)
    assert (newer[0], older[0]) == (found["v2"], found["v1"])
    assert newer != older
    expect(page.locator("#verdict small")).to_contain_text(f"revision v1 ({found['v1'][:7]})")

    write(page, "#revision", found["v2"])  # any commit may be typed
    expect(page.locator("#verdict .verdict")).to_be_hidden()
    expect(page.locator("#inspect")).to_be_enabled()
    inspect(page)
    assert commits(page) == newer


def test_an_unknown_revision_is_refused_at_once(open_page: Open) -> None:
    page = open_page()
    write(page, "#revision", "v99")
    expect(page.locator(".toast-body")).to_contain_text("no revision 'v99'")


def test_another_policy_clears_the_verdict_and_decides_anew(open_page: Open, app: RunningApp, pictures: Path) -> None:
    policies = Client(app.url, verbose=False).predict(api_name="/policies")
    other = next(policy for policy in policies if not policy["default"])
    page = open_page()
    upload(page, pictures / "missing.png")
    inspect(page)
    choose(page, "#policy", other["name"])
    expect(page.locator("#verdict .verdict")).to_be_hidden()
    expect(page.locator("#policy")).to_contain_text(other["description"]["en"])
    inspect(page)
    expect(page.locator("#verdict small")).to_contain_text(f"policy {other['name']}")


def test_another_picture_clears_the_verdict(open_page: Open, pictures: Path) -> None:
    page = open_page()
    upload(page, pictures / "good.png")
    inspect(page)
    page.get_by_label("Remove Image").click()
    expect(page.locator("#verdict .verdict")).to_be_hidden()
    upload(page, pictures / "missing.png")
    expect(page.locator("#verdict")).to_contain_text("No part inspected yet")


def test_a_verdict_that_comes_after_the_picture_was_changed_is_not_shown(
    open_page: Open, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = open_page()
    upload(page, pictures / "good.png")
    changed = threading.Event()

    def slowly(*arguments: str) -> Exhibit:
        assert changed.wait(timeout=20)
        return quickly(*arguments)

    quickly = serving.inspect
    monkeypatch.setattr(serving, "inspect", slowly)
    page.locator("#inspect").click()
    expect(page.locator("#verdict")).to_contain_text("Inspecting")
    page.get_by_label("Remove Image").click()
    upload(page, pictures / "missing.png")
    changed.set()
    expect(page.locator("#inspect")).to_have_text("Inspect")
    expect(page.locator("#verdict")).to_contain_text("No part inspected yet")
    expect(page.locator("#results")).to_be_hidden()


def test_a_broken_picture_is_refused_in_our_words_and_leaves_no_verdict(open_page: Open, pictures: Path) -> None:
    page = open_page()
    upload(page, pictures / "broken.png")
    page.locator("#inspect").click()
    expect(page.locator(".toast-body")).to_contain_text("'broken.png' holds PNG pixels that cannot be decoded")
    expect(page.locator("#inspect")).to_be_enabled()
    expect(page.locator("#verdict")).to_contain_text("No part inspected yet")
    expect(page.locator("#picture img")).to_have_count(1)


def test_french_by_the_switch_reaches_every_part_of_a_result(open_page: Open, pictures: Path) -> None:
    page = open_page()
    upload(page, pictures / "missing.png")
    inspect(page)
    page.locator("#language label", has_text="Français").click()
    expect(page.locator("#verdict strong")).to_have_text(re.compile("^(CONFORME|DÉFAUT|À VÉRIFIER)$"))
    expect(page.locator("#verdict p").first).to_contain_text("détecteur")
    expect(page.locator("#inspect")).to_have_text("Inspecter")
    expect(page.locator("#votes")).to_contain_text("Score face au seuil")
    expect(page.locator("#emissions")).to_contain_text("estimé")
    expect(page.locator("#view")).to_contain_text("aucune")
    expect(page.locator("#picture")).to_contain_text("Photo de la pièce")


def test_a_french_browser_on_a_phone_gets_a_french_page_that_fits(open_page: Open, pictures: Path) -> None:
    page = open_page(locale="fr-FR", viewport=PHONE)
    expect(page.locator("#verdict")).to_contain_text("Aucune pièce inspectée")
    upload(page, pictures / "missing.png")
    inspect(page)
    expect(page.locator("#verdict strong")).to_be_in_viewport()
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
