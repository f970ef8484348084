"""A new revision from new good parts, without training: the same weights byte for byte, other calibration.

The good scores are those of the new parts, and so are p-values, `far` and the scale of heatmaps. What needs defects
(f1, f2, youden, safe, probabilities) is set anew from them and from the defect scores that were held out before: that
is right as far as defects score as they did, which is said. The old revision, its tag and its files stay.

One run:       python -m training.recalibrate --run RUN --good DIR --out NEW_RUN
An inspector:  python -m training.recalibrate --inspector SOURCE --good DIR [--out CACHE] --tag v3
"""

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from anomaly.calibration import CalibrationFile
from anomaly.cards import write_card
from anomaly.datasets import GOOD, Dataset
from anomaly.emissions import EmissionsMeter
from anomaly.errors import DataError
from anomaly.evaluation import versions
from anomaly.figures import Figures, ModelMetrics
from anomaly.inspector import Inspector, InspectorFile, Member, MemberRef
from anomaly.model_repo import load_detector
from anomaly.policy import Policy, Rule
from training.arguments import flag, run
from training.data import data_figures
from training.finish import RUN, Split, manifest_path
from training.manifest import Manifest, verify_disjoint
from training.metrics import measured
from training.new_parts import NewParts, check_new, in_words, new_parts, recalibrated, words_of, write_model
from training.recalibrate_inspector import recalibrate_inspector
from training.release import kept_apart_samples

_NOWHERE = MemberRef(name="run", repo="local/run", commit="0" * 40, sha256="0" * 64)


@dataclass(frozen=True, kw_only=True)
class Args:
    good: Path = flag("folder of pictures of good parts, none of them trained on")
    run: Path | None = flag("finished run to calibrate anew", None)
    inspector: str | None = flag("or an inspector: a Hub repo id or a folder in the Hub's cache layout", None)
    revision: str | None = flag("of the inspector (default main)", None)
    out: Path | None = flag("folder of the new run; for an inspector by default where it is", None)
    category: str | None = flag("for a run over several", None)
    tag: str | None = flag("of the new revision of an inspector", None)
    data: Path | str | None = flag("to measure the test pictures of (default for a run: where it had them)", None)
    layout: Literal["auto", "folder", "mvtec", "visa"] = flag("of that data", "auto")
    manifests: tuple[Path, ...] = flag("manifest.json of an inspector's runs, to refuse what was trained on", ())
    country: str = flag("ISO 3166 alpha-3 code, for the estimate of emissions", "USA")
    cpu_power_w: float | None = flag("rated CPU power where it is known", None)


def main(args: Args) -> None:
    if (args.run is None) == (args.inspector is None):
        raise DataError("give either --run RUN or --inspector SOURCE")
    parts = new_parts(args.good)
    if args.run is not None:
        recalibrate_run(args, args.run, parts)
    else:
        assert args.inspector is not None
        recalibrate_inspector(
            args.inspector,
            parts,
            revision=args.revision,
            out=args.out,
            tag=args.tag,
            data=args.data,
            layout=args.layout,
            manifests=args.manifests,
            meter=EmissionsMeter(args.country, args.cpu_power_w),
        )


def recalibrate_run(args: Args, folder: Path, parts: NewParts) -> None:
    """Writes a new finished run beside the old one."""
    if not (folder / RUN).is_file():
        raise DataError(f"{folder} is no finished run: it has no {RUN}")
    if args.out is None or (args.out.exists() and any(args.out.iterdir())):
        raise DataError(f"give --out with a new folder for the run, not {args.out}: the old one stays as it is")
    loaded = load_detector(folder)
    known = loaded.calibrations.categories
    category = args.category or (next(iter(known)) if len(known) == 1 else None)
    if category not in known:
        raise DataError(f"{folder} is calibrated for {sorted(known)}, not for {category!r}: say which with --category")
    manifests = {
        name: Manifest.model_validate_json(manifest_path(folder, name, tuple(known)).read_bytes()) for name in known
    }
    check_new(parts, manifests[category])
    manifests[category] = _with(manifests[category], parts)
    detector = loaded.detector.select(category)
    new = recalibrated(detector, known[category], parts, manifests[category].split_hash)
    recorded = json.loads((folder / RUN).read_text())
    member = Member(_NOWHERE.model_copy(update={"name": recorded["member"]}), detector, new)
    test = _tested(args, folder, member, category)
    metrics = ModelMetrics.model_validate_json((folder / "metrics.json").read_bytes())
    metrics = _measured_anew(metrics, category, manifests, test, words_of(new, parts))
    args.out.mkdir(parents=True, exist_ok=True)
    write_model(args.out, folder, CalibrationFile(categories={**known, category: new}))
    for name, manifest in manifests.items():
        manifest_path(args.out, name, tuple(known)).write_text(manifest.model_dump_json(indent=1) + "\n")
    (args.out / "metrics.json").write_text(metrics.model_dump_json(indent=1) + "\n")
    write_card(args.out)
    identity = hashlib.sha256(f"{recorded['identity']} {new.split_hash}".encode()).hexdigest()
    (args.out / RUN).write_text(json.dumps({**recorded, "identity": identity}, indent=1) + "\n")
    print("\n".join([*in_words(recorded["member"], known[category], new), f"{args.out}: the same weights as {folder}"]))


def _with(manifest: Manifest, parts: NewParts) -> Manifest:
    """The manifest with the new good pictures in place of the old ones that calibrated."""
    kept = [entry for entry in manifest.entries if entry.split != "calibrate" or entry.label != GOOD]
    paths = {entry.path for entry in kept}
    entries = tuple(sorted([*kept, *parts.entries], key=lambda entry: entry.path))
    near = tuple(pair for pair in manifest.near_duplicates if {pair.path, pair.other} <= paths)
    changed = manifest.model_copy(update={"entries": entries, "near_duplicates": near})
    verify_disjoint(changed)
    return changed


def _tested(args: Args, folder: Path, member: Member, category: str) -> Figures | None:
    """On the test pictures that the run kept apart; None where they are not to be had."""
    try:
        samples = kept_apart_samples(folder, category, args.data, args.layout)
    except DataError as error:
        if args.data is not None:
            raise
        print(f"not measured on test: {error}")
        return None
    name = member.ref.name
    rule = Rule(kind="any", members=(name,), threshold="f1" if "f1" in member.calibration.thresholds else "far")
    alone = Policy(name="alone", description={}, rule=rule, required=(name,))
    file = InspectorFile(
        category=category, labels=(GOOD,), members=(member.ref,), policies=(alone,), default_policy="alone"
    )
    meter = EmissionsMeter(args.country, args.cpu_power_w)
    inspector = Inspector(file, [member], source=str(folder), revision="run", commit="0" * 40, meter=meter)
    return measured(inspector, samples, data=folder.name, split="test", progress=True).members[name]


def _measured_anew(
    metrics: ModelMetrics, category: str, manifests: Mapping[str, Manifest], test: Figures | None, words: str
) -> ModelMetrics:
    stubs = tuple(Dataset(Path(), name, "folder", ()) for name in manifests)
    split = Split(metrics.data.name, stubs, tuple(manifests.values()))
    update: dict[str, object] = {
        "data": data_figures(split),
        "settings": {**metrics.settings, "recalibrated": words},
        "versions": versions(),
    }
    if metrics.by_category:
        found = metrics.by_category[category].model_copy(update={"data": data_figures(split, category), "test": test})
        return metrics.model_copy(update={**update, "by_category": {**metrics.by_category, category: found}})
    return metrics.model_copy(update={**update, "test": test})


if __name__ == "__main__":
    sys.exit(run(main, Args))
