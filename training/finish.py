"""What every script that makes one detector does around the fitting: split, and afterwards calibrate on held-out
pictures, measure on test pictures, write the folder with its card, push."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import JsonValue
from tqdm import tqdm

from anomaly import hub
from anomaly.backbones import Pretrained, hub_id, read_folder, read_weights
from anomaly.calibration import Calibration, CalibrationFile, HeatmapScale, calibrate
from anomaly.cards import write_card
from anomaly.datasets import Dataset, Sample, read_dataset
from anomaly.detectors import Detector
from anomaly.emissions import EmissionsMeter, TrainingEmissions
from anomaly.errors import DataError, RegistryError, RepoNotFoundError, RevisionNotFoundError
from anomaly.evaluation import evaluate, versions
from anomaly.figures import DataFigures, ModelMetrics, TrainingFigures
from anomaly.inspector import Inspector, InspectorFile, Member, MemberRef
from anomaly.model_repo import CARD_FILES, MODEL_FILES, save_detector
from anomaly.policy import Policy, Rule
from training.arguments import DataArgs, RunArgs
from training.pictures import load, samples_of
from training.splits import Manifest, make_manifest, verify_disjoint

MANIFEST, RUN, PUSHED = "manifest.json", "run.json", "pushed.json"
_PIXELS = 5_000_000  # of good held-out heatmaps at the most, for the scale


@dataclass(frozen=True, slots=True)
class Split:
    """A data set, divided."""

    dataset: Dataset
    manifest: Manifest

    def samples(self, *splits: str) -> list[Sample]:
        """The pictures of these splits."""
        return samples_of(self.dataset, self.manifest, *splits)  # type: ignore[arg-type]

    def good(self, *splits: str) -> list[Sample]:
        """The good ones of these splits."""
        return [sample for sample in self.samples(*splits) if not sample.is_defect]

    def defects(self, *splits: str) -> list[Sample]:
        """The defective ones of these splits."""
        return [sample for sample in self.samples(*splits) if sample.is_defect]


def split_data(args: DataArgs) -> Split:
    """Reads and divides the data. The same data and seed give the same split in every script."""
    dataset = read_dataset(args.data, args.category, args.layout)
    manifest = make_manifest(dataset, args.seed, group_regex=args.group_regex, far=args.far)
    verify_disjoint(manifest)
    return Split(dataset, manifest)


def identity(args: DataArgs, split: Split) -> str:
    """Of a run: equal for equal data and settings, wherever it is written to."""
    skip = ("data", "out", "push", "tag", "country", "cpu_power_w")
    settings = {name: str(value) for name, value in dataclasses.asdict(args).items() if name not in skip}
    weights = getattr(args, "weights", None)
    if weights is not None:
        settings["weights"] = hashlib.sha256(weights.read_bytes()).hexdigest() if weights.is_file() else str(weights)
    text = json.dumps({"split": split.manifest.split_hash, "args": settings}, sort_keys=True)
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
def held_out(detector: Detector, samples: Sequence[Sample]) -> tuple[list[float], HeatmapScale | None]:
    """Scores of pictures one by one, as they will be served, and the scale of their heatmaps."""
    scores: list[float] = []
    pixels: list[NDArray[np.float32]] = []
    step = 1
    for sample in tqdm(samples, desc="calibrating", unit="img", leave=False, disable=None):
        output = detector.predict(load(sample.path))
        scores.append(float(output.scores[0]))
        if output.heatmaps is not None:
            flat = output.heatmaps[0].flatten()
            step = max(1, flat.numel() * len(samples) // _PIXELS)
            pixels.append(flat[::step].numpy())
    if not pixels:
        return scores, None
    low, high = (float(q) for q in np.quantile(np.concatenate(pixels), [0.5, 0.999]))
    return scores, HeatmapScale(
        low=low, high=max(high, np.nextafter(np.float32(low), np.float32(np.inf))), images=len(samples)
    )


def calibrated(detector: Detector, split: Split, far: float) -> Calibration:
    """Thresholds and scale from the calibration split, which nothing was fitted on."""
    good, scale = held_out(detector, split.good("calibrate"))
    defects, _ = held_out(detector, split.defects("calibrate"))
    return calibrate(good, defects, split_hash=split.manifest.split_hash, far=far, heatmap=scale)


def finish(
    detector: Detector,
    member: str,
    args: RunArgs,
    split: Split,
    emissions: TrainingEmissions,
    *,
    backbone: str | None,
    settings: Mapping[str, JsonValue],
) -> None:
    """Calibrates, measures on test, writes the run's folder and pushes it where asked.

    Args:
        detector: fitted.
        member: what it is called in an inspector.
        args: of the script.
        split: that it was fitted on.
        emissions: of the fitting.
        backbone: where weights came from that were not trained here.
        settings: of the method, for the card.
    """
    (args.out / RUN).unlink(missing_ok=True)  # of other settings; until the end this is no finished run
    detector = detector.cpu().eval().requires_grad_(False)
    calibration = calibrated(detector, split, args.far)
    save_detector(args.out, detector, CalibrationFile(categories={args.category: calibration}))
    (args.out / MANIFEST).write_text(split.manifest.model_dump_json(indent=1) + "\n")
    weights = args.out / "model.safetensors"
    metrics = ModelMetrics(
        kind=detector.kind,
        member=member,
        category=args.category,
        data=data_figures(split, args),
        backbone=backbone,
        parameters=sum(parameter.numel() for parameter in detector.state_dict().values()),
        model_bytes=weights.stat().st_size,
        settings={"seed": args.seed, "far": args.far, **settings},
        test=None,
        training=TrainingFigures(**dataclasses.asdict(emissions)),
        versions=versions(),
    )
    if split.samples("test"):
        alone = _alone(detector, member, args, calibration)
        found = evaluate(alone, split.samples("test"), data=metrics.data.name, split="test", progress=True)
        metrics = metrics.model_copy(update={"test": found.members[member]})
    (args.out / "metrics.json").write_text(metrics.model_dump_json(indent=1) + "\n")
    write_card(args.out, args.push)
    run = {"identity": identity(args, split), "member": member, "data": str(args.data.resolve()), "layout": args.layout}
    (args.out / RUN).write_text(json.dumps(run, indent=1) + "\n")
    (args.out / "checkpoint.safetensors").unlink(missing_ok=True)
    test = metrics.test
    auroc = "no test pictures" if test is None else f"image AUROC {test.image_auroc}, AU-PRO {test.au_pro}"
    print(f"{member}: {args.out} ({auroc})")
    if args.push:
        push_run(args.out, args.push, args.tag)


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


def data_figures(split: Split, args: DataArgs) -> DataFigures:
    """What a card says about the data."""
    from training.splits import counts

    manifest = split.manifest
    return DataFigures(
        name=args.data.resolve().name,
        layout=manifest.layout,
        seed=manifest.seed,
        split_hash=manifest.split_hash,
        counts={name: dict(labels) for name, labels in counts(manifest).items()},
    )


def _alone(detector: Detector, member: str, args: RunArgs, calibration: Calibration) -> Inspector:
    """An inspector of this one detector, so that the test figures come from the path that serves."""
    ref = MemberRef(name=member, repo="local/run", commit="0" * 40, sha256="0" * 64)
    threshold = "f1" if "f1" in calibration.thresholds else "far"
    policy = Policy(
        name="alone", description={}, rule=Rule(kind="any", members=(member,), threshold=threshold), required=(member,)
    )
    file = InspectorFile(
        category=args.category, labels=("good",), members=(ref,), policies=(policy,), default_policy="alone"
    )
    meter = EmissionsMeter(args.country, args.cpu_power_w)
    members = [Member(ref, detector, calibration)]
    return Inspector(file, members, source=str(args.out), revision="run", commit="0" * 40, meter=meter)
