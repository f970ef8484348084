"""Convolutional autoencoder, trained on good images only; the heatmap is the reconstruction error.

Five stages of stride-2 3x3 convolutions, 3-64-128-256-512-1024 at 224 px, and their mirror image. Upsampling is
nearest neighbour and a convolution, not a transposed convolution: that one leaves a checkerboard in the error
(Odena et al. 2016, doi 10.23915/distill.00003).
"""

from collections.abc import Mapping
from itertools import pairwise

from pydantic import Field
from torch import Tensor, nn

from anomaly.detectors.base import IMAGE, Detector, DetectorConfig, DetectorOutput, Side, enlarge, smooth, top_mean


class AutoencoderConfig(DetectorConfig):
    input_size: tuple[Side, Side] = (224, 224)
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)  # the network reconstructs RGB in [0, 1] itself
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    width: int = Field(default=64, ge=1)  # channels of the first stage; each next one has twice as many
    stages: int = Field(default=5, ge=1, le=7)
    sigma: float = 2.0  # blur of the error in pixels of input_size
    top: float = Field(default=0.01, gt=0, le=1)  # the score is the mean over this share of the blurred error


class Autoencoder(Detector):
    """Squared error between an image and its reconstruction."""

    kind = "autoencoder"
    config_type = AutoencoderConfig
    config: AutoencoderConfig

    def __init__(self, config: AutoencoderConfig) -> None:
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

    def reconstruct(self, images: Tensor) -> Tensor:
        """(B, 3, *input_size) in [0, 1] -> the same shape and range."""
        reconstruction: Tensor = self.decoder(self.encoder(images))
        return reconstruction

    def predict_from(self, inputs: Mapping[int, Tensor], size: tuple[int, int]) -> DetectorOutput:
        images = inputs[IMAGE]
        error = (self.reconstruct(images) - images).square().mean(dim=1)  # (B, h, w)
        maps = smooth(error, self.config.sigma, self.config.input_size)
        return DetectorOutput(scores=top_mean(maps, self.config.top), heatmaps=enlarge(maps, size))


def _down(inner: int, outer: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inner, outer, 3, stride=2, padding=1), nn.BatchNorm2d(outer), nn.LeakyReLU(0.1))


def _up(inner: int, outer: int) -> nn.Module:
    return nn.Sequential(
        nn.Upsample(scale_factor=2), nn.Conv2d(inner, outer, 3, padding=1), nn.BatchNorm2d(outer), nn.LeakyReLU(0.1)
    )
