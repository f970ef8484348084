"""The autoencoder: what it is trained on, what its map and score are, Otsu's threshold, recipes."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import load_file
from scipy.ndimage import gaussian_filter
from torch import Tensor
from trained import args_for, metrics

from anomaly.calibration import CalibrationFile
from anomaly.detectors import Autoencoder, AutoencoderConfig, PatchKNN
from anomaly.detectors.autoencoder import Perceptual, PerceptualConfig
from anomaly.detectors.base import IMAGE
from anomaly.errors import DataError
from anomaly.model_repo import load_detector, save_detector
from training import train_all, train_autoencoder
from training.losses import reconstruction_loss, structural_similarity
from training.otsu import otsu_settings, otsu_threshold
from training.train_autoencoder import RECIPES, Args, settings_of

STARTER = Path(__file__).parents[1] / "starter/models--vigie--cable-autoencoder"
SIZE = (tiny.SIDE, tiny.SIDE)


def perceptual_config(weight: float = 0.5, **changed: Any) -> PerceptualConfig:
    given = {"trunk": tiny.TRUNK, "use_layers": (2, 3), "input_size": SIZE, "weight": weight}
    return PerceptualConfig(**given | changed)


@pytest.fixture(scope="module")
def perceptual() -> Perceptual:
    return Perceptual(perceptual_config(), tiny.tiny_trunk())


def autoencoder(config: AutoencoderConfig, perceptual: Perceptual | None = None) -> Autoencoder:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Autoencoder(config, perceptual)
        tiny.settle(network)
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def pair() -> tuple[Tensor, Tensor]:
    """Good pictures, and the same with a checkerboard in a corner."""
    images = tiny.good_images(2)
    return images, tiny.corrupted(images)


# --- the loss --------------------------------------------------------------------------------------------------------


def test_features_are_compared_as_unit_vectors_behind_the_trunks_own_preprocessing(
    pair: tuple[Tensor, Tensor],
) -> None:
    images, others = pair
    config = perceptual_config(mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    found = Perceptual(config, tiny.tiny_trunk())(images, others)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (config.mean, config.std))
    first, second = (tiny.tiny_trunk()((pictures - mean) / std, (2, 3)) for pictures in (images, others))
    for index in range(2):
        layers = []
        for layer, side in ((2, 8), (3, 4)):
            a, b = first[layer][index].double().numpy(), second[layer][index].double().numpy()
            assert a.shape[1:] == (side, side)
            least = 0.1 * np.linalg.norm(a, axis=0).mean()
            a, b = (x / np.maximum(np.linalg.norm(x, axis=0), least) for x in (a, b))
            difference = ((a - b) ** 2).sum(axis=0)
            layers.append(
                torch.nn.functional.interpolate(torch.from_numpy(difference)[None, None], SIZE, mode="bilinear")
            )
        torch.testing.assert_close(found[index].double(), (layers[0] + layers[1])[0, 0] / 2, rtol=1e-4, atol=1e-6)


def test_equal_pictures_have_equal_features_and_a_picture_does_not_weigh_in_its_neighbours(
    perceptual: Perceptual, pair: tuple[Tensor, Tensor]
) -> None:
    images, others = pair
    assert perceptual(images, images).eq(0).all()
    alone = torch.cat([perceptual(images[:1], others[:1]), perceptual(images[1:], others[1:])])
    torch.testing.assert_close(perceptual(images, others), alone, rtol=1e-4, atol=1e-6)
    black = torch.zeros_like(images)
    assert perceptual(black, black).isfinite().all()


def test_the_trunk_is_frozen_and_the_gradient_goes_to_the_reconstruction_only(
    perceptual: Perceptual, pair: tuple[Tensor, Tensor]
) -> None:
    images, others = pair[0].clone().requires_grad_(), pair[1].clone().requires_grad_()
    perceptual.train()(images, others).mean().backward()
    assert images.grad is None
    assert others.grad is not None
    assert others.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in perceptual.parameters())
    assert not any(module.training for module in perceptual.trunk.modules())


def test_the_loss_is_the_sum_of_its_terms(perceptual: Perceptual, pair: tuple[Tensor, Tensor]) -> None:
    images, others = pair
    squared = (images - others).square().mean()
    assert torch.equal(reconstruction_loss(images, others), squared)
    features, similarity = perceptual(images, others).mean(), structural_similarity(images, others)
    expected = squared + 0.5 * features + 0.2 * (1 - similarity)
    torch.testing.assert_close(reconstruction_loss(images, others, perceptual, ssim=0.2), expected)
    assert float(reconstruction_loss(images, images, perceptual, ssim=0.2)) == pytest.approx(0, abs=1e-6)


def test_structural_similarity_is_the_one_of_the_paper(pair: tuple[Tensor, Tensor]) -> None:
    images, others = pair
    assert float(structural_similarity(images, others)) == pytest.approx(naive_ssim(images, others), abs=1e-5)
    others = others.clone().requires_grad_()
    before = structural_similarity(images, others)
    (gradient,) = torch.autograd.grad(before, others)
    assert structural_similarity(images, others + gradient / gradient.abs().max() / 100) > before


def naive_ssim(images: Tensor, others: Tensor) -> float:
    """Eq. 13 of Wang et al. 2004 with scipy's Gaussian of 11 px; beyond the border the picture is mirrored."""
    values = []
    for a, b in zip(
        images.double().numpy().reshape(-1, *SIZE), others.double().numpy().reshape(-1, *SIZE), strict=True
    ):
        mean_a, mean_b, aa, bb, ab = (
            gaussian_filter(x, 1.5, radius=5, mode="mirror") for x in (a, b, a * a, b * b, a * b)
        )
        c1, c2 = 0.01**2, 0.03**2
        similarity = (2 * mean_a * mean_b + c1) * (2 * (ab - mean_a * mean_b) + c2)
        similarity /= (mean_a**2 + mean_b**2 + c1) * (aa - mean_a**2 + bb - mean_b**2 + c2)
        values.append(similarity.mean())
    return float(np.mean(values))


# --- map and score ---------------------------------------------------------------------------------------------------


def test_the_score_is_of_the_worst_region_or_of_the_whole_map(pair: tuple[Tensor, Tensor]) -> None:
    region = autoencoder(AutoencoderConfig(input_size=SIZE, width=2))
    mean = autoencoder(AutoencoderConfig(input_size=SIZE, width=2, score="mean"))
    of_region, of_mean = region.predict(pair[1]), mean.predict(pair[1])
    assert of_region.heatmaps is not None
    assert of_mean.heatmaps is not None
    assert torch.equal(of_region.heatmaps, of_mean.heatmaps)  # SIDE is input_size: nothing is resized behind the blur
    flat = of_mean.heatmaps.flatten(1)
    torch.testing.assert_close(of_mean.scores, flat.mean(dim=1))
    torch.testing.assert_close(of_region.scores, flat.sort(dim=1).values[:, -41:].mean(dim=1))  # 1 % of 64 x 64


def test_with_a_trunk_the_map_is_the_squared_error_and_the_weighted_difference_of_features(
    perceptual: Perceptual, pair: tuple[Tensor, Tensor]
) -> None:
    images = pair[1]
    plain = autoencoder(AutoencoderConfig(input_size=SIZE, width=2, sigma=0))
    both = autoencoder(AutoencoderConfig(input_size=SIZE, width=2, sigma=0, perceptual=perceptual.config), perceptual)
    squared, found = plain.predict(images).heatmaps, both.predict(images).heatmaps
    assert squared is not None
    expected = squared + 0.5 * perceptual(images, plain.reconstruct(images))
    torch.testing.assert_close(found, expected)


def test_a_model_whose_map_needs_a_trunk_holds_it(
    perceptual: Perceptual, pair: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    config = AutoencoderConfig(input_size=SIZE, width=2, perceptual=perceptual.config)
    network = autoencoder(config, perceptual)
    save_detector(tmp_path, network, CalibrationFile(categories={"waves": tiny.tiny_calibration(network)}))
    stored = load_file(tmp_path / "model.safetensors")
    theirs = tiny.tiny_trunk().state_dict()
    assert all(torch.equal(stored[f"perceptual.trunk.{name}"], value) for name, value in theirs.items())
    loaded = load_detector(tmp_path).detector
    expected, found = network.predict(pair[1]), loaded.predict(pair[1])
    assert torch.equal(found.scores, expected.scores)
    assert loaded.config == config


def test_its_inputs_are_pictures_even_where_another_member_stands_on_the_same_trunk(perceptual: Perceptual) -> None:
    config = AutoencoderConfig(input_size=SIZE, width=2, perceptual=perceptual.config)
    network = Autoencoder(config, perceptual)
    plain = tiny.tiny_detectors()["patch_knn"].config.model_copy(update={"mean": config.mean, "std": config.std})
    knn = PatchKNN(plain, perceptual.trunk, torch.zeros(1, 1))
    assert network.input_key() != knn.input_key()
    assert network.input_key() == Autoencoder(AutoencoderConfig(input_size=SIZE, width=2)).input_key()
    assert list(network.inputs(tiny.good_images(1))) == [IMAGE]


def test_autoencoders_released_before_there_was_a_choice_load_as_they_were() -> None:
    folders = sorted(STARTER.glob("snapshots/*"))
    assert folders
    for folder in folders:
        config = load_detector(folder).detector.config  # compares the score of its reference picture
        assert isinstance(config, AutoencoderConfig)
        assert (config.score, config.perceptual) == ("region", None)


# --- Otsu's threshold ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_otsus_threshold_is_the_best_of_all_cuts(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = np.concatenate(
        [rng.normal(0, 1, rng.integers(1, 30)), rng.normal(rng.uniform(0, 6), 1, rng.integers(1, 30))]
    )
    scores = np.round(scores, 1) if seed % 2 else scores  # with many equal ones
    found = otsu_threshold(rng.permutation(scores).tolist())
    cuts = {float(cut): between_variance(scores, cut) for cut in np.unique(scores)[1:]}
    assert found is not None
    assert between_variance(scores, found) == pytest.approx(max(cuts.values()))
    assert found not in scores  # half-way: no score is on the edge


def between_variance(scores: "np.ndarray[Any, np.dtype[np.float64]]", cut: float) -> float:
    """Eq. 14 of the paper: w0 w1 (m1 - m0)^2."""
    lower, upper = scores[scores < cut], scores[scores >= cut]
    share = len(lower) / len(scores)
    return float(share * (1 - share) * (upper.mean() - lower.mean()) ** 2)


def test_two_clear_groups_are_cut_half_way_between_them() -> None:
    assert otsu_threshold([9.0, 1.0, 10.0, 2.0, 3.0]) == 6.0
    assert otsu_threshold([5.0, 1.0]) == 3.0
    above = np.nextafter(1.0, 2.0)
    assert otsu_threshold([1.0, above]) == above  # nothing lies between: the upper score itself is in the upper group


@pytest.mark.parametrize("scores", [[], [3.0], [2.0, 2.0, 2.0]])
def test_scores_that_are_all_equal_have_no_threshold(scores: list[float]) -> None:
    assert otsu_threshold(scores) is None
    assert otsu_settings(scores, []) == {"otsu": f"none: all {len(scores)} held-out scores are equal"}


def test_it_says_what_it_stands_on() -> None:
    assert otsu_settings([1.0, 2.0, 9.0], [3.0, 8.0, 9.5]) == {
        "otsu_threshold": 5.5,
        "otsu_on_calibration": "1 of 3 good rejected, 1 of 3 defects missed",
    }
    alone = otsu_settings([1.0, 2.0, 8.0], [])
    assert alone["otsu_on_calibration"] == "1 of 3 good rejected, no defects held out: it only splits the good"


# --- recipes ---------------------------------------------------------------------------------------------------------


def args(**given: Any) -> Args:
    return Args(data=Path("data"), out=Path("out"), **{"category": "cable"} | given)


def test_a_recipe_is_a_set_of_defaults_and_every_flag_overrules_it() -> None:
    given = {"image_size": 96, "width": 3, "epochs": 2, "batch_size": 5, "perceptual": 0.7, "ssim": 0.3}
    for name, recipe in RECIPES.items():
        for field, value in {**given, "score": "mean", "heatmap": "pixels"}.items():
            changed = {"perceptual": 0.2} | {field: value}
            found = settings_of(args(recipe=name, weights=Path("trunk.safetensors"), **changed))
            assert found == dataclasses.replace(recipe, **changed)


def test_one_for_all_categories_is_light_and_one_for_one_specialised() -> None:
    trunk = Path("trunk.safetensors")
    light, specialised = RECIPES["light"], RECIPES["specialised"]
    assert settings_of(args(category="all", weights=trunk)) == dataclasses.replace(light, heatmap="pixels")
    assert settings_of(args(weights=trunk)) == specialised
    assert settings_of(args(category="all", recipe="specialised", weights=trunk)) == specialised
    assert light.width < specialised.width
    assert light.epochs < specialised.epochs
    assert light.perceptual == 0 < specialised.perceptual


def test_without_a_trunk_a_recipe_goes_without_features_but_a_flag_that_asks_for_them_is_refused() -> None:
    for found in (settings_of(args(recipe="specialised")), settings_of(args(weights=Path("t"), perceptual=0.0))):
        assert (found.perceptual, found.heatmap) == (0, "pixels")
    with pytest.raises(DataError, match=r"--perceptual 0.5 needs a trunk: give --weights FILE or --backbone NAME"):
        settings_of(args(perceptual=0.5))
    for given in ({}, {"weights": Path("trunk.safetensors"), "perceptual": 0.0}):
        with pytest.raises(DataError, match="--heatmap perceptual needs a trunk"):
            settings_of(args(heatmap="perceptual", **given))


# --- a run -----------------------------------------------------------------------------------------------------------

TINY: dict[str, Any] = {"image_size": 64, "width": 2, "epochs": 10, "perceptual": 0.3, "heatmap": "perceptual"}


@pytest.fixture(scope="module")
def whole(training_args: train_all.Args, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with the perceptual term in loss and map."""
    out = tmp_path_factory.mktemp("autoencoder")
    train_autoencoder.main(args_for(Args, training_args, out, weights=training_args.weights, **TINY))
    return out


def test_training_leaves_the_trunk_as_it_was(whole: Path, trunk_weights: Path) -> None:
    stored, theirs = load_file(whole / "model.safetensors"), load_file(trunk_weights)
    prefix = "perceptual.trunk.net.model."
    ours = {name.removeprefix(prefix): value for name, value in stored.items() if name.startswith(prefix)}
    assert ours
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_two_runs_with_one_seed_are_identical_and_another_seed_is_another_run(
    training_args: train_all.Args, tmp_path: Path
) -> None:
    options = {"image_size": 64, "width": 2, "epochs": 1, "ssim": 0.1}
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        given = dataclasses.replace(training_args, seed=seed)
        train_autoencoder.main(args_for(Args, given, tmp_path / name, **options))
    one, two, three = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two", "three"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not all(torch.equal(one[name], three[name]) for name in one)
    assert (tmp_path / "one/calibration.json").read_bytes() == (tmp_path / "two/calibration.json").read_bytes()
    assert metrics(tmp_path / "one").curve == metrics(tmp_path / "two").curve != ()


def test_the_card_shows_otsus_threshold_and_what_it_does_and_names_the_trunk(whole: Path) -> None:
    found = metrics(whole)
    calibration = load_detector(whole).calibrations.categories["cable"]
    expected = otsu_settings(calibration.good_scores, calibration.defect_scores)
    assert {name: found.settings[name] for name in expected} == expected
    card = (whole / "README.md").read_text()
    assert f"otsu_on_calibration={expected['otsu_on_calibration']}" in card
    assert found.backbone is not None
    assert found.backbone in card


def test_a_trunk_that_only_the_loss_needs_is_not_in_the_model(training_args: train_all.Args, tmp_path: Path) -> None:
    options = TINY | {"epochs": 1, "heatmap": "pixels", "score": "mean"}
    train_autoencoder.main(args_for(Args, training_args, tmp_path, weights=training_args.weights, **options))
    detector = load_detector(tmp_path).detector
    assert isinstance(detector.config, AutoencoderConfig)
    assert (detector.config.perceptual, detector.config.score) == (None, "mean")
    assert not [name for name in detector.state_dict() if name.startswith("perceptual")]
    assert metrics(tmp_path).settings["perceptual"] == 0.3


def test_one_for_all_categories_has_thresholds_and_otsus_for_each(
    training_args: train_all.Args, tmp_path: Path
) -> None:
    for name in ("east", "west"):
        shutil.copytree(training_args.data / "cable", tmp_path / "data" / name)
    given = dataclasses.replace(training_args, data=tmp_path / "data", category="all")
    train_autoencoder.main(args_for(Args, given, tmp_path / "run", image_size=64, width=2, epochs=1))
    loaded = load_detector(tmp_path / "run")
    assert set(loaded.calibrations.categories) == {"east", "west"}
    found = metrics(tmp_path / "run").settings["otsu"]
    assert isinstance(found, dict)
    for name, calibration in loaded.calibrations.categories.items():
        assert found[name] == otsu_settings(calibration.good_scores, calibration.defect_scores)
