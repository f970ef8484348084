"""The page in Chromium: from a picture to a verdict, and never a verdict beside what it does not belong to."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import RunningApp
from gradio_client import Client
from PIL import Image
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

from anomaly import serving
from anomaly.render import Exhibit
from anomaly.settings import STARTER, Settings
from training.synthetic_cable import render

pytestmark = pytest.mark.browser

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 375, "height": 812}
Open = Callable[..., Page]


@pytest.fixture(scope="module")
def app(start_app: Callable[[Settings], RunningApp], request: pytest.FixtureRequest) -> RunningApp:
    """On the starter where there is one, else on a tiny inspector."""
    if any(STARTER.glob("models--*")):
        return start_app(Settings())
    tiny: RunningApp = request.getfixturevalue("running_app")
    return tiny


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not Path(CHROMIUM).exists():
        pytest.skip(f"no {CHROMIUM} (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture
def open_page(browser: Browser, app: RunningApp) -> Iterator[Open]:
    """Opens the page and waits until it may be used. At the end: no other server was asked, and no script failed."""
    contexts, elsewhere, errors = [], [], []

    def opened(locale: str = "en-US", viewport: dict[str, int] = DESKTOP) -> Page:
        context = browser.new_context(locale=locale, viewport=viewport)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: errors.append(str(error)))

        def only_here(route: Route) -> None:
            if route.request.url.startswith((app.url, "data:", "blob:")):
                route.continue_()
            else:
                elsewhere.append(route.request.url)
                route.abort()

        page.route("**/*", only_here)
        page.goto(app.url)
        expect(page.locator("#inspect")).to_be_enabled(timeout=30_000)
        expect(page.locator("#policy input")).not_to_have_value("")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert elsewhere == []
    assert errors == []


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """good.png, missing.png (a missing conductor) and broken.png (cut short)."""
    folder = tmp_path_factory.mktemp("pictures")
    for name, defect in (("good", None), ("missing", "missing_cable")):
        Image.fromarray(render(defect, seed=3, size=128)[0]).save(folder / f"{name}.png")
    (folder / "broken.png").write_bytes((folder / "good.png").read_bytes()[:1000])
    return folder


def upload(page: Page, file: Path) -> None:
    page.set_input_files("#picture input[type=file]", file)
    expect(page.locator("#picture img")).to_have_attribute("src", re.compile(re.escape(file.name) + "$"))


def inspect(page: Page) -> None:
    page.locator("#inspect").click()
    expect(page.locator("#verdict .verdict")).to_be_visible()
    expect(page.locator("#inspect")).to_be_enabled()


def choose(page: Page, dropdown: str, option: str) -> None:
    page.locator(f"{dropdown} input").click()
    page.locator(f"{dropdown} [role=option]", has_text=option).first.click()
    expect(page.locator("#inspect")).to_be_enabled()


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
    expect(page.locator("#overlay img")).to_be_visible()
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
    drawn = page.locator("#overlay img").get_attribute("src")
    page.locator("#view label", has_text="none").click()
    expect(page.locator("#overlay img")).not_to_have_attribute("src", drawn or "")
    page.locator("#view label").first.click()
    expect(page.locator("#overlay img")).to_have_attribute("src", drawn or "")
    page.locator("#opacity input[type=range]").fill("0")
    expect(page.locator("#overlay img")).not_to_have_attribute("src", drawn or "")  # boxes stay, the heatmap goes
    assert (page.locator("#votes").inner_text(), page.locator("#emissions").inner_text()) == (votes, energy)


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

    page.locator("#revision input").click()  # any commit may be typed
    page.keyboard.press("Control+a")
    page.keyboard.type(found["v2"])
    page.keyboard.press("Enter")
    expect(page.locator("#verdict .verdict")).to_be_hidden()
    expect(page.locator("#inspect")).to_be_enabled()
    inspect(page)
    assert commits(page) == newer


def test_an_unknown_revision_is_refused_at_once(open_page: Open) -> None:
    page = open_page()
    page.locator("#revision input").click()
    page.keyboard.press("Control+a")
    page.keyboard.type("v99")
    page.keyboard.press("Enter")
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
