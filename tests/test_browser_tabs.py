"""Batch, Compare, Models, Monitor and feedback in Chromium: the main way of each, and what it says at its worst."""

import csv
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from browser_page import Open, inspect, open_tab, upload, write
from conftest import RunningApp
from playwright.sync_api import Page, expect

from anomaly.settings import STARTER, Settings

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def tiny(
    start_app: Callable[[Settings], RunningApp], inspector_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> RunningApp:
    """The app on a tiny inspector, with a log, a folder for feedback, and batches of at most five pictures."""
    kept = tmp_path_factory.mktemp("kept")
    return start_app(
        Settings(
            inspectors=(str(inspector_folder),),
            log=kept / "log",
            feedback=kept / "feedback",
            batch_files=5,
            batch_bytes=1_000_000,
        )
    )


@pytest.fixture(scope="module")
def archive(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("archive") / "shift.zip"
    with zipfile.ZipFile(path, "w") as packed:
        for name in ("good", "missing"):
            packed.write(pictures / f"{name}.png", f"shift 1/{name}.png")
    return path


def batch_of(page: Page, *files: Path) -> None:
    open_tab(page, "Batch")
    page.set_input_files("#batch-files input[type=file]", files)
    expect(page.locator("#batch-files")).to_contain_text(files[-1].stem)
    page.locator("#batch-start").click()


def saved(page: Page, button: str) -> str:
    with page.expect_download() as download:
        page.locator(button).click()
    return Path(download.value.path()).read_text()


def test_a_batch_is_sorted_filtered_and_downloaded_and_a_broken_file_stops_no_other(
    open_page: Open, tiny: RunningApp, pictures: Path, archive: Path
) -> None:
    page = open_page(at=tiny)
    batch_of(page, pictures / "missing.png", pictures / "broken.png", pictures / "good.png", archive)
    status = page.locator("#batch-status")
    expect(status).to_contain_text("Done: 5 of 5")
    expect(status.locator(".refused li")).to_have_text(re.compile("broken.png .*cannot be decoded"))
    shown = page.locator("#batch-gallery .caption-label")
    expect(shown).to_have_count(4)
    distances = [float(re.findall(r"([+−][\d.,]+) IQR", text)[0].replace("−", "-")) for text in shown.all_inner_texts()]
    assert distances == sorted(distances, reverse=True)

    decisions = [row["decision"] for row in csv.DictReader(saved(page, "#batch-csv").splitlines()) if row["decision"]]
    lines = [json.loads(line) for line in saved(page, "#batch-jsonl").splitlines()]
    assert len(decisions) == 4
    assert sorted(line["decision"] for line in lines if "decision" in line) == sorted(decisions)

    verdict = page.locator("#batch-verdict label").last  # one of those that occur
    count = int(re.findall(r"\((\d)\)", verdict.inner_text())[0])
    verdict.click()
    expect(shown).to_have_count(count)


def test_a_batch_beyond_the_limits_is_refused_in_words(
    open_page: Open, tiny: RunningApp, pictures: Path, tmp_path: Path
) -> None:
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("part.png", bytes(tiny.settings.batch_bytes + 1))
    assert bomb.stat().st_size < 10_000
    page = open_page(at=tiny)
    batch_of(page, pictures / "good.png", bomb)
    expect(page.locator("#batch-status .warning")).to_contain_text("the limit of a batch is 1,000,000")
    expect(page.locator("#batch-results")).to_be_hidden()
    expect(page.locator("#batch-start")).to_be_enabled()

    many = tmp_path / "many.zip"
    with zipfile.ZipFile(many, "w") as packed:
        for number in range(tiny.settings.batch_files + 1):
            packed.write(pictures / "good.png", f"{number}.png")
    page.locator("#batch-files").get_by_label("Clear").first.click()
    batch_of(page, many)
    expect(page.locator("#batch-status .warning")).to_contain_text("more than 5 pictures")


def test_compare_without_a_picture_says_so(open_page: Open, tiny: RunningApp) -> None:
    page = open_page(at=tiny)
    open_tab(page, "Compare")
    expect(page.locator("#cmp-first-policy input")).not_to_have_value("")
    page.locator("#cmp-run").click()
    expect(page.locator(".toast-body")).to_contain_text("There is no picture yet")
    expect(page.locator("#cmp-run")).to_be_enabled()
    expect(page.locator("#cmp-results")).to_be_hidden()


def test_models_tells_figures_curves_history_and_cards_when_looked_at(open_page: Open) -> None:
    if not any(STARTER.glob("models--*")):
        pytest.skip("the starter is not built here (make starter), and nothing else carries figures")
    page = open_page()
    expect(page.locator("#models table")).to_have_count(0)
    open_tab(page, "Models")
    expect(page.locator("#models table").first).to_contain_text("patch_knn")
    expect(page.locator("#models .chart polyline")).not_to_have_count(0)
    page.locator("#models-history > button").click()
    expect(page.locator("#models-history .history > li")).to_have_count(2)
    page.locator("#models-cards > button").click()
    expect(page.locator("#models-card h1")).to_be_visible()


def test_models_without_figures_and_of_a_revision_that_is_not_there_says_so(open_page: Open, tiny: RunningApp) -> None:
    page = open_page(at=tiny)
    open_tab(page, "Models")
    expect(page.locator("#models")).to_contain_text("carries no figures (metrics.json)")
    open_tab(page, "Inspect")
    write(page, "#revision", "v99")
    expect(page.locator(".toast-body")).to_contain_text("no revision 'v99'")
    open_tab(page, "Models")
    expect(page.locator("#models .warning")).to_contain_text("no revision 'v99'")


def test_monitor_counts_an_inspection_and_says_when_the_log_is_lost(
    open_page: Open, tiny: RunningApp, pictures: Path
) -> None:
    page = open_page(at=tiny)
    upload(page, pictures / "missing.png")
    inspect(page)
    open_tab(page, "Monitor")
    count = page.locator("#monitor .facts b").first
    expect(count).to_have_text(re.compile("[1-9]"))
    before = int(count.inner_text())
    expect(page.locator("#monitor .chart")).to_have_count(4)
    open_tab(page, "Inspect")
    inspect(page)
    open_tab(page, "Monitor")
    expect(count).to_have_text(str(before + 1))

    log = tiny.settings.log
    assert log is not None
    log.rename(log.with_name("away"))
    log.write_text("a file, where the folder was")
    open_tab(page, "Inspect")
    inspect(page)  # goes on without a log
    open_tab(page, "Monitor")
    expect(page.locator("#monitor .warning")).to_contain_text("the log cannot be written")
    log.unlink()
    log.with_name("away").rename(log)


def test_a_label_is_stored_and_a_folder_that_is_lost_is_told(open_page: Open, tiny: RunningApp, pictures: Path) -> None:
    page = open_page(at=tiny)
    upload(page, pictures / "missing.png")
    inspect(page)
    page.locator("#feedback > button").click()
    page.locator("#feedback-defect").click()
    expect(page.locator("#feedback-said [role=status]")).to_contain_text("Stored")
    folder = tiny.settings.feedback
    assert folder is not None
    assert list(folder.rglob("*.png"))

    folder.rename(folder.with_name("gone"))
    folder.write_text("a file, where the folder was")
    page.locator("#feedback-good").click()
    expect(page.locator("#feedback-said [role=alert]")).to_contain_text(folder.name)
    folder.unlink()
    folder.with_name("gone").rename(folder)
