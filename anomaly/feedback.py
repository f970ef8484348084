"""What people say of verdicts, as a folder that training reads (anomaly.datasets).

<category>/train/<label>/<sha256>.png with a JSON sidecar. With a repo it goes to a dataset on the Hub, too
(huggingface_hub.CommitScheduler).

A picture is named by the hash of its pixels, so the same one is there once, under the label that was given last. It is
written anew from its pixels: what a camera or a phone wrote into the file (place, owner) is not kept.
"""

import contextlib
import io
import json
import logging
import os
import threading
import unicodedata
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from PIL import Image
from pydantic import BaseModel, ConfigDict, ValidationError

from anomaly import images
from anomaly.datasets import GOOD, GOOD_NAMES
from anomaly.errors import DataError, RegistryError
from anomaly.hub_errors import explained
from anomaly.report import Report

if TYPE_CHECKING:
    from huggingface_hub import CommitScheduler

ANY_DEFECT = "defect"  # a defect whose type nobody named
MOST_CHARACTERS = 60
EVERY_MIN = 5  # between two commits to the Hub
_SPLIT = "train"
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

    def add(self, picture: str | Path | bytes, report: object, label: str) -> Stored:
        """Stores a picture under what a person says it is.

        Args:
            picture: its file.
            report: of its inspection, as a Report or as its JSON.
            label: "good" or a type of defect.

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
                self._take_back(others)
                path.parent.mkdir(parents=True, exist_ok=True)
                if path not in earlier:
                    _write_png(path, pixels)
                _write(path.with_suffix(".json"), opinion.model_dump_json(indent=1).encode() + b"\n")
                for old in others:
                    _remove(old)
            except OSError as error:
                raise DataError(f"{self.folder}: the label cannot be stored ({error.strerror or error})") from error
        outcome: Outcome = "moved" if others else "known" if earlier else "stored"
        return Stored(outcome, name, path, count + (not earlier))

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
                hf_api=_api(),
            )
        return self._scheduler

    def _take_back(self, pictures: list[Path]) -> None:
        """Deletes pictures from the Hub: the scheduler only ever adds."""
        if self.repo is None or not pictures:
            return
        from huggingface_hub import CommitOperationDelete

        with explained(self.repo):
            api = _api()
            there = {path.as_posix() for old in pictures for path in (self._inside(old), self._inside(old, ".json"))}
            known = api.get_paths_info(self.repo, sorted(there), repo_type="dataset")
            if known:
                api.create_commit(
                    self.repo,
                    [CommitOperationDelete(entry.path) for entry in known],
                    commit_message="Another label",
                    repo_type="dataset",
                )

    def _inside(self, picture: Path, suffix: str = ".png") -> Path:
        return picture.with_suffix(suffix).relative_to(self.folder)


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


def _write_png(path: Path, pixels: images.RgbImage) -> None:
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "PNG")
    _write(path, encoded.getvalue())


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all; the reader passes over what has a dot in front."""
    half = path.with_name(f".{path.name}.half")
    half.write_bytes(content)
    half.replace(path)


def _remove(picture: Path) -> None:
    """With its sidecar, and with its folder if that is empty then: the reader takes no empty class."""
    picture.unlink()
    picture.with_suffix(".json").unlink(missing_ok=True)
    if not any(picture.parent.iterdir()):
        picture.parent.rmdir()


def opinion_of(picture: Path) -> Opinion:
    """The sidecar of a stored picture."""
    return Opinion.model_validate(json.loads(picture.with_suffix(".json").read_text(encoding="utf-8")))


def _api() -> Any:
    from huggingface_hub import HfApi

    return HfApi(endpoint=os.environ.get("HF_ENDPOINT", "").rstrip("/") or None, library_name="vigie")
