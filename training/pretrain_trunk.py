"""Pretrains a small trunk on drawn cables with masks, for the starter: no weights come from outside.

The network learns where a defect is (per-pixel cross-entropy at stride 4, from the maps of four stages), which needs
far fewer pictures than learning only whether there is one. Only the network is kept, not the pixel head.
"""

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anomaly.backbones import Pretrained, timm_model, write_weights
from anomaly.datasets import Sample, read_dataset, read_mask
from anomaly.detectors import DetectorConfig
from training.loop import CHECKPOINT, Recipe, fit
from training.pictures import Pictures, samples_of
from training.splits import make_manifest
from training.synthetic_cable import DEFECTS

ARCHITECTURE = "test_efficientnet"
STAGES = (1, 2, 3, 4)  # strides 4, 8, 16, 32
_CHUNK = 32  # pictures in a validation batch


class PixelNet(nn.Module):
    """A timm network and a linear read-out of its maps: (B, 3, H, W) -> logits (B, H / 4, W / 4)."""

    def __init__(self, architecture: str, pool: str) -> None:
        super().__init__()
        self.net = timm_model(architecture, {"global_pool": pool}, num_classes=0)
        channels = [self.net.feature_info[stage]["num_chs"] for stage in STAGES]
        self.heads = nn.ModuleList(nn.Conv2d(count, 1, 1) for count in channels)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.net.forward_intermediates(images, indices=list(STAGES), intermediates_only=True)
        size = maps[0].shape[-2:]
        logits = [
            F.interpolate(head(m), size, mode="bilinear", align_corners=False)
            for head, m in zip(self.heads, maps, strict=True)
        ]
        return torch.stack(logits).sum(dim=0)[:, 0]


def pretrain(
    data: Path, category: str, work: Path, *, image_size: int, epochs: int, seed: int, pool: str = "max"
) -> Path:
    """Trains on the labelled training pictures of a data set with masks.

    Args:
        data: in the layout of MVTec AD with labelled training defects.
        category: of the data.
        work: folder for the checkpoint and the result.
        image_size: side in pixels, a multiple of 32.
        epochs: at most this many.
        seed: of split and training.
        pool: what the network's own pooling shall be later on.

    Returns:
        The weights file, as `--weights` takes it.
    """
    path = work / "trunk.safetensors"
    if path.is_file():
        return path
    dataset = read_dataset(data, category)
    manifest = make_manifest(dataset, seed)
    parts = {"train": samples_of(dataset, manifest, "train"), "validate": samples_of(dataset, manifest, "validate")}
    config = DetectorConfig(input_size=(image_size, image_size))
    torch.manual_seed(seed)
    module = PixelNet(ARCHITECTURE, pool)
    pictures = {name: Pictures(samples, config, "reading") for name, samples in parts.items()}
    masks = {name: _masks(samples, image_size) for name, samples in parts.items()}
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (config.mean, config.std))

    def loss_of(name: str, indices: list[int], augment: bool) -> Tensor:
        images, drawn = pictures[name].batch(indices), masks[name][indices]
        if augment:
            images, drawn = _turned(images, drawn)
        return _pixel_loss(module((images - mean) / std), drawn)

    def validation_loss() -> float:
        count = len(parts["validate"])
        chunks = [list(range(start, min(start + _CHUNK, count))) for start in range(0, count, _CHUNK)]
        return sum(loss_of("validate", chunk, False).item() * len(chunk) for chunk in chunks) / count

    settings = f"{manifest.split_hash} {image_size} {epochs} {seed} {pool}"
    fit(
        module,
        lambda indices: loss_of("train", indices, True),
        validation_loss,
        count=len(parts["train"]),
        # the validation loss swings until the rate has come down: no early stop, the best epoch is kept all the same
        recipe=Recipe(epochs=epochs, learning_rate=2e-3, patience=epochs),
        folder=work,
        seed=seed,
        identity=hashlib.sha256(settings.encode()).hexdigest(),
    )
    write_weights(
        path,
        Pretrained(
            library="timm",
            architecture=ARCHITECTURE,
            arguments={"global_pool": pool},
            state=module.net.state_dict(),
            mean=config.mean,
            std=config.std,
            input_size=config.input_size,
            source=f"{len(DEFECTS)} drawn defect types",
        ),
    )
    (work / CHECKPOINT).unlink()
    return path


def _turned(images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Each picture and its mask turned by any angle, moved by up to 5 %, sized by up to 10 %, its light by up to 15 %.

    Without it the network knew 590 pictures by heart after ten epochs (loss .05 on them, 1.5 on others). Never
    mirrored: that would turn a good cable into a swapped one.
    """
    count = len(images)
    angle, size = torch.rand(count) * 2 * torch.pi, 0.9 + 0.2 * torch.rand(count)
    shift = (torch.rand(count, 2) * 2 - 1) * 0.1  # of the half side
    cos, sin = angle.cos() * size, angle.sin() * size
    turn = torch.stack([cos, -sin, shift[:, 0], sin, cos, shift[:, 1]], dim=1).view(count, 2, 3)

    def sample(pixels: Tensor, beyond: str) -> Tensor:
        grid = F.affine_grid(turn, list(pixels.shape), align_corners=False)
        return F.grid_sample(pixels, grid, padding_mode=beyond, align_corners=False)

    gain = 0.85 + 0.3 * torch.rand(count, 1, 1, 1)
    return (sample(images, "reflection") * gain).clamp(0, 1), sample(masks[:, None], "zeros")[:, 0]


def _pixel_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Good pixels weigh as much as defective ones, and every defective picture the same, however small its defect."""
    losses = F.binary_cross_entropy_with_logits(logits, masks, reduction="none")
    area = masks.sum(dim=(1, 2))
    bad = area > 0
    loss = (losses * (1 - masks)).sum() / (1 - masks).sum()
    return loss + ((losses * masks).sum(dim=(1, 2))[bad] / area[bad]).mean() if bool(bad.any()) else loss


def _masks(samples: list[Sample], side: int) -> Tensor:
    """(N, side / 4, side / 4) float32, 1 where any pixel below is defective."""
    stack = []
    for sample in samples:
        drawn = read_mask(sample, (side, side)) if sample.mask else np.zeros((side, side), np.bool_)
        stack.append(F.max_pool2d(torch.from_numpy(drawn).float()[None], 4)[0])
    return torch.stack(stack)
