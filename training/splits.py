"""Seeded, disjoint splits of a data set, written down with the hash of every picture.

The data set's own test part stays the test. Its train part is divided, label by label, into train, validate (for
stopping and choosing) and calibrate (for thresholds and p-values), so that no number is learned where it is reported.
"""

import hashlib
import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from anomaly.datasets import GOOD, Dataset, Sample
from anomaly.errors import CalibrationError, DataError

__all__ = ["DroppedEntry", "Manifest", "ManifestEntry", "SplitName", "counts", "make_manifest", "verify_disjoint"]

SplitName = Literal["train", "validate", "calibrate", "test"]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

FEW = 4  # of a label; from here on calibrate and validate get one at least, and two remain to train on


class ManifestEntry(BaseModel):
    """One picture and the split it belongs to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str  # Sample.relative
    sha256: Sha256  # of the file
    label: str
    split: SplitName
    group: str | None  # what group_regex captured in the path


class DroppedEntry(BaseModel):
    """A train picture left out of every split, because the same file is in the test part."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    sha256: Sha256
    same_as: str  # path of the test picture


class Manifest(BaseModel):
    """Which picture is in which split; entries and dropped are sorted by path."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    category: str
    layout: str
    seed: int
    group_regex: str | None
    entries: tuple[ManifestEntry, ...]
    dropped: tuple[DroppedEntry, ...]

    @property
    def split_hash(self) -> str:
        """SHA-256 in hex of all of the manifest: the same pictures, names and split give the same hash anywhere."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def make_manifest(
    dataset: Dataset,
    seed: int = 0,
    calibrate_share: float = 0.2,
    validate_share: float = 0.1,
    group_regex: str | None = None,
    far: float = 0.05,
) -> Manifest:
    """Divide a data set.

    Pictures of one group, and byte-identical pictures, stay together. A train picture that is byte-identical to a test
    picture is left out and listed in `dropped`.

    Args:
        dataset: its test part is taken over as it is; its train part is divided.
        seed: another seed gives another division.
        calibrate_share: share of each label for calibrate. For good pictures it is raised, up to half of them, where
            `far` needs more. Of four defects or more of a label one at least comes here, where the groups allow it.
        validate_share: share of each label for validate, likewise.
        group_regex: searched in each relative path; what its one capture group finds names the picture's group
            (a board, a batch, a camera run). A picture in which it finds nothing stands alone.
        far: false-alarm rate in (0, 1) the calibration must be able to reach: it needs n good pictures with
            1 / (n + 1) <= far.

    Raises:
        DataError: no train pictures, a faulty regex, a group on both sides of train and test, or one and the same
            file as good and as defect.
        CalibrationError: too few good pictures for `far`, or a share out of range.
    """
    if not 0 < far < 1:
        raise CalibrationError(f"far={far} must lie between 0 and 1, such as 0.05 for one false alarm in 20 good parts")
    if calibrate_share < 0 or validate_share < 0 or not calibrate_share + validate_share < 1:
        raise CalibrationError(
            f"calibrate_share={calibrate_share} and validate_share={validate_share} must be 0 or more and sum to less "
            "than 1, so that something is left to train on"
        )
    samples = sorted(dataset.samples, key=lambda sample: sample.relative)
    if not any(sample.split == "train" for sample in samples):
        raise DataError(f"{dataset.root}: no train pictures to divide; add train/good/…")
    sha256 = {sample.relative: _sha256(sample) for sample in samples}
    group = _groups(samples, group_regex)
    _check_one_truth_a_file(samples, sha256)

    test_path: dict[str, str] = {}
    for sample in samples:
        if sample.split == "test":
            test_path.setdefault(sha256[sample.relative], sample.relative)
    dropped = tuple(
        DroppedEntry(path=s.relative, sha256=sha256[s.relative], same_as=test_path[sha256[s.relative]])
        for s in samples
        if s.split == "train" and sha256[s.relative] in test_path
    )
    gone = {entry.path for entry in dropped}
    kept = [sample for sample in samples if sample.relative not in gone]

    train = [sample for sample in kept if sample.split == "train"]
    units = sorted(_units(train, sha256, group), key=lambda unit: _rank(unit[0].relative, seed))
    total = _count(units)
    needed = _good_needed(far)
    calibrate, units = _draw(units, total, calibrate_share, _least(total, calibrate_share) | {GOOD: needed})
    _check_enough_good(_count(calibrate)[GOOD], total[GOOD], needed, far)
    validate, _ = _draw(units, total, validate_share, _least(total, validate_share))

    split: dict[str, SplitName] = {sample.relative: sample.split for sample in kept}
    split |= {sample.relative: "calibrate" for unit in calibrate for sample in unit}
    split |= {sample.relative: "validate" for unit in validate for sample in unit}
    manifest = Manifest(
        category=dataset.category,
        layout=dataset.layout,
        seed=seed,
        group_regex=group_regex,
        entries=tuple(
            ManifestEntry(path=path, sha256=sha256[path], label=label, split=split[path], group=group[path])
            for path, label in ((sample.relative, sample.label) for sample in kept)
        ),
        dropped=dropped,
    )
    verify_disjoint(manifest)  # also finds the group that is in train and in test
    return manifest


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


def _sha256(sample: Sample) -> str:
    try:
        with sample.path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{sample.path}: cannot be read ({error.strerror}); restore the file or remove it") from error


def _rank(relative: str, seed: int) -> str:
    """A shuffle that depends on nothing but name and seed: no library's generator, and new files move few old ones."""
    return hashlib.sha256(f"{seed}\n{relative}".encode()).hexdigest()


def _groups(samples: Sequence[Sample], group_regex: str | None) -> dict[str, str | None]:
    """The group of each relative path."""
    if group_regex is None:
        return dict.fromkeys((sample.relative for sample in samples), None)
    try:
        pattern = re.compile(group_regex)
    except re.error as error:
        raise DataError(f"group_regex {group_regex!r} is no regular expression ({error}); mend or quote it") from error
    if pattern.groups != 1:
        raise DataError(
            f"group_regex {group_regex!r} has {pattern.groups} capture groups; write one, as in 'board(\\d+)_'"
        )
    matches = {sample.relative: pattern.search(sample.relative) for sample in samples}
    if not any(matches.values()):
        raise DataError(
            f"group_regex {group_regex!r} finds nothing in any path, such as {samples[0].relative}; mend it"
        )
    return {relative: (match.group(1) or None) if match else None for relative, match in matches.items()}


def _check_one_truth_a_file(samples: Iterable[Sample], sha256: Mapping[str, str]) -> None:
    first: dict[str, Sample] = {}
    for sample in samples:
        other = first.setdefault(sha256[sample.relative], sample)
        if other.is_defect != sample.is_defect:
            raise DataError(
                f"{other.relative} ({other.label}) and {sample.relative} ({sample.label}) are the same file; "
                "remove the one that is labelled wrongly"
            )


def _good_needed(far: float) -> int:
    """The fewest good pictures n with 1 / (n + 1) <= far, tried out because ceil(1 / far) may be off by rounding."""
    return next(n for n in itertools.count(max(0, math.floor(1 / far) - 2)) if 1 / (n + 1) <= far)


def _check_enough_good(found: int, good: int, needed: int, far: float) -> None:
    if found >= needed:
        return
    larger = f"a far of {math.ceil(1e4 / (found + 1)) / 1e4:g} or more, or " if found else ""
    raise CalibrationError(
        f"{found} of {good} good train pictures can be held out for calibration, but far={far:g} needs {needed}: "
        f"allow {larger}{2 * needed} good train pictures or more, none of them in a group larger than {needed}"
    )


def _units(samples: Iterable[Sample], sha256: Mapping[str, str], group: Mapping[str, str | None]) -> list[list[Sample]]:
    """What must stay together: samples linked by a common group or a common hash, also through others."""
    parent: dict[str, str] = {}

    def find(key: str) -> str:
        parent.setdefault(key, key)
        while parent[key] != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    samples = list(samples)
    for sample in samples:
        name = group[sample.relative]
        if name is not None:
            parent[find(sha256[sample.relative])] = find(f"group {name}")
    units: dict[str, list[Sample]] = {}
    for sample in samples:
        units.setdefault(find(sha256[sample.relative]), []).append(sample)
    return list(units.values())


def _count(units: Iterable[Iterable[Sample]]) -> Counter[str]:
    return Counter(sample.label for unit in units for sample in unit)


def _least(total: Mapping[str, int], share: float) -> dict[str, int]:
    return {label: int(share > 0 and n >= FEW) for label, n in total.items()}


def _draw(
    units: list[list[Sample]], total: Mapping[str, int], share: float, least: Mapping[str, int]
) -> tuple[list[list[Sample]], list[list[Sample]]]:
    """Take units, in their order, until every label has its share of `total` or its least; return them and the rest.

    Single pictures meet that goal exactly. A group may go beyond it, but never takes more than half of what there is.
    """
    shares = {label: round(share * n) for label, n in total.items()}
    goal = {label: max(n, least[label]) for label, n in shares.items()}
    most = {label: min(max(n // 2, shares[label]), n - 1) for label, n in _count(units).items()}
    taken: list[list[Sample]] = []
    rest: list[list[Sample]] = []
    have: Counter[str] = Counter()
    for unit in units:
        sizes = _count([unit])
        short = any(have[label] < goal[label] for label in sizes)
        if short and all(have[label] + n <= most[label] for label, n in sizes.items()):
            taken.append(unit)
            have += sizes
        else:
            rest.append(unit)
    return taken, rest
