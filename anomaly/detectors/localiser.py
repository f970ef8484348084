"""Boxes with labels: FCOS (Tian et al. 2019, arXiv 1904.01355) as torchvision has it, on the maps of any timm CNN.

FCOS has no anchors, so there are no box sizes to set for a new part. A score is the logit of FCOS's own confidence,
sqrt(class x centre-ness): of a box, of a place of the heatmap (the best class there), of the picture (the best place).
Picture and heatmap have one even where no place is good enough for a box.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence

import torch
from pydantic import Field, JsonValue
from torch import Tensor, nn
from torch.nn import functional as F

from anomaly.backbones import timm_model
from anomaly.detectors.base import IMAGE, Boxes, Detector, DetectorConfig, DetectorOutput, Side, enlarge

Detections = dict[str, Tensor]  # boxes (N, 4) xyxy in pixels of input_size, scores (N,) in [0, 1], labels (N,)

GROUPS = 32  # of torchvision's group norm
CANDIDATES = 1000  # places of one level that may become boxes


class LocaliserConfig(DetectorConfig):
    input_size: tuple[Side, Side] = (640, 640)
    labels: tuple[str, ...] = Field(min_length=1)  # what boxes are labelled; good is no box
    architecture: str  # a timm network
    arguments: dict[str, JsonValue] = {}  # of timm
    layers: tuple[int, ...] = Field(min_length=1)  # of it, as TrunkConfig.layers: their strides decide on the grid
    coarser: bool = False  # two more levels, each of twice the stride, for parts that fill the picture
    channels: int = Field(default=96, ge=GROUPS, multiple_of=GROUPS)  # of the pyramid and the heads
    convolutions: int = Field(default=2, ge=1, le=8)  # of each head
    least_confidence: float = Field(default=0.05, gt=0, lt=1)  # below it a place gives no box
    overlap: float = Field(default=0.5, gt=0, le=1)  # IoU from which the better of two boxes of one class stays
    most: int = Field(default=100, ge=1)  # boxes of a picture


class Pyramid(nn.Module):
    """Feature pyramid (Lin et al. 2017, arXiv 1612.03144) on chosen maps of a timm network."""

    def __init__(self, config: LocaliserConfig) -> None:
        from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelP6P7

        super().__init__()
        self.trunk = timm_model(
            config.architecture,
            config.arguments,
            features_only=True,
            feature_cls="getter",
            out_indices=list(config.layers),
        )
        self.fpn = FeaturePyramidNetwork(
            self.trunk.feature_info.channels(),
            config.channels,
            LastLevelP6P7(config.channels, config.channels) if config.coarser else None,
        )
        self.out_channels = config.channels  # torchvision asks for it
        strides = self.trunk.feature_info.reduction()
        self.strides = (*strides, *((2 * strides[-1], 4 * strides[-1]) if config.coarser else ()))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W), normalised -> a map (B, channels, h, w) for each of `strides`, the finest first."""
        maps: dict[str, Tensor] = self.fpn(OrderedDict((str(i), found) for i, found in enumerate(self.trunk(images))))
        return maps


class Localiser(Detector):
    """A trunk, a feature pyramid and FCOS's heads, all trained together."""

    kind = "localiser"
    config_type = LocaliserConfig
    config: LocaliserConfig

    def __init__(self, config: LocaliserConfig) -> None:
        from torchvision.models.detection import FCOS
        from torchvision.models.detection.anchor_utils import AnchorGenerator
        from torchvision.models.detection.fcos import FCOSHead

        super().__init__(config)
        pyramid = Pyramid(config)
        # Never called as a whole: its forward would resize, normalise and pad a second time.
        self.fcos = FCOS(
            pyramid,
            num_classes=len(config.labels),
            anchor_generator=AnchorGenerator(tuple((s,) for s in pyramid.strides), ((1.0,),) * len(pyramid.strides)),
            head=FCOSHead(config.channels, 1, len(config.labels), config.convolutions),
            score_thresh=config.least_confidence,
            nms_thresh=config.overlap,
            detections_per_img=config.most,
            topk_candidates=CANDIDATES,
        )

    def detection_loss(self, images: Tensor, targets: Sequence[Mapping[str, Tensor]]) -> Tensor:
        """What training minimises: focal loss of the classes, GIoU loss of the boxes, centre-ness.

        Args:
            images: float32 (B, 3, H, W), normalised; H and W need not be input_size.
            targets: for each image `boxes` float32 (N, 4) xyxy in its pixels, none empty, and `labels` int64 (N,),
                indices into `config.labels`. N is 0 for a good part.
        """
        maps = list(self.fcos.backbone(images).values())
        losses = self.fcos.compute_loss(
            [dict(target) for target in targets], self.fcos.head(maps), self._places(images, maps), _counts(maps)
        )
        return torch.stack(list(losses.values())).sum()

    def network(self, images: Tensor) -> tuple[Tensor, ...]:
        maps = list(self.fcos.backbone(images).values())
        heads = self.fcos.head(maps)
        return (*maps, heads["cls_logits"], heads["bbox_regression"], heads["bbox_ctrness"])

    def predict_from(self, inputs: Mapping[int, Tensor], size: tuple[int, int]) -> DetectorOutput:
        images = inputs[IMAGE]
        *maps, classes, boxes, centres = self.run_network(images)
        heads = {"cls_logits": classes, "bbox_regression": boxes, "bbox_ctrness": centres}
        outputs = {name: torch.split(value, _counts(maps), dim=1) for name, value in heads.items()}
        levels = [
            _confidence_logit(classes.amax(dim=2), centre[..., 0]).view(level.shape[0], *level.shape[-2:])
            for classes, centre, level in zip(outputs["cls_logits"], outputs["bbox_ctrness"], maps, strict=True)
        ]
        scores = torch.stack([level.amax(dim=(1, 2)) for level in levels]).amax(dim=0)
        heatmaps = torch.stack([enlarge(level, size) for level in levels]).amax(dim=0)
        detections = self.fcos.postprocess_detections(
            outputs,
            [list(torch.split(places, _counts(maps))) for places in self._places(images, maps)],
            [(images.shape[-2], images.shape[-1])] * len(images),
        )
        return DetectorOutput(scores, heatmaps, boxes=[self._boxes(found, images, size) for found in detections])

    def _places(self, images: Tensor, maps: Sequence[Tensor]) -> list[Tensor]:
        """For each image (P, 4): a square of the level's stride around every place of every level."""
        from torchvision.models.detection.image_list import ImageList

        places: list[Tensor] = self.fcos.anchor_generator(
            ImageList(images, [(images.shape[-2], images.shape[-1])] * len(images)), maps
        )
        return places

    def _boxes(self, found: Detections, images: Tensor, size: tuple[int, int]) -> Boxes:
        height, width = size[0] / images.shape[-2], size[1] / images.shape[-1]
        return Boxes(
            xyxy=found["boxes"] * found["boxes"].new_tensor((width, height, width, height)),
            scores=found["scores"].clamp(1e-7, 1 - 1e-7).logit(),
            labels=tuple(self.config.labels[label] for label in found["labels"].tolist()),
        )


def _counts(maps: list[Tensor]) -> list[int]:
    return [level.shape[-2] * level.shape[-1] for level in maps]


def _confidence_logit(classes: Tensor, centre: Tensor) -> Tensor:
    """The logit of sqrt(sigmoid(classes) * sigmoid(centre)), finite wherever the two are."""
    log = (0.5 * (F.logsigmoid(classes) + F.logsigmoid(centre))).clamp_max(-1e-7)
    return log - torch.log(-torch.expm1(log))
