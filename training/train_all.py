"""Trains every detector that the data permits and releases them as one inspector, one a category.

`quick` (the default without a GPU) takes narrow networks and few epochs; `full` the published sizes. What was finished
before a kill is not done again. With --seeds each seed goes to OUT/seed<N> and is released there on its own.

With --engine ray the detectors (of all seeds, and of each category where one cannot serve several) are trained as tasks
of a Ray cluster, with the results that they have one after the other; releases follow when all are done. The times and
energy that such a run notes are those of a machine that did other things as well.
"""

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
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
from training.ray_tasks import Job, run_on_ray
from training.seeds import is_repeated, repeat, runs_of


@dataclass(frozen=True, kw_only=True)
class Args(DataArgs):
    preset: Literal["auto", "quick", "full"] = flag("effort; auto: full with a GPU, quick without", "auto")
    engine: Literal["sequence", "ray"] = flag("one detector after the other, or as tasks of a Ray cluster", "sequence")
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
    if args.engine == "ray":
        each = [jobs(one, _split(one)) for one in runs_of(args)]
        run_on_ray(distinct(job for runs in each for job in runs.values()))
        args = replace(args, engine="sequence")  # which finds everything finished, and releases it
    if is_repeated(args):
        repeat(main, args)
        return
    split = _split(args)
    runs = jobs(args, split)
    for job in distinct(runs.values()):
        job.script(job.args)
    several = len(split.categories) > 1
    for category in split.categories:  # an inspector is of one category; what serves several is in each of theirs
        shared: dict[str, Any] = {
            "category": category,
            "members": tuple(each[category].args.out for each in runs.values()),
            "data": args.data,
            "layout": args.layout,
        }
        shared |= {"country": args.country, "cpu_power_w": args.cpu_power_w, "tag": args.tag, "note": args.note}
        name = f"local/inspector-{category}" if several else "local/inspector"
        release.main(release.Args(out=args.out, name=name, **shared))
        if args.push:
            release.main(release.Args(push=f"{args.push}-{category}" if several else args.push, **shared))


def _split(args: Args) -> Split:
    split = split_data(args)
    if not split.samples("test"):
        raise DataError(
            f"{args.data} has no test pictures to measure the inspector on: put some into test/<class>, or take "
            "--protocol supervised, which keeps a share of all pictures for the test"
        )
    return split


def distinct(runs: Iterable[Mapping[str, Job]]) -> list[Job]:
    """Each run once, in order, of what `jobs` plans for several members."""
    return list(dict.fromkeys(job for each in runs for job in each.values()))


def members_for(split: Split) -> list[str]:
    """What the data permits: supervised detectors need labelled defects to train on and to calibrate with."""
    members = ["mahalanobis", "mahalanobis_global", "patch_knn", "autoencoder"]
    if split.defects("train") and split.defects("calibrate"):
        members += ["baseline_cnn", "classifier", *CLASSICAL]
        if len(split.categories) == 1 and all(sample.mask or sample.boxes for sample in split.defects("train")):
            members.append("localiser")
    return members


def jobs(args: Args, split: Split) -> dict[str, dict[str, Job]]:
    """Member -> category -> its run; one run for all categories where the detector can serve several."""
    quick = args.preset == "quick" or (args.preset == "auto" and not torch.cuda.is_available())
    found: dict[str, dict[str, Job]] = {}
    for member in members_for(split):
        if len(split.categories) == 1 or member in MANY:
            job = _job(member, args, args.category, args.out / "runs" / member, quick)
            found[member] = dict.fromkeys(split.categories, job)
        else:
            found[member] = {
                category: _job(member, args, category, args.out / "runs" / f"{member}-{category}", quick)
                for category in split.categories
            }
    return found


def _job(member: str, args: Args, category: str, out: Path, quick: bool) -> Job:
    common: dict[str, Any] = {field.name: getattr(args, field.name) for field in fields(DataArgs)}
    common |= {"out": out, "category": category}
    trunk: dict[str, Any] = {"weights": args.weights, "backbone": args.backbone}
    effort = QUICK.get(member, {}) if quick else {}
    script: Any
    if member.startswith("mahalanobis"):
        script, own = fit_mahalanobis, {**trunk, "pooling": "position" if member == "mahalanobis" else "global"}
    elif member == "patch_knn":
        script, own = fit_patch_knn, trunk
    elif member == "autoencoder":
        script, own = train_autoencoder, trunk
    elif member == "baseline_cnn":
        script, own = train_classifier, {"arch": train_classifier.BASELINE}
    elif member == "classifier":
        other = args.arch is not None and (args.weights is None or read_weights(args.weights).architecture != args.arch)
        script, own = train_classifier, {**({} if other else trunk), "arch": args.arch, "member": "classifier"}
    elif member in CLASSICAL:
        script, own = train_classical, {**trunk, "head": CLASSICAL[member]}
    elif member == "localiser":
        script, own = train_localiser, trunk
    else:
        raise DataError(f"unknown member {member!r}")
    return Job(script.main, script.Args(**common, **effort, **own))


if __name__ == "__main__":
    sys.exit(run(main, Args, repeats=False))
