"""Fills a patch memory from good pictures and thins it to a coreset (anomaly/detectors/patch_knn.py)."""

import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import torch
from pydantic import JsonValue
from torch import Tensor

from anomaly.backbones import Pretrained, Trunk, patch_layers, whole_patches
from anomaly.detectors import PatchKNN, PatchKNNConfig
from anomaly.detectors.patch_knn import to_space
from anomaly.detectors.patches import patch_features
from anomaly.emissions import measure_training
from anomaly.errors import DataError
from training.arguments import RunArgs, flag, run
from training.coreset import coreset, reservoir, whitening
from training.finish import already_done, finish, pretrained, split_data
from training.fitting import maps_of, trunk_with

_CANDIDATE_BYTES = 400_000_000
_SHARE = 0.01  # of the patches; with few pictures that would be a handful, so all are kept


@dataclass(frozen=True, kw_only=True)
class Args(RunArgs):
    preset: Literal["patchcore", "anomalydino"] | None = flag(
        "patchcore: Euclidean distance, 3x3 averages, 256 px; anomalydino: cosine distance, plain tokens, 448 px, "
        "every patch kept; by default anomalydino for a ViT, patchcore for a CNN",
        None,
    )
    image_size: int | None = flag("side that pictures are resized to, by default the preset's", None, least=32)
    layers: tuple[int, ...] | None = flag(
        "of the trunk; by default strides 8 and 16 of a CNN, a ViT's last block", None
    )
    whiten: bool = flag("compare patches behind a PCA whitening (Mahalanobis PatchCore)", False)
    score: Literal["top", "max", "reweighted"] = flag(
        "of the picture: mean of the largest 1 %% of patch distances, the largest, or PatchCore's eq. 7", "top"
    )
    rotations: int = flag(
        "turned copies of each picture, 1: none; 8 as AnomalyDINO where parts lie any way", 1, least=1
    )
    coreset: float | None = flag(
        f"share of the patches to keep; by default {_SHARE}, and all with --shots or anomalydino", None
    )
    max_candidates: int = flag(
        "patches held while fitting, 400 MB at most; beyond it an even random sample (reservoir)", 200_000, least=1
    )
    max_memory: int = flag("patches kept at the most, whatever the share", 10_000, least=1)


def main(args: Args) -> None:
    if args.coreset is not None and not 0 < args.coreset <= 1:
        raise DataError(f"--coreset must lie in (0, 1], not {args.coreset}")
    split = split_data(args)
    if already_done(args, split):
        return
    with measure_training(args.country, args.cpu_power_w) as emissions:
        weights = pretrained(args, default="resnet18")
        trunk = trunk_with(weights, args.layers)
        config = knn_config(args, weights, trunk)
        good = split.good("train", "validate")
        detector = fit(config, trunk, maps_of(trunk, config, config.use_layers, good, args.rotations), args)
    settings: dict[str, JsonValue] = {
        "image_size": config.input_size[0],
        "layers": list(config.use_layers),
        "metric": config.metric,
        "score": config.score,
        "whitened": config.whitened,
        "rotations": args.rotations,
        "coreset": kept_share(args, trunk),
        "memory": len(detector.memory),
    }
    finish(detector, "patch_knn", args, split, emissions, backbone=weights.source, settings=settings)


def knn_config(args: Args, weights: Pretrained, trunk: Trunk) -> PatchKNNConfig:
    """What the preset says, and what was asked for instead."""
    dino = is_dino(args, trunk)
    side = whole_patches(trunk, args.image_size or (448 if dino else 256))
    return PatchKNNConfig(
        input_size=(side, side),
        mean=weights.mean,
        std=weights.std,
        trunk=trunk.config,
        use_layers=args.layers or patch_layers(trunk.config),
        window=1 if dino else 3,
        whitened=args.whiten,
        metric="cosine" if dino else "euclidean",
        score=args.score,
    )


def is_dino(args: Args, trunk: Trunk) -> bool:
    """Whether patches are compared as AnomalyDINO does."""
    return args.preset == "anomalydino" or (args.preset is None and trunk.config.library == "transformers")


def kept_share(args: Args, trunk: Trunk) -> float:
    """Of the patches; of a few pictures every one counts."""
    return args.coreset or (1.0 if args.shots or is_dino(args, trunk) else _SHARE)


def most_candidates(args: Args, channels: int) -> int:
    """Patches of so many channels that may be held while fitting."""
    return min(args.max_candidates, _CANDIDATE_BYTES // (4 * channels))


def fit(config: PatchKNNConfig, trunk: Trunk, maps: Iterable[dict[int, Tensor]], args: Args) -> PatchKNN:
    """Memory bank of a share of all patches, chosen by greedy k-center from a bounded sample of them."""
    generator = torch.Generator().manual_seed(args.seed)
    each = (patch_features([m[layer] for layer in config.use_layers], config.window) for m in maps)
    first = next(patches := (found.flatten(2).mT.flatten(0, 1) for found in each))
    candidates, seen = reservoir(chain([first], patches), most_candidates(args, first.shape[1]), generator)
    behind = whitening(candidates) if config.whitened else None
    points = to_space(candidates, config.metric, behind)
    size = min(max(1, math.ceil(kept_share(args, trunk) * seen)), args.max_memory, len(points))
    memory = points[coreset(points, size, generator)] if size < len(points) else points
    return PatchKNN(config, trunk, memory.contiguous(), *(behind or ()))


if __name__ == "__main__":
    sys.exit(run(main, Args))
