"""What each method computes, against its paper's formula done naively, and in its own units: no map is scaled."""

import copy
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from numpy.typing import NDArray
from scipy.spatial.distance import mahalanobis as scipy_mahalanobis
from torch import Tensor, nn
from torchvision.transforms.v2.functional import gaussian_blur

from anomaly.backbones import Trunk
from anomaly.calibration import CalibrationFile
from anomaly.detectors import (
    Autoencoder,
    AutoencoderConfig,
    BaselineCNN,
    BaselineCNNConfig,
    Detector,
    Mahalanobis,
    MahalanobisConfig,
)
from anomaly.detectors.base import IMAGE, enlarge, smooth, top_mean
from anomaly.detectors.patches import patch_features
from anomaly.detectors.two_heads import TwoHeadDetector
from anomaly.model_repo import load_detector, save_detector

SMALL = (16, 16)  # maps of this size are the grid and the picture at once: nothing is resized on the way


@pytest.fixture(scope="module")
def detectors() -> dict[str, Detector]:
    return tiny.tiny_detectors()


@pytest.fixture(scope="module")
def trunk() -> Trunk:
    return tiny.tiny_trunk()


# --- patches, maps and scores ---------------------------------------------------------------------------------------


def test_patch_features_equal_a_naive_loop() -> None:
    random = torch.Generator().manual_seed(0)
    fine, coarse = torch.randn(2, 3, 6, 7, generator=random), torch.randn(2, 2, 3, 4, generator=random)
    found = patch_features([fine, coarse])
    assert found.shape == (2, 5, 6, 7)
    expected = np.concatenate(
        [naive_average(fine.double().numpy()), naive_bilinear(naive_average(coarse.double().numpy()), 6, 7)], axis=1
    )
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(patch_features([coarse, fine]).numpy(), np.roll(expected, 2, axis=1), atol=1e-6)


def test_the_score_of_a_map_is_the_mean_of_its_largest_pixels() -> None:
    maps = torch.arange(200.0).reshape(1, 10, 20)
    assert top_mean(maps, 0.01).tolist() == [(199 + 198) / 2]
    assert top_mean(maps, 1.0).tolist() == [99.5]
    assert top_mean(maps, 1e-9).tolist() == [199]  # never of nothing


def test_a_blur_keeps_a_flat_map_flat_and_the_amount_of_a_spot() -> None:
    assert torch.allclose(smooth(torch.full((1, 4, 4), 7.0), 4.0, (32, 32)), torch.full((1, 32, 32), 7.0))
    spot = torch.zeros(1, 65, 65)
    spot[0, 32, 32] = 1.0
    blurred = smooth(spot, 2.0, (65, 65))[0]
    assert blurred.sum() == pytest.approx(1, abs=1e-5)
    assert blurred[32, 32] == pytest.approx(1 / (2 * math.pi * 2.0**2), rel=1e-3)  # peak of a Gaussian of sigma 2
    assert blurred[32, 34] / blurred[32, 32] == pytest.approx(math.exp(-0.5), rel=1e-4)


@pytest.mark.parametrize("sigma", [0.0, 1.5])
def test_a_blur_is_bilinear_and_then_a_gaussian(sigma: float) -> None:
    maps = torch.rand(2, 5, 9, generator=torch.Generator().manual_seed(0))
    wanted = nn.functional.interpolate(maps[:, None], (40, 36), mode="bilinear", align_corners=False)
    if sigma:  # of torchvision, whose kernel ends where ours does; away from the border, where it reflects
        wanted = gaussian_blur(wanted, [13, 13], [sigma, sigma])
    inside = slice(6, -6)
    torch.testing.assert_close(smooth(maps, sigma, (40, 36))[:, inside, inside], wanted[:, 0, inside, inside])


def test_enlarging_without_a_blur_keeps_what_is_flat_and_what_has_the_size_already() -> None:
    maps = torch.rand(2, 8, 8, generator=torch.Generator().manual_seed(0))
    assert enlarge(maps, (8, 8)) is maps
    assert torch.allclose(enlarge(torch.full((1, 8, 8), -3.0), (31, 77)), torch.full((1, 31, 77), -3.0))


# --- mahalanobis ----------------------------------------------------------------------------------------------------


def test_mahalanobis_equals_scipys_distance_with_the_inverse_covariance(trunk: Trunk) -> None:
    rng = np.random.default_rng(0)
    positions, channels = SMALL[0] * SMALL[1], 5
    mean = rng.normal(size=(positions, channels))
    samples = rng.normal(size=(positions, 30, channels)) @ rng.normal(size=(positions, channels, channels))
    covariance = np.stack([np.cov(sample.T) for sample in samples])
    chosen = torch.tensor([0, 2, 3, 5, 6])  # of seven
    config = MahalanobisConfig(input_size=SMALL, trunk=tiny.TRUNK, use_layers=(2,), sigma=0.0, top=1e-9)
    detector = Mahalanobis(config, trunk, single(mean), single(tiny.whiten(torch.from_numpy(covariance))), chosen)
    maps = torch.randn(2, 7, *SMALL, generator=torch.Generator().manual_seed(1))
    output = detector.predict_from({2: maps}, SMALL)
    features = patch_features([maps])[:, chosen].flatten(2).double().numpy()  # (B, d, P)
    inverse = np.linalg.inv(covariance)
    expected = [[scipy_mahalanobis(image[:, p], mean[p], inverse[p]) for p in range(positions)] for image in features]
    assert output.heatmaps is not None
    np.testing.assert_allclose(output.heatmaps.flatten(1).numpy(), expected, rtol=1e-3)
    np.testing.assert_allclose(output.scores.numpy(), np.max(expected, axis=1), rtol=1e-3)


def test_global_mahalanobis_is_the_distance_of_the_mean_features(trunk: Trunk) -> None:
    rng = np.random.default_rng(0)
    mean, covariance = rng.normal(size=(1, 4)), np.cov(rng.normal(size=(4, 20)))
    config = MahalanobisConfig(input_size=SMALL, trunk=tiny.TRUNK, use_layers=(3, 2), pooling="global")
    whitener = single(tiny.whiten(torch.from_numpy(covariance)[None]))
    detector = Mahalanobis(config, trunk, single(mean), whitener, torch.tensor([4, 0, 1, 2]))
    maps = {2: torch.rand(2, 3, 8, 8), 3: torch.rand(2, 2, 4, 4)}
    output = detector.predict_from(maps, SMALL)
    assert output.heatmaps is None
    stacked = torch.cat([maps[3].mean(dim=(2, 3)), maps[2].mean(dim=(2, 3))], dim=1).double().numpy()  # in that order
    inverse = np.linalg.inv(covariance)
    expected = [scipy_mahalanobis(vector[[4, 0, 1, 2]], mean[0], inverse) for vector in stacked]
    np.testing.assert_allclose(output.scores.numpy(), expected, rtol=1e-4)


@pytest.mark.parametrize("batch", [1, 4])
def test_at_512_px_nothing_of_the_whiteners_size_is_allocated(trunk: Trunk, batch: int) -> None:
    positions, channels = 64 * 64, 32
    config = MahalanobisConfig(input_size=(512, 512), trunk=tiny.TRUNK, use_layers=(2,), sigma=0.0)
    whitener = torch.eye(channels).repeat(positions, 1, 1)
    detector = Mahalanobis(config, trunk, torch.zeros(positions, channels), whitener, torch.arange(channels))
    maps = torch.ones(batch, channels, 64, 64)
    largest = tiny.largest_allocation(lambda: detector.predict_from({2: maps}, (512, 512)))
    assert largest <= 4 * batch * max(positions * channels, 512 * 512)  # the features, or the heatmaps
    assert largest < whitener.numel() * 4 / 3


def test_of_several_categories_each_gives_what_it_gives_alone(detectors: dict[str, Detector], tmp_path: Path) -> None:
    alone = detectors["mahalanobis"]
    assert isinstance(alone, Mahalanobis)
    several = two_categories(alone)
    assert several.categories == ("waves", "stripes")
    waves, stripes = several.select("waves"), several.select("stripes")
    assert isinstance(waves, Mahalanobis)
    assert waves.trunk is stripes.trunk is several.trunk
    assert waves.config == alone.config
    assert waves.mean.untyped_storage().data_ptr() == several.mean.untyped_storage().data_ptr()  # nothing is copied
    images = tiny.corrupted(tiny.good_images(2))
    expected = alone.predict(images)
    assert torch.equal(waves.predict(images).scores, expected.scores)
    assert not torch.equal(stripes.predict(images).scores, expected.scores)

    calibration = CalibrationFile(categories=dict.fromkeys(several.categories, tiny.tiny_calibration(alone)))
    save_detector(tmp_path, several, calibration)
    loaded = load_detector(tmp_path).detector
    assert loaded.categories == ("waves", "stripes")
    assert torch.equal(loaded.select("stripes").predict(images).scores, stripes.predict(images).scores)


def test_several_categories_are_not_scored_before_one_is_selected(detectors: dict[str, Detector]) -> None:
    alone = detectors["mahalanobis"]
    assert isinstance(alone, Mahalanobis)
    several = two_categories(alone)
    with pytest.raises(ValueError, match=r"select one of \['waves', 'stripes'\] first"):
        several.predict(tiny.good_images(1))
    with pytest.raises(ValueError, match=r"'dots'.*\['waves', 'stripes'\]"):
        several.select("dots")
    assert alone.select("dots") is alone  # it serves whatever it is asked for
    state = several.state_dict()
    for categories in (("waves",), ()):
        config = several.config.model_copy(update={"categories": categories})
        with pytest.raises(ValueError, match="does not fit categories"):
            Mahalanobis.from_state(config, state)


def two_categories(alone: Mahalanobis) -> Mahalanobis:
    """Its own statistics as those of "waves", and others."""
    config = alone.config.model_copy(update={"categories": ("waves", "stripes")})
    mean, whitener = torch.stack([alone.mean, alone.mean + 1]), torch.stack([alone.whitener, 2 * alone.whitener])
    return Mahalanobis(config, alone.trunk, mean, whitener, alone.channels).eval()


# --- autoencoder ----------------------------------------------------------------------------------------------------


def test_the_default_autoencoder_is_the_published_one() -> None:
    with torch.device("meta"):
        network = Autoencoder(AutoencoderConfig())
        convolutions = [module for module in network.encoder.modules() if isinstance(module, nn.Conv2d)]
        mirror = [module for module in network.decoder.modules() if isinstance(module, nn.Conv2d)]
        assert network.encoder(torch.empty(1, 3, 224, 224)).shape == (1, 1024, 7, 7)
        assert network.reconstruct(torch.empty(1, 3, 224, 224)).shape == (1, 3, 224, 224)
    channels = [3, 64, 128, 256, 512, 1024]
    assert [(conv.in_channels, conv.out_channels) for conv in convolutions] == list(pairwise(channels))
    assert [(conv.in_channels, conv.out_channels) for conv in mirror] == list(pairwise(channels[::-1]))


def test_a_size_that_the_stages_cannot_halve_is_refused() -> None:
    with pytest.raises(ValueError, match=r"input_size \(64, 80\) must be a multiple of 32 for 5 stages"):
        Autoencoder(AutoencoderConfig(input_size=(64, 80)))


# --- baseline_cnn ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [1.0, 0.5])
def test_the_baseline_has_the_published_blocks_times_the_width(width: float) -> None:
    with torch.device("meta"):
        network = BaselineCNN(BaselineCNNConfig(classes=tiny.CLASSES, width=width))
    blocks: list[tuple[list[float], float]] = []
    channels: list[float] = []
    for module in network.blocks:
        if isinstance(module, nn.Conv2d):
            channels.append(module.out_channels / width)
        elif isinstance(module, nn.Dropout2d):
            blocks.append((channels, module.p))
            channels = []
    assert blocks == [([64], 0.1), ([128], 0.2), ([256, 256], 0.3), ([512, 512], 0.4), ([512, 512], 0.5)]
    dense = [module.out_features / width for module in network.dense.modules() if isinstance(module, nn.Linear)]
    assert dense == [1024, 512, 256]
    assert network.heads.binary.out_features == 1
    assert network.heads.types.out_features == len(tiny.CLASSES)


# --- Grad-CAM -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["baseline_cnn", "classifier"])
def test_grad_cam_is_that_of_captum(detectors: dict[str, Detector], name: str) -> None:
    from captum.attr import LayerGradCam

    detector = detectors[name]
    assert isinstance(detector, TwoHeadDetector)
    images = detector.inputs(torch.cat([tiny.good_images(1), tiny.corrupted(tiny.good_images(1))]))[IMAGE]
    features, tap = detector.feature_map(images).detach(), nn.Identity()
    oracle = LayerGradCam(lambda maps: detector.heads(detector.vector(tap(maps)))[0], tap)
    cam = oracle.attribute(features.requires_grad_(), relu_attributions=True).detach()[:, 0]
    assert (cam.flatten(1).amax(dim=1) > 0).all()  # else any two maps would be equal
    output = detector.predict_from({IMAGE: images}, (cam.shape[-2], cam.shape[-1]))
    assert output.heatmaps is not None
    torch.testing.assert_close(output.heatmaps, cam, rtol=1e-5, atol=1e-7)


# --- units ----------------------------------------------------------------------------------------------------------


def test_the_map_of_a_flat_picture_is_the_squared_error_whatever_its_size() -> None:
    network = Autoencoder(AutoencoderConfig(input_size=(64, 64), width=4)).eval()
    last = next(module for module in reversed(list(network.decoder.modules())) if isinstance(module, nn.Conv2d))
    nn.init.zeros_(last.weight)
    assert last.bias is not None
    nn.init.zeros_(last.bias)  # sigmoid(0): the reconstruction of anything is grey, 0.5
    images = torch.tensor([0.5, 0.6, 0.9]).view(3, 1, 1, 1).expand(3, 3, 40, 50)
    with torch.no_grad():
        output = network.predict(images)
    expected = torch.tensor([0.0, 0.1**2, 0.4**2])
    assert output.heatmaps is not None
    torch.testing.assert_close(output.heatmaps, expected.view(3, 1, 1).expand(3, 40, 50), rtol=1e-4, atol=1e-8)
    torch.testing.assert_close(output.scores, expected, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize(
    ("name", "tensors"),
    [
        ("baseline_cnn", ["heads.binary.weight", "heads.binary.bias"]),
        ("classifier", ["heads.binary.weight", "heads.binary.bias"]),
        ("mahalanobis", ["whitener"]),
        ("mahalanobis_global", ["whitener"]),
    ],
)
def test_three_times_the_weights_give_three_times_the_score_and_map(
    detectors: dict[str, Detector], name: str, tensors: list[str]
) -> None:
    images = tiny.corrupted(tiny.good_images(2))
    detector = copy.deepcopy(detectors[name])
    before = detector.predict(images)
    for tensor in tensors:
        detector.state_dict()[tensor].mul_(3)
    after = detector.predict(images)
    torch.testing.assert_close(after.scores, 3 * before.scores)
    if before.heatmaps is not None:
        assert after.heatmaps is not None
        assert before.heatmaps.max() > 0
        torch.testing.assert_close(after.heatmaps, 3 * before.heatmaps)


# --- the formulas, naively ------------------------------------------------------------------------------------------


def single(values: Tensor | NDArray[np.float64]) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float32)


def naive_average(maps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean of the 3x3 neighbours, those beyond the border counted as zeros."""
    out = np.zeros_like(maps)
    *_, height, width = maps.shape
    for row in range(height):
        for column in range(width):
            block = maps[..., max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
            out[..., row, column] = block.sum(axis=(-2, -1)) / 9
    return out


def naive_bilinear(maps: NDArray[np.float64], height: int, width: int) -> NDArray[np.float64]:
    """Pixel centres at half integers, the border repeated."""
    out = np.zeros((*maps.shape[:-2], height, width))
    last_row, last_column = maps.shape[-2] - 1, maps.shape[-1] - 1
    for row in range(height):
        for column in range(width):
            y = min(max((row + 0.5) * (last_row + 1) / height - 0.5, 0), last_row)
            x = min(max((column + 0.5) * (last_column + 1) / width - 0.5, 0), last_column)
            top, left = int(y), int(x)
            bottom, right = min(top + 1, last_row), min(left + 1, last_column)
            upper = maps[..., top, left] * (1 - x % 1) + maps[..., top, right] * (x % 1)
            lower = maps[..., bottom, left] * (1 - x % 1) + maps[..., bottom, right] * (x % 1)
            out[..., row, column] = upper * (1 - y % 1) + lower * (y % 1)
    return out
