"""What every detector is: a frozen config, tensors, and one method that turns features into scores."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional as F

from anomaly.backbones import Trunk

Triple = tuple[float, float, float]
Network = Callable[[Tensor], tuple[Tensor, ...]]  # of pictures that are resized and normalised
IMAGE = -1  # the layer that is the image itself
Side = Annotated[int, Field(ge=16, le=4096)]


class DetectorConfig(BaseModel):
    """What is written to config.json. A misspelt key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input_size: tuple[Side, Side] = (256, 256)  # (height, width) that images are resized to
    mean: Triple = (0.485, 0.456, 0.406)  # per channel, of RGB in [0, 1]
    std: Triple = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class Boxes:
    """Rectangles found in one image."""

    xyxy: Tensor  # (N, 4) float32, pixels of the image passed in
    scores: Tensor  # (N,) float32
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DetectorOutput:
    """What a detector says of a batch, in its own units."""

    scores: Tensor  # (B,) float32, higher = more anomalous
    heatmaps: Tensor | None = None  # (B, H, W) float32, H, W of the images passed in, higher = more anomalous
    class_logits: Tensor | None = None  # (B, n_classes) float32
    boxes: list[Boxes] | None = None


class Detector(nn.Module, ABC):
    """One model that looks at an image and returns a raw score.

    `inputs` is what the method starts from: maps of a frozen trunk by layer, or the resized and normalised image (layer
    IMAGE) where there is none. For two detectors with the same `input_key` the maps of a layer are the same, so whoever
    holds both computes them once.
    """

    kind: ClassVar[str]  # its key in DETECTORS and in config.json
    config_type: ClassVar[type[DetectorConfig]]
    config: DetectorConfig
    trunk: Trunk | None

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        self.config = config
        self.trunk = None  # not as a class attribute: that would hide the module set later
        self.runner: Network | None = None  # `network` on another backend (`runners`)

    @property
    def layers(self) -> frozenset[int]:
        """Which layers `predict_from` needs."""
        return frozenset({IMAGE})

    def inputs(self, images: Tensor, layers: Collection[int] | None = None) -> dict[int, Tensor]:
        """Turns images into what `predict_from` takes.

        Args:
            images: float32 (B, 3, H, W), RGB in [0, 1], any H and W.
            layers: the layers to compute, its own by default; more when others share them.
        """
        prepared = prepare(images, self.config)
        if self.trunk is None:
            return {IMAGE: prepared}
        maps: dict[int, Tensor] = self.trunk(prepared, self.layers if layers is None else layers)
        return maps

    def network(self, images: Tensor) -> tuple[Tensor, ...]:
        """Of a detector without a trunk: the part of `predict_from` that other backends can run, in torch.

        Args:
            images: float32 (B, 3, *input_size), normalised.
        """
        raise NotImplementedError(f"{self.kind} has no network of its own")  # it stands on a trunk, nobody asks it

    def run_network(self, images: Tensor) -> tuple[Tensor, ...]:
        """As `network`, on whatever backend it runs."""
        return (self.runner or self.network)(images)

    @abstractmethod
    def predict_from(self, inputs: Mapping[int, Tensor], size: tuple[int, int]) -> DetectorOutput:
        """Scores what `inputs` returned; heatmaps come out at `size` = (H, W)."""

    def predict(self, images: Tensor) -> DetectorOutput:
        """Scores float32 images (B, 3, H, W), RGB in [0, 1], of any H and W."""
        return self.predict_from(self.inputs(images), (images.shape[-2], images.shape[-1]))

    def input_key(self) -> str:
        """Equal for two detectors exactly when their `inputs` are equal for every image."""
        fields = DetectorConfig.model_fields.keys()
        trunk = "none" if self.trunk is None else self.trunk.fingerprint()
        return f"{self.config.model_dump_json(include=set(fields))} {trunk}"

    @property
    def categories(self) -> tuple[str, ...]:
        """Those it holds separate statistics of; () where one set serves every category."""
        return ()

    def select(self, category: str) -> "Detector":
        """The detector of one category. Raises ValueError for a category that it has no statistics of."""
        if self.categories and category not in self.categories:
            raise ValueError(f"no statistics of category {category!r}; it has {list(self.categories)}")
        return self

    @classmethod
    def from_state(cls, config: DetectorConfig, state: dict[str, Tensor]) -> Self:
        """Rebuilds the detector from its config and `state_dict`. Any missing, extra or misshapen tensor raises."""
        detector = cls(config)
        load_exactly(detector, state)
        return detector


def as_tensor(image: NDArray[np.uint8], device: str = "cpu") -> Tensor:
    """uint8 (H, W, 3) RGB -> float32 (1, 3, H, W) in [0, 1], channels last in memory, as the picture lies."""
    return torch.from_numpy(image)[None].to(device).permute(0, 3, 1, 2).float() / 255


def prepare(images: Tensor, config: DetectorConfig) -> Tensor:
    """Resizes (bilinear, antialiased, aspect ratio not kept) and normalises: (B, 3, H, W) -> (B, 3, *input_size).

    Channels last in memory, whatever the images are: convolutions are faster so, and layouts differ in the last bits.
    """
    if images.ndim != 4 or images.shape[1] != 3 or images.dtype != torch.float32:
        raise ValueError(f"images must be float32 (B, 3, H, W) in [0, 1], not {images.dtype} {tuple(images.shape)}")
    images = resize(images, config.input_size)
    mean = images.new_tensor(config.mean).view(1, 3, 1, 1)
    std = images.new_tensor(config.std).view(1, 3, 1, 1)
    # not `contiguous`: the stride of 3 that `permute(2, 0, 1)[None]` gives the batch axis is channels last to it, but
    # channels first to convolutions, which then take half as long again
    return torch.empty_like(images, memory_format=torch.channels_last).copy_((images - mean) / std)


def resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, 3, H, W) -> (B, 3, *size), bilinear and antialiased; images of that size are returned as they are."""
    if tuple(images.shape[-2:]) == size:
        return images
    return F.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)


def enlarge(maps: Tensor, size: tuple[int, int], sigma: float = 0.0, at: tuple[int, int] | None = None) -> Tensor:
    """Brings maps to the size of the picture.

    Args:
        maps: (B, h, w), any units.
        size: (H, W) of the picture.
        sigma: standard deviation of a Gaussian blur, in pixels at `at`, so that a score taken from the blurred map
            does not depend on the size of the picture.
        at: (height, width) the blur works at; needed with `sigma`.

    Returns:
        (B, H, W) in the same units.
    """
    maps = smooth(maps, sigma, at) if at is not None else maps
    if tuple(maps.shape[-2:]) == size:
        return maps
    return F.interpolate(maps[:, None], size, mode="bilinear", align_corners=False)[:, 0]


def smooth(maps: Tensor, sigma: float, at: tuple[int, int]) -> Tensor:
    """Bilinear to `at`, then a Gaussian of `sigma` pixels: (B, h, w) -> (B, *at). Both are linear along each side: two
    small matrix products.
    """
    down, across = (_spread(*sides, sigma).to(maps) for sides in zip(maps.shape[-2:], at, strict=True))
    return down.T @ maps @ across


@cache
def _spread(length: int, to: int, sigma: float) -> Tensor:
    """(length, to): what each of `length` values adds to each of `to`, along one side."""
    line = F.interpolate(torch.eye(length)[:, None], to, mode="linear", align_corners=False)
    if sigma > 0:
        radius = int(4 * sigma + 0.5)
        kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1.0) / sigma) ** 2)
        # replicate, not reflect: reflection refuses a map that is smaller than the kernel's radius
        line = F.conv1d(F.pad(line, (radius, radius), mode="replicate"), (kernel / kernel.sum()).view(1, 1, -1))
    return line[:, 0]


def top_mean(maps: Tensor, share: float) -> Tensor:
    """Mean over the largest `share` of each map's pixels: (B, h, w) -> (B,)."""
    flat = maps.flatten(1)
    return flat.topk(max(1, round(share * flat.shape[1])), dim=1).values.mean(dim=1)


def load_exactly(module: nn.Module, state: dict[str, Tensor]) -> None:
    """`load_state_dict`, strict, and every tensor finite. Raises ValueError naming the first that is not right."""
    own = module.state_dict()
    both = own.keys() & state.keys()
    for names, what in (
        (own.keys() - state.keys(), "lacks"),
        (state.keys() - own.keys(), "has an unknown"),
        ({name for name in both if own[name].shape != state[name].shape}, "has a wrong shape for"),
        ({name for name in both if own[name].dtype != state[name].dtype}, "has a wrong type for"),
        ({name for name in both if not _finite(state[name])}, "has a number that is not finite in"),
    ):
        if names:
            raise ValueError(f"it {what} tensor {min(names)!r} ({len(names)} in all)")
    module.load_state_dict(state, strict=True)


def _finite(tensor: Tensor) -> bool:
    # least and largest are NaN where any number is; `isfinite` writes three tensors of this size
    return tensor.numel() == 0 or all(bool(extreme.isfinite()) for extreme in tensor.aminmax())


def fitted(state: Mapping[str, Tensor], *names: str) -> list[Tensor]:
    """The tensors a detector is built around. Raises ValueError naming the first that is missing."""
    if missing := [name for name in names if name not in state]:
        raise ValueError(f"it lacks tensor {missing[0]!r} ({len(missing)} in all)")
    return [state[name] for name in names]
