"""What a million images cost, from what one image was measured to take; writes the table of docs/SCALE.md.

    python benchmarks/million.py --measure [--inspector SOURCE] [--images N] [--device cuda]   # here, then the table
    python benchmarks/million.py [--country FRA] [--prices FILE]                               # the table again

A measurement is of one process that inspects file after file by the default policy, and goes to million.json beside
this; a row without one says so. Prices are inputs (prices.json, each with its source). What one node takes is divided
by ten for ten nodes: how well ten work together was not measured.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from anomaly import images
from anomaly.emissions import EmissionsMeter
from anomaly.evaluation import hardware, versions
from anomaly.loading import load_inspector
from anomaly.settings import STARTER, Settings
from training.synthetic_cable import DEFECTS, render

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs/SCALE.md"
BEGIN, END = "<!-- benchmarks/million.py writes from here", "<!-- to here -->"
IMAGES, NODES = 1_000_000, 10
WARM_UP = 3  # pictures that are not counted
BUSY = 0.25  # load of a core from which other programs make the times too long


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true", help="one image, on this machine")
    parser.add_argument("--inspector", default=str(STARTER))
    parser.add_argument("--revision")
    parser.add_argument("--images", type=int, default=100, help="that are measured")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--measured", type=Path, default=HERE / "million.json")
    parser.add_argument("--prices", type=Path, default=HERE / "prices.json")
    parser.add_argument("--country", default=Settings().country, help="ISO 3166 alpha-3 code")
    parser.add_argument("--page", type=Path, default=PAGE)
    args = parser.parse_args()
    measured = json.loads(args.measured.read_text()) if args.measured.is_file() else {}
    if args.measure:
        measured[args.device] = one_image(args)
        args.measured.write_text(json.dumps(measured, indent=1) + "\n")
    text = section(measured, json.loads(args.prices.read_text()), grams_per_kwh(args.country), args.country)
    before, _, rest = args.page.read_text().partition(BEGIN)
    first, _, after = rest.partition(END)
    args.page.write_text(f"{before}{BEGIN}{first.splitlines()[0]}\n{text}\n{END}{after}")
    print(text)


def one_image(args: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds and estimated millijoules of an image, file to report."""
    load = os.getloadavg()[0]
    inspector = load_inspector(args.inspector, args.revision, device=args.device)
    inspector.meter.warm_up()
    times, energies = [], []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "part.png")
        for number in range(WARM_UP + args.images):
            Image.fromarray(render([None, *DEFECTS][number % (1 + len(DEFECTS))], seed=number, size=256)[0]).save(path)
            started = time.perf_counter()
            report = inspector.inspect(images.read(path, inspector.file.limits)).report
            if number >= WARM_UP:
                times.append((time.perf_counter() - started) * 1e3)
                energies += [mj for mj in (report.emissions.energy_mj,) if mj is not None]
    return {
        "ms": statistics.fmean(times),  # a million of them take the mean, not the median
        "energy_mj": statistics.fmean(energies) if energies else None,
        "images": args.images,
        "pixels": 256 * 256,
        "inspector": Path(args.inspector).name,
        "commit": inspector.commit,
        "policy": inspector.policy().name,
        "members": list(inspector.members),
        "backend": report.emissions.backend,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_before": load,
        "hardware": hardware(),
        "versions": versions(),
    }


def grams_per_kwh(country: str) -> float | None:
    """As CodeCarbon has it."""
    meter = EmissionsMeter(country)
    with meter.measure() as measurement:
        pass
    return measurement.emissions.g_per_kwh if measurement.emissions else None


def cost(one: dict[str, Any], nodes: int, usd_per_hour: float | None, grams: float | None) -> dict[str, float | None]:
    """Hours, kWh, kg CO2e and US dollars of a million images on so many nodes, each as fast as the one measured."""
    node_hours = one["ms"] * IMAGES / 3.6e6
    kwh = None if one["energy_mj"] is None else one["energy_mj"] * IMAGES / 3.6e9
    return {
        "hours": node_hours / nodes,
        "kwh": kwh,
        "kg": None if kwh is None or grams is None else kwh * grams / 1e3,
        "usd": None if usd_per_hour is None else node_hours * usd_per_hour,
    }


def section(measured: dict[str, Any], prices: dict[str, Any], grams: float | None, country: str) -> str:
    """Markdown: the table and what it stands on."""
    cpu, gpu = measured.get("cpu"), measured.get("cuda")
    ours = gpu is not None and prices["gpu"]["model"] in gpu["hardware"]  # a price of another GPU says nothing
    rows = [
        ("one CPU node", prices["one"]["name"], cpu, 1, prices["one"]["usd_per_hour"]),
        (f"{NODES} CPU nodes", prices["node"]["name"], cpu, NODES, prices["node"]["usd_per_hour"]),
        ("one GPU", prices["gpu"]["name"] if ours or gpu is None else gpu["hardware"], gpu, 1,
         prices["gpu"]["usd_per_hour"] if ours else None),
    ]  # fmt: skip
    lines = [
        "| on | priced as | hours | estimated kWh | estimated kg CO2e | US dollars |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for name, priced, one, nodes, usd in rows:
        if one is None:
            lines.append(f"| {name} | {priced} | not measured here | - | - | - |")
            continue
        found = cost(one, nodes, usd, grams)
        cells = ("-" if value is None else f"{value:,.2f}" for value in found.values())
        lines.append(f"| {name} | {priced} | {' | '.join(cells)} |")
    grid = "no figure for its grid" if grams is None else f"{grams:.0f} g CO2e a kWh"
    lines += ["", f"Electricity of {country}, {grid}. Energy is CodeCarbon's estimate, of the CPU, memory and GPU."]
    for one in (cpu, gpu):
        if one is not None:
            energy = "energy below resolution" if one["energy_mj"] is None else f"{one['energy_mj']:.0f} mJ estimated"
            lines += [
                "",
                f"Measured: {one['ms']:.1f} ms and {energy} an image (mean of {one['images']} of 256 px, file to "
                f"report), inspector `{one['inspector']}` at {one['commit'][:12]}, policy {one['policy']}, "
                f"{len(one['members'])} members, {one['hardware']}, {one['cores']} cores, {one['threads']} threads, "
                f"torch {one['versions']['torch']}.{_busy(one)}",
            ]
    sources = "; ".join(f"{price['name']} {price['source']} ({price['looked_up']})" for price in prices.values())
    lines += ["", f"Prices: {sources}."]
    return "\n".join(lines)


def _busy(one: dict[str, Any]) -> str:
    if one["load_before"] < BUSY * one["cores"]:
        return ""
    return (
        f" **The machine was busy with other programs (load {one['load_before']:.1f} on {one['cores']} cores): these "
        "times and this energy are too high.** Measure again on a quiet one."
    )


if __name__ == "__main__":
    main()
