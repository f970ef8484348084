"""Pictures with boxes: from box files or from the components of masks, and the crops that a localiser trains on.

Flips work on torchvision's tv_tensors (transforms.v2), so that boxes follow the picture.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anomaly import images
from anomaly.boxes import mask_boxes
from anomaly.datasets import Sample, read_boxes, read_mask
from anomaly.detectors import DetectorConfig
from anomaly.errors import DataError
from training.pictures import Pictures

Symmetries = Literal["none", "flips", "all"]

_LEAST_VISIBLE = 0.3  # of a box's area: what a crop leaves less of is not shown to the network as a defect


@dataclass(frozen=True, slots=True)
class Truth:
    """What is marked in one picture."""

    xyxy: NDArray[np.float32]  # (N, 4), pixels of the picture as it lies on disk, half-open
    labels: tuple[str, ...]
    size: tuple[int, int]  # (H, W) of the picture


def truth(sample: Sample, names: Sequence[str] = ()) -> Truth:
    """What is marked in a picture: its box file, or else the components of its mask under the sample's own label.

    Args:
        sample: good, or with boxes or a mask.
        names: of the types in box files, as `read_boxes` takes them. With several categories the category comes before
            the type, as in the sample's own label.

    Raises:
        DataError: a defect with neither, or a file that is not right.
    """
    height, width = images.read(sample.path).shape[:2]
    size = (height, width)
    if sample.is_defect and sample.boxes is None:
        if sample.mask is None:
            raise DataError(f"{sample.relative}: neither boxes nor a mask; give one of them for every defect")
        corners = mask_boxes(read_mask(sample, size))
        return Truth(corners, (sample.label,) * len(corners), size)
    corners, types = read_boxes(sample, size, names)
    category, slash, _ = sample.label.rpartition("/")
    return Truth(corners, tuple(f"{category}{slash}{kind}" for kind in types), size)


class BoxedPictures:
    """Pictures at a network's input size with the boxes in its pixels."""

    def __init__(
        self, samples: Sequence[Sample], truths: Sequence[Truth], config: DetectorConfig, classes: Sequence[str]
    ) -> None:
        """Decodes the pictures.

        Args:
            samples: good and defective.
            truths: of each.
            config: gives input_size.
            classes: what labels are indices into. A box of another label is left out.
        """
        self.pictures = Pictures(samples, config, "reading")
        self.targets: list[dict[str, Tensor]] = []
        for found in truths:
            known = [i for i, label in enumerate(found.labels) if label in classes]
            height, width = (side / whole for side, whole in zip(config.input_size, found.size, strict=True))
            self.targets.append(
                {
                    "boxes": torch.from_numpy(found.xyxy[known]) * torch.tensor([width, height, width, height]),
                    "labels": torch.tensor([classes.index(found.labels[i]) for i in known], dtype=torch.int64),
                }
            )
        self.good = [index for index, target in enumerate(self.targets) if not len(target["labels"])]
        self.marked = [index for index, target in enumerate(self.targets) if len(target["labels"])]

    def whole(self, indices: Sequence[int]) -> tuple[Tensor, list[dict[str, Tensor]]]:
        """Pictures as they are: float32 (B, 3, *input_size) in [0, 1] and the targets."""
        return self.pictures.batch(indices), [self.targets[index] for index in indices]

    def crops(
        self, indices: Sequence[int], side: int, symmetries: Symmetries, good_share: float
    ) -> tuple[Tensor, list[dict[str, Tensor]]]:
        """Draws a training batch with torch's generator.

        Args:
            indices: into `marked`.
            side: of a square crop in pixels of input_size; most crops contain at least the centre of a box. As large as
                the picture or larger: the whole picture.
            symmetries: `flips`, or `all` eight of a square.
            good_share: the chance that a good picture is shown in place of a marked one.

        Returns:
            float32 (B, 3, side, side) in [0, 1] and the targets.
        """
        batch = []
        for index in indices:
            other = bool(self.good) and bool(torch.rand(()) < good_share)
            chosen = self.good[int(torch.randint(len(self.good), ()))] if other else self.marked[index]
            image, target = _crop(self.pictures.batch([chosen])[0], self.targets[chosen], side)
            batch.append(_turned(image, target, symmetries))
        return torch.stack([image for image, _ in batch]), [target for _, target in batch]


def _crop(image: Tensor, target: Mapping[str, Tensor], side: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Around the centre of a box, shifted at random, in three of four cases; anywhere in the fourth."""
    sides = torch.tensor(image.shape[-2:])
    window = sides.clamp_max(side)
    corner = (torch.rand(2) * (sides - window + 1)).long()  # top, left
    boxes = target["boxes"]
    if len(boxes) and torch.rand(()) < 0.75:
        x1, y1, x2, y2 = boxes[int(torch.randint(len(boxes), ()))].tolist()
        corner = (torch.tensor([(y1 + y2) / 2, (x1 + x2) / 2]) - (0.1 + 0.8 * torch.rand(2)) * window).long()
    top, left = torch.minimum(corner.clamp_min(0), sides - window).tolist()
    height, width = window.tolist()
    moved = boxes - torch.tensor([left, top, left, top])
    cut = moved.clamp(torch.zeros(4), torch.tensor([width, height, width, height]))
    visible = (cut[:, 2:] - cut[:, :2]).clamp_min(0).prod(dim=1) / (moved[:, 2:] - moved[:, :2]).prod(dim=1)
    kept = visible >= _LEAST_VISIBLE
    return image[:, top : top + height, left : left + width], {
        "boxes": cut[kept],
        "labels": target["labels"][kept],
    }


def _turned(image: Tensor, target: dict[str, Tensor], symmetries: Symmetries) -> tuple[Tensor, dict[str, Tensor]]:
    from torchvision import tv_tensors
    from torchvision.transforms import v2

    if symmetries == "none":
        return image, target
    boxes = target["boxes"]
    if symmetries == "all" and image.shape[-1] == image.shape[-2] and torch.rand(()) < 0.5:
        image, boxes = image.mT, boxes[:, [1, 0, 3, 2]]  # with the flips: all eight
    framed = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=tuple(image.shape[-2:]))
    turn = v2.Compose([v2.RandomHorizontalFlip(), v2.RandomVerticalFlip()])
    image, framed = turn(tv_tensors.Image(image), framed)
    return image.as_subclass(Tensor), target | {"boxes": framed.as_subclass(Tensor)}
