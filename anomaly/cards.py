"""metrics.json and prose -> README.md on the Hub (model cards: Mitchell et al. 2019, arXiv 1810.03993).

Every figure of a card is read from the JSON files beside it; the templates in `model_cards/` hold words only
(`anomaly/card_text.py`).
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path, PurePath, PureWindowsPath
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, JsonValue, ValidationError

from anomaly.calibration import Calibration, read_calibration
from anomaly.card_text import render
from anomaly.datasets import GOOD
from anomaly.detectors import DETECTORS, DetectorConfig
from anomaly.errors import ModelLoadError
from anomaly.figures import DataFigures, Figures, InspectorMetrics, ModelMetrics, TrainingFigures
from anomaly.inspector import INSPECTOR_FILE, InspectorFile

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

_M = TypeVar("_M", bound=BaseModel)
_HUB_ID = re.compile(r"(?![.~])[\w.-]+/[\w.-]+(@[\w.-]+)?")
_PATH_SETTINGS = ("data", "out", "weights")


def write_card(folder: Path, repo_id: str | None = None) -> Path:
    """Writes README.md into a model folder or an inspector folder, whichever it is.

    Args:
        folder: holds config.json or inspector.json, and metrics.json.
        repo_id: org/name on the Hub; without it the card says how to load from the folder that it lies in.

    Returns:
        The path of the card.

    Raises:
        ModelLoadError, VigieError: as `model_card` and `inspector_card`; the folder is neither of the two.
    """
    makers = {"config.json": model_card, INSPECTOR_FILE: inspector_card}
    found = [name for name in makers if (folder / name).is_file()]
    if len(found) != 1:
        raise ModelLoadError(f"{folder} holds {found or 'none'} of {list(makers)}: a card needs exactly one of them")
    path = folder / "README.md"
    path.write_text(makers[found[0]](folder, repo_id), encoding="utf-8")
    return path


def model_card(folder: Path, repo_id: str | None = None) -> str:
    """The card of one detector, from config.json, calibration.json, metrics.json and `model_cards/<kind>.md`.

    Raises:
        ModelLoadError: a file or a key is missing or unknown, or two files do not belong together.
        VigieError: the text for this kind of detector is missing or uses a variable that does not exist.
    """
    metrics = _read(folder / "metrics.json", ModelMetrics)
    calibrations = _calibrations(folder, metrics)
    calibration = next(iter(calibrations.values()))
    data, test, training = _public_data(metrics.data), metrics.test, metrics.training
    tested = {name: (found.data, found.test) for name, found in metrics.by_category.items()} or {
        metrics.category: (data, test)
    }
    metadata = _metadata(
        repo_id or f"{metrics.category}-{metrics.member}",
        tags=[metrics.kind, metrics.category],
        results=[
            result
            for category, (of, figures) in tested.items()
            if figures
            for result in _results(
                category, _public_data(of), figures, config=category if metrics.by_category else None
            )
        ],
        base_model=_base_model(metrics.backbone),
        emissions=_card_emissions(training, from_scratch=metrics.backbone is None),
    )
    return render(
        f"{metrics.kind}.md",
        metadata=metadata,
        repo_id=repo_id,
        metrics=metrics,
        config=_config(folder / "config.json", metrics.kind),
        calibration=calibration,
        calibrations=calibrations,
        data=data,
        labels=_labels(data),
        test=test,
        tested=_tested(data) if test else None,
        no_area=_why_no_area(data, draws=calibration.heatmap is not None),
        training=training,
        no_emissions=training.note or "below the resolution of CodeCarbon",
        backbone=metrics.backbone and _public(metrics.backbone),
        settings=_settings(metrics.settings),
    )


def inspector_card(folder: Path, repo_id: str | None = None) -> str:
    """The card of a released ensemble, from inspector.json, metrics.json and `model_cards/inspector.md`.

    Raises:
        ModelLoadError: a file or a key is missing or unknown, or the two files do not belong together.
        VigieError: the text is missing or uses a variable that does not exist.
    """
    metrics = _read(folder / "metrics.json", InspectorMetrics)
    file = _read(folder / INSPECTOR_FILE, InspectorFile)
    policies = {policy.name: policy for policy in file.policies}
    for what, released, measured in (
        ("category", {file.category}, {metrics.category}),
        ("members", {member.name for member in file.members}, set(metrics.members)),
        ("policies", policies.keys() | {file.default_policy}, set(metrics.policies)),
    ):
        if released != measured:
            raise ModelLoadError(
                f"{folder}: {INSPECTOR_FILE} names the {what} {sorted(released)}, metrics.json {sorted(measured)}: "
                "evaluate the inspector that is released"
            )
    data = _public_data(metrics.data)
    results = [
        result
        for name, figures in metrics.policies.items()  # a member's are in its own card
        for result in _results(file.category, data, figures, f"policy {name}")
    ]
    return render(
        "inspector.md",
        metadata=_metadata(repo_id or f"{file.category}-inspector", tags=["inspector", file.category], results=results),
        repo_id=repo_id,
        file=file,
        metrics=metrics,
        data=data,
        labels=_labels(data),
        tested=_tested(data),
        no_area=_why_no_area(data, draws=None),
        default=policies[file.default_policy],
    )


def _read(path: Path, kind: type[_M]) -> _M:
    try:
        return kind.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ModelLoadError(f"{path} cannot be read ({error.strerror}): a card needs it") from error
    except ValidationError as error:
        found = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'the file'}: {e['msg']}" for e in error.errors()[:3])
        raise ModelLoadError(f"{path}: {found}. It is written by a command, not by hand: run that again") from error


def _config(path: Path, kind: str) -> DetectorConfig:
    try:
        content = json.loads(path.read_bytes())
        found, config = content["kind"], json.dumps(content["config"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelLoadError(f"{path}: cannot be read, or lacks the key {error}") from error
    if found != kind or kind not in DETECTORS:
        raise ModelLoadError(f"{path} is of a {found!r}, metrics.json of a {kind!r}; known: {sorted(DETECTORS)}")
    try:
        return DETECTORS[kind].config_type.model_validate_json(config)
    except ValidationError as error:
        raise ModelLoadError(f"{path}: {error}") from error


def _calibrations(folder: Path, metrics: ModelMetrics) -> dict[str, Calibration]:
    """Those that the figures were taken at, by category."""
    measured = {name: (found.data, found.test) for name, found in metrics.by_category.items()} or {
        metrics.category: (metrics.data, metrics.test)
    }
    categories = read_calibration(folder / "calibration.json").categories
    for category, (data, test) in measured.items():
        if category not in categories:
            raise ModelLoadError(f"{folder}: calibration.json is for {sorted(categories)}, not for {category!r}")
        calibration = categories[category]
        for what, calibrated, found in (
            ("split", {calibration.split_hash}, {data.split_hash}),
            ("thresholds", set(calibration.thresholds), set(test.at if test else calibration.thresholds)),
        ):
            if calibrated != found:
                raise ModelLoadError(
                    f"{folder}: calibration.json has the {what} {sorted(calibrated)}, metrics.json {sorted(found)}: "
                    "evaluate the model as it is calibrated"
                )
    return {category: categories[category] for category in measured}


def _labels(data: DataFigures) -> list[str]:
    """Good first, then the defects in alphabetical order."""
    return sorted({label for counts in data.counts.values() for label in counts}, key=lambda name: (name != GOOD, name))


def _tested(data: DataFigures) -> dict[str, int]:
    """How many test images there are: {"good": n, "defects": n}."""
    if "test" not in data.counts:
        raise ModelLoadError(f"metrics.json has figures on test, but data.counts only has {sorted(data.counts)}")
    good = data.counts["test"].get(GOOD, 0)
    return {"good": good, "defects": sum(data.counts["test"].values()) - good}


def _why_no_area(data: DataFigures, draws: bool | None) -> dict[str, str]:
    """What to say where an area under a curve is None; `draws`: whether there are heatmaps, None if not known."""
    counts = data.counts.get("test", {})
    found = {"good parts": counts.get(GOOD, 0), "defects": sum(counts.values()) - counts.get(GOOD, 0)}
    absent = [what for what, count in found.items() if not count]
    image = "not measured" + (f": test has no {' and no '.join(absent)}" if absent else "")
    without_masks = "not measured: " + ("the data has no masks" if draws else "no masks or no heatmap")
    pixel = "not measured: it draws no heatmap" if draws is False else image if absent else without_masks
    return {"image": image, "pixel": pixel}


def _results(
    category: str, data: DataFigures, figures: Figures, of: str = "", config: str | None = None
) -> list["EvalResult"]:
    """Rows of the model-index, at full precision; what is None has no row.

    The Hub's library takes rows with the same data set, `config` and split for one data set, whatever its name.
    """
    from huggingface_hub import EvalResult

    tested = _tested(data)  # a part sent to review, or without a vote, is neither rejected nor passed, but it is there
    defects, good = tested["defects"], tested["good"]
    rows = (
        ("roc_auc", "image AUROC", figures.image_auroc),
        ("pixel_roc_auc", "pixel AUROC", figures.pixel_auroc),
        ("au_pro", "AU-PRO (limit 0.3)", figures.au_pro),
        ("recall", f"defects rejected at {figures.threshold}", figures.tp / defects if defects else None),
        ("false_positive_rate", f"good parts rejected at {figures.threshold}", figures.fp / good if good else None),
    )
    return [
        EvalResult(
            task_type="image-classification",
            task_name="Visual anomaly detection",
            dataset_type=data.name,
            dataset_name=f"{data.name}: {category}",
            dataset_config=config,
            dataset_split="test",
            dataset_args={"split_hash": data.split_hash, "seed": data.seed, "layout": data.layout},
            metric_type=metric,
            metric_name=f"{name} ({of})" if of else name,
            metric_value=value,
        )
        for metric, name, value in rows
        if value is not None
    ]


def _metadata(
    name: str,
    *,
    tags: list[str],
    results: list["EvalResult"],
    base_model: str | None = None,
    emissions: Mapping[str, str | float] | None = None,
) -> str:
    """The front matter in YAML, as the Hub reads it."""
    from huggingface_hub import ModelCardData

    index: dict[str, Any] = {"model_name": name, "eval_results": results} if results else {}
    data = ModelCardData(
        language="en",
        license="apache-2.0",
        library_name="vigie",
        pipeline_tag="image-classification",  # the nearest of the Hub's tasks: it has none for anomalies
        tags=["vigie", "anomaly-detection", "industrial-inspection", *tags],
        metrics=list(dict.fromkeys(result.metric_type for result in results)) or None,
        base_model=base_model,
        co2_eq_emissions=emissions,
        **index,
    )
    return data.to_yaml()


def _card_emissions(training: TrainingFigures, *, from_scratch: bool) -> dict[str, str | float] | None:
    """The Hub's field, in GRAMS; without an estimate there is none, for a 0 would read as a measurement."""
    if not training.grams_co2eq:
        return None
    return {
        "emissions": training.grams_co2eq,
        "source": "CodeCarbon",
        "training_type": "pre-training" if from_scratch else "fine-tuning",
        "geographical_location": training.country,
        "hardware_used": training.hardware,
    }


def _base_model(backbone: str | None) -> str | None:
    """The Hub repo that frozen or initial weights came from; a local file has none."""
    return backbone.split("@")[0] if backbone and "@" in backbone and _HUB_ID.fullmatch(backbone) else None


def _public_data(data: DataFigures) -> DataFigures:
    return data.model_copy(update={"name": _public(data.name)})


def _public(name: str) -> str:
    """A Hub id as it is; of a path the last part only, for the rest tells of somebody's machine."""
    return name if _HUB_ID.fullmatch(name) else PureWindowsPath(name).name or name


def _settings(settings: Mapping[str, JsonValue]) -> dict[str, str]:
    """Of the training command; what was left at None says nothing."""

    def said(key: str, value: JsonValue) -> str:
        if isinstance(value, str):
            is_path = key in _PATH_SETTINGS or PurePath(value).is_absolute()
            return PureWindowsPath(value).name if is_path else value
        return json.dumps(value)

    return {key: said(key, value) for key, value in settings.items() if value is not None}
