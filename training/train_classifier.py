"""Trains a two-head classifier on labelled pictures: any timm network, or `--arch baseline_cnn`.

Plainly: binary cross-entropy on good or defective (weight 0.6) and cross-entropy on the class (weight 0.4), both
weighted by inverse class frequency; small shifts, rotations and changes of light on the training pictures.
"""

import sys
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import JsonValue
from torch import Tensor
from torch.nn import functional as F

from anomaly.backbones import Pretrained
from anomaly.datasets import GOOD
from anomaly.detectors import BaselineCNN, BaselineCNNConfig, Classifier, ClassifierConfig
from anomaly.detectors.two_heads import TwoHeadDetector
from anomaly.emissions import measure_training
from anomaly.errors import DataError
from training.arguments import RunArgs, flag, run
from training.finish import Split, already_done, finish, identity, pretrained, split_data
from training.loop import Recipe, fit
from training.pictures import Pictures

BASELINE = "baseline_cnn"
_CHUNK = 32  # pictures in a validation batch


@dataclass(frozen=True, kw_only=True)
class Args(RunArgs):
    image_size: int = flag("side that pictures are resized to", 224, least=32)
    width: float = flag("of baseline_cnn: multiplies every layer's channels", 1.0)
    batch_size: int = flag("pictures in a batch", 16, least=1)
    learning_rate: float | None = flag("by default 1e-3 from scratch and 3e-4 from given weights", None, least=0)
    pool: Literal["avg", "max", "avgmax"] | None = flag(
        "how the last feature map becomes a vector; max finds small defects that an average dilutes", None
    )
    member: str | None = flag("name in an inspector; by default classifier or baseline_cnn", None)


def main(args: Args) -> None:
    split = split_data(args)
    if already_done(args, split):
        return
    if not split.defects("train") or not split.defects("calibrate"):
        raise DataError(
            f"a classifier learns from labelled defects, and {args.data} has too few in its train folders "
            f"({len(split.defects('train'))} to train on, {len(split.defects('calibrate'))} to calibrate): "
            "put some into train/<defect>, or use a detector that needs good pictures only"
        )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(args.seed)
    with measure_training(args.country, args.cpu_power_w) as emissions:
        detector, weights = build(args, split.dataset.labels)
        detector.to(device)
        epochs = train(detector, args, split, device, frozen_norm=weights is not None)
    settings: dict[str, JsonValue] = {
        "architecture": _arch(args, weights),
        "image_size": args.image_size,
        "epochs": epochs,
    }
    settings |= {"width": args.width} if args.arch == BASELINE else {"pool": args.pool or "avg"}
    member = args.member or (BASELINE if args.arch == BASELINE else "classifier")
    finish(detector, member, args, split, emissions, backbone=weights.source if weights else None, settings=settings)


def build(args: Args, labels: tuple[str, ...]) -> tuple[TwoHeadDetector, Pretrained | None]:
    """The network, with the given weights if any. `--arch` alone starts from scratch."""
    size = (args.image_size, args.image_size)
    if args.arch == BASELINE:
        return BaselineCNN(BaselineCNNConfig(classes=labels, input_size=size, width=args.width)), None
    pooling: dict[str, JsonValue] = {"global_pool": args.pool} if args.pool else {}
    weights = pretrained(args, default="resnet18") if args.weights or args.backbone or not args.arch else None
    if weights is None:
        arch = _arch(args, None)
        return Classifier(ClassifierConfig(classes=labels, input_size=size, architecture=arch, arguments=pooling)), None
    if weights.library != "timm" or (args.arch and args.arch != weights.architecture):
        raise DataError(
            f"a classifier cannot start from {weights.source} ({weights.architecture}) with --arch {args.arch}: give "
            "weights of the same timm network, or --arch alone to train from scratch"
        )
    config = ClassifierConfig(
        classes=labels,
        input_size=size,
        mean=weights.mean,
        std=weights.std,
        architecture=weights.architecture,
        arguments=weights.arguments | pooling,
    )
    detector = Classifier(config)
    detector.net.load_state_dict(weights.state, strict=True)
    return detector, weights


def train(detector: TwoHeadDetector, args: Args, split: Split, device: torch.device, *, frozen_norm: bool) -> int:
    """Trains in place; returns the epochs it took."""
    pictures = Pictures(split.samples("train"), detector.config, "reading")
    validate = Pictures(split.samples("validate") or split.samples("train"), detector.config, "reading")
    classes = detector.config.classes
    weight = _class_weights([s.label for s in pictures.samples], classes).to(device)
    defects = len(split.defects("train"))
    positive = torch.tensor(len(split.good("train")) / defects, device=device)
    mean, std = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (detector.config.mean, detector.config.std))

    def loss_of(source: Pictures, indices: list[int], augment: bool) -> Tensor:
        images = source.batch(indices).to(device)
        labels = torch.tensor([classes.index(source.samples[i].label) for i in indices], device=device)
        if frozen_norm:
            _freeze_norm(detector)
        binary, types = detector.logits(((_augmented(images) if augment else images) - mean) / std)
        defect = (labels != classes.index(GOOD)).float()
        return 0.6 * F.binary_cross_entropy_with_logits(binary, defect, pos_weight=positive) + 0.4 * F.cross_entropy(
            types, labels, weight=weight
        )

    def validation_loss() -> float:
        starts = range(0, len(validate), _CHUNK)
        chunks = [list(range(start, min(start + _CHUNK, len(validate)))) for start in starts]
        return sum(loss_of(validate, chunk, False).item() * len(chunk) for chunk in chunks) / len(validate)

    rate = args.learning_rate or (3e-4 if frozen_norm else 1e-3)
    progress = fit(
        detector,
        lambda indices: loss_of(pictures, indices, True),
        validation_loss,
        count=len(pictures),
        recipe=Recipe(epochs=args.epochs or 50, batch_size=args.batch_size, learning_rate=rate),
        folder=args.out,
        seed=args.seed,
        identity=identity(args, split),
    )
    return progress.epoch


def _arch(args: Args, weights: Pretrained | None) -> str:
    return args.arch or (weights.architecture if weights else "resnet18")


def _class_weights(labels: list[str], classes: tuple[str, ...]) -> Tensor:
    """n / (k n_c); 0 for a class without a training picture."""
    counts = [labels.count(name) for name in classes]
    present = sum(count > 0 for count in counts)
    return torch.tensor([len(labels) / (present * count) if count else 0.0 for count in counts])


def _freeze_norm(detector: TwoHeadDetector) -> None:
    """Batch norm keeps the statistics that came with the weights: small batches would spoil them."""
    for module in detector.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()


def _augmented(images: Tensor) -> Tensor:
    """Each picture shifted by up to 5 %, turned by up to 10 degrees, its light changed by up to 15 %."""
    count = len(images)
    angle = (torch.rand(count) * 2 - 1) * (10 * torch.pi / 180)
    shift = (torch.rand(count, 2) * 2 - 1) * 0.1  # of the half side
    turn = torch.stack([angle.cos(), -angle.sin(), shift[:, 0], angle.sin(), angle.cos(), shift[:, 1]], dim=1)
    grid = F.affine_grid(turn.view(count, 2, 3).to(images), list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    gain = (1 + (torch.rand(count, 1, 1, 1) * 2 - 1) * 0.15).to(images)
    return (moved * gain).clamp(0, 1)


if __name__ == "__main__":
    sys.exit(run(main, Args))
