"""Fits Gaussian statistics of trunk features on good pictures (anomaly/detectors/mahalanobis.py)."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
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
from training.finish import finish, is_done, pretrained, split_data
from training.pictures import batches

_VALUES = 600_000_000  # floats of features kept while fitting (2.4 GB): beyond it images are left out, evenly


@dataclass(frozen=True, kw_only=True)
class Args(RunArgs):
    pooling: Literal["position", "global"] = flag(
        "one Gaussian a position (PaDiM), or one of pooled features", "position"
    )
    image_size: int = flag("side that pictures are resized to", 256)
    max_channels: int = flag("at most this many channels a position, drawn at random (PaDiM)", 128)


def main(args: Args) -> None:
    split = split_data(args)
    if is_done(args, split):
        print(f"{args.out}: done already")
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


@torch.no_grad()
def features(config: MahalanobisConfig, trunk: Trunk, samples: Sequence[Sample]) -> list[dict[int, Tensor]]:
    """Maps of the layers it uses, by batch."""
    return [trunk(batch, config.use_layers) for batch in batches(samples, config, "features")]


def fit(config: MahalanobisConfig, trunk: Trunk, maps: Sequence[dict[int, Tensor]], args: Args) -> Mahalanobis:
    """Mean and whitening matrix at each position.

    The covariance is (1 - a) S + a m I: `a` is Ledoit and Wolf's shrinkage at the position, but m is the mean variance
    of all positions, not of this one. With its own m a flat patch of background, whose variance is near zero, is shrunk
    towards zero and calls every speck a defect.
    """
    from sklearn.covariance import ledoit_wolf_shrinkage

    vectors = torch.cat([pooled_features([m[layer] for layer in config.use_layers], config.pooling)[0] for m in maps])
    count, positions, channels = vectors.shape  # (N, P, C)
    chosen = torch.arange(channels)
    if config.pooling == "position" and channels > args.max_channels:
        drawn = torch.randperm(channels, generator=torch.Generator().manual_seed(args.seed))[: args.max_channels]
        chosen = drawn.sort().values
    keep = max(2, min(count, _VALUES // (positions * len(chosen))))
    vectors = vectors[torch.linspace(0, count - 1, keep).long()][:, :, chosen]
    mean = vectors.mean(dim=0)
    target = float((vectors - mean).square().mean())
    whitener = torch.empty(positions, len(chosen), len(chosen))
    identity = np.eye(len(chosen))
    for position in range(positions):
        x = vectors[:, position].double().numpy()
        shrinkage = ledoit_wolf_shrinkage(x)
        covariance = (1 - shrinkage) * np.cov(x.T, bias=True).reshape(identity.shape)
        covariance += max(shrinkage, 1e-6) * max(target, 1e-12) * identity
        whitener[position] = torch.from_numpy(np.linalg.inv(np.linalg.cholesky(covariance)))
    return Mahalanobis(config, trunk, mean, whitener, chosen)


if __name__ == "__main__":
    sys.exit(run(main, Args))
