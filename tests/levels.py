"""A split scored by the tiny detectors, for the tests of figures and of the report."""

import functools
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tiny import SIDE, as_picture, corrupted, good_images, tiny_detectors, tiny_inspector

from anomaly.datasets import Sample
from anomaly.detectors import Detector
from anomaly.emissions import EmissionsMeter
from anomaly.evaluation import Scored, score
from anomaly.inspector import Inspector

MEMBERS = ("autoencoder", "baseline_cnn", "mahalanobis_global", "patch_knn")
LABELS = ("good",) * 9 + ("bent",) * 6 + ("cut",) * 4


def write_pictures(folder: Path) -> list[Sample]:
    """9 good, 6 bent, 4 cut, as an MVTec folder; every defect is the same square, a cut also has a second one."""
    images = [*good_images(9, seed=11), *corrupted(good_images(10, seed=12))]
    square = corrupted(torch.zeros(1, 3, SIDE, SIDE))[0, 0] != corrupted(torch.ones(1, 3, SIDE, SIDE))[0, 0]
    samples = []
    for index, label in enumerate(LABELS):
        path = folder / "test" / label / f"{index:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = as_picture(images[index])
        mask = np.uint8(255) * (~square).numpy().astype(np.uint8)
        if label == "cut":
            picture[50:56, 50:60], mask[50:56, 50:60] = 0, 255
        Image.fromarray(picture).save(path)
        place = None
        if label != "good":
            place = folder / "ground_truth" / label / f"{index:02d}_mask.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(place)
        samples.append(Sample(path, path.relative_to(folder).as_posix(), label, "test", place))
    return samples


@functools.cache
def detectors() -> dict[str, Detector]:
    """One that is trained to tell good from bad, one with a type head, one that draws nothing, one with a memory."""
    tiny = tiny_detectors()
    return {name: tiny[name] for name in MEMBERS}


def inspector_of(*names: str) -> Inspector:
    """Of these members; of all without names."""
    return tiny_inspector({name: detectors()[name] for name in names or MEMBERS}, EmissionsMeter("FRA"))


def tiny_scored(folder: Path, inspector: Inspector | None = None) -> Scored:
    """The pictures, scored by all of MEMBERS, or by another inspector."""
    samples = write_pictures(folder / "pictures")
    (folder / "maps").mkdir()
    return score(inspector or inspector_of(), samples, folder / "maps")
