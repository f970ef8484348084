"""Trains a convolutional autoencoder on good pictures only (anomaly/detectors/autoencoder.py)."""

import sys
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from anomaly.detectors import Autoencoder, AutoencoderConfig
from anomaly.emissions import measure_training
from anomaly.errors import DataError
from training.arguments import RunArgs, flag, run
from training.finish import already_done, finish, identity, split_data
from training.loop import Recipe, fit
from training.pictures import Pictures

_CHUNK = 32  # pictures in a validation batch


@dataclass(frozen=True, kw_only=True)
class Args(RunArgs):
    image_size: int = flag("side that pictures are resized to; a multiple of 32", 224, least=32)
    width: int = flag("channels of the first stage; the published network has 64", 64, least=1)
    batch_size: int = flag("pictures in a batch", 16, least=1)


def main(args: Args) -> None:
    if args.image_size % 32:
        raise DataError(f"--image-size must be a multiple of 32 for five stages, not {args.image_size}")
    split = split_data(args)
    if already_done(args, split):
        return
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(args.seed)
    detector = Autoencoder(AutoencoderConfig(input_size=(args.image_size, args.image_size), width=args.width)).to(
        device
    )
    with measure_training(args.country, args.cpu_power_w) as emissions:
        train = Pictures(split.good("train"), detector.config, "reading")
        validate = Pictures(split.good("validate") or split.good("train"), detector.config, "reading")

        def loss(indices: list[int]) -> Tensor:
            images = train.batch(indices).to(device)
            return F.mse_loss(detector.reconstruct(images), images)

        def validation_loss() -> float:
            total = 0.0
            for start in range(0, len(validate), _CHUNK):
                images = validate.batch(range(start, min(start + _CHUNK, len(validate)))).to(device)
                total += F.mse_loss(detector.reconstruct(images), images).item() * len(images)
            return total / len(validate)

        recipe = Recipe(epochs=args.epochs or 100, batch_size=args.batch_size)
        progress = fit(
            detector,
            loss,
            validation_loss,
            count=len(train),
            recipe=recipe,
            folder=args.out,
            seed=args.seed,
            identity=identity(args, split),
        )
    settings = {"image_size": args.image_size, "width": args.width, "epochs": progress.epoch}
    finish(detector, "autoencoder", args, split, emissions, backbone=None, settings=settings)


if __name__ == "__main__":
    sys.exit(run(main, Args))
