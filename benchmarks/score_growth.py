"""What a picture costs when there are ten times as many: seconds each and memory; prints a table, writes JSON.

    python benchmarks/score_growth.py [--images 500 5000] [--inspector SOURCE --revision v2] [--size 256]

Scores links to a few rendered cables with the local engine, one worker in this process, after a warm-up.
Three times: of the whole run, with loading and listing; of its median part, which a neighbour of this machine spoils
less; and of the processor, which it does not spoil. Memory is read after each part.
"""

import argparse
import itertools
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image

from anomaly.score import score
from training.synthetic_cable import DEFECTS, render

ROOT = Path(__file__).resolve().parent.parent
DISTINCT = 50  # rendered pictures; all others are links to them
PART = 50  # pictures
WARM_UP = 100
TIMES = {
    "whole_run_s": "s an image, whole run",
    "median_part_s": "s an image, median part",
    "processor_s": "processor s an image",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs=2, default=[500, 5000], help="two numbers, the smaller one first")
    parser.add_argument("--inspector", default=str(ROOT / "starter"))
    parser.add_argument("--revision", default="v2")
    parser.add_argument("--policy")
    parser.add_argument("--size", type=int, default=256, help="pixels of a side")
    parser.add_argument("--json", type=Path, default=Path("runs/score_growth.json"))
    args = parser.parse_args()
    if not 2 * PART <= args.images[0] < args.images[1] or any(count % PART for count in args.images):
        parser.error(f"--images {args.images}: expected two multiples of {PART} from {2 * PART}, the smaller one first")
    with tempfile.TemporaryDirectory() as folder:
        pictures = rendered(Path(folder) / "distinct", args.size)
        runs = {}
        for name, count in (("warm-up", WARM_UP), ("few", args.images[0]), ("many", args.images[1])):
            linked(pictures, Path(folder) / name, count)
            runs[name] = measured(Path(folder) / name, Path(folder) / f"{name} scored", args)
    few, many = runs["few"], runs["many"]
    results = {
        "inspector": args.inspector,
        "revision": args.revision,
        "size": args.size,
        "runs": [few, many],
        "growth": {name: many[name] / few[name] for name in TIMES},
        "memory_growth_mb": many["rss_mb"]["end"] - many["rss_mb"]["start"],
    }
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(results, indent=1) + "\n")
    print(table(results))


def rendered(folder: Path, size: int) -> list[Path]:
    folder.mkdir()
    kinds = [None, *DEFECTS]
    for number in range(DISTINCT):
        Image.fromarray(render(kinds[number % len(kinds)], seed=number, size=size)[0]).save(folder / f"{number}.png")
    return sorted(folder.iterdir())


def linked(pictures: list[Path], folder: Path, count: int) -> None:
    folder.mkdir()
    for number in range(count):
        os.link(pictures[number % len(pictures)], folder / f"{number:07d}.png")


def measured(folder: Path, output: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Scores a folder; times and memory at the end of each part."""
    at: list[tuple[float, float]] = []

    def told(done: int, of: int) -> None:
        at.append((time.perf_counter(), rss_mb()))

    started, busy = time.perf_counter(), time.process_time()
    counts = score(
        str(folder), args.inspector, output, revision=args.revision, policy=args.policy, part_size=PART, told=told
    )
    seconds, busy = time.perf_counter() - started, time.process_time() - busy
    each = [(after - before) / PART for (before, _), (after, _) in itertools.pairwise(at)]
    return {
        "images": counts.pictures,
        "errors": counts.errors.total(),
        "whole_run_s": seconds / counts.pictures,
        "median_part_s": statistics.median(each),
        "processor_s": busy / counts.pictures,
        "rss_mb": {"start": at[0][1], "middle": at[len(at) // 2][1], "end": at[-1][1]},
    }


def rss_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6


def table(results: dict[str, Any]) -> str:
    """Markdown."""
    names = ["images", *TIMES.values(), "RSS MB after the first part, half-way, at the end"]
    lines = [f"| {' | '.join(names)} |", "|" + "---:|" * len(names)]
    for run in results["runs"]:
        memory = ", ".join(f"{run['rss_mb'][when]:.0f}" for when in ("start", "middle", "end"))
        lines.append(f"| {run['images']:,} | {' | '.join(f'{run[name]:.4f}' for name in TIMES)} | {memory} |")
    grown = " | ".join(f"{results['growth'][name]:.3f} x" for name in TIMES)
    lines.append(f"| growth an image | {grown} | {results['memory_growth_mb']:+.0f} MB in the longer run |")
    return "\n".join([*lines, "", f"Pictures of {results['size']} px, one worker of one thread."])


if __name__ == "__main__":
    main()
