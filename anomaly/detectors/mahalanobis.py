"""Gaussian statistics of trunk features (Mahalanobis distance: Lee et al. 2018, arXiv 1807.03888; per position: PaDiM,
Defard et al. 2021, arXiv 2011.08785).

Deviations from PaDiM: features are averaged over 3x3 neighbours first; the covariance is shrunk by an estimated amount
(training/gaussians.py) instead of a fixed 0.01 on its diagonal; the score is the mean of the map's top 1 %, which one
lone pixel of noise does not decide.
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
    categories: tuple[str, ...] = ()  # those with statistics of their own, in their order; () for just one


class Mahalanobis(Detector):
    """Distance to the Gaussian of good images: one vector an image (`global`), or one a position (`position`).

    With config.categories it holds a Gaussian for each of them on one trunk, and `select` gives the detector of one.
    """

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
            mean: (P, d) float32; P = positions of the finest map in rows (`position`), or 1 (`global`). With
                config.categories (K, P, d).
            whitener: (P, d, d) float32, W with W^T W = inverse covariance. With config.categories (K, P, d, d).
            channels: (d,) int64, which of the stacked channels are used (PaDiM, section III-B), in every category.
        """
        super().__init__(config)
        self.trunk = trunk
        self.register_buffer("mean", mean)
        # each position's columns side by side, as `predict_from` reads them; no copy of one that lies so already
        self.register_buffer("whitener", whitener.mT.contiguous().mT)
        self.register_buffer("channels", channels)

    @property
    def layers(self) -> frozenset[int]:
        return frozenset(self.config.use_layers)

    @property
    def categories(self) -> tuple[str, ...]:
        return self.config.categories

    def select(self, category: str) -> Detector:
        """The detector of one category, on the same trunk and the same memory.

        Raises:
            ValueError: it holds several categories, and none of this name.
        """
        super().select(category)
        if not self.categories:
            return self
        index = self.categories.index(category)
        config = self.config.model_copy(update={"categories": ()})
        return Mahalanobis(config, self.trunk, self.mean[index], self.whitener[index], self.channels).eval()

    def predict_from(self, inputs: Mapping[int, Tensor], size: tuple[int, int]) -> DetectorOutput:
        if self.categories:
            raise ValueError(f"scores need a category: select one of {list(self.categories)} first")
        maps_in = [inputs[layer] for layer in self.config.use_layers]
        vectors, grid = pooled_features(maps_in, self.config.pooling)
        deviation = vectors.index_select(2, self.channels) - self.mean  # (B, P, d)
        # reading the whitener is nearly all of the time: once for the whole batch
        white = torch.bmm(deviation.transpose(0, 1), self.whitener.mT)  # (P, B, d)
        distance = torch.linalg.vector_norm(white, dim=-1).T  # (B, P)
        if self.config.pooling == "global":
            return DetectorOutput(scores=distance[:, 0])
        maps = smooth(distance.reshape(-1, *grid), self.config.sigma, self.config.input_size)
        return DetectorOutput(scores=top_mean(maps, self.config.top), heatmaps=enlarge(maps, size))

    @classmethod
    def from_state(cls, config: DetectorConfig, state: dict[str, Tensor]) -> Self:
        assert isinstance(config, MahalanobisConfig)
        detector = cls(config, Trunk(config.trunk), *fitted(state, "mean", "whitener", "channels"))
        # its own whitener lies column by column already: nothing to write a second time
        load_exactly(detector, state | {"whitener": detector.whitener})
        *leading, positions, dims = detector.mean.shape
        if detector.whitener.shape != (*leading, positions, dims, dims) or detector.channels.shape != (dims,):
            raise ValueError(
                f"mean {tuple(detector.mean.shape)} does not fit whitener {tuple(detector.whitener.shape)}"
            )
        if leading != ([len(config.categories)] if config.categories else []):
            raise ValueError(f"mean {tuple(detector.mean.shape)} does not fit categories {list(config.categories)}")
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
