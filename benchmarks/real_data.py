"""The figures that the detectors stand for, on real pictures and on drawn cables. Prints tables, writes JSON.

    python benchmarks/real_data.py [transistor shots casting deeppcb cables]

Needs $VIGIE_DATA (or ../shared/data) and an ImageNet trunk in $VIGIE_WEIGHTS (or ../shared/weights). Every run is a
training command in a process of its own, so that its time and its peak of memory are its own; finished runs below --out
are taken as they are. Test pictures are scored once a run; nothing here chooses.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SHOTS = (1, 2, 4, 8, 16)
SEEDS = 3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=list(PARTS), metavar="part")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("VIGIE_DATA", ROOT / "../shared/data")))
    parser.add_argument("--weights", type=Path, default=_weights(), help="an ImageNet trunk")
    parser.add_argument("--out", type=Path, default=ROOT / "runs/real_data")
    args = parser.parse_args()
    if not args.data.is_dir() or args.weights is None or not args.weights.is_file():
        print(f"skipped: no real pictures in {args.data}, or no weights; set VIGIE_DATA and VIGIE_WEIGHTS")
        return 0
    found: dict[str, Any] = {}
    results = args.out / "results.json"
    if results.is_file():
        found = json.loads(results.read_text())
    for part in args.parts:
        found[part] = PARTS[part](args.data, args.weights, args.out)
        args.out.mkdir(parents=True, exist_ok=True)
        results.write_text(json.dumps(found, indent=1) + "\n")
    return 0


def transistor(data: Path, weights: Path, out: Path) -> list[dict[str, Any]]:
    """Good pictures only, three seeds: each seed divides the pictures anew."""
    rows = []
    for member, flags in ONE_CLASS.items():
        folder = out / "transistor" / member
        for seed in range(SEEDS):
            run(data / "mvtec_transistor", "transistor", folder / f"seed{seed}", [*flags, "--seed", seed], weights)
        runs = [read(folder / f"seed{seed}") for seed in range(SEEDS)]
        rows.append({"member": member, **spread(runs, AREAS), **spread(runs, COSTS)})
    table("mvtec_transistor, mvtec protocol, mean ± deviation of three seeds", rows)
    return rows


def shots(data: Path, weights: Path, out: Path) -> list[dict[str, Any]]:
    """As few good pictures as this, three draws each."""
    rows = []
    for member, flags in FEW_SHOT.items():
        for count in SHOTS:
            folder = out / "shots" / member / str(count)
            few = [*flags, "--shots", count]
            for seed in range(SEEDS):
                run(data / "mvtec_transistor", "transistor", folder / f"seed{seed}", [*few, "--seed", seed], weights)
            runs = [read(folder / f"seed{seed}") for seed in range(SEEDS)]
            rows.append({"member": member, "shots": count, **spread(runs, AREAS)})
    table("mvtec_transistor, few shots, mean ± deviation of three draws", rows)
    return rows


def casting(data: Path, weights: Path, out: Path) -> list[dict[str, Any]]:
    """Labelled castings; the test part is the data's own."""
    rows = []
    for member, flags in OF_CASTING.items():
        folder = out / "casting" / member
        run(data / "casting", "casting", folder, flags, weights)
        rows.append({"member": member, **decided(read(folder))})
    manifest = json.loads((out / "casting" / next(iter(OF_CASTING)) / "manifest.json").read_text())
    table("casting, at the threshold f1 of the calibration split", rows)
    print(f"near-duplicates across splits: {len(manifest['near_duplicates'])}; dropped: {len(manifest['dropped'])}\n")
    return rows


def deeppcb(data: Path, weights: Path, out: Path) -> list[dict[str, Any]]:
    """100 defective boards to develop on, 50 to test; the detectors of good pictures on the data's own split."""
    rows = []
    for member, flags in LOCALISERS.items():
        folder = out / "deeppcb" / member
        run(data / "deeppcb", "deeppcb", folder, flags, weights)
        boxes = read(folder)["test"]["levels"]["boxes"]
        rows.append({"member": member, **decided(read(folder)), "mAP@.5": boxes["map_50"], "mAP": boxes["map_50_95"]})
    for member, flags in ONE_CLASS.items():
        folder = out / "deeppcb" / member
        run(data / "deeppcb", "deeppcb", folder, flags, weights)
        rows.append({"member": member, **decided(read(folder)), "mAP@.5": None, "mAP": None})
    table("deeppcb", rows)
    return rows


def cables(data: Path, weights: Path, out: Path) -> list[dict[str, Any]]:
    """Drawn cables, nine classes, supervised protocol, every detector; composite score by the report."""
    pictures = out / "cables" / "data"
    if not pictures.is_dir():
        flags = CABLES
        subprocess.run(
            [sys.executable, "-m", "training.synthetic_cable", "--out", pictures, *flags], check=True, cwd=ROOT
        )
    runs = []
    for member, flags in {**ONE_CLASS, **SUPERVISED, **OF_CABLES}.items():
        folder = out / "cables" / member
        run(pictures, "cable", folder, [*flags, "--protocol", "supervised"], weights)
        runs.append(folder)
    report = out / "cables" / "report"
    command = [sys.executable, "-m", "training.report", *runs, "--data", pictures, "--out", report]
    subprocess.run(list(map(str, command)), check=True, cwd=ROOT)
    rows = []
    for folder in runs:
        metrics = read(folder)
        level = metrics["test"]["levels"]["type"]
        rows.append({"member": metrics["member"], **decided(metrics), "macro F1": level["macro_f1"]})
    table("synthetic cables, supervised protocol, nine classes", rows)
    print(f"composite ranking: {report / 'report.html'}\n")
    return rows


# Commands and tables -------------------------------------------------------------------------------------------------


def run(data: Path, category: str, out: Path, flags: Sequence[object], weights: Path) -> None:
    """One training command; its wall time and peak of memory go to benchmark.json beside its figures."""
    module, *rest = flags
    common = ["--data", data, "--category", category, "--out", out]
    trunk = [] if "baseline_cnn" in rest else ["--weights", weights]
    command = [sys.executable, "-m", f"training.{module}", *common, *trunk, *rest]
    if (out / "run.json").is_file():
        return
    started = time.perf_counter()
    print(" ".join(map(str, command)), file=sys.stderr, flush=True)
    process = subprocess.Popen(list(map(str, command)), cwd=ROOT, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"failed: {' '.join(map(str, command))}")
    note = {
        "seconds": time.perf_counter() - started,
        "peak_mb": usage.ru_maxrss / 1024,
        "command": list(map(str, rest)),
    }
    (out / "benchmark.json").write_text(json.dumps(note, indent=1) + "\n")


def read(folder: Path) -> dict[str, Any]:
    metrics: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    timed = folder / "benchmark.json"  # a run that was made by hand has none
    metrics["benchmark"] = json.loads(timed.read_text()) if timed.is_file() else {"seconds": None, "peak_mb": None}
    return metrics


AREAS = {"AUROC": lambda m: m["test"]["image_auroc"], "AU-PRO": lambda m: m["test"]["au_pro"]}
COSTS = {
    "fit s": lambda m: m["training"]["duration_s"],
    "whole run s": lambda m: m["benchmark"]["seconds"],
    "peak MB": lambda m: m["benchmark"]["peak_mb"],
}


def spread(runs: Sequence[Mapping[str, Any]], figures: Mapping[str, Any]) -> dict[str, str | None]:
    from statistics import fmean, stdev

    found: dict[str, str | None] = {}
    for name, figure in figures.items():
        values = [figure(metrics) for metrics in runs]
        missing = any(value is None for value in values)
        found[name] = None if missing else f"{fmean(values):.4g} ± {stdev(values):.2g}"
    return found


def decided(metrics: Mapping[str, Any]) -> dict[str, Any]:
    test = metrics["test"]
    count = test["tp"] + test["fp"] + test["fn"] + test["tn"]
    return {
        "AUROC": test["image_auroc"],
        "AU-PRO": test["au_pro"],
        "accuracy": (test["tp"] + test["tn"]) / count,
        "threshold": test["threshold"],
        **{key: test[key] for key in ("tp", "fp", "fn", "tn")},
        "fit s": metrics["training"]["duration_s"],
        "median ms": test["latency_ms"]["median"],
        "mJ": test["energy_mj"],
    }


def table(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    def cell(value: object) -> str:
        return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)

    print(f"## {title}\n\n| {' | '.join(rows[0])} |\n|{'---|' * len(rows[0])}")
    for row in rows:
        print(f"| {' | '.join(cell(value) for value in row.values())} |")
    print(flush=True)


def _weights() -> Path | None:
    if given := os.environ.get("VIGIE_WEIGHTS"):
        return Path(given)
    return next(iter(sorted((ROOT / "../shared/weights").glob("*.safetensors"))), None)


ONE_CLASS: dict[str, list[object]] = {
    "mahalanobis": ["fit_mahalanobis"],
    "mahalanobis_global": ["fit_mahalanobis", "--pooling", "global"],
    "patch_knn": ["fit_patch_knn"],
    "autoencoder": ["train_autoencoder", "--image-size", 128, "--width", 16, "--epochs", 15],
}
FEW_SHOT = {name: ONE_CLASS[name] for name in ("mahalanobis", "patch_knn")}
SUPERVISED: dict[str, list[object]] = {
    "classifier": ["train_classifier", "--epochs", 8],
    "classical_svm": ["train_classical", "--head", "svm"],
    "classical_forest": ["train_classical", "--head", "forest"],
    "classical_xgboost": ["train_classical", "--head", "xgboost"],
}
# of casting: a round part is as good when it is mirrored or turned
OF_CASTING = SUPERVISED | {
    "classical_svm": [*SUPERVISED["classical_svm"], "--copies", "dihedral"],
    "classical_forest": [*SUPERVISED["classical_forest"], "--copies", "flips"],
    "classical_xgboost": [*SUPERVISED["classical_xgboost"], "--copies", "dihedral"],
}
SCRATCH: list[object] = ["train_classifier", "--arch", "baseline_cnn"]
# of cables: drawn defects are small
BRIEF: list[object] = ["train_classifier", "--image-size", 192, "--phases", 10, 5, 0]
OF_CABLES: dict[str, list[object]] = {
    "classifier": ["train_classifier", "--image-size", 256],
    "baseline_cnn": [*SCRATCH, "--image-size", 128, "--width", 0.25, "--epochs", 40],
    # the two heads at the same small budget
    "classifier_plain": [*BRIEF, "--head", "plain", "--member", "classifier_plain"],
    "classifier_attention": [*BRIEF, "--head", "attention", "--member", "classifier_attention"],
    "localiser": ["train_localiser", "--image-size", 256, "--crop", 256, "--crops", 1, "--epochs", 5],
}
LOCALISER: list[object] = ["train_localiser", "--protocol", "supervised", "--test-share", 0.3333, "--symmetries", "all"]
LOCALISER += ["--epochs", 16, "--box-labels", "open", "short", "mousebite", "spur", "copper", "pin-hole"]
CABLES = ["--train-good", "900", "--train-per-defect", "240", "--test-good", "100", "--test-per-defect", "10"]
CABLES += ["--seed", "11"]
# a board's design is in its name: 77000098.jpg; designs of the test are not trained on
LOCALISERS = {"localiser": LOCALISER, "localiser_by_design": [*LOCALISER, "--group-regex", r"(\d{5})\d{3}\.jpg$"]}
PARTS = {"transistor": transistor, "shots": shots, "casting": casting, "deeppcb": deeppcb, "cables": cables}

if __name__ == "__main__":
    sys.exit(main())
