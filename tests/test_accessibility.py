"""The page for those who see it badly or use no mouse: axe-core (deque.com/axe; WCAG 2 A and AA), and the keyboard."""

from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from browser_page import DESKTOP, PHONE, Open, inspect, open_tab, upload
from playwright.sync_api import Page, expect

from anomaly.settings import STARTER

pytestmark = pytest.mark.browser

RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
GRADIOS_OWN = [
    ['#batch-files button[aria-label="common.upload"]'],  # a button around a file input, made by gr.File of 6.31
]
TABS = ["Inspect", "Batch", "Compare", "Feedback", "Models", "Monitor"]
AUDIT = """async ([include, exclude, options]) => {
  const found = await axe.run({include, exclude}, {...options, resultTypes: ["violations"]});
  const grave = found.violations.filter((one) => ["serious", "critical"].includes(one.impact));
  return grave.flatMap((one) => one.nodes.map((node) => [one.id, node.target, node.failureSummary].join(" ")));
}"""
ALL_RULES: dict[str, Any] = {"runOnly": RULES}
CONTRAST: dict[str, Any] = {"runOnly": {"type": "rule", "values": ["color-contrast"]}}
WATCH_INSPECT = """() => {
    const button = document.querySelector('#inspect')
    window.heldBack = false
    new MutationObserver(() => window.heldBack ||= button.disabled).observe(button, {attributes: true})
}"""
OUTLINE = (
    "() => { const style = getComputedStyle(document.activeElement); return [style.outlineStyle, style.outlineWidth] }"
)


def violations(page: Page, part: str = "html") -> list[str]:
    """Serious and critical ones in it: in light by all rules, in dark by the one that depends on colours."""
    found: list[str] = []
    for dark, options in ((False, ALL_RULES), (True, CONTRAST)):
        page.evaluate("dark => document.body.classList.toggle('dark', dark)", dark)  # as Gradio does for __theme
        found += page.evaluate(AUDIT, [[[part]], GRADIOS_OWN, options])
    return found


def audited(open_page: Open, viewport: dict[str, int]) -> Page:
    page = open_page(viewport=viewport)
    page.add_style_tag(content="* { transition: none !important; animation: none !important }")  # no colour half-way
    page.evaluate(AXE_SCRIPT)
    return page


VIEWPORTS = pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])


@VIEWPORTS
def test_axe_finds_nothing_before_an_inspection(open_page: Open, viewport: dict[str, int]) -> None:
    page = audited(open_page, viewport)
    expect(page.locator("#tabs [role=tab]")).to_have_text(TABS)
    for name in TABS:
        open_tab(page, name)
        expect(page.locator(f"#tab-{name.lower()} h2")).to_have_text(name)
        assert violations(page) == [], name


@VIEWPORTS
def test_axe_finds_nothing_in_what_an_inspection_fills(
    open_page: Open, viewport: dict[str, int], pictures: Path
) -> None:
    page = audited(open_page, viewport)
    upload(page, pictures / "missing.png")
    inspect(page)
    page.locator("#promises summary").click()
    for closed in ("#what-if", "#feedback", "#report", "#moved", "#costs"):
        page.locator(f"{closed} > button").click()
    expect(page.locator("#cost-table")).not_to_be_empty()
    expect(page.locator("#drift")).not_to_be_empty()
    expect(page.locator("#report .json-node").first).to_be_visible()
    assert violations(page, "#tab-inspect") == []

    open_tab(page, "Batch")
    page.set_input_files("#batch-files input[type=file]", [pictures / f"{name}.png" for name in ("good", "broken")])
    expect(page.locator("#batch-files")).to_contain_text("broken")
    page.locator("#batch-start").click()
    expect(page.locator("#batch-status")).to_contain_text("Done")
    expect(page.locator("#batch-gallery .caption-label")).to_have_count(1)
    assert violations(page, "#tab-batch") == []

    open_tab(page, "Compare")
    page.locator("#cmp-run").click()
    expect(page.locator("#cmp-results .verdict")).to_have_count(2)
    assert violations(page, "#tab-compare") == []

    open_tab(page, "Models")
    expect(page.locator("#models table").first).to_be_visible()
    for closed in ("history", "cards"):
        page.locator(f"#models-{closed} > button").click()
    expect(page.locator("#models-history .history > li").first).to_be_visible()
    expect(page.locator("#models-card")).not_to_be_empty()
    assert violations(page, "#tab-models") == []

    open_tab(page, "Monitor")
    expect(page.locator("#monitor .chart").first).to_be_visible()
    assert violations(page, "#tab-monitor") == []
    open_tab(page, "Feedback")
    expect(page.locator("#queue-state [role=status]")).to_be_visible()
    assert violations(page, "#tab-feedback") == []


def test_the_keyboard_reaches_the_picture_and_inspect_with_a_ring_to_see(open_page: Open) -> None:
    page = open_page()
    page.evaluate(WATCH_INSPECT)
    page.locator("#tab-inspect-button").focus()
    reached = []
    for _ in range(30):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.closest('#picture, #inspect, #revision, #policy')?.id"))
        if reached[-1] in ("picture", "inspect"):
            style, width = page.evaluate(OUTLINE)
            assert (style, width) == ("solid", "3px")
        if reached[-1] == "inspect":
            break
    assert list(dict.fromkeys(filter(None, reached))) == ["picture", "revision", "policy", "inspect"]
    assert not page.evaluate("window.heldBack"), "Revision that is only passed by must not hold Inspect back"
    page.keyboard.press("Enter")
    expect(page.locator(".toast-body")).to_contain_text("There is no picture yet")


def test_arrows_move_between_the_tabs_and_around_their_ends(open_page: Open) -> None:
    page = open_page()
    tabs = page.locator("#tabs [role=tab]")
    page.locator("#tab-inspect-button").focus()
    for key, place in (("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("ArrowLeft", 0), ("ArrowLeft", -1)):
        page.keyboard.press(key)
        expect(tabs.nth(place)).to_be_focused()
        expect(tabs.nth(place)).to_have_attribute("aria-selected", "true")
    assert page.evaluate(OUTLINE) == ["solid", "3px"]


def test_the_page_says_in_which_language_it_is_read_and_names_its_examples(open_page: Open) -> None:
    page = open_page(locale="fr-FR")
    expect(page.locator("html")).to_have_attribute("lang", "fr")
    examples = page.locator("#ask .gallery-item")
    if any(STARTER.glob("models--*")):
        expect(examples.nth(1)).to_have_accessible_name("Exemples 2")
    page.locator("#language label", has_text="English").click()
    expect(page.locator("html")).to_have_attribute("lang", "en")
    expect(page.locator("#tab-inspect h2")).to_have_text("Inspect")
