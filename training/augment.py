"""Targeted augmentation of training pictures: twelve transforms (torchvision.transforms.v2), more for rarer classes.

The geometry of a picture is drawn as a whole and applied in one resampling, to image and mask alike: five resamplings
in a row would blur a hairline away. What comes in from beyond the edge is the picture's reflection: black corners, more
of them on rare classes, would give the class away.

Everything is drawn from torch's global generator, which the loop seeds in each epoch.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision import tv_tensors
from torchvision.transforms import v2

from anomaly.datasets import GOOD
from anomaly.errors import DataError

GEOMETRIC = ("rotation", "flips", "translation", "scale", "perspective", "crop")
PHOTOMETRIC = ("brightness", "contrast", "saturation", "noise", "blur", "sharpening")
TRANSFORMS = GEOMETRIC + PHOTOMETRIC

# Where nothing is known of a category: turned or mirrored the part may be a defect, resized a wrong part, a change of
# colour may be one, and a blur may wipe one out.
SAFE_ANYWHERE = ("translation", "brightness", "contrast", "noise", "sharpening")

# Of known categories what is NOT safe, and why. MVTec AD's names, and those of the data the project's tables are from.
UNSAFE: dict[str, tuple[str, ...]] = {
    "bottle": (),
    "cable": ("flips",),  # the order of the wires' colours: mirrored, a good cable is a cable_swap
    "capsule": ("flips",),  # print
    "carpet": ("saturation",),  # "color" is a defect of it
    "casting": ("saturation",),  # grey pictures
    "deeppcb": ("rotation", "perspective", "saturation"),  # traces run straight, in black and white
    "grid": ("rotation", "perspective"),  # "bent"
    "hazelnut": (),
    "leather": ("saturation",),  # "color"
    "metal_nut": ("flips", "saturation"),  # "flip" and "color"
    "pill": ("flips", "saturation"),  # print; "color"
    "screw": ("flips",),  # a left-hand thread
    "tile": (),
    "toothbrush": (),
    "transistor": ("rotation", "flips", "translation", "perspective"),  # "misplaced"
    "wood": ("saturation",),  # "color"
    "zipper": ("rotation", "perspective"),  # "fabric_border", "squeezed_teeth": straight when good
}

_SIGMA_NOISE = 0.02  # of pixels in [0, 1]
_SHIFT = 0.2  # at the most, of the half side
_TILT = 0.1  # at the most; a corner comes nearer or goes farther by up to a quarter


@dataclass(frozen=True, slots=True)
class Targeting:
    """How often each transform is applied to a picture, and how often the picture itself comes in an epoch."""

    probability: dict[str, float]  # by label
    repeats: dict[str, int]  # by label, 1 for good pictures and the commonest type


def safe_transforms(given: Sequence[str] | None, categories: Collection[str]) -> tuple[str, ...]:
    """The transforms that leave every picture's class what it is.

    Args:
        given: names of `TRANSFORMS`, or the single word `all` or `none`; None for the defaults of the categories.
        categories: what is inspected; with several only what is safe for each of them.

    Raises:
        DataError: for a name that is none.
    """
    if given is None:
        known = {category: UNSAFE.get(category.lower()) for category in categories}
        return tuple(
            name
            for name in TRANSFORMS
            if all(name in SAFE_ANYWHERE if unsafe is None else name not in unsafe for unsafe in known.values())
        )
    if list(given) in (["all"], ["none"]):
        return TRANSFORMS if given[0] == "all" else ()
    if unknown := [name for name in given if name not in TRANSFORMS]:
        raise DataError(f"unknown transform {unknown[0]!r}; expected all, none or some of {list(TRANSFORMS)}")
    return tuple(name for name in TRANSFORMS if name in given)


def target(counts: Mapping[str, int], strength: tuple[float, ...], bound: int) -> Targeting:
    """From the classes' counts. A type of defect is rare beside the commonest one, or beside its share of the good.

    Good pictures are changed as much as the average defect: were they changed less, a network would learn blur and
    noise as the sign of a defect. That they are many is the business of the loss, which weighs the classes.

    Args:
        counts: training pictures of each label.
        strength: probability of each transform for a common type (half as many pictures as the commonest or more), a
            rarer one, and the rarest ones (less than a fifth).
        bound: of the repeats, which are ceil(max / n) otherwise.

    Raises:
        DataError: strengths that are not three probabilities.
    """
    if len(strength) != 3 or not all(0 <= p <= 1 for p in strength):
        raise DataError(f"strength must be three probabilities (common, rarer, rarest classes), not {strength}")
    types = {label: n for label, n in counts.items() if label != GOOD}
    common, rarer, rarest = strength
    if not types:
        return Targeting(dict.fromkeys(counts, common), dict.fromkeys(counts, 1))
    most = max(*types.values(), counts.get(GOOD, 0) / len(types))
    probability = {n: common if n >= most / 2 else rarer if n >= most / 5 else rarest for n in types.values()}
    repeats = {label: min(bound, math.ceil(most / n)) for label, n in types.items()}
    coming = {label: n * repeats[label] for label, n in types.items()}
    average = sum(probability[types[label]] * n for label, n in coming.items()) / sum(coming.values())
    return Targeting(
        {label: probability[n] if label in types else average for label, n in counts.items()},
        {label: repeats.get(label, 1) for label in counts},
    )


def augmentation(names: Collection[str], probability: float) -> v2.Compose:
    """Of one picture (3, H, W) float32 in [0, 1], with its `tv_tensors.Mask` where it has one."""
    jitter = {name: v2.ColorJitter(**{name: (0.7, 1.3)}) for name in ("brightness", "contrast", "saturation")}
    photometric: dict[str, v2.Transform] = jitter | {
        "noise": v2.GaussianNoise(sigma=_SIGMA_NOISE),
        "blur": v2.GaussianBlur(5, sigma=(0.5, 1.0)),
        "sharpening": v2.RandomAdjustSharpness(2, p=1),
    }
    light = [v2.RandomApply([photometric[name]], p=probability) for name in PHOTOMETRIC if name in names]
    return v2.Compose([Geometry([name for name in GEOMETRIC if name in names], probability), *light])


class Geometry(v2.Transform):  # type: ignore[misc]
    """Rotation by up to 30 degrees, flips, translation by up to 10 %, scale .85-1.15, perspective, crop of 90-100 %.

    Each with the same probability, all in one homography.
    """

    def __init__(self, names: Collection[str], probability: float) -> None:
        super().__init__()
        self.names, self.probability = tuple(names), probability

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draws the homography (3, 3) from the result's coordinates to the picture's, both -1 .. 1."""
        height, width = flat_inputs[0].shape[-2:]
        matrix = torch.eye(3)
        drawn = [name for name in self.names if torch.rand(()) < self.probability]
        for name in drawn:
            matrix = _homography(name, width / height) @ matrix
        return {"matrix": matrix if drawn else None}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Bilinear for an image; nearest for a mask, which stays one."""
        if params["matrix"] is None:
            return inpt
        is_mask = isinstance(inpt, tv_tensors.Mask)
        pixels = inpt.as_subclass(torch.Tensor)
        grid = _grid(params["matrix"], pixels.shape[-2], pixels.shape[-1]).to(pixels.device)
        moved = F.grid_sample(
            pixels.reshape(1, -1, *pixels.shape[-2:]).float(),
            grid[None],
            mode="nearest" if is_mask else "bilinear",
            padding_mode="reflection",
            align_corners=False,
        )
        return (
            tv_tensors.wrap(moved.view(pixels.shape).to(pixels.dtype), like=inpt)
            if is_mask
            else moved.view(pixels.shape)
        )


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand(()))


def _homography(name: str, aspect: float) -> Tensor:
    """One drawn transform; `aspect` is width / height, for a turned part must not be sheared."""
    matrix = torch.eye(3)
    if name == "rotation":
        angle = math.radians(_uniform(-30, 30))
        cos, sin = math.cos(angle), math.sin(angle)
        matrix[:2, :2] = torch.tensor([[cos, -sin / aspect], [sin * aspect, cos]])
    elif name == "flips":
        which = int(torch.randint(3, ()))  # left and right, up and down, both
        matrix[0, 0], matrix[1, 1] = (-1, 1, -1)[which], (1, -1, -1)[which]
    elif name == "translation":
        matrix[:2, 2] = torch.tensor([_uniform(-_SHIFT, _SHIFT), _uniform(-_SHIFT, _SHIFT)])
    elif name == "scale":
        matrix[0, 0] = matrix[1, 1] = 1 / _uniform(0.85, 1.15)
    elif name == "crop":
        side = _uniform(0.9, 1)
        matrix[0, 0] = matrix[1, 1] = side
        matrix[:2, 2] = torch.tensor([_uniform(side - 1, 1 - side), _uniform(side - 1, 1 - side)])
    elif name == "perspective":
        matrix[2, :2] = torch.tensor([_uniform(-_TILT, _TILT), _uniform(-_TILT, _TILT)])
    return matrix


def _grid(matrix: Tensor, height: int, width: int) -> Tensor:
    """(height, width, 2): where each pixel of the result lies in the picture, x and y in -1 .. 1."""
    x = (torch.arange(width) * 2 + 1) / width - 1
    y = (torch.arange(height) * 2 + 1) / height - 1
    rows, columns = torch.meshgrid(y, x, indexing="ij")
    points = torch.stack([columns, rows, torch.ones_like(rows)], dim=-1) @ matrix.T
    return points[..., :2] / points[..., 2:]
