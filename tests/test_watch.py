"""A watched folder: every picture exactly once, whatever happens to the watch."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from reports import make_report

from anomaly import cli
from anomaly.drift_log import read_log
from anomaly.errors import DataError, ImageError
from anomaly.report import Report
from anomaly.watch import Counts, watch
from training.synthetic_cable import render

LOOK_S = 0.05


def read(path: Path) -> Path:
    """A file that holds "bad" is no picture."""
    if path.read_bytes() == b"bad":
        raise ImageError(f"{path.name} is bad")
    return path


def looked_at(path: Path) -> Report:
    """Stands in for the detectors."""
    return make_report()


def once(folder: Path, log: Path, inspect: Any = looked_at, read: Any = read) -> Counts:
    return watch(folder, log, read, inspect, once=True, interval_s=LOOK_S, stop=threading.Event())


def lines(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def names(log: Path) -> list[str]:
    return [line["file"] for line in lines(log)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """a.png, day 2/b.jpg, and bad.png."""
    (tmp_path / "in" / "day 2").mkdir(parents=True)
    for number, name in enumerate(("a.png", "day 2/b.jpg", "bad.png")):
        path = tmp_path / "in" / name
        path.write_bytes(b"bad" if name == "bad.png" else b"good")
        os.utime(path, (1000 + number, 1000 + number))
    return tmp_path / "in"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log.jsonl"


def test_every_picture_is_logged_once_oldest_first_and_a_bad_one_as_an_error(folder: Path, log: Path) -> None:
    assert once(folder, log) == Counts(inspected=2, failed=1)
    assert names(log) == ["a.png", "day 2/b.jpg", "bad.png"]
    assert lines(log)[0]["image"] == str(folder / "a.png")
    assert lines(log)[0]["decision"] == "ok"
    assert lines(log)[2]["error"] == "bad.png is bad"
    assert lines(log)[2]["code"] == "image_unreadable"
    assert once(folder, log) == Counts(0, 0)
    assert len(lines(log)) == 3


def test_the_same_name_with_another_picture_is_another_part(folder: Path, log: Path) -> None:
    once(folder, log)
    (folder / "a.png").write_bytes(b"another")
    assert once(folder, log) == Counts(1, 0)
    assert names(log).count("a.png") == 2


def test_what_is_hidden_or_no_picture_by_name_is_passed_over(folder: Path, log: Path) -> None:
    for name in (".c.png", "notes.txt", "d.png.part", ".trash/e.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"good")
    once(folder, log)
    assert len(lines(log)) == 3


def test_a_file_that_is_still_being_written_is_waited_for(folder: Path, log: Path) -> None:
    sizes: list[int] = []

    def inspect(path: Path) -> Report:
        sizes.append(path.stat().st_size)
        return make_report()

    def camera() -> None:
        with (folder / "slow.png").open("wb", buffering=0) as file:
            for _ in range(40):
                file.write(b"x" * 10)
                time.sleep(LOOK_S / 5)

    writer = threading.Thread(target=camera)
    for path in ("a.png", "day 2/b.jpg", "bad.png"):
        (folder / path).unlink()
    writer.start()
    while not (folder / "slow.png").exists():
        time.sleep(0.001)
    once(folder, log, inspect)
    writer.join()
    assert sizes == [400]
    assert names(log) == ["slow.png"]


def test_a_file_that_changes_while_it_is_read_is_read_again(folder: Path, log: Path) -> None:
    calls: Counter[str] = Counter()

    def inspect(path: Path) -> Report:
        calls[path.name] += 1
        if path.name == "a.png" and calls["a.png"] == 1:
            path.write_bytes(b"changed")
        return make_report()

    once(folder, log, inspect)
    assert calls["a.png"] == 2
    assert names(log).count("a.png") == 1


def test_a_file_that_changes_after_it_was_read_ahead_is_read_again(folder: Path, log: Path) -> None:
    ahead, inspected = threading.Event(), []

    def read(path: Path) -> bytes:
        found = path.read_bytes()
        if path.name == "b.jpg":
            ahead.set()
        return found

    def inspect(content: bytes) -> Report:
        if not inspected:  # a.png's turn
            assert ahead.wait(10)
            (folder / "day 2/b.jpg").write_bytes(b"changed")
        inspected.append(content)
        return make_report()

    once(folder, log, inspect, read)
    assert inspected == [b"good", b"good", b"bad", b"changed"]
    assert [(line["file"], line["size"]) for line in lines(log)] == [("a.png", 4), ("bad.png", 3), ("day 2/b.jpg", 7)]


@pytest.mark.parametrize("cut", [1, 5, 100, -1])
def test_a_last_line_that_was_cut_short_is_mended_and_its_picture_done_again(folder: Path, log: Path, cut: int) -> None:
    once(folder, log)
    whole = log.read_bytes()
    last = whole.splitlines(keepends=True)[-1]
    log.write_bytes(whole[: -len(last)] + last[:cut])
    assert once(folder, log).failed == (0 if cut == -1 else 1)  # only the end of the line was missing
    assert sorted(names(log)) == ["a.png", "bad.png", "day 2/b.jpg"]
    assert log.read_bytes().endswith(b"}\n")


def test_a_file_that_is_no_log_is_left_alone(folder: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious.txt"
    precious.write_text("not to be lost")
    with pytest.raises(DataError, match="no log of a watch"):
        once(folder, precious)
    assert precious.read_text() == "not to be lost"


def test_two_watches_do_not_share_a_log(folder: Path, log: Path) -> None:
    with log.open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="another watch"):
            once(folder, log)


def test_a_folder_that_is_none_is_said(tmp_path: Path, log: Path) -> None:
    with pytest.raises(DataError, match="is no folder"):
        once(tmp_path / "nowhere", log)
    assert not log.exists()


# --- as a process ----------------------------------------------------------------------------------------------------


@pytest.fixture
def cables(tmp_path: Path) -> Path:
    """Twelve pictures, and one that is none."""
    folder = tmp_path / "cables"
    folder.mkdir()
    for seed in range(12):
        Image.fromarray(render(None, seed=seed, size=64)[0]).save(folder / f"{seed:02d}.png")
    (folder / "broken.png").write_text("no picture")
    return folder


def started(folder: Path, log: Path, inspector: Path, *more: str) -> subprocess.Popen[str]:
    words = ["watch", str(folder), "--inspector", str(inspector), "--out", str(log), "--interval", "0.05", *more]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "anomaly", *words], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=environment,
    )  # fmt: skip


def wait_for_lines(log: Path, count: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not log.exists() or log.read_bytes().count(b"\n") < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_killed_half_way_and_started_again_every_picture_is_there_exactly_once(
    cables: Path, tmp_path: Path, inspector_folder: Path
) -> None:
    log = tmp_path / "log.jsonl"
    first = started(cables, log, inspector_folder)
    wait_for_lines(log, 3, first)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert 3 <= log.read_bytes().count(b"\n") < 13
    with log.open("ab") as file:
        file.write(b'{"image": "' + str(cables / "11.png").encode())  # as a kill in the middle of a write leaves it
    Image.fromarray(render(None, seed=99, size=64)[0]).save(cables / "late.png")
    second = started(cables, log, inspector_folder)
    wait_for_lines(log, 14, second)
    second.send_signal(signal.SIGTERM)
    _, said = second.communicate(timeout=30)
    assert second.returncode == 0, said
    assert "1 logged as errors" in said or "0 logged as errors" in said
    assert sorted(names(log)) == sorted(path.name for path in cables.iterdir())
    read = read_log(log)
    assert read.reports == 13
    assert len(read.wrong) == 1


def test_the_command_logs_the_report_that_inspect_gives(
    cables: Path, tmp_path: Path, inspector_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    log = tmp_path / "log.jsonl"
    for path in sorted(cables.iterdir())[2:]:
        path.unlink()
    words = ["watch", str(cables), "--inspector", str(inspector_folder), "--revision", "v1", "--out", str(log)]
    monkeypatch.setattr(sys, "argv", ["anomaly", *words, "--interval", "0.05", "--once", "--policy", "any_alarm"])
    before = signal.getsignal(signal.SIGTERM)
    assert cli.main() == 0
    assert signal.getsignal(signal.SIGTERM) is before
    logged = capsys.readouterr()
    assert logged.out.startswith("00.png: ")
    assert logged.err.endswith("2 inspected, 0 logged as errors\n")
    report = lines(log)[0]
    assert {report.pop(key) for key in ("file",)} == {"00.png"}
    for key in ("image", "size", "mtime_ns"):
        del report[key]
    assert Report.model_validate(report).policy == "any_alarm"
