"""What the supervised detectors share: a defect head, a type head, and Grad-CAM on the last feature map.

Grad-CAM (Selvaraju et al. 2017, arXiv 1610.02391; eqs. 1 and 2) towards the defect logit, without any scaling:
two images' maps are comparable. With `head="attention"` the cells of that map are weighed and compared before they are
pooled: squeeze-and-excitation (Hu et al. 2018, arXiv 1709.01507), then self-attention (Vaswani et al. 2017, arXiv
1706.03762).
"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from anomaly.detectors.base import IMAGE, Detector, DetectorConfig, DetectorOutput, enlarge


class TwoHeadConfig(DetectorConfig):
    classes: tuple[str, ...] = Field(min_length=1)  # what the type head tells apart, "good" first
    head: Literal["plain", "attention"] = "plain"  # what becomes of the feature map before it is pooled


class GridAttention(nn.Module):
    """(B, C, h, w) -> the same: channels weighed, then to each cell added what it attends to in the others.

    Queries, keys and values are narrowed to `DIMS` channels: at a trunk's 1280 full ones would be three times as many
    weights as MobileNetV2 has. What is added is 0 at first, so that training starts from the plain head.
    """

    DIMS, ATTENTION_HEADS, REDUCTION = 128, 4, 16

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = max(8, channels // self.REDUCTION)
        self.excite = nn.Sequential(
            nn.Linear(channels, squeezed), nn.ReLU(), nn.Linear(squeezed, channels), nn.Sigmoid()
        )
        self.norm = nn.LayerNorm(channels)
        self.narrow = nn.Linear(channels, 3 * self.DIMS)
        self.widen = nn.Linear(self.DIMS, channels)
        nn.init.zeros_(self.widen.weight)
        nn.init.zeros_(self.widen.bias)

    def forward(self, maps: Tensor) -> Tensor:
        maps = maps * self.excite(maps.mean(dim=(2, 3)))[:, :, None, None]
        cells = self.norm(maps.flatten(2).transpose(1, 2))  # (B, h w, C)
        split = self.narrow(cells).unflatten(2, (3, self.ATTENTION_HEADS, -1))  # (B, h w, 3, heads, DIMS / heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)  # each (B, heads, h w, DIMS / heads)
        attended = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        added: Tensor = self.widen(attended).transpose(1, 2).reshape(maps.shape)
        return maps + added


def grid_head(head: Literal["plain", "attention"], channels: int) -> nn.Module:
    """What stands between the feature map and its vector."""
    return GridAttention(channels) if head == "attention" else nn.Identity()


class TwoHeads(nn.Module):
    """(B, d) -> the logit of being defective (B,), and the class logits (B, n_classes)."""

    def __init__(self, dims: int, classes: int) -> None:
        super().__init__()
        self.binary = nn.Linear(dims, 1)
        self.types = nn.Linear(dims, classes)

    def forward(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        return self.binary(vectors)[:, 0], self.types(vectors)


class TwoHeadDetector(Detector):
    """A network that ends in a feature map, a vector of it, and two heads. The score is the defect logit."""

    config: TwoHeadConfig
    heads: TwoHeads

    @abstractmethod
    def feature_map(self, images: Tensor) -> Tensor:
        """(B, 3, *input_size), normalised -> (B, C, h, w)."""

    @abstractmethod
    def vector(self, feature_map: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, d)."""

    def logits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What training minimises on: defect logits (B,) and class logits (B, n_classes) of normalised images."""
        logits: tuple[Tensor, Tensor] = self.heads(self.vector(self.feature_map(images)))
        return logits

    def network(self, images: Tensor) -> tuple[Tensor, ...]:
        return (self.feature_map(images),)  # Grad-CAM needs a gradient of what comes behind

    def predict_from(self, inputs: Mapping[int, Tensor], size: tuple[int, int]) -> DetectorOutput:
        (feature_map,) = self.run_network(inputs[IMAGE])
        if feature_map.ndim != 4:
            raise ValueError(f"the network ends in {tuple(feature_map.shape)}, not in a feature map (B, C, h, w)")
        scores, class_logits = self.heads(self.vector(feature_map))
        return DetectorOutput(scores, enlarge(self._grad_cam(feature_map), size), class_logits)

    def _grad_cam(self, feature_map: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, h, w): channels weighed by their mean gradient, what speaks against a defect cut off."""
        with torch.enable_grad():
            start = feature_map.detach().clone().requires_grad_()
            scores: Tensor = self.heads(self.vector(start))[0]
            (slopes,) = torch.autograd.grad(scores.sum(), start)
        return (slopes.mean(dim=(2, 3), keepdim=True) * start.detach()).sum(dim=1).relu()
