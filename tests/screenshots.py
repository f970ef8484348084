"""Pictures of the app on the starter, for the README and for looking at: make screenshots"""

import sys
import time
from pathlib import Path

from playwright.sync_api import expect, sync_playwright
from test_browser import ARGUMENTS, CHROMIUM, DESKTOP, PHONE, inspect, upload

import app
from anomaly import serving
from anomaly.settings import STARTER, Settings

VIEWS = {
    "app": ("light", DESKTOP, False),
    "app-dark": ("dark", DESKTOP, False),
    "app-phone": ("light", PHONE, True),
    "app-whole": ("light", DESKTOP, True),
}


def main(folder: Path) -> None:
    settings = Settings()
    demo = app.serve(settings, server_name="127.0.0.1", quiet=True)
    while serving.health(settings)["status"] == "starting":
        time.sleep(0.1)
    picture = sorted((STARTER / "examples").glob("*.png"))[1]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        for name, (theme, viewport, whole) in VIEWS.items():
            page = browser.new_context(locale="en-US", viewport=viewport).new_page()
            page.goto(f"{demo.local_url}?__theme={theme}")
            expect(page.locator("#inspect")).to_be_enabled(timeout=30_000)
            expect(page.locator("#policy input")).not_to_have_value("")
            upload(page, picture)
            inspect(page)
            page.wait_for_timeout(1_000)  # the picture fades in
            page.evaluate("scrollTo(0, 0)")
            page.screenshot(path=folder / f"{name}.png", full_page=whole)
        page = browser.new_context(locale="en-US", viewport=DESKTOP).new_page()
        page.goto(demo.local_url)
        expect(page.locator("#inspect")).to_be_enabled(timeout=30_000)
        page.locator("#costs button").first.click()
        expect(page.locator("#cost-table table")).to_be_visible()
        page.wait_for_timeout(1_000)
        page.locator("#costs").screenshot(path=folder / "costs.png")
        browser.close()
    demo.close(verbose=False)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs"))
