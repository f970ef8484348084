"""What one picture costs: each member's trunk and head, and the ensemble with and without its shared trunk pass.

Everything is timed in turn within one run, so the ratios hold when the machine's speed drifts. Energy is CodeCarbon's
estimate. Usage: python benchmarks/latency.py [--inspector SOURCE] [--revision R] [--images N] [--json FILE]
"""

import argparse
import json
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from anomaly.detectors.base import as_tensor
from anomaly.emissions import Measurement
from anomaly.evaluation import hardware, versions
from anomaly.inspector import Inspector
from anomaly.loading import load_inspector
from anomaly.settings import STARTER
from training.synthetic_cable import DEFECTS, render

WARM_UP = 3  # pictures that are not counted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inspector", default=str(STARTER))
    parser.add_argument("--revision")
    parser.add_argument("--images", type=int, default=30, help="pictures that are counted")
    parser.add_argument("--size", type=int, default=256, help="their side in pixels")
    parser.add_argument("--json", type=Path, help="file to write")
    args = parser.parse_args()
    before = _rss_mb()
    inspector = load_inspector(args.inspector, args.revision)
    inspector.meter.warm_up()
    results = measure(inspector, args.images, args.size)
    results["rss_mb"] = {"before loading": before, "after the run": _rss_mb()}
    results["hardware"], results["versions"] = hardware(), versions()
    print(table(results))
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")


@torch.no_grad()
def measure(inspector: Inspector, images: int, size: int) -> dict[str, Any]:
    """Milliseconds of every part, picture by picture."""
    times: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    energy: dict[str, list[float]] = defaultdict(list)
    names = list(inspector.members)
    for number in range(WARM_UP + images):
        defect = [None, *DEFECTS][number % (1 + len(DEFECTS))]
        image, _ = render(defect, seed=number, size=size)
        tensor = as_tensor(image)
        counted = number >= WARM_UP
        for name, member in inspector.members.items():
            with inspector.meter.measure() as measurement:
                started = time.perf_counter()
                inputs = member.detector.inputs(tensor)
                between = time.perf_counter()
                member.detector.predict_from(inputs, (size, size))
                ended = time.perf_counter()
            if counted:
                times[name]["trunk"].append((between - started) * 1e3)
                times[name]["head"].append((ended - between) * 1e3)
                times[name]["total"].append((ended - started) * 1e3)
                _note(energy[name], measurement)
        for way, groups in (("shared", [names]), ("alone", [[name] for name in names])):
            with inspector.meter.measure() as measurement:
                started = time.perf_counter()
                for group in groups:
                    inspector.ballots(image, group)
                ended = time.perf_counter()
            if counted:
                times[way]["total"].append((ended - started) * 1e3)
                _note(energy[way], measurement)
    return {
        "images": images,
        "size": size,
        "members": {name: _figures(times[name], energy[name]) for name in names},
        "ensemble": {way: _figures(times[way], energy[way]) for way in ("shared", "alone")},
        "shared_over_alone": {
            "time": float(np.median(np.divide(times["shared"]["total"], times["alone"]["total"]))),
            "energy": _ratio(energy["shared"], energy["alone"]),
        },
    }


def table(results: dict[str, Any]) -> str:
    """Markdown."""
    lines = [
        "| | trunk ms (median, p95) | head ms (median, p95) | total ms (median, p95) | estimated mJ |",
        "|---|---|---|---|---|",
    ]
    rows = {**results["members"], **{f"ensemble, {k}": v for k, v in results["ensemble"].items()}}
    for name, row in rows.items():
        cells = [
            f"{row[part][0]:.1f}, {row[part][1]:.1f}" if part in row else "-" for part in ("trunk", "head", "total")
        ]
        mj = "below resolution" if row["energy_mj"] is None else f"{row['energy_mj']:.0f}"
        lines.append(f"| {name} | {' | '.join(cells)} | {mj} |")
    ratio, rss = results["shared_over_alone"], results["rss_mb"]
    lines += [
        "",
        f"Shared trunk over members alone: {ratio['time']:.2f} x time, {ratio['energy']:.2f} x energy. "
        f"Resident memory {rss['before loading']:.0f} MB before loading, {rss['after the run']:.0f} MB after the run. "
        f"{results['images']} pictures of {results['size']} px, {torch.get_num_threads()} threads, "
        f"{results['hardware']}.",
    ]
    return "\n".join(lines)


def _figures(times: dict[str, list[float]], energy: list[float]) -> dict[str, Any]:
    spread = {part: [float(np.median(v)), float(np.percentile(v, 95))] for part, v in times.items()}
    return {**spread, "energy_mj": float(np.mean(energy)) if energy else None}


def _note(energies: list[float], measurement: Measurement) -> None:
    emissions = measurement.emissions
    if emissions is not None and emissions.energy_mj is not None:
        energies.append(emissions.energy_mj)


def _ratio(above: list[float], below: list[float]) -> float:
    return float(np.mean(above) / np.mean(below)) if above and below else float("nan")


def _rss_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1]) if Path("/proc/self/statm").exists() else 0
    return pages * 4096 / 1e6


if __name__ == "__main__":
    main()
