"""`make bench`: what the project must show, measured in one run and held against its floors.

    python benchmarks/bench.py [peer ensemble start emissions growth] [--images N] [--rounds N]

Writes benchmarks/results.json and, between the markers <!-- bench --> and <!-- /bench --> of the README, the table.
The part `peer` needs $VIGIE_DATA and $VIGIE_WEIGHTS (or ../shared), and benchmarks/peer/.venv, which `make bench` sets
up; it takes about half an hour, most of it the peer's coreset of 10 %. For a glance: --images 30 --rounds 1.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))
BEGIN, END = "<!-- bench -->", "<!-- /bench -->"
METHODS = {  # and the floor of the time to fit
    "patch_knn_1": ("`patch_knn` 1 %", 20.0),
    "patch_knn_10": ("`patch_knn` 10 %", None),
    "mahalanobis": ("`mahalanobis` (position)", 10.0),
}
Row = dict[str, Any]
T = TypeVar("T")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=list(PARTS), metavar="part")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("VIGIE_DATA", ROOT / "../shared/data")))
    parser.add_argument("--weights", type=Path, default=_weights(), help="the MobileNetV2 trunk")
    parser.add_argument("--peer", type=Path, default=ROOT / "benchmarks/peer/.venv/bin/python")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--images", type=int, help="to fit on and to score, at most (20 or more); by default all")
    parser.add_argument("--rounds", type=int, default=3, help="of scoring, and processes started")
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks/results.json")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md")
    args = parser.parse_args()
    found: dict[str, list[Row]] = json.loads(args.json.read_text()) if args.json.is_file() else {}
    for part in args.parts:
        rows = PARTS[part](args)
        if not rows:
            continue
        measured = {each["measure"] for each in rows}  # a run of some methods keeps what is known of the others
        found[part] = [each for each in found.get(part, []) if each["measure"] not in measured] + rows
        args.json.write_text(json.dumps(found, indent=1) + "\n")
        print(table(rows), flush=True)
    if args.readme.is_file():
        whole = table([row for part in PARTS for row in found.get(part, [])])
        args.readme.write_text(between_markers(args.readme.read_text(), whole))
    return 0


# The parts: each gives rows -------------------------------------------------------------------------------------------


def peer(args: argparse.Namespace) -> list[Row]:
    """The strongest open library against us: the same files, the same trunk, two threads, in turn."""
    from anomaly.datasets import read_dataset

    data = args.data / "mvtec_transistor"
    for what, path in (("pictures", data), ("weights", args.weights), ("virtual environment of the peer", args.peer)):
        if path is None or not path.exists():
            print(f"peer: skipped, no {what} ({path}); see --help", file=sys.stderr)
            return []
    dataset = read_dataset(data, "transistor")
    train, test = spread(dataset.train, args.images), spread(dataset.test, args.images)
    sides = {
        "peer": [args.peer, ROOT / "benchmarks/peer/run.py"],
        "ours": [sys.executable, ROOT / "benchmarks/ours.py"],
    }
    rows = []
    with TemporaryDirectory(prefix="vigie-bench-") as name:
        folder = Path(name)
        for pictures, what in ((train, "train"), (test, "test"), (test[:1], "one")):
            (folder / f"{what}.json").write_text(json.dumps([str(sample.path.resolve()) for sample in pictures]))
        for method in args.methods:
            found = {who: fitted(command, method, args.weights, folder / who) for who, command in sides.items()}
            for _ in range(args.rounds):
                for who, command in sides.items():  # in turn
                    scored(command, folder / who, found[who])
            pictures = "" if args.images is None else f" ({len(train)} pictures to fit)"
            rows += rows_of(method, found, [sample.is_defect for sample in test], pictures)
    return rows


def fitted(command: Sequence[object], method: str, weights: Path, folder: Path) -> dict[str, Any]:
    """Fits; what it took, and room for the rounds of scoring."""
    out = folder / method
    out.mkdir(parents=True)
    words = ["fit", "--method", method, "--weights", weights, "--out", out, "--pictures", folder.parent / "train.json"]
    told = run([*command, *words])
    model = next(iter(sorted(out.rglob("model.pt"))), out)  # the peer's export; ours is a folder
    return {**json.loads(told[-1][1]), "model": model, "first_s": [], "ms": []}


def scored(command: Sequence[object], folder: Path, side: dict[str, Any]) -> None:
    """One process that scores the test pictures; the first score's time runs from its start.

    A process before it brings its libraries back into the machine's cache, out of which the other side's push them.
    """
    words = [*command, "score", "--model", side["model"], "--pictures"]
    run([*words, folder.parent / "one.json"])
    lines = run([*words, folder.parent / "test.json"])
    (first_s, _), (_, last) = lines[-2:]
    told = json.loads(last)
    side["first_s"].append(first_s)
    side["ms"] += told["ms"][1:]  # the first one warms up
    side["scores"] = told["scores"]


def rows_of(method: str, sides: dict[str, dict[str, Any]], defect: Sequence[bool], pictures: str = "") -> list[Row]:
    from sklearn.metrics import roc_auc_score

    name, fit_floor = METHODS[method]
    name += pictures
    ours, theirs = sides["ours"], sides["peer"]
    area = {who: float(roc_auc_score(defect, side["scores"])) for who, side in sides.items()}
    return [
        row(f"{name}, one image, ms", median(ours["ms"]), median(theirs["ms"]), ratio=0.45),
        row(f"{name}, image AUROC", area["ours"], area["peer"], least=area["peer"]),
        row(f"{name}, fit, s", ours["fit_s"], theirs["fit_s"], most=fit_floor),
        row(f"{name}, process start to first score, s", median(ours["first_s"]), median(theirs["first_s"]), most=3.5),
        row(f"{name}, memory after fit, MB", ours["resident_mb"], theirs["resident_mb"], most=1200),
        row(f"{name}, peak memory of the fit, MB", ours["peak_mb"], theirs["peak_mb"]),
    ]


def ensemble(args: argparse.Namespace) -> list[Row]:
    """A whole ensemble against the sum of its members, each on its own: of six on one trunk, and the starter.

    The floor is of six on one trunk. Of the starter two networks and an autoencoder have nothing to share.
    """
    data = args.data / "mvtec_transistor"
    rows = []
    floors = {"MobileNetV2": 0.5}
    with TemporaryDirectory(prefix="vigie-bench-") as name:
        folder = Path(name)
        sources = {"starter": ROOT / "starter"}
        if args.weights is not None and data.exists():
            sources = {"MobileNetV2": on_one_trunk(data, args.weights, folder), **sources}
        for source, inspector in sources.items():
            out = folder / "latency.json"
            words = ["--inspector", inspector, "--images", args.images or 30, "--json", out]
            run([sys.executable, ROOT / "benchmarks/latency.py", *words])
            found = json.loads(out.read_text())
            ratios, count = found["shared_over_alone"], len(found["members"])
            rows += [
                row(f"{count} members ({source}) / sum of them alone, {what}", ratios[what], most=floors.get(source))
                for what in ("time", "energy")
            ]
    return rows


def on_one_trunk(data: Path, weights: Path, folder: Path) -> Path:
    """An inspector of all members that stand on given weights, made by their commands."""
    common = ["--data", data, "--category", "transistor", "--weights", weights, "--protocol", "supervised"]
    ways = [["fit_patch_knn"], ["fit_mahalanobis"], ["fit_mahalanobis", "--pooling", "global"]]
    ways += [["train_classical", "--head", head] for head in ("svm", "forest", "xgboost")]
    runs = []
    for number, (script, *words) in enumerate(ways):
        runs.append(folder / f"run{number}")
        run([sys.executable, "-m", f"training.{script}", *common, *words, "--out", runs[-1]])
    out = folder / "released"
    run([sys.executable, "-m", "training.release", "--category", "transistor", "--members", *runs, "--out", out])
    return out


def start(args: argparse.Namespace) -> list[Row]:
    """The app and the command line from cold."""
    from benchmarks.start import measure

    return [row(f"{found['measure']}, s", found["median_s"], most=found["floor_s"]) for found in measure(args.rounds)]


def emissions(args: argparse.Namespace) -> list[Row]:
    """What measuring costs: an empty measured block, against 2 ms or 2 % of an inspection, whichever is more."""
    from anomaly import images
    from anomaly.loading import load_inspector
    from anomaly.settings import STARTER

    inspector = load_inspector(str(STARTER), "v2")
    picture = images.read(STARTER / "examples/1-good.png", inspector.file.limits)
    inspector.meter.warm_up()
    inspector.inspect(picture)
    empty, whole = [], []
    for _ in range(args.images or 30):
        started = time.perf_counter()
        with inspector.meter.measure():
            pass
        empty.append((time.perf_counter() - started) * 1e3)
        started = time.perf_counter()
        inspector.inspect(picture)
        whole.append((time.perf_counter() - started) * 1e3)
    return [row("emissions measurement, ms an inspection", median(empty), most=max(2.0, 0.02 * median(whole)))]


def growth(args: argparse.Namespace) -> list[Row]:
    """Cost of an image of 5,000 against one of 500, and memory."""
    with TemporaryDirectory() as name:
        out = Path(name) / "growth.json"
        few = args.images or 500
        run([sys.executable, ROOT / "benchmarks/score_growth.py", "--images", few, 10 * few, "--json", out])
        found = json.loads(out.read_text())
    whole, processor = found["growth"]["median_part_s"], found["growth"]["processor_s"]
    return [
        row(f"an image of {10 * few:,} / of {few}, time", whole, most=1.1),
        row(f"an image of {10 * few:,} / of {few}, processor time", processor, most=1.1),
        row(f"memory, from the first to the last of {10 * few:,}, MB more", found["memory_growth_mb"], most=20.0),
    ]


PARTS: dict[str, Callable[[argparse.Namespace], list[Row]]] = {
    "peer": peer,
    "ensemble": ensemble,
    "start": start,
    "emissions": emissions,
    "growth": growth,
}


# Rows and tables ------------------------------------------------------------------------------------------------------


def row(
    measure: str,
    ours: float,
    theirs: float | None = None,
    *,
    most: float | None = None,
    least: float | None = None,
    ratio: float | None = None,
) -> Row:
    """One line of the table. The floor is the most or the least that ours may be, or the most of ours / theirs."""
    over = None if theirs is None else ours / theirs
    met = None
    floor = None
    if most is not None:
        met, floor = ours <= most, f"≤ {most:.4g}"
    elif least is not None:
        met, floor = ours >= least, "not below"
    elif ratio is not None and over is not None:
        met, floor = over <= ratio, f"≤ {ratio:g} x"
    return {"measure": measure, "peer": theirs, "ours": ours, "ratio": over, "floor": floor, "met": met}


def table(rows: Sequence[Row]) -> str:
    """Markdown."""

    def cell(value: object) -> str:
        if isinstance(value, bool):
            return "met" if value else "**not met**"
        return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)

    names = ("measure", "peer", "ours", "ratio", "floor", "met")
    lines = ["| measure | anomalib 2.7 | ours | ratio | floor | |", "|---|---:|---:|---:|---:|---|"]
    return "\n".join([*lines, *(f"| {' | '.join(cell(found[name]) for name in names)} |" for found in rows)])


def between_markers(text: str, found: str) -> str:
    """The text with the table in the place of what stood between the markers; as it is where there are none."""
    if BEGIN not in text or END not in text:
        return text
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{found}\n{END}{rest.partition(END)[2]}"


def spread(items: Sequence[T], most: int | None) -> list[T]:
    """At most so many, evenly from the whole list: the first ones would all be of one kind of defect."""
    if most is None or len(items) <= most:
        return list(items)
    return [items[i * len(items) // most] for i in range(most)]


def run(command: Sequence[object]) -> list[tuple[float, str]]:
    """Lines of its stdout, each with the seconds since the process was started."""
    words = list(map(str, command))
    print("$", *words, file=sys.stderr, flush=True)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    started = time.perf_counter()
    with subprocess.Popen(words, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [(time.perf_counter() - started, line) for line in process.stdout]
    if process.returncode:
        raise SystemExit(f"failed ({process.returncode}): {' '.join(words)}")
    return lines


def _weights() -> Path | None:
    if given := os.environ.get("VIGIE_WEIGHTS"):
        return Path(given)
    return next(iter(sorted((ROOT / "../shared/weights").glob("*.safetensors"))), None)


if __name__ == "__main__":
    sys.exit(main())
