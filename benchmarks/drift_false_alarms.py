"""How often the drift alarm is false, and how many parts it takes to notice a shift: anomaly.drift, simulated.

Scores of good parts are normal, calibration and stream alike; the monitor looks at ranks only, so any other continuous
distribution gives the same table. A shift is in interquartile ranges of it. `python -m benchmarks.drift_false_alarms`.
"""

import argparse
import itertools
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from anomaly.drift import Drift, DriftSettings, begin, latest_p, observe

SIZES = (20, 50, 200)  # held-out good parts
LENGTHS = (200, 1000, 5000)
SHIFTS = (0.5, 1.0, 2.0)
IQR = 1.349  # of the normal distribution
BEFORE, AFTER = (0, 300), 500  # good parts before a shift, and parts after it
DEFECTS = {  # words -> share of defects, share of them that score above the cut
    "2 % defects, all above the cut": (0.02, 1.0),
    "5 % defects, all above the cut": (0.05, 1.0),
    "2 % defects, half of them anywhere": (0.02, 0.5),
    "5 % defects, half of them anywhere": (0.05, 0.5),
    "15 % defects, all above the cut: more than allowed": (0.15, 1.0),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--streams", type=int, default=240, help="of each kind; a third of them of the greatest length")
    parser.add_argument("--level", type=float, default=0.01)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="file to write")
    args = parser.parse_args()
    started = time.process_time()
    rng, settings = np.random.default_rng(args.seed), DriftSettings(level=args.level)
    results = {
        "settings": settings.model_dump(),
        "seed": args.seed,
        "false_alarms": [row for size in SIZES for row in false_alarms(rng, size, args.streams, settings)],
        "defects": [defects(rng, size, words, args.streams // 2, settings) for words in DEFECTS for size in SIZES[1:]],
        "delays": [
            delay(rng, size, sign * shift, before, max(20, args.streams // 5), settings)
            for size, shift, sign, before in itertools.product(SIZES, SHIFTS, (1, -1), BEFORE)
        ],
    }
    results["seconds"] = time.process_time() - started
    print(table(results))
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")


def false_alarms(rng: np.random.Generator, size: int, streams: int, settings: DriftSettings) -> list[dict[str, Any]]:
    """Streams that can be exchanged with the calibration."""
    noticed: list[tuple[int, int | None]] = []  # length, part
    first_look = ever = looked = 0
    for stream in range(streams):
        length = LENGTHS[-1] if stream < streams // 3 else LENGTHS[-2]
        drift = begin(rng.normal(size=size), settings)
        looks = []
        for number, score in enumerate(rng.normal(size=length), start=1):
            observe(drift, float(score), key=str(stream))
            if number % settings.window == 0 and number <= LENGTHS[1] and (p := latest_p(drift)) is not None:
                looks.append(p)
        noticed.append((length, drift.noticed))
        first_look += looks[0] <= settings.level
        ever += min(looks) <= settings.level
        looked += 1
    rows = []
    for length in LENGTHS:
        seen = [part for whole, part in noticed if whole >= length]
        alarms = sum(part is not None and part <= length for part in seen)
        rows.append(
            {"good": size, "parts": length, "streams": len(seen), "alarms": alarms, "most": _most(alarms, seen)}
        )
    rows[1] |= {"ks_one_look": first_look / looked, "ks_ten_looks": ever / looked}
    return rows


def defects(rng: np.random.Generator, size: int, words: str, streams: int, settings: DriftSettings) -> dict[str, Any]:
    """Streams of 1,000 parts with some defects."""
    share, clear = DEFECTS[words]
    alarms = 0
    for stream in range(streams):
        scores = rng.normal(size=LENGTHS[1])
        bad = rng.random(scores.size) < share
        scores[bad & (rng.random(scores.size) < clear)] += 8
        unclear = bad & (scores < 4)
        scores[unclear] = rng.uniform(-1, 3, unclear.sum())
        alarms += _run(begin(rng.normal(size=size), settings), scores, stream).noticed is not None
    return {"good": size, "defects": words, "parts": LENGTHS[1], "streams": streams, "alarms": alarms}


def delay(
    rng: np.random.Generator, size: int, shift: float, before: int, streams: int, settings: DriftSettings
) -> dict[str, Any]:
    """Streams that shift after `before` parts."""
    parts, off = [], []
    directed = 0
    for stream in range(streams):
        scores = rng.normal(size=before + AFTER)
        scores[before:] += shift * IQR
        drift = _run(begin(rng.normal(size=size), settings), scores, stream)
        if drift.noticed is not None and drift.noticed > before:
            parts.append(drift.noticed - before)
            off.append(drift.since - before - 1)
            directed += drift.direction == ("up" if shift > 0 else "down")
    return {
        "good": size,
        "shift_iqr": shift,
        "before": before,
        "streams": streams,
        "noticed": len(parts),
        "direction_right": directed,
        "delay": np.quantile(parts, [0.5, 0.9]).tolist() if parts else None,
        "since_off": float(np.median(np.abs(off))) if off else None,
    }


def _run(drift: Drift, scores: NDArray[np.float64], stream: int) -> Drift:
    """Until the alarm."""
    for score in scores:
        observe(drift, float(score), key=str(stream))
        if drift.noticed is not None:
            break
    return drift


def _most(alarms: int, streams: list[int | None]) -> float:
    """Clopper-Pearson, 95 %, one-sided."""
    return float(beta.ppf(0.95, alarms + 1, len(streams) - alarms)) if alarms < len(streams) else 1.0


def table(results: dict[str, Any]) -> str:
    """Markdown."""
    level = results["settings"]["level"]
    lines = [
        f"False alarms at level {level:g} (promised: at most {level:.1%} of the streams, whatever their length)",
        "",
        "| held-out good | parts | streams | false alarms | at most (95 %) | KS, one look | KS, ever in 10 looks |",
        "|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in results["false_alarms"]:
        looks = [f"{row[key]:.1%}" if key in row else "" for key in ("ks_one_look", "ks_ten_looks")]
        alarms = f"{row['alarms']} ({row['alarms'] / row['streams']:.1%})"
        lines.append(
            f"| {row['good']} | {row['parts']} | {row['streams']} | {alarms}"
            f" | {row['most']:.1%} | {looks[0]} | {looks[1]} |"
        )
    lines += ["", "| defects in the stream | held-out good | parts | streams | alarms |", "|---|---:|---:|---:|---:|"]
    for row in results["defects"]:
        alarms = f"{row['alarms']} ({row['alarms'] / row['streams']:.1%})"
        lines.append(f"| {row['defects']} | {row['good']} | {row['parts']} | {row['streams']} | {alarms} |")
    lines += [
        "",
        f"| shift, IQR | held-out good | parts before | noticed within {AFTER} | parts until noticed, median (90 %) "
        "| direction right | error of `since`, median |",
        "|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in results["delays"]:
        delay = "-" if row["delay"] is None else f"{row['delay'][0]:.0f} ({row['delay'][1]:.0f})"
        off = "-" if row["since_off"] is None else f"{row['since_off']:.0f}"
        lines.append(
            f"| {row['shift_iqr']:+g} | {row['good']} | {row['before']} | {row['noticed']} of {row['streams']} "
            f"| {delay} | {row['direction_right']} | {off} |"
        )
    return "\n".join([*lines, "", f"{results['seconds']:.0f} s of one processor."])


if __name__ == "__main__":
    main()
