"""Many pictures at once: what counts as one, the limits, one bad file among good ones, and what can be downloaded."""

import csv
import io
import json
import struct
import tempfile
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from conftest import RunningApp
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image
from reports import make_report, make_vote

from anomaly import batch, batch_export, batch_tab, serving
from anomaly.batch import Entry, Limits, Row
from anomaly.batch_tab import running
from anomaly.batch_text import Batch, status_html
from anomaly.drift_log import read_log
from anomaly.errors import ImageTooLargeError, NoPictureError, PolicyError
from anomaly.explain import Explanation, Reading
from anomaly.report import Report
from anomaly.settings import Settings
from anomaly.texts import LANGUAGES, Language
from training.synthetic_cable import render

LIMITS = Limits(files=5, bytes_each=50_000, bytes_all=100_000)


@pytest.fixture(scope="module")
def settings(inspector_folder: Path) -> Settings:
    return Settings(inspectors=(str(inspector_folder),))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """good.png, missing.png and broken.png, and archive.zip of the first two in a folder."""
    folder = tmp_path_factory.mktemp("batch")
    for name, defect in (("good", None), ("missing", "missing_cable")):
        Image.fromarray(render(defect, seed=3, size=64)[0]).save(folder / f"{name}.png")
    (folder / "broken.png").write_bytes((folder / "good.png").read_bytes()[:500])
    with zipfile.ZipFile(folder / "archive.zip", "w") as archive:
        for name in ("good", "missing"):
            archive.write(folder / f"{name}.png", f"shift 1/{name}.png")
    return folder


@pytest.fixture(scope="module")
def rows(settings: Settings, pictures: Path) -> list[Row]:
    """Of good.png, broken.png and the archive."""
    files = [(name, pictures / name) for name in ("good.png", "broken.png", "archive.zip")]
    waiting = batch.entries(files, batch.limits_of(settings))
    return list(batch.inspect_all(settings, waiting, "", "v1", "", draw=True))


def packed(folder: Path, contents: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> list[tuple[str, Path]]:
    path = folder / "a.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
    return [("a.zip", path)]


def with_distance(name: str, *distances: float | None, decision: str = "ok") -> Row:
    readings = tuple(
        Reading(member=f"m{i}", verdict="ok", agrees=True, counted=i == 0, cut="f1", distance=far, distance_iqr=far)
        for i, far in enumerate(distances)
    )
    why = Explanation(fired="rule", agreed=(), readings=readings, flip=None, sentences={})
    return Row(name, make_report(explanation=why, decision=decision))


# --- what is inspected, and within which limits ----------------------------------------------------------------------


def test_an_archive_counts_as_the_pictures_in_it_without_what_file_managers_add(tmp_path: Path) -> None:
    contents = {"a/1.png": b"x", "__MACOSX/a/._1.png": b"x", ".DS_Store": b"x", "a/2.png": b"x"}
    found = batch.entries(packed(tmp_path, contents), LIMITS)
    assert [(entry.name, entry.error) for entry in found] == [("a.zip/a/1.png", None), ("a.zip/a/2.png", None)]


def test_an_archive_is_known_by_its_bytes_and_a_picture_with_an_archive_behind_it_is_a_picture(
    tmp_path: Path, pictures: Path
) -> None:
    ((_, archive),) = packed(tmp_path, {"1.png": b"x"})
    both = tmp_path / "both.png"
    both.write_bytes((pictures / "good.png").read_bytes() + archive.read_bytes())
    found = batch.entries([("pictures", archive), ("both.png", both)], LIMITS)
    assert [entry.name for entry in found] == ["pictures/1.png", "both.png"]


def test_too_many_pictures_are_refused_before_any_is_inspected(tmp_path: Path) -> None:
    with pytest.raises(ImageTooLargeError, match="more than 5 pictures"):
        batch.entries(packed(tmp_path, {f"{number}.png": b"x" for number in range(6)}), LIMITS)


def test_what_is_too_big_when_unpacked_is_refused_before_anything_is_unpacked(tmp_path: Path) -> None:
    bomb = packed(tmp_path, {f"{number}.png": bytes(30_000) for number in range(4)})
    assert bomb[0][1].stat().st_size < 1000
    with pytest.raises(ImageTooLargeError, match="120,000 bytes or more when unpacked"):
        batch.entries(bomb, LIMITS)


def test_an_archive_that_lies_about_sizes_is_read_no_further_than_the_limit(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    ((name, path),) = packed(tmp_path, {"1.png": bytes(1_000_000)})
    data = path.read_bytes()
    path.write_bytes(data.replace(struct.pack("<I", 1_000_000), struct.pack("<I", 1000)))
    read: list[int] = []
    usual = zipfile.ZipExtFile.read
    monkeypatch.setattr(
        zipfile.ZipExtFile, "read", lambda self, n=-1: (got := usual(self, n), read.append(len(got)))[0]
    )
    (row,) = batch.inspect_all(settings, batch.entries([(name, path)], LIMITS), "", "", "", draw=False)
    assert row.error is not None
    assert sum(read) <= LIMITS.bytes_each


def test_an_archive_with_an_endless_table_of_contents_is_not_read(tmp_path: Path) -> None:
    ((name, path),) = packed(tmp_path, {f"{number}.png": b"" for number in range(4000)})
    (entry,) = batch.entries([(name, path)], LIMITS)
    assert entry.error is not None
    assert "table of contents" in entry.error


@pytest.mark.parametrize(
    ("inside", "why"),
    [
        ("../../etc/1.png", "leads out of its archive"),
        ("/1.png", "leads out of its archive"),
        ("C:\\1.png", "leads out of its archive"),
        ("a\\..\\..\\1.png", "leads out of its archive"),
        ("more.zip", "an archive within an archive"),
    ],
)
def test_an_odd_name_in_an_archive_is_an_error_of_its_own(tmp_path: Path, inside: str, why: str) -> None:
    odd, good = batch.entries(packed(tmp_path, {inside: b"x", "good.png": b"x"}), LIMITS)
    assert why in str(odd.error)
    assert good.error is None


def test_a_packing_that_may_ask_for_gigabytes_is_refused(tmp_path: Path) -> None:
    (entry,) = batch.entries(packed(tmp_path, {"1.png": b"x" * 100}, zipfile.ZIP_LZMA), LIMITS)
    assert "other than deflate" in str(entry.error)


def test_a_damaged_archive_is_one_row_and_the_others_go_on(tmp_path: Path, pictures: Path) -> None:
    damaged = tmp_path / "damaged.zip"
    damaged.write_bytes((pictures / "archive.zip").read_bytes()[:-30])
    found = batch.entries([("damaged.zip", damaged), ("good.png", pictures / "good.png")], LIMITS)
    assert "'damaged.zip' is no ZIP archive" in str(found[0].error)
    assert found[1] == Entry("good.png", pictures / "good.png")


def test_nothing_to_inspect_is_said(tmp_path: Path) -> None:
    for files in ([], packed(tmp_path, {})):
        with pytest.raises(NoPictureError, match="no picture in what was sent"):
            batch.entries(files, LIMITS)


# --- rows ------------------------------------------------------------------------------------------------------------


def test_each_picture_gets_the_report_of_a_single_inspection_and_a_bad_one_its_error(
    rows: list[Row], settings: Settings, pictures: Path
) -> None:
    assert [row.file for row in rows] == [
        "good.png", "broken.png", "archive.zip/shift 1/good.png", "archive.zip/shift 1/missing.png",
    ]  # fmt: skip
    assert rows[1].report is None
    assert "'broken.png' holds PNG pixels that cannot be decoded" in str(rows[1].error)
    assert rows[1].code == "image_unreadable"
    single = serving.inspect(settings, str(pictures / "missing.png"), "", "v1", "").report
    assert rows[3].report is not None
    assert (rows[3].report.image_sha256, rows[3].report.decision) == (single.image_sha256, single.decision)
    assert [vote.score for vote in rows[3].report.votes] == [vote.score for vote in single.votes]


def test_nothing_stays_in_the_temporary_folder_even_when_a_batch_is_given_up(
    settings: Settings, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    waiting = batch.entries([("a.zip", pictures / "archive.zip")], LIMITS)
    going = batch.inspect_all(settings, waiting, "", "", "", draw=False)
    next(going)
    (folder,) = tmp_path.iterdir()
    assert folder.stat().st_mode & 0o077 == 0
    assert [place.name for place in folder.iterdir()] in ([], ["1"])  # the second is read ahead
    going.close()
    assert list(tmp_path.iterdir()) == []


def test_what_every_picture_would_run_into_ends_the_batch_before_the_first(settings: Settings, pictures: Path) -> None:
    with pytest.raises(PolicyError, match="unknown policy 'lenient'"):
        next(batch.inspect_all(settings, [Entry("a", pictures / "good.png")], "", "", "lenient", draw=False))


def test_the_most_suspicious_comes_first_and_what_nobody_judged_before_that() -> None:
    rows = [with_distance("b", 0.5), with_distance("a", -1), Row("x", error="bad"), with_distance("d")]
    rows.append(with_distance("c", 0.1, 9))  # the 9 does not count
    assert [row.file for row in batch.by_distance(rows)] == ["d", "b", "c", "a"]


# --- downloads -------------------------------------------------------------------------------------------------------


def test_jsonl_holds_the_reports_and_drift_reads_it(rows: list[Row], tmp_path: Path) -> None:
    lines = [json.loads(line) for line in batch_export.jsonl(rows).splitlines()]
    assert [line.pop("image") for line in lines] == [row.file for row in rows]
    assert Report.model_validate(lines[0]) == rows[0].report
    assert lines[1] == {"error": rows[1].error, "code": rows[1].code}
    log = tmp_path / "log.jsonl"
    log.write_text(batch_export.jsonl(rows))
    read = read_log(log)
    assert (read.reports, list(read.wrong)) == (3, [2])


def test_csv_has_a_column_for_every_field_of_the_report(rows: list[Row]) -> None:
    table = list(csv.DictReader(io.StringIO(batch_export.csv_text(rows), newline="")))
    report = rows[0].report
    assert report is not None
    assert [line["image"] for line in table] == [row.file for row in rows]
    for name, value in report.model_dump(mode="json").items():
        if name in ("reason", "emissions"):
            known = {f"{name}.{key}": part for key, part in value.items()}
        elif name == "votes":
            known = {f"votes.{vote['member']}.{key}": part for vote in value for key, part in vote.items()}
            known = {key: part for key, part in known.items() if not key.endswith(".member")}
        else:
            known = {name: value}
        for column, part in known.items():
            said = table[0][column]
            wanted = json.dumps(part, ensure_ascii=False) if isinstance(part, list | dict) else part
            assert said == ("" if wanted is None else str(wanted)), column
    assert table[1]["error"] == rows[1].error
    assert table[1]["decision"] == ""


def test_the_columns_are_the_same_whatever_the_pictures_are_like() -> None:
    few = make_report(votes=(make_vote("knn", score=1.0),))
    more = make_report(votes=(make_vote("knn", score=None, class_shares=None),), reason={"en": "x"})
    heads = [batch_export.csv_text([Row("a", report), Row("b", error="bad")]).splitlines()[0] for report in (few, more)]
    assert heads[0] == heads[1]


def test_a_name_that_a_spreadsheet_would_run_is_defused() -> None:
    text = batch_export.csv_text([Row("=cmd|' /C calc'!A0.png", error="@bad")])
    line = next(csv.DictReader(io.StringIO(text)))
    assert (line["image"], line["error"]) == ("'=cmd|' /C calc'!A0.png", "'@bad")


def test_the_zip_holds_drawings_named_by_rank_and_decision_and_the_reports(rows: list[Row]) -> None:
    with zipfile.ZipFile(io.BytesIO(batch_export.annotated_zip(rows))) as archive:
        names = archive.namelist()
        ranked = batch.by_distance(rows)
        assert names[0].startswith(f"001-{ranked[0].report.decision}-")  # type: ignore[union-attr]
        assert len(names) == 4
        with archive.open(names[0]) as file, Image.open(file) as drawn:
            assert (drawn.format, drawn.size) == ("JPEG", (64, 64))
            assert ranked[0].report.commit.encode() in drawn.info["comment"]  # type: ignore[union-attr]
        assert archive.read("reports.jsonl").decode() == batch_export.jsonl(rows)


# --- the tab ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", LANGUAGES.values())
@pytest.mark.parametrize(
    "now",
    [
        None,
        Batch(),
        Batch((Row("<b>.png", error="it is <bad>"),), 2, left_s=100),
        Batch((with_distance("a", 1.0),), 2, left_s=3),
        Batch((), 2, "stopped"),
        Batch((with_distance("a", 1.0),), 1, "done"),
        Batch((), 0, "failed", "more than <5>"),
    ],
)
def test_the_status_is_a_sentence_in_every_state(now: Batch | None, language: Language) -> None:
    html = status_html(now, language)
    assert len(html) > 40
    assert "<b>.png" not in html
    assert "<bad>" not in html
    assert "<5>" not in html


def test_a_batch_without_pictures_ends_in_a_sentence_and_not_in_an_exception(settings: Settings) -> None:
    (only,) = running(settings, None, "", "", "", stop=threading.Event())
    assert only.state == "failed"
    assert "no picture" in only.problem


def test_stop_ends_a_batch_after_the_picture_under_way_and_keeps_what_was_done(
    settings: Settings, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_tab, "uploaded", lambda files: files)
    stop = threading.Event()
    going = running(settings, [("a.zip", pictures / "archive.zip")], "", "", "", stop=stop)  # type: ignore[list-item]
    assert next(going).total == 2
    stop.set()
    (last,) = going
    assert (last.state, len(last.rows)) == ("stopped", 1)


# --- the endpoint ----------------------------------------------------------------------------------------------------


def test_the_api_gives_a_report_or_an_error_for_each_file(running_app: RunningApp, pictures: Path) -> None:
    client = Client(running_app.url, verbose=False)
    files = [handle_file(pictures / name) for name in ("good.png", "broken.png", "archive.zip")]
    answers = client.predict(files, "", "v1", "any_alarm", api_name="/inspect_batch")
    assert [answer["file"] for answer in answers] == [
        "good.png", "broken.png", "archive.zip/shift 1/good.png", "archive.zip/shift 1/missing.png",
    ]  # fmt: skip
    assert {answer["report"]["policy"] for answer in answers if "report" in answer} == {"any_alarm"}
    assert {key: answers[1][key] for key in ("code",)} == {"code": "image_unreadable"}
    assert Report.model_validate(answers[0]["report"]).revision == "v1"
    with pytest.raises(AppError, match="no picture in what was sent"):
        client.predict([], api_name="/inspect_batch")
    client.close()


def test_the_api_keeps_to_the_limits_and_tells_them(
    start_app: Callable[[Settings], RunningApp], inspector_folder: Path, pictures: Path
) -> None:
    app = start_app(Settings(inspectors=(str(inspector_folder),), batch_files=1))
    client = Client(app.url, verbose=False)
    assert client.predict(api_name="/health")["limits"]["batch_files"] == 1
    with pytest.raises(AppError, match="more than 1 pictures"):
        client.predict([handle_file(pictures / "archive.zip")], api_name="/inspect_batch")
    client.close()


def test_a_single_inspection_does_not_wait_for_a_whole_batch(
    running_app: RunningApp, pictures: Path, tmp_path: Path
) -> None:
    data = (pictures / "good.png").read_bytes()
    ((_, path),) = packed(tmp_path, {f"{number}.png": data for number in range(100)})
    client = Client(running_app.url, verbose=False)
    job = client.submit([handle_file(path)], api_name="/inspect_batch")
    report, _ = client.predict(handle_file(pictures / "missing.png"), api_name="/inspect")
    assert report["format"] == 1
    assert not job.done()
    assert len(job.result(timeout=60)) == 100
    client.close()


def test_a_file_of_the_server_is_not_read(running_app: RunningApp, pictures: Path) -> None:
    call = f"{running_app.url}gradio_api/call/inspect_batch"
    sent = httpx.post(call, json={"data": [[{"path": str(pictures / "good.png")}], "", "", ""]})
    answer = httpx.get(f"{call}/{sent.json()['event_id']}", timeout=20).text
    assert answer.startswith("event: error")
    assert "sha256" not in answer
