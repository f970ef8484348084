"""One script several times: `--seeds 3`, or every fold of `--protocol kfold`; mean and standard deviation at the end.

Each run is whole: a folder of its own with card, manifest and figures, and what was finished before a kill is not done
again. The deviation is the sample's (n - 1), between seeds that divide the data anew each, not a standard error.
"""

import dataclasses
import json
import statistics
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from anomaly.errors import DataError

if TYPE_CHECKING:
    from training.arguments import DataArgs

Args = TypeVar("Args", bound="DataArgs")

REPEATS = "repeats.json"
FIGURES = ("image_auroc", "au_pro", "pixel_auroc", "accuracy", "recall")


def is_repeated(args: "DataArgs") -> bool:
    """Whether these arguments mean several runs."""
    return args.seeds > 1 or (args.protocol == "kfold" and args.fold is None)


def runs_of(args: Args) -> list[Args]:
    """What these arguments mean, run by run: one a seed and fold, each in a folder of its own.

    Raises:
        DataError: --push with several: which of them should be the pushed one?
    """
    if not is_repeated(args):
        return [args]
    if getattr(args, "push", None):
        raise DataError("--push goes with one run: choose a seed (and a fold) and push that one")
    found = []
    for seed in range(args.seed, args.seed + args.seeds):
        for fold in _folds(args):
            name = f"seed{seed}" if fold is None or args.protocol != "kfold" else f"seed{seed}-fold{fold}"
            found.append(dataclasses.replace(args, seed=seed, seeds=1, fold=fold, out=args.out / name))
    return found


def repeat(main: Callable[[Args], None], args: Args) -> dict[str, Any]:
    """Runs a script once a seed and fold, writes OUT/repeats.json and prints the table.

    Raises:
        DataError: as `runs_of`.
    """
    folders = []
    for one in runs_of(args):
        main(one)
        folders.append(one.out)
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    for folder in folders:
        for path in sorted({folder / "metrics.json", *folder.glob("runs/*/metrics.json")}):
            if path.is_file():
                _collect(json.loads(path.read_text()), found)
    table = {
        f"{category}: {member}" if len(found) > 1 else member: {
            key: {"mean": statistics.fmean(v), "std": statistics.stdev(v) if len(v) > 1 else None, "runs": v}
            for key, v in values.items()
        }
        for category, members in found.items()
        for member, values in members.items()
    }
    summary = {"runs": [folder.name for folder in folders], "members": table}
    (args.out / REPEATS).write_text(json.dumps(summary, indent=1) + "\n")
    for member, figures in table.items():
        words = [
            f"{key} {v['mean']:.4f}" + (f" ± {v['std']:.4f}" if v["std"] is not None else "")
            for key, v in figures.items()
        ]
        print(f"{member}: {', '.join(words)} (n = {len(folders)})")
    return summary


def _spread(mean: float, std: float | None) -> str:
    return f"{mean:.4f}" if std is None else f"{mean:.4f} ± {std:.4f}"


def _folds(args: "DataArgs") -> Iterator[int | None]:
    if args.protocol == "kfold" and args.fold is None:
        yield from range(args.folds)
    else:
        yield args.fold


def _collect(metrics: dict[str, Any], found: dict[str, dict[str, dict[str, list[float]]]]) -> None:
    """Adds one run's test figures, by category and member; a figure that the data does not give is left out."""
    tests = {c: f["test"] for c, f in metrics.get("by_category", {}).items()} or {metrics["category"]: metrics["test"]}
    for category, test in tests.items():
        if test is None:
            continue
        values = dict(test)
        decided = test["tp"] + test["fp"] + test["fn"] + test["tn"]
        defects = test["tp"] + test["fn"]
        values["accuracy"] = (test["tp"] + test["tn"]) / decided if decided else None
        values["recall"] = test["tp"] / defects if defects else None
        for key in FIGURES:
            if values.get(key) is not None:
                found.setdefault(category, {}).setdefault(metrics["member"], {}).setdefault(key, []).append(values[key])
