"""Patch memory bank (PatchCore, Roth et al. 2022, arXiv 2106.08265).

Deviation from the paper: the image score takes its maximum from the raw patch distances, the heatmap is blurred with
the same sigma = 4 afterwards (as in the authors' code).
"""

from collections.abc import Mapping
from typing import Self

import torch
from pydantic import Field
from torch import Tensor

from anomaly.backbones import Trunk, TrunkConfig
from anomaly.detectors.base import Detector, DetectorConfig, DetectorOutput, enlarge, fitted, load_exactly
from anomaly.detectors.patches import patch_features


class PatchKNNConfig(DetectorConfig):
    trunk: TrunkConfig
    use_layers: tuple[int, ...] = Field(min_length=1)  # of the trunk's
    neighbours: int = 9  # b of the re-weighting, eq. 7
    sigma: float = 4.0  # blur of the heatmap in pixels of input_size


class PatchKNN(Detector):
    """Distance of each patch to its nearest neighbour in a memory of good patches."""

    kind = "patch_knn"
    config_type = PatchKNNConfig
    config: PatchKNNConfig
    trunk: Trunk
    memory: Tensor
    memory_norms: Tensor

    def __init__(self, config: PatchKNNConfig, trunk: Trunk, memory: Tensor) -> None:
        """Takes the fitted memory.

        Args:
            config: settings.
            trunk: the frozen trunk the patches come from.
            memory: (M, C) float32, the coreset of good patches.
        """
        super().__init__(config)
        self.trunk = trunk
        self.register_buffer("memory", memory)
        self.register_buffer("memory_norms", memory.square().sum(dim=1), persistent=False)

    @property
    def layers(self) -> frozenset[int]:
        return frozenset(self.config.use_layers)

    def predict_from(self, inputs: Mapping[int, Tensor], size: tuple[int, int]) -> DetectorOutput:
        patches = patch_features([inputs[layer] for layer in self.config.use_layers])
        grid = (patches.shape[-2], patches.shape[-1])
        vectors = patches.flatten(2).transpose(1, 2)  # (B, P, C)
        nearest = [self._nearest(image) for image in vectors]  # image by image: memory use does not grow with the batch
        distance = torch.stack([d for d, _ in nearest])  # (B, P)
        scores = [self._reweighted(image, d, index) for image, (d, index) in zip(vectors, nearest, strict=True)]
        maps = distance.view(-1, *grid)
        heatmaps = enlarge(maps, size, sigma=self.config.sigma, at=self.config.input_size)
        return DetectorOutput(scores=torch.stack(scores), heatmaps=heatmaps)

    def _nearest(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """(P, C) -> distance to and index of the nearest memory entry, (P,) each."""
        squared = torch.addmm(self.memory_norms[None], patches, self.memory.T, alpha=-2)  # + |x|^2, the same for all
        index = squared.argmin(dim=1)
        # |a|^2 - 2ab + |b|^2 cancels badly near zero: the one distance that counts is taken from the difference
        return torch.linalg.vector_norm(patches - self.memory[index], dim=1), index

    def _reweighted(self, patches: Tensor, distance: Tensor, index: Tensor) -> Tensor:
        """Image score, eqs. 6 and 7: the largest patch distance, weighed by how crowded its neighbour is."""
        worst = distance.argmax()
        neighbour = self.memory[index[worst]]
        count = min(self.config.neighbours, len(self.memory))
        # cdist's own choice, a matrix product, cancels in the same way; for one row it is slower, too
        apart = torch.cdist(neighbour[None], self.memory, compute_mode="donot_use_mm_for_euclid_dist")[0]
        around = apart.topk(count, largest=False).indices
        to_them = torch.linalg.vector_norm(self.memory[around] - patches[worst], dim=1)
        if count == 1:  # the weight of the only neighbour would be 1 - 1 = 0 for every image
            return distance[worst]
        # exp(d) overflows beyond 88: as a softmax over the neighbourhood instead, of which the nearest is a member
        share = torch.exp(distance[worst] - torch.logsumexp(to_them, dim=0))
        return (1 - share) * distance[worst]

    @classmethod
    def from_state(cls, config: DetectorConfig, state: dict[str, Tensor]) -> Self:
        assert isinstance(config, PatchKNNConfig)
        detector = cls(config, Trunk(config.trunk), *fitted(state, "memory"))
        load_exactly(detector, state)
        return detector
