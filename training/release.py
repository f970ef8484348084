"""Releases finished runs as an inspector: members at their commits, policies, figures on test, a card."""

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from anomaly import hub
from anomaly.calibration import Calibration, ThresholdName, least_good, read_calibration
from anomaly.cards import write_card
from anomaly.datasets import Sample, read_dataset
from anomaly.emissions import EmissionsMeter
from anomaly.errors import DataError, ModelLoadError, RepoNotFoundError, RevisionNotFoundError
from anomaly.evaluation import evaluate, hardware, versions
from anomaly.figures import DataFigures, InspectorMetrics, ModelMetrics
from anomaly.inspector import INSPECTOR_FILE, Inspector, InspectorFile, Member, MemberRef
from anomaly.model_repo import CARD_FILES, MODEL_FILES, load_detector
from anomaly.policy import Policy, ReviewBand, Rule
from training.arguments import flag, run
from training.finish import RUN, manifest_path, push_run, pushed
from training.hub_data import local_data
from training.manifest import Manifest

_REVIEW = 0.10  # p-value below which a member that does not reach its threshold is unsure


@dataclass(frozen=True, kw_only=True)
class Args:
    category: str = flag("what is inspected")
    members: tuple[Path, ...] = flag("folders of finished runs")
    out: Path | None = flag("folder for a local release, in the Hub's cache layout", None)
    push: str | None = flag("Hub repo (org/name) for the inspector; members go to org/name-<member>", None)
    tag: str | None = flag("of the release", None)
    name: str = flag("of a local release (org/name)", "local/inspector")
    data: Path | str | None = flag("to measure on; by default where the first run had it", None)
    layout: Literal["auto", "folder", "mvtec", "visa"] = flag("of the data", "auto")
    note: str | None = flag("what this release is for, one sentence in its card", None)
    country: str = flag("ISO 3166 alpha-3 code, for the estimate of emissions", "USA")
    cpu_power_w: float | None = flag("rated CPU power where it is known", None)


def main(args: Args) -> None:
    if (args.out is None) == (args.push is None):
        raise DataError("give either --out DIR or --push REPO")
    runs = read_runs(args.members, args.category)
    calibrations = {n: read_calibration(run / "calibration.json").categories[args.category] for n, run in runs.items()}
    if args.push is None:
        assert args.out is not None
        owner, _, name = args.name.partition("/")
        refs = {member: _store(run, args.out, f"{owner}/{name}-{member}") for member, run in runs.items()}
    else:
        refs = {member: _pushed(run, f"{args.push}-{member}") for member, run in runs.items()}
    first = ModelMetrics.model_validate_json((next(iter(runs.values())) / "metrics.json").read_bytes())
    data = first.by_category[args.category].data if first.by_category else first.data
    labels = tuple(sorted({label for labels in data.counts.values() for label in labels}, key=_good_first))
    file = InspectorFile(
        category=args.category,
        labels=labels,
        members=tuple(MemberRef(name=n, repo=r, commit=c, sha256=_sha256(runs[n])) for n, (r, c) in refs.items()),
        policies=default_policies(calibrations),
        default_policy="majority",
    )
    if (commit := _released(args, file)) is not None:
        print(f"{args.push or args.name}@{commit}: released already")
        return
    metrics = measure(args, runs, file, calibrations, data)
    with TemporaryDirectory() as folder:
        released = Path(folder)
        (released / INSPECTOR_FILE).write_text(file.model_dump_json(indent=1) + "\n")
        (released / "metrics.json").write_text(metrics.model_dump_json(indent=1) + "\n")
        repo = args.push or args.name
        write_card(released, args.push)
        if args.note:
            card = released / "README.md"
            card.write_text(card.read_text() + f"\n## This release\n\n{args.note}\n")
        files = (INSPECTOR_FILE, *CARD_FILES)
        if args.push:
            commit = hub.push(released, repo, files=files, message=args.note or f"Vigie {args.tag or ''}", tag=args.tag)
        else:
            assert args.out is not None
            commit = hub.store(released, args.out, repo, files=files, tag=args.tag)
    where = f" in {args.out}" if args.out else ""
    print(f"released {repo}@{commit}{where}" + (f" as {args.tag}" if args.tag else ""))


def read_runs(folders: Sequence[Path], category: str) -> dict[str, Path]:
    """Member name -> run folder; all finished, calibrated for the category, on one and the same split.

    Raises:
        DataError: one of them is not.
    """
    for folder in folders:
        if not (folder / RUN).is_file():
            raise DataError(f"{folder} is no finished run: it has no {RUN}")
    names = [json.loads((folder / RUN).read_text())["member"] for folder in folders]
    if names.count("classifier") > 1:
        names = [_with_arch(f) if name == "classifier" else name for name, f in zip(names, folders, strict=True)]
    runs: dict[str, Path] = {}
    hashes: dict[str, str] = {}
    for name, folder in zip(names, folders, strict=True):
        if name in runs:
            raise DataError(f"{folder} and {runs[name]} are both called {name!r}: leave one of them out")
        known = read_calibration(folder / "calibration.json").categories
        if category not in known:
            raise DataError(f"{folder} is calibrated for {sorted(known)}, not for {category!r}")
        runs[name], hashes[name] = folder, known[category].split_hash
    if len(set(hashes.values())) > 1:
        shown = ", ".join(f"{name} {value[:12]}" for name, value in hashes.items())
        raise DataError(
            f"the members were made on different splits ({shown}): one's training pictures may be another's "
            "calibration pictures; train them again on the same data with the same --seed and --far"
        )
    return runs


def _with_arch(run: Path) -> str:
    """`classifier_<arch>`: what a classifier is called beside another."""
    return f"classifier_{json.loads((run / 'config.json').read_text())['config']['architecture']}"


def default_policies(calibrations: Mapping[str, Calibration]) -> tuple[Policy, ...]:
    """`majority` and `safe`, at the thresholds that every member has, among the members that can tell good from bad."""
    labelled = all("safe" in calibration.thresholds for calibration in calibrations.values())
    enough = min(len(calibration.good_scores) for calibration in calibrations.values()) >= least_good(_REVIEW)
    majority = {
        "en": "Defect when more than half of the detectors it asks reach their threshold; review when it is close.",
        "fr": "Défaut quand plus de la moitié des détecteurs consultés atteint son seuil ; à revoir si limite.",
    }
    safe = {
        "en": "Defect when any detector it asks reaches the threshold below which no held-out defect was missed.",
        "fr": "Défaut dès qu'un détecteur consulté atteint le seuil qui n'a manqué aucun défaut mis de côté.",
    }
    careful = {
        "en": "Defect when any detector reaches its false-alarm threshold. No labelled defects were held out, so it is "
        "not known what it misses.",
        "fr": "Défaut dès qu'un détecteur atteint son seuil de fausse alarme. Aucun défaut étiqueté n'a été mis de "
        "côté : ce qu'elle manque n'est pas connu.",
    }
    voters = _telling(calibrations, "f1" if labelled else "far")
    careful_voters = _telling(calibrations, "safe" if labelled else "far")
    return (
        Policy(
            name="majority",
            description=majority,
            rule=Rule(kind="majority", members=voters, threshold="f1" if labelled else "far"),
            advisory=tuple(name for name in calibrations if name not in voters),
            required=voters,
            review=ReviewBand(p_value=_REVIEW) if enough else None,
        ),
        Policy(
            name="safe",
            description=safe if labelled else careful,
            rule=Rule(kind="any", members=careful_voters, threshold="safe" if labelled else "far"),
            required=careful_voters,
        ),
    )


def _telling(calibrations: Mapping[str, Calibration], threshold: ThresholdName) -> tuple[str, ...]:
    """Members that let at least half of the held-out good parts pass; the others call nearly everything a defect.

    A weak detector reaches its best F1, and misses no defect, by rejecting all. If all are such, the least bad vote.
    """
    found = {name: calibration.thresholds[threshold] for name, calibration in calibrations.items()}
    least = min(t.false_alarms for t in found.values())
    return tuple(n for n, t in found.items() if t.false_alarms <= max(t.good / 2, least))


def measure(
    args: Args,
    runs: Mapping[str, Path],
    file: InspectorFile,
    calibrations: Mapping[str, Calibration],
    data: DataFigures,
) -> InspectorMetrics:
    """The ensemble's figures on the pictures that the runs kept apart."""
    samples = kept_apart_samples(next(iter(runs.values())), args.category, args.data, args.layout)
    refs = {ref.name: ref for ref in file.members}
    members = [
        Member(refs[name], load_detector(run).detector.select(args.category), calibrations[name])
        for name, run in runs.items()
    ]
    meter = EmissionsMeter(args.country, args.cpu_power_w)
    inspector = Inspector(file, members, source="release", revision="new", commit="0" * 40, meter=meter)
    found = evaluate(inspector, samples, data=data.name, split="test", progress=True)
    return InspectorMetrics(
        category=args.category,
        data=data,
        members=found.members,
        policies=found.policies,
        hardware=hardware(),
        country=args.country,
        versions=versions(),
    )


def kept_apart_samples(
    run: Path,
    category: str,
    data: Path | str | None = None,
    layout: Literal["auto", "folder", "mvtec", "visa"] = "auto",
) -> list[Sample]:
    """The test pictures that a finished run kept apart, by its manifest; every file is checked to be the same.

    Args:
        run: its folder.
        category: whose pictures.
        data: where the pictures are now; by default where they were.
        layout: of the data; `auto` takes the run's.

    Raises:
        DataError: it kept none apart, or one of them is another picture now.
    """
    recorded = json.loads((run / RUN).read_text())
    root, _ = local_data(str(data or recorded["data"]))
    chosen = recorded["layout"] if layout == "auto" else layout
    by_path = {sample.relative: sample for sample in read_dataset(root, category, chosen).samples}
    manifest = Manifest.model_validate_json(manifest_path(run, category).read_bytes())
    kept_apart = {entry.path: entry.sha256 for entry in manifest.entries if entry.split == "test"}
    if not kept_apart:
        raise DataError(f"{run} kept no test pictures apart to measure the release on; train with a test part")
    for path, sha256 in kept_apart.items():
        if path not in by_path or hashlib.sha256(by_path[path].path.read_bytes()).hexdigest() != sha256:
            raise DataError(
                f"{root}: {path} is not the test picture that {run} kept apart; give --data with the pictures of the "
                "run, or train again on this data"
            )
    return [by_path[path] for path in kept_apart]


def _released(args: Args, file: InspectorFile) -> str | None:
    """The commit of a release of these very members and policies under this tag (or main), if there is one."""
    repo = args.push or args.name
    source = hub.Source(repo, repo, args.out)
    try:
        commit = hub.resolve(source, args.tag)
        folder = hub.download(source, commit, [INSPECTOR_FILE, *CARD_FILES])
    except (RepoNotFoundError, RevisionNotFoundError, ModelLoadError):
        return None
    there = InspectorFile.model_validate_json((folder / INSPECTOR_FILE).read_bytes())
    return commit if there == file and (args.note or "") in (folder / "README.md").read_text() else None


def _store(run: Path, cache: Path, repo_id: str) -> tuple[str, str]:
    write_card(run)
    return repo_id, hub.store(run, cache, repo_id, files=(*MODEL_FILES, *CARD_FILES))


def _pushed(run: Path, repo_id: str) -> tuple[str, str]:
    """Where the run is on the Hub; pushes it unless it is there already."""
    if (there := pushed(run)) is not None:
        return there["repo"], there["commit"]
    return repo_id, push_run(run, repo_id, None)


def _sha256(run: Path) -> str:
    return hashlib.sha256((run / "model.safetensors").read_bytes()).hexdigest()


def _good_first(label: str) -> tuple[bool, str]:
    return label != "good", label


if __name__ == "__main__":
    sys.exit(run(main, Args))
