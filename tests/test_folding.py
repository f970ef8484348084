"""What an inspector votes with: batch norm folded, trunks shared, and the stored weights left as they were."""

from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from timm.layers import Conv2dSame
from torch import Tensor, nn

from anomaly.backbones import Trunk, TrunkConfig
from anomaly.calibration import CalibrationFile
from anomaly.detectors import (
    Autoencoder,
    AutoencoderConfig,
    Detector,
    DetectorConfig,
    Mahalanobis,
    MahalanobisConfig,
    PatchKNN,
)
from anomaly.detectors.base import as_tensor, prepare
from anomaly.emissions import EmissionsMeter
from anomaly.folding import SameConv, for_inference
from anomaly.inspector import Inspector
from anomaly.model_repo import MODEL_FILES, load_detector, save_detector

TOLERANCE = 1e-5  # of a score, relative


@pytest.fixture(scope="module")
def detectors() -> dict[str, Detector]:
    return tiny.tiny_detectors() | {"perceptual autoencoder": tiny.perceptual_autoencoder()}


@pytest.fixture(scope="module")
def ready(detectors: dict[str, Detector]) -> dict[str, Detector]:
    return dict(zip(detectors, for_inference(list(detectors.values())), strict=True))


NAMES = (*tiny.tiny_detectors(), "perceptual autoencoder")


@pytest.mark.parametrize("name", NAMES)
def test_no_batch_norm_is_left_and_no_score_moves(
    name: str, detectors: dict[str, Detector], ready: dict[str, Detector]
) -> None:
    assert norms(detectors[name]) > 0
    assert norms(ready[name]) == 0
    images = tiny.good_images(3, seed=4, size=(72, 100))
    images = torch.cat([images, tiny.corrupted(images)])
    expected, found = detectors[name].predict(images), ready[name].predict(images)
    torch.testing.assert_close(found.scores, expected.scores, rtol=TOLERANCE, atol=1e-7)
    for field in ("heatmaps", "class_logits"):
        if (value := getattr(expected, field)) is not None:
            largest = float(value.abs().max())
            torch.testing.assert_close(getattr(found, field), value, rtol=0, atol=TOLERANCE * largest)


@pytest.mark.parametrize("architecture", ["mobilenetv2_050", "resnet18", "densenet121", "resnetv2_50", "test_convnext"])
def test_networks_of_every_build_answer_as_before(architecture: str) -> None:
    """Batch norm in front of its convolution, behind it, of a map that others take too, or none at all."""
    trunk = settled(TrunkConfig(library="timm", architecture=architecture, layers=(1, 2)))
    one, two = standing(trunk, (1, 2)), standing(trunk, (1,))
    before = norms(trunk)
    folded = for_inference([one, two])[0].trunk
    assert norms(trunk) == before
    assert folded is not None
    assert norms(folded) < before or before == 0
    images = tiny.good_images(1)
    for layer, expected in trunk(images).items():
        found = folded(images)[layer]
        torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE * float(expected.abs().max()))


@pytest.mark.parametrize("size", [(32, 32), (33, 33), (32, 33), (7, 6)])
@pytest.mark.parametrize(("kernel", "groups"), [(3, 1), (3, 4), (5, 4)])
def test_a_convolution_padded_as_tensorflow_does_answers_as_before(
    size: tuple[int, int], kernel: int, groups: int
) -> None:
    conv = Conv2dSame(4, 8, kernel, stride=2, groups=groups)
    maps = torch.randn(2, 4, *size, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(SameConv(conv)(maps), conv(maps), rtol=1e-5, atol=1e-6)


def test_a_trunk_padded_as_tensorflow_does_is_folded_without_padded_copies() -> None:
    trunk = settled(
        TrunkConfig(library="timm", architecture="mobilenetv2_050", arguments={"pad_type": "same"}, layers=(1, 2))
    )
    folded = for_inference([standing(trunk, (1, 2))])[0].trunk
    assert folded is not None
    assert sum(isinstance(part, SameConv) for part in folded.modules()) == 3
    for images in (tiny.good_images(1), tiny.good_images(1, size=(65, 47))):
        for layer, expected in trunk(images).items():
            found = folded(images)[layer]
            torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE * float(expected.abs().max()))


def test_every_layout_reaches_a_network_channels_last() -> None:
    """With the strides by which convolutions know it: for one picture torch would take any."""
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    tensor = as_tensor(image)
    assert np.array_equal((tensor[0] * 255).permute(1, 2, 0).numpy(), image.astype(np.float32))
    layouts = (tensor, tensor.contiguous(), torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255)
    assert len({layout.stride() for layout in layouts}) == 3
    prepared = [prepare(layout, DetectorConfig(input_size=(16, 16))) for layout in layouts]
    assert {each.stride() for each in prepared} == {(768, 1, 48, 3)}
    assert all(torch.equal(each, prepared[0]) for each in prepared)


def test_what_is_stored_stays_what_was_trained(detectors: dict[str, Detector], tmp_path: Path) -> None:
    for name, detector in detectors.items():
        calibrations = CalibrationFile(categories={"waves": tiny.tiny_calibration(detector)})
        save_detector(tmp_path / name, detector, calibrations)
        loaded = load_detector(tmp_path / name)
        key = loaded.detector.input_key()
        (folded,) = for_inference([loaded.detector])
        assert folded.input_key() == key
        save_detector(tmp_path / f"{name} again", loaded.detector, loaded.calibrations)
        for file in MODEL_FILES:
            assert (tmp_path / name / file).read_bytes() == (tmp_path / f"{name} again" / file).read_bytes()


@pytest.mark.parametrize("name", ["classifier", "patch_knn"])
def test_what_an_inspector_votes_with_is_not_saved_by_mistake(ready: dict[str, Detector], name: str) -> None:
    with pytest.raises(ValueError, match="save the detector that this one was made from"):
        ready[name].state_dict()


def test_big_tensors_are_not_copied(detectors: dict[str, Detector], ready: dict[str, Detector]) -> None:
    knn, copied = detectors["patch_knn"], ready["patch_knn"]
    assert isinstance(knn, PatchKNN)
    assert isinstance(copied, PatchKNN)
    assert copied.memory.data_ptr() == knn.memory.data_ptr()


def test_folded_twice_is_folded_once(ready: dict[str, Detector]) -> None:
    images = tiny.good_images(1)
    for name, again in zip(ready, for_inference(list(ready.values())), strict=True):
        assert torch.equal(again.predict(images).scores, ready[name].predict(images).scores)


def test_a_network_that_is_still_in_training_is_left_as_it_is() -> None:
    network = Autoencoder(AutoencoderConfig(input_size=(64, 64), width=4)).train()
    (same,) = for_inference([network])
    assert norms(same) == norms(network)


# Trunks that stop at different stages


def test_a_trunk_that_stops_earlier_is_the_first_part_of_the_deeper_one() -> None:
    deep = settled(TrunkConfig(library="timm", architecture="test_efficientnet", layers=(1, 2, 3, 4)))
    short = beginning(deep, (1, 2))
    assert len(short.state_dict()) < len(deep.state_dict())
    early, late = standing(short, (1, 2)), standing(deep, (2, 4))
    first, second = for_inference([early, late])
    assert first.trunk is second.trunk
    assert first.input_key() == second.input_key()
    images = tiny.good_images(1)
    for detector, original in ((first, early), (second, late)):
        expected, found = original.predict(images).scores, detector.predict(images).scores
        torch.testing.assert_close(found, expected, rtol=TOLERANCE, atol=0)


def test_one_changed_number_makes_it_another_trunk() -> None:
    deep = settled(TrunkConfig(library="timm", architecture="test_efficientnet", layers=(1, 2, 3, 4)))
    other = beginning(deep, (1, 2))
    next(other.net.parameters()).view(-1)[0] += 1e-6
    first, second = for_inference([standing(other, (1, 2)), standing(deep, (2, 4))])
    assert first.trunk is not second.trunk
    assert first.input_key() != second.input_key()


def test_a_picture_is_resized_once_for_members_that_look_at_one_size(
    detectors: dict[str, Detector], monkeypatch: pytest.MonkeyPatch
) -> None:
    inspector: Inspector = tiny.tiny_inspector(
        {name: detectors[name] for name in ("autoencoder", "classifier", "patch_knn", "mahalanobis")},
        EmissionsMeter(cpu_power_w=10),
    )
    sizes: list[tuple[int, ...]] = []
    interpolate = torch.nn.functional.interpolate

    def noting(images: Tensor, *args: object, **kwargs: object) -> Tensor:
        if kwargs.get("antialias"):
            sizes.append(tuple(images.shape[-2:]))
        return interpolate(images, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(torch.nn.functional, "interpolate", noting)
    inspector.inspect(tiny.as_picture(tiny.good_images(1, size=(90, 130))[0]))
    assert sizes == [(90, 130)]


def norms(module: nn.Module) -> int:
    return sum(isinstance(part, nn.BatchNorm2d) for part in module.modules())


def settled(config: TrunkConfig) -> Trunk:
    """With statistics of batch norm that are not 0 and 1."""
    trunk = tiny.tiny_trunk(config)
    generator = torch.Generator().manual_seed(0)
    for part in trunk.modules():
        if isinstance(part, nn.BatchNorm2d):
            assert part.running_mean is not None
            assert part.running_var is not None
            part.running_mean.normal_(0, 0.1, generator=generator)
            part.running_var.uniform_(0.5, 2, generator=generator)
    return trunk


def beginning(trunk: Trunk, layers: tuple[int, ...]) -> Trunk:
    """The same weights, cut at an earlier stage."""
    short = Trunk(trunk.config.model_copy(update={"layers": layers}))
    state = trunk.state_dict()
    short.load_state_dict({name: state[name] for name in short.state_dict()})
    return short


def standing(trunk: Trunk, layers: tuple[int, ...]) -> Mahalanobis:
    """A detector on it."""
    config = MahalanobisConfig(input_size=(64, 64), trunk=trunk.config, use_layers=layers, pooling="global")
    return tiny.fit_gaussian(config, trunk, tiny.good_images(12), channels=8)
