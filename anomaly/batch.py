"""Many pictures, or ZIP archives of them -> a row each (zipfile of Python).

Everything that can be counted is checked before the first picture is inspected. A picture that is no good becomes a row
that says so, and the others go on. Nothing is unpacked to where an archive says: names inside are only shown.
"""

import io
import math
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from anomaly import images, render, serving
from anomaly.errors import ImageError, ImageTooLargeError, NoPictureError, VigieError
from anomaly.images import RgbImage
from anomaly.reading_ahead import ahead
from anomaly.report import Report
from anomaly.settings import Settings

_DRAWN_QUALITY = 88  # of JPEG; a drawing is to be looked at, the figures are in the report
_DIRECTORY_BYTES = 1000  # of an archive's table of contents, for each picture that may be in it
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # LZMA may ask for gigabytes before it gives the first byte
_BESIDE = ("__MACOSX/", ".DS_Store", "Thumbs.db", "desktop.ini")  # what file managers put into an archive unasked


@dataclass(frozen=True, slots=True)
class Limits:
    """What one batch may be."""

    files: int  # pictures, those in archives counted one by one
    bytes_each: int  # of a picture's file, unpacked
    bytes_all: int  # of all of them, unpacked


@dataclass(frozen=True, slots=True)
class Entry:
    """A picture that waits for its inspection."""

    name: str  # as a person knows it; in an archive ARCHIVE/FOLDER/FILE
    path: Path  # of the picture, or of the archive that it is in
    inside: zipfile.ZipInfo | None = None
    error: str | None = None  # why it will not be inspected


@dataclass(frozen=True, slots=True)
class Row:
    """What became of one picture: a report or an error."""

    file: str
    report: Report | None = None
    error: str | None = None
    code: str | None = None  # of the error, for programs
    drawn: bytes = b""  # JPEG under its heatmap, where that was asked for
    entry: Entry | None = None  # where its picture is, where there is a report

    @property
    def distance(self) -> float:
        """How far the member that counts and is most suspicious lies beyond its line, in interquartile ranges of its
        good scores: comparable between pictures. Infinite where no member says, for somebody has to look at that."""
        why = None if self.report is None else self.report.explanation
        known = (
            [] if why is None else [r.distance_iqr for r in why.readings if r.counted and r.distance_iqr is not None]
        )
        return max(known, default=math.inf)


def limits_of(settings: Settings) -> Limits:
    """The limits of a deployment."""
    return Limits(settings.batch_files, min(settings.max_bytes, settings.batch_bytes), settings.batch_bytes)


def entries(files: Sequence[tuple[str, Path]], limits: Limits) -> list[Entry]:
    """What there is to inspect, in order, archives opened.

    Args:
        files: name and place of each.
        limits: of the batch.

    Raises:
        NoPictureError: there is nothing.
        ImageTooLargeError: it is more than the limits.
    """
    found: list[Entry] = []
    sizes = 0
    for name, path in files:
        if _is_archive(name, path):
            found += (inside := _opened(name, path, limits))
            sizes += sum(entry.inside.file_size for entry in inside if entry.inside is not None)
        else:
            found.append(Entry(name, path))
            sizes += path.stat().st_size if path.is_file() else 0  # else the row says what is wrong
        if len(found) > limits.files:
            raise ImageTooLargeError(
                f"more than {limits.files} pictures in one batch, which is the limit; send them in parts"
            )
        if sizes > limits.bytes_all:
            raise ImageTooLargeError(
                f"{sizes:,} bytes or more when unpacked, the limit of a batch is {limits.bytes_all:,}; send it in parts"
            )
    if not found:
        raise NoPictureError("there is no picture in what was sent; expected pictures, or ZIP archives of pictures")
    return found


def _is_archive(name: str, path: Path) -> bool:
    """By its first bytes, for pictures with an archive behind their pixels are pictures."""
    if name.lower().endswith(".zip"):
        return True
    try:
        with path.open("rb") as file:
            return file.read(4) in (b"PK\3\4", b"PK\5\6")
    except OSError:
        return False


class _Cautious(io.BufferedReader):
    """zipfile reads the whole table of contents at once, however long the archive says that it is."""

    most: int

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > self.most:
            raise zipfile.BadZipFile(f"its table of contents has {size:,} bytes, at most {self.most:,} are read")
        return super().read(size)


def _opened(name: str, path: Path, limits: Limits) -> list[Entry]:
    try:
        with path.open("rb", buffering=0) as raw, _Cautious(raw) as file:
            file.most = max(limits.files * _DIRECTORY_BYTES, 1 << 17)  # it also looks for the comment, up to 64 KiB
            with zipfile.ZipFile(file) as archive:
                contents = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:  # the last: a version of ZIP
        return [Entry(name, path, error=f"{name!r} is no ZIP archive that can be read ({error}); pack it again")]
    pictures = [info for info in contents if not info.is_dir() and not _is_beside(info.filename)]
    return [Entry(f"{name}/{info.filename}", path, info, _wrong(info, limits)) for info in pictures]


def _is_beside(inside: str) -> bool:
    last = PurePosixPath(inside).name
    return inside.startswith(_BESIDE[0]) or last in _BESIDE or last.startswith("._")


def _wrong(info: zipfile.ZipInfo, limits: Limits) -> str | None:
    """What is wrong with something in an archive, as far as its table of contents tells."""
    place = PurePosixPath(info.filename.replace("\\", "/"))
    last = place.name
    if place.is_absolute() or ".." in place.parts or re.match(r"[A-Za-z]:", info.filename):
        return f"{info.filename!r} leads out of its archive; pack it again, with names below one folder"
    if last.lower().endswith(".zip"):
        return f"{last!r} is an archive within an archive; send it by itself"
    if info.flag_bits & 1:
        return f"{last!r} is encrypted; pack it without a password"
    if info.compress_type not in _METHODS:
        return f"{last!r} is packed by a method other than deflate; pack it again as a common ZIP"
    if info.file_size > limits.bytes_each:
        return f"{last!r} has {info.file_size:,} bytes when unpacked, the limit of a picture is {limits.bytes_each:,}"
    return None


def inspect_all(
    settings: Settings, batch: Sequence[Entry], inspector: str, revision: str, policy: str, *, draw: bool
) -> Iterator[Row]:
    """Inspects one picture after the other, while the next ones are read; in between, others get their turn.

    Args:
        settings: of the deployment.
        batch: from `entries`.
        inspector: one of the deployment's; empty for the first.
        revision: tag, branch or commit; empty for the latest tag.
        policy: empty for the default one.
        draw: also what the rows look like under their heatmaps.

    Yields:
        a row for each, in order.

    Raises:
        RegistryError, ModelLoadError, PolicyError: before the first row, what every picture would run into.
    """
    service = serving.service(settings)
    loaded = service.inspector(inspector, revision)
    loaded.policy(policy)
    limits, accepted = limits_of(settings), service.limits(loaded)
    with tempfile.TemporaryDirectory(prefix="vigie-") as folder:  # 0700; holds no more than is read ahead
        places = [(entry, Path(folder, str(number))) for number, entry in enumerate(batch)]

        def read(waiting: tuple[Entry, Path]) -> tuple[Path, RgbImage]:
            path = _at_hand(*waiting, limits)
            return path, images.read(path, accepted)

        with ahead(read, places) as pictures:
            for (entry, place), reading in pictures:
                try:
                    path, pixels = reading.result()
                    shown = serving.inspect(settings, str(path), inspector, revision, policy, pixels)
                    row = Row(entry.name, shown.report, drawn=_drawn(shown) if draw else b"", entry=entry)
                except VigieError as error:
                    row = Row(entry.name, error=str(error), code=error.code)
                finally:
                    shutil.rmtree(place, ignore_errors=True)
                yield row


def _at_hand(entry: Entry, place: Path, limits: Limits) -> Path:
    """The picture's own file; of what is in an archive a copy, in a folder that is made for it."""
    if entry.error is not None:
        raise ImageError(entry.error)
    if entry.inside is None:
        return entry.path
    place.mkdir()
    copy = place / (PurePosixPath(entry.name).name[-60:] or "picture")
    copy.write_bytes(_unpacked(entry, limits))
    return copy


def picture_of(entry: Entry, limits: Limits) -> Path | bytes:
    """The file of a picture, or what is in it where it lies in an archive.

    Raises:
        ImageError: it cannot be unpacked (any more).
    """
    return entry.path if entry.inside is None else _unpacked(entry, limits)


def _unpacked(entry: Entry, limits: Limits) -> bytes:
    assert entry.inside is not None
    last = PurePosixPath(entry.name).name
    try:
        with zipfile.ZipFile(entry.path) as archive, archive.open(entry.inside) as file:
            data = file.read(limits.bytes_each + 1)
    # the last two are zipfile's own: a password, a compression it does not know
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, NotImplementedError) as error:
        raise ImageError(f"{last!r} cannot be unpacked ({error}); pack it again") from error
    if len(data) > limits.bytes_each:
        raise ImageError(f"{last!r} has more than {limits.bytes_each:,} bytes when unpacked, the limit of a picture")
    return data


def _drawn(shown: render.Exhibit) -> bytes:
    picture = render.stamped(render.draw(shown, render.views(shown)[0], render.OPACITY), shown.report)
    file = io.BytesIO()
    comment = "\n".join(f"{key}: {value}" for key, value in picture.info.items())
    picture.save(file, "JPEG", quality=_DRAWN_QUALITY, comment=comment.encode())
    return file.getvalue()


def by_distance(rows: Iterable[Row]) -> list[Row]:
    """The rows with a report, the most suspicious first."""
    return sorted((row for row in rows if row.report is not None), key=lambda row: -row.distance)


def as_json(row: Row) -> dict[str, Any]:
    """What /inspect_batch answers for one picture."""
    if row.report is None:
        return {"file": row.file, "error": row.error, "code": row.code}
    return {"file": row.file, "report": row.report.model_dump(mode="json")}
