"""Seeded, disjoint splits of a data set, written down with the hash of every picture.

*mvtec*       the data set's own test part stays the test; its train part is divided, label by label, into train,
              validate (for stopping and choosing) and calibrate (for thresholds and p-values).
*supervised*  train and test parts are merged and divided anew, label by label: a fifth to test by default, a fifth to
              calibrate and validate, the rest to train.
*kfold*       merged likewise; the f-th of k parts is the test. For sets too small to give up a fifth of them.

In each of them no number is learned where it is reported.
"""

import hashlib
import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from anomaly.datasets import GOOD, Dataset, Sample
from anomaly.errors import CalibrationError, DataError
from training.manifest import DroppedEntry, Manifest, ManifestEntry, Protocol, SplitName, verify_disjoint

__all__ = ["make_manifest"]

FEW = 4  # of a label; from here on calibrate and validate get one at least, and two remain to train on


def make_manifest(
    dataset: Dataset,
    seed: int = 0,
    calibrate_share: float | None = None,
    validate_share: float | None = None,
    group_regex: str | None = None,
    far: float = 0.05,
    *,
    protocol: Protocol = "mvtec",
    test_share: float = 0.2,
    folds: int = 5,
    fold: int = 0,
    shots: int | None = None,
) -> Manifest:
    """Divide a data set.

    Pictures of one group, and byte-identical pictures, stay together. With `mvtec` a train picture that is
    byte-identical to a test picture is left out and listed in `dropped`.

    Args:
        dataset: what to divide.
        seed: another seed gives another division.
        calibrate_share: share of each label for calibrate, of what is divided; by default 0.2, for `supervised` 0.12.
            For good pictures it is raised, up to half of them, where `far` needs more. Of four defects or more of a
            label one at least comes here, where the groups allow it.
        validate_share: share of each label for validate, likewise; by default 0.1, for `supervised` 0.08.
        group_regex: searched in each relative path; what its one capture group finds names the picture's group
            (a board, a batch, a camera run). A picture in which it finds nothing stands alone.
        far: false-alarm rate in (0, 1) the calibration must be able to reach: it needs n good pictures with
            1 / (n + 1) <= far.
        protocol: what the test is, see the head of this file.
        test_share: of each label, for `supervised`.
        folds: how many parts, for `kfold`.
        fold: which of them is the test, from 0.
        shots: leave at most this many train pictures of each label, and none to validate.

    Raises:
        DataError: no train pictures, a faulty regex, a group on both sides of train and test, or one and the same
            file as good and as defect.
        CalibrationError: too few good pictures for `far`, or a share out of range.
    """
    calibrate_share = calibrate_share if calibrate_share is not None else 0.12 if protocol == "supervised" else 0.2
    validate_share = validate_share if validate_share is not None else 0.08 if protocol == "supervised" else 0.1
    if not 0 < far < 1:
        raise CalibrationError(f"far={far} must lie between 0 and 1, such as 0.05 for one false alarm in 20 good parts")
    held_out = calibrate_share + validate_share + (test_share if protocol == "supervised" else 0)
    if min(calibrate_share, validate_share, test_share) < 0 or not held_out < 1:
        raise CalibrationError(
            f"calibrate_share={calibrate_share}, validate_share={validate_share} and test_share={test_share} must be "
            "0 or more and sum to less than 1, so that something is left to train on"
        )
    if protocol == "kfold" and not (folds >= 2 and 0 <= fold < folds):
        raise DataError(f"fold {fold} of {folds} folds does not exist: give 2 folds or more, and count from 0")
    samples = sorted(dataset.samples, key=lambda sample: sample.relative)
    if protocol == "mvtec" and not any(sample.split == "train" for sample in samples):
        raise DataError(f"{dataset.root}: no train pictures to divide; add train/good/… or take --protocol supervised")
    sha256 = {sample.relative: _sha256(sample) for sample in samples}
    group = _groups(samples, group_regex)
    _check_one_truth_a_file(samples, sha256)

    dropped = _also_in_test(samples, sha256) if protocol == "mvtec" else ()
    gone = {entry.path for entry in dropped}
    kept = [sample for sample in samples if sample.relative not in gone]

    def units_of(pool: Iterable[Sample]) -> list[list[Sample]]:
        return sorted(_units(pool, sha256, group), key=lambda unit: _rank(unit[0].relative, seed))

    if protocol == "mvtec":
        test = [[sample] for sample in kept if sample.split == "test"]
        units = units_of(sample for sample in kept if sample.split == "train")
    elif protocol == "supervised":
        everything = units_of(kept)
        total = _count(everything)
        test, units = _draw(everything, total, test_share, _least(total, test_share))
    else:
        test, units = _fold(units_of(kept), folds, fold)
    total = _count(test) + _count(units) if protocol == "supervised" else _count(units)
    needed = _good_needed(far)
    available = _count(units)[GOOD]
    calibrate, units = _draw(units, total, calibrate_share, _least(total, calibrate_share) | {GOOD: needed})
    _check_enough_good(_count(calibrate)[GOOD], available, needed, far)
    validate, units = _draw(units, total, validate_share, _least(total, validate_share))
    if shots is not None:
        validate, units = [], _first(units + validate, shots, seed)

    split: dict[str, SplitName] = {}
    parts: tuple[tuple[SplitName, list[list[Sample]]], ...] = (
        ("train", units),
        ("validate", validate),
        ("calibrate", calibrate),
        ("test", test),
    )
    for name, part in parts:
        split |= {sample.relative: name for unit in part for sample in unit}
    manifest = Manifest(
        category=dataset.category,
        layout=dataset.layout,
        seed=seed,
        group_regex=group_regex,
        protocol=protocol,
        fold=fold if protocol == "kfold" else None,
        folds=folds if protocol == "kfold" else None,
        shots=shots,
        entries=tuple(
            ManifestEntry(path=path, sha256=sha256[path], label=label, split=split[path], group=group[path])
            for path, label in ((sample.relative, sample.label) for sample in kept)
            if path in split
        ),
        dropped=dropped,
    )
    verify_disjoint(manifest)  # also finds the group that is in train and in test
    return manifest


def _also_in_test(samples: Sequence[Sample], sha256: Mapping[str, str]) -> tuple[DroppedEntry, ...]:
    """Train pictures that are the same file as a test picture."""
    test_path: dict[str, str] = {}
    for sample in samples:
        if sample.split == "test":
            test_path.setdefault(sha256[sample.relative], sample.relative)
    return tuple(
        DroppedEntry(path=s.relative, sha256=sha256[s.relative], same_as=test_path[sha256[s.relative]])
        for s in samples
        if s.split == "train" and sha256[s.relative] in test_path
    )


def _fold(units: list[list[Sample]], folds: int, fold: int) -> tuple[list[list[Sample]], list[list[Sample]]]:
    """The units of one fold, and the rest. Every unit is in exactly one fold."""
    rest, part = units, units
    for index in range(fold + 1):
        if index == folds - 1:
            part = rest
            break
        total = _count(rest)
        part, rest = _draw(rest, total, 1 / (folds - index), {})
    if not part:
        raise DataError(f"fold {fold} of {folds} is empty: {len(units)} pictures or groups are too few for it")
    chosen = {unit[0].relative for unit in part}
    return part, [unit for unit in units if unit[0].relative not in chosen]


def _first(units: Iterable[list[Sample]], shots: int, seed: int) -> list[list[Sample]]:
    """At most `shots` pictures of each label, in the order of their rank: two are among four."""
    taken: Counter[str] = Counter()
    chosen: list[list[Sample]] = []
    for sample in sorted((s for unit in units for s in unit), key=lambda s: _rank(s.relative, seed)):
        if taken[sample.label] < shots:
            taken[sample.label] += 1
            chosen.append([sample])
    return chosen


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
    goal = {label: max(n, least.get(label, 0)) for label, n in shares.items()}
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
