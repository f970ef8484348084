"""Pictures of every tab on the starter: light, dark, phone; to be looked at and for the README: make screenshots"""

import io
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from browser_page import ARGUMENTS, CHROMIUM, DESKTOP, PHONE, inspect, open_tab, ready, upload
from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

import app
from anomaly import serving
from anomaly.settings import STARTER, Settings
from training.synthetic_cable import DEFECTS, render

VIEWS = {"light": ("light", DESKTOP), "dark": ("dark", DESKTOP), "phone": ("light", PHONE)}
QUALITY = 85  # of WebP: letters stay sharp, and 24 pictures are less than 3 MB


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as kept, sync_playwright() as playwright:
        settings = Settings(feedback=Path(kept) / "feedback")
        demo = app.serve(settings, server_name="127.0.0.1", quiet=True)
        while serving.health(settings)["status"] == "starting":
            time.sleep(0.1)
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        files = parts(Path(kept))
        for view, (theme, viewport) in VIEWS.items():
            page = browser.new_context(locale="en-US", viewport=viewport).new_page()
            page.set_default_timeout(60_000)
            page.goto(f"{demo.local_url}?__theme={theme}")
            ready(page)
            for name, show in SHOWN.items():
                taken = show(page, files)
                page.wait_for_timeout(1_000)  # pictures fade in
                save(page.locator(taken).screenshot() if taken else screen(page), folder / f"{name}-{view}.webp")
        browser.close()
        demo.close(verbose=False)


def parts(folder: Path) -> list[Path]:
    """Good parts and one of each defect, as a shift might bring them."""
    made = []
    for seed, defect in enumerate([None, *DEFECTS, None, None], start=40):
        made.append(folder / f"{seed}-{defect or 'good'}.png")
        Image.fromarray(render(defect, seed=seed, size=256)[0]).save(made[-1])
    return made


def screen(page: Page) -> bytes:
    """From the top, as high as a desk's window or two of a phone's."""
    page.evaluate("scrollTo(0, 0)")
    size = page.viewport_size or DESKTOP
    high = page.evaluate("document.documentElement.scrollHeight")
    clip = {"x": 0, "y": 0, "width": size["width"], "height": min(high, 1_500)}
    return page.screenshot(full_page=True, clip=clip)


def save(png: bytes, path: Path) -> None:
    with Image.open(io.BytesIO(png)) as picture:
        picture.convert("RGB").save(path, quality=QUALITY)


def inspect_tab(page: Page, files: list[Path]) -> str:
    upload(page, STARTER / "examples" / "2-missing-wire.png")
    inspect(page)
    return ""


def what_if(page: Page, files: list[Path]) -> str:
    page.locator("#what-if > button").click()
    page.wait_for_timeout(1_000)  # an inspection that has just ended still lays the lines
    for slider in page.locator(".what-if-line input[type=range]:visible").all()[:2]:
        slider.fill(slider.get_attribute("max") or "")
    expect(page.locator("#what-if-answer .hypothetical strong")).not_to_have_text("DEFECT")
    return "#what-if"


def costs(page: Page, files: list[Path]) -> str:
    page.locator("#costs > button").click()
    expect(page.locator("#cost-table table")).to_be_visible()
    return "#costs"


def batch(page: Page, files: list[Path]) -> str:
    open_tab(page, "Batch")
    page.set_input_files("#batch-files input[type=file]", files)
    expect(page.locator("#batch-files")).to_contain_text(files[-1].stem)
    page.locator("#batch-start").click()
    expect(page.locator("#batch-status")).to_contain_text("Done", timeout=120_000)
    expect(page.locator("#batch-gallery .caption-label")).to_have_count(len(files))
    return ""


def compare(page: Page, files: list[Path]) -> str:
    open_tab(page, "Compare")
    page.locator("#cmp-run").click()
    expect(page.locator("#cmp-results .verdict")).to_have_count(2)
    return ""


def feedback(page: Page, files: list[Path]) -> str:
    open_tab(page, "Feedback")
    expect(page.locator("#queue-state [role=status]")).to_be_visible()
    return ""


def models(page: Page, files: list[Path]) -> str:
    open_tab(page, "Models")
    expect(page.locator("#models table").first).to_be_visible()
    return ""


def monitor(page: Page, files: list[Path]) -> str:
    open_tab(page, "Monitor")
    expect(page.locator("#monitor .chart").first).to_be_visible()
    return ""


SHOWN: dict[str, Callable[[Page, list[Path]], str]] = {  # name of the picture -> what of the page; the whole if empty
    "inspect": inspect_tab,
    "what-if": what_if,
    "costs": costs,
    "batch": batch,
    "compare": compare,
    "feedback": feedback,
    "models": models,
    "monitor": monitor,
}


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/screens"))
