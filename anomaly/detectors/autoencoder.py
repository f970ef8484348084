"""Convolutional autoencoder, trained on good images only; the heatmap is the reconstruction error.

Five stages of stride-2 3x3 convolutions, 3-64-128-256-512-1024 at 224 px, and their mirror image. Upsampling is
nearest neighbour and a convolution, not a transposed convolution: that one leaves a checkerboard in the error
(Odena et al. 2016, doi 10.23915/distill.00003).
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from anomaly.backbones import Trunk, TrunkConfig
from anomaly.detectors.base import (
    IMAGE,
    Detector,
    DetectorConfig,
    DetectorOutput,
    Side,
    enlarge,
    prepare,
    smooth,
    top_mean,
)

# Of the mean length of a layer's vectors: shorter ones are noise, which made to length 1 would be loud, with gradients
# that explode. MobileNetV2 on MVTec AD's transistors: no vector was shorter than three times that.
_LEAST_LENGTH = 0.1


class PerceptualConfig(DetectorConfig):
    """The trunk that compares; input_size, mean and std are the preprocessing of its weights."""

    trunk: TrunkConfig
    use_layers: tuple[int, ...] = Field(min_length=1)  # of the trunk's
    weight: float = Field(gt=0, allow_inf_nan=False)  # the squared error of the pixels has 1


class AutoencoderConfig(DetectorConfig):
    input_size: tuple[Side, Side] = (224, 224)
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)  # the network reconstructs RGB in [0, 1] itself
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    width: int = Field(default=64, ge=1)  # channels of the first stage; each next one has twice as many
    stages: int = Field(default=5, ge=1, le=7)
    sigma: float = 2.0  # blur of the error in pixels of input_size
    score: Literal["region", "mean"] = "region"  # of the largest `top` of the blurred error, or of all of it
    top: float = Field(default=0.01, gt=0, le=1)  # the score is the mean over this share of the blurred error
    perceptual: PerceptualConfig | None = None  # with it the map is squared error + weight * difference of features


class Perceptual(nn.Module):
    """How a frozen trunk sees two pictures differ (Johnson et al. 2016, arXiv 1603.08155).

    Deviation from the paper: the feature vectors that are compared have length 1, as in LPIPS (Zhang et al. 2018, arXiv
    1801.03924), so that layers and places weigh the same; layers have equal weights, none are learned.
    """

    def __init__(self, config: PerceptualConfig, trunk: Trunk | None = None) -> None:
        """Takes the trunk, or builds it without its weights."""
        super().__init__()
        self.config = config
        self.trunk = Trunk(config.trunk) if trunk is None else trunk

    def forward(self, images: Tensor, others: Tensor) -> Tensor:
        """Compares float32 (B, 3, H, W) in [0, 1] with as many others.

        Returns:
            (B, H, W) in [0, 4], 0 where the features are equal; the gradient flows to `others` only.
        """
        with torch.no_grad():
            expected = self.trunk(prepare(images, self.config), self.config.use_layers)
        found = self.trunk(prepare(others, self.config), self.config.use_layers)
        differences = []
        for layer in self.config.use_layers:
            first, second = expected[layer].float(), found[layer].float()  # squares of float16 overflow beyond 256
            lengths = torch.linalg.vector_norm(first, dim=1, keepdim=True)
            least = _LEAST_LENGTH * lengths.mean(dim=(2, 3), keepdim=True).clamp_min(1e-6)  # of each picture by itself
            difference = (_unit(second, least) - _unit(first, least)).square().sum(dim=1)
            differences.append(enlarge(difference, (images.shape[-2], images.shape[-1])))
        return torch.stack(differences).mean(dim=0)


class Autoencoder(Detector):
    """Squared error between an image and its reconstruction, where asked for with that of a trunk's features."""

    kind = "autoencoder"
    config_type = AutoencoderConfig
    config: AutoencoderConfig

    def __init__(self, config: AutoencoderConfig, perceptual: Perceptual | None = None) -> None:
        """Builds the network, untrained.

        Args:
            config: settings.
            perceptual: of `config.perceptual`, with the weights of its trunk; without it they are random.

        Raises:
            ValueError: a side of input_size cannot be halved as many times as there are stages.
        """
        super().__init__(config)
        divisor = 2**config.stages
        if any(side % divisor for side in config.input_size):
            raise ValueError(
                f"input_size {config.input_size} must be a multiple of {divisor} for {config.stages} stages"
            )
        widths = [3, *(config.width * 2**stage for stage in range(config.stages))]
        pairs = list(pairwise(widths))
        self.encoder = nn.Sequential(*(_down(narrow, wide) for narrow, wide in pairs))
        self.decoder = nn.Sequential(
            *(_up(wide, narrow) for narrow, wide in reversed(pairs[1:])),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(widths[1], 3, 3, padding=1),
            nn.Sigmoid(),
        )
        # not as `self.trunk`, whose maps would be this detector's inputs: it needs those of the reconstruction too
        self.perceptual = None
        if config.perceptual is not None:
            self.perceptual = perceptual or Perceptual(config.perceptual)

    def reconstruct(self, images: Tensor) -> Tensor:
        """(B, 3, *input_size) in [0, 1] -> the same shape and range."""
        reconstruction: Tensor = self.decoder(self.encoder(images))
        return reconstruction

    def network(self, images: Tensor) -> tuple[Tensor, ...]:
        reconstruction = self.reconstruct(images)
        return (
            (reconstruction,) if self.perceptual is None else (reconstruction, self.perceptual(images, reconstruction))
        )

    def predict_from(self, inputs: Mapping[int, Tensor], size: tuple[int, int]) -> DetectorOutput:
        images = inputs[IMAGE]
        reconstruction, *differences = self.run_network(images)
        error = (reconstruction - images).square().mean(dim=1)  # (B, h, w)
        if self.config.perceptual is not None:
            error = error + self.config.perceptual.weight * differences[0]
        maps = smooth(error, self.config.sigma, self.config.input_size)
        scores = top_mean(maps, self.config.top) if self.config.score == "region" else maps.mean(dim=(1, 2))
        return DetectorOutput(scores=scores, heatmaps=enlarge(maps, size))


def _unit(features: Tensor, least: Tensor) -> Tensor:
    """Vectors (B, C, h, w) of length 1; below the length `least` (B, 1, 1, 1) in proportion shorter."""
    return features / torch.maximum(torch.linalg.vector_norm(features, dim=1, keepdim=True), least)


def _down(inner: int, outer: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inner, outer, 3, stride=2, padding=1), nn.BatchNorm2d(outer), nn.LeakyReLU(0.1))


def _up(inner: int, outer: int) -> nn.Module:
    return nn.Sequential(
        nn.Upsample(scale_factor=2), nn.Conv2d(inner, outer, 3, padding=1), nn.BatchNorm2d(outer), nn.LeakyReLU(0.1)
    )
