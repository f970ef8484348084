"""A local log of inspections (JSON Lines, jsonlines.org) and what to say of it: how many, how they ended, how long, how
much energy.

One report a line, as `python -m anomaly inspect --json` writes it and `python -m anomaly drift` reads it. A file is
named after the moment it was begun, so sorting the names sorts the time, and nothing is ever renamed.
"""

import contextlib
import json
import logging
import os
import re
import shutil
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from errno import ENOSPC
from pathlib import Path
from statistics import fmean, median
from typing import Any, NamedTuple

from anomaly.report import Report

try:
    import fcntl
except ImportError:  # Windows: one process a log there
    fcntl = None  # type: ignore[assignment]

REMEMBERED = 20_000  # inspections that plots are made of
BINS = 30  # of a plot over time
NAME = "inspections-*.jsonl"
PICTURES = re.compile(r"[.](png|jpe?g|webp|tiff?|bmp|gif)$", re.IGNORECASE)

_LOGGER = logging.getLogger(__name__)


class Entry(NamedTuple):
    """What is kept in memory of one inspection."""

    at: datetime  # UTC
    decision: str  # ok, defect or review
    duration_ms: float
    energy_mj: float | None  # None where it is not known
    inspector: str
    revision: str
    commit: str
    policy: str


class Journal:
    """Thread-safe and bounded. Without a folder it remembers what happened since the start and writes nothing.

    Args:
        folder: of the log; created when the first line is written.
        max_bytes: a file that has reached this size is followed by a new one.
        files: how many are kept; older ones are deleted, with their pictures.
        pictures: keep the file of every picture beside the log.
        remembered: the latest inspections that `entries` gives.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        max_bytes: int = 10_000_000,
        files: int = 10,
        pictures: bool = False,
        remembered: int = REMEMBERED,
    ) -> None:
        self.folder = folder
        self.problem: str | None = None  # why the last line was not written
        self._max_bytes, self._files, self._pictures = max_bytes, files, pictures
        self._entries: deque[Entry] = deque(maxlen=remembered)
        self._read: dict[str, int] = {}  # name of a file -> bytes that were taken in
        self._lock = threading.Lock()

    def add(self, report: Report, picture: str | Path | None = None) -> None:
        """Takes in one inspection. A log that cannot be written stops no inspection: `problem` says why.

        Args:
            report: of it.
            picture: its file; its name goes into the log, the file itself only where pictures are kept.
        """
        with self._lock:
            if self.folder is None:
                self._entries.append(_entry(report.model_dump(mode="json")))
                return
            try:
                self._write(self.folder, report, None if picture is None else Path(picture))
                self.problem = None
            except OSError as error:
                self.problem = f"{self.folder}: the log cannot be written ({error.strerror or error})"
                _LOGGER.warning(self.problem)

    def entries(self) -> list[Entry]:
        """The latest inspections, in the order of the log."""
        with self._lock:
            if self.folder is not None:
                try:
                    for path in sorted(self.folder.glob(NAME)):
                        self._take_in(path)
                except OSError as error:
                    self.problem = f"{self.folder}: the log cannot be read ({error.strerror or error})"
            return list(self._entries)

    def _take_in(self, path: Path) -> None:
        """What was added to a file since it was read last, by this process or another; no half line."""
        with path.open("rb") as file:
            file.seek(self._read.get(path.name, 0))
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._read[path.name] = self._read.get(path.name, 0) + len(line)
                with contextlib.suppress(ValueError, KeyError, TypeError):  # a line of somebody else's
                    self._entries.append(_entry(json.loads(line)))

    def _write(self, folder: Path, report: Report, picture: Path | None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder):
            path = self._file(folder)
            image = "" if picture is None else picture.name
            if self._pictures and picture is not None:
                image = _keep(picture, path.with_suffix(""), report.image_sha256)
            line = json.dumps({"image": image, **report.model_dump(mode="json")}, ensure_ascii=False) + "\n"
            _append(path, line.encode("utf-8", "replace"))

    def _file(self, folder: Path) -> Path:
        """Where the next line goes; begins a new file and deletes the oldest where it is time to."""
        paths = sorted(folder.glob(NAME))
        if paths and paths[-1].stat().st_size < self._max_bytes:
            return paths[-1]
        for old in paths[: max(0, len(paths) + 1 - self._files)]:
            shutil.rmtree(old.with_suffix(""), ignore_errors=True)
            old.unlink()
            self._read.pop(old.name, None)
        begun = datetime.now(UTC)
        while (path := folder / NAME.replace("*", begun.strftime("%Y%m%dT%H%M%S.%fZ"))).exists():
            begun += timedelta(microseconds=1)
        return path


def _append(path: Path, line: bytes) -> None:
    """The whole line or nothing: what a crash or a full disk left of an earlier one is cut off first."""
    with path.open("a+b", buffering=0) as file:
        end = _whole(file, file.seek(0, os.SEEK_END))
        written = 0
        try:
            written = file.write(line)
        finally:
            if written != len(line):
                file.truncate(end)
    if written != len(line):
        raise OSError(ENOSPC, os.strerror(ENOSPC))


def _whole(file: Any, size: int) -> int:
    """Cuts off a last line without its end. Returns the size then."""
    end, block = size, 65536
    while end:
        start = max(0, end - block)
        file.seek(start)
        found: bytes = file.read(end - start)
        if end == size and found.endswith(b"\n"):
            return size
        if (at := found.rfind(b"\n")) >= 0:
            end = start + at + 1
            break
        end = start
    if end < size:
        file.truncate(end)
    return end


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """No other process writes to the log meanwhile."""
    with (folder / ".lock").open("w") as lock:
        if fcntl is not None:
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield  # closing unlocks


def _keep(picture: Path, folder: Path, sha256: str) -> str:
    """Copies a picture beside its log, once. Returns its path as seen from the folder of the log."""
    folder.mkdir(exist_ok=True)
    suffix = picture.suffix.lower() if PICTURES.search(picture.name) else ""
    kept = folder / f"{sha256}{suffix}"
    if not kept.exists():
        half = kept.with_suffix(".half")
        shutil.copyfile(picture, half)
        half.replace(kept)
    return f"{folder.name}/{kept.name}"


def _entry(report: dict[str, Any]) -> Entry:
    """Of a line; raises ValueError, KeyError or TypeError for one that is no report."""
    at = datetime.fromisoformat(report["created_at"])
    mj = report["emissions"]["energy_mj"]
    names = ("inspector", "revision", "commit", "policy")
    return Entry(
        at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC),
        str(report["decision"]),
        float(report["duration_ms"]),
        None if mj is None else float(mj),
        *(str(report[name]) for name in names),
    )


@dataclass(frozen=True, slots=True)
class Summary:
    """Of some inspections, at least one."""

    count: int
    defects: int
    reviews: int
    median_ms: float
    p95_ms: float
    measured: int  # inspections whose energy is known
    mean_mj: float | None
    sum_mj: float | None
    wh_per_1000: float | None

    @property
    def anomaly_rate(self) -> float:
        """Share of parts that did not pass: defect or review."""
        return (self.defects + self.reviews) / self.count


def summarise(entries: Sequence[Entry]) -> Summary | None:
    """None without any inspection."""
    if not entries:
        return None
    times = sorted(entry.duration_ms for entry in entries)
    energies = [entry.energy_mj for entry in entries if entry.energy_mj is not None]
    mean = fmean(energies) if energies else None
    return Summary(
        count=len(entries),
        defects=sum(entry.decision == "defect" for entry in entries),
        reviews=sum(entry.decision == "review" for entry in entries),
        median_ms=median(times),
        p95_ms=times[min(len(times) - 1, -(-95 * len(times) // 100) - 1)],  # nearest rank
        measured=len(energies),
        mean_mj=mean,
        sum_mj=sum(energies) if energies else None,
        wh_per_1000=None if mean is None else mean / 3600,  # 1 Wh = 3.6 million mJ
    )


def grouped(entries: Iterable[Entry]) -> dict[tuple[str, str, str, str], Summary]:
    """By inspector, revision, commit and policy; the most inspections first."""
    groups: dict[tuple[str, str, str, str], list[Entry]] = {}
    for entry in entries:
        groups.setdefault((entry.inspector, entry.revision, entry.commit, entry.policy), []).append(entry)
    found = {key: said for key, group in groups.items() if (said := summarise(group)) is not None}
    return dict(sorted(found.items(), key=lambda item: -item[1].count))


def over_time(entries: Sequence[Entry], bins: int = BINS) -> list[tuple[datetime, Summary | None]]:
    """Equal parts of the time from the first inspection to the last one: when each begins, and what happened in it."""
    if not entries:
        return []
    first, last = min(entry.at for entry in entries), max(entry.at for entry in entries)
    width = max((last - first) / bins, timedelta(seconds=1))
    groups: dict[int, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(min(int((entry.at - first) / width), bins - 1), []).append(entry)
    return [(first + number * width, summarise(groups.get(number, []))) for number in range(max(groups) + 1)]
