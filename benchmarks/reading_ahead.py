"""What reading the next pictures ahead (anomaly/reading_ahead.py) gains, against reading each when it is its turn.

    python benchmarks/reading_ahead.py [--inspector SOURCE] [--images N] [--rounds N] [--json FILE]

The same files in each way, in turn within one run. The prediction comes from the rounds without reading ahead: no
better than the model alone, and no better than the time that the processor is busy, divided by its cores.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from anomaly import images
from anomaly.emissions import Emissions
from anomaly.evaluation import hardware, versions
from anomaly.images import RgbImage
from anomaly.inspector import Inspector
from anomaly.loading import load_inspector
from anomaly.reading_ahead import ahead
from anomaly.settings import STARTER
from training.synthetic_cable import DEFECTS, render


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inspector", default=str(STARTER))
    parser.add_argument("--revision")
    parser.add_argument("--members", nargs="+", help="by default all, as evaluate asks them")
    parser.add_argument("--images", type=int, default=12, help="of each kind")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--depths", type=int, nargs="+", default=[1, 2, 4], help="beside 0: each when it is its turn")
    parser.add_argument("--json", type=Path, help="file to write")
    args = parser.parse_args()
    load = os.getloadavg()[0]
    inspector = load_inspector(args.inspector, args.revision)
    with tempfile.TemporaryDirectory() as folder:
        kinds = {
            "256 px PNG": _written(Path(folder, "small"), args.images, (256, 256), "png"),
            "12-megapixel JPEG": _written(Path(folder, "large"), args.images, (4000, 3000), "jpg"),
        }
        found = {kind: measured(inspector, paths, args) for kind, paths in kinds.items()}
    results = {
        "images": args.images,
        "members": args.members or list(inspector.members),
        "rounds": args.rounds,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_before": load,
        "kinds": found,
        "hardware": hardware(),
        "versions": versions(),
    }
    print(table(results))
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")


def measured(inspector: Inspector, paths: Sequence[Path], args: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds a picture of each way, and what was predicted of reading ahead."""
    wall: dict[int, list[float]] = defaultdict(list)
    inspecting: dict[int, list[float]] = defaultdict(list)  # without the reading
    energy: dict[int, list[float]] = defaultdict(list)
    busy: list[float] = []  # processor time of the rounds without reading ahead
    names = args.members or list(inspector.members)
    _round(inspector, paths[:2], names, 0)
    depths = [0, *args.depths]
    for number in range(args.rounds):
        for depth in depths if number % 2 == 0 else reversed(depths):
            started, worked = time.perf_counter(), time.process_time()
            found = _round(inspector, paths, names, depth)
            wall[depth].append((time.perf_counter() - started) * 1e3 / len(paths))
            inspecting[depth] += [one.duration_ms for one in found]
            energy[depth] += [one.energy_mj for one in found if one.energy_mj is not None]
            if not depth:
                busy.append((time.process_time() - worked) * 1e3 / len(paths))
    alone, processor = statistics.median(inspecting[0]), statistics.median(busy) / (os.cpu_count() or 1)
    return {
        "predicted_ms": max(alone, processor),
        "ways": {
            str(depth): {
                "ms": statistics.median(wall[depth]),
                "inspection_ms": statistics.median(inspecting[depth]),
                "energy_mj": statistics.fmean(energy[depth]) if energy[depth] else None,
            }
            for depth in depths
        },
    }


def _round(inspector: Inspector, paths: Sequence[Path], names: Sequence[str], depth: int) -> list[Emissions]:
    """What each inspection took, without the reading."""

    def read(path: Path) -> RgbImage:
        return images.read(path, inspector.file.limits)

    measured = []
    with ahead(read, paths, depth) if depth else _in_turn(paths) as pictures:
        for path, reading in pictures:
            image = read(path) if reading is None else reading.result()
            with inspector.meter.measure() as measurement:
                inspector.ballots(image, names)
            assert measurement.emissions is not None
            measured.append(measurement.emissions)
    return measured


@contextmanager
def _in_turn(paths: Sequence[Path]) -> Iterator[Iterator[tuple[Path, "Future[RgbImage] | None"]]]:
    yield ((path, None) for path in paths)


def _written(folder: Path, count: int, size: tuple[int, int], suffix: str) -> list[Path]:
    """Cables with the grain of a camera, without which a JPEG would be decoded too fast."""
    folder.mkdir()
    paths = [folder / f"{number:03d}.{suffix}" for number in range(count)]
    for number, path in enumerate(paths):
        part = Image.fromarray(render([None, *DEFECTS][number % (1 + len(DEFECTS))], seed=number, size=256)[0])
        pixels = np.asarray(part.resize(size, Image.Resampling.BICUBIC), dtype=np.int16)
        grain = np.random.default_rng(number).integers(-6, 7, pixels.shape, dtype=np.int16)
        Image.fromarray((pixels + grain).clip(0, 255).astype(np.uint8)).save(path, quality=92)
    return paths


def table(results: dict[str, Any]) -> str:
    """Markdown."""
    lines = [
        "| pictures | read ahead | ms a picture | of in turn | predicted | inspection alone, ms | estimated mJ |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for kind, found in results["kinds"].items():
        before = found["ways"]["0"]["ms"]
        for depth, way in found["ways"].items():
            said = f"{found['predicted_ms'] / before:.2f} or more" if depth != "0" else "-"
            mj = "below resolution" if way["energy_mj"] is None else f"{way['energy_mj']:.0f}"
            cells = (
                kind,
                depth,
                f"{way['ms']:.1f}",
                f"{way['ms'] / before:.2f}",
                said,
                f"{way['inspection_ms']:.1f}",
                mj,
            )
            lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        f"{results['images']} pictures of each kind, {results['rounds']} rounds of each way in turn, "
        f"{len(results['members'])} members, "
        f"{results['cores']} cores, {results['threads']} threads of torch, {results['hardware']}, load of the machine "
        f"before the run {results['load_before']:.1f}.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
