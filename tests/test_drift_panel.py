"""Whether production has moved, as a running app sees it: what counts as a part, what is bounded, what is said."""

import random
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError
from reports import make_report, make_vote

from anomaly import serving
from anomaly.calibration import Calibration, calibrate
from anomaly.drift import DriftSettings
from anomaly.drift_panel import drift_html, money
from anomaly.drift_watch import DriftWatch, Seen
from anomaly.policy import CascadeRule, Cut, Policy, Rule, Step
from anomaly.report import Report
from anomaly.settings import Settings
from anomaly.texts import LANGUAGES, Language

COMMIT = "a" * 40
WHERE = ("acme/cable-inspector", COMMIT, "cable")
SETTINGS = DriftSettings(window=10)


def good(count: int = 100) -> Calibration:
    draw = random.Random(0)
    return calibrate([draw.gauss(0, 1) for _ in range(count)], [], split_hash="0", far=0.2)


CALIBRATIONS = {"cheap": good(), "dear": good()}
TEXT = {"en": "x", "fr": "x"}
BOTH = Policy(name="both", description=TEXT, rule=Rule(kind="any", members=("cheap", "dear"), threshold="far"))
CASCADE = Policy(
    name="cascade",
    description=TEXT,
    rule=CascadeRule(
        kind="cascade",
        steps=(Step(members=("cheap",), accept=Cut(p_value=0.3)), Step(members=("dear",), reject=Cut(threshold="far"))),
    ),
)


def part(number: int, *, commit: str = COMMIT, **scores: float | None) -> Report:
    """The report on the picture of that number."""
    votes = tuple(make_vote(name, score=score) for name, score in scores.items())
    return make_report(votes=votes, image_sha256=f"{number:064x}", commit=commit)


def watched(scores: Sequence[float], *, parts: int = 1000) -> DriftWatch:
    watch = DriftWatch(SETTINGS, parts=parts)
    for number, score in enumerate(scores):
        watch.add(part(number, cheap=score, dear=score), BOTH, CALIBRATIONS)
    return watch


def told(seen: Seen, language: Language = "en") -> str:
    return drift_html(seen, SETTINGS, language, category="cable", revision="v1", commit=COMMIT)


def test_a_picture_counts_once_and_a_repeat_is_said() -> None:
    watch = DriftWatch(SETTINGS)
    for _ in range(3):
        watch.add(part(1, cheap=0.1), BOTH, CALIBRATIONS)
    seen = watch.seen(*WHERE)
    assert (seen.pictures, seen.repeats) == (1, 2)
    assert [row.finding.parts for row in seen.members if row.finding] == [1]
    assert "Inspections of one seen before, which is no new part: 2." in told(seen)


def test_every_commit_has_its_own_parts() -> None:
    watch = DriftWatch(SETTINGS)
    watch.add(part(1, cheap=0.1), BOTH, CALIBRATIONS)
    watch.add(part(1, commit="b" * 40, cheap=0.1), BOTH, CALIBRATIONS)
    assert (watch.seen(*WHERE).pictures, watch.seen(*WHERE).repeats) == (1, 0)


def test_the_later_detectors_of_a_cascade_are_left_out_for_others_chose_their_parts() -> None:
    watch = DriftWatch(SETTINGS)
    for number in range(30):
        watch.add(part(number, cheap=2.0, dear=9.0), CASCADE, CALIBRATIONS)
    cheap, dear = watch.seen(*WHERE).members
    assert cheap.finding is not None
    assert dear.finding is not None
    assert (cheap.finding.parts, cheap.chosen) == (30, 0)
    assert (dear.finding.parts, dear.chosen) == (0, 30)
    watch.add(part(0, cheap=2.0, dear=9.0), BOTH, CALIBRATIONS)  # asked of every part now, and new to that one
    assert [row.finding.parts for row in watch.seen(*WHERE).members if row.finding] == [30, 1]
    assert "Votes left out: 30" in told(watch.seen(*WHERE))


def test_a_detector_without_a_vote_is_no_part() -> None:
    watch = DriftWatch(SETTINGS)
    watch.add(part(1, cheap=None, dear=0.1), BOTH, CALIBRATIONS)
    cheap, dear = watch.seen(*WHERE).members
    assert cheap.finding is not None
    assert dear.finding is not None
    assert (cheap.failed, cheap.finding.parts, dear.finding.parts) == (1, 0, 1)
    assert "Parts without a vote: 1." in told(watch.seen(*WHERE))


def test_production_like_the_held_out_parts_is_no_drift_and_a_move_is() -> None:
    draw = random.Random(1)
    steady = watched([draw.gauss(0, 1) for _ in range(100)]).seen(*WHERE)
    assert "No drift seen in 100 parts" in told(steady)
    assert "Aucune dérive vue sur 100 pièces" in told(steady, "fr")
    assert "What to do" not in told(steady)
    moved = watched([draw.gauss(0, 1) for _ in range(50)] + [draw.gauss(3, 1) for _ in range(50)]).seen(*WHERE)
    html = told(moved)
    assert "The scores drift up, since about part" in html
    assert "(2026-01-01 00:00 UTC)" in html
    assert "What to do" in html
    assert 'class="moved"' in html


def test_too_few_held_out_scores_are_told() -> None:
    watch = DriftWatch(SETTINGS)
    watch.add(part(1, few=0.1), BOTH, {"few": good(9)})
    assert "Cannot be watched: 9 held-out good scores, at least 10 are needed" in told(watch.seen(*WHERE))


@pytest.mark.parametrize("language", LANGUAGES.values())
def test_before_the_first_part_the_panel_still_says_what_it_promises(language: Language) -> None:
    html = told(DriftWatch(SETTINGS).seen(*WHERE), language)
    assert "<table" not in html
    for words in ("VIGIE_DRIFT_WINDOW", "VIGIE_DRIFT_LEVEL", "1 %", "5 %", "Ville", "python -m anomaly drift LOG"):
        assert words in html


def test_memory_is_bounded_and_a_monitor_begins_anew_unless_it_found_drift() -> None:
    draw = random.Random(2)
    watch = watched([draw.gauss(0, 1) for _ in range(70)], parts=30)
    first = watch.seen(*WHERE).members[0]
    assert first.finding is not None
    assert (first.earlier, first.finding.parts) == (60, 10)
    assert "Begun anew after 60 parts without drift." in told(watch.seen(*WHERE))
    moved = watched([5.0 + draw.random() for _ in range(70)], parts=30).seen(*WHERE).members[0]
    assert moved.finding is not None
    assert (moved.earlier, moved.finding.parts, moved.finding.drift) == (0, 30, True)
    few = DriftWatch(SETTINGS, lines=2)
    for letter in "abc":
        few.add(part(1, commit=letter * 40, cheap=0.1), BOTH, CALIBRATIONS)
    assert few.seen(*WHERE).pictures == 0
    assert few.seen(WHERE[0], "c" * 40, "cable").pictures == 1


def test_parts_that_come_at_once_are_all_counted() -> None:
    watch = DriftWatch(SETTINGS)

    def send(start: int) -> None:
        for number in range(start, start + 50):
            watch.add(part(number, cheap=0.1, dear=0.2), BOTH, CALIBRATIONS)

    threads = [threading.Thread(target=send, args=(50 * index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [row.finding.parts for row in watch.seen(*WHERE).members if row.finding] == [200, 200]


@pytest.mark.parametrize(
    ("value", "said"),
    [(1.0, "1.00"), (200.0, "200"), (3.2e9, "3\u00a0×\u00a010^9"), (2e-7, "2\u00a0×\u00a010^-7"), (0.0, "0")],
)
def test_what_is_far_from_one_is_a_power_of_ten(value: float, said: str) -> None:
    assert money(value, "en") == said


def test_an_inspection_of_page_and_api_is_taken_in(inspector_folder: Path, tmp_path: Path) -> None:
    settings = Settings(inspectors=(str(inspector_folder),), drift_window=20)
    Image.fromarray(np.full((64, 64, 3), 90, np.uint8)).save(tmp_path / "part.png")
    for _ in range(2):
        report = serving.inspect(settings, str(tmp_path / "part.png"), "", "v1", "").report
    service = serving.service(settings)
    last = service.last(None, "v1")
    assert last.commit == report.commit
    seen = service.drift.seen(last.source, last.commit, last.file.category)
    assert (seen.pictures, seen.repeats, len(seen.members)) == (1, 1, len(report.votes))
    assert service.drift.settings.window == 20


@pytest.mark.parametrize(("name", "value"), [("WINDOW", "9"), ("LEVEL", "0"), ("LEVEL", "1"), ("PREVALENCE", "0.5")])
def test_settings_that_make_no_sense_are_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"VIGIE_DRIFT_{name}", value)
    with pytest.raises(ValidationError, match=f"drift_{name.lower()}"):
        Settings()
