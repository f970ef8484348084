"""The classifiers' recipe: their loss by hand, fine-tuning in phases, the attention head, two runs with one seed."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import v2
from trained import args_for, metrics

from anomaly.backbones import timm_model
from anomaly.calibration import CalibrationFile
from anomaly.datasets import read_dataset
from anomaly.detectors import BaselineCNN, BaselineCNNConfig, Classifier, ClassifierConfig
from anomaly.detectors.two_heads import GridAttention, TwoHeadDetector
from anomaly.errors import DataError
from anomaly.model_repo import load_detector, save_detector
from training import train_all, train_classifier
from training.arguments import run
from training.loop import CHECKPOINT
from training.phases import FrozenMaps, fine_tuning, normalised, phase_lengths, stages, trunk_is_frozen
from training.pictures import Pictures
from training.train_classifier import class_weights, two_head_loss

EVEN = torch.ones(2), torch.ones(3)


def classifier(architecture: str = "test_efficientnet", **more: object) -> Classifier:
    torch.manual_seed(0)
    config = ClassifierConfig(input_size=(64, 64), classes=tiny.CLASSES, architecture=architecture, **more)  # type: ignore[arg-type]
    return Classifier(config)


def baseline(**more: object) -> BaselineCNN:
    torch.manual_seed(0)
    return BaselineCNN(BaselineCNNConfig(input_size=(64, 64), classes=tiny.CLASSES, width=0.05, **more))  # type: ignore[arg-type]


# --- the loss --------------------------------------------------------------------------------------------------------


def test_the_loss_is_six_tenths_of_the_defect_and_four_tenths_of_the_type() -> None:
    log_odds = math.log(3)  # defective with probability 3/4
    classes = torch.tensor([[0.5, 0.2, 0.3]]).log()
    good, defect_weights, type_weights = (
        torch.tensor([[1.0, 0, 0]]),
        torch.tensor([2.0, 5.0]),
        torch.tensor([7.0, 1, 1]),
    )
    loss = two_head_loss(torch.tensor([log_odds]), classes, good, defect_weights, type_weights, 0.0)
    assert loss.item() == pytest.approx(0.6 * 2 * -math.log(0.25) + 0.4 * 7 * -math.log(0.5))
    second = torch.tensor([[0.0, 1, 0]])
    loss = two_head_loss(torch.tensor([log_odds]), classes, second, defect_weights, type_weights, 0.0)
    assert loss.item() == pytest.approx(0.6 * 5 * -math.log(0.75) + 0.4 * 1 * -math.log(0.2))


def test_smoothing_gives_a_tenth_to_all_classes_alike() -> None:
    classes = torch.tensor([[0.5, 0.2, 0.3]]).log()
    loss = two_head_loss(torch.tensor([math.log(3)]), classes, torch.tensor([[0.0, 1, 0]]), *EVEN, 0.1)
    binary = 0.95 * -math.log(0.75) + 0.05 * -math.log(0.25)
    types = 0.9 * -math.log(0.2) + 0.1 / 3 * -(math.log(0.5) + math.log(0.2) + math.log(0.3))
    assert loss.item() == pytest.approx(0.6 * binary + 0.4 * types)


def test_without_weights_it_is_what_torch_computes() -> None:
    torch.manual_seed(0)
    binary, types, labels = torch.randn(9), torch.randn(9, 3), torch.arange(9) % 3
    found = two_head_loss(binary, types, F.one_hot(labels, 3).float(), *EVEN, 0.1)
    defect = 0.9 * (labels > 0).float() + 0.05
    expected = 0.6 * F.binary_cross_entropy_with_logits(binary, defect)
    expected += 0.4 * F.cross_entropy(types, labels, label_smoothing=0.1)
    torch.testing.assert_close(found, expected)


def test_the_loss_of_a_mixed_picture_is_the_mixture_of_the_losses() -> None:
    torch.manual_seed(0)
    binary, types = torch.randn(1), torch.randn(1, 3)
    weights = torch.rand(2), torch.rand(3)

    def of(*target: float) -> Tensor:
        return two_head_loss(binary, types, torch.tensor([target]), *weights, 0.1)

    torch.testing.assert_close(of(0.3, 0.7, 0.0), 0.3 * of(1, 0, 0) + 0.7 * of(0, 1, 0))


def test_mixup_mixes_the_labels_of_both_heads_as_it_mixes_the_pictures() -> None:
    torch.manual_seed(2)
    images, soft = v2.MixUp(alpha=0.2, num_classes=3)(
        torch.stack([torch.zeros(3, 4, 4), torch.ones(3, 4, 4)]), torch.tensor([0, 2])
    )
    shares = images[:, 0, 0, 0]  # of the second picture
    assert 0 < shares[0] < 1
    torch.testing.assert_close(soft[:, 2], shares)
    torch.testing.assert_close(1 - soft[:, 0], shares)  # what the loss takes as the share of being defective


def test_a_class_weighs_n_over_k_times_its_count() -> None:
    weights = class_weights([0] * 12 + [1] * 3 + [3] * 1, 4)
    assert weights.tolist() == pytest.approx([16 / (3 * 12), 16 / (3 * 3), 0.0, 16 / (3 * 1)])  # none of class 2


# --- phases ----------------------------------------------------------------------------------------------------------


def test_the_lengths_of_phases_follow_the_count_and_are_bounded() -> None:
    assert phase_lengths(200, None, None) == (15, 20, 20)
    assert phase_lengths(5_000, None, None) == (6, 6, 12)
    assert phase_lengths(200, (1, 2, 3), None) == (1, 2, 3)
    assert phase_lengths(200, (1, 2, 3), 12) == (2, 4, 6)
    for bound in range(1, 60):
        assert sum(phase_lengths(200, None, bound)) == bound
    for wrong in ((1, 2), (0, 0, 0), (3, -1, 3)):
        with pytest.raises(DataError, match="phases must be the epochs of heads, upper stages, everything"):
            phase_lengths(200, wrong, None)


def test_of_an_efficientnet_blocks_1_to_4_are_frozen_until_everything_moves() -> None:
    net = timm_model("efficientnet_b0", {}, num_classes=0)
    depths = stages(net)
    assert {depths[name] for name in depths if name.startswith(("conv_stem", "bn1"))} == {0}
    for block in range(7):
        assert {depths[name] for name in depths if name.startswith(f"blocks.{block}.")} == {block + 1}
    heads, upper, everything = fine_tuning(classifier("efficientnet_b0"), (1, 1, 1), 1e-3, 0.5)
    assert set(heads.rates) == {f"heads.{head}.{kind}" for head in ("binary", "types") for kind in ("weight", "bias")}
    lower = ("net.conv_stem", "net.bn1", *(f"net.blocks.{block}." for block in range(4)))
    assert not [name for name in upper.rates if name.startswith(lower)]
    assert {name.split(".")[2] for name in upper.rates if name.startswith("net.blocks")} == {"4", "5", "6"}
    assert set(everything.rates) == {name for name, _ in classifier("efficientnet_b0").named_parameters()}


def test_lower_stages_and_later_phases_move_slower() -> None:
    heads, upper, everything = fine_tuning(classifier("efficientnet_b0"), (1, 1, 1), 1e-3, 0.5)
    assert set(heads.rates.values()) == {1e-3}
    assert upper.rates["heads.types.bias"] == pytest.approx(3e-4)
    assert upper.rates["net.conv_head.weight"] == pytest.approx(1.5e-4)
    assert upper.rates["net.blocks.4.0.conv_pw.weight"] == pytest.approx(3e-4 / 2**3)
    assert everything.rates["heads.types.bias"] == pytest.approx(1.5e-4)
    assert everything.rates["net.conv_stem.weight"] == pytest.approx(1.5e-4 / 2**8)


def test_the_heads_learn_from_maps_that_are_computed_once(cables: Path) -> None:
    detector = classifier()
    pictures = Pictures(read_dataset(cables, "cable").train, detector.config, "reading")
    maps = FrozenMaps(detector, pictures)
    assert maps.fit_into_memory()
    expected = detector.feature_map(normalised(pictures.batch([40, 3]), detector)).detach()
    found = maps.batch([40, 3])
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)  # kept at half precision
    again = FrozenMaps(detector, pictures)
    again.batch([7])
    assert torch.equal(again.batch([40, 3]), found)  # whatever was asked for first, as after a kill
    heads, upper, _ = fine_tuning(detector, (1, 1, 1), 1e-3, 0.8)
    for phase, frozen in ((heads, True), (upper, False)):
        for name, parameter in detector.named_parameters():
            parameter.requires_grad_(name in phase.rates)
        assert trunk_is_frozen(detector) == frozen


@pytest.mark.parametrize(
    "name", ["resnet18", "mobilenetv2_100", "vgg11", "densenet121", "convnext_atto", "regnetx_002"]
)
def test_every_parameter_of_any_network_has_a_depth(name: str) -> None:
    with torch.device("meta"):
        net = timm_model(name, {}, num_classes=0)
    depths = stages(net)
    assert set(depths) == {name for name, _ in net.named_parameters()}
    assert max(depths.values()) >= 4


@pytest.mark.parametrize("name", ["test_efficientnet", "ghostnet_050"])
def test_stochastic_depth_is_used_in_training_and_not_written_down(name: str) -> None:
    config = ClassifierConfig(input_size=(32, 32), classes=tiny.CLASSES, architecture=name)
    detector = train_classifier._classifier(config, 0.2)
    drops = [module for module in detector.modules() if type(module).__name__ == "DropPath"]
    assert bool(drops) == (name != "ghostnet_050")  # which timm builds without
    assert detector.config == config
    plain = Classifier(config)
    plain.load_state_dict(detector.state_dict(), strict=True)
    images = tiny.good_images(2)
    assert torch.equal(plain.eval().predict(images).scores, detector.eval().predict(images).scores)


# --- the attention head ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [classifier, baseline])
def test_a_plain_head_has_the_tensors_it_always_had(make: type[TwoHeadDetector]) -> None:
    assert "head" not in make().config.model_dump(exclude_defaults=True)  # nor does a config from before need the key
    assert not [name for name in make().state_dict() if name.startswith("grid")]
    assert [name for name in make(head="attention").state_dict() if name.startswith("grid")]  # type: ignore[call-arg]


@pytest.mark.parametrize("make", [classifier, baseline])
def test_an_attention_head_is_saved_and_loaded_and_grad_cam_is_finite(
    make: type[TwoHeadDetector], tmp_path: Path
) -> None:
    detector = make(head="attention")  # type: ignore[call-arg]
    with torch.no_grad():
        detector.grid.widen.weight.normal_(0, 0.1)  # type: ignore[union-attr]  # as if it was trained
    tiny.settle(detector)
    detector.eval().requires_grad_(False)
    save_detector(tmp_path, detector, CalibrationFile(categories={"waves": tiny.tiny_calibration(detector)}))
    loaded = load_detector(tmp_path).detector
    images = tiny.corrupted(tiny.good_images(2))
    output, again = detector.predict(images), loaded.predict(images)
    assert torch.equal(output.scores, again.scores)
    assert output.heatmaps is not None
    assert again.heatmaps is not None
    assert torch.equal(output.heatmaps, again.heatmaps)
    assert output.heatmaps.isfinite().all()
    assert output.heatmaps.max() > 0


def test_attention_relates_cells_and_adds_nothing_before_it_is_trained() -> None:
    torch.manual_seed(0)
    head, maps = GridAttention(32), torch.randn(2, 32, 4, 5)
    excited = maps * head.excite(maps.mean(dim=(2, 3)))[:, :, None, None]
    assert torch.equal(head(maps), excited)
    torch.nn.init.normal_(head.widen.weight)
    order = torch.randperm(20)
    shuffled = maps.flatten(2)[:, :, order].view_as(maps)
    torch.testing.assert_close(head(shuffled).flatten(2), head(maps).flatten(2)[:, :, order])  # cells, not places
    changed = maps.clone()
    changed[:, :, 0, 0] += 3 - 6 * (torch.arange(32) % 2)  # the same mean over channels, other contents
    assert (head(changed) - head(maps))[:, :, 1:].abs().amax() > 1e-3  # felt in the other cells


# --- whole runs ------------------------------------------------------------------------------------------------------


OPTIONS: dict[str, Any] = {"image_size": 64, "phases": (2, 2, 1), "head": "attention"}


@pytest.fixture(scope="module")
def whole(training_args: train_all.Args, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with nothing in between."""
    out = tmp_path_factory.mktemp("whole")
    train_classifier.main(args_for(train_classifier.Args, training_args, out, weights=training_args.weights, **OPTIONS))
    return out


def check_same(one: Path, other: Path) -> None:
    first, second = (load_file(run / "model.safetensors") for run in (one, other))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert (one / "calibration.json").read_bytes() == (other / "calibration.json").read_bytes()
    told, again = metrics(one), metrics(other)
    assert (told.settings, told.curve) == (again.settings, again.curve)
    assert told.test is not None
    assert again.test is not None
    assert told.test.image_auroc == again.test.image_auroc


def test_a_run_says_how_it_was_trained(whole: Path) -> None:
    settings = metrics(whole).settings
    assert settings["phases"] == [2, 2, 1]
    assert settings["head"] == "attention"
    assert "rotation" in settings["transforms"]  # type: ignore[operator]
    assert "flips" not in settings["transforms"]  # type: ignore[operator]  # it is of cables
    assert len(metrics(whole).curve) == settings["epochs"] == 5


def test_two_runs_with_one_seed_are_identical(whole: Path, training_args: train_all.Args, tmp_path: Path) -> None:
    args = args_for(train_classifier.Args, training_args, tmp_path, weights=training_args.weights, **OPTIONS)
    train_classifier.main(args)
    check_same(whole, tmp_path)


def test_fine_tuning_killed_in_its_second_phase_goes_on_to_the_same_weights(
    whole: Path, training_args: train_all.Args, tmp_path: Path
) -> None:
    killed = tmp_path / "killed"
    flags = {"data": training_args.data, "category": "cable", "out": killed, "weights": training_args.weights}
    flags |= OPTIONS | {"phases": "2 2 1"}
    words = [text for name, value in flags.items() for text in (f"--{name.replace('_', '-')}", *str(value).split())]
    process = subprocess.Popen(
        [sys.executable, "-m", "training.train_classifier", *words],
        env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())},
        stderr=subprocess.DEVNULL,
    )
    while len(phases := phases_saved(killed)) < 2:
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert phases[0] == 2
    assert not (killed / "model.safetensors").exists()
    assert run(train_classifier.main, train_classifier.Args, words) == 0
    check_same(whole, killed)


def phases_saved(folder: Path) -> list[int]:
    try:
        with safe_open(folder / CHECKPOINT, framework="pt") as file:
            phases: list[int] = json.loads(file.metadata()["notes"])["phases"]
            return phases
    except (OSError, SafetensorError):  # not there yet
        return []


def test_the_validation_loss_is_of_pictures_as_they_are(training_args: train_all.Args, tmp_path: Path) -> None:
    """Smoothing, MixUp and augmentation change what is trained on; at a rate of nothing, validation stays the same."""
    curves = []
    for name, options in {
        "as it is": {"mixup": 0.0, "smoothing": 0.0, "transforms": ("none",), "oversampling": 4},
        "changed": {"mixup": 0.4, "smoothing": 0.3, "transforms": ("all",), "oversampling": 4},
    }.items():
        args = args_for(
            train_classifier.Args,
            training_args,
            tmp_path / name,
            **{"weights": training_args.weights, "image_size": 64, "learning_rate": 1e-30, "epochs": 2} | options,
        )
        train_classifier.main(args)
        curves.append(metrics(tmp_path / name).curve)
    (plain_training, plain_validation), (changed_training, changed_validation) = (curve[0] for curve in curves)
    assert plain_validation == changed_validation
    assert plain_training != pytest.approx(changed_training, rel=1e-6)  # little: the trunk is of random weights
