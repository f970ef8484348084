"""Do the promises hold? Promised against observed false alarms and misses, and how true the probabilities are.

    python benchmarks/coverage.py RUN... [--splits 20] [--levels .05 .1 .2] [--json FILE]

A run's calibrate and test pictures, none of which it was fitted on, are scored once. Then those scores are divided anew
many times: good parts at random into calibrate and test, defects likewise. Thresholds and probabilities come from the
one part and are counted on the other. Prints tables, writes JSON with the scores in it, which a later call reuses.

How to read it. The division is random, so later parts are like those held out, by construction: what can fail here is
the arithmetic, not the assumption that production stays as it is. "above the bound" counts test parts rather than true
shares, and few test parts scatter: beside it stands how often that would happen by chance with this many, where the cut
is an order statistic (beta-binomial, exact for untied scores). The divisions share their pictures, so they scatter less
than so many new data sets would.
"""

import argparse
import hashlib
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from anomaly.calibration import ThresholdName, calibrate, least_good
from anomaly.datasets import read_dataset
from anomaly.errors import DataError
from anomaly.guarantees import Promise, guarantee
from anomaly.hub_data import local_data
from anomaly.model_repo import load_detector
from anomaly.probability import Kind, ProbabilityMap, Temperature, expected_calibration_error, log_loss, reliability
from training.finish import RUN
from training.manifest import Manifest
from training.pictures import load
from training.probability import fit_kind, fit_probability, standard

Scores = dict[str, list[float]]  # {"good": [...], "defects": [...]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished runs")
    parser.add_argument("--splits", type=int, default=20, help="random divisions")
    parser.add_argument("--share", type=float, default=0.5, help="of the parts that calibrate")
    parser.add_argument("--levels", type=float, nargs="+", default=[0.05, 0.1, 0.2], help="false-alarm levels of far")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, help="where the pictures are now; by default where the runs had them")
    parser.add_argument("--json", type=Path, default=Path("runs/coverage.json"))
    args = parser.parse_args()
    known = json.loads(args.json.read_text()) if args.json.is_file() else {}
    results: dict[str, Any] = {}
    for run in args.runs:
        for name, digest, scores in scored(run, args.data, known):
            figures = covered(scores, args.splits, args.share, args.levels, args.seed)
            results[name] = {"run": str(run), "digest": digest, "scores": scores, **figures}
    settings = {"splits": args.splits, "share": args.share, "seed": args.seed}
    results = {name: {**entry, **settings} for name, entry in results.items()}
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(known | results, indent=1) + "\n")
    print(promised_table(results), end="\n\n")
    print(probability_table(results))


# scoring


def scored(run: Path, data: Path | None, known: dict[str, Any]) -> Iterator[tuple[str, str, Scores]]:
    """Name, digest and scores of every category of a run; scores of the same weights and split are taken from `known`.

    Raises:
        DataError: it is no finished run, or a picture is not the one that the run kept apart.
    """
    if not (run / RUN).is_file():
        raise DataError(f"{run} is no finished run: it has no {RUN}")
    recorded = json.loads((run / RUN).read_text())
    for path in sorted(run.glob("manifest*.json")):
        manifest = Manifest.model_validate_json(path.read_bytes())
        name = f"{recorded['member']} on {manifest.category} ({run.name})"
        digest = hashlib.sha256((run / "model.safetensors").read_bytes() + manifest.split_hash.encode()).hexdigest()
        if known.get(name, {}).get("digest") == digest:
            yield name, digest, known[name]["scores"]
        else:
            root, _ = local_data(str(data or recorded["data"]))
            yield name, digest, held_out_scores(run, root, recorded["layout"], manifest)


@torch.no_grad()
def held_out_scores(run: Path, root: Path, layout: Any, manifest: Manifest) -> Scores:
    """Of the calibrate and test pictures, one by one, as they are served."""
    by_path = {sample.relative: sample for sample in read_dataset(root, manifest.category, layout).samples}
    detector = load_detector(run).detector.select(manifest.category)
    found: Scores = {"good": [], "defects": []}
    for entry in manifest.entries:
        if entry.split not in ("calibrate", "test"):
            continue
        sample = by_path.get(entry.path)
        if sample is None or hashlib.sha256(sample.path.read_bytes()).hexdigest() != entry.sha256:
            raise DataError(f"{root}: {entry.path} is not the picture that {run} kept apart; give --data")
        score = float(detector.predict(load(sample.path)).scores[0])
        found["defects" if sample.is_defect else "good"].append(score)
    return found


# dividing and counting


def divided(scores: Sequence[float], share: float, rng: np.random.Generator) -> tuple[list[float], list[float]]:
    """Calibrate and test, at random and disjoint; at least one part each."""
    order = rng.permutation(np.asarray(scores, float))
    first = min(max(1, round(share * len(order))), len(order) - 1)
    return order[:first].tolist(), order[first:].tolist()


def covered(scores: Scores, splits: int, share: float, levels: Sequence[float], seed: int) -> dict[str, Any]:
    """Promised and observed over random divisions.

    Raises:
        DataError: fewer than two good parts or two defects: nothing can be divided.
    """
    if min(len(scores["good"]), len(scores["defects"])) < 2:
        raise DataError(f"{len(scores['good'])} good parts and {len(scores['defects'])} defects cannot be divided")
    counted: dict[str, list[dict[str, Any]]] = defaultdict(list)
    truth: list[dict[str, Any]] = []
    for number in range(splits):
        rng = np.random.default_rng([seed, number])
        good, later_good = divided(scores["good"], share, rng)
        defects, later_defects = divided(scores["defects"], share, rng)
        for level in sorted(levels):
            if len(good) >= least_good(level):
                calibration = calibrate(good, defects, split_hash="", far=level)
                cut = calibration.thresholds["far"].value
                promised = guarantee(calibration, "far")
                counted[f"far {level:g}: false alarms"].append(
                    _row(promised.false_alarms, cut, later_good, ranked=True)
                )
                counted[f"far {level:g}: misses"].append(_row(promised.misses, cut, later_defects))
        calibration = calibrate(good, defects, split_hash="", far=1 / (len(good) + 1))
        names: tuple[ThresholdName, ...] = ("safe", "f1", "f2", "youden")
        for name in names:
            cut, promised = calibration.thresholds[name].value, guarantee(calibration, name)
            counted[f"{name}: misses"].append(_row(promised.misses, cut, later_defects, ranked=name == "safe"))
            counted[f"{name}: false alarms"].append(_row(promised.false_alarms, cut, later_good))
        if (row := _probabilities(good, defects, later_good, later_defects, rng)) is not None:
            truth.append(row)
    return {
        "good": len(scores["good"]),
        "defects": len(scores["defects"]),
        "coverage": {name: _over_splits(rows) for name, rows in counted.items()},
        "probability": _truth_over_splits(truth) if truth else None,
    }


def _row(promised: Promise, cut: float, later: Sequence[float], *, ranked: bool = False) -> dict[str, Any]:
    """`ranked`: the cut is an order statistic of the held-out parts of this side."""
    wrong = sum(score < cut if promised.side == "misses" else score >= cut for score in later)
    return {"promise": promised, "observed": wrong / len(later), "later": len(later), "ranked": ranked}


def _over_splits(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    from scipy.stats import betabinom

    observed = [row["observed"] for row in rows]
    found: dict[str, Any] = {
        "splits": len(rows),
        "held_out": rows[0]["promise"].of,
        "later": rows[0]["later"],
        "calibrate": float(np.mean([row["promise"].count / row["promise"].of for row in rows])),
        "observed": float(np.mean(observed)),
        "standard_error": float(np.std(observed, ddof=1) / math.sqrt(len(rows))) if len(rows) > 1 else None,
        "observed_in_each": observed,
    }
    promises: list[Promise] = [row["promise"] for row in rows]
    if any(p.mean is None or p.upper is None for p in promises):
        return found
    found["promised"] = float(np.mean([p.mean for p in promises]))
    found["bound"] = float(np.mean([p.upper for p in promises]))
    found["above_the_bound"] = float(np.mean([row["observed"] > row["promise"].upper for row in rows]))
    if rows[0]["ranked"]:
        k, n = promises[0].counted_as, promises[0].of  # fixed by the rank: the same in every division
        most = math.floor((promises[0].upper or 1.0) * rows[0]["later"])
        found["above_by_chance"] = float(betabinom.sf(most, rows[0]["later"], k + 1, n - k)) if k < n else 0.0
    return found


def _probabilities(
    good: list[float],
    defects: list[float],
    later_good: list[float],
    later_defects: list[float],
    rng: np.random.Generator,
) -> dict[str, Any] | None:
    """ECE and log loss on test. Before: the plain logistic of the standardised score, which is a temperature of 1."""
    chosen = fit_probability(good, defects)
    if chosen is None:
        return None
    centre, scale = standard(good, defects)
    plain = ProbabilityMap(centre=centre, scale=scale, curve=Temperature(temperature=1.0), prevalence=chosen.prevalence)
    maps = {"before": plain, **{kind: fit_kind(kind, good, defects) for kind in get_args(Kind)}, "chosen": chosen}
    labels = [False] * len(later_good) + [True] * len(later_defects)
    said = {name: [found.of(score) for score in later_good + later_defects] for name, found in maps.items()}
    drawn = rng.uniform(size=(50, len(labels))) < np.array(said["chosen"])
    return {
        "kind": chosen.kind,
        "ece": {name: expected_calibration_error(values, labels) for name, values in said.items()},
        "log_loss": {name: log_loss(values, labels) for name, values in said.items()},
        "by_chance": float(np.mean([expected_calibration_error(said["chosen"], row.tolist()) for row in drawn])),
        "said": said,
        "labels": labels,
    }


def _truth_over_splits(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    names = list(rows[0]["ece"])
    labels = [label for row in rows for label in row["labels"]]
    return {
        "splits": len(rows),
        "later": len(rows[0]["labels"]),
        "kinds": dict(Counter(row["kind"] for row in rows)),
        "ece": {name: _spread([row["ece"][name] for row in rows]) for name in names},
        "log_loss": {name: _spread([row["log_loss"][name] for row in rows]) for name in names},
        "ece_by_chance": float(np.mean([row["by_chance"] for row in rows])),
        "reliability": {  # over all divisions together
            name: [
                {"parts": b.parts, "said": b.said, "found": b.found}
                for b in reliability([p for row in rows for p in row["said"][name]], labels)
            ]
            for name in ("before", "chosen")
        },
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"mean": float(np.mean(values)), "deviation": float(np.std(values, ddof=1)) if len(values) > 1 else 0.0}


# tables, in Markdown


def promised_table(results: dict[str, Any]) -> str:
    lines = [
        "| run | what | held out | later | on calibrate | promised on average | observed | ± s.e. "
        "| bound (95 %) | divisions above it | by chance |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for run, entry in results.items():
        for what, row in entry["coverage"].items():
            promised = "promised" in row
            cells = [
                *(str(row[key]) for key in ("held_out", "later")),
                _percent(row["calibrate"]),
                _percent(row["promised"]) if promised else "nothing",
                _percent(row["observed"]),
                "-" if row["standard_error"] is None else _percent(row["standard_error"]),
                _percent(row["bound"]) if promised else "nothing",
                _percent(row["above_the_bound"]) + f" of {row['splits']}" if promised else "-",
                _percent(row["above_by_chance"]) if "above_by_chance" in row else "-",
            ]
            lines.append(f"| {run} | {what} | {' | '.join(cells)} |")
    return "\n".join(lines)


def probability_table(results: dict[str, Any]) -> str:
    names = ["before", *get_args(Kind), "chosen"]
    lines = [
        f"| run | test parts | ECE {' | ECE '.join(names)} | by chance | log loss before | log loss chosen | chosen |",
        "|---|---:|" + "---:|" * (len(names) + 3) + "---|",
    ]
    for run, entry in results.items():
        found = entry["probability"]
        if found is None:
            lines.append(f"| {run} | too few parts for a probability |" + " |" * (len(names) + 4))
            continue
        eces = [f"{found['ece'][name]['mean']:.3f} ± {found['ece'][name]['deviation']:.3f}" for name in names]
        losses = [f"{found['log_loss'][name]['mean']:.3f}" for name in ("before", "chosen")]
        kinds = ", ".join(f"{kind} {count}" for kind, count in found["kinds"].items())
        cells = [str(found["later"]), *eces, f"{found['ece_by_chance']:.3f}", *losses, kinds]
        lines.append(f"| {run} | {' | '.join(cells)} |")
    lines += [
        "",
        "ECE in 10 bins of equal mass, mean ± deviation over the divisions. Before: the logistic of the standardised "
        "score, 1 / (1 + exp(-z)). By chance: the ECE of labels drawn from the chosen probabilities themselves.",
    ]
    return "\n".join(lines)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


if __name__ == "__main__":
    main()
