"""What the patch memory computes, against the formulas of its papers done naively."""

from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from numpy.typing import NDArray

from anomaly.backbones import Trunk
from anomaly.calibration import CalibrationFile
from anomaly.detectors import PatchKNN, PatchKNNConfig, patch_knn
from anomaly.detectors.patch_knn import to_space
from anomaly.detectors.patches import patch_features
from anomaly.model_repo import load_detector, save_detector

SMALL = (16, 16)  # maps of this size are the grid and the picture at once: nothing is resized on the way


@pytest.fixture(scope="module")
def trunk() -> Trunk:
    return tiny.tiny_trunk()


@pytest.mark.parametrize("spread", [1.0, 30.0], ids=["near", "far"])  # far: exp of the distance overflows float32
@pytest.mark.parametrize(("memory", "neighbours"), [(60, 9), (60, 2), (5, 9), (3000, 9)])
def test_patch_knn_equals_eqs_6_and_7_of_the_paper(trunk: Trunk, memory: int, neighbours: int, spread: float) -> None:
    random = torch.Generator().manual_seed(memory + neighbours)
    bank = spread * torch.randn(memory, 6, generator=random)
    maps = spread * torch.randn(3, 6, *SMALL, generator=random) * 3
    config = PatchKNNConfig(input_size=SMALL, trunk=tiny.TRUNK, use_layers=(2,), neighbours=neighbours, sigma=0.0)
    output = PatchKNN(config, trunk, bank).predict_from({2: maps}, SMALL)
    patches = patch_features([maps]).flatten(2).transpose(1, 2).double().numpy()
    assert output.heatmaps is not None
    for image, score, heatmap in zip(patches, output.scores, output.heatmaps, strict=True):
        nearest, expected = naive_patchcore(image, bank.double().numpy(), neighbours)
        np.testing.assert_allclose(heatmap.flatten().numpy(), nearest, rtol=1e-4)
        assert float(score) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("score", ["top", "reweighted"])
@pytest.mark.parametrize(("rows", "columns"), [(7, 13), (1, 1000), (1000, 1)])
def test_scores_do_not_depend_on_the_blocks_the_memory_is_searched_in(
    trunk: Trunk, monkeypatch: pytest.MonkeyPatch, rows: int, columns: int, score: str
) -> None:
    random = torch.Generator().manual_seed(0)
    bank, maps = torch.randn(300, 6, generator=random), torch.randn(2, 6, *SMALL, generator=random)
    config = PatchKNNConfig.model_validate(
        {"input_size": SMALL, "trunk": tiny.TRUNK, "use_layers": (2,), "sigma": 0.0, "score": score}
    )
    detector = PatchKNN(config, trunk, bank)
    whole = detector.predict_from({2: maps}, SMALL)
    monkeypatch.setattr(patch_knn, "_ROWS", rows)
    monkeypatch.setattr(patch_knn, "_BLOCK_BYTES", 4 * rows * columns)
    found = detector.predict_from({2: maps}, SMALL)
    torch.testing.assert_close(found.scores, whole.scores, rtol=1e-5, atol=0)
    torch.testing.assert_close(found.heatmaps, whole.heatmaps, rtol=1e-5, atol=0)


@pytest.mark.parametrize("batch", [1, 8])
def test_no_batch_and_no_memory_makes_more_distances_at_a_time_than_a_block(trunk: Trunk, batch: int) -> None:
    bank = torch.randn(20_000, 8, generator=torch.Generator().manual_seed(0))
    config = PatchKNNConfig(input_size=(32, 32), trunk=tiny.TRUNK, use_layers=(2,), sigma=0.0)
    detector, maps = PatchKNN(config, trunk, bank), torch.zeros(batch, 8, 32, 32)
    largest = tiny.largest_allocation(lambda: detector.predict_from({2: maps}, (32, 32)))
    assert batch * 32 * 32 * len(bank) * 4 > 19 * patch_knn._BLOCK_BYTES  # what all of them would take
    assert largest <= patch_knn._BLOCK_BYTES


def test_neighbours_are_found_among_patches_that_are_nearly_alike(trunk: Trunk) -> None:
    # Far from zero and close to each other: |a|^2 - 2ab + |b|^2 in float32 is wrong by as much as they are apart.
    random = torch.Generator().manual_seed(0)
    bank = 100 + 0.01 * torch.randn(500, 32, generator=random)
    config = PatchKNNConfig(input_size=SMALL, trunk=tiny.TRUNK, use_layers=(2,), sigma=0.0)
    detector = PatchKNN(config, trunk, bank)
    patches = 100 + 0.5 * torch.randn(1, 32, generator=random)
    distance = torch.cdist(patches.double(), bank.double())[0]
    index = distance.argmin()
    found = detector._reweighted(patches[None], distance[index].float().view(1, 1), index.view(1, 1))
    _, expected = naive_patchcore(patches.double().numpy(), bank.double().numpy(), 9)
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_a_patch_that_is_in_the_memory_has_distance_nought(trunk: Trunk) -> None:
    maps = torch.randn(1, 6, *SMALL, generator=torch.Generator().manual_seed(0))
    bank = patch_features([maps]).flatten(2)[0].T.contiguous()
    config = PatchKNNConfig(input_size=SMALL, trunk=tiny.TRUNK, use_layers=(2,), sigma=0.0)
    output = PatchKNN(config, trunk, bank).predict_from({2: maps}, SMALL)
    assert output.heatmaps is not None
    assert (output.heatmaps.max(), output.scores.tolist()) == (0, [0.0])


def test_with_a_single_patch_in_the_memory_the_score_is_the_plain_distance(trunk: Trunk) -> None:
    config = PatchKNNConfig(input_size=SMALL, trunk=tiny.TRUNK, use_layers=(2,), sigma=0.0)
    maps = torch.zeros(1, 2, *SMALL)
    maps[0, :, 8:11, 8:11] = torch.tensor([3.0, 4.0]).view(2, 1, 1)  # averages to itself in the middle
    output = PatchKNN(config, trunk, torch.zeros(1, 2)).predict_from({2: maps}, SMALL)
    assert output.scores.tolist() == [5.0]


def test_a_memory_saved_before_there_was_a_choice_is_scored_as_it_was() -> None:
    old = {"trunk": tiny.TRUNK.model_dump(), "use_layers": [2], "neighbours": 9, "sigma": 4.0}
    config = PatchKNNConfig.model_validate(old)
    assert (config.metric, config.score, config.window, config.whitened) == ("euclidean", "reweighted", 3, False)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("score", ["max", "top"])
@pytest.mark.parametrize("window", [1, 3])
@pytest.mark.parametrize("whitened", [False, True])
def test_distances_and_scores_equal_their_definition(
    trunk: Trunk, metric: str, score: str, window: int, whitened: bool
) -> None:
    random = torch.Generator().manual_seed(0)
    good, maps = torch.randn(200, 6, generator=random) + 2, torch.randn(2, 6, *SMALL, generator=random)
    config = PatchKNNConfig.model_validate(
        {"input_size": SMALL, "trunk": tiny.TRUNK, "use_layers": (2,), "sigma": 0.0}
        | {"metric": metric, "score": score, "window": window, "whitened": whitened, "top": 0.02}
    )
    center, whitener = good.mean(dim=0), torch.randn(6, 4, generator=random)
    behind = (center, whitener) if whitened else None
    output = PatchKNN(config, trunk, to_space(good, metric, behind), *(behind or ())).predict_from({2: maps}, SMALL)

    x, y = patch_features([maps], window).flatten(2).mT.double(), good.double()
    if whitened:
        x, y = ((v - center.double()) @ whitener.double() for v in (x, y))
    similar = torch.nn.functional.cosine_similarity(x[:, :, None], y[None, None], dim=-1)
    expected = (1 - similar).amin(dim=2) if metric == "cosine" else torch.cdist(x, y.expand(2, -1, -1)).amin(dim=2)
    assert output.heatmaps is not None
    np.testing.assert_allclose(output.heatmaps.flatten(1).numpy(), expected.numpy(), rtol=1e-3, atol=1e-5)
    largest = expected.sort(dim=1, descending=True).values[:, : 1 if score == "max" else 5]  # 2 % of 256
    np.testing.assert_allclose(output.scores.numpy(), largest.mean(dim=1).numpy(), rtol=1e-3)


def test_without_a_window_the_maps_are_left_as_they_are() -> None:
    maps = torch.randn(1, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(patch_features([maps], window=1), maps)
    with pytest.raises(ValueError, match="expected an odd number"):
        PatchKNNConfig(trunk=tiny.TRUNK, use_layers=(2,), window=2)


def test_a_whitened_memory_survives_saving_and_its_parts_must_fit(trunk: Trunk, tmp_path: Path) -> None:
    random = torch.Generator().manual_seed(0)
    config = PatchKNNConfig(input_size=(64, 64), trunk=tiny.TRUNK, use_layers=(2,), whitened=True, score="top")
    width = trunk(tiny.good_images(1), (2,))[2].shape[1]
    parts = [torch.randn(*shape, generator=random) for shape in ((50, 4), (width,), (width, 4))]
    detector = PatchKNN(config, trunk, *parts).eval()
    save_detector(tmp_path, detector, CalibrationFile(categories={"waves": tiny.tiny_calibration(detector)}))
    images = tiny.good_images(2)
    assert torch.equal(load_detector(tmp_path).detector.predict(images).scores, detector.predict(images).scores)
    state = detector.state_dict()
    with pytest.raises(ValueError, match="lacks tensor 'whitener'"):
        PatchKNN.from_state(config, {name: value for name, value in state.items() if name != "whitener"})
    with pytest.raises(ValueError, match="does not lead from center"):
        PatchKNN.from_state(config, state | {"memory": torch.zeros(50, 5)})


def test_three_times_the_features_give_three_times_the_distance_to_the_memory() -> None:
    knn = tiny.tiny_detectors()["patch_knn"]
    assert isinstance(knn, PatchKNN)
    inputs = knn.inputs(tiny.corrupted(tiny.good_images(2)))
    before = knn.predict_from(inputs, SMALL).heatmaps
    larger = PatchKNN(knn.config, knn.trunk, 3 * knn.memory)
    after = larger.predict_from({layer: 3 * value for layer, value in inputs.items()}, SMALL).heatmaps
    assert before is not None
    assert after is not None
    torch.testing.assert_close(after, 3 * before)


def naive_patchcore(
    patches: NDArray[np.float64], memory: NDArray[np.float64], b: int
) -> tuple[NDArray[np.float64], float]:
    """Roth et al. 2022: the distance of each patch, and the image score of eqs. 6 and 7."""
    nearest = np.array([np.linalg.norm(memory - patch, axis=1).min() for patch in patches])
    test = patches[nearest.argmax()]  # m^test,*
    star = memory[np.argmin(np.linalg.norm(memory - test, axis=1))]  # m^*
    s_star = np.linalg.norm(test - star)
    around = memory[np.argsort(np.linalg.norm(memory - star, axis=1), kind="stable")[:b]]  # N_b(m^*), with m^* in it
    weight = 1 - np.exp(s_star) / np.exp(np.linalg.norm(around - test, axis=1)).sum()
    return nearest, float(weight * s_star)
