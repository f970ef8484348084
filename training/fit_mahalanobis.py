"""Fits Gaussian statistics of trunk features on good pictures (anomaly/detectors/mahalanobis.py)."""

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import torch
from pydantic import JsonValue
from torch import Tensor

from anomaly.backbones import Pretrained, Trunk, patch_layers, whole_patches
from anomaly.detectors import Mahalanobis, MahalanobisConfig
from anomaly.detectors.mahalanobis import pooled_features
from anomaly.emissions import measure_training
from training.arguments import RunArgs, flag, run
from training.finish import already_done, finish, pretrained, split_data
from training.fitting import maps_of, trunk_with
from training.gaussians import gaussians, thinned

_VALUES = 100_000_000  # floats of features kept while fitting: 400 MB, 760 pictures of 256 px and 128 channels


@dataclass(frozen=True, kw_only=True)
class Args(RunArgs):
    pooling: Literal["position", "global"] = flag(
        "one Gaussian a position (PaDiM), or one of pooled features", "position"
    )
    image_size: int = flag("side that pictures are resized to", 256, least=32)
    layers: tuple[int, ...] | None = flag(
        "of the trunk; by default strides 8 and 16 of a CNN with position, all with global; a ViT's last block", None
    )
    max_channels: int = flag("at most this many channels a position, drawn at random (PaDiM)", 128, least=1)


def main(args: Args) -> None:
    split = split_data(args)
    if already_done(args, split):
        return
    with measure_training(args.country, args.cpu_power_w) as emissions:
        weights = pretrained(args, default="resnet18")
        trunk = trunk_with(weights, args.layers)
        config = trunk_config(args, weights, trunk, split.categories)
        good = [split.good("train", "validate", category=category) for category in split.categories]
        each = (vectors(config, maps_of(trunk, config, config.use_layers, samples)) for samples in good)
        detector = fit(config, trunk, each, args)
    member = "mahalanobis" if args.pooling == "position" else "mahalanobis_global"
    settings: dict[str, JsonValue] = {
        "pooling": args.pooling,
        "image_size": config.input_size[0],
        "layers": list(config.use_layers),
        "channels": len(detector.channels),
    }
    finish(detector, member, args, split, emissions, backbone=weights.source, settings=settings)


def trunk_config(args: Args, weights: Pretrained, trunk: Trunk, categories: tuple[str, ...]) -> MahalanobisConfig:
    """Patches come from the middle layers, a pooled vector from all of them."""
    layers = patch_layers(trunk.config) if args.pooling == "position" else trunk.config.layers
    side = whole_patches(trunk, args.image_size)
    return MahalanobisConfig(
        input_size=(side, side),
        mean=weights.mean,
        std=weights.std,
        trunk=trunk.config,
        use_layers=args.layers or layers,
        pooling=args.pooling,
        categories=categories if len(categories) > 1 else (),
    )


def vectors(config: MahalanobisConfig, maps: Iterable[dict[int, Tensor]]) -> Iterator[Tensor]:
    """(P, C) of each picture."""
    for batch in maps:
        yield from pooled_features([batch[layer] for layer in config.use_layers], config.pooling)[0]


def fit(config: MahalanobisConfig, trunk: Trunk, categories: Iterable[Iterable[Tensor]], args: Args) -> Mahalanobis:
    """A Gaussian at each position for each category, all of the same channels.

    Args:
        config: settings.
        trunk: that the vectors come from.
        categories: (P, C) of each picture of each category, in the order of config.categories; one where that is ().
        args: seed and the number of channels.
    """
    chosen = torch.empty(0, dtype=torch.int64)
    found = []
    for pictures in categories:
        first = next(stream := iter(pictures))
        if not len(chosen):
            chosen = channels(first.shape[1], args.max_channels if config.pooling == "position" else None, args.seed)
        found.append(gaussians(thinned((picture[:, chosen] for picture in chain([first], stream)), _VALUES)))
    means, whiteners = zip(*found, strict=True)
    if config.categories:
        return Mahalanobis(config, trunk, torch.stack(means), torch.stack(whiteners), chosen)
    return Mahalanobis(config, trunk, means[0], whiteners[0], chosen)


def channels(count: int, most: int | None, seed: int) -> Tensor:
    """(d,) int64: all, or as many as allowed, drawn at random (PaDiM, section III-B), in ascending order."""
    if most is None or count <= most:
        return torch.arange(count)
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:most].sort().values


if __name__ == "__main__":
    sys.exit(run(main, Args))
