"""Fills a patch memory from good pictures and thins it to a coreset (anomaly/detectors/patch_knn.py)."""

import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import trange

from anomaly.backbones import Pretrained, Trunk, make_trunk, patch_layers
from anomaly.datasets import Sample
from anomaly.detectors import PatchKNN, PatchKNNConfig
from anomaly.detectors.patches import patch_features
from anomaly.emissions import measure_training
from anomaly.errors import DataError
from training.arguments import RunArgs, flag, run
from training.finish import already_done, finish, pretrained, split_data
from training.pictures import batches

_PROJECTED = 64  # dimensions that distances are compared in while choosing (Johnson-Lindenstrauss, as in the paper)


@dataclass(frozen=True, kw_only=True)
class Args(RunArgs):
    image_size: int = flag("side that pictures are resized to", 256, least=32)
    coreset: float = flag("share of the patches to keep", 0.01)
    max_candidates: int = flag(
        "patches held while fitting; beyond it an even random sample (reservoir)", 60_000, least=1
    )
    max_memory: int = flag("patches kept at the most, whatever the share", 10_000, least=1)


def main(args: Args) -> None:
    if not 0 < args.coreset <= 1:
        raise DataError(f"--coreset must lie in (0, 1], not {args.coreset}")
    split = split_data(args)
    if already_done(args, split):
        return
    with measure_training(args.country, args.cpu_power_w) as emissions:
        weights = pretrained(args, default="resnet18")
        trunk = make_trunk(weights)
        config = knn_config(args, weights, trunk)
        detector = fit(config, trunk, features(config, trunk, split.good("train", "validate")), args)
    settings = {"image_size": args.image_size, "coreset": args.coreset, "memory": len(detector.memory)}
    finish(detector, "patch_knn", args, split, emissions, backbone=weights.source, settings=settings)


def knn_config(args: Args, weights: Pretrained, trunk: Trunk) -> PatchKNNConfig:
    return PatchKNNConfig(
        input_size=(args.image_size, args.image_size),
        mean=weights.mean,
        std=weights.std,
        trunk=trunk.config,
        use_layers=patch_layers(trunk.config),
    )


def features(config: PatchKNNConfig, trunk: Trunk, samples: Sequence[Sample]) -> Iterable[dict[int, Tensor]]:
    """Maps by batch, one batch in memory at a time."""
    for batch in batches(samples, config, "features"):
        with torch.no_grad():
            yield trunk(batch, config.use_layers)


def fit(config: PatchKNNConfig, trunk: Trunk, maps: Iterable[dict[int, Tensor]], args: Args) -> PatchKNN:
    """Memory bank of a share of all patches, chosen by greedy k-center from a bounded sample of them."""
    generator = torch.Generator().manual_seed(args.seed)
    candidates, seen = reservoir(
        (patch_features([m[layer] for layer in config.use_layers]).flatten(2).mT.flatten(0, 1) for m in maps),
        args.max_candidates,
        generator,
    )
    size = min(max(1, math.ceil(args.coreset * seen)), args.max_memory, len(candidates))
    projection = torch.randn(candidates.shape[1], _PROJECTED, generator=generator) / math.sqrt(_PROJECTED)
    chosen = k_center(candidates @ projection, size, generator)
    return PatchKNN(config, trunk, candidates[chosen].contiguous())


def reservoir(patches: Iterable[Tensor], size: int, generator: torch.Generator) -> tuple[Tensor, int]:
    """An even random sample of a stream of rows, and how many there were (Vitter 1985, algorithm R, by blocks)."""
    kept = torch.empty(0)
    seen = 0
    for rows in patches:
        if seen == 0:
            kept = torch.empty(size, rows.shape[1])
        room = max(0, min(size - seen, len(rows)))
        kept[seen : seen + room] = rows[:room]
        late = rows[room:]
        if len(late):
            ranks = torch.arange(seen + room, seen + len(rows))  # the i-th row replaces a random one of i + 1
            places = (torch.rand(len(late), generator=generator, dtype=torch.float64) * (ranks + 1)).long()
            for row, place in zip(late[places < size], places[places < size].tolist(), strict=True):
                kept[place] = row
        seen += len(rows)
    return kept[: min(seen, size)], seen


def k_center(points: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Greedy k-center: each next one is the point farthest from all that were chosen (Sener & Savarese 2018, alg. 1).

    Args:
        points: (N, d).
        size: how many to choose.
        generator: for the first one.

    Returns:
        (size,) int64, indices.
    """
    norms = points.square().sum(dim=1)
    nearest = torch.full((len(points),), torch.inf)
    chosen = torch.empty(size, dtype=torch.int64)
    chosen[0] = torch.randint(len(points), (1,), generator=generator)
    for step in trange(1, size, desc="coreset", unit="patch", leave=False, disable=None):
        last = int(chosen[step - 1])
        # |a - b|^2 without the root: the order is the same
        squared = torch.addmv(norms, points, points[last], alpha=-2).add_(norms[last])
        torch.minimum(nearest, squared, out=nearest)
        nearest[last] = -torch.inf  # rounding must not choose it twice
        chosen[step] = nearest.argmax()
    return chosen


if __name__ == "__main__":
    sys.exit(run(main, Args))
