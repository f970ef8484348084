"""Patch memory bank (PatchCore, Roth et al. 2022, arXiv 2106.08265; with cosine distance and the mean of the top 1 %:
AnomalyDINO, Damm et al. 2024, arXiv 2405.14529; whitened: after Mahalanobis PatchCore, arXiv 2605.27748).

Deviations: PatchCore's image score takes its maximum from the raw patch distances, the heatmap is blurred with the same
sigma = 4 afterwards (as in the authors' code); AnomalyDINO's mask of the foreground is left out.
"""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

import torch
from pydantic import AfterValidator, Field, model_validator
from torch import Tensor
from torch.nn import functional as F

from anomaly.backbones import Trunk, TrunkConfig
from anomaly.detectors.base import Detector, DetectorConfig, DetectorOutput, enlarge, fitted, load_exactly, top_mean
from anomaly.detectors.patches import patch_features

_ROWS = 1024  # patches compared at a time, with as many memory entries as
_BLOCK_BYTES = 4 * 2**20  # of float32 distances: larger blocks leave the processor's cache, smaller ones waste calls


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError(f"{value} has no middle, expected an odd number such as 1 or 3")
    return value


class PatchKNNConfig(DetectorConfig):
    trunk: TrunkConfig
    use_layers: tuple[int, ...] = Field(min_length=1)  # of the trunk's
    window: Annotated[int, Field(ge=1), AfterValidator(_odd)] = 3  # features are averaged over window x window
    whitened: bool = False  # distances are taken behind `center` and `whitener`
    metric: Literal["euclidean", "cosine"] = "euclidean"  # cosine: 1 - cos, in [0, 2]
    score: Literal["reweighted", "max", "top"] = "reweighted"  # of the patch distances; reweighted: eqs. 6 and 7
    top: float = Field(default=0.01, gt=0, le=1)  # with score = top: the mean over this share of the patches
    neighbours: int = 9  # with score = reweighted: b of eq. 7
    sigma: float = 4.0  # blur of the heatmap in pixels of input_size

    @model_validator(mode="after")
    def _reweights_distances(self) -> Self:
        if self.score == "reweighted" and self.metric == "cosine":
            raise ValueError("score 'reweighted' is made for Euclidean distances; with metric 'cosine' take 'top'")
        return self


class PatchKNN(Detector):
    """Distance of each patch to its nearest neighbour in a memory of good patches."""

    kind = "patch_knn"
    config_type = PatchKNNConfig
    config: PatchKNNConfig
    trunk: Trunk
    memory: Tensor
    memory_mean: Tensor
    memory_norms: Tensor
    center: Tensor
    whitener: Tensor

    def __init__(
        self,
        config: PatchKNNConfig,
        trunk: Trunk,
        memory: Tensor,
        center: Tensor | None = None,
        whitener: Tensor | None = None,
    ) -> None:
        """Takes the fitted memory.

        Args:
            config: settings.
            trunk: the frozen trunk the patches come from.
            memory: (M, k) float32, the coreset of good patches, as `to_space` returned them.
            center: (C,) float32, mean of good patches; with config.whitened.
            whitener: (C, k) float32; with config.whitened.
        """
        super().__init__(config)
        self.trunk = trunk
        self.register_buffer("memory", memory)
        # distances do not change with the origin, but |a|^2 - 2ab + |b|^2 far from it cancels in float32
        mean = memory.mean(dim=0)
        self.register_buffer("memory_mean", mean, persistent=False)
        self.register_buffer("memory_norms", (memory - mean).square().sum(dim=1), persistent=False)
        if config.whitened:
            assert center is not None
            assert whitener is not None
            self.register_buffer("center", center)
            self.register_buffer("whitener", whitener)

    @property
    def layers(self) -> frozenset[int]:
        return frozenset(self.config.use_layers)

    def predict_from(self, inputs: Mapping[int, Tensor], size: tuple[int, int]) -> DetectorOutput:
        patches = patch_features([inputs[layer] for layer in self.config.use_layers], self.config.window)
        grid = (patches.shape[-2], patches.shape[-1])
        whitening = (self.center, self.whitener) if self.config.whitened else None
        vectors = to_space(patches.flatten(2).transpose(1, 2), self.config.metric, whitening)  # (B, P, k)
        apart, index = (each.view(vectors.shape[:2]) for each in self._nearest(vectors.flatten(0, 1)))
        distance = apart.square() / 2 if self.config.metric == "cosine" else apart  # of unit vectors: 1 - cos
        if self.config.score == "reweighted":
            scores = self._reweighted(vectors, distance, index)
        elif self.config.score == "max":
            scores = distance.amax(dim=1)
        else:
            scores = top_mean(distance, self.config.top)
        heatmaps = enlarge(distance.view(-1, *grid), size, sigma=self.config.sigma, at=self.config.input_size)
        return DetectorOutput(scores=scores, heatmaps=heatmaps)

    def _squared(self, patches: Tensor, entries: slice = slice(None)) -> Tensor:
        """(N, k) -> squared distances to these entries of the memory, up to a summand of each row: (N, entries)."""
        return torch.addmm(self.memory_norms[entries], patches - self.memory_mean, self.memory[entries].T, alpha=-2)

    def _nearest(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """(N, k) -> Euclidean distance to and index of the nearest memory entry, (N,) each."""
        distances, indices = [], []
        columns = _BLOCK_BYTES // (4 * _ROWS)
        for first in range(0, len(patches), _ROWS):
            rows = patches[first : first + _ROWS]
            least, index = self._squared(rows, slice(columns)).min(dim=1)
            for start in range(columns, len(self.memory), columns):
                here, at = self._squared(rows, slice(start, start + columns)).min(dim=1)
                index = torch.where(here < least, at + start, index)
                least = torch.minimum(least, here)
            # of rounded differences of squares: the one distance that counts is taken anew
            distances.append(torch.linalg.vector_norm(rows - self.memory[index], dim=1))
            indices.append(index)
        return torch.cat(distances), torch.cat(indices)

    def _reweighted(self, patches: Tensor, distance: Tensor, index: Tensor) -> Tensor:
        """Image scores, eqs. 6 and 7: the largest patch distance, weighed by how crowded its neighbour is.

        Args:
            patches: (B, P, k).
            distance: (B, P), to the nearest memory entry.
            index: (B, P), of that entry.

        Returns:
            (B,).
        """
        farthest, worst = distance.max(dim=1)
        count = min(self.config.neighbours, len(self.memory))
        if count == 1:  # the weight of the only neighbour would be 1 - 1 = 0 for every image
            return farthest
        image = torch.arange(len(patches), device=patches.device)
        patch, neighbour = patches[image, worst][:, None], self.memory[index[image, worst]]
        # rounding may swap neighbours that are about as near: twice as many, put in order by their exact distances
        near = self._squared(neighbour).topk(min(2 * count, len(self.memory)), largest=False).indices
        apart = torch.linalg.vector_norm(self.memory[near] - neighbour[:, None], dim=2)
        around = near.gather(1, apart.topk(count, largest=False).indices)
        to_them = torch.linalg.vector_norm(self.memory[around] - patch, dim=2)
        # exp(d) overflows beyond 88: as a softmax over the neighbourhood instead, of which the nearest is a member
        share = torch.exp(farthest - torch.logsumexp(to_them, dim=1))
        return (1 - share) * farthest

    @classmethod
    def from_state(cls, config: DetectorConfig, state: dict[str, Tensor]) -> Self:
        assert isinstance(config, PatchKNNConfig)
        names = ("memory", "center", "whitener") if config.whitened else ("memory",)
        detector = cls(config, Trunk(config.trunk), *fitted(state, *names))
        load_exactly(detector, state)
        if config.whitened and detector.whitener.shape != (len(detector.center), detector.memory.shape[1]):
            raise ValueError(
                f"whitener {tuple(detector.whitener.shape)} does not lead from center {tuple(detector.center.shape)} "
                f"to memory {tuple(detector.memory.shape)}"
            )
        return detector


def to_space(patches: Tensor, metric: str, whitening: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """Patches as they are compared with the memory: whitened where there is a whitening, of length 1 for cosine.

    Args:
        patches: (..., C).
        metric: `euclidean` or `cosine`.
        whitening: center (C,) and whitener (C, k).

    Returns:
        (..., k), or (..., C) without a whitening.
    """
    if whitening is not None:
        center, whitener = whitening
        patches = (patches - center) @ whitener
    return F.normalize(patches, dim=-1) if metric == "cosine" else patches
