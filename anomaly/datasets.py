"""Folders of pictures as samples: plain class folders, MVTec AD (Bergmann et al. 2019), VisA (Zou et al. 2022).

*folder*  `train/<class>/…`, `test/<class>/…`; a class named good, ok or normal (any case) is "good".
*mvtec*   the same with `ground_truth/<class>/<stem>_mask.png` (or `<stem>.png`) for every defect of `test`, and
          `ground_truth_train/<class>/…` for those defects of `train` that have a mask.
*visa*    `split_csv/1cls.csv` with the columns object, split, label, image, mask; paths relative to the root.

The first two may have boxes as well, `boxes/<class>/<stem>.txt`: a file for every picture of a class of defects that
has such a folder, a line `x1 y1 x2 y2 type` for every defect (`read_boxes`).

Only `train` and `test` are read; hidden files and files that are no pictures are passed over. No picture is opened
here except a mask, by `read_mask`.
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anomaly.errors import DataError

__all__ = ["GOOD", "Dataset", "Layout", "Sample", "Split", "read_boxes", "read_dataset", "read_mask"]

Layout = Literal["folder", "mvtec", "visa"]
Split = Literal["train", "test"]

GOOD = "good"
GOOD_NAMES = ("good", "ok", "normal")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff")  # no JPEG: its artefacts are above 0 all around an edge
BOXES, BOX_NAMES = "boxes", "labels.txt"
VISA_CSV = Path("split_csv", "1cls.csv")
VISA_COLUMNS = ("object", "split", "label", "image", "mask")
VISA_LABELS = {"normal": GOOD, "anomaly": "anomaly"}


@dataclass(frozen=True, slots=True)
class Sample:
    """One picture of a data set. `relative` is its key: it does not depend on where the data set lies."""

    path: Path
    relative: str  # posix path relative to Dataset.root
    label: str  # "good" or the type of defect
    split: Split
    mask: Path | None  # None for a good part, and for a defect where the data set has no masks
    boxes: Path | None = None  # likewise

    @property
    def is_defect(self) -> bool:
        """Whether the part is anything but good."""
        return self.label != GOOD


@dataclass(frozen=True, slots=True)
class Dataset:
    """All pictures of one category, sorted by `relative`."""

    root: Path
    category: str
    layout: Layout
    samples: tuple[Sample, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels present: "good" first, then the types of defect by name."""
        return tuple(sorted({sample.label for sample in self.samples}, key=lambda label: (label != GOOD, label)))

    @property
    def train(self) -> tuple[Sample, ...]:
        """The samples the data set offers for training."""
        return tuple(sample for sample in self.samples if sample.split == "train")

    @property
    def test(self) -> tuple[Sample, ...]:
        """The samples the data set keeps for testing."""
        return tuple(sample for sample in self.samples if sample.split == "test")


def read_dataset(data: Path, category: str, layout: Literal["auto", "folder", "mvtec", "visa"] = "auto") -> Dataset:
    """List the pictures of one category.

    Args:
        data: the category's own folder (it has `train` or `test`), or a folder with a subfolder named `category`, or
            the root of VisA.
        category: what is inspected; picks the subfolder or the rows of the CSV.
        layout: `auto` takes visa where `split_csv/1cls.csv` exists, mvtec where there is ground truth, else folder.

    Returns:
        At least one good sample; one of train and test may be empty.

    Raises:
        DataError: a folder, class, file, mask or column is missing, empty or unknown.
    """
    if layout not in ("auto", *get_args(Layout)):
        raise DataError(f"unknown layout {layout!r}; expected one of {['auto', *get_args(Layout)]}")
    if not data.is_dir():
        raise DataError(f"{data}: no such folder; give a folder of pictures with train/<class> and test/<class>")
    if layout == "visa" or (layout == "auto" and (data / VISA_CSV).is_file()):
        root, samples = data, _read_visa(data, category)
        found: Layout = "visa"
    else:
        root = _category_folder(data, category)
        with_masks = layout == "mvtec" or (
            layout == "auto" and any((root / name).is_dir() for name in ("ground_truth", "ground_truth_train"))
        )
        found = "mvtec" if with_masks else "folder"
        samples = [*_read_split(root, "train", with_masks), *_read_split(root, "test", with_masks)]
    _check_names(samples)
    if all(sample.is_defect for sample in samples):
        raise DataError(
            f"{root}: none of {len(samples)} pictures is good; expected a class named one of {list(GOOD_NAMES)}, "
            f"found {sorted({sample.label for sample in samples})}"
        )
    ordered = tuple(sorted(samples, key=lambda sample: sample.relative))
    return Dataset(root=root, category=category, layout=found, samples=ordered)


def read_mask(sample: Sample, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Read where a part is defective.

    Args:
        sample: a good part needs no mask file.
        size: (H, W) in pixels of the sample's picture.

    Returns:
        (H, W) bool, True = defect; any value above 0 in the file is defect. All False for a good part.

    Raises:
        DataError: a defect without mask, or a file that is unreadable or of another size.
    """
    if not sample.is_defect:
        return np.zeros(size, dtype=bool)
    if sample.mask is None:
        raise DataError(f"{sample.relative}: this data set has no mask for it; pixel metrics need one a defect")
    try:
        with Image.open(sample.mask) as image:
            # What is marked is the colour, not the index of a palette and not the opacity.
            coloured = image.mode in ("P", "PA", "LA", "RGBA")
            values = np.asarray(image.convert("RGB") if coloured else image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{sample.mask}: the mask cannot be read ({error}); save it as an 8-bit PNG") from error
    mask: NDArray[np.bool_] = np.any(values.reshape(*values.shape[:2], -1) > 0, axis=2)
    if mask.shape != tuple(size):
        raise DataError(
            f"{sample.mask}: the mask is {mask.shape} (H, W), its picture {tuple(size)}; they must be equal"
        )
    return mask


def read_boxes(
    sample: Sample, size: tuple[int, int], names: Sequence[str] = ()
) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """Read where the defects of a part are.

    Args:
        sample: a good part needs no file.
        size: (H, W) in pixels of the sample's picture.
        names: of the types that the file calls 1, 2 and so on; by default the words of `boxes/labels.txt`. A type
            that has no name keeps what stands in the file.

    Returns:
        (N, 4) x1 y1 x2 y2 in pixels, x2 and y2 just outside, and the type of each. None for a good part.

    Raises:
        DataError: a defect without a file, a file that cannot be read, or a line that is no box of the picture.
    """
    if not sample.is_defect:
        return np.zeros((0, 4), np.float32), ()
    if sample.boxes is None:
        raise DataError(f"{sample.relative}: this data set has no boxes for it; write boxes/{sample.label}/<stem>.txt")
    try:
        lines = sample.boxes.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{sample.boxes}: the boxes cannot be read ({error}); save them as UTF-8 text") from error
    labels = next(parent for parent in sample.boxes.parents if parent.name == BOXES) / BOX_NAMES
    if not names and labels.is_file():
        names = labels.read_text(encoding="utf-8").split()
    named = {str(number): name for number, name in enumerate(names, 1)}
    rows: list[list[float]] = []
    types: list[str] = []
    for number, line in enumerate(lines, 1):
        if not (fields := line.split()):
            continue
        try:
            x1, y1, x2, y2 = row = [float(field) for field in fields[:4]]
        except ValueError:
            row = []
        if len(fields) != 5 or not row or not (0 <= x1 < x2 <= size[1] and 0 <= y1 < y2 <= size[0]):
            raise DataError(
                f"{sample.boxes}, line {number}: {line!r} is no box; expected x1 y1 x2 y2 type with "
                f"0 <= x1 < x2 <= {size[1]} and 0 <= y1 < y2 <= {size[0]}"
            )
        rows.append(row)
        types.append(named.get(fields[4], fields[4]))
    return np.array(rows, np.float32).reshape(-1, 4), tuple(types)


def _check_names(samples: list[Sample]) -> None:
    """Names are keys and go into JSON; one in an old code page would only fail there, with a traceback."""
    for sample in samples:
        try:
            sample.relative.encode()
        except UnicodeEncodeError:
            raise DataError(f"{sample.relative!r}: the name is not valid UTF-8; rename the file or folder") from None


def _category_folder(data: Path, category: str) -> Path:
    """The folder that has `train` or `test`: `data` itself or its subfolder named `category`."""
    for folder in (data, data / category):
        if any((folder / split).is_dir() for split in get_args(Split)):
            return folder
    folders = _subfolders(data)
    known = [f.name for f in folders if any((f / split).is_dir() for split in get_args(Split))]
    if known and not (data / category).is_dir():
        raise DataError(f"unknown category {category!r}; {data} has {known}")
    place = data / category if (data / category).is_dir() else data
    raise DataError(
        f"{place}: neither train nor test found; expected train/<class>/… or test/<class>/…, "
        f"found {[f.name for f in _subfolders(place)] or 'no folder at all'}"
    )


def _subfolders(folder: Path) -> list[Path]:
    return sorted(f for f in folder.iterdir() if f.is_dir() and not f.name.startswith("."))


def _images(folder: Path) -> list[Path]:
    """The pictures anywhere below a folder, hidden files and folders left out."""
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in IMAGE_SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]


def _read_split(root: Path, split: Split, with_masks: bool) -> Iterator[Sample]:
    folder = root / split
    if not folder.is_dir():
        return
    if loose := [p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")]:
        raise DataError(
            f"{folder}: {len(loose)} pictures lie outside any class folder, such as {min(loose).name}; "
            f"move them into {split}/good or {split}/<defect>"
        )
    if not (classes := _subfolders(folder)):
        raise DataError(f"{folder}: no class folder; expected {split}/good/… and, for defects, {split}/<defect>/…")
    for class_folder in classes:
        if not (images := _images(class_folder)):
            raise DataError(
                f"{class_folder}: no picture in this class folder; add some ({' '.join(IMAGE_SUFFIXES)}) or remove it"
            )
        label = GOOD if class_folder.name.lower() in GOOD_NAMES else class_folder.name
        masks = root / ("ground_truth" if split == "test" else "ground_truth_train") / class_folder.name
        found = _masks(class_folder, images, masks, whole=split == "test") if with_masks and label != GOOD else {}
        boxes = root / BOXES / class_folder.name
        boxed = label != GOOD and boxes.is_dir()
        for path in images:
            inner = path.relative_to(class_folder)
            file = boxes / inner.with_suffix(".txt") if boxed else None
            if file is not None and not file.is_file():
                raise DataError(f"{path}: its boxes are missing; expected {file}, empty where nothing is marked")
            yield Sample(path, path.relative_to(root).as_posix(), label, split, found.get(path), file)


def _masks(class_folder: Path, pictures: Sequence[Path], masks: Path, *, whole: bool) -> dict[Path, Path]:
    """The mask of each defect of a class that has one.

    A test defect without would bias the pixel metrics. Those for training may be labelled by class only; that a name
    is misspelt shows in a mask that is nobody's.
    """
    found = {path: _find_mask(path, masks / path.relative_to(class_folder).parent) for path in pictures}
    if whole and (bare := next((path for path, mask in found.items() if mask is None), None)) is not None:
        expected = masks / bare.relative_to(class_folder).with_name(f"{bare.stem}_mask.png")
        raise DataError(f"{bare}: its mask is missing; expected {expected}")
    if not whole and masks.is_dir() and (left := sorted(set(_images(masks)) - set(found.values()))):
        raise DataError(f"{left[0]}: no picture of {class_folder} has this mask; expected <picture>_mask.png")
    return {path: mask for path, mask in found.items() if mask is not None}


def _find_mask(image: Path, folder: Path) -> Path | None:
    names = (f"{stem}{suffix}" for stem in (f"{image.stem}_mask", image.stem) for suffix in MASK_SUFFIXES)
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _read_visa(root: Path, category: str) -> list[Sample]:
    source = root / VISA_CSV
    try:
        with source.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, strict=True)
            columns = reader.fieldnames or []
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{source}: cannot be read as CSV ({error}); expected the file as VisA ships it") from error
    if missing := [column for column in VISA_COLUMNS if column not in columns]:
        raise DataError(
            f"{source}: columns {missing} are missing; expected {list(VISA_COLUMNS)}, found {list(columns)}"
        )
    chosen = [(line, row) for line, row in rows if row["object"] == category]
    if not chosen:
        raise DataError(
            f"unknown category {category!r}; {source} has {sorted({str(row['object']) for _, row in rows})}"
        )
    with_masks = any(row["mask"] for _, row in chosen)
    samples: dict[str, Sample] = {}
    for line, row in chosen:
        sample = _visa_sample(root, row, with_masks, f"{source}, line {line}")
        if sample.relative in samples:
            raise DataError(f"{source}, line {line}: {sample.relative} is listed twice; keep one line for it")
        samples[sample.relative] = sample
    return list(samples.values())


def _visa_sample(root: Path, row: dict[str, str], with_masks: bool, where: str) -> Sample:
    split, label = row["split"], VISA_LABELS.get(row["label"])
    if split not in get_args(Split) or label is None:
        raise DataError(
            f"{where}: split {split!r}, label {row['label']!r}; expected train or test, and one of {list(VISA_LABELS)}"
        )
    path = _visa_file(root, row["image"], "image", where)
    mask = _visa_file(root, row["mask"], "mask", where) if with_masks and label != GOOD else None
    relative = PurePosixPath(row["image"]).as_posix()
    return Sample(path, relative, label, "train" if split == "train" else "test", mask)


def _visa_file(root: Path, value: str | None, column: str, where: str) -> Path:
    """A file named in the CSV, which must lie below the root: the path is the sample's key wherever the root is."""
    name = PurePosixPath(value or "")
    if not value or name.is_absolute() or ".." in name.parts:
        raise DataError(f"{where}: {column} {value!r} is no path below {root}; write it relative to that folder")
    if not (path := root / name).is_file():
        raise DataError(f"{where}: the {column} {path} is missing; copy it there or remove the line")
    return path
