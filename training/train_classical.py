"""Trains a support vector machine, a random forest or boosted trees on the pooled features of a frozen trunk.

Plainly: features are standardised, classes weighted by inverse frequency. Of the SVM, C and the temperature of its
class probabilities come from cross-validation on the training pictures, without regard to groups: pictures of one part
may be on both sides of a fold. There is nothing to resume: the same data, settings and seed give the same model again.
"""

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import JsonValue
from torch import Tensor
from torch.nn import functional as F

from anomaly.backbones import Pretrained, Trunk, default_layers, make_trunk
from anomaly.datasets import Sample
from anomaly.detectors import Classical, ClassicalConfig
from anomaly.detectors.classical import Head, HeadName, pooled
from anomaly.emissions import measure_training
from training.arguments import RunArgs, flag, run
from training.classical_tensors import boosted_tensors, forest_tensors, support_vectors
from training.data import too_few_defects
from training.finish import already_done, finish, pretrained, split_data
from training.pictures import batches

if TYPE_CHECKING:
    from sklearn.svm import SVC

Floats = NDArray[np.float32]
Labels = NDArray[np.int64]

_FOLDS = 5
_COSTS = (1.0, 10.0, 100.0)
_TEMPERATURES = np.geomspace(0.01, 10, 61)
_TREES = {"forest": 500, "xgboost": 300}
_DEPTH = {"forest": None, "xgboost": 4}


@dataclass(frozen=True, kw_only=True)
class Args(RunArgs):
    head: HeadName = flag("what stands on the features")
    image_size: int = flag("side that pictures are resized to", 224, least=32)
    layers: tuple[int, ...] | None = flag("of the trunk; by default all that it shares with other detectors", None)
    pooling: tuple[str, ...] = flag(
        "over positions: mean, max, std, one or several; max and std see small defects", ("mean", "std")
    )
    copies: Literal["none", "flips", "dihedral"] = flag(
        "also train on mirrored (flips: 4 in all) and turned (dihedral: 8) pictures, where a part so turned is as good",
        "none",
    )
    C: float | None = flag("of svm; by default the best of 1, 10, 100 in cross-validation", None, least=1e-6)
    gamma: float | None = flag("of svm; by default 1 / number of features", None, least=1e-12)
    trees: int | None = flag("of forest (default 500); rounds of xgboost (default 300)", None, least=1)
    depth: int | None = flag("of a tree at the most; by default no limit in a forest, 4 in xgboost", None, least=1)
    learning_rate: float = flag("of xgboost", 0.1, least=1e-6)
    member: str | None = flag("name in an inspector; by default classical_<head>", None)


def main(args: Args) -> None:
    split = split_data(args)
    if already_done(args, split):
        return
    if problem := too_few_defects(split, args.data):
        raise problem
    with measure_training(args.country, args.cpu_power_w) as emissions:
        weights = pretrained(args, default="resnet18")
        trunk, config = build(args, weights, split.labels)
        samples = split.samples("train", "validate")
        vectors = features(config, trunk, samples, args.copies)
        detector, chosen = fit(config, trunk, vectors, [sample.label for sample in samples], args)
    settings: dict[str, JsonValue] = {"head": args.head, "image_size": args.image_size, "copies": args.copies}
    settings |= {"layers": list(config.use_layers), "pooling": list(config.pooling), **chosen}
    member = args.member or f"classical_{args.head}"
    finish(detector, member, args, split, emissions, backbone=weights.source, settings=settings)


def build(args: Args, weights: Pretrained, labels: tuple[str, ...]) -> tuple[Trunk, ClassicalConfig]:
    """The trunk as other detectors have it, unless other layers are asked for."""
    usual = default_layers(weights)
    layers = tuple(sorted(set(args.layers or usual)))
    trunk = make_trunk(weights, usual if set(layers) <= set(usual) else layers)
    config = ClassicalConfig(
        input_size=(args.image_size, args.image_size),
        mean=weights.mean,
        std=weights.std,
        trunk=trunk.config,
        use_layers=layers,
        pooling=args.pooling,
        classes=labels,
        head=args.head,
    )
    return trunk, config


@torch.no_grad()
def features(config: ClassicalConfig, trunk: Trunk, samples: Sequence[Sample], copies: str = "none") -> Tensor:
    """(copies, N, d) float32: of the pictures as they are first, then of each mirrored or turned copy of all."""
    found: list[list[Tensor]] = [[] for _ in _TURNS[copies]]
    for batch in batches(samples, config, "features"):
        for kept, turn in zip(found, _TURNS[copies], strict=True):
            maps = trunk(turn(batch).contiguous(), config.use_layers)
            kept.append(pooled([maps[layer] for layer in config.use_layers], config.pooling))
    return torch.stack([torch.cat(kept) for kept in found])


def _turned(quarters: int, mirrored: bool) -> Callable[[Tensor], Tensor]:
    return lambda images: torch.rot90(images.flip(3) if mirrored else images, quarters, (2, 3))


_FLIPS = [(0, False), (0, True), (2, False), (2, True)]
_TURNS = {
    "none": [_turned(0, False)],
    "flips": [_turned(*turn) for turn in _FLIPS],
    "dihedral": [_turned(*turn) for turn in [*_FLIPS, (1, False), (1, True), (3, False), (3, True)]],
}


def fit(
    config: ClassicalConfig, trunk: Trunk, vectors: Tensor, labels: Sequence[str], args: Args
) -> tuple[Classical, dict[str, JsonValue]]:
    """Scaler and head.

    Args:
        config: settings of the detector.
        trunk: that the features come from.
        vectors: (copies, N, d), the pictures as they are first.
        labels: of the N pictures.
        args: of the script.

    Returns:
        The detector, and what was chosen, for the card.
    """
    from sklearn.preprocessing import StandardScaler

    known = [index for index, name in enumerate(config.classes) if name in labels]
    y = np.array([known.index(config.classes.index(label)) for label in labels])
    scaler = StandardScaler().fit(vectors.flatten(0, 1).double().numpy())
    mean, scale = torch.from_numpy(scaler.mean_).float(), torch.from_numpy(scaler.scale_).float()
    x = ((vectors - mean) / scale).numpy()  # by the arithmetic of the detector: thresholds see what is served
    every_x, every_y = x.reshape(-1, x.shape[-1]), np.tile(y, len(x))
    head: Head
    chosen: dict[str, JsonValue]
    if config.head == "svm":
        cost, temperature = cross_validated(x[0], y, args)
        machine = svm(cost, args).fit(every_x, every_y)
        head = support_vectors(machine, temperature)
        chosen = {"C": cost, "temperature": temperature, "support_vectors": len(head.support)}
    else:
        model = trees(config.head, args)
        if config.head == "forest":
            head = forest_tensors(model.fit(every_x, every_y))
        else:
            from sklearn.utils.class_weight import compute_sample_weight

            head = boosted_tensors(
                model.fit(every_x, every_y, sample_weight=compute_sample_weight("balanced", every_y))
            )
        chosen = {"trees": len(head.roots), "nodes": len(head.feature), "depth": head.depth}
    return Classical(config, trunk, mean, scale, torch.tensor(known), head), chosen


def svm(cost: float, args: Args) -> "SVC":
    """Untrained."""
    from sklearn.svm import SVC

    return SVC(
        C=cost, gamma=args.gamma or "auto", class_weight="balanced", decision_function_shape="ovo", cache_size=500
    )


def trees(head: str, args: Args) -> Any:
    """An untrained forest, or boosted trees."""
    count, depth = args.trees or _TREES[head], args.depth or _DEPTH[head]
    if head == "forest":
        from sklearn.ensemble import RandomForestClassifier

        return RandomForestClassifier(count, max_depth=depth, class_weight="balanced", random_state=args.seed)
    from xgboost import XGBClassifier

    return XGBClassifier(
        n_estimators=count,
        max_depth=depth,
        learning_rate=args.learning_rate,
        subsample=0.8,
        colsample_bynode=0.2,  # of hundreds of features that say much the same
        tree_method="hist",
        random_state=args.seed,
        n_jobs=1,  # sums of several threads come in any order
    )


def cross_validated(x: Floats, y: Labels, args: Args) -> tuple[float, float]:
    """C and temperature with the least cross-entropy on pictures that were left out; (10, 1) where a class has one."""
    from sklearn.model_selection import StratifiedKFold

    costs = _COSTS if args.C is None else (args.C,)
    classes = int(y.max()) + 1
    folds = min(_FOLDS, int(np.bincount(y).min()))
    if folds < 2:
        return (10.0 if args.C is None else args.C), 1.0
    parts = list(StratifiedKFold(folds, shuffle=True, random_state=args.seed).split(x, y))
    truth = torch.from_numpy(np.concatenate([y[held_out] for _, held_out in parts]))
    best = (math.inf, costs[0], 1.0)
    for cost in costs:
        machines = [
            (support_vectors(svm(cost, args).fit(x[inside], y[inside])), held_out) for inside, held_out in parts
        ]
        decisions = torch.cat([machine(torch.from_numpy(x[held_out])) for machine, held_out in machines])
        for temperature in _TEMPERATURES.tolist():
            votes = machines[0][0].read(decisions / temperature, classes)[1]
            best = min(best, (float(F.cross_entropy(votes, truth)), cost, temperature))
    return best[1:]


if __name__ == "__main__":
    sys.exit(run(main, Args))
