"""Trains a localiser (anomaly/detectors/localiser.py) on pictures whose defects are marked: box files, or masks whose
components become boxes. Good pictures are background.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from pydantic import JsonValue
from torch import Tensor

from anomaly.backbones import Pretrained, default_layers, make_trunk
from anomaly.datasets import Sample
from anomaly.detectors import Localiser, LocaliserConfig
from anomaly.emissions import measure_training
from anomaly.errors import DataError
from training.arguments import RunArgs, flag, run
from training.box_data import BoxedPictures, Symmetries, Truth, truth
from training.coco import coco_config, coco_file, load_coco
from training.data import Split, split_data
from training.finish import already_done, finish, identity, pretrained
from training.loop import Phase, Progress, Recipe, fit
from training.manifest import SplitName


@dataclass(frozen=True, kw_only=True)
class Args(RunArgs):
    image_size: int = flag("side that pictures are resized to; a multiple of 32", 640, least=64)
    crop: int = flag("side of the training crops, in pixels of the resized picture; a multiple of 32", 320, least=64)
    crops: int = flag("of each marked picture in an epoch", 4, least=1)
    good_share: float = flag("of the crops that show a good picture", 0.2, least=0)
    symmetries: Symmetries = flag(
        "what training pictures are turned into: flips (left-right, up-down), all eight symmetries of a square, or "
        "none where a flip makes another defect, such as swapped wires",
        "flips",
    )
    coco: bool = flag(
        "start from torchvision's FCOS (a ResNet-50 trained on COCO), which torch's cache must hold; slow on a CPU",
        False,
    )
    channels: int = flag("of the pyramid and the heads; a multiple of 32", 96, least=32)
    convolutions: int = flag("of each head", 2, least=1)
    batch_size: int = flag("crops in a batch", 4, least=1)
    learning_rate: float = flag("of the pyramid, the heads and the trunk", 5e-4, least=0)
    patience: int = flag("epochs without a better validation loss", 10, least=0)
    box_labels: tuple[str, ...] = flag("names of type 1, 2, ... in box files; by default those of boxes/labels.txt", ())


def main(args: Args) -> None:
    for name, side in (("--image-size", args.image_size), ("--crop", args.crop)):
        if side % 32:
            raise DataError(f"{name} must be a multiple of 32, the coarsest stride, not {side}")
    split = split_data(args)
    if already_done(args, split):
        return
    marked = [sample for sample in split.defects("train") if sample.boxes or sample.mask]
    if not marked:
        raise DataError(
            f"a localiser learns from marked defects, and none of the {len(split.defects('train'))} to train on has "
            "boxes or a mask: give boxes/<class>/<stem>.txt, ground_truth_train/<class>/<stem>_mask.png, or "
            "--protocol supervised where only test defects are marked"
        )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(args.seed)
    with measure_training(args.country, args.cpu_power_w) as emissions:
        train, validate = (_marked(split, part, args) for part in ("train", "validate"))
        classes = tuple(sorted({label for found in train.values() for label in found.labels}))
        if not classes:
            raise DataError(f"the boxes and masks of {len(marked)} defects to train on are all empty")
        detector, source = build(args, classes)
        progress = fitted(detector.to(device), train, validate or train, args, split, frozen_norm=source is not None)
    settings: dict[str, JsonValue] = {
        "architecture": detector.config.architecture,
        "image_size": args.image_size,
        "crop": args.crop,
        "symmetries": args.symmetries,
        "epochs": progress.epoch,
        "boxes": sum(len(found.labels) for found in train.values()),
        "classes": list(classes),
    }
    settings |= {"box_labels": list(args.box_labels)} if args.box_labels else {}
    finish(
        detector,
        "localiser",
        args,
        split,
        emissions,
        backbone=source,
        settings=settings,
        curve=progress.losses,
    )


def build(args: Args, classes: tuple[str, ...]) -> tuple[Localiser, str | None]:
    """The network on the given trunk, and where that is from; `--arch` alone starts from scratch."""
    if args.coco:
        if args.weights or args.backbone or args.arch:
            raise DataError("--coco brings its own trunk: leave --weights, --backbone and --arch out")
        file = coco_file()
        detector = Localiser(coco_config(classes, args.image_size))
        load_coco(detector, file)
        return detector, file.name
    weights = pretrained(args, default="resnet18") if args.weights or args.backbone or not args.arch else None
    if weights is not None and (weights.library != "timm" or (args.arch and args.arch != weights.architecture)):
        raise DataError(
            f"a localiser cannot start from {weights.source} ({weights.architecture}) with --arch {args.arch}: give "
            "weights of that timm network, or --arch alone to train from scratch"
        )
    blank = Pretrained("timm", str(args.arch), {}, {}, *_PLAIN, (args.image_size, args.image_size), "")
    source = weights or blank
    layers = default_layers(source)
    config = LocaliserConfig(
        input_size=(args.image_size, args.image_size),
        mean=source.mean,
        std=source.std,
        labels=classes,
        architecture=source.architecture,
        arguments=source.arguments,
        layers=layers,
        channels=args.channels,
        convolutions=args.convolutions,
    )
    detector = Localiser(config)
    if weights is not None:
        detector.fcos.backbone.trunk.load_state_dict(make_trunk(weights, layers).net.state_dict(), strict=True)
    return detector, weights.source if weights else None


_PLAIN = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))  # mean and std where no weights ask for others


def fitted(
    detector: Localiser,
    train: Mapping[Sample, Truth],
    validate: Mapping[Sample, Truth],
    args: Args,
    split: Split,
    *,
    frozen_norm: bool,
) -> Progress:
    """Trains in place."""
    config = detector.config
    device = next(detector.parameters()).device
    pictures = BoxedPictures(list(train), list(train.values()), config, config.labels)
    checked = BoxedPictures(list(validate), list(validate.values()), config, config.labels)
    mean, std = (torch.tensor(value, device=device).view(1, 3, 1, 1) for value in (config.mean, config.std))

    def loss_of(images: Tensor, targets: Sequence[Mapping[str, Tensor]]) -> Tensor:
        there = [{name: value.to(device) for name, value in target.items()} for target in targets]
        return detector.detection_loss((images.to(device) - mean) / std, there)

    def loss(indices: list[int]) -> Tensor:
        chosen = [index % len(pictures.marked) for index in indices]
        images, targets = pictures.crops(chosen, args.crop, args.symmetries, args.good_share)
        gain = 1 + (torch.rand(len(images), 1, 1, 1) * 2 - 1) * 0.15
        return loss_of((images * gain).clamp(0, 1), targets)

    def validation_loss() -> float:
        # FCOS divides by the places that are defective: a batch of good pictures alone would weigh far too much
        pairs = [[index, *checked.good[i : i + 1]] for i, index in enumerate(checked.marked)]
        return sum(loss_of(*checked.whole(pair)).item() for pair in pairs) / len(pairs)

    epochs = args.epochs or 40
    rates = {name: args.learning_rate for name, _ in detector.named_parameters()}
    cool = {name: rate / 10 for name, rate in rates.items()}
    return fit(
        detector,
        loss,
        validation_loss,
        count=len(pictures.marked) * args.crops,
        recipe=Recipe(
            epochs=epochs,
            batch_size=args.batch_size,
            learning_rate=args.learning_rate,
            patience=args.patience,
            frozen_norm=frozen_norm,
        ),
        folder=args.out,
        seed=args.seed,
        identity=identity(args, split),
        # the usual schedule of detectors: the last quarter at a tenth of the rate, from the best weights
        phases=[Phase("training", epochs - epochs // 4, rates), Phase("cooling", epochs // 4, cool)],
    )


def _marked(split: Split, part: SplitName, args: Args) -> dict[Sample, Truth]:
    """Good pictures and marked defects of a part; empty where nothing is marked."""
    samples = [s for s in split.samples(part) if not s.is_defect or s.boxes or s.mask]
    found = {sample: truth(sample, args.box_labels) for sample in samples}
    return found if any(len(marks.labels) for marks in found.values()) else {}


if __name__ == "__main__":
    sys.exit(run(main, Args))
