"""What the supervised detectors share: a defect head, a type head, and Grad-CAM on the last feature map.

Grad-CAM (Selvaraju et al. 2017, arXiv 1610.02391) through captum, towards the defect logit, without any scaling:
two images' maps are comparable.
"""

from abc import abstractmethod
from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor, nn

from anomaly.detectors.base import IMAGE, Detector, DetectorConfig, DetectorOutput, enlarge


class TwoHeadConfig(DetectorConfig):
    classes: tuple[str, ...] = Field(min_length=1)  # what the type head tells apart, "good" first


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

    def __init__(self, config: TwoHeadConfig) -> None:
        super().__init__(config)
        self.tap = nn.Identity()  # where Grad-CAM listens

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

    def predict_from(self, inputs: Mapping[int, Tensor], size: tuple[int, int]) -> DetectorOutput:
        feature_map = self.feature_map(inputs[IMAGE])
        if feature_map.ndim != 4:
            raise ValueError(f"the network ends in {tuple(feature_map.shape)}, not in a feature map (B, C, h, w)")
        scores, class_logits = self.heads(self.vector(feature_map))
        return DetectorOutput(scores, enlarge(self._grad_cam(feature_map), size), class_logits)

    def _grad_cam(self, feature_map: Tensor) -> Tensor:
        from captum.attr import LayerGradCam

        with torch.enable_grad():
            cam = LayerGradCam(lambda x: self.heads(self.vector(self.tap(x)))[0], self.tap)
            start = feature_map.detach().clone().requires_grad_()
            maps: Tensor = cam.attribute(start, relu_attributions=True)
        return maps.detach()[:, 0]
