"""One, two or four good pictures: turned copies for the memory, a Gaussian that stays finite, and ViT trunks."""

import dataclasses
import math
from pathlib import Path

import pytest
import tiny
import torch
from test_backbones import SOURCE, vit_repo
from torch import Tensor

from anomaly.backbones import VIT_TYPES, Pretrained, Trunk, default_layers, read_folder
from anomaly.calibration import CalibrationFile
from anomaly.datasets import Sample
from anomaly.detectors import Mahalanobis, MahalanobisConfig, PatchKNNConfig
from anomaly.detectors.base import prepare
from anomaly.errors import ModelLoadError
from anomaly.model_repo import load_detector, save_detector
from training import fit_mahalanobis, fit_patch_knn
from training.arguments import run
from training.fitting import maps_of, rotated, trunk_with

KNN = fit_patch_knn.Args(data=Path(), category="", out=Path())
GAUSSIAN = fit_mahalanobis.Args(data=Path(), category="", out=Path())


# --- turned copies --------------------------------------------------------------------------------------------------


def test_a_quarter_turn_moves_every_pixel_to_its_place() -> None:
    image = tiny.good_images(2)
    assert rotated(image, 0) is image
    for degrees, quarters in ((90, 1), (180, 2), (270, 3), (450, 1)):
        torch.testing.assert_close(
            rotated(image, degrees), torch.rot90(image, quarters, dims=(2, 3)), atol=1e-4, rtol=0
        )


def test_a_turned_rectangle_is_not_sheared_and_its_corners_are_filled() -> None:
    rows, columns = torch.meshgrid(torch.arange(40.0) - 19.5, torch.arange(80.0) - 39.5, indexing="ij")
    radius = (rows.square() + columns.square()).sqrt()
    turned = rotated((radius < 15).float()[None, None], 45)[0, 0]
    assert (turned[radius < 14] > 0.999).all()
    assert (turned[(radius > 16) & (radius < 19)] < 0.001).all()
    bar = ((rows.abs() < 3) & (columns.abs() < 15)).float()[None, None]
    upright = rotated(bar, 90)[0, 0]
    assert upright[19 - 12, 39] == upright[19 + 12, 39] == pytest.approx(1)
    assert upright[19, 39 - 12] == upright[19, 39 + 12] == pytest.approx(0)
    assert rotated(torch.ones(1, 1, 40, 80), 30).min() == pytest.approx(1)


def test_rotations_add_turned_copies_of_each_picture(trunk: Trunk, samples: list[Sample]) -> None:
    config = PatchKNNConfig(input_size=(64, 64), trunk=tiny.TRUNK, use_layers=(2,))
    alone = list(maps_of(trunk, config, (2,), samples))
    turned = list(maps_of(trunk, config, (2,), samples, rotations=4))
    assert (len(alone), len(turned)) == (1, 4)
    assert torch.equal(turned[0][2], alone[0][2])
    upside_down = torch.cat([prepare(torch.rot90(tiny_image(s), 2, dims=(2, 3)), config) for s in samples])
    torch.testing.assert_close(turned[2][2], trunk(upside_down, (2,))[2], atol=2e-2, rtol=1e-2)


def test_a_memory_with_rotations_knows_the_turned_part_and_one_without_does_not(samples: list[Sample]) -> None:
    weights = timm_weights()
    trunk = trunk_with(weights, None)
    upright = tiny_image(samples[0])
    turned = torch.rot90(upright, 1, dims=(2, 3))
    scores = {}
    for rotations in (1, 4):
        args = dataclasses.replace(KNN, shots=1, image_size=64, rotations=rotations)
        config = fit_patch_knn.knn_config(args, weights, trunk)
        maps = maps_of(trunk, config, config.use_layers, samples[:1], rotations)
        detector = fit_patch_knn.fit(config, trunk, maps, args)
        scores[rotations] = [detector.predict(image).scores.item() for image in (upright, turned)]
    assert scores[1][0] < 1e-3 < 0.2 * scores[1][1]
    assert scores[4][0] < 1e-3
    assert scores[4][1] < 0.1 * scores[1][1]


# --- how many patches are kept --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({}, math.ceil(0.01 * 3 * 64)),
        ({"shots": 3}, 3 * 64),
        ({"shots": 3, "max_memory": 50}, 50),
        ({"shots": 3, "coreset": 0.5}, 96),
        ({"preset": "anomalydino"}, 3 * 64),
    ],
)
def test_few_shots_keep_every_patch_up_to_the_limit(trunk: Trunk, settings: dict[str, object], kept: int) -> None:
    args = dataclasses.replace(KNN, image_size=64, **settings)  # type: ignore[arg-type]
    config = fit_patch_knn.knn_config(args, timm_weights(), trunk)
    maps = [trunk(prepare(tiny.good_images(3), config), config.use_layers)]
    assert len(fit_patch_knn.fit(config, trunk, maps, args).memory) == kept


# --- a Gaussian of very few pictures --------------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", ["position", "global"])
@pytest.mark.parametrize("shots", [1, 2, 4])
def test_a_gaussian_of_few_pictures_gives_finite_scores_that_tell_spoiled_from_good(
    trunk: Trunk, shots: int, pooling: str
) -> None:
    detector = few_shot_gaussian(trunk, tiny.good_images(shots), pooling)
    held_out = tiny.good_images(5, seed=1)
    good, spoiled = detector.predict(held_out).scores, detector.predict(tiny.corrupted(held_out)).scores
    assert good.isfinite().all()
    assert spoiled.isfinite().all()
    assert spoiled.min() > good.max()


def test_of_one_picture_the_distance_is_euclidean(trunk: Trunk) -> None:
    detector = few_shot_gaussian(trunk, tiny.good_images(1), "position")
    scale = detector.whitener[0, 0, 0]
    identity = torch.eye(detector.whitener.shape[-1])
    torch.testing.assert_close(detector.whitener, (scale * identity).expand_as(detector.whitener))
    assert scale == pytest.approx(1 / detector.mean.std(correction=0).item(), rel=1e-4)
    assert detector.predict(tiny.good_images(1)).scores.item() < 1e-3


# --- ViT trunks -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", VIT_TYPES)
def test_a_vit_is_compared_as_anomalydino_does(kind: str, tmp_path: Path) -> None:
    vit_repo(tmp_path, kind)
    weights = read_folder(tmp_path, SOURCE)
    trunk = trunk_with(weights, None)
    assert fit_patch_knn.knn_config(KNN, weights, trunk).input_size == (448, 448)
    args = dataclasses.replace(KNN, image_size=37, shots=2)
    config = fit_patch_knn.knn_config(args, weights, trunk)
    assert config.input_size == (32, 32)  # whole patches of 8
    assert (config.metric, config.score, config.window, config.top) == ("cosine", "top", 1, 0.01)
    good = tiny.good_images(2)
    maps = trunk(prepare(good, config), config.use_layers)
    detector = fit_patch_knn.fit(config, trunk, [maps], args)
    tokens = maps[2].flatten(2).mT  # (2, 16, 32), of the last block
    torch.testing.assert_close(detector.memory, torch.nn.functional.normalize(tokens.flatten(0, 1), dim=1))

    spoiled = tiny.corrupted(good[:1])
    output = detector.predict(spoiled)
    its = trunk(prepare(spoiled, config), (2,))[2].flatten(2).mT[0]
    similar = torch.nn.functional.cosine_similarity(its[:, None], tokens.flatten(0, 1)[None], dim=2)
    expected = 1 - similar.amax(dim=1)
    assert output.scores.item() == pytest.approx(expected.max().item(), rel=1e-3)  # 1 % of 16 patches: one
    assert detector.predict(good).scores.max() < 1e-5

    save_detector(tmp_path / "run", detector, CalibrationFile(categories={"waves": tiny.tiny_calibration(detector)}))
    loaded = load_detector(tmp_path / "run").detector
    assert torch.equal(loaded.predict(spoiled).scores, output.scores)


def test_a_vit_may_be_asked_for_several_blocks_and_for_no_other_preset_than_the_one_given(tmp_path: Path) -> None:
    vit_repo(tmp_path, "dinov2")
    weights = read_folder(tmp_path, SOURCE)
    trunk = trunk_with(weights, (1, 2))
    args = dataclasses.replace(KNN, layers=(1, 2), preset="patchcore", image_size=64)
    config = fit_patch_knn.knn_config(args, weights, trunk)
    assert (config.use_layers, config.metric, config.window) == ((1, 2), "euclidean", 3)
    detector = fit_patch_knn.fit(config, trunk, [trunk(prepare(tiny.good_images(2), config), (1, 2))], args)
    assert detector.memory.shape[1] == 64  # two blocks of 32
    gaussian = fit_mahalanobis.trunk_config(dataclasses.replace(GAUSSIAN, image_size=64), weights, trunk, ("waves",))
    assert (gaussian.use_layers, gaussian.categories) == ((1, 2), ())
    with pytest.raises(ModelLoadError, match="dinov2 has blocks 1 to 2, not 3"):
        trunk_with(weights, (3,))


def test_detectors_on_fewer_layers_than_the_default_share_the_default_trunk() -> None:
    weights = timm_weights()
    assert trunk_with(weights, (3,)).config == trunk_with(weights, None).config
    assert trunk_with(weights, (1, 3)).config.layers == (1, 2, 3, 4)
    with pytest.raises(ModelLoadError, match="layer -1 of test_resnet: layers count from 0"):
        trunk_with(weights, (-1,))


def test_the_reweighted_score_is_refused_with_cosine_distances(capsys: pytest.CaptureFixture[str]) -> None:
    args = dataclasses.replace(KNN, preset="anomalydino", score="reweighted")
    with pytest.raises(ValueError, match="score 'reweighted' is made for Euclidean distances"):
        fit_patch_knn.knn_config(args, timm_weights(), tiny.tiny_trunk())
    with pytest.raises(SystemExit):
        run(fit_patch_knn.main, fit_patch_knn.Args, ["--help"])
    assert "mean of the largest 1 % of patch distances" in " ".join(capsys.readouterr().out.split())


# --- builders -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trunk() -> Trunk:
    return tiny.tiny_trunk()


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    """Three good pictures in files."""
    from PIL import Image

    found = []
    for index, image in enumerate(tiny.good_images(3)):
        path = tmp_path / f"{index}.png"
        Image.fromarray(tiny.as_picture(image)).save(path)
        found.append(Sample(path=path, relative=path.name, label="good", split="train", mask=None))
    return found


def tiny_image(sample: Sample) -> Tensor:
    from training.pictures import load

    return load(sample.path)


def timm_weights() -> Pretrained:
    trunk = tiny.tiny_trunk()
    weights = Pretrained(
        library="timm",
        architecture="test_resnet",
        arguments={},
        state={name.removeprefix("model."): value for name, value in trunk.net.state_dict().items()},
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        input_size=(64, 64),
        source="a test",
    )
    assert default_layers(weights) == (2, 3, 4)
    return weights


def few_shot_gaussian(trunk: Trunk, good: Tensor, pooling: str) -> Mahalanobis:
    args = dataclasses.replace(GAUSSIAN, image_size=64, max_channels=24, pooling=pooling)  # type: ignore[arg-type]
    config = MahalanobisConfig(input_size=(64, 64), trunk=tiny.TRUNK, use_layers=(2, 3), pooling=pooling)
    vectors = fit_mahalanobis.vectors(config, [trunk(prepare(good, config), (2, 3))])
    detector = fit_mahalanobis.fit(config, trunk, [vectors], args)
    assert isinstance(detector, Mahalanobis)
    return detector
