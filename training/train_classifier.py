"""Trains a two-head classifier on labelled pictures: any timm network, or `--arch baseline_cnn`.

Plainly: binary cross-entropy on good or defective (weight 0.6) and cross-entropy on the class (weight 0.4), both
weighted by inverse class frequency, with label smoothing and MixUp (Zhang et al. 2018, arXiv 1710.09412). Training
pictures are augmented, more so in rare classes; given weights are fine-tuned in three phases.
"""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import JsonValue
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import v2

from anomaly.backbones import Pretrained, timm_model
from anomaly.detectors import BaselineCNN, BaselineCNNConfig, Classifier, ClassifierConfig
from anomaly.detectors.two_heads import TwoHeadDetector
from anomaly.emissions import measure_training
from anomaly.errors import DataError, ModelLoadError
from training.arguments import RunArgs, flag, run
from training.augment import augmentation, safe_transforms, target
from training.data import too_few_defects
from training.finish import Split, already_done, finish, identity, pretrained, split_data
from training.loop import Phase, Progress, Recipe, fit
from training.phases import FrozenMaps, fine_tuning, normalised, phase_lengths, trunk_is_frozen
from training.pictures import Pictures

BASELINE = "baseline_cnn"
_CHUNK = 32  # pictures in a validation batch


@dataclass(frozen=True, kw_only=True)
class Args(RunArgs):
    image_size: int = flag("side that pictures are resized to", 224, least=32)
    width: float = flag("of baseline_cnn: multiplies every layer's channels", 1.0)
    batch_size: int = flag("pictures in a batch", 16, least=1)
    learning_rate: float = flag("of the heads in the first phase, or of everything from scratch", 1e-3, least=0)
    pool: Literal["avg", "max", "avgmax"] | None = flag(
        "how the last feature map becomes a vector; max finds small defects that an average dilutes", None
    )
    head: Literal["plain", "attention"] = flag("what becomes of the last feature map before it is pooled", "plain")
    phases: tuple[int, ...] | None = flag(
        "of given weights: epochs of heads only, upper stages, everything; --epochs bounds their sum; "
        "by default 15 20 20, with a thousand pictures or more 6 6 12",
        None,
    )
    layer_decay: float = flag("of given weights: a stage's learning rate relative to that of the one above it", 0.8)
    drop_path: float | None = flag(
        "stochastic depth while training, for networks that have it; by default 0.2 for EfficientNet, else 0",
        None,
        least=0,
    )
    mixup: float = flag("alpha of MixUp, 0 for none", 0.2, least=0)
    smoothing: float = flag("of the labels", 0.1, least=0)
    transforms: tuple[str, ...] | None = flag(
        "of training pictures that leave their class what it is: names (training/augment.py), all or none; "
        "by default what is safe for the category",
        None,
    )
    strength: tuple[float, ...] = flag(
        "probability of each transform for common, rarer and rarest classes", (0.3, 0.6, 0.9)
    )
    oversampling: int = flag(
        "how often a rare class's picture may come in an epoch; 1 for no more than once", 4, least=1
    )
    member: str | None = flag("name in an inspector; by default classifier or baseline_cnn", None)


def main(args: Args) -> None:
    split = split_data(args)
    if already_done(args, split):
        return
    if lacking := too_few_defects(split, args.data):
        raise lacking
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(args.seed)
    with measure_training(args.country, args.cpu_power_w) as emissions:
        detector, weights = build(args, split.labels)
        detector.to(device)
        progress = train(detector, args, split, device, fine_tuned=weights is not None)
    settings: dict[str, JsonValue] = {
        "architecture": _arch(args, weights),
        "image_size": args.image_size,
        "epochs": progress.epoch,
        "phases": list(progress.phases),
        "head": args.head,
        "mixup": args.mixup,
        "smoothing": args.smoothing,
        "transforms": list(safe_transforms(args.transforms, split.categories)),
        "strength": list(args.strength),
        "oversampling": args.oversampling,
    }
    settings |= {"width": args.width} if args.arch == BASELINE else {"pool": args.pool or "avg"}
    finish(
        detector,
        args.member or (BASELINE if args.arch == BASELINE else "classifier"),
        args,
        split,
        emissions,
        backbone=weights.source if weights else None,
        settings=settings,
        curve=progress.losses,
    )


def build(args: Args, labels: tuple[str, ...]) -> tuple[TwoHeadDetector, Pretrained | None]:
    """The network, with the given weights if any. `--arch` alone starts from scratch."""
    size = (args.image_size, args.image_size)
    if args.arch == BASELINE:
        config = BaselineCNNConfig(classes=labels, input_size=size, width=args.width, head=args.head)
        return BaselineCNN(config), None
    pooling: dict[str, JsonValue] = {"global_pool": args.pool} if args.pool else {}
    weights = pretrained(args, default="resnet18") if args.weights or args.backbone or not args.arch else None
    if weights is None:
        arch = _arch(args, None)
        return _classifier(
            ClassifierConfig(classes=labels, input_size=size, architecture=arch, arguments=pooling, head=args.head),
            args.drop_path,
        ), None
    if weights.library != "timm" or (args.arch and args.arch != weights.architecture):
        raise DataError(
            f"a classifier cannot start from {weights.source} ({weights.architecture}) with --arch {args.arch}: give "
            "weights of the same timm network, or --arch alone to train from scratch"
        )
    detector = _classifier(
        ClassifierConfig(
            classes=labels,
            input_size=size,
            mean=weights.mean,
            std=weights.std,
            architecture=weights.architecture,
            arguments=weights.arguments | pooling,
            head=args.head,
        ),
        args.drop_path,
    )
    detector.net.load_state_dict(weights.state, strict=True)
    return detector, weights


def _classifier(config: ClassifierConfig, drop_path: float | None) -> Classifier:
    """With stochastic depth where the network has it. It has no tensors and does nothing at inference, so the config
    that is saved does not say so.

    By default EfficientNet alone, whose weights were trained with it: MobileNetV2 lost two epochs of five to it.
    """
    detector = Classifier(config)
    if drop_path is None:
        drop_path = 0.2 if config.architecture.startswith(("efficientnet", "tf_efficientnet")) else 0.0
    if drop_path:
        try:
            net = timm_model(config.architecture, config.arguments | {"drop_path_rate": drop_path}, num_classes=0)
        except ModelLoadError:  # VGG and DenseNet, for example
            return detector
        detector.net = net
    return detector


def train(detector: TwoHeadDetector, args: Args, split: Split, device: torch.device, *, fine_tuned: bool) -> Progress:
    """Trains in place."""
    pictures = Pictures(split.samples("train"), detector.config, "reading")
    validate = Pictures(split.samples("validate") or split.samples("train"), detector.config, "reading")
    classes = detector.config.classes
    counts = Counter(sample.label for sample in pictures.samples)
    targeting = target(counts, args.strength, args.oversampling)
    order = [i for i, sample in enumerate(pictures.samples) for _ in range(targeting.repeats[sample.label])]
    # of what comes in an epoch: a class that was repeated must not weigh twice
    type_weight = class_weights([classes.index(pictures.samples[i].label) for i in order], len(classes)).to(device)
    binary_weight = class_weights([int(pictures.samples[i].is_defect) for i in order], 2).to(device)
    names = safe_transforms(args.transforms, split.categories)
    augment = {label: augmentation(names, probability) for label, probability in targeting.probability.items()}
    mix = v2.MixUp(alpha=args.mixup, num_classes=len(classes)) if args.mixup else None
    maps = FrozenMaps(detector, pictures)
    keep_maps = fine_tuned and maps.fit_into_memory()

    def labels_of(source: Pictures, indices: Sequence[int]) -> Tensor:
        return torch.tensor([classes.index(source.samples[i].label) for i in indices], device=device)

    def loss_of(feature_maps: Tensor, target: Tensor, smoothing: float) -> Tensor:
        binary, types = detector.heads(detector.vector(feature_maps))
        return two_head_loss(binary, types, target, binary_weight, type_weight, smoothing)

    def feature_maps(images: Tensor) -> Tensor:
        return detector.feature_map(normalised(images, detector))

    def loss(positions: list[int]) -> Tensor:
        indices = [order[position] for position in positions]
        labels = labels_of(pictures, indices)
        from_maps = keep_maps and trunk_is_frozen(detector)
        if from_maps:
            pixels = maps.batch(indices).to(device)
        else:
            batch = zip(pictures.batch(indices).to(device), indices, strict=True)
            pixels = torch.stack([augment[pictures.samples[i].label](image) for image, i in batch])
        pixels, soft = mix(pixels, labels) if mix else (pixels, F.one_hot(labels, len(classes)))
        return loss_of(pixels if from_maps else feature_maps(pixels), soft.float(), args.smoothing)

    def validation_loss() -> float:
        total = 0.0
        for start in range(0, len(validate), _CHUNK):
            indices = range(start, min(start + _CHUNK, len(validate)))
            hard = F.one_hot(labels_of(validate, indices), len(classes)).float()
            total += loss_of(feature_maps(validate.batch(indices).to(device)), hard, 0.0).item() * len(indices)
        return total / len(validate)

    phases: list[Phase] = []
    if fine_tuned:
        lengths = phase_lengths(len(order), args.phases, args.epochs)
        phases = fine_tuning(detector, lengths, args.learning_rate, args.layer_decay)
    return fit(
        detector,
        loss,
        validation_loss,
        count=len(order),
        recipe=Recipe(
            epochs=args.epochs or 50,
            batch_size=args.batch_size,
            learning_rate=args.learning_rate,
            min_delta=1e-3,
            plateau=5,
            min_rate=1e-6,
            frozen_norm=fine_tuned,
        ),
        folder=args.out,
        seed=args.seed,
        identity=identity(args, split),
        phases=phases,
    )


def two_head_loss(
    binary: Tensor, types: Tensor, target: Tensor, binary_weight: Tensor, type_weight: Tensor, smoothing: float
) -> Tensor:
    """0.6 times the loss of the defect logit and 0.4 times that of the class logits.

    Args:
        binary: defect logits (B,).
        types: class logits (B, k), "good" first.
        target: share of each class in each picture (B, k), rows sum to 1; not a whole one after MixUp.
        binary_weight: of good and of defective (2,).
        type_weight: of each class (k,).
        smoothing: of the labels, 0..1.
    """
    binary, types = binary.float(), types.float()  # float16 under autocast
    defect = 1 - target[:, 0]
    binary_loss = _cross_entropy(
        torch.stack([F.logsigmoid(-binary), F.logsigmoid(binary)], dim=1),
        torch.stack([1 - defect, defect], dim=1),
        binary_weight,
        smoothing,
    )
    return 0.6 * binary_loss + 0.4 * _cross_entropy(types.log_softmax(dim=1), target, type_weight, smoothing)


def _cross_entropy(log_p: Tensor, target: Tensor, weight: Tensor, smoothing: float) -> Tensor:
    """Mean over the batch of sum_c t_c w_c ((1 - s)(-log p_c) + s mean_k(-log p_k)): linear in the soft label t."""
    smoothed = (1 - smoothing) * log_p + smoothing * log_p.mean(dim=1, keepdim=True)
    return -(target * weight * smoothed).sum(dim=1).mean()


def class_weights(labels: Sequence[int], classes: int) -> Tensor:
    """n / (k n_c) of each class, with k the classes that have pictures; 0 for one that has none."""
    counts = torch.bincount(torch.tensor(labels), minlength=classes)
    weights = len(labels) / ((counts > 0).sum() * counts)
    return torch.where(counts > 0, weights, 0.0)


def _arch(args: Args, weights: Pretrained | None) -> str:
    return args.arch or (weights.architecture if weights else "resnet18")


if __name__ == "__main__":
    sys.exit(run(main, Args))
