"""Trains every detector that the data permits and releases them as one inspector, one a category.

`quick` (the default without a GPU) takes narrow networks and few epochs; `full` the published sizes. What was finished
before a kill is not done again.
"""

import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import torch

from anomaly.backbones import read_weights
from anomaly.errors import DataError
from training import (
    fit_mahalanobis,
    fit_patch_knn,
    release,
    train_autoencoder,
    train_classical,
    train_classifier,
    train_localiser,
)
from training.arguments import DataArgs, flag, run
from training.data import Split, split_data


@dataclass(frozen=True, kw_only=True)
class Args(DataArgs):
    preset: Literal["auto", "quick", "full"] = flag("effort; auto: full with a GPU, quick without", "auto")
    backbone: str | None = flag("trunk: a timm name or a Hub repo id, optionally @revision", None)
    weights: Path | None = flag("trunk and initial weights from a local safetensors file", None)
    arch: str | None = flag("of the classifier; by default the architecture of the weights", None)
    push: str | None = flag("Hub repo (org/name) for the inspector, beside the local one", None)
    tag: str | None = flag("of the release", None)
    note: str | None = flag("what this release is for, one sentence in its card", None)


QUICK: dict[str, dict[str, Any]] = {
    "autoencoder": {"image_size": 128, "width": 16, "epochs": 30},
    "baseline_cnn": {"image_size": 128, "width": 0.25, "epochs": 12},
    "classifier": {"image_size": 160, "epochs": 12},
    "localiser": {"image_size": 256, "crop": 256, "crops": 1, "epochs": 10},
}

CLASSICAL: dict[str, Literal["svm", "forest", "xgboost"]] = {
    "classical_svm": "svm",
    "classical_forest": "forest",
    "classical_xgboost": "xgboost",
}
MANY = ("mahalanobis", "mahalanobis_global", "autoencoder", "baseline_cnn", "classifier", *CLASSICAL)  # categories


def main(args: Args) -> None:
    split = split_data(args)
    if not split.samples("test"):
        raise DataError(
            f"{args.data} has no test pictures to measure the inspector on: put some into test/<class>, or take "
            "--protocol supervised, which keeps a share of all pictures for the test"
        )
    quick = args.preset == "quick" or (args.preset == "auto" and not torch.cuda.is_available())
    runs = {member: train_member(member, args, split.categories, quick) for member in members_for(split)}
    several = len(split.categories) > 1
    for category in split.categories:  # an inspector is of one category; what serves several is in each of theirs
        shared: dict[str, Any] = {
            "category": category,
            "members": tuple(folders[category] for folders in runs.values()),
            "data": args.data,
            "layout": args.layout,
        }
        shared |= {"country": args.country, "cpu_power_w": args.cpu_power_w, "tag": args.tag, "note": args.note}
        name = f"local/inspector-{category}" if several else "local/inspector"
        release.main(release.Args(out=args.out, name=name, **shared))
        if args.push:
            release.main(release.Args(push=f"{args.push}-{category}" if several else args.push, **shared))


def members_for(split: Split) -> list[str]:
    """What the data permits: supervised detectors need labelled defects to train on and to calibrate with."""
    members = ["mahalanobis", "mahalanobis_global", "patch_knn", "autoencoder"]
    if split.defects("train") and split.defects("calibrate"):
        members += ["baseline_cnn", "classifier", *CLASSICAL]
        if len(split.categories) == 1 and all(sample.mask or sample.boxes for sample in split.defects("train")):
            members.append("localiser")
    return members


def train_member(member: str, args: Args, categories: tuple[str, ...], quick: bool) -> dict[str, Path]:
    """Runs one detector's own script, for all categories at once where it can; returns the run's folder for each."""
    together = dict.fromkeys(categories, args.out / "runs" / member)
    if len(categories) == 1 or member in MANY:
        _train(member, args, args.category, args.out / "runs" / member, quick)
        return together
    apart = {category: args.out / "runs" / f"{member}-{category}" for category in categories}
    for category, out in apart.items():
        _train(member, args, category, out, quick)
    return apart


def _train(member: str, args: Args, category: str, out: Path, quick: bool) -> None:
    common: dict[str, Any] = {field.name: getattr(args, field.name) for field in fields(DataArgs)}
    common |= {"out": out, "category": category}
    trunk: dict[str, Any] = {"weights": args.weights, "backbone": args.backbone}
    effort = QUICK.get(member, {}) if quick else {}
    if member.startswith("mahalanobis"):
        pooling: Literal["position", "global"] = "position" if member == "mahalanobis" else "global"
        fit_mahalanobis.main(fit_mahalanobis.Args(**common, **trunk, **effort, pooling=pooling))
    elif member == "patch_knn":
        fit_patch_knn.main(fit_patch_knn.Args(**common, **trunk, **effort))
    elif member == "autoencoder":
        train_autoencoder.main(train_autoencoder.Args(**common, **trunk, **effort))
    elif member == "baseline_cnn":
        train_classifier.main(train_classifier.Args(**common, **effort, arch=train_classifier.BASELINE))
    elif member == "classifier":
        scratch = args.arch is not None and (
            args.weights is None or read_weights(args.weights).architecture != args.arch
        )
        start: dict[str, Any] = {} if scratch else trunk
        train_classifier.main(train_classifier.Args(**common, **effort, **start, arch=args.arch, member="classifier"))
    elif member in CLASSICAL:
        train_classical.main(train_classical.Args(**common, **trunk, **effort, head=CLASSICAL[member]))
    elif member == "localiser":
        train_localiser.main(train_localiser.Args(**common, **trunk, **effort))
    else:
        raise DataError(f"unknown member {member!r}")


if __name__ == "__main__":
    sys.exit(run(main, Args))
