"""What every script that makes one detector does around the fitting: split, and afterwards calibrate on held-out
pictures, measure on test pictures, write the folder with its card, push."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import JsonValue
from tqdm import tqdm

from anomaly import hub
from anomaly.backbones import Pretrained, hub_id, read_folder, read_weights
from anomaly.calibration import Calibration, CalibrationFile, HeatmapScale, calibrate, pixel_threshold
from anomaly.cards import write_card
from anomaly.datasets import read_mask
from anomaly.detectors import Detector
from anomaly.emissions import EmissionsMeter, TrainingEmissions
from anomaly.errors import DataError, RegistryError, RepoNotFoundError, RevisionNotFoundError
from anomaly.evaluation import versions
from anomaly.figures import CategoryFigures, Figures, ModelMetrics, TrainingFigures
from anomaly.inspector import Inspector, InspectorFile, Member, MemberRef
from anomaly.model_repo import CARD_FILES, MODEL_FILES, save_detector
from anomaly.policy import Policy, Rule
from training.arguments import DataArgs, RunArgs
from training.data import ALL, Split, data_figures, split_data
from training.metrics import measured
from training.pictures import load
from training.probability import fit_probability

__all__ = ["Split", "already_done", "finish", "identity", "pretrained", "push_run", "pushed", "split_data"]

MANIFEST, RUN, PUSHED = "manifest.json", "run.json", "pushed.json"
_PIXELS = 5_000_000  # of good held-out heatmaps at the most, for the scale


def identity(args: DataArgs, split: Split) -> str:
    """Of a run: equal for equal data and settings, wherever it is written to."""
    skip = ("data", "out", "push", "tag", "seeds", "country", "cpu_power_w")
    settings = {name: str(value) for name, value in dataclasses.asdict(args).items() if name not in skip}
    weights = getattr(args, "weights", None)
    if weights is not None:
        settings["weights"] = hashlib.sha256(weights.read_bytes()).hexdigest() if weights.is_file() else str(weights)
    text = json.dumps({"split": split.split_hash, "args": settings}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def already_done(args: RunArgs, split: Split) -> bool:
    """Whether `out` holds the finished run of these very data and settings. If so, says it, and pushes where asked."""
    path = args.out / RUN
    if not path.is_file() or json.loads(path.read_text())["identity"] != identity(args, split):
        return False
    print(f"{args.out}: done already")
    if args.push:
        there = pushed(args.out)
        if there is None or (there["repo"], there["tag"]) != (args.push, args.tag):
            push_run(args.out, args.push, args.tag)
    return True


def pretrained(args: RunArgs, default: str | None = None) -> Pretrained:
    """The weights that --weights, --backbone or else `default` name; a Hub repo at the commit it is now.

    Raises:
        ModelLoadError, RegistryError: they cannot be had or are not what they should be.
    """
    if args.weights is not None:
        return read_weights(args.weights)
    name, _, revision = (args.backbone or default or "").partition("@")
    if not name:
        raise DataError("give the trunk: --weights FILE, or --backbone NAME (a timm name or a Hub repo id)")
    source = hub.Source(name, hub_id(name))
    try:
        commit = hub.resolve(source, revision or None)
        folder = hub.download(source, commit, ["config.json", "model.safetensors"])
        if b'"model_type"' in (folder / "config.json").read_bytes():  # transformers
            hub.download(source, commit, ["preprocessor_config.json"])
    except RegistryError as error:
        raise type(error)(f"{error} (for training without the Hub give --weights FILE)") from error
    return read_folder(folder, f"{source.repo_id}@{commit}")


@torch.no_grad()
def calibrated(detector: Detector, split: Split, far: float) -> Calibration:
    """Thresholds and scales from the calibration split of one category, which nothing was fitted on.

    Pictures go one by one, as they will be served.
    """
    good, defects = split.good("calibrate"), split.defects("calibrate")
    scores: dict[bool, list[float]] = {False: [], True: []}
    maxima: list[float] = []
    background: list[NDArray[np.float32]] = []  # pixels of good pictures, for the scale
    pixels: list[NDArray[np.float32]] = []  # of pictures with a mask, for the threshold
    marked: list[NDArray[np.bool_]] = []
    with_masks = bool(defects) and all(sample.mask is not None for sample in defects)
    for sample in tqdm([*good, *defects], desc="calibrating", unit="img", leave=False, disable=None):
        image = load(sample.path)
        output = detector.predict(image)
        scores[sample.is_defect].append(float(output.scores[0]))
        if output.heatmaps is None:
            continue
        heatmap = output.heatmaps[0].float().cpu().numpy()
        if not sample.is_defect:
            maxima.append(float(heatmap.max()))
            background.append(heatmap.ravel()[:: max(1, heatmap.size * len(good) // _PIXELS)])
        if with_masks:
            step = max(1, heatmap.size * (len(good) + len(defects)) // _PIXELS)
            pixels.append(heatmap.ravel()[::step])
            marked.append(read_mask(sample, (heatmap.shape[0], heatmap.shape[1])).ravel()[::step])
    return calibrate(
        scores[False],
        scores[True],
        split_hash=split.split_hash,
        far=far,
        heatmap=_scale(background) if background else None,
        pixel=pixel_threshold(
            maxima,
            np.concatenate(pixels) if pixels else np.empty(0, np.float32),
            np.concatenate(marked) if marked else np.empty(0, np.bool_),
            far=far,
            images=len(pixels),
        )
        if maxima
        else None,
        probability=fit_probability(scores[False], scores[True]),
    )


def _scale(background: Sequence[NDArray[np.float32]]) -> HeatmapScale:
    low, high = (float(q) for q in np.quantile(np.concatenate(background), [0.5, 0.999]))
    above = float(np.nextafter(np.float32(low), np.float32(np.inf)))
    return HeatmapScale(low=low, high=max(high, above), images=len(background))


def finish(
    detector: Detector,
    member: str,
    args: RunArgs,
    split: Split,
    emissions: TrainingEmissions,
    *,
    backbone: str | None,
    settings: Mapping[str, JsonValue],
    curve: Sequence[tuple[float, float]] = (),
) -> None:
    """Calibrates, measures on test, writes the run's folder and pushes it where asked.

    Args:
        detector: fitted; for several categories one that serves all of them, or whose `select` gives each.
        member: what it is called in an inspector.
        args: of the script.
        split: that it was fitted on.
        emissions: of the fitting.
        backbone: where weights came from that were not trained here.
        settings: of the method, for the card.
        curve: training and validation loss of each epoch.
    """
    (args.out / RUN).unlink(missing_ok=True)  # of other settings; until the end this is no finished run
    detector = detector.cpu().eval().requires_grad_(False)
    each = {category: detector.select(category) for category in split.categories}
    calibrations = {category: calibrated(one, split.of(category), args.far) for category, one in each.items()}
    save_detector(args.out, detector, CalibrationFile(categories=calibrations))
    for category in split.categories:
        manifest_path(args.out, category, split.categories).write_text(
            split.manifest(category).model_dump_json(indent=1) + "\n"
        )
    figures = {
        category: CategoryFigures(
            data=data_figures(split, category),
            test=_tested(one, member, args, split.of(category), calibrations[category]),
        )
        for category, one in each.items()
    }
    several = len(figures) > 1
    metrics = ModelMetrics(
        kind=detector.kind,
        member=member,
        category=ALL if several else split.categories[0],
        data=data_figures(split),
        backbone=backbone,
        parameters=sum(parameter.numel() for parameter in detector.state_dict().values()),
        model_bytes=(args.out / "model.safetensors").stat().st_size,
        settings={"seed": args.seed, "far": args.far, **_protocol(args), **settings},
        test=None if several else figures[split.categories[0]].test,
        by_category=figures if several else {},
        curve=tuple(curve),
        training=TrainingFigures(**dataclasses.asdict(emissions)),
        versions=versions(),
    )
    (args.out / "metrics.json").write_text(metrics.model_dump_json(indent=1) + "\n")
    write_card(args.out, args.push)
    data = args.data if isinstance(args.data, str) else str(args.data.resolve())
    run = {"identity": identity(args, split), "member": member, "data": data, "layout": args.layout}
    (args.out / RUN).write_text(json.dumps(run, indent=1) + "\n")
    (args.out / "checkpoint.safetensors").unlink(missing_ok=True)
    for category, found in figures.items():
        test = found.test
        auroc = "no test pictures" if test is None else f"image AUROC {test.image_auroc}, AU-PRO {test.au_pro}"
        print(f"{member}: {args.out} ({category + ': ' if several else ''}{auroc})")
    if args.push:
        push_run(args.out, args.push, args.tag)


def manifest_path(run: Path, category: str, categories: Sequence[str] = ()) -> Path:
    """Where a run keeps the manifest of a category; a run over several has a file for each."""
    alone = run / MANIFEST
    each = run / f"manifest-{category}.json"
    return each if len(categories) > 1 or (not categories and each.is_file()) else alone


def _protocol(args: RunArgs) -> dict[str, JsonValue]:
    """Of the split, as far as it is not the usual one."""
    named: dict[str, JsonValue] = {"protocol": args.protocol} if args.protocol != "mvtec" else {}
    named |= {"fold": f"{args.fold} of {args.folds}"} if args.protocol == "kfold" else {}
    named |= {"shots": args.shots} if args.shots is not None else {}
    return named | ({"near_duplicates": "dropped"} if args.drop_near_duplicates else {})


def _tested(detector: Detector, member: str, args: RunArgs, split: Split, calibration: Calibration) -> Figures | None:
    """Figures on the test pictures of one category."""
    samples = split.samples("test")
    if not samples:
        return None
    alone = _alone(detector, member, args, split.categories[0], calibration)
    labels: tuple[str, ...] = getattr(args, "box_labels", ())
    found = measured(alone, samples, data=split.name, split="test", progress=True, box_labels=labels)
    return found.members[member]


def push_run(run: Path, repo_id: str, tag: str | None) -> str:
    """Pushes a finished run's model files and card; remembers where, so that a release can name the commit."""
    write_card(run, repo_id)
    files = (*MODEL_FILES, *CARD_FILES)
    commit = hub.push(run, repo_id, files=files, message=f"Vigie {tag or 'model'}", tag=tag)
    note = {"repo": repo_id, "commit": commit, "tag": tag, "files": _digest(run)}
    (run / PUSHED).write_text(json.dumps(note, indent=1) + "\n")
    print(f"pushed {repo_id}@{commit}" + (f" as {tag}" if tag else ""))
    return commit


def pushed(run: Path) -> dict[str, str] | None:
    """Repo, commit and tag of a finished run's last push; None if it was never pushed, has changed since or is gone."""
    if not (run / PUSHED).is_file():
        return None
    note: dict[str, str] = json.loads((run / PUSHED).read_text())
    if note["files"] != _digest(run):
        return None
    try:
        hub.resolve(hub.Source(note["repo"], note["repo"]), note["commit"])
    except (RepoNotFoundError, RevisionNotFoundError):
        return None
    return note


def _digest(run: Path) -> str:
    """Of the weights and of what they are calibrated with: other settings may give equal weights."""
    return hashlib.sha256(b"".join((run / name).read_bytes() for name in MODEL_FILES)).hexdigest()


def _alone(detector: Detector, member: str, args: RunArgs, category: str, calibration: Calibration) -> Inspector:
    """An inspector of this one detector, so that the test figures come from the path that serves."""
    ref = MemberRef(name=member, repo="local/run", commit="0" * 40, sha256="0" * 64)
    threshold = "f1" if "f1" in calibration.thresholds else "far"
    policy = Policy(
        name="alone", description={}, rule=Rule(kind="any", members=(member,), threshold=threshold), required=(member,)
    )
    file = InspectorFile(
        category=category, labels=("good",), members=(ref,), policies=(policy,), default_policy="alone"
    )
    meter = EmissionsMeter(args.country, args.cpu_power_w)
    members = [Member(ref, detector, calibration)]
    return Inspector(file, members, source=str(args.out), revision="run", commit="0" * 40, meter=meter)
