"""Which picture is in which split, with the hash of every picture: what is written beside every run."""

import hashlib
import json
from collections import Counter
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from anomaly.datasets import GOOD
from anomaly.errors import DataError

__all__ = [
    "DroppedEntry",
    "Manifest",
    "ManifestEntry",
    "NearDuplicate",
    "Protocol",
    "SplitName",
    "counts",
    "verify_disjoint",
]

SplitName = Literal["train", "validate", "calibrate", "test"]
Protocol = Literal["mvtec", "supervised", "kfold"]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class ManifestEntry(BaseModel):
    """One picture and the split it belongs to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str  # Sample.relative
    sha256: Sha256  # of the file
    label: str
    split: SplitName
    group: str | None  # what group_regex captured in the path


class DroppedEntry(BaseModel):
    """A picture left out of every split, because it is in another one, too."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    sha256: Sha256
    same_as: str  # path of the picture that stays
    reason: Literal["identical", "near_duplicate"] = "identical"  # bytes, or perceptual hash


class NearDuplicate(BaseModel):
    """Two pictures of different splits that look alike."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    other: str
    distance: int  # bits of 256 in which their perceptual hashes differ
    turned: str | None = None  # how `path` is turned to look like `other`


class Manifest(BaseModel):
    """Which picture is in which split; entries and dropped are sorted by path."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    category: str
    layout: str
    seed: int
    group_regex: str | None
    protocol: Protocol = "mvtec"
    fold: int | None = None  # kfold: which of `folds` is the test
    folds: int | None = None
    shots: int | None = None  # train pictures of each label, where they were limited
    entries: tuple[ManifestEntry, ...]
    dropped: tuple[DroppedEntry, ...]
    near_duplicates: tuple[NearDuplicate, ...] = ()  # across splits, among the entries

    @property
    def split_hash(self) -> str:
        """SHA-256 in hex of who is where: the same pictures, names and split give the same hash anywhere.

        Near-duplicates follow from the pictures. What has its default is left out where it was added later, so that
        the hashes of older manifests hold.
        """
        usual: dict[str, object] = {"protocol": "mvtec", "fold": None, "folds": None, "shots": None}
        content = self.model_dump(mode="json", exclude={"near_duplicates": True, "dropped": {"__all__": {"reason"}}})
        content = {name: value for name, value in content.items() if name not in usual or value != usual[name]}
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def verify_disjoint(manifest: Manifest) -> None:
    """Make sure that no picture and no group is in two splits.

    Raises:
        DataError: a path is listed twice, or one file (by hash) or one group is in two splits.
    """
    paths = Counter(entry.path for entry in manifest.entries)
    if twice := sorted(path for path, n in paths.items() if n > 1):
        raise DataError(f"manifest of {manifest.category}: {twice[0]} is listed twice; make the manifest anew")
    first: dict[tuple[str, str], ManifestEntry] = {}
    for entry in manifest.entries:
        for what, value in (("file", entry.sha256), ("group", entry.group)):
            if value is None:
                continue
            other = first.setdefault((what, value), entry)
            if other.split != entry.split:
                raise DataError(
                    f"manifest of {manifest.category}: {what} {value} is in {other.split} ({other.path}) and in "
                    f"{entry.split} ({entry.path}); all of it belongs on one side"
                )


def counts(manifest: Manifest) -> dict[SplitName, dict[str, int]]:
    """Pictures in each of the four splits by label, "good" first; a label without pictures in a split is left out."""
    return {
        split: dict(
            sorted(
                Counter(entry.label for entry in manifest.entries if entry.split == split).items(),
                key=lambda item: (item[0] != GOOD, item[0]),
            )
        )
        for split in get_args(SplitName)
    }
