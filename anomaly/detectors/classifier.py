"""Two-head classifier on any timm network: ResNet (He et al. 2016), EfficientNet (Tan & Le 2019), or another CNN."""

from typing import Any

from pydantic import Field, JsonValue
from torch import Tensor

from anomaly.backbones import timm_model
from anomaly.detectors.base import Side
from anomaly.detectors.two_heads import TwoHeadConfig, TwoHeadDetector, TwoHeads, grid_head


class ClassifierConfig(TwoHeadConfig):
    architecture: str  # a timm model name
    arguments: dict[str, JsonValue] = Field(default={})  # timm keyword arguments, for example pad_type
    input_size: tuple[Side, Side] = (224, 224)


class Classifier(TwoHeadDetector):
    """A timm network without its own classification layer, and two heads."""

    kind = "classifier"
    config_type = ClassifierConfig
    config: ClassifierConfig

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__(config)
        self.net: Any = timm_model(config.architecture, config.arguments, num_classes=0)
        self.grid = grid_head(config.head, int(self.net.num_features))
        self.heads = TwoHeads(int(self.net.head_hidden_size), len(config.classes))

    def feature_map(self, images: Tensor) -> Tensor:
        maps: Tensor = self.net.forward_features(images)
        return maps

    def vector(self, feature_map: Tensor) -> Tensor:
        vectors: Tensor = self.net.forward_head(self.grid(feature_map), pre_logits=True)
        return vectors
