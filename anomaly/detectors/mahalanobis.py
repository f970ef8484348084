"""Gaussian statistics of trunk features (Mahalanobis distance: Lee et al. 2018, arXiv 1807.03888; per position: PaDiM,
Defard et al. 2021, arXiv 2011.08785).

Deviations from PaDiM: features are averaged over 3x3 neighbours first; the covariance is shrunk by as much as Ledoit
and Wolf (2004, doi 10.1016/S0047-259X(03)00096-4) say instead of a fixed 0.01 on its diagonal; the score is the mean of
the map's top 1 %, which one lone pixel of noise does not decide.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, Self

import torch
from pydantic import Field
from torch import Tensor

from anomaly.backbones import Trunk, TrunkConfig
from anomaly.detectors.base import (
    Detector,
    DetectorConfig,
    DetectorOutput,
    enlarge,
    fitted,
    load_exactly,
    smooth,
    top_mean,
)
from anomaly.detectors.patches import patch_features


class MahalanobisConfig(DetectorConfig):
    trunk: TrunkConfig
    use_layers: tuple[int, ...] = Field(min_length=1)  # of the trunk's
    pooling: Literal["global", "position"] = "position"
    sigma: float = 4.0  # blur of the heatmap in pixels of input_size; position only
    top: float = Field(default=0.01, gt=0, le=1)  # the score is the mean over this share of the map; position only


class Mahalanobis(Detector):
    """Distance to the Gaussian of good images: one vector an image (`global`), or one a position (`position`)."""

    kind = "mahalanobis"
    config_type = MahalanobisConfig
    config: MahalanobisConfig
    trunk: Trunk
    mean: Tensor
    whitener: Tensor
    channels: Tensor

    def __init__(
        self, config: MahalanobisConfig, trunk: Trunk, mean: Tensor, whitener: Tensor, channels: Tensor
    ) -> None:
        """Takes fitted statistics.

        Args:
            config: settings.
            trunk: the frozen trunk the statistics were taken from.
            mean: (P, d) float32; P = positions of the finest map in rows (`position`), or 1 (`global`).
            whitener: (P, d, d) float32, W with W^T W = inverse covariance.
            channels: (d,) int64, which of the stacked channels are used (PaDiM, section III-B).
        """
        super().__init__(config)
        self.trunk = trunk
        self.register_buffer("mean", mean)
        self.register_buffer("whitener", whitener)
        self.register_buffer("channels", channels)

    @property
    def layers(self) -> frozenset[int]:
        return frozenset(self.config.use_layers)

    def predict_from(self, inputs: Mapping[int, Tensor], size: tuple[int, int]) -> DetectorOutput:
        maps_in = [inputs[layer] for layer in self.config.use_layers]
        vectors, grid = pooled_features(maps_in, self.config.pooling)
        deviation = vectors[:, :, self.channels] - self.mean  # (B, P, d)
        distance = torch.linalg.vector_norm(torch.einsum("pde,bpe->bpd", self.whitener, deviation), dim=-1)  # (B, P)
        if self.config.pooling == "global":
            return DetectorOutput(scores=distance[:, 0])
        maps = smooth(distance.view(-1, *grid), self.config.sigma, self.config.input_size)
        return DetectorOutput(scores=top_mean(maps, self.config.top), heatmaps=enlarge(maps, size))

    @classmethod
    def from_state(cls, config: DetectorConfig, state: dict[str, Tensor]) -> Self:
        assert isinstance(config, MahalanobisConfig)
        detector = cls(config, Trunk(config.trunk), *fitted(state, "mean", "whitener", "channels"))
        load_exactly(detector, state)
        positions, dims = detector.mean.shape
        if detector.whitener.shape != (positions, dims, dims) or detector.channels.shape != (dims,):
            raise ValueError(f"mean {(positions, dims)} does not fit whitener {tuple(detector.whitener.shape)}")
        return detector


def pooled_features(maps: Sequence[Tensor], pooling: str) -> tuple[Tensor, tuple[int, int]]:
    """The vectors that the Gaussian is over.

    Returns:
        (B, P, C) and the grid (h, w) with P = h * w; `global` has P = 1.
    """
    if pooling == "global":
        return torch.cat([m.mean(dim=(2, 3)) for m in maps], dim=1)[:, None], (1, 1)
    patches = patch_features(maps)
    return patches.flatten(2).transpose(1, 2), (patches.shape[-2], patches.shape[-1])
