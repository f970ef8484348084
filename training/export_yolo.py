"""Writes a divided data set in the YOLO format (images, labels, data.yaml): for other detectors on the very same split.

Boxes come from files or from masks, as for training.train_localiser. A line of a label file is
`class x y width height`: a number of data.yaml, the centre and the sides as shares of the picture. The part `calibrate`
is written beside the others, but data.yaml does not name it: nothing may be trained or chosen on it.
"""

import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from tqdm import tqdm

from anomaly.datasets import Sample
from anomaly.errors import DataError
from training.arguments import DataArgs, flag, run
from training.box_data import Truth, truth
from training.data import Split, split_data
from training.manifest import SplitName

FOLDERS: dict[SplitName, str] = {"train": "train", "validate": "val", "calibrate": "calibrate", "test": "test"}


@dataclass(frozen=True, kw_only=True)
class Args(DataArgs):
    box_labels: tuple[str, ...] = flag("names of type 1, 2, ... in box files; by default those of boxes/labels.txt", ())


def main(args: Args) -> None:
    if args.out.exists() and any(args.out.iterdir()):
        raise DataError(
            f"{args.out} is not empty: give another --out, or files of an older export would stay among these"
        )
    split = split_data(args)
    found = {part: _marked(split, part, args) for part in FOLDERS}
    names = sorted({label for part in found.values() for marks in part.values() for label in marks.labels})
    if not names:
        raise DataError(f"{args.data} has neither boxes nor masks: give boxes/<class>/<stem>.txt or ground_truth/…")
    for part, samples in found.items():
        _write(samples, names, FOLDERS[part], args)
    shown = {folder: f"images/{folder}" for part, folder in FOLDERS.items() if part != "calibrate" and found[part]}
    # JSON is YAML, and quotes names that YAML would take for something else
    lines = [f"{key}: {json.dumps(value)}" for key, value in shown.items()]
    lines += ["names:", *(f"  {number}: {json.dumps(name)}" for number, name in enumerate(names))]
    (args.out / "data.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for manifest in split.manifests:
        (args.out / f"manifest_{manifest.category}.json").write_text(manifest.model_dump_json(indent=1) + "\n")
    left = len(split.samples(*FOLDERS)) - sum(len(part) for part in found.values())
    counts = ", ".join(f"{FOLDERS[part]} {len(samples)}" for part, samples in found.items())
    print(
        f"{args.out}: {counts} pictures, {len(names)} classes" + (f"; {left} unmarked defects left out" if left else "")
    )


def yolo_name(sample: Sample) -> str:
    """Of a picture in the export, without suffix: all folders become one, and MVTec calls every first picture 000."""
    return "_".join(PurePosixPath(sample.relative).with_suffix("").parts)


def yolo_lines(marks: Truth, names: list[str]) -> list[str]:
    """The lines of a label file."""
    height, width = marks.size
    lines = []
    for (x1, y1, x2, y2), label in zip(marks.xyxy.tolist(), marks.labels, strict=True):
        shares = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
        lines.append(" ".join([str(names.index(label)), *(f"{share:.6f}" for share in shares)]))
    return lines


def _marked(split: Split, part: SplitName, args: Args) -> dict[Sample, Truth]:
    """Good pictures and marked defects: a defect without marks would teach that it is background."""
    samples = [s for s in split.samples(part) if not s.is_defect or s.boxes or s.mask]
    return {sample: truth(sample, args.box_labels) for sample in tqdm(samples, desc=part, leave=False, disable=None)}


def _write(samples: Mapping[Sample, Truth], names: list[str], folder: str, args: Args) -> None:
    images, labels = args.out / "images" / folder, args.out / "labels" / folder
    for target in (images, labels):
        target.mkdir(parents=True, exist_ok=True)
    for sample, marks in samples.items():
        name = yolo_name(sample)
        if (labels / f"{name}.txt").exists():
            raise DataError(f"{sample.relative} and another picture would both be called {name}: rename one of them")
        shutil.copyfile(sample.path, images / f"{name}{sample.path.suffix.lower()}")
        (labels / f"{name}.txt").write_text("".join(f"{line}\n" for line in yolo_lines(marks, names)))


if __name__ == "__main__":
    sys.exit(run(main, Args))
