"""Weights that torchvision trained on COCO (fcos_resnet50_fpn) as those of a localiser on timm's resnet50.

torchvision publishes them as a pickle only. They are read here, for training, from torch's own cache and with
weights_only=True; what a localiser is loaded from is safetensors as always.
"""

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from anomaly.detectors import Localiser, LocaliserConfig
from anomaly.errors import ModelLoadError

URL = "https://download.pytorch.org/models/fcos_resnet50_fpn_coco-99b0c9b7.pth"

_MOVED = {  # torchvision's prefixes -> those here
    "backbone.body.": "fcos.backbone.trunk.model.",
    "backbone.fpn.": "fcos.backbone.fpn.",
    "head.": "fcos.head.",
}
_LAST = "fcos.head.classification_head.cls_logits."  # 91 classes of COCO: kept where there are as many


def coco_config(labels: tuple[str, ...], side: int) -> LocaliserConfig:
    """The shape of torchvision's network, for other classes."""
    return LocaliserConfig(
        input_size=(side, side),
        labels=labels,
        architecture="resnet50",
        layers=(2, 3, 4),
        coarser=True,
        channels=256,
        convolutions=4,
    )


def coco_file() -> Path:
    """Where torch's cache has the weights. Raises ModelLoadError, saying how to get them, where it has not."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / URL.rsplit("/", 1)[1]
    if not path.is_file():
        raise ModelLoadError(f"no COCO weights in torch's cache: download {URL} to {path}, or leave --coco out")
    return path


def load_coco(detector: Localiser, path: Path) -> None:
    """Puts torchvision's weights into a localiser of `coco_config`; a last layer of other classes stays as it is.

    Raises:
        ModelLoadError: the file is not torchvision's.
    """
    own = detector.state_dict()
    try:
        found = _renamed(torch.load(path, map_location="cpu", weights_only=True))
        found = {n: v for n, v in found.items() if not n.startswith(_LAST) or v.shape == own[n].shape}
        kept = {n: v for n, v in own.items() if n.startswith(_LAST) or n.endswith(".num_batches_tracked")}
        detector.load_state_dict(kept | found, strict=True)
    except (OSError, KeyError, AttributeError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ModelLoadError(f"{path}: not torchvision's fcos_resnet50_fpn ({error}): download {URL} again") from error


def _renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = {}
    for name, value in state.items():
        old = next((old for old in _MOVED if name.startswith(old)), None)
        if old is None:
            raise KeyError(f"unknown tensor {name}")
        found[_MOVED[old] + name.removeprefix(old)] = value
    return found
