"""Rebuilds the embedded default: an inspector of synthetic cables with two releases, trained from scratch.

No weights come from outside: a small network learns from masks to find defects on one set of cables, and is the trunk
and the starting point of both releases, which are made on another set. v1 is that line's first week (few labelled
defects), v2 the same line later (more good parts, six times the labelled defects). Both are measured on the same test
pictures.
"""

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from anomaly.errors import DataError
from training import fit_mahalanobis, fit_patch_knn, release, train_autoencoder, train_classifier
from training.arguments import flag, run
from training.pretrain_trunk import pretrain
from training.synthetic_cable import render, write_dataset

CATEGORY = "cable"
REPO = "vigie/cable"
SIDE = 256  # pixels
TEST = {"test_good": 80, "test_per_defect": 15}
PRETRAINING = {"train_good": 400, "train_per_defect": 60}
RELEASES = {
    "v1": (
        {"train_good": 160, "train_per_defect": 10},
        "A line's first week: ten labelled defects of each type. Use v2; this one is kept to compare with.",
    ),
    "v2": (
        {"train_good": 400, "train_per_defect": 60},
        "The same line later: more good parts and sixty labelled defects of each type, the same settings as v1.",
    ),
}
# The trunk is tiny and knows these parts: all of it learns from the start, and every picture is moved and turned. The
# defaults, made for large networks that know other pictures, left the validation loss where it was.
FROM_THE_TRUNK: dict[str, Any] = {
    "phases": (0, 0, 40),
    "learning_rate": 2.5e-3,
    "layer_decay": 1.0,
    "mixup": 0.0,
    "smoothing": 0.0,
    "transforms": ("rotation", "translation", "brightness"),
    "strength": (0.9, 0.9, 0.9),
}
EXAMPLES = {
    "1-good": None,
    "2-missing-wire": "missing_wire",
    "3-cable-swap": "cable_swap",
    "4-cut": "cut_outer_insulation",
}
EXAMPLE_SEED = 2_000_000  # far from any seed of the data: those are hashes


@dataclass(frozen=True, kw_only=True)
class Args:
    out: Path = flag("folder of the starter, replaced", Path("starter"))
    work: Path = flag("folder for data and runs; what is finished there is not done again", Path("runs/starter"))
    seed: int = flag("of data and training", 7)


def main(args: Args) -> None:
    fresh = args.work / "released"
    shutil.rmtree(fresh, ignore_errors=True)
    work = args.work / "trunk"
    drawn = cables(work, PRETRAINING, args.seed)
    trunk = pretrain(drawn, CATEGORY, work, image_size=SIDE, epochs=24, seed=args.seed)
    for tag, (counts, note) in RELEASES.items():
        data = cables(args.work / tag, counts, args.seed + 1)
        runs = train(data, args.work / tag, trunk, args.seed)
        release.main(
            release.Args(category=CATEGORY, members=tuple(runs), out=fresh, name=REPO, tag=tag, note=note, data=data)
        )
    (fresh / "examples").mkdir()
    for name, defect in EXAMPLES.items():
        picture, _ = render(defect, seed=EXAMPLE_SEED + len(name))
        Image.fromarray(picture).save(fresh / "examples" / f"{name}.png")
    shutil.rmtree(args.out, ignore_errors=True)
    shutil.copytree(fresh, args.out)
    size = sum(path.stat().st_size for path in args.out.rglob("*") if path.is_file())
    print(f"{args.out}: {size / 1e6:.1f} MB")
    if size > 12_000_000:
        raise DataError(f"{args.out} has {size} bytes; the starter may have 12,000,000")


def cables(work: Path, counts: dict[str, int], seed: int) -> Path:
    """Draws a data set unless it is there already."""
    data = work / "data"
    if not (data / CATEGORY / "complete").is_file():
        shutil.rmtree(data, ignore_errors=True)
        write_dataset(data, **counts, **TEST, seed=seed)
        (data / CATEGORY / "complete").touch()
    return data


def train(data: Path, work: Path, trunk: Path, seed: int) -> list[Path]:
    """All six members, small; returns their runs."""
    common: dict[str, Any] = {"data": data, "category": CATEGORY, "seed": seed}
    out = {
        name: work / name
        for name in ("classifier", "baseline_cnn", "patch_knn", "mahalanobis", "global", "autoencoder")
    }
    train_classifier.main(
        train_classifier.Args(**common, out=out["classifier"], weights=trunk, image_size=SIDE, **FROM_THE_TRUNK)
    )
    train_classifier.main(
        train_classifier.Args(
            **common, out=out["baseline_cnn"], arch="baseline_cnn", width=0.125, image_size=160, epochs=40
        )
    )
    patches: dict[str, Any] = common | {"weights": trunk, "image_size": SIDE}
    fit_patch_knn.main(fit_patch_knn.Args(**patches, out=out["patch_knn"], max_memory=1_000))
    fit_mahalanobis.main(fit_mahalanobis.Args(**patches, out=out["mahalanobis"], max_channels=16))
    fit_mahalanobis.main(fit_mahalanobis.Args(**patches, out=out["global"], pooling="global"))
    train_autoencoder.main(train_autoencoder.Args(**common, out=out["autoencoder"], image_size=128, width=8, epochs=60))
    return list(out.values())


if __name__ == "__main__":
    sys.exit(run(main, Args))
