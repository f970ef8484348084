"""The coreset of patch_knn: chosen lazily (training/coreset.py) against one step over all candidates a point, and what
whole fits cost. Prints tables, writes JSON.

    python benchmarks/coreset.py --data DIR --category NAME --weights FILE [--share 0.01] [--seeds 3] [--json FILE]

`greedy` is the papers' choice from every patch, one step over all of them a point; `lazy` the product: projected to
fewer dimensions, from its bounded candidates. They run in turn; ratios are of processor time, which a busy machine
changes less.
Figures are of the test pictures; nothing here is chosen by them. Each fit is a training command in a process of its
own, calibration and test included; `fit s` is what it takes from reading the weights to the fitted detector.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from real_data import table  # beside this file
from torch import Tensor

from anomaly.datasets import read_mask
from anomaly.detectors import PatchKNN
from anomaly.detectors.patches import patch_features
from anomaly.evaluation import hardware, versions
from anomaly.metrics import au_pro, image_auroc
from training import fit_patch_knn
from training.coreset import coreset, reservoir
from training.finish import pretrained, split_data
from training.fitting import maps_of, trunk_with

ROOT = Path(__file__).resolve().parents[1]
FITS = {"patch_knn": "fit_patch_knn", "mahalanobis": "fit_mahalanobis"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--category", required=True)
    parser.add_argument("--weights", type=Path, required=True, help="an ImageNet trunk")
    parser.add_argument("--share", type=float, default=0.01, help="of the patches to keep")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="file to write")
    args = parser.parse_args()
    chosen = coresets(args.data, args.category, args.weights, args.share, args.seeds)
    table("coreset", chosen)
    costs = [fitted(member, args.data, args.category, args.weights) for member in FITS]
    table("fits", costs)
    if args.json:
        found = {"coreset": chosen, "fits": costs, "hardware": hardware(), "versions": versions()}
        args.json.write_text(json.dumps(found | {"threads": torch.get_num_threads()}, indent=1) + "\n")


@torch.no_grad()
def coresets(data: Path, category: str, weights: Path, share: float, seeds: int) -> list[dict[str, Any]]:
    """A row a seed: seconds of both ways and the figures of the memories they give."""
    args = fit_patch_knn.Args(data=data, category=category, weights=weights, out=Path())
    split, whole = split_data(args), pretrained(args)
    trunk = trunk_with(whole, None)
    config = fit_patch_knn.knn_config(args, whole, trunk)
    good = list(maps_of(trunk, config, config.use_layers, split.good("train", "validate")))
    samples = split.samples("test")
    tests = list(maps_of(trunk, config, config.use_layers, samples))
    masks = [read_mask(sample, config.input_size) for sample in samples]

    def figures(memory: Tensor) -> tuple[float | None, float | None]:
        detector = PatchKNN(config, trunk, memory)
        outputs = [detector.predict_from(maps, config.input_size) for maps in tests]
        scores = torch.cat([output.scores for output in outputs]).numpy()
        heatmaps = [heatmap.numpy() for output in outputs for heatmap in output.heatmaps]
        return image_auroc([sample.is_defect for sample in samples], scores), au_pro(masks, heatmaps)

    each = (patch_features([batch[layer] for layer in config.use_layers], config.window) for batch in good)
    every = torch.cat([patches.flatten(2).mT.flatten(0, 1) for patches in each])
    rows = []
    for seed in range(seeds):
        generator = torch.Generator().manual_seed(seed)
        candidates, seen = reservoir([every], fit_patch_knn.most_candidates(args, every.shape[1]), generator)
        size, first = math.ceil(share * seen), generator.get_state()
        row: dict[str, Any] = {"seed": seed, "patches": seen, "candidates": len(candidates), "kept": size}
        ways = (("greedy", one_by_one, every), ("lazy", coreset, candidates))
        for name, choose, patches in ways:
            generator.set_state(first)
            indices, row[f"{name} s"], row[f"{name} cpu s"] = timed(choose, patches, size, generator)
            row[f"{name} AUROC"], row[f"{name} AU-PRO"] = figures(patches[indices])
        row["cpu, greedy / lazy"] = row["greedy cpu s"] / row["lazy cpu s"]
        rows.append(row)
    return rows


def one_by_one(points: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Greedy k-center as it is written in the papers: after each choice every point is looked at."""
    norms = points.square().sum(dim=1)
    nearest = torch.full((len(points),), torch.inf)
    chosen = torch.empty(size, dtype=torch.int64)
    chosen[0] = torch.randint(len(points), (1,), generator=generator)
    for step in range(1, size):
        last = int(chosen[step - 1])
        squared = torch.addmv(norms, points, points[last], alpha=-2).add_(norms[last])
        torch.minimum(nearest, squared, out=nearest)
        nearest[last] = -torch.inf
        chosen[step] = nearest.argmax()
    return chosen


def timed(
    choose: Callable[[Tensor, int, torch.Generator], Tensor], points: Tensor, size: int, generator: torch.Generator
) -> tuple[Tensor, float, float]:
    """What it chooses, wall seconds and processor seconds."""
    wall, processor = time.perf_counter(), time.process_time()
    chosen = choose(points, size, generator)
    return chosen, time.perf_counter() - wall, time.process_time() - processor


def fitted(member: str, data: Path, category: str, weights: Path) -> dict[str, Any]:
    """One training command: its times, its peak of memory, its figures."""
    with tempfile.TemporaryDirectory() as out:
        flags = ["--data", data, "--category", category, "--weights", weights, "--out", out]
        command = [sys.executable, "-m", f"training.{FITS[member]}", *flags]
        started = time.perf_counter()
        process = subprocess.Popen(list(map(str, command)), cwd=ROOT, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise SystemExit(f"failed: {' '.join(map(str, command))}")
        metrics = json.loads((Path(out) / "metrics.json").read_text())
        return {
            "member": member,
            "fit s": metrics["training"]["duration_s"],
            "whole run s": time.perf_counter() - started,
            "whole run cpu s": usage.ru_utime + usage.ru_stime,
            "peak MB": usage.ru_maxrss / 1024,
            "AUROC": metrics["test"]["image_auroc"],
            "AU-PRO": metrics["test"]["au_pro"],
        }


if __name__ == "__main__":
    sys.exit(main())
