"""Rebuilds the embedded default: an inspector of synthetic cables with two releases, trained from scratch.

v1 is a line's first week (few labelled defects), v2 the same line later (more good parts, six times the labelled
defects). Both are measured on the same test pictures. No weights from outside: the trunk of the patch detectors is the
classifier's network.
"""

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from anomaly.backbones import Pretrained, write_weights
from anomaly.detectors import Classifier
from anomaly.errors import DataError
from anomaly.model_repo import load_detector
from training import fit_mahalanobis, fit_patch_knn, release, train_autoencoder, train_classifier
from training.arguments import flag, run
from training.synthetic_cable import render, write_dataset

CATEGORY = "cable"
REPO = "vigie/cable"
TEST = {"test_good": 80, "test_per_defect": 15}
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
    for tag, (counts, note) in RELEASES.items():
        data = args.work / tag / "data"
        if not (data / CATEGORY / "complete").is_file():
            shutil.rmtree(data, ignore_errors=True)
            write_dataset(data, **counts, **TEST, seed=args.seed)
            (data / CATEGORY / "complete").touch()
        runs = train(data, args.work / tag, args.seed)
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


def train(data: Path, work: Path, seed: int) -> list[Path]:
    """All six members, small; returns their runs."""
    common: dict[str, Any] = {"data": data, "category": CATEGORY, "seed": seed}
    supervised: dict[str, Any] = common | {"epochs": 40, "learning_rate": 2e-3}
    out = {
        name: work / name
        for name in ("classifier", "baseline_cnn", "patch_knn", "mahalanobis", "global", "autoencoder")
    }
    train_classifier.main(
        train_classifier.Args(**supervised, out=out["classifier"], arch="test_efficientnet", image_size=192)
    )
    train_classifier.main(
        train_classifier.Args(**supervised, out=out["baseline_cnn"], arch="baseline_cnn", width=0.125, image_size=160)
    )
    trunk = work / "trunk.safetensors"
    export_trunk(out["classifier"], trunk)
    patches: dict[str, Any] = common | {"weights": trunk, "image_size": 192}
    fit_patch_knn.main(fit_patch_knn.Args(**patches, out=out["patch_knn"], max_memory=1_000))
    fit_mahalanobis.main(fit_mahalanobis.Args(**patches, out=out["mahalanobis"], max_channels=16))
    fit_mahalanobis.main(fit_mahalanobis.Args(**patches, out=out["global"], pooling="global"))
    train_autoencoder.main(train_autoencoder.Args(**common, out=out["autoencoder"], image_size=128, width=8, epochs=60))
    return list(out.values())


def export_trunk(finished: Path, path: Path) -> None:
    """A trained classifier's network as a weights file that `--weights` takes."""
    detector = load_detector(finished).detector
    assert isinstance(detector, Classifier)
    config = detector.config
    write_weights(
        path,
        Pretrained(
            library="timm",
            architecture=config.architecture,
            arguments=config.arguments,
            state=detector.net.state_dict(),
            mean=config.mean,
            std=config.std,
            input_size=config.input_size,
            source=str(finished),
        ),
    )


if __name__ == "__main__":
    sys.exit(run(main, Args))
