"""New good parts, and the calibration that they make of an old one: `training.recalibrate` for runs and inspectors."""

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from anomaly.calibration import Calibration, CalibrationFile, PixelThreshold, calibrate, least_good
from anomaly.datasets import GOOD, IMAGE_SUFFIXES, Dataset, Sample
from anomaly.detectors import Detector
from anomaly.errors import CalibrationError, DataError
from anomaly.model_repo import MODEL_FILES
from training.finish import Split, calibrated
from training.manifest import Manifest, ManifestEntry
from training.probability import fit_probability

_FOLDER = "recalibrated"  # the new pictures' place in a manifest
_MOVED = 0.01  # p-value of old against new good scores at which they are said to have moved


@dataclass(frozen=True, slots=True)
class NewParts:
    """Pictures of good parts."""

    samples: tuple[Sample, ...]  # each picture once; `relative` begins with `recalibrated/`
    entries: tuple[ManifestEntry, ...]  # the same, as a manifest lists them
    name: str  # of the folder

    def manifest(self, category: str) -> Manifest:
        """Of them alone."""
        return Manifest(category=category, layout="folder", seed=0, group_regex=None, entries=self.entries, dropped=())


def new_parts(folder: Path) -> NewParts:
    """The pictures anywhere below a folder; of identical ones the first.

    Raises:
        DataError: there are none, or the folder is one of a whole data set.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; give a folder of pictures of good parts")
    if divided := [name for name in ("train", "test", "ground_truth") if (folder / name).is_dir()]:
        raise DataError(f"{folder} is a data set (it has {divided[0]}/): give the folder of new good parts alone")
    samples: list[Sample] = []
    entries: dict[str, ManifestEntry] = {}
    for path in sorted(folder.rglob("*")):
        inner = path.relative_to(folder)
        if (
            path.suffix.lower() not in IMAGE_SUFFIXES
            or not path.is_file()
            or any(p.startswith(".") for p in inner.parts)
        ):
            continue
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        if sha256 in entries:
            continue
        name = f"{_FOLDER}/{inner.as_posix()}"
        samples.append(Sample(path, name, GOOD, "train", None))
        entries[sha256] = ManifestEntry(path=name, sha256=sha256, label=GOOD, split="calibrate", group=None)
    if not samples:
        raise DataError(f"{folder} holds no picture ({' '.join(IMAGE_SUFFIXES)})")
    return NewParts(tuple(samples), tuple(entries.values()), folder.resolve().name)


def check_new(parts: NewParts, manifest: Manifest) -> None:
    """Raises DataError where a picture was trained on or is a test picture; one that calibrated before may again."""
    known = {entry.sha256: entry for entry in manifest.entries if entry.split != "calibrate" or entry.label != GOOD}
    known |= {entry.sha256: known[s] for entry in manifest.dropped for s in known if known[s].path == entry.same_as}
    old = [(entry, known[entry.sha256]) for entry in parts.entries if entry.sha256 in known]
    if old:
        entry, there = old[0]
        raise DataError(
            f"{len(old)} of {len(parts.entries)} pictures are not new: {entry.path.removeprefix(_FOLDER + '/')} is "
            f"{there.path}, a {there.split} picture of the run; calibrate with parts that it has not seen"
        )


def recalibrated(detector: Detector, old: Calibration, parts: NewParts, split_hash: str) -> Calibration:
    """The calibration from new good parts and the old defect scores.

    Args:
        detector: of one category.
        old: its calibration so far.
        parts: new good parts.
        split_hash: of what it stands on now.

    Raises:
        CalibrationError: too few parts for the false-alarm level that the old one has.
    """
    far = old.thresholds["far"].level or 0.05
    if (count := len(parts.samples)) < (least := least_good(far)):
        raise CalibrationError(
            f"a false-alarm level of {far} needs {least} good parts, {parts.name} has {count} different pictures: add "
            f"{least - count}"
        )
    manifest = parts.manifest("new")
    split = Split(parts.name, (Dataset(Path(), "new", "folder", parts.samples),), (manifest,))
    fresh = calibrated(detector, split, far)
    return calibrate(
        fresh.good_scores,
        old.defect_scores,
        split_hash=split_hash,
        far=far,
        heatmap=fresh.heatmap,
        pixel=_pixel(old.pixel, fresh.pixel),
        probability=fit_probability(fresh.good_scores, old.defect_scores),
    )


def _pixel(old: PixelThreshold | None, fresh: PixelThreshold | None) -> PixelThreshold | None:
    """One that was chosen on masks of defects stays, as their scores do."""
    return old if old is not None and old.source == "dice" else fresh


def in_words(name: str, old: Calibration, new: Calibration) -> list[str]:
    """What changed, for a person."""
    from scipy.stats import ks_2samp

    before, after = old.thresholds["far"], new.thresholds["far"]
    beyond = sum(score >= before.value for score in new.good_scores)
    lines = [
        f"{name}: {len(new.good_scores)} new good parts in place of {len(old.good_scores)}; far {before.value:.6g} -> "
        f"{after.value:.6g}; at the old one {beyond} of the new good parts would be false alarms"
    ]
    moved = float(ks_2samp(old.good_scores, new.good_scores).pvalue)
    if new.defect_scores:
        kept = f"f1, f2, youden, safe and probabilities still stand on {len(new.defect_scores)} old defect scores"
        lines.append(
            f"  {kept}, and good parts score otherwise now (Kolmogorov-Smirnov p = {moved:.2g}): defects may, too; "
            "collect some and train again"
            if moved <= _MOVED
            else f"  {kept}"
        )
    return lines


def words_of(new: Calibration, parts: NewParts) -> str:
    """What stands in the settings of the new revision."""
    defects = f"; {len(new.defect_scores)} defect scores from before" if new.defect_scores else ""
    return f"with {len(new.good_scores)} new good parts of {parts.name}{defects}"


def write_model(folder: Path, old: Path, calibrations: CalibrationFile) -> None:
    """The four files of a model; only the calibration is new."""
    for name in MODEL_FILES:
        if name != "calibration.json":
            shutil.copyfile(old / name, folder / name)
    (folder / "calibration.json").write_text(calibrations.model_dump_json(indent=1) + "\n")
