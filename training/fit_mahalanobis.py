"""Fits Gaussian statistics of trunk features on good pictures (anomaly/detectors/mahalanobis.py)."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from anomaly.backbones import Pretrained, Trunk, make_trunk, patch_layers
from anomaly.datasets import Sample
from anomaly.detectors import Mahalanobis, MahalanobisConfig
from anomaly.detectors.mahalanobis import pooled_features
from anomaly.emissions import measure_training
from training.arguments import RunArgs, flag, run
from training.finish import already_done, finish, pretrained, split_data
from training.pictures import batches

_VALUES = 300_000_000  # floats of features kept while fitting (1.2 GB, for a moment twice that)


@dataclass(frozen=True, kw_only=True)
class Args(RunArgs):
    pooling: Literal["position", "global"] = flag(
        "one Gaussian a position (PaDiM), or one of pooled features", "position"
    )
    image_size: int = flag("side that pictures are resized to", 256, least=32)
    max_channels: int = flag("at most this many channels a position, drawn at random (PaDiM)", 128, least=1)


def main(args: Args) -> None:
    split = split_data(args)
    if already_done(args, split):
        return
    with measure_training(args.country, args.cpu_power_w) as emissions:
        weights = pretrained(args, default="resnet18")
        trunk = make_trunk(weights)
        config = trunk_config(args, weights, trunk)
        detector = fit(config, trunk, features(config, trunk, split.good("train", "validate")), args)
    member = "mahalanobis" if args.pooling == "position" else "mahalanobis_global"
    settings = {"pooling": args.pooling, "image_size": args.image_size, "channels": len(detector.channels)}
    finish(detector, member, args, split, emissions, backbone=weights.source, settings=settings)


def trunk_config(args: Args, weights: Pretrained, trunk: Trunk) -> MahalanobisConfig:
    """Patches come from the middle layers, a pooled vector from all of them."""
    layers = patch_layers(trunk.config) if args.pooling == "position" else trunk.config.layers
    return MahalanobisConfig(
        input_size=(args.image_size, args.image_size),
        mean=weights.mean,
        std=weights.std,
        trunk=trunk.config,
        use_layers=layers,
        pooling=args.pooling,
    )


def features(config: MahalanobisConfig, trunk: Trunk, samples: Sequence[Sample]) -> Iterator[Tensor]:
    """(P, C) of each picture, one batch of them in memory at a time."""
    for batch in batches(samples, config, "features"):
        with torch.no_grad():
            maps = trunk(batch, config.use_layers)
        yield from pooled_features([maps[layer] for layer in config.use_layers], config.pooling)[0]


def fit(config: MahalanobisConfig, trunk: Trunk, vectors: Iterable[Tensor], args: Args) -> Mahalanobis:
    """Mean and whitening matrix at each position.

    The covariance is (1 - a) S + a m I: `a` is Ledoit and Wolf's shrinkage at the position, but m is the mean variance
    of all positions, not of this one. With its own m a flat patch of background, whose variance is near zero, is shrunk
    towards zero and calls every speck a defect.
    """
    from sklearn.covariance import ledoit_wolf_shrinkage

    first = next(stream := iter(vectors))
    chosen = torch.arange(first.shape[1])
    if config.pooling == "position" and len(chosen) > args.max_channels:
        drawn = torch.randperm(len(chosen), generator=torch.Generator().manual_seed(args.seed))[: args.max_channels]
        chosen = drawn.sort().values
    kept = thinned((vector[:, chosen] for vector in chain([first], stream)), _VALUES)  # (N, P, d)
    mean = kept.mean(dim=0)
    target = float((kept - mean).square().mean())
    whitener = torch.empty(len(mean), len(chosen), len(chosen))
    identity = np.eye(len(chosen))
    for position in range(len(mean)):
        x = kept[:, position].double().numpy()
        # where nothing varies at all (a black background) it is 0 / 0, and scikit-learn says 0
        shrinkage = 1.0 if (x == x[0]).all() else ledoit_wolf_shrinkage(x)
        covariance = (1 - shrinkage) * np.cov(x.T, bias=True).reshape(identity.shape)
        covariance += max(shrinkage, 1e-6) * max(target, 1e-12) * identity
        whitener[position] = torch.from_numpy(np.linalg.inv(np.linalg.cholesky(covariance)))
    return Mahalanobis(config, trunk, mean, whitener, chosen)


def thinned(tensors: Iterable[Tensor], values: int) -> Tensor:
    """Stacks them. Beyond this many floats only every second, fourth, ... one is kept."""
    kept: list[Tensor] = []
    step = 1
    for index, tensor in enumerate(tensors):
        if index % step == 0:
            kept.append(tensor)
        if len(kept) > 2 and len(kept) * tensor.numel() > values:
            kept, step = kept[::2], 2 * step
    return torch.stack(kept)


if __name__ == "__main__":
    sys.exit(run(main, Args))
