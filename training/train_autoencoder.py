"""Trains a convolutional autoencoder on good pictures only (anomaly/detectors/autoencoder.py)."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal

import torch
from pydantic import JsonValue
from torch import Tensor

from anomaly.backbones import Pretrained, make_trunk, patch_layers
from anomaly.datasets import Sample
from anomaly.detectors import Autoencoder, AutoencoderConfig
from anomaly.detectors.autoencoder import Perceptual, PerceptualConfig
from anomaly.emissions import measure_training
from anomaly.errors import DataError
from training.arguments import RunArgs, flag, run
from training.finish import Split, already_done, finish, identity, pretrained, split_data
from training.loop import Recipe, fit
from training.losses import reconstruction_loss
from training.otsu import otsu_settings
from training.pictures import Pictures, load

_CHUNK = 32  # pictures in a validation batch


@dataclass(frozen=True, kw_only=True)
class Args(RunArgs):
    recipe: Literal["light", "specialised"] | None = flag(
        "defaults of the flags below; by default light for several categories, specialised for one", None
    )
    image_size: int | None = flag("side that pictures are resized to; a multiple of 32", None, least=32)
    width: int | None = flag("channels of the first stage; the published network has 64", None, least=1)
    batch_size: int | None = flag("pictures in a batch", None, least=1)
    perceptual: float | None = flag("weight of the difference of the trunk's features in the loss", None, least=0)
    ssim: float | None = flag("weight of 1 - SSIM in the loss", None, least=0)
    heatmap: Literal["pixels", "perceptual"] | None = flag(
        "the squared error alone, or with the weighted difference of features if the loss has it", None
    )
    score: Literal["region", "mean"] | None = flag("mean of the map's largest hundredth, or of all of it", None)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a recipe decides."""

    image_size: int
    width: int
    epochs: int
    batch_size: int = 16
    perceptual: float = 0.0
    ssim: float = 0.0
    heatmap: Literal["pixels", "perceptual"] = "perceptual"  # where there is that term
    score: Literal["region", "mean"] = "region"


# Weight and map were chosen on good held-out MVTec transistors against the same with a patch pasted in (15 epochs,
# 128 px, width 16, MobileNetV2): AUROC .81 without features, .95 with weight 1 in loss and map. Features in the loss
# alone are worse than none (.56): the network then redraws what the trunk sees, and the pixels say little.
RECIPES = {
    "light": Settings(image_size=128, width=32, epochs=60),  # one for all categories
    "specialised": Settings(image_size=224, width=64, epochs=100, perceptual=1.0),  # for one, where a trunk is given
}


def main(args: Args) -> None:
    chosen = settings_of(args)
    split = split_data(args)
    if already_done(args, split):
        return
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with measure_training(args.country, args.cpu_power_w) as emissions:
        weights = pretrained(args) if chosen.perceptual else None
        perceptual = None if weights is None else perceptual_of(weights, chosen)
        judge = perceptual if chosen.heatmap == "perceptual" else None  # of the map; then the model holds it
        config = AutoencoderConfig(
            input_size=(chosen.image_size, chosen.image_size),
            width=chosen.width,
            score=chosen.score,
            perceptual=None if judge is None else judge.config,
        )
        torch.manual_seed(args.seed)
        detector = Autoencoder(config, judge).to(device)
        if perceptual is not None:
            perceptual.to(device)
        train = Pictures(split.good("train"), detector.config, "reading")
        validate = Pictures(split.good("validate") or split.good("train"), detector.config, "reading")

        def loss_of(pictures: Pictures, indices: list[int]) -> Tensor:
            images = pictures.batch(indices).to(device)
            return reconstruction_loss(images, detector.reconstruct(images), perceptual, chosen.ssim)

        def validation_loss() -> float:
            total = 0.0
            for start in range(0, len(validate), _CHUNK):
                indices = list(range(start, min(start + _CHUNK, len(validate))))
                total += loss_of(validate, indices).item() * len(indices)
            return total / len(validate)

        progress = fit(
            detector,
            lambda indices: loss_of(train, indices),
            validation_loss,
            count=len(train),
            recipe=Recipe(epochs=chosen.epochs, batch_size=chosen.batch_size),
            folder=args.out,
            seed=args.seed,
            identity=identity(args, split),
        )
    settings: dict[str, JsonValue] = {
        "image_size": chosen.image_size,
        "width": chosen.width,
        "epochs": progress.epoch,
        "batch_size": chosen.batch_size,
        "perceptual": chosen.perceptual,
        "ssim": chosen.ssim,
        "heatmap": chosen.heatmap,
        "score": chosen.score,
        **otsu(detector, split),
    }
    source = None if weights is None else weights.source
    finish(
        detector,
        "autoencoder",
        args,
        split,
        emissions,
        backbone=source,
        settings=settings,
        curve=progress.losses,
    )


def settings_of(args: Args) -> Settings:
    """The recipe's, each overruled by the flag of its name where that was given."""
    recipe = args.recipe or ("light" if args.category == "all" else "specialised")
    given = {field.name: getattr(args, field.name) for field in fields(Settings)}
    chosen = replace(RECIPES[recipe], **{name: value for name, value in given.items() if value is not None})
    if chosen.image_size % 32:
        raise DataError(f"--image-size must be a multiple of 32 for five stages, not {chosen.image_size}")
    if args.weights is None and args.backbone is None:
        if args.perceptual:
            raise DataError(f"--perceptual {args.perceptual} needs a trunk: give --weights FILE or --backbone NAME")
        chosen = replace(chosen, perceptual=0.0)
    if not chosen.perceptual:
        if args.heatmap == "perceptual":
            raise DataError("--heatmap perceptual needs a trunk (--weights or --backbone) and --perceptual above 0")
        chosen = replace(chosen, heatmap="pixels")
    return chosen


def perceptual_of(weights: Pretrained, chosen: Settings) -> Perceptual:
    """The trunk of these weights, comparing at the autoencoder's own size."""
    trunk = make_trunk(weights, patch_layers(make_trunk(weights).config))  # without the stages behind them
    config = PerceptualConfig(
        input_size=(chosen.image_size, chosen.image_size),
        mean=weights.mean,
        std=weights.std,
        trunk=trunk.config,
        use_layers=trunk.config.layers,
        weight=chosen.perceptual,
    )
    return Perceptual(config, trunk)


def otsu(detector: Autoencoder, split: Split) -> dict[str, JsonValue]:
    """Otsu's threshold of the calibration pictures, scored one by one as they will be served; said aloud."""
    detector = detector.cpu().eval()

    @torch.no_grad()
    def scores(samples: Sequence[Sample]) -> list[float]:
        return [detector.predict(load(sample.path)).scores.item() for sample in samples]

    found = {
        category: otsu_settings(
            scores(split.good("calibrate", category=category)), scores(split.defects("calibrate", category=category))
        )
        for category in split.categories
    }
    for category, settings in found.items():
        print(f"{category}: " + ", ".join(f"{name} {value}" for name, value in settings.items()))
    return {"otsu": {**found}} if len(found) > 1 else found[split.categories[0]]


if __name__ == "__main__":
    sys.exit(run(main, Args))
