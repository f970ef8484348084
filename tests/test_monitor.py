"""The log of inspections: whole lines only, rotated, readable by `drift`; and what the Monitor tab says of it."""

import html
import json
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path

import pytest
from PIL import Image
from reports import make_emissions, make_report, make_vote

from anomaly import serving
from anomaly.drift_log import read_log
from anomaly.drift_watch import Seen
from anomaly.monitor import NAME, Entry, Journal, grouped, over_time, summarise
from anomaly.monitor_tab import drift_sentence, monitor_html, within
from anomaly.report import Report
from anomaly.settings import Settings

START = datetime(2026, 1, 1, tzinfo=UTC)


def report(number: int = 0, **changes: object) -> Report:
    at = (START + timedelta(minutes=number)).isoformat(timespec="milliseconds")
    votes = (make_vote("patch_knn", score=1.0 + number),)
    return make_report(**{"created_at": at, "image_sha256": f"{number:064x}", "votes": votes, **changes})


def lines(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for path in sorted(folder.glob(NAME)) for line in path.read_text().splitlines()]


def write_many(folder: Path, first: int) -> None:
    journal = Journal(folder)
    for number in range(first, first + 50):
        journal.add(report(number))


def test_a_line_is_what_inspect_json_writes_and_drift_reads_it(tmp_path: Path) -> None:
    Journal(tmp_path).add(report(3), tmp_path / "part.png")
    assert lines(tmp_path) == [{"image": "part.png", **report(3).model_dump(mode="json")}]
    log = read_log(next(tmp_path.glob(NAME)))
    assert (log.reports, log.wrong) == (1, {})
    assert [score for scores in log.scores.values() for _, score, _ in scores] == [4.0]


def test_without_a_folder_nothing_is_written_and_the_latest_are_remembered() -> None:
    journal = Journal(remembered=3)
    for number in range(5):
        journal.add(report(number))
    assert [entry.at for entry in journal.entries()] == [START + timedelta(minutes=n) for n in (2, 3, 4)]


@pytest.mark.parametrize("left", [b'{"decision": "ok", "crea', b"x" * 200_000, b"\xff"])
def test_what_a_crash_left_of_a_line_is_cut_off(tmp_path: Path, left: bytes) -> None:
    Journal(tmp_path).add(report(0))
    with next(tmp_path.glob(NAME)).open("ab") as file:
        file.write(left)
    again = Journal(tmp_path)
    assert len(again.entries()) == 1
    again.add(report(1))
    assert [line["image_sha256"] for line in lines(tmp_path)] == [f"{n:064x}" for n in (0, 1)]
    assert len(again.entries()) == 2


def test_a_file_of_half_a_line_only_starts_again(tmp_path: Path) -> None:
    (tmp_path / NAME.replace("*", "20260101T000000.000000Z")).write_bytes(b'{"half')
    journal = Journal(tmp_path)
    journal.add(report(0))
    assert len(lines(tmp_path)) == len(journal.entries()) == 1


def test_the_log_is_rotated_and_the_oldest_file_goes_with_its_pictures(tmp_path: Path) -> None:
    picture = tmp_path / "part.PNG"
    Image.new("RGB", (20, 20)).save(picture)
    folder = tmp_path / "log"
    journal = Journal(folder, max_bytes=1, files=2, pictures=True)
    for number in range(4):
        journal.add(report(number), picture)
    assert [line["image_sha256"] for line in lines(folder)] == [f"{n:064x}" for n in (2, 3)]
    kept = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
    assert kept == [line["image"] for line in lines(folder)]
    assert len(kept) == 2
    assert len([path for path in folder.iterdir() if path.is_dir()]) == 2


def test_no_picture_is_kept_unless_asked(tmp_path: Path) -> None:
    picture = tmp_path / "part.png"
    Image.new("RGB", (20, 20)).save(picture)
    Journal(tmp_path / "log").add(report(0), picture)
    assert [path.name for path in (tmp_path / "log").rglob("*") if path.suffix == ".png"] == []


def test_a_restart_goes_on_where_the_log_is_and_sees_what_others_write(tmp_path: Path) -> None:
    first, second = Journal(tmp_path), Journal(tmp_path)
    first.add(report(0))
    second.add(report(1))
    first.add(report(2))
    assert len(first.entries()) == len(second.entries()) == len(Journal(tmp_path).entries()) == 3
    assert len(list(tmp_path.glob(NAME))) == 1


def test_two_processes_write_whole_lines(tmp_path: Path) -> None:
    context = get_context("fork")
    workers = [context.Process(target=write_many, args=(tmp_path, first)) for first in (0, 50)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert {line["image_sha256"] for line in lines(tmp_path)} == {f"{n:064x}" for n in range(100)}


def test_a_log_that_cannot_be_written_stops_nothing_and_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    journal = Journal(tmp_path / "file" / "log")
    journal.add(report(0))
    assert "the log cannot be written" in str(journal.problem)
    said = monitor_html([], "en", folder=journal.folder, problem=journal.problem, empty=True)
    assert "the log cannot be written" in said


def test_a_line_of_somebody_else_is_passed_over(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.add(report(0))
    with next(tmp_path.glob(NAME)).open("a") as file:
        file.write('not json\n{"decision": "ok"}\n[]\n')
    journal.add(report(1))
    assert len(journal.entries()) == 2


def entry(minutes: float, decision: str = "ok", ms: float = 10.0, mj: float | None = 100.0, policy: str = "a") -> Entry:
    return Entry(START + timedelta(minutes=minutes), decision, ms, mj, "acme/cable", "v1", "a" * 40, policy)


def test_rate_latency_and_energy_are_those_of_the_entries() -> None:
    decisions = ["ok"] * 16 + ["defect"] * 3 + ["review"]
    entries = [entry(n, decision, ms=n + 1, mj=None if n == 0 else 180.0) for n, decision in enumerate(decisions)]
    found = summarise(entries)
    assert found is not None
    assert (found.count, found.defects, found.reviews, found.anomaly_rate) == (20, 3, 1, 0.2)
    assert (found.median_ms, found.p95_ms) == (10.5, 19)
    assert (found.measured, found.mean_mj, found.sum_mj, found.wh_per_1000) == (19, 180.0, 19 * 180.0, 0.05)
    assert summarise([]) is None


def test_no_energy_is_not_zero_energy() -> None:
    found = summarise([entry(0, mj=None)])
    assert found is not None
    assert (found.mean_mj, found.sum_mj, found.wh_per_1000) == (None, None, None)
    said = monitor_html([entry(0, mj=None)], "en", folder=None)
    assert "not known" in said or "unknown" in said


def test_every_entry_is_in_one_part_of_the_time() -> None:
    entries = [entry(n * 1.7, policy="ab"[n % 2]) for n in range(40)]
    parts = over_time(entries, bins=7)
    assert len(parts) == 7
    assert sum(found.count for _, found in parts if found) == 40
    assert [len(over_time(entries[:1])), len(over_time([]))] == [1, 0]
    assert [found.count for found in grouped([*entries, entry(0, policy="b")]).values()] == [21, 20]


def test_a_period_leaves_out_what_is_older() -> None:
    entries = [entry(0), entry(100), entry(119)]
    now = START + timedelta(minutes=120)
    assert [len(within(entries, period, now)) for period in ("hour", "day", "week", "all")] == [2, 3, 3, 3]


def test_names_in_a_log_are_escaped() -> None:
    said = monitor_html([entry(0, policy="<script>")], "en", folder=Path("/tmp/<b>"))
    assert "<script>" not in said
    assert "<b>”" not in said


@pytest.mark.parametrize(("language", "said"), [("en", "Nothing has been inspected yet"), ("fr", "Rien n'a encore")])
def test_the_empty_state_says_what_to_do(language: str, said: str) -> None:
    text = html.unescape(monitor_html([], language, folder=None, empty=True))  # type: ignore[arg-type]
    assert said in text
    assert "VIGIE_LOG" in text


def test_drift_without_a_part_says_so() -> None:
    assert "No part has been watched" in drift_sentence(Seen(0, 0, ()), "cable v1", "en")


def test_an_inspection_of_the_app_is_logged(inspector_folder: Path, picture_file: Path, tmp_path: Path) -> None:
    settings = Settings(inspectors=(str(inspector_folder),), log=tmp_path / "log", log_pictures=True)
    shown = serving.inspect(settings, str(picture_file), "", "v1", "")
    (line,) = lines(tmp_path / "log")
    assert (tmp_path / "log" / str(line.pop("image"))).read_bytes() == picture_file.read_bytes()
    assert line == shown.report.model_dump(mode="json")
    (found,) = serving.journal(settings).entries()
    assert found.duration_ms == shown.report.duration_ms
    assert found.energy_mj == shown.report.emissions.energy_mj
    assert make_emissions().energy_mj != found.energy_mj
