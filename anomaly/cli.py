"""The command line: inspect, evaluate, compare, drift and more. Exit code 0 done, 1 wrong input, 2 usage."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import ValidationError

from anomaly.errors import VigieError
from anomaly.settings import STARTER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anomaly.backends import Backend
    from anomaly.emissions import EmissionsMeter
    from anomaly.images import RgbImage
    from anomaly.inspector import Inspection, Inspector
    from anomaly.settings import Settings

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True, help=__doc__)

InspectorOption = Annotated[str, typer.Option("--inspector", help="Hub repo id, or a folder in the Hub's cache layout")]
RevisionOption = Annotated[str | None, typer.Option(help="tag, branch or commit; by default main")]
BackendOption = Annotated[
    str | None, typer.Option(help="torch, compile, onnx or openvino: what runs trunks and networks; else VIGIE_BACKEND")
]
CountryOption = Annotated[str | None, typer.Option(help="ISO 3166 alpha-3 code, for the estimate of emissions")]


@app.command()
def inspect(
    pictures: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="pictures of parts")],
    inspector: InspectorOption = str(STARTER),
    revision: RevisionOption = None,
    policy: Annotated[str | None, typer.Option(help="by default the inspector's own")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one report a line")] = False,
    save_heatmaps: Annotated[
        Path | None, typer.Option(file_okay=False, help="folder for overlays (PNG) and raw maps (NPY)")
    ] = None,
    country: CountryOption = None,
    backend: BackendOption = None,
) -> None:
    """Decide on pictures. A picture that cannot be read is named on stderr, and the others are still inspected."""
    from anomaly import images, load_inspector

    loaded = load_inspector(inspector, revision, meter=_meter(country), backend=_backend(backend))
    loaded.policy(policy)
    _tell(loaded.warnings)
    failed = 0
    stems = [path.stem for path in pictures]
    for number, path in enumerate(pictures, start=1):
        try:
            image = images.read(path, loaded.file.limits)
        except VigieError as error:
            typer.echo(f"error: {error}", err=True)
            failed += 1
            continue
        inspection = loaded.inspect(image, policy)
        report = inspection.report
        if as_json:
            typer.echo(json.dumps({"image": str(path), **report.model_dump(mode="json")}, ensure_ascii=False))
        else:
            typer.echo(f"{path}: {report.decision.upper()}. {report.reason['en']}")
        if save_heatmaps is not None:
            name = path.stem if stems.count(path.stem) == 1 else f"{number:03d}-{path.stem}"
            _save_heatmaps(save_heatmaps, name, image, inspection, loaded)
    if failed:
        raise typer.Exit(1)


@app.command()
def evaluate(
    data: Annotated[Path, typer.Option(help="folder of labelled pictures")],
    inspector: InspectorOption,
    out: Annotated[Path, typer.Option("--json", dir_okay=False, help="file to write")],
    revision: RevisionOption = None,
    split: Annotated[str, typer.Option(help="test or train, as the folders are called")] = "test",
    layout: Annotated[str, typer.Option(help="auto, folder, mvtec or visa")] = "auto",
    country: CountryOption = None,
    backend: BackendOption = None,
) -> None:
    """Score every picture of a split with every member and policy."""
    from anomaly.datasets import read_dataset
    from anomaly.evaluation import evaluate as evaluate_on
    from anomaly.loading import load_inspector

    if split not in ("test", "train"):
        raise typer.BadParameter(f"{split!r} is not one of test, train", param_hint="--split")
    if layout not in ("auto", "folder", "mvtec", "visa"):
        raise typer.BadParameter(f"{layout!r} is not one of auto, folder, mvtec, visa", param_hint="--layout")
    loaded = load_inspector(inspector, revision, meter=_meter(country), backend=_backend(backend))
    _tell(loaded.warnings)
    dataset = read_dataset(data, loaded.file.category, layout)  # type: ignore[arg-type]
    samples = dataset.test if split == "test" else dataset.train
    if not samples:
        raise VigieError(f"{data} has no {split} pictures; its folders are those of layout {dataset.layout}")
    out.parent.mkdir(parents=True, exist_ok=True)  # before the work: an hour later is too late to find out
    found = evaluate_on(loaded, samples, data=data.resolve().name, split=split, progress=sys.stderr.isatty())
    out.write_text(found.model_dump_json(indent=1) + "\n")
    for name, figures in [*found.members.items(), *found.policies.items()]:
        auroc = "-" if figures.image_auroc is None else f"{figures.image_auroc:.4f}"
        pro = "-" if figures.au_pro is None else f"{figures.au_pro:.4f}"
        counts = f"tp {figures.tp} fp {figures.fp} fn {figures.fn} tn {figures.tn} review {figures.review}"
        typer.echo(f"{name:20} AUROC {auroc:6} AU-PRO {pro:6} {counts} at {figures.threshold}")


@app.command()
def compare(
    revisions: Annotated[tuple[str, str], typer.Option(help="two of tag, branch or commit, such as v1 v2")],
    data: Annotated[Path, typer.Option(help="folder of labelled pictures, or any folder of pictures")],
    inspector: InspectorOption = str(STARTER),
    policy: Annotated[str | None, typer.Option(help="by default the default one of each revision")] = None,
    out: Annotated[Path | None, typer.Option("--json", dir_okay=False, help="file to write")] = None,
    layout: Annotated[str, typer.Option(help="auto, folder, mvtec or visa")] = "auto",
    country: CountryOption = None,
) -> None:
    """Say where two revisions of an inspector decide differently, who is right, and what each costs."""
    from anomaly.compare import compare as compare_on
    from anomaly.compare import pictures_of
    from anomaly.compare_text import in_words
    from anomaly.loading import load_inspector

    if layout not in ("auto", "folder", "mvtec", "visa"):
        raise typer.BadParameter(f"{layout!r} is not one of auto, folder, mvtec, visa", param_hint="--layout")
    meter = _meter(country)
    first, second = (load_inspector(inspector, revision, meter=meter) for revision in revisions)
    samples, labelled = pictures_of(data, first.file.category, layout)  # type: ignore[arg-type]
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
    found = compare_on(first, second, samples, data=data.resolve().name, labelled=labelled, policy=policy)
    if out is not None:
        out.write_text(found.model_dump_json(indent=1) + "\n")
    typer.echo(in_words(found))


@app.command()
def drift(
    log: Annotated[Path, typer.Argument(metavar="LOG.jsonl", help="reports, one a line, as inspect --json writes")],
    inspector: Annotated[
        str | None,
        typer.Option(help="whose calibration to compare with; by default the first parts of the log stand in"),
    ] = None,
    revision: RevisionOption = None,
    member: Annotated[str | None, typer.Option(help="only this detector")] = None,
    window: Annotated[int, typer.Option(min=10, help="latest parts for the Kolmogorov-Smirnov test")] = 100,
    level: Annotated[float, typer.Option(help="probability that the alarm is ever false, in (0, 1)")] = 0.01,
    prevalence: Annotated[float, typer.Option(help="share of defects that is usual, in [0, 0.5)")] = 0.05,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Say whether the scores of production have moved, member by member. A drift that is found is exit code 0, too."""
    from anomaly.drift import DriftSettings
    from anomaly.drift_log import watch

    if revision is not None and inspector is None:
        raise typer.BadParameter("goes with --inspector", param_hint="--revision")
    try:
        settings = DriftSettings(window=window, level=level, prevalence=prevalence)
    except ValidationError as error:
        wrong = error.errors()[0]
        raise typer.BadParameter(wrong["msg"], param_hint=f"--{wrong['loc'][0]}") from error
    report = watch(log, settings, inspector=inspector, revision=revision, member=member)
    for number, why in report.wrong_lines.items():
        typer.echo(f"{log}, line {number}: no report: {why}", err=True)
    if as_json:
        typer.echo(report.model_dump_json(indent=1))
        return
    wrong_lines = f", {len(report.wrong_lines)} lines that are none" if report.wrong_lines else ""
    repeats = f", {report.repeats} of them on pictures seen before" if report.repeats else ""
    typer.echo(f"{log}: {report.reports} reports{repeats}{wrong_lines}")
    for row in report.members:
        name = f"{row.category} {row.member}@{row.commit[:12]}"
        failed = f"; {row.failed} parts without a vote" if row.failed else ""
        if row.finding is None:
            typer.echo(f"{name}: not known, {row.note}{failed}")
            continue
        found = row.finding
        ks = "-" if found.ks_p is None else f"{found.ks_p:.3g}"
        typer.echo(
            f"{name}: {'DRIFT' if found.drift else 'no drift'}; {found.parts} parts against {row.reference}; "
            f"martingale maximum {found.maximum:.3g} (alarm at {found.alarm_at:.3g}); KS p {ks}{failed}"
            f"{f'; {row.chosen} votes left out, on parts that others were unsure of' if row.chosen else ''}"
        )
        typer.echo(f"  {found.text['en']}")


@app.command()
def watch(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="where a camera drops its pictures, at any depth")],
    out: Annotated[Path, typer.Option(dir_okay=False, help="log to append to: a report, or an error, a line")],
    inspector: InspectorOption = str(STARTER),
    revision: RevisionOption = None,
    policy: Annotated[str | None, typer.Option(help="by default the inspector's own")] = None,
    once: Annotated[bool, typer.Option("--once", help="end when all that is there is logged")] = False,
    interval: Annotated[
        float, typer.Option(min=0.05, help="seconds between two looks; a file that changed in between is waited for")
    ] = 1.0,
    country: CountryOption = None,
) -> None:
    """Inspect what a camera drops into a folder, each picture exactly once, also across a restart. Ctrl-C ends it."""
    import signal
    import threading

    from anomaly import images
    from anomaly.images import RgbImage
    from anomaly.loading import load_inspector
    from anomaly.report import Report
    from anomaly.watch import watch as watch_folder

    loaded = load_inspector(inspector, revision, meter=_meter(country))
    loaded.policy(policy)

    def told(file: str, outcome: Report | VigieError) -> None:
        if isinstance(outcome, Report):
            typer.echo(f"{file}: {outcome.decision.upper()}. {outcome.reason['en']}")
        else:
            typer.echo(f"error: {outcome}", err=True)

    def read(path: Path) -> RgbImage:
        return images.read(path, loaded.file.limits)

    def inspected(image: RgbImage) -> Report:
        return loaded.inspect(image, policy).report

    stop = threading.Event()
    usual = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        counts = watch_folder(folder, out, read, inspected, once=once, interval_s=interval, stop=stop, told=told)
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
    typer.echo(f"{out}: {counts.inspected} inspected, {counts.failed} logged as errors", err=True)


@app.command()
def score(
    inputs: Annotated[
        str, typer.Option("--input", help="folder, .parquet file, or hf://datasets/ORG/NAME (and @REVISION, /FOLDER)")
    ],
    output: Annotated[Path, typer.Option(file_okay=False, help="folder to write to; run again, it is completed")],
    inspector: InspectorOption = str(STARTER),
    revision: RevisionOption = None,
    policy: Annotated[str | None, typer.Option(help="by default the inspector's own")] = None,
    engine: Annotated[str, typer.Option(help="local or ray: the cluster at RAY_ADDRESS, or one of its own")] = "local",
    workers: Annotated[
        int | None, typer.Option(min=1, help="processes of one thread each; by default 1, on ray one for each CPU")
    ] = None,
    part_size: Annotated[int, typer.Option(min=1, help="pictures in one file of the output")] = 256,
    country: CountryOption = None,
    backend: BackendOption = None,
) -> None:
    """Score any number of pictures into Parquet files. A picture that cannot be read is a row with an error."""
    from anomaly.score import score as score_all

    if engine not in ("local", "ray"):
        raise typer.BadParameter(f"{engine!r} is not one of local, ray", param_hint="--engine")
    settings = _settings()
    counts = score_all(
        inputs,
        inspector,
        output,
        revision=revision,
        policy=policy,
        engine=engine,  # type: ignore[arg-type]
        workers=workers,
        part_size=part_size,
        country=country or settings.country,
        cpu_power_w=settings.cpu_power_w,
        backend=_backend(backend),
        told=lambda done, of: typer.echo(f"{done} of {of} parts", err=True),
    )
    found = [
        f"{number} {name}" for kinds in (counts.decisions, counts.errors) for name, number in sorted(kinds.items())
    ]
    typer.echo(f"{output}: {counts.pictures} pictures in {counts.parts} parts, {counts.scored} now: {', '.join(found)}")


@app.command()
def revisions(inspector: InspectorOption = str(STARTER)) -> None:
    """List tags, branches and recent commits."""
    from anomaly import hub

    for revision in hub.list_revisions(hub.parse_source(inspector)):
        words = f"{revision.kind:7} {revision.name:12.40} {revision.commit} {revision.date} {revision.title}"
        typer.echo(words.rstrip())


@app.command()
def pull(
    repo: Annotated[str, typer.Argument(help="Hub repo id of an inspector or of one model")],
    revision: RevisionOption = None,
) -> None:
    """Download a revision (an inspector with all its members) and check it."""
    from anomaly import hub
    from anomaly.inspector import INSPECTOR_FILE
    from anomaly.loading import load_at
    from anomaly.model_repo import MODEL_FILES, load_detector

    place = hub.parse_source(repo)
    commit = hub.resolve(place, revision)
    if hub.holds(place, commit, INSPECTOR_FILE):
        loaded = load_at(place, commit, revision or "main")
        typer.echo(f"{repo}@{commit}: inspector of {loaded.file.category}, members {', '.join(loaded.members)}")
    else:
        folder = hub.download(place, commit, MODEL_FILES)
        typer.echo(f"{repo}@{commit}: {load_detector(folder).detector.kind} in {folder}")


@app.command()
def policy_schema() -> None:
    """Print the JSON schema of policies, which editors check a policy against while it is typed."""
    from anomaly.policy import Policy

    typer.echo(json.dumps(Policy.model_json_schema(), indent=1))


@app.command("report-schema")
def print_report_schema() -> None:
    """Print the JSON schema of reports, which programs check what they get from the API against."""
    from anomaly.report import report_schema

    typer.echo(json.dumps(report_schema(), indent=1))


def _save_heatmaps(
    folder: Path, name: str, image: "RgbImage", inspection: "Inspection", inspector: "Inspector"
) -> None:
    """For each member NAME.MEMBER.npy, (H, W) float32 in its own units, and NAME.MEMBER.png on its fixed scale."""
    import numpy as np
    from PIL import Image

    from anomaly.render import OPACITY, overlay

    folder.mkdir(parents=True, exist_ok=True)
    for member, heatmap in inspection.heatmaps.items():
        np.save(folder / f"{name}.{member}.npy", heatmap)
        scale = inspector.members[member].calibration.heatmap
        if scale is not None:
            drawn = Image.fromarray(overlay(image, heatmap, scale, OPACITY))
            drawn.save(folder / f"{name}.{member}.png")


def _meter(country: str | None) -> "EmissionsMeter":
    from anomaly.emissions import EmissionsMeter

    settings = _settings()
    return EmissionsMeter(country or settings.country, settings.cpu_power_w)


def _backend(name: str | None) -> "Backend":
    from anomaly.backends import Backend

    chosen = _settings().chosen_backend()
    return chosen if name is None else Backend(name, chosen.precision, chosen.cache)  # type: ignore[arg-type]


def _tell(warnings: "Sequence[str]") -> None:
    for warning in warnings:
        typer.echo(f"warning: {warning}", err=True)


def _settings() -> "Settings":
    from anomaly.settings import Settings

    try:
        return Settings()
    except ValidationError as error:
        raise VigieError(f"an environment variable VIGIE_... is not right: {error}") from error


def main() -> int:
    """Runs the command line; what a person can mend becomes one line on stderr."""
    try:
        code = app(standalone_mode=False)
    except (VigieError, OSError) as error:  # OSError: a file or folder that cannot be written
        typer.echo(f"error: {error}", err=True)
        return 1
    except typer.Exit as stop:
        return stop.exit_code
    except typer.Abort:
        return 130
    except Exception as error:
        if not hasattr(error, "exit_code") or not hasattr(error, "show"):
            raise
        error.show()  # click's usage errors
        return int(error.exit_code)
    return int(code or 0)
