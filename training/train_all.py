"""Trains every detector that the data permits and releases them as one inspector.

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
from training import fit_mahalanobis, fit_patch_knn, release, train_autoencoder, train_classifier
from training.arguments import DataArgs, flag, run
from training.finish import Split, split_data


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
    "classifier": {"image_size": 160, "epochs": 6},
}


def main(args: Args) -> None:
    split = split_data(args)
    if not split.samples("test"):
        raise DataError(f"{args.data} has no test pictures to measure the inspector on: put some into test/<class>")
    quick = args.preset == "quick" or (args.preset == "auto" and not torch.cuda.is_available())
    runs = args.out / "runs"
    done = [train_member(member, args, runs / member, quick) for member in members_for(split)]
    shared: dict[str, Any] = {
        "category": args.category,
        "members": tuple(done),
        "data": args.data,
        "layout": args.layout,
    }
    shared |= {"country": args.country, "cpu_power_w": args.cpu_power_w, "tag": args.tag, "note": args.note}
    release.main(release.Args(out=args.out, **shared))
    if args.push:
        release.main(release.Args(push=args.push, **shared))


def members_for(split: Split) -> list[str]:
    """What the data permits: supervised detectors need labelled defects to train on and to calibrate with."""
    members = ["mahalanobis", "mahalanobis_global", "patch_knn", "autoencoder"]
    if split.defects("train") and split.defects("calibrate"):
        members += ["baseline_cnn", "classifier"]
    return members


def train_member(member: str, args: Args, out: Path, quick: bool) -> Path:
    """Runs one detector's own script; returns the run's folder."""
    common: dict[str, Any] = {field.name: getattr(args, field.name) for field in fields(DataArgs)} | {"out": out}
    trunk: dict[str, Any] = {"weights": args.weights, "backbone": args.backbone}
    effort = QUICK.get(member, {}) if quick else {}
    if member.startswith("mahalanobis"):
        pooling: Literal["position", "global"] = "position" if member == "mahalanobis" else "global"
        fit_mahalanobis.main(fit_mahalanobis.Args(**common, **trunk, **effort, pooling=pooling))
    elif member == "patch_knn":
        fit_patch_knn.main(fit_patch_knn.Args(**common, **trunk, **effort))
    elif member == "autoencoder":
        train_autoencoder.main(train_autoencoder.Args(**common, **effort))
    elif member == "baseline_cnn":
        train_classifier.main(train_classifier.Args(**common, **effort, arch=train_classifier.BASELINE))
    elif member == "classifier":
        scratch = args.arch is not None and (
            args.weights is None or read_weights(args.weights).architecture != args.arch
        )
        start: dict[str, Any] = {} if scratch else trunk
        train_classifier.main(train_classifier.Args(**common, **effort, **start, arch=args.arch, member="classifier"))
    else:
        raise DataError(f"unknown member {member!r}")
    return out


if __name__ == "__main__":
    sys.exit(run(main, Args))
