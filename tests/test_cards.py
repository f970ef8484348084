"""Cards: every figure comes from the JSON files beside them, in words where there is none, and the snippets run."""

import json
import re
import shlex
from collections.abc import Callable
from dataclasses import asdict, dataclass
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from shutil import copytree
from typing import Any, get_args

import pytest
import torch
from huggingface_hub import ModelCard
from loopback_hub import LoopbackHub
from PIL import Image
from released import use_hub
from tiny import SIDE, TRUNK, as_picture, corrupted, good_images, tiny_detectors, tiny_inspector

from anomaly import card_text, load_inspector, read_image
from anomaly import hub as registry
from anomaly.calibration import Calibration, CalibrationFile, Threshold, ThresholdName, calibrate, sweep
from anomaly.card_text import TEXTS, curve_meaning, threshold_meaning
from anomaly.cards import inspector_card, model_card, write_card
from anomaly.datasets import Sample
from anomaly.detectors import DETECTORS, AutoencoderConfig, ClassifierConfig, DetectorConfig, PatchKNNConfig
from anomaly.emissions import EmissionsMeter, measure_training
from anomaly.errors import ModelLoadError, VigieError
from anomaly.evaluation import hardware, versions
from anomaly.figures import DataFigures, InspectorMetrics, ModelMetrics, TrainingFigures
from anomaly.guarantees import guarantees, promise
from anomaly.inspector import INSPECTOR_FILE, InspectorFile
from anomaly.model_repo import CARD_FILES, MODEL_FILES, save_detector
from anomaly.settings import Settings
from training.metrics import measured
from training.probability import fit_probability

MEMBERS = (
    "autoencoder",
    "baseline_cnn",
    "classifier",
    "mahalanobis",
    "mahalanobis_global",
    "patch_knn",
    "classical",
    "localiser",
)
NO_HEATMAP = ("mahalanobis_global", "classical")
GOOD, BENT, CUT = 5, 6, 2  # test pictures
DEFECTS = BENT + CUT
VERDICTS = ("ok", "defect", "review")
NO_RESOLUTION = "not measured: below the resolution of CodeCarbon"


@dataclass(frozen=True, slots=True)
class Released:
    """Fitted models and the inspector of them: folders as a training command leaves them, and a local release."""

    models: dict[str, Path]
    inspector: Path
    cache: Path
    picture: Path


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Released:
    """Tiny detectors, but every figure is measured: fitting, calibration, evaluation on pictures with masks."""
    root = tmp_path_factory.mktemp("cards")
    with measure_training("FRA") as emissions:
        detectors = tiny_detectors()
    inspector = tiny_inspector(detectors, EmissionsMeter("FRA"))
    samples = _pictures(root / "pictures")
    found = measured(inspector, samples, data="waves", split="test", resamples=50)
    shared: dict[str, Any] = {
        "category": "waves",
        "data": DataFigures(
            name="waves",
            layout="mvtec",
            seed=3,
            split_hash=inspector.members["autoencoder"].calibration.split_hash,
            counts={"train": {"good": 40}, "calibrate": {"good": 20, "bent": 4}, "test": found.counts},
        ),
        "versions": versions(),
    }
    members = []
    for name, member in inspector.members.items():
        folder = root / name
        save_detector(folder, detectors[name], CalibrationFile(categories={"waves": member.calibration}))
        metrics = ModelMetrics(
            kind=member.detector.kind,
            member=name,
            backbone=None if member.detector.trunk is None else "timm/test_resnet.r160_in1k@" + "c" * 40,
            parameters=sum(tensor.numel() for tensor in detectors[name].state_dict().values()),
            model_bytes=(folder / "model.safetensors").stat().st_size,
            settings={"seed": 3, "far": 0.05},
            test=found.members[name],
            training=TrainingFigures(**asdict(emissions)),
            **shared,
        )
        (folder / "metrics.json").write_text(metrics.model_dump_json())
        commit = registry.store(folder, root / "cache", member.ref.repo, files=MODEL_FILES)
        digest = sha256((folder / "model.safetensors").read_bytes()).hexdigest()
        members.append(member.ref.model_copy(update={"commit": commit, "sha256": digest}))
    folder = root / "inspector"
    folder.mkdir()
    file = inspector.file.model_copy(update={"members": tuple(members)})
    (folder / INSPECTOR_FILE).write_text(file.model_dump_json())
    figures = InspectorMetrics(
        members=found.members, policies=found.policies, hardware=hardware(), country="FRA", **shared
    )
    (folder / "metrics.json").write_text(figures.model_dump_json())
    registry.store(folder, root / "cache", "test/waves", files=[INSPECTOR_FILE], tag="v1")
    return Released({name: root / name for name in detectors}, folder, root / "cache", samples[-1].path)


def _pictures(folder: Path) -> list[Sample]:
    folder.mkdir()
    square = corrupted(torch.zeros(1, 3, SIDE, SIDE))[0, 0] != corrupted(torch.ones(1, 3, SIDE, SIDE))[0, 0]
    Image.fromarray((~square).byte().mul(255).numpy()).save(folder / "mask.png")
    images = [*good_images(GOOD, seed=11), *corrupted(good_images(DEFECTS, seed=12))]
    samples = []
    for index, label in enumerate(["good"] * GOOD + ["bent"] * BENT + ["cut"] * CUT):
        path = folder / f"{index}.png"
        Image.fromarray(as_picture(images[index])).save(path)
        samples.append(Sample(path, path.name, label, "test", None if label == "good" else folder / "mask.png"))
    return samples


@pytest.fixture
def model(released: Released, tmp_path: Path) -> Path:
    """A copy of the autoencoder's folder, to be spoilt."""
    return copytree(released.models["autoencoder"], tmp_path / "autoencoder")


@pytest.fixture
def inspector(released: Released, tmp_path: Path) -> Path:
    """A copy of the inspector's folder, to be spoilt."""
    return copytree(released.inspector, tmp_path / "inspector")


@pytest.fixture
def texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of `model_cards/` that the cards are made from, to be spoilt."""
    monkeypatch.setattr(card_text, "TEXTS", copytree(TEXTS, tmp_path / "texts"))
    return card_text.TEXTS


def change(path: Path, edit: Callable[[Any], object]) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def metrics_of(folder: Path) -> ModelMetrics:
    return ModelMetrics.model_validate_json((folder / "metrics.json").read_bytes())


def row(card: str, first: str, number: int = 0) -> list[str]:
    """The cells behind the first one, of the row that begins so (the first such row is number 0)."""
    rows = [line for line in card.splitlines() if line.startswith(f"| {first} |")]
    return [cell.strip() for cell in rows[number].split("|")[2:-1]]


def number(cell: str) -> float:
    return float(cell.split(maxsplit=1)[0])


def snippets(card: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", card, flags=re.DOTALL)


def flat(card: str) -> str:
    """On one line, as it is read."""
    return " ".join(card.split())


# A model's card says what its files say


@pytest.mark.parametrize("name", MEMBERS)
def test_every_figure_on_test_is_the_one_in_metrics_json(released: Released, name: str) -> None:
    card, test = model_card(released.models[name]), metrics_of(released.models[name]).test
    assert row(card, "image AUROC") == [f"{test.image_auroc:.4f}"]
    if name in NO_HEATMAP:
        assert row(card, "pixel AUROC") == row(card, "AU-PRO (exact, limit 0.3)")
        assert row(card, "pixel AUROC") == ["not measured: it draws no heatmap"]
        assert "and a heatmap" not in card.split("## What it is")[0]
    else:
        assert row(card, "pixel AUROC") == [f"{test.pixel_auroc:.4f}"]
        assert row(card, "AU-PRO (exact, limit 0.3)") == [f"{test.au_pro:.4f}"]
    assert test.at.keys() == {"far", "f1", "f2", "youden", "safe"}
    for threshold, c in test.at.items():
        assert row(card, f"`{threshold}`") == [str(n) for n in (c.tp, c.fn, c.fp, c.tn, c.review, c.failed)]
    assert f"rejects {test.tp} of {DEFECTS} defects and {test.fp} of {GOOD} good parts." in flat(card)
    assert number(row(card, "time, median")[0]) == pytest.approx(test.latency_ms.median, rel=5e-3)
    assert number(row(card, "time, 95th percentile")[0]) == pytest.approx(test.latency_ms.p95, rel=5e-3)
    assert number(row(card, "energy, estimated")[0]) == pytest.approx(test.energy_mj, rel=5e-3)
    wh_for_1000 = 1000 * test.energy_mj / 1000 / 3600
    assert number(row(card, "1,000 inspections, estimated")[0]) == pytest.approx(wh_for_1000, rel=5e-3)


@pytest.mark.parametrize("name", MEMBERS)
def test_the_three_levels_are_those_in_metrics_json(released: Released, name: str) -> None:
    card, levels = model_card(released.models[name]), metrics_of(released.models[name]).test.levels
    auroc = levels.image.auroc
    assert row(card, "good or not: AUROC") == [f"{auroc.value:.3f} ({auroc.low:.3f} to {auroc.high:.3f})"]
    assert f"{levels.image.resamples} bootstrap resamples of the {GOOD} good and {DEFECTS} defective" in card
    cells = row(card, "bent", 1)
    bent = levels.type.types["bent"]
    assert cells[:2] == [str(BENT), f"{bent.rejected:.4f}"]
    if levels.type.n:
        f1s = [f"{levels.type.macro_f1:.4f}", f"{levels.type.weighted_f1:.4f}"]
        assert row(card, "which type: macro F1, weighted F1") == [", ".join(f1s)]
        assert cells[2] == f"{bent.f1:.4f}"
    else:
        assert "which type" not in card
    if levels.pixel:
        assert cells[-2] == f"{bent.au_pro:.4f}"
        assert row(card, "where: AU-PRO (exact, limit 0.05), pixel AP") == [
            f"{levels.pixel.au_pro_05:.4f}, {levels.pixel.ap:.4f}"
        ]
    for note in levels.notes:
        assert note.replace("[", r"\[").replace("]", r"\]") in card


def test_metrics_from_before_the_levels_still_make_a_card(model: Path) -> None:
    change(model / "metrics.json", lambda m: m["test"].pop("levels"))
    card = model_card(model)
    assert "three levels" not in card
    assert row(card, "image AUROC") == [f"{metrics_of(model).test.image_auroc:.4f}"]


def test_a_model_of_several_categories_has_a_row_and_thresholds_for_each(model: Path) -> None:
    def copied(content: Any) -> None:
        content["categories"]["stripes"] = content["categories"]["waves"]

    def parted(m: Any) -> None:
        stripes = json.loads(json.dumps(m["test"])) | {"image_auroc": 0.75, "tp": 3}
        m["by_category"] = {
            "stripes": {"data": m["data"], "test": stripes},
            "waves": {"data": m["data"], "test": m["test"]},
        }
        m.update(category="all", test=None)

    change(model / "calibration.json", copied)
    change(model / "metrics.json", parted)
    card = model_card(model, "acme/all-autoencoder")
    waves = metrics_of(model).by_category["waves"].test
    assert row(card, "stripes")[:3] == [str(GOOD), str(DEFECTS), "0.7500"]
    assert row(card, "stripes")[5] == "3"
    assert row(card, "waves")[2] == f"{waves.image_auroc:.4f}"
    assert card.count("| threshold | value |") == 2
    assert "One model for 2 categories" in card
    assert '.select("stripes").predict(image)' in card
    assert not re.search(r"\{[{%#]|None|\bnan\b|Undefined|\n{3}", card)
    found = ModelCard(card).data.eval_results
    assert {(r.dataset_name, r.metric_value) for r in found if r.metric_type == "roc_auc"} == {
        ("waves: stripes", 0.75),
        ("waves: waves", waves.image_auroc),
    }


def test_thresholds_come_with_what_they_did_on_the_calibration_images(released: Released) -> None:
    folder = released.models["patch_knn"]
    card = model_card(folder)
    calibration = CalibrationFile.model_validate_json((folder / "calibration.json").read_bytes()).categories["waves"]
    for name, threshold in calibration.thresholds.items():
        value, origin, effect = row(card, f"`{name}`", 1)
        assert float(value) == pytest.approx(threshold.value, rel=1e-4)
        assert origin == threshold_meaning(name, threshold)
        assert effect.startswith(f"{threshold.false_alarms} of 20 good images rejected")
    assert row(card, "`safe`", 1)[2].endswith(", 0 of 4 defects missed")
    assert row(card, "`far`", 1)[1] == "good images alone, for a false-alarm level of 0.05"
    assert row(card, "`far`", 1)[2].endswith("; no defects were used")
    assert f"from 20 good images that were held out. It cannot fall below {1 / 21:.3g}" in flat(card)
    assert "a p-value is *not* the probability of a defect" in card


def test_no_count_stands_without_what_it_supports(released: Released) -> None:
    folder = released.models["patch_knn"]
    calibration = CalibrationFile.model_validate_json((folder / "calibration.json").read_bytes()).categories["waves"]
    thresholds = model_card(folder).split("## Thresholds")[1].split("\n## ")[0]
    for name, promised in guarantees(calibration).items():
        assert f"- `{name}`: {promised.misses.text['en']} {promised.false_alarms.text['en']}\n" in thresholds
    assert "- `safe`: No defect missed among 4 held-out ones: 20.0 % missed is what this supports on av" in thresholds
    assert "at most 52.7 % with 95 % confidence" in thresholds


def test_a_probability_of_a_defect_is_explained_with_its_prevalence_and_its_counts(model: Path) -> None:
    assert "### Probability of a defect\n\nThere is none: this calibration is from before probabilities" in model_card(
        model
    )

    def with_probability(file: Any) -> None:
        of = file["categories"]["waves"]
        probability = fit_probability(of["good_scores"], of["defect_scores"])
        assert probability is not None
        of["probability"] = probability.model_dump(mode="json")

    change(model / "calibration.json", with_probability)
    card = model_card(model)
    calibration = CalibrationFile.model_validate_json((model / "calibration.json").read_bytes()).categories["waves"]
    assert calibration.probability is not None
    assert curve_meaning(calibration.probability.kind) in card
    assert "fitted to 4 held-out defects and 20 good images" in card
    assert "parts of which 16.7 % are defective" in card
    for counted in sweep(calibration, [0.5, 0.95]):
        effect = [f"{counted.false_alarms} of 20", f"{counted.missed} of 4"]
        assert row(card, f"{counted.probability}") == effect
    assert "the counts flatter them and promise nothing" in card


def test_too_few_defects_for_a_probability_are_counted(model: Path) -> None:
    def with_one_defect(file: Any) -> None:
        old = Calibration.model_validate_json(json.dumps(file["categories"]["waves"]))
        new = calibrate(old.good_scores, old.defect_scores[:1], split_hash=old.split_hash, heatmap=old.heatmap)
        file["categories"]["waves"] = new.model_dump(mode="json")

    change(model / "calibration.json", with_one_defect)
    assert "There is none: it needs 2 held-out defects and 2 good parts, there are 1 and 20." in model_card(model)


def test_images_are_counted_by_split_and_label(released: Released) -> None:
    card = model_card(released.models["autoencoder"])
    assert row(card, "images") == ["train", "calibrate", "test"]
    assert row(card, "good") == ["40", "20", str(GOOD)]
    assert row(card, "bent") == ["0", "4", str(BENT)]
    assert row(card, "cut") == ["0", "0", str(CUT)]
    assert row(card, "all") == ["40", "24", str(GOOD + DEFECTS)]
    assert "**waves** (mvtec layout), split with seed 3." in card
    assert f"Split hash: `{'0' * 16}`" in card


def test_every_threshold_has_words_of_its_own() -> None:
    threshold = Threshold(value=1.0, false_alarms=0, good=9, missed=0, defects=0, level=0.1)
    words = {threshold_meaning(name, threshold) for name in get_args(ThresholdName)}
    assert len(words - {None}) == len(get_args(ThresholdName))


def test_a_model_that_is_no_better_than_chance_is_said_to_be(model: Path) -> None:
    for auroc, said in ((0.5, True), (0.51, False)):
        change(model / "metrics.json", lambda m, a=auroc: m["test"].update(image_auroc=a))
        assert ("no better than chance" in model_card(model)) == said


@pytest.mark.parametrize(
    ("grams", "shown"), [(1.23456e-7, "0.000000123 g"), (0.5, "0.5 g"), (98765.4, "98800 g"), (7, "7 g")]
)
def test_numbers_have_three_digits_and_no_exponent(model: Path, grams: float, shown: str) -> None:
    change(model / "metrics.json", lambda m: m["training"].update(grams_co2eq=grams))
    assert row(model_card(model), "emissions") == [f"{shown} CO2e"]


# The metadata


def test_the_hub_reads_the_metadata(released: Released) -> None:
    test = metrics_of(released.models["patch_knn"]).test
    data = ModelCard(model_card(released.models["patch_knn"], "acme/waves-patch_knn")).data
    assert (data.license, data.library_name, data.pipeline_tag) == ("apache-2.0", "vigie", "image-classification")
    assert {"anomaly-detection", "industrial-inspection", "patch_knn", "waves"} <= set(data.tags)
    assert (data.model_name, data.base_model) == ("acme/waves-patch_knn", "timm/test_resnet.r160_in1k")
    found = {result.metric_type: result.metric_value for result in data.eval_results}
    assert found == {
        "roc_auc": test.image_auroc,
        "pixel_roc_auc": test.pixel_auroc,
        "au_pro": test.au_pro,
        "recall": test.tp / DEFECTS,
        "false_positive_rate": test.fp / GOOD,
    }
    assert data.metrics == list(found)
    assert {(r.dataset_name, r.dataset_split) for r in data.eval_results} == {("waves: waves", "test")}
    assert {r.dataset_args["split_hash"] for r in data.eval_results} == {"0" * 16}


def test_training_emissions_are_in_grams(released: Released) -> None:
    training = metrics_of(released.models["autoencoder"]).training
    card = model_card(released.models["autoencoder"])
    field = ModelCard(card).data.co2_eq_emissions
    grams = training.energy_wh / 1000 * training.g_per_kwh  # CodeCarbon itself speaks of kWh and kg
    assert field == {
        "emissions": pytest.approx(grams, rel=1e-6),
        "source": "CodeCarbon",
        "training_type": "pre-training",
        "geographical_location": "FRA",
        "hardware_used": training.hardware,
    }
    assert field["emissions"] == training.grams_co2eq
    assert row(card, "training") == ["estimated"]
    assert row(card, "emissions")[0].endswith(" g CO2e")
    assert number(row(card, "emissions")[0]) == pytest.approx(grams, rel=5e-3)
    assert number(row(card, "energy")[0]) == pytest.approx(training.energy_wh, rel=5e-3)
    assert row(card, "electricity") == [f"FRA, {training.g_per_kwh:.3g} g CO2e/kWh"]
    fitted = ModelCard(model_card(released.models["patch_knn"])).data.co2_eq_emissions
    assert fitted["training_type"] == "fine-tuning"


def test_weights_from_a_local_file_have_no_base_model_on_the_hub(model: Path) -> None:
    change(model / "metrics.json", lambda m: m.update(backbone="mobilenet.safetensors (sha256 0123456789abcdef)"))
    card = model_card(model)
    assert ModelCard(card).data.base_model is None
    assert "Stands on, or starts from, the weights of mobilenet.safetensors (sha256 0123456789abcdef)." in card


# What is not known is said in words


def test_figures_that_were_not_measured_are_said_in_words(model: Path) -> None:
    change(model / "metrics.json", lambda m: m["test"].update(pixel_auroc=None, au_pro=None, energy_mj=None))
    card = model_card(model)
    assert row(card, "pixel AUROC") == ["not measured: the data has no masks"]
    assert row(card, "AU-PRO (exact, limit 0.3)") == ["not measured: the data has no masks"]
    assert row(card, "energy, estimated") == row(card, "1,000 inspections, estimated") == [NO_RESOLUTION]
    assert {r.metric_type for r in ModelCard(card).data.eval_results} == {"roc_auc", "recall", "false_positive_rate"}
    assert "None" not in card


def test_without_good_test_parts_there_is_no_auroc_and_no_false_alarm_rate(model: Path) -> None:
    change(model / "metrics.json", lambda m: m["data"]["counts"]["test"].pop("good"))
    change(model / "metrics.json", lambda m: m["test"].update(image_auroc=None, pixel_auroc=None, au_pro=None))
    card = model_card(model)
    assert row(card, "image AUROC") == ["not measured: test has no good parts"]
    assert {r.metric_type for r in ModelCard(card).data.eval_results} == {"recall"}


def test_a_model_that_was_not_tested_says_so_and_has_no_model_index(model: Path) -> None:
    change(model / "metrics.json", lambda m: (m.update(test=None), m["data"]["counts"].pop("test")))
    card = model_card(model)
    assert "**Not tested:**" in card
    assert "Not measured: the data has no test split." in card
    assert ModelCard(card).data.eval_results is None
    assert not re.search("AUROC|None", card)


def test_without_an_estimate_of_emissions_there_is_no_figure_and_no_field(model: Path) -> None:
    unknown = {"grams_co2eq": None, "energy_wh": None, "g_per_kwh": None, "note": "unavailable: OSError('no sensor')"}
    change(model / "metrics.json", lambda m: m["training"].update(unknown))
    card = model_card(model)
    assert row(card, "emissions") == row(card, "energy") == ["not measured: unavailable: OSError('no sensor')"]
    assert row(card, "electricity") == ["FRA, intensity not known"]
    assert "co2_eq_emissions" not in card


def test_emissions_of_zero_are_below_resolution_and_never_0(model: Path) -> None:
    change(model / "metrics.json", lambda m: m["training"].update(grams_co2eq=0, energy_wh=0))
    card = model_card(model)
    assert row(card, "emissions") == row(card, "energy") == [NO_RESOLUTION]
    assert "co2_eq_emissions" not in card


def test_thresholds_from_good_images_alone_say_that_the_others_are_missing(model: Path) -> None:
    def without_defects(file: Any) -> None:
        old = Calibration.model_validate_json(json.dumps(file["categories"]["waves"]))
        new = calibrate(old.good_scores, [], split_hash=old.split_hash, heatmap=old.heatmap)
        file["categories"]["waves"] = new.model_dump(mode="json")

    change(model / "calibration.json", without_defects)
    change(model / "metrics.json", lambda m: m["test"].update(at={"far": m["test"]["at"]["far"]}))
    card = model_card(model)
    assert "there is no threshold `f1`, `f2`, `youden` or `safe`" in card
    assert "| `safe` |" not in card


# Strictness


@pytest.mark.parametrize("key", sorted(ModelMetrics.model_fields.keys() - {"format", "curve", "by_category"}))
def test_a_missing_key_in_metrics_json_is_named(model: Path, key: str) -> None:
    change(model / "metrics.json", lambda m: m.pop(key))
    with pytest.raises(ModelLoadError, match=rf"metrics\.json: {key}: Field required"):
        write_card(model)
    assert not (model / "README.md").exists()


@pytest.mark.parametrize(
    ("file", "edit", "match"),
    [
        ("metrics.json", lambda m: m.update(f1max=0.99), "f1max: Extra inputs"),
        ("metrics.json", lambda m: m["test"].pop("au_pro"), "test.au_pro: Field required"),
        ("metrics.json", lambda m: m["data"].update(split_hash="f" * 64), "split .* evaluate the model"),
        ("metrics.json", lambda m: m["test"]["at"].pop("safe"), "thresholds .* evaluate the model"),
        ("metrics.json", lambda m: m["data"]["counts"].pop("test"), "figures on test, but data.counts"),
        ("metrics.json", lambda m: m.update(category="pcb4"), r"calibration.json is for \['waves'\], not for 'pcb4'"),
        ("metrics.json", lambda m: m.update(kind="patch_knn"), "is of a 'autoencoder', metrics.json of a 'patch_knn'"),
        ("config.json", lambda c: c.pop("kind"), "lacks the key 'kind'"),
        ("config.json", lambda c: c["config"].update(widht=3), "widht"),
        ("calibration.json", lambda c: c.pop("categories"), "calibration.json: .*categories"),
    ],
)
def test_files_that_are_wrong_or_do_not_belong_together_make_no_card(
    model: Path, file: str, edit: Callable[[Any], object], match: str
) -> None:
    change(model / file, edit)
    with pytest.raises(ModelLoadError, match=match):
        model_card(model)


@pytest.mark.parametrize("name", ["metrics.json", "calibration.json"])
def test_a_missing_file_is_named(model: Path, name: str) -> None:
    (model / name).unlink()
    with pytest.raises(ModelLoadError, match=name):
        write_card(model)


def test_a_folder_that_is_neither_model_nor_inspector_gets_no_card(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="holds none of"):
        write_card(tmp_path)
    (model / INSPECTOR_FILE).write_text("{}")
    with pytest.raises(ModelLoadError, match="needs exactly one"):
        write_card(model)


@pytest.mark.parametrize(
    ("written", "match"),
    [
        ("{{ metrics.f1max }}", "no attribute 'f1max'"),
        ("{{ accuracy }}", "'accuracy' is undefined"),
        ("{{ metrics.backbone }}", "None is printed as it is"),
        ("{{ test.image_auroc }}", "is printed as it is: say it in words, or round it"),
        ("{% endif %}", "unknown tag 'endif'"),
    ],
)
def test_a_template_cannot_use_what_does_not_exist_nor_print_what_is_unknown(
    model: Path, texts: Path, written: str, match: str
) -> None:
    prose = texts / "autoencoder.md"
    prose.write_text(prose.read_text().replace("{% block method %}", "{% block method %}" + written))
    with pytest.raises(VigieError, match=rf"model_cards/autoencoder\.md: .*{match}"):
        model_card(model)


def test_a_prose_file_must_exist_and_fill_every_block(model: Path, texts: Path) -> None:
    prose = texts / "autoencoder.md"
    prose.write_text(prose.read_text().replace("{% block limits %}", "{% block limit %}"))
    with pytest.raises(VigieError, match="Required block 'limits' not found"):
        model_card(model)
    prose.unlink()
    with pytest.raises(VigieError, match=r"write .*autoencoder\.md"):
        model_card(model)


# Prose


def test_every_detector_has_a_prose_file_and_every_prose_file_a_detector() -> None:
    assert {path.stem for path in TEXTS.glob("*.md")} == set(DETECTORS) | {"template", "inspector"}


def test_every_detector_is_among_those_whose_card_is_read(released: Released) -> None:
    assert {metrics_of(folder).kind for folder in released.models.values()} == set(DETECTORS)


@pytest.mark.parametrize("name", MEMBERS)
def test_a_blank_line_stands_before_every_table(released: Released, name: str) -> None:
    lines = model_card(released.models[name]).splitlines()
    tables = [before for before, line in pairwise(lines) if line.startswith("|") and not before.startswith("|")]
    assert len(tables) >= 4
    assert set(tables) == {""}


@pytest.mark.parametrize("name", MEMBERS)
def test_a_card_is_whole_and_short(released: Released, name: str) -> None:
    card = model_card(released.models[name])
    assert re.findall(r"^## (.*)$", card, flags=re.MULTILINE) == [
        "What it is",
        "Use",
        "Data and split",
        "Figures on test",
        "Thresholds",
        "Limits and blind spots",
        "Emissions, energy, time",
        "Load it",
        "Versions, licence, citation",
    ]
    assert card.split("## Limits and blind spots")[1].split("\n## ")[0].count("\n- ") >= 5
    assert "https://arxiv.org/abs/" in card.split("## Versions")[1].split("- AU-PRO")[0]
    assert not re.search(r"\{[{%#]|None|\bnan\b|Undefined|\n{3}", card)
    assert len(card.splitlines()) < 270
    assert ("softmax values, not probabilities" in card) == (name in ("baseline_cnn", "classifier", "classical"))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (AutoencoderConfig(), "50,176 numbers stand for the picture's 150,528"),
        (ClassifierConfig(classes=("good", "bent_wire"), architecture="resnet18"), "Deep Residual Learning"),
        (ClassifierConfig(classes=("good", "bent_wire"), architecture="efficientnet_b0"), "Rethinking Model Scaling"),
        (ClassifierConfig(classes=("good", "bent_wire"), architecture="vgg11"), r"*good*, *bent\_wire*"),
        (PatchKNNConfig(trunk=TRUNK, use_layers=(2, 3), neighbours=1), "(1 neighbour)"),
    ],
)
def test_the_prose_follows_the_config(model: Path, config: DetectorConfig, said: str) -> None:
    kind = next(name for name, detector in DETECTORS.items() if detector.config_type is type(config))
    change(model / "config.json", lambda c: c.update(kind=kind, config=config.model_dump(mode="json")))
    change(model / "metrics.json", lambda m: m.update(kind=kind))
    assert said in flat(model_card(model))


# Strangers read it


@pytest.mark.parametrize("name", ["/home/alice/lab/cables", "../lab/cables", r"C:\Users\alice\lab\cables", "cables"])
def test_of_a_data_folder_only_its_name_is_told(model: Path, name: str) -> None:
    def edit(metrics: Any) -> None:
        metrics["data"]["name"] = name
        metrics["backbone"] = f"{name}/w.safetensors"
        metrics["settings"] = {"data": name, "weights": f"{name}/w.safetensors", "resume": "/home/alice/x", "tag": None}

    change(model / "metrics.json", edit)
    card = model_card(model)
    assert "**cables** (mvtec layout)" in card
    assert ModelCard(card).data.eval_results[0].dataset_type == "cables"
    assert "`data=cables` `weights=w.safetensors` `resume=x`." in card
    assert not re.search("alice|lab/", card)


def test_a_hub_data_set_keeps_its_name(model: Path) -> None:
    change(model / "metrics.json", lambda m: m["data"].update(name="acme/cables"))
    assert "**acme/cables** (mvtec layout)" in model_card(model)


def test_names_that_people_choose_do_not_break_the_tables(model: Path) -> None:
    change(model / "metrics.json", lambda m: m["data"]["counts"]["test"].update({"a|b <img src=x>": 1}))
    line = next(line for line in model_card(model).splitlines() if "img" in line)
    assert line == r"| a\|b &lt;img src=x> | 0 | 0 | 1 |"


# The snippets of a model run


def _expect_the_served_score(printed: str, released: Released, name: str) -> None:
    score, p_value = map(float, printed.split())
    report = load_inspector(str(released.cache)).inspect(read_image(released.picture)).report
    vote = next(vote for vote in report.votes if vote.member == name)
    assert score == pytest.approx(vote.score, rel=1e-4)  # alone it runs fewer layers of a trunk than shared
    assert p_value == vote.p_value


@pytest.mark.parametrize("name", MEMBERS)
def test_the_snippet_of_a_local_model_gives_the_served_score(
    released: Released, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copytree(released.models[name], tmp_path / name)
    (code,) = snippets(write_card(folder).read_text(), "python")
    Image.open(released.picture).save(folder / "part.png")
    monkeypatch.chdir(folder)
    exec(compile(code, "card", "exec"), {})
    _expect_the_served_score(capsys.readouterr().out, released, name)


def test_the_five_lines_of_a_model_on_the_hub_give_the_served_score(
    released: Released,
    model: Path,
    hub: LoopbackHub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    use_hub(hub, tmp_path / "hf", monkeypatch)
    write_card(model, "alice/waves-autoencoder")
    registry.push(model, "alice/waves-autoencoder", files=(*MODEL_FILES, *CARD_FILES), message="m")
    (code,) = snippets((model / "README.md").read_text(), "python")
    _imports, lines = code.strip().split("\n\n")
    assert len(lines.splitlines()) == 5
    Image.open(released.picture).save(tmp_path / "part.png")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "card", "exec"), {})
    _expect_the_served_score(capsys.readouterr().out, released, "autoencoder")


# An inspector's card


def test_policies_and_members_stand_with_their_figures(released: Released) -> None:
    card = inspector_card(released.inspector, "acme/waves")
    metrics = InspectorMetrics.model_validate_json((released.inspector / "metrics.json").read_bytes())
    for name, f in metrics.policies.items():
        areas = [f"{value:.4f}" for value in (f.image_auroc, f.pixel_auroc, f.au_pro)]
        assert row(card, f"`{name}`") == [*map(str, (f.tp, f.fn, f.fp, f.tn, f.review)), *areas]
        cost = [f.latency_ms.median, f.latency_ms.p95, f.energy_mj, f.energy_mj / 3600]
        assert [number(cell) for cell in row(card, f"policy {name}")] == pytest.approx(cost, rel=5e-3)
    file = InspectorFile.model_validate_json((released.inspector / INSPECTOR_FILE).read_bytes())
    for member in file.members:
        f = metrics.members[member.name]
        page = f"https://huggingface.co/{member.repo}/tree/{member.commit}"
        missing = "not measured: no masks or no heatmap"
        areas = [missing if value is None else f"{value:.4f}" for value in (f.image_auroc, f.pixel_auroc, f.au_pro)]
        counts = [f"`{f.threshold}`", *map(str, (f.tp, f.fn, f.fp, f.tn))]
        link = f"[{member.repo}@{member.commit[:12]}]({page})"
        assert row(card, member.name.replace("_", r"\_")) == [link, *areas, *counts]
    default = metrics.policies["majority"]
    said = (
        f"{default.tp} of {DEFECTS} defects rejected, {default.fn} passed; {default.fp} of {GOOD} good parts rejected"
    )
    assert said in flat(card)
    assert not re.search(r"\{[{%#]|None|\bnan\b|Undefined|\n{3}", card)


def test_counts_of_a_policy_on_test_stand_with_what_they_support(released: Released) -> None:
    card = inspector_card(released.inspector)
    metrics = InspectorMetrics.model_validate_json((released.inspector / "metrics.json").read_bytes())
    for name, f in metrics.policies.items():
        missed, rejected = promise("misses", f.fn, DEFECTS), promise("false_alarms", f.fp, GOOD)
        assert f"- `{name}`: {missed.text['en']} {rejected.text['en']}\n" in card


def test_policies_are_put_into_english(inspector: Path) -> None:
    def edit(file: Any) -> None:
        majority, lone = file["policies"]
        majority.update(name="majority", description={"en": "Most of them.", "fr": "La plupart."}, required=[])
        majority["rule"] = {"kind": "majority", "members": ["autoencoder", "patch_knn"], "threshold": "f1"}
        majority["review"] = {"p_value": 0.05}
        lone.update(name="any", description={"en": "One is enough.", "fr": "Un seul."}, required=["patch_knn"])
        lone["rule"] = {"kind": "any", "members": ["patch_knn"], "threshold": "safe"}

    change(inspector / INSPECTOR_FILE, edit)
    card = flat(inspector_card(inspector))
    assert "The default is `majority`." in card
    assert (
        "**`majority`**: Most of them. More than half of those that voted must reach their `f1` threshold to reject; "
        r"asked: autoencoder, patch\_knn; unsure at a p-value of 0.05 or less."
    ) in card
    assert (
        "**`any`**: One is enough. One detector at or above its `safe` threshold is enough to reject; asked: "
        r"patch\_knn; without a vote of patch\_knn: review."
    ) in card
    assert "**What `review` means:** a person decides." in card
    assert "Un seul" not in card


def test_the_metadata_of_an_inspector_holds_the_figures_of_its_policies(released: Released) -> None:
    metrics = InspectorMetrics.model_validate_json((released.inspector / "metrics.json").read_bytes())
    data = ModelCard(inspector_card(released.inspector, "acme/waves")).data
    assert (data.license, data.library_name, data.model_name) == ("apache-2.0", "vigie", "acme/waves")
    assert {"inspector", "waves", "anomaly-detection"} <= set(data.tags)
    found = {result.metric_name: result.metric_value for result in data.eval_results}
    assert len(found) == 5 * len(metrics.policies)
    assert found["image AUROC (policy any)"] == metrics.policies["any"].image_auroc
    assert found["defects rejected at far (policy majority)"] == metrics.policies["majority"].tp / DEFECTS


def test_an_inspector_without_masks_says_so(inspector: Path) -> None:
    def edit(metrics: Any) -> None:
        for figures in (*metrics["members"].values(), *metrics["policies"].values()):
            figures.update(pixel_auroc=None, au_pro=None, energy_mj=None)

    change(inspector / "metrics.json", edit)
    card = inspector_card(inspector)
    assert row(card, "`any`")[6:] == ["not measured: no masks or no heatmap"] * 2
    assert row(card, "policy any")[2:] == ["below resolution"] * 2
    assert "None" not in card


@pytest.mark.parametrize(
    ("file", "edit", "match"),
    [
        ("metrics.json", lambda m: m["members"].pop("patch_knn"), "members .* evaluate the inspector"),
        ("metrics.json", lambda m: m["policies"].pop("any"), "policies .* evaluate the inspector"),
        ("metrics.json", lambda m: m.update(category="pcb4"), "category .*pcb4"),
        ("metrics.json", lambda m: m.pop("hardware"), "hardware: Field required"),
        (INSPECTOR_FILE, lambda i: i.update(default_policy="strict"), "policies .*'strict'"),
        (INSPECTOR_FILE, lambda i: i["members"][0].update(commit="v1"), r"members.0.commit: String should match"),
        (INSPECTOR_FILE, lambda i: i["policies"][0]["description"].pop("en"), r"model_cards/inspector\.md: .*'en'"),
    ],
)
def test_an_inspector_whose_files_are_wrong_gets_no_card(
    inspector: Path, file: str, edit: Callable[[Any], object], match: str
) -> None:
    change(inspector / file, edit)
    with pytest.raises(VigieError, match=match):
        write_card(inspector)
    assert not (inspector / "README.md").exists()


# The snippets of an inspector run


@pytest.fixture
def local_release(released: Released, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The card of an inspector in a local folder, which becomes the working directory."""
    cache = copytree(released.cache, tmp_path / "cache")
    Image.open(released.picture).save(cache / "part.png")
    monkeypatch.chdir(cache)
    return inspector_card(released.inspector)


def test_the_snippet_of_a_local_inspector_runs(local_release: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(snippets(local_release, "python")[0], "card", "exec"), {})
    first, *votes = capsys.readouterr().out.splitlines()
    assert first.split()[0] in VERDICTS
    assert [vote.split()[0] for vote in votes] == list(MEMBERS)


def test_the_command_of_a_local_inspector_runs(local_release: str) -> None:
    from typer.testing import CliRunner

    from anomaly.cli import app

    (command,) = snippets(local_release, "bash")
    assert command.startswith("python -m anomaly inspect ")
    ended = CliRunner().invoke(app, [part.replace("TAG", "v1") for part in shlex.split(command)[3:]])
    assert ended.exit_code == 0, ended.output or ended.exception
    assert any(verdict in ended.output.lower() for verdict in VERDICTS)


def test_the_client_of_a_local_inspector_gets_its_report_from_the_app(
    local_release: str, start_app: Callable[[Settings], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    code = snippets(local_release, "python")[1]
    running = start_app(Settings(inspectors=(re.search(r"VIGIE_INSPECTORS=(\S+) python app", local_release)[1],)))
    exec(compile(code.replace("http://127.0.0.1:7860", running.url), "card", "exec"), {})
    assert capsys.readouterr().out.splitlines()[-1].split()[0] in VERDICTS


def test_the_snippet_of_an_inspector_on_the_hub_runs(
    released: Released,
    inspector: Path,
    hub: LoopbackHub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    use_hub(hub, tmp_path / "hf", monkeypatch)
    commits = {}
    for name, folder in released.models.items():
        commits[name] = registry.push(folder, f"alice/waves-{name}", files=MODEL_FILES, message="m")

    def on_the_hub(file: Any) -> None:
        for member in file["members"]:
            member.update(repo=f"alice/waves-{member['name']}", commit=commits[member["name"]])

    change(inspector / INSPECTOR_FILE, on_the_hub)
    write_card(inspector, "alice/waves")
    registry.push(inspector, "alice/waves", files=(INSPECTOR_FILE, *CARD_FILES), message="m", tag="v1")
    Image.open(released.picture).save(tmp_path / "part.png")
    monkeypatch.chdir(tmp_path)
    exec(compile(snippets((inspector / "README.md").read_text(), "python")[0], "card", "exec"), {})
    assert capsys.readouterr().out.split()[0] in VERDICTS
