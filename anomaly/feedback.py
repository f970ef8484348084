"""What people say of verdicts, as a folder that training reads (anomaly.datasets).

<category>/train/<label>/<sha256>.png with a JSON sidecar and, where somebody marked the defect, its mask in
<category>/ground_truth_train/<label>/<sha256>_mask.png. With a repo it goes to a dataset on the Hub, too
(huggingface_hub.CommitScheduler).

A picture is named by the hash of its pixels, so the same one is there once, under the label that was given last. It is
written anew from its pixels: what a camera or a phone wrote into the file (place, owner) is not kept.
"""

import contextlib
import io
import logging
import threading
import unicodedata
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, ValidationError

from anomaly import hub, images, regions
from anomaly.datasets import GOOD, GOOD_NAMES
from anomaly.errors import DataError, RegistryError
from anomaly.hub_errors import explained
from anomaly.report import Report

if TYPE_CHECKING:
    from huggingface_hub import CommitScheduler

ANY_DEFECT = "defect"  # a defect whose type nobody named
MOST_CHARACTERS = 60
EVERY_MIN = 5  # between two commits to the Hub
_SPLIT, _MASKS = "train", "ground_truth_train"
_MOST_REPORT = 1_000_000  # characters: what a stranger sends as one may be anything

_LOGGER = logging.getLogger(__name__)

Outcome = Literal["stored", "known", "moved"]


class Opinion(BaseModel):
    """The sidecar of a picture. It says nothing of who it was."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    label: str  # "good" or a type of defect: what the part is, as a person says
    right: bool | None  # whether the verdict was; None for a review, which is neither
    said_at: str  # ISO 8601, UTC
    report: Report


class Stored(NamedTuple):
    """What became of an opinion."""

    outcome: Outcome  # known: the same label was there; moved: another one was
    label: str
    path: Path
    pictures: int  # in the folder now


class FeedbackStore:
    """Thread-safe. One for each process.

    Args:
        folder: created when the first opinion is stored.
        repo: id of a dataset on the Hub that the folder is committed to; None for none.
        most: pictures that are taken in all.
        every_min: minutes between two commits.
    """

    def __init__(self, folder: Path, repo: str | None = None, *, most: int = 10_000, every_min: float = EVERY_MIN):
        self.folder = folder
        self.repo = repo
        self._most, self._every_min = most, every_min
        self._lock = threading.Lock()
        self._scheduler: CommitScheduler | None = None

    def add(self, picture: str | Path | bytes, report: object, label: str, region: object = None) -> Stored:
        """Stores a picture under what a person says it is.

        Args:
            picture: its file.
            report: of its inspection, as a Report or as its JSON.
            label: "good" or a type of defect.
            region: where the defect is, as `regions.mask_of` takes it. Without one, a region that was given earlier
                stays as long as the part is not good.

        Raises:
            DataError: label, report or folder are not right, or there is no room left.
            ImageError: the picture cannot be read.
            RegistryError: the Hub did not take back an earlier label.
        """
        said = checked_report(report)
        name = checked_label(label)
        pixels = images.read(picture)
        if images.digest(pixels) != said.image_sha256:
            raise DataError("the report is of another picture: inspect this one first, then say what it is")
        mask = regions.mask_of(region, (pixels.shape[0], pixels.shape[1]))
        if mask is not None and name == GOOD:
            raise DataError("a good part has no defect to mark: take the region away, or name the type of defect")
        opinion = Opinion(
            label=name,
            right=None if said.decision == "review" else (said.decision == "ok") == (name == GOOD),
            said_at=datetime.now(UTC).isoformat(timespec="seconds"),
            report=said,
        )
        home = self.folder / checked_label(said.category) / _SPLIT
        with self._lock, self._uploads_wait():
            try:
                earlier = sorted(home.glob(f"*/{said.image_sha256}.png"))
                count = sum(1 for _ in self.folder.glob(f"*/{_SPLIT}/*/*.png"))
                if not earlier and count >= self._most:
                    raise DataError(f"there are {count} labelled pictures, the most that are taken: move some away")
                path = home / name / f"{said.image_sha256}.png"
                others = [old for old in earlier if old != path]
                marked = next((_mask_of(old) for old in others if _mask_of(old).is_file()), None)
                kept = marked.read_bytes() if marked is not None and name != GOOD else None
                self._take_back(others)
                path.parent.mkdir(parents=True, exist_ok=True)
                if path not in earlier:
                    _write(path, _png(pixels))
                _write(path.with_suffix(".json"), opinion.model_dump_json(indent=1).encode() + b"\n")
                if (drawn := kept if mask is None else _png(mask.astype(np.uint8) * 255)) is not None:
                    _mask_of(path).parent.mkdir(parents=True, exist_ok=True)
                    _write(_mask_of(path), drawn)
                for old in others:
                    _remove(old)
            except OSError as error:
                raise DataError(f"{self.folder}: the label cannot be stored ({error.strerror or error})") from error
        outcome: Outcome = "moved" if others else "known" if earlier else "stored"
        return Stored(outcome, name, path, count + (not earlier))

    def label_of(self, report: Report) -> str | None:
        """What the picture of a report is said to be; None where nobody said."""
        home = self.folder / checked_label(report.category) / _SPLIT
        return next((path.parent.name for path in home.glob(f"*/{report.image_sha256}.png")), None)

    def push(self) -> None:
        """Commits what is new to the Hub now, and waits for it. Does nothing without a repo."""
        if (scheduler := self._started()) is not None:
            scheduler.trigger().result()

    def close(self) -> None:
        """No more commits."""
        if self._scheduler is not None:
            self._scheduler.stop()

    def _uploads_wait(self) -> Any:
        """While files change, none is listed for a commit. Without a Hub the folder is filled all the same."""
        try:
            scheduler = self._started()
        except RegistryError as error:
            _LOGGER.warning("labels stay in %s for now: %s", self.folder, error)
            scheduler = None
        return contextlib.nullcontext() if scheduler is None else scheduler.lock

    def _started(self) -> "CommitScheduler | None":
        """The scheduler, begun with the first opinion: it creates the repo, private, and commits from time to time."""
        if self.repo is None or self._scheduler is not None:
            return self._scheduler
        from huggingface_hub import CommitScheduler

        with explained(self.repo):
            self._scheduler = CommitScheduler(
                repo_id=self.repo,
                repo_type="dataset",
                folder_path=self.folder,
                every=self._every_min,
                private=True,
                allow_patterns=["*.png", "*.json"],
                hf_api=hub.client(),
            )
        return self._scheduler

    def _take_back(self, pictures: list[Path]) -> None:
        """Deletes pictures from the Hub: the scheduler only ever adds."""
        if self.repo is None or not pictures:
            return
        from huggingface_hub import CommitOperationDelete

        with explained(self.repo):
            api = hub.client()
            files = [path for old in pictures for path in (old, old.with_suffix(".json"), _mask_of(old))]
            there = {path.relative_to(self.folder).as_posix() for path in files}
            known = api.get_paths_info(self.repo, sorted(there), repo_type="dataset")
            if known:
                api.create_commit(
                    self.repo,
                    [CommitOperationDelete(entry.path) for entry in known],
                    commit_message="Another label",
                    repo_type="dataset",
                )


def checked_report(report: object) -> Report:
    """A report from its JSON. Raises DataError for anything else."""
    try:
        said = report if isinstance(report, Report) else Report.model_validate(report)
    except ValidationError as error:
        at = ".".join(str(key) for key in error.errors()[0]["loc"]) or "it"
        raise DataError(
            f"that is no report: {at}: {error.errors()[0]['msg']}; send what /inspect answered, as it is"
        ) from error
    if len(said.model_dump_json()) > _MOST_REPORT:
        raise DataError(f"that report is longer than {_MOST_REPORT} characters; send what /inspect answered, as it is")
    return said


def checked_label(label: str) -> str:
    """The name of a folder from what a person typed: spaces become `_`, and every name of good parts is "good".

    Raises:
        DataError: it has something in it that is no letter, digit, `-` or `_`; so no label leads out of the folder.
    """
    name = "_".join(unicodedata.normalize("NFC", label).split())
    fine = all(char.isalnum() or char in "-_" for char in name)
    if not name or not fine or not name[0].isalnum() or len(name) > MOST_CHARACTERS:
        raise DataError(
            f"{label[:80]!r} cannot name a type of defect: take letters, digits, '-' and '_', {MOST_CHARACTERS} at most"
        )
    return GOOD if name.lower() in GOOD_NAMES else name


def _mask_of(picture: Path) -> Path:
    """Where the mask of a stored picture lies, if it has one."""
    label = picture.parent
    return label.parent.parent / _MASKS / label.name / f"{picture.stem}_mask.png"


def _png(pixels: NDArray[np.uint8]) -> bytes:
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "PNG")
    return encoded.getvalue()


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all; the reader passes over what has a dot in front."""
    half = path.with_name(f".{path.name}.half")
    half.write_bytes(content)
    half.replace(path)


def _remove(picture: Path) -> None:
    """With its sidecar and mask, and with folders that are empty then: the reader takes no empty class."""
    mask = _mask_of(picture)
    for path in (mask, picture, picture.with_suffix(".json")):
        path.unlink(missing_ok=True)
    for folder in (picture.parent, mask.parent, mask.parent.parent):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
