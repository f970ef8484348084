"""Seeded, photo-like cable cross-sections with exact defect masks, in the layout of MVTec AD's `cable` category.

A part is plain data (`cable_part`), a defect is an edit of that data, and both are drawn over the same scene
(`cable_picture`). So the good twin and the defective part differ by the defect alone: the mask is read off their
noise-free difference.
"""

import argparse
import hashlib
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anomaly.errors import DataError, VigieError
from training.cable_part import DEFECTS, make_part, spoil
from training.cable_picture import expose, make_scene

__all__ = ["DEFECTS", "render", "write_dataset"]

Bytes = NDArray[np.uint8]


def render(defect: str | None, *, seed: int, size: int = 256) -> tuple[Bytes, Bytes]:
    """Draws one part.

    Args:
        defect: One of `DEFECTS`, or None for the good twin of the same seed.
        seed: Non-negative; with the defect and the size it decides every pixel.
        size: Side in pixels, at least 64.

    Returns:
        image: uint8 (size, size, 3), RGB.
        mask: uint8 (size, size), 255 where the defect moved a channel by one grey level or more before the noise
            (pinholes up to 4 px closed, hairs below 3 px dropped), else 0; never empty where there is a defect.
            Outside it the image equals its good twin bit for bit.

    Raises:
        DataError: Unknown defect, negative seed or size below 64.
    """
    if defect is not None and defect not in DEFECTS:
        raise DataError(f"unknown defect {defect!r}; expected None or one of {list(DEFECTS)}")
    if seed < 0 or size < 64:
        raise DataError(f"seed {seed} and size {size} cannot be drawn; expected a seed >= 0 and a size >= 64 px")
    part = make_part(np.random.default_rng((seed, 0)))
    scene = make_scene(np.random.default_rng((seed, 1)), part, size)
    image = expose(part, scene)
    mask = np.zeros((size, size), np.bool_)
    if defect is not None:
        spoiled = expose(spoil(part, defect, np.random.default_rng((seed, 2, DEFECTS.index(defect)))), scene)
        mask = tidy(np.abs(spoiled - image).max(axis=2) >= 1 / 255)
        image = np.where(mask[..., None], spoiled, image)
    pixels = np.clip(np.rint((image + scene.noise) * 255), 0, 255).astype(np.uint8)
    return pixels, mask.astype(np.uint8) * 255


def tidy(changed: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Closes pinholes up to 4 px and drops hairs below 3 px: a lone pixel would weigh as much as a defect in AU-PRO."""
    closed = ~grow(~grow(changed, 2), 2)
    opened = grow(~grow(~closed, 1), 1)
    return opened if opened.any() else closed  # in a small picture a slit is nothing but a hair


def grow(mask: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    rows, columns = mask.shape
    padded = np.pad(mask, reach, mode="edge")
    wide = np.logical_or.reduce([padded[:, i : i + columns] for i in range(2 * reach + 1)])
    tall: NDArray[np.bool_] = np.logical_or.reduce([wide[i : i + rows] for i in range(2 * reach + 1)])
    return tall


# The dataset ---------------------------------------------------------------------------------------------------------


def write_dataset(
    out: Path,
    *,
    train_good: int,
    test_good: int,
    test_per_defect: int,
    train_per_defect: int = 0,
    size: int = 256,
    seed: int = 0,
) -> None:
    """Writes OUT/cable like an MVTec AD category; the same arguments give the same bytes on the same machine.

    Each image has its own seed, so more images of one class leave all others as they were. Labelled training defects go
    to train/<defect>, their masks to ground_truth_train/<defect>, where a reader of MVTec AD does not look.

    Raises:
        DataError: OUT/cable is not an empty folder, a count is negative, or `render` refuses the seed or the size.
    """
    root = out / "cable"
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise DataError(f"{root} is not an empty folder; delete it or choose another --out")
    counts: dict[tuple[str, str | None], int] = {("train", None): train_good, ("test", None): test_good}
    counts |= {("test", defect): test_per_defect for defect in DEFECTS}
    counts |= {("train", defect): train_per_defect for defect in DEFECTS}
    if min(counts.values()) < 0:
        raise DataError(f"cannot write {min(counts.values())} images; expected counts of 0 or more")
    masks = {"test": "ground_truth", "train": "ground_truth_train"}
    for (split, defect), count in counts.items():
        name = defect or "good"
        for index in range(count):
            image, mask = render(defect, seed=image_seed(seed, split, name, index), size=size)
            save_png(image, root / split / name / f"{index:03d}.png")
            if defect:
                save_png(mask, root / masks[split] / name / f"{index:03d}_mask.png")


def image_seed(seed: int, split: str, name: str, index: int) -> int:
    """The same on every machine and run, unlike `hash`."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{split}/{name}/{index}".encode()).digest()[:7], "big")


def save_png(pixels: Bytes, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.synthetic_cable", description="Draw a cable dataset.")
    parser.add_argument("--out", type=Path, required=True, help="the folder that gets cable/")
    parser.add_argument("--train-good", type=int, default=200)
    parser.add_argument("--test-good", type=int, default=60)
    parser.add_argument("--test-per-defect", type=int, default=15)
    parser.add_argument("--train-per-defect", type=int, default=0)
    parser.add_argument("--size", type=int, default=256, help="side in pixels")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    try:
        write_dataset(**vars(args))
    except (VigieError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    defective = len(DEFECTS) * (args.test_per_defect + args.train_per_defect)
    print(f"wrote {args.train_good + args.test_good} good and {defective} defective images to {args.out / 'cable'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
