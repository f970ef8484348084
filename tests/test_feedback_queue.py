"""Which parts a person is asked about: the unsure ones of one visit, the most ambiguous first, and in the browser."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser_page import PHONE, Open, inspect, open_tab, upload
from conftest import RunningApp
from PIL import Image
from playwright.sync_api import Page, expect
from reports import make_report, make_vote

from anomaly import images, serving
from anomaly.batch import Entry
from anomaly.explain import Explanation, Reading
from anomaly.feedback_queue import Waiting, nearest, queued, unsure, without
from anomaly.feedback_tab import first, part_html, state_html
from anomaly.report import Report
from anomaly.settings import STARTER, Settings

ENTRY = Entry("part.png", Path("part.png"))


def explanation(readings: tuple[Reading, ...]) -> Explanation:
    return Explanation(fired="rule", agreed=(), readings=readings, flip=None, sentences={"en": ("",), "fr": ("",)})


def part(key: str, decision: str, *distances: float | None, **changes: Any) -> Report:
    """A report with a vote of "ok" and one of "defect", and counted members at these distances from their lines."""
    votes = (make_vote("a", score=1.0), make_vote("b", score=9.0))
    readings = tuple(
        Reading(member=f"m{i}", verdict="ok", agrees=True, counted=True, cut="far", distance=far, distance_iqr=far)
        for i, far in enumerate(distances)
    )
    why = None if not readings else explanation(readings)
    return make_report(image_sha256=key * 64, decision=decision, votes=votes, explanation=why, **changes)


def test_unsure_is_a_review_or_a_quarrel_of_those_that_count() -> None:
    votes = (make_vote("a", score=1.0), make_vote("b", score=9.0), make_vote("c", score=None))
    assert unsure(make_report(votes=votes))
    assert unsure(make_report(decision="review"))
    assert not unsure(make_report(votes=votes[:1]))
    assert not unsure(make_report(votes=(votes[0], make_vote("b", score=9.0, counted=False))))
    assert not unsure(None)


def test_reviews_come_first_then_the_smallest_distance_and_the_unknown_last() -> None:
    reports = [
        part("1", "ok", 0.2, -3.0),
        part("2", "review", 5.0),
        part("3", "defect"),
        part("4", "defect", -0.1),
        part("5", "review", -0.5, None),
        part("6", "review"),
    ]
    queue = queued((), [(ENTRY, report) for report in reports])
    assert [waiting.report.image_sha256[0] for waiting in queue] == ["5", "2", "6", "4", "1", "3"]
    assert nearest(reports[0]) == ("m0", 0.2)


def test_a_member_that_does_not_count_is_not_near() -> None:
    report = part("1", "review", 0.2)
    assert report.explanation is not None
    aside = report.explanation.readings[0].model_copy(update={"counted": False})
    assert nearest(report.model_copy(update={"explanation": explanation((aside,))})) is None


def test_of_a_picture_the_latest_inspection_counts() -> None:
    queue = queued((), [(ENTRY, part("1", "review")), (ENTRY, part("2", "review"))])
    queue = queued(queue, [(ENTRY, part("1", "ok", 0.5)), (ENTRY, make_report(image_sha256="2" * 64))])
    assert [(waiting.report.image_sha256[0], waiting.report.decision) for waiting in queue] == [("1", "ok")]
    assert without(queue, queue[0]) == ()


def test_what_is_labelled_or_gone_is_passed_over(tmp_path: Path) -> None:
    settings = Settings(feedback=tmp_path / "said")
    reports = []
    for seed in range(3):
        pixels = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{seed}.png")
        reports.append(make_report(image_sha256=images.digest(pixels), decision="review"))
    queue = tuple(Waiting(Entry(f"{i}.png", tmp_path / f"{i}.png"), report) for i, report in enumerate(reports))
    assert first(queue, settings)[0] == queue
    serving.give_feedback(settings, tmp_path / "0.png", reports[0], "cut")
    (tmp_path / "1.png").unlink()
    waiting, canvas = first(queue, settings)
    assert waiting == queue[2:]
    assert canvas is not None
    assert canvas.size == (32, 24)
    assert first(queue, Settings()) == ((), None)


def test_the_tab_says_what_comes_or_how_to_switch_it_on(tmp_path: Path) -> None:
    assert "VIGIE_FEEDBACK" in state_html(None, 0, Settings(), "en")
    on = Settings(feedback=tmp_path)
    assert "No part waits for you" in state_html(None, 0, on, "en")
    waiting = Waiting(Entry("<b>.png", Path("b.png")), part("1", "review", -0.25))
    assert "vous attendent : 7" in state_html(waiting, 7, on, "fr")
    said = part_html(waiting, "en")
    assert "&lt;b&gt;.png" in said
    assert "DEFECT: b · OK: a · Nearest to its threshold: m0, \u22120.250 IQR" in said


@pytest.mark.browser
def test_a_doubtful_part_is_offered_skipped_painted_on_and_gone(
    open_page: Open, start_app: Callable[[Settings], RunningApp], tmp_path: Path
) -> None:
    examples = sorted((STARTER / "examples").glob("*.png"))
    if not examples:
        pytest.skip("the starter is not built here (make starter), so there are no examples")
    settings = Settings(feedback=tmp_path / "said")
    app = start_app(settings)
    doubtful = next(
        (file for file in examples if unsure(serving.inspect(settings, str(file), "", "", "").report)), None
    )
    if doubtful is None:
        pytest.skip("the starter's detectors agree on all of its examples")
    page = open_page(viewport=PHONE, at=app)
    open_tab(page, "Feedback")
    expect(page.locator("#queue-state")).to_contain_text("No part waits for you")
    open_tab(page, "Batch")
    page.set_input_files("#batch-files input[type=file]", doubtful)
    expect(page.locator("#batch-files")).to_contain_text(doubtful.stem)
    page.locator("#batch-start").click()
    expect(page.locator("#batch-results")).to_be_visible()
    expect(page.locator("#batch-start")).to_be_enabled()
    open_tab(page, "Feedback")
    expect(page.locator("#queue-verdict")).to_contain_text(doubtful.name)
    page.locator("#queue-skip").click()
    expect(page.locator("#queue-state")).to_contain_text("No part waits for you")
    open_tab(page, "Inspect")
    upload(page, doubtful)
    inspect(page)
    open_tab(page, "Feedback")
    expect(page.locator("#queue-verdict")).to_contain_text(doubtful.name)

    other = open_page(at=app)
    open_tab(other, "Feedback")
    expect(other.locator("#queue-state")).to_contain_text("No part waits for you")

    page.locator("#queue-mark").click()
    expect(page.locator("#queue-picture")).to_be_hidden()
    paint(page, "#queue-region canvas")
    page.locator("#queue-good").click()
    expect(page.locator("#queue-said")).to_contain_text("a good part has no defect to mark")
    page.locator("#queue-defect").click()
    expect(page.locator("#queue-said")).to_contain_text("Stored as “defect”")
    expect(page.locator("#queue-state")).to_contain_text("No part waits for you")
    expect(page.locator("#queue-part")).to_be_hidden()
    (mask,) = (tmp_path / "said").glob("cable/ground_truth_train/defect/*_mask.png")
    marked = np.asarray(Image.open(mask))
    assert marked.shape == images.read(doubtful).shape[:2]
    assert 0 < (marked == 255).mean() < 0.5


def paint(page: Page, canvas: str) -> None:
    place = page.locator(canvas).first
    place.scroll_into_view_if_needed()
    page.wait_for_timeout(1_500)  # the picture is laid on it
    box = place.bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 30, y + 20, steps=5)
    page.mouse.up()
    page.wait_for_timeout(500)
