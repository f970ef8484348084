"""Releases finished runs as an inspector: members at their commits, policies, figures on test, a card.

With --inspector, releases an inspector that exists with other policies: --policy FILE --tag v3. They are measured on
the votes that the release carries in votes.json, or anew with --data DIR.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from anomaly import hub
from anomaly.calibration import read_calibration
from anomaly.cards import write_card
from anomaly.datasets import Sample
from anomaly.emissions import EmissionsMeter
from anomaly.errors import DataError, ModelLoadError, RepoNotFoundError, RevisionNotFoundError
from anomaly.evaluation import Row, hardware, score, summarise, versions
from anomaly.figures import DataFigures, InspectorMetrics, ModelMetrics
from anomaly.inspector import INSPECTOR_FILE, Inspector, InspectorFile, Member, MemberRef
from anomaly.model_repo import CARD_FILES, MODEL_FILES, file_sha256, load_detector
from anomaly.votes_file import VOTES_FILE
from training.arguments import flag, run
from training.finish import RUN, manifest_path, push_run, pushed
from training.joint_votes import Joint, ask, figures_of, groups_in, price, split_samples
from training.manifest import Manifest
from training.policy_recipes import default_policies
from training.revise_policies import counted, edited, publish, revise
from training.votes_file import stored

__all__ = ["Args", "calibration_votes", "default_policies", "kept_apart_samples", "main", "measure", "read_runs"]


@dataclass(frozen=True, kw_only=True)
class Args:
    category: str | None = flag("what is inspected", None)
    members: tuple[Path, ...] = flag("folders of finished runs", ())
    inspector: str | None = flag("in place of runs: an inspector whose members stay, where it is released again", None)
    revision: str | None = flag("of that inspector (default main)", None)
    policy: tuple[Path, ...] = flag("policies as JSON: they replace those of their names or are added", ())
    default: str | None = flag("name of the policy that decides by default", None)
    out: Path | None = flag("folder for a local release, in the Hub's cache layout", None)
    push: str | None = flag("Hub repo (org/name) for the inspector; members go to org/name-<member>", None)
    tag: str | None = flag("of the release", None)
    name: str = flag("of a local release (org/name)", "local/inspector")
    data: Path | str | None = flag("to measure on; by default where the first run had it", None)
    manifest: Path | None = flag("of an inspector: manifest.json of a run of its split, to count new policies on", None)
    layout: Literal["auto", "folder", "mvtec", "visa"] = flag("of the data", "auto")
    note: str | None = flag("what this release is for, one sentence in its card", None)
    country: str = flag("ISO 3166 alpha-3 code, for the estimate of emissions", "USA")
    cpu_power_w: float | None = flag("rated CPU power where it is known", None)


def main(args: Args) -> None:
    if args.inspector is not None:
        _revise(args, args.inspector)
        return
    if args.category is None or not args.members:
        raise DataError("give --category and --members RUN..., or --inspector and --policy FILE")
    if (args.out is None) == (args.push is None):
        raise DataError("give either --out DIR or --push REPO")
    edited((), args.policy)  # before the work
    category = args.category
    runs = read_runs(args.members, category)
    calibrations = {n: read_calibration(run / "calibration.json").categories[category] for n, run in runs.items()}
    first = ModelMetrics.model_validate_json((next(iter(runs.values())) / "metrics.json").read_bytes())
    data = first.by_category[category].data if first.by_category else first.data
    labels = tuple(sorted({label for labels in data.counts.values() for label in labels}, key=_good_first))
    members = [
        Member(_ref(name, run, "local/run", "0" * 40), load_detector(run).detector.select(category), calibrations[name])
        for name, run in runs.items()
    ]
    meter = EmissionsMeter(args.country, args.cpu_power_w)

    def inspector(file: InspectorFile) -> Inspector:
        return Inspector(file, members, source="release", revision="new", commit="0" * 40, meter=meter)

    file = InspectorFile(
        category=category,
        labels=labels,
        members=tuple(member.ref for member in members),
        policies=default_policies(calibrations),
        default_policy="majority",
    )
    joint = calibration_votes(inspector(file), runs, args.data, args.layout)
    policies = edited(default_policies(calibrations, joint, category), args.policy)
    file = file.model_copy(update={"policies": policies, "default_policy": args.default or file.default_policy})
    ready = inspector(file)  # refuses a policy that is wrong, before anything is pushed
    if args.push is None:
        assert args.out is not None
        owner, _, name = args.name.partition("/")
        refs = [_ref(m, run, *_store(run, args.out, f"{owner}/{name}-{m}")) for m, run in runs.items()]
    else:
        refs = [_ref(m, run, *_pushed(run, f"{args.push}-{m}")) for m, run in runs.items()]
    file = file.model_copy(update={"members": tuple(refs)})
    if (commit := _released(args, file)) is not None:
        print(f"{args.push or args.name}@{commit}: released already")
        return
    metrics, rows = measure(ready, next(iter(runs.values())), data, args.data, args.layout)
    metrics = metrics.model_copy(update={"held_out": counted(file.policies, ready, joint)})
    repo = args.push or args.name
    with TemporaryDirectory() as folder:
        if joint is not None:
            votes = stored(ready, joint, rows, metrics.hardware)
            (Path(folder) / VOTES_FILE).write_text(votes.model_dump_json() + "\n", encoding="utf-8")
        commit = publish(Path(folder), hub.Source(repo, repo, args.out), file, metrics, tag=args.tag, note=args.note)
    where = f" in {args.out}" if args.out else ""
    print(f"released {repo}@{commit}{where}" + (f" as {args.tag}" if args.tag else ""))


def _revise(args: Args, inspector: str) -> None:
    if args.members or args.out or args.push or not args.policy:
        raise DataError("--inspector goes with --policy FILE: its members stay, and it is released where it is")
    commit = revise(
        inspector,
        args.policy,
        revision=args.revision,
        tag=args.tag,
        note=args.note,
        default=args.default,
        data=args.data,
        layout=args.layout,
        country=args.country,
        cpu_power_w=args.cpu_power_w,
        manifest=args.manifest,
    )
    print(f"released {inspector}@{commit}" + (f" as {args.tag}" if args.tag else ""))


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


def calibration_votes(
    inspector: Inspector,
    runs: Mapping[str, Path],
    data: Path | str | None = None,
    layout: Literal["auto", "folder", "mvtec", "visa"] = "auto",
) -> Joint | None:
    """What all members say of the pictures they were calibrated on; None, and said why, where these cannot be had."""
    category, first = inspector.file.category, next(iter(runs.values()))
    try:
        samples = split_samples(first, category, "calibrate", data, layout)
    except DataError as error:
        print(f"only the policies majority and safe, the calibration pictures are not there: {error}")
        return None
    figures = {name: figures_of(run / "metrics.json", category) for name, run in runs.items()}
    groups = groups_in(Manifest.model_validate_json(manifest_path(first, category).read_bytes()))
    return Joint(ask(inspector, samples, groups), price(inspector, figures))


def measure(
    inspector: Inspector,
    run: Path,
    figures: DataFigures,
    data: Path | str | None = None,
    layout: Literal["auto", "folder", "mvtec", "visa"] = "auto",
) -> tuple[InspectorMetrics, tuple[Row, ...]]:
    """The ensemble's figures on the pictures that the runs kept apart, and the votes that they are of."""
    samples = kept_apart_samples(run, inspector.file.category, data, layout)
    with TemporaryDirectory(prefix="vigie-") as folder:
        scored = score(inspector, samples, Path(folder), progress=True)
        found = summarise(scored, data=figures.name, split="test")
    metrics = InspectorMetrics(
        category=inspector.file.category,
        data=figures,
        members=found.members,
        policies=found.policies,
        hardware=hardware(),
        country=inspector.meter.country,
        versions=versions(),
    )
    return metrics, scored.rows


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
    return split_samples(run, category, "test", data, layout)


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


def _ref(name: str, run: Path, repo: str, commit: str) -> MemberRef:
    sha256 = file_sha256(run / "model.safetensors")
    return MemberRef(name=name, repo=repo, commit=commit, sha256=sha256)


def _good_first(label: str) -> tuple[bool, str]:
    return label != "good", label


if __name__ == "__main__":
    sys.exit(run(main, Args))
