"""A model folder that is not exactly right does not load, and says which file is wrong and why, in one line."""

import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from anomaly.calibration import CalibrationFile
from anomaly.detectors import DETECTORS
from anomaly.errors import ModelLoadError
from anomaly.model_repo import MODEL_FILES, load_detector, save_detector

NAMES = ("autoencoder", "baseline_cnn", "classifier", "mahalanobis", "mahalanobis_global", "patch_knn")

# one tensor of each that the score depends on
TENSORS = {
    "autoencoder": "decoder.5.weight",
    "baseline_cnn": "dense.2.0.weight",
    "classifier": "heads.binary.weight",
    "mahalanobis": "whitener",
    "mahalanobis_global": "mean",
    "patch_knn": "memory",
}
TRUNK_TENSOR = "trunk.net.model.layer2.0.conv1.weight"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    for name, detector in tiny.tiny_detectors().items():
        save_detector(root / name, detector, CalibrationFile(categories={"waves": tiny.tiny_calibration(detector)}))
    return root


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def folder(saved: Path, tmp_path: Path, name: str) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(saved / name, tmp_path / "model"))


one_model = pytest.mark.parametrize("name", ["patch_knn"])  # where the kind of detector makes no difference


def refusal(folder: Path) -> str:
    with pytest.raises(ModelLoadError) as caught:
        load_detector(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert str(folder) in message
    return message


def change_json(path: Path, change: Callable[[dict[str, object]], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def change_weights(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    """Other weights, as if they had been saved like that: their digest is the recorded one."""
    path, reference = folder / "model.safetensors", folder / "reference.safetensors"
    state = load_file(path)
    change(state)
    save_file(state, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    save_file(load_file(reference), reference, metadata={"model_sha256": digest})


# --- what is right --------------------------------------------------------------------------------------------------


def test_a_saved_folder_holds_the_four_files_and_loads_ready_to_infer(folder: Path, name: str) -> None:
    assert {path.name for path in folder.iterdir()} == set(MODEL_FILES)
    loaded = load_detector(folder)
    assert loaded.detector.kind == json.loads((folder / "config.json").read_text())["kind"]
    assert not any(module.training for module in loaded.detector.modules())
    assert not any(parameter.requires_grad for parameter in loaded.detector.parameters())
    assert tuple(loaded.calibrations.categories) == ("waves",)


@one_model
def test_a_second_save_writes_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    loaded = load_detector(folder)
    save_detector(tmp_path / "again", loaded.detector, loaded.calibrations)
    for file in MODEL_FILES:
        assert (folder / file).read_bytes() == (tmp_path / "again" / file).read_bytes(), file


@one_model
def test_pickles_beside_the_weights_are_never_opened(folder: Path, tmp_path: Path) -> None:
    trap = Trap(tmp_path / "sprung")
    for other in ("pytorch_model.bin", "model.pt", "model.bin", "model.pkl", "model.joblib", "config.pkl"):
        (folder / other).write_bytes(pickle.dumps(trap))
    assert load_detector(folder).detector.kind == "patch_knn"
    assert not trap.mark.exists()
    pickle.loads((folder / "model.pt").read_bytes())  # the trap works
    assert trap.mark.exists()


@pytest.mark.parametrize("file", MODEL_FILES)
@one_model
def test_a_pickle_in_the_place_of_a_file_is_refused_unopened(folder: Path, tmp_path: Path, file: str) -> None:
    trap = Trap(tmp_path / "sprung")
    (folder / file).write_bytes(pickle.dumps(trap))
    assert file in refusal(folder)
    assert not trap.mark.exists()


class Trap:
    """Whoever unpickles it makes a folder."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.mark),)


# --- files that are missing or damaged ------------------------------------------------------------------------------


@pytest.mark.parametrize("file", MODEL_FILES)
@one_model
def test_a_missing_file_is_named(folder: Path, file: str) -> None:
    (folder / file).unlink()
    assert f"{file} is missing" in refusal(folder)


@pytest.mark.parametrize("file", MODEL_FILES)
@pytest.mark.parametrize("kept", [0, 1, 7, 100, -1], ids=lambda kept: f"cut_at_{kept}")
@one_model
def test_a_truncated_file_is_refused_with_its_name(folder: Path, file: str, kept: int) -> None:
    whole = (folder / file).read_bytes().rstrip()  # the JSON files end in a line break that nobody would miss
    (folder / file).write_bytes(whole[:kept])
    assert file in refusal(folder)


@pytest.mark.parametrize("bit", [0, 16, 30], ids=["last digit", "mantissa", "exponent"])  # of a float32
def test_a_flipped_bit_in_a_weight_is_found(folder: Path, name: str, bit: int) -> None:
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    header = int.from_bytes(content[:8], "little")
    first, _ = json.loads(content[8 : 8 + header])[TENSORS[name]]["data_offsets"]
    content[8 + header + first + bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)
    message = refusal(folder)
    assert "model.safetensors: corrupt or exchanged" in message or "reference image" in message


@one_model
def test_a_flipped_byte_in_the_header_is_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[8] ^= 0xFF
    path.write_bytes(content)
    assert "model.safetensors" in refusal(folder)


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"patch_knn"}))
def test_weights_that_are_not_those_of_the_evaluation_are_found_by_the_reference_score(folder: Path, name: str) -> None:
    change_weights(folder, lambda state: state[TENSORS[name]].mul_(3))
    assert "reference.safetensors: the reference image scores" in refusal(folder)


# --- weights that do not fit ----------------------------------------------------------------------------------------


def test_a_missing_tensor_is_named(folder: Path, name: str) -> None:
    change_weights(folder, lambda state: state.pop(TENSORS[name]))
    message = refusal(folder)
    assert "model.safetensors" in message
    assert f"lacks tensor '{TENSORS[name]}' (1 in all)" in message


def test_an_unknown_tensor_is_named(folder: Path, name: str) -> None:
    change_weights(folder, lambda state: state.update(surplus=torch.zeros(1)))
    message = refusal(folder)
    assert "model.safetensors" in message
    assert "has an unknown tensor 'surplus' (1 in all)" in message


@pytest.mark.parametrize("name", ["autoencoder", "baseline_cnn", "classifier"])
def test_a_tensor_of_another_shape_is_named(folder: Path, name: str) -> None:
    tensor = TENSORS[name]
    change_weights(folder, lambda state: state.update({tensor: state[tensor][..., :-1].contiguous()}))
    message = refusal(folder)
    assert "model.safetensors" in message
    assert f"has a wrong shape for tensor '{tensor}'" in message


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("mahalanobis", "mean"),
        ("mahalanobis", "whitener"),
        ("mahalanobis", "channels"),
        ("mahalanobis_global", "mean"),
        ("mahalanobis_global", "channels"),
        ("patch_knn", "memory"),
    ],
)
@pytest.mark.parametrize("change", ["shorter", "empty", "flat"])
def test_fitted_statistics_of_another_shape_are_refused(folder: Path, tensor: str, change: str) -> None:
    changes = {
        "shorter": lambda value: value[..., :-1].contiguous(),
        "empty": lambda value: value[:0],
        "flat": lambda value: value.flatten()[:3].clone(),
    }
    change_weights(folder, lambda state: state.update({tensor: changes[change](state[tensor])}))
    refusal(folder)


@pytest.mark.parametrize("name", ["mahalanobis", "mahalanobis_global", "patch_knn"])
def test_a_trunk_that_is_not_whole_is_named_with_its_tensor(folder: Path) -> None:
    change_weights(folder, lambda state: state.pop(TRUNK_TENSOR))
    assert f"lacks tensor '{TRUNK_TENSOR}'" in refusal(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_named(folder: Path, name: str, value: float) -> None:
    change_weights(folder, lambda state: state[TENSORS[name]].view(-1)[:1].fill_(value))
    message = refusal(folder)
    assert "model.safetensors" in message
    assert f"has a number that is not finite in tensor '{TENSORS[name]}'" in message


def test_weights_of_another_type_are_refused(folder: Path, name: str) -> None:
    change_weights(folder, lambda state: state.update({TENSORS[name]: state[TENSORS[name]].double()}))
    refusal(folder)


@one_model
def test_channels_that_the_trunk_does_not_have_are_refused(saved: Path, tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(saved / "mahalanobis", tmp_path / "m"))
    change_weights(folder, lambda state: state["channels"].fill_(100_000))
    assert "IndexError" in refusal(folder)


# --- a config that does not fit -------------------------------------------------------------------------------------


@one_model
def test_an_unknown_kind_is_answered_with_the_known_ones(folder: Path) -> None:
    change_json(folder / "config.json", lambda file: file.update(kind="patchcore"))
    message = refusal(folder)
    assert f"config.json: unknown detector 'patchcore'; known: {sorted(DETECTORS)}" in message


@one_model
def test_a_class_path_as_kind_is_not_imported(folder: Path) -> None:
    change_json(folder / "config.json", lambda file: file.update(kind="os.system"))
    assert "unknown detector 'os.system'" in refusal(folder)


def test_a_misspelt_key_is_named(folder: Path) -> None:
    change_json(folder / "config.json", lambda file: file["config"].update(inputsize=[64, 64]))
    message = refusal(folder)
    assert "config.json" in message
    assert "inputsize" in message


@pytest.mark.parametrize(
    "change",
    [{"format": 2}, {"surplus": 1}, {"config": []}, {"kind": 3}],
    ids=["later format", "surplus key", "list", "number"],
)
@one_model
def test_a_config_file_of_another_form_is_refused_with_the_key(folder: Path, change: dict[str, object]) -> None:
    change_json(folder / "config.json", lambda file: file.update(change))
    message = refusal(folder)
    assert "config.json" in message
    assert next(iter(change)) in message


@pytest.mark.parametrize(
    ("name", "key", "value", "words"),
    [
        ("autoencoder", "width", 5, "wrong shape"),
        ("autoencoder", "input_size", [64, 80], "multiple of 32"),
        ("autoencoder", "top", 0, "greater than 0"),
        ("baseline_cnn", "classes", ["good"], "wrong shape for tensor 'heads.types.bias'"),
        ("classifier", "architecture", "nonesuch", "unknown timm architecture 'nonesuch'"),
        ("classifier", "arguments", {"surplus": 1}, "surplus"),
        ("mahalanobis", "pooling", "sideways", "'global' or 'position'"),
        ("mahalanobis", "input_size", [96, 96], "reference image cannot be scored"),
        ("mahalanobis", "use_layers", [], "at least 1 item"),
        ("patch_knn", "use_layers", [77], "reference image cannot be scored"),
        ("patch_knn", "use_layers", [2], "reference image cannot be scored"),
        ("patch_knn", "mean", [0.0, 0.0, 0.0], "the reference image scores"),
    ],
)
def test_settings_that_do_not_fit_the_weights_are_refused(folder: Path, key: str, value: object, words: str) -> None:
    change_json(folder / "config.json", lambda file: file["config"].update({key: value}))
    assert words in refusal(folder)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("architecture", "nonesuch", "unknown timm architecture 'nonesuch'"),
        ("library", "torchvision", "'timm' or 'transformers'"),
        ("layers", [2, 3, 99], "timm cannot build"),
    ],
)
@one_model
def test_a_trunk_that_cannot_be_built_is_refused(folder: Path, key: str, value: object, words: str) -> None:
    change_json(folder / "config.json", lambda file: file["config"]["trunk"].update({key: value}))
    assert words in refusal(folder)


# --- the reference and the calibration ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        lambda reference: reference["scores"].add_(0.01 + 0.01 * reference["scores"].abs()),
        lambda reference: reference["image"].fill_(0),
        lambda reference: reference.update(scores=torch.zeros(0)),
        lambda reference: reference.update(scores=reference["scores"].double()),
        lambda reference: reference["scores"].fill_(float("nan")),
        lambda reference: reference.pop("scores"),
        lambda reference: reference.pop("image"),
        lambda reference: reference.update(image=torch.zeros(1, 1, 48, 48, dtype=torch.uint8)),
    ],
    ids=["score", "image", "no number", "float64", "nan", "no scores", "no image", "grey"],
)
def test_a_reference_that_the_weights_do_not_give_is_refused(
    folder: Path, change: Callable[[dict[str, Tensor]], object]
) -> None:
    reference = load_file(folder / "reference.safetensors")
    change(reference)
    save_file(reference, folder / "reference.safetensors")
    assert "reference.safetensors" in refusal(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda category: category.update(good_scores=[2.0, 1.0]), "ascending"),
        (lambda category: category.update(good_scores=[]), "good_scores"),
        (lambda category: category.update(good_scores=[1.0, float("nan")]), "finite"),
        (lambda category: category.pop("split_hash"), "split_hash"),
        (lambda category: category["thresholds"].update(f3=category["thresholds"]["far"]), "f3"),
    ],
    ids=["unsorted", "none", "nan", "no hash", "unknown threshold"],
)
@one_model
def test_a_calibration_that_makes_no_sense_is_refused_with_its_key(
    folder: Path, change: Callable[[dict[str, object]], object], words: str
) -> None:
    change_json(folder / "calibration.json", lambda file: change(file["categories"]["waves"]))
    message = refusal(folder)
    assert "calibration.json" in message
    assert words in message
