"""What a camera drops into a folder -> a log, one JSON line for each picture, exactly once.

The log itself says what was done: a line is written after its inspection, whole and forced to the disk, with the file's
name, size and time of change. So a kill at any moment costs at most the inspection that was under way, which is done
again; a line that was cut short is taken away at the next start.
"""

import errno
import fcntl
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar

from anomaly.datasets import IMAGE_SUFFIXES
from anomaly.errors import DataError, VigieError
from anomaly.reading_ahead import ahead
from anomaly.report import Report

SUFFIXES = (*IMAGE_SUFFIXES, ".gif")
_BEGINNING = b'{"image": '  # of every line

Picture = TypeVar("Picture")


class Seen(NamedTuple):
    """A file as it was at one moment. The same name with another size or time is another part."""

    file: str  # below the folder, with /
    size: int  # bytes
    mtime_ns: int


class Counts(NamedTuple):
    """What a watch did since it was started."""

    inspected: int
    failed: int  # logged as errors


def watch(
    folder: Path,
    out: Path,
    read: Callable[[Path], Picture],
    inspect: Callable[[Picture], Report],
    *,
    once: bool,
    interval_s: float,
    stop: threading.Event,
    told: Callable[[str, Report | VigieError], None] = lambda file, outcome: None,
) -> Counts:
    """Inspects the pictures in a folder and below it, those that are there and those that come, oldest first.

    A file is inspected when it has not changed for `interval_s`. Files and folders whose names begin with a dot, and
    files that are not called like a picture, are passed over.

    Args:
        folder: to look into.
        out: the log, appended to.
        read: a file, in a thread while the one before it is inspected; VigieError if that cannot be done.
        inspect: gives the report on what was read; VigieError if there is none, which is logged, once.
        once: end as soon as everything is logged.
        interval_s: seconds between two looks.
        stop: ends the watch when it is set; the picture under way is finished.
        told: is called with every file's name and what became of it.

    Raises:
        DataError: the folder is none, or another watch writes to the log.
        OSError: the log cannot be written.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; expected the one that the camera writes to")
    inspected = failed = 0
    with _log(out) as (log, done):
        before: set[Seen] = set()
        while not stop.is_set():
            waiting = [seen for seen in _pictures(folder) if seen not in done]
            steady = [seen for seen in waiting if seen in before]
            with ahead(lambda seen: read(folder / seen.file), steady) as pictures:
                for seen, reading in pictures:
                    if stop.is_set():
                        break
                    path = folder / seen.file
                    line: dict[str, Any] = {"image": str(path), **seen._asdict()}
                    try:
                        outcome: Report | VigieError = inspect(reading.result())
                    except VigieError as error:
                        outcome = error
                    if _look(folder, path) != seen:  # it changed or went since then: what was read is nobody's part
                        continue
                    if isinstance(outcome, Report):
                        line |= outcome.model_dump(mode="json")
                        inspected += 1
                    else:
                        now = datetime.now(UTC).isoformat(timespec="milliseconds")
                        line |= {"error": str(outcome), "code": outcome.code, "created_at": now}
                        failed += 1
                    _append(log, line)
                    done.add(seen)
                    told(seen.file, outcome)
            before = set(waiting)
            if once and before <= done:
                break
            stop.wait(interval_s)
    return Counts(inspected, failed)


def _pictures(folder: Path) -> list[Seen]:
    """Oldest first."""
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if name.startswith(".") or not name.lower().endswith(SUFFIXES):
                continue
            if (seen := _look(folder, Path(place, name))) is not None:
                found.append(seen)
    return sorted(found, key=lambda seen: (seen.mtime_ns, seen.file))


def _look(folder: Path, path: Path) -> Seen | None:
    try:
        state = path.stat()
    except OSError:  # taken away between the listing and now
        return None
    return Seen(path.relative_to(folder).as_posix(), state.st_size, state.st_mtime_ns)


def _append(log: BinaryIO, line: dict[str, Any]) -> None:
    data = json.dumps(line).encode() + b"\n"  # ASCII, for the names of files need not be UTF-8
    if log.write(data) != len(data):
        raise OSError(errno.ENOSPC, "the log took a part of a line only; is the disk full?")
    os.fsync(log.fileno())


@contextmanager
def _log(out: Path) -> Iterator[tuple[BinaryIO, set[Seen]]]:
    """The log, locked, mended and open at its end; and what it says was done."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("ab", buffering=0) as log:
        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(f"{out}: another watch writes to this log; give each its own --out") from error
        end, last, done = 0, b"", set()
        with out.open("rb") as written:
            for line in written:
                end, last = end + len(line), line
                if (known := _done(line)) is not None:
                    done.add(known)
        if last and not last.endswith(b"\n"):  # a kill or a full disk cut it short
            if _done(last) is not None:
                log.write(b"\n")
            elif last.startswith(_BEGINNING) or _BEGINNING.startswith(last):
                log.truncate(end - len(last))
            else:
                raise DataError(f"{out} is no log of a watch: its last line is {last[:40]!r}; give another --out")
        yield log, done


def _done(line: bytes) -> Seen | None:
    """Whose line it is; None for one that this did not write."""
    try:
        said = json.loads(line)
        return Seen(str(said["file"]), int(said["size"]), int(said["mtime_ns"]))
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
