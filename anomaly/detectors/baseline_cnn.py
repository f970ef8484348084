"""Baseline CNN: a VGG-like network (Simonyan & Zisserman 2015, arXiv 1409.1556) of five blocks with two heads.

Deviations: batch norm behind every convolution, and a global average instead of a flattened 7x7 map in front of the
dense layers (25 of 27 million weights less, and any input size).
"""

from itertools import pairwise

from pydantic import Field
from torch import Tensor, nn

from anomaly.detectors.base import Side
from anomaly.detectors.two_heads import TwoHeadConfig, TwoHeadDetector, TwoHeads, grid_head

BLOCKS = ((64,), (128,), (256, 256), (512, 512), (512, 512))
DROPOUT = (0.1, 0.2, 0.3, 0.4, 0.5)
DENSE = (1024, 512, 256)


class BaselineCNNConfig(TwoHeadConfig):
    input_size: tuple[Side, Side] = (224, 224)
    width: float = Field(default=1.0, gt=0, le=4)  # multiplies every layer's channels


class BaselineCNN(TwoHeadDetector):
    """Five convolution blocks, three dense layers, two heads."""

    kind = "baseline_cnn"
    config_type = BaselineCNNConfig
    config: BaselineCNNConfig

    def __init__(self, config: BaselineCNNConfig) -> None:
        super().__init__(config)
        blocks: list[nn.Module] = []
        channels = 3
        for widths, dropout in zip(BLOCKS, DROPOUT, strict=True):
            for full in widths:
                width = _scaled(full, config.width)
                blocks += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
                channels = width
            blocks += [nn.MaxPool2d(2), nn.Dropout2d(dropout)]
        self.blocks = nn.Sequential(*blocks)
        self.grid = grid_head(config.head, channels)
        dims = [channels, *(_scaled(full, config.width) for full in DENSE)]
        self.dense = nn.Sequential(
            *(nn.Sequential(nn.Linear(a, b), nn.ReLU(), nn.Dropout(DROPOUT[-1])) for a, b in pairwise(dims))
        )
        self.heads = TwoHeads(dims[-1], len(config.classes))

    def feature_map(self, images: Tensor) -> Tensor:
        maps: Tensor = self.blocks(images)
        return maps

    def vector(self, feature_map: Tensor) -> Tensor:
        vectors: Tensor = self.dense(self.grid(feature_map).mean(dim=(2, 3)))
        return vectors


def _scaled(channels: int, width: float) -> int:
    return max(4, round(channels * width))
