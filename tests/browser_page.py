"""The page in Chromium (playwright.dev/python), for the tests that drive it: fixtures, and what a person does there."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, Request, expect, sync_playwright

from anomaly.settings import STARTER, Settings
from training.synthetic_cable import render

if TYPE_CHECKING:
    from conftest import RunningApp

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # no other server is asked, whatever the page wants
]
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 375, "height": 812}
Open = Callable[..., Page]
expect.set_options(timeout=60_000)  # playwright's 5 s are not much where two cores have other work, too


@pytest.fixture(scope="session")
def app(
    start_app: "Callable[[Settings], RunningApp]",
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> "RunningApp":
    """On the starter where there is one, with a folder for feedback; else on a tiny inspector."""
    if any(STARTER.glob("models--*")):
        return start_app(Settings(feedback=tmp_path_factory.mktemp("feedback")))
    tiny: RunningApp = request.getfixturevalue("running_app")
    return tiny


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Not for a whole session: as long as it runs, this thread has an event loop, and asyncio.run fails."""
    if not Path(CHROMIUM).exists():
        pytest.skip(f"no {CHROMIUM} (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture
def open_page(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Open]:
    """Opens the page and waits until it may be used. At the end: no other server was asked, and no script failed."""
    contexts, elsewhere, errors = [], [], []

    def opened(
        locale: str = "en-US",
        viewport: dict[str, int] = DESKTOP,
        theme: str = "light",
        at: "RunningApp | None" = None,
    ) -> Page:
        url = (at or request.getfixturevalue("app")).url
        context = browser.new_context(locale=locale, viewport=viewport)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: errors.append(str(error)))

        def note(request: Request) -> None:
            if not request.url.startswith((url, "data:", "blob:")):
                elsewhere.append(request.url)

        page.on("request", note)
        page.goto(f"{url}?__theme={theme}")
        ready(page)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert elsewhere == []
    assert errors == []


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """good.png, missing.png (a missing conductor) and broken.png (cut short)."""
    folder = tmp_path_factory.mktemp("pictures")
    for name, defect in (("good", None), ("missing", "missing_cable")):
        Image.fromarray(render(defect, seed=3, size=128)[0]).save(folder / f"{name}.png")
    (folder / "broken.png").write_bytes((folder / "good.png").read_bytes()[:1000])
    return folder


def ready(page: Page) -> None:
    expect(page.locator("#inspect")).to_be_enabled(timeout=30_000)
    expect(page.locator("#policy input")).not_to_have_value("")


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


def write(page: Page, dropdown: str, text: str) -> None:
    """Into a dropdown that takes any value."""
    page.locator(f"{dropdown} input").click()
    page.keyboard.press("Control+a")
    page.keyboard.type(text)
    page.keyboard.press("Enter")


def open_tab(page: Page, name: str) -> None:
    page.locator("#tabs").get_by_role("tab", name=name, exact=True).click()
