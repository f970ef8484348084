"""What the scripts that fit rather than train share: the trunk they stand on and its maps of good pictures."""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from anomaly.backbones import Pretrained, Trunk, default_layers, make_trunk
from anomaly.datasets import Sample
from anomaly.detectors import DetectorConfig
from anomaly.detectors.base import prepare
from training.pictures import load

_BATCH = 8  # maps of this many pictures are in memory at a time


def trunk_with(weights: Pretrained, layers: tuple[int, ...] | None) -> Trunk:
    """A trunk that can return these layers beside its default ones.

    Detectors with equal trunks share its pass, so one that asks for less than the default gets the same trunk.
    """
    return make_trunk(weights, tuple(sorted({*default_layers(weights), *(layers or ())})))


@torch.no_grad()
def maps_of(
    trunk: Trunk, config: DetectorConfig, layers: Sequence[int], samples: Sequence[Sample], rotations: int = 1
) -> Iterator[dict[int, Tensor]]:
    """Maps by batch, one batch in memory at a time.

    Args:
        trunk: frozen.
        config: says how pictures are resized and normalised.
        layers: of the trunk.
        samples: in this order.
        rotations: copies of each picture, turned by equal steps of the full circle; 1 is the picture alone.

    Yields:
        (B, C, h, w) for each layer.
    """
    for start in tqdm(
        range(0, len(samples), _BATCH), desc="features", unit_scale=_BATCH, unit="img", leave=False, disable=None
    ):
        images = [load(sample.path) for sample in samples[start : start + _BATCH]]
        for turn in range(rotations):
            yield trunk(
                torch.cat([prepare(rotated(image, 360 * turn / rotations), config) for image in images]), layers
            )


def rotated(image: Tensor, degrees: float) -> Tensor:
    """Turns a picture about its middle, counter-clockwise; corners are filled by reflection, as AnomalyDINO does.

    Args:
        image: (B, C, H, W).
        degrees: 0 gives the picture itself.

    Returns:
        (B, C, H, W), resampled bilinearly.
    """
    if degrees % 360 == 0:
        return image
    height, width = image.shape[-2:]
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    # affine_grid counts from -1 to 1 along each side: the ratio keeps a rectangle's content from being sheared
    where = torch.tensor([[cos, -sin * height / width, 0.0], [sin * width / height, cos, 0.0]])
    grid = F.affine_grid(where.expand(len(image), 2, 3), list(image.shape), align_corners=False)
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
