"""The pictures of a run, divided: one category, or several at once (`--category all`)."""

import csv
import dataclasses
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from anomaly.datasets import GOOD, VISA_CSV, Dataset, Sample, read_dataset
from anomaly.errors import CalibrationError, DataError
from anomaly.figures import DataFigures
from anomaly.hub_data import local_data
from training.arguments import DataArgs
from training.manifest import DroppedEntry, Manifest, NearDuplicate, SplitName, counts
from training.near_duplicates import Hash, Pair, droppable, hashes, near_duplicates
from training.pictures import samples_of
from training.splits import make_manifest

ALL = "all"  # --category all: every category below the root

_hashes: dict[str, Hash] = {}  # sha256 of a file -> what it looks like: several scripts of one process read the same


@dataclass(frozen=True, slots=True)
class Split:
    """A data set, divided; one manifest a category.

    With several categories a type of defect is "category/type", for the same word means two things on two parts, and
    `relative` begins with the category; good is good everywhere.
    """

    name: str  # of the folder, or repo@commit of a Hub dataset
    datasets: tuple[Dataset, ...]
    manifests: tuple[Manifest, ...]

    @property
    def categories(self) -> tuple[str, ...]:
        return tuple(dataset.category for dataset in self.datasets)

    @property
    def labels(self) -> tuple[str, ...]:
        """Of all pictures of all splits: "good" first, then the types of defect by name."""
        found = {sample.label for sample in self.samples("train", "validate", "calibrate", "test")}
        return tuple(sorted(found | {GOOD}, key=lambda label: (label != GOOD, label)))

    @property
    def split_hash(self) -> str:
        """Of the manifest; of several, over all of theirs."""
        if len(self.manifests) == 1:
            return self.manifests[0].split_hash
        return hashlib.sha256("\n".join(manifest.split_hash for manifest in self.manifests).encode()).hexdigest()

    def manifest(self, category: str) -> Manifest:
        """The one of that category."""
        return self.manifests[self.categories.index(category)]

    def of(self, category: str) -> "Split":
        """That category alone, its defects by their plain names."""
        index = self.categories.index(category)
        return Split(self.name, (self.datasets[index],), (self.manifests[index],))

    def samples(self, *splits: SplitName, category: str | None = None) -> list[Sample]:
        """The pictures of these splits, of one category or of all."""
        found: list[Sample] = []
        for dataset, manifest in zip(self.datasets, self.manifests, strict=True):
            if category in (None, dataset.category):
                part = samples_of(dataset, manifest, *splits)
                found += part if len(self.datasets) == 1 else [_named(sample, dataset.category) for sample in part]
        return found

    def good(self, *splits: SplitName, category: str | None = None) -> list[Sample]:
        """The good ones of these splits."""
        return [sample for sample in self.samples(*splits, category=category) if not sample.is_defect]

    def defects(self, *splits: SplitName, category: str | None = None) -> list[Sample]:
        """The defective ones of these splits."""
        return [sample for sample in self.samples(*splits, category=category) if sample.is_defect]


def split_data(args: DataArgs) -> Split:
    """Reads and divides the data. The same data and seed give the same split in every script.

    Raises:
        DataError, CalibrationError: the data is not what it should be, or there is too little of it.
        RegistryError: a Hub dataset cannot be had.
    """
    root, name = local_data(str(args.data))
    if args.protocol == "kfold" and args.fold is None:
        raise DataError("--protocol kfold is a run a fold: give --fold, or run the script itself, which does all")
    names = categories_of(root, args.layout) if args.category == ALL else (args.category,)
    datasets = tuple(read_dataset(root, category, args.layout) for category in names)
    return Split(name, datasets, tuple(_divided(dataset, args) for dataset in datasets))


def categories_of(root: Path, layout: str = "auto") -> tuple[str, ...]:
    """The categories below a root: subfolders with pictures to train on, or what VisA's CSV names.

    Raises:
        DataError: there are none.
    """
    if layout == "visa" or (layout == "auto" and (root / VISA_CSV).is_file()):
        with (root / VISA_CSV).open(newline="") as file:
            return tuple(sorted({row["object"] for row in csv.DictReader(file)}))
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; give a folder with a subfolder for each category")
    found = tuple(sorted(path.name for path in root.iterdir() if (path / "train").is_dir()))
    if not found:
        raise DataError(f"{root}: no category in it; --category all needs <category>/train/good below the data")
    return found


def data_figures(split: Split, category: str | None = None) -> DataFigures:
    """What a card says about the data, of one category or of all together."""
    chosen = [split.manifest(category)] if category is not None else list(split.manifests)
    labels: dict[str, Counter[str]] = {}
    for manifest in chosen:
        for part, found in counts(manifest).items():
            for label, count in found.items():
                prefixed = label if label == GOOD or len(chosen) == 1 else f"{manifest.category}/{label}"
                labels.setdefault(part, Counter())[prefixed] += count
    return DataFigures(
        name=split.name,
        layout=chosen[0].layout,
        seed=chosen[0].seed,
        split_hash=chosen[0].split_hash if len(chosen) == 1 else split.split_hash,
        counts={part: dict(found) for part, found in labels.items()},
    )


def too_few_defects(split: Split, data: Path | str) -> DataError | None:
    """Why nothing supervised can be made of this data; None where it can."""
    train, calibrate = len(split.defects("train")), len(split.defects("calibrate"))
    if train and calibrate:
        return None
    return DataError(
        f"a supervised detector learns from labelled defects, and {data} has too few in its train folders "
        f"({train} to train on, {calibrate} to calibrate): put some into train/<defect>, take --protocol supervised, "
        "or use a detector that needs good pictures only"
    )


def _divided(dataset: Dataset, args: DataArgs) -> Manifest:
    manifest = make_manifest(
        dataset,
        args.seed,
        group_regex=args.group_regex,
        far=args.far,
        protocol=args.protocol,
        test_share=args.test_share,
        folds=args.folds,
        fold=args.fold or 0,
        shots=args.shots,
    )
    used = {entry.path: entry for entry in manifest.entries}
    new = [s for s in dataset.samples if s.relative in used and used[s.relative].sha256 not in _hashes]
    _hashes.update((used[path].sha256, found) for path, found in hashes(new).items())
    pairs = near_duplicates(
        {path: _hashes[entry.sha256] for path, entry in used.items()}, {p: e.split for p, e in used.items()}
    )
    return with_near_duplicates(manifest, pairs, drop=args.drop_near_duplicates)


def with_near_duplicates(manifest: Manifest, pairs: Sequence[Pair], *, drop: bool) -> Manifest:
    """The manifest with the near-duplicates across its splits written down, or with one side of each left out.

    A test picture is never left out.

    Raises:
        CalibrationError: a label of a split would be left without any picture.
    """
    if not drop:
        found = tuple(NearDuplicate(**pair.model_dump(exclude={"splits"})) for pair in pairs)
        return manifest.model_copy(update={"near_duplicates": found})
    gone = droppable(pairs)
    partner = {pair.path: pair.other for pair in pairs} | {pair.other: pair.path for pair in pairs}
    entries = tuple(entry for entry in manifest.entries if entry.path not in gone)
    before, after = ({(e.split, e.label) for e in part} for part in (manifest.entries, entries))
    if lost := sorted(before - after):
        raise CalibrationError(
            f"every {lost[0][1]} picture of {lost[0][0]} looks like one of another split: without them nothing is left "
            "of it; leave --drop-near-duplicates out, or name the parts with --group-regex"
        )
    dropped = [
        DroppedEntry(path=e.path, sha256=e.sha256, same_as=partner[e.path], reason="near_duplicate")
        for e in manifest.entries
        if e.path in gone
    ]
    everything = sorted([*manifest.dropped, *dropped], key=lambda entry: entry.path)
    return manifest.model_copy(update={"entries": entries, "dropped": tuple(everything)})


def _named(sample: Sample, category: str) -> Sample:
    label = f"{category}/{sample.label}" if sample.is_defect else GOOD
    return dataclasses.replace(sample, label=label, relative=f"{category}/{sample.relative}")
