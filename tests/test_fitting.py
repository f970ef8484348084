"""What is fitted rather than trained: coresets, reservoirs and Gaussians against their definitions."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.covariance import ledoit_wolf_shrinkage
from tiny import TRUNK, tiny_trunk
from trained import manifest

from anomaly.calibration import read_calibration
from anomaly.detectors import Mahalanobis, MahalanobisConfig, PatchKNN
from anomaly.model_repo import load_detector
from training import coreset, fit_mahalanobis, gaussians
from training.pictures import load


@pytest.fixture(params=[2, 5, 4000])
def pool(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Points that the coreset looks at one by one: few of them, or all."""
    monkeypatch.setattr(coreset, "_POOL", request.param)
    monkeypatch.setattr(coreset, "_DISTANCES", 50)


@pytest.mark.usefixtures("pool")
@pytest.mark.parametrize("seed", range(3))
def test_k_center_takes_the_point_farthest_from_all_that_were_chosen(seed: int) -> None:
    points = torch.randn(120, 5, generator=torch.Generator().manual_seed(seed))
    chosen = coreset.k_center(points, 30, torch.Generator().manual_seed(seed))
    exact = points.double().numpy()
    expected = [int(chosen[0])]
    while len(expected) < 30:
        to_chosen = np.linalg.norm(exact[:, None] - exact[expected][None], axis=-1)
        expected.append(int(to_chosen.min(axis=1).argmax()))
    assert chosen.tolist() == expected


@pytest.mark.usefixtures("pool")
def test_k_center_takes_every_point_once_where_all_are_asked_for() -> None:
    points = torch.randn(20, 3, generator=torch.Generator().manual_seed(0)).repeat(2, 1)  # each there twice
    chosen = coreset.k_center(points, 40, torch.Generator().manual_seed(0))
    assert sorted(chosen.tolist()) == list(range(40))


def test_the_reservoir_is_an_even_sample_whatever_the_size_of_the_blocks() -> None:
    draws, size, count = 600, 10, 60
    hits = np.zeros(count)
    for seed in range(draws):
        rows = torch.arange(count, dtype=torch.float32)[:, None]
        blocks = rows.split([7, 3, 25, 1, 24])
        kept, seen = coreset.reservoir(blocks, size, torch.Generator().manual_seed(seed))
        assert seen == count
        assert len(set(kept[:, 0].tolist())) == size
        hits[kept[:, 0].long().numpy()] += 1
    expected = draws * size / count
    chi_square = ((hits - expected) ** 2 / (expected * (1 - size / count))).sum()
    assert chi_square < 110  # 60 degrees of freedom: a fair sample exceeds it once in 10,000 times


def test_the_reservoir_keeps_all_of_a_stream_that_is_short_and_no_more_than_its_size_of_a_long_one() -> None:
    blocks = [torch.full((4, 2), float(i)) for i in range(3)]
    kept, seen = coreset.reservoir(blocks, 100, torch.Generator())
    assert torch.equal(kept, torch.cat(blocks))
    assert seen == 12
    kept, seen = coreset.reservoir((torch.zeros(500, 2) for _ in range(20)), 8, torch.Generator())
    assert (kept.shape, kept.untyped_storage().nbytes(), seen) == ((8, 2), 8 * 2 * 4, 10_000)


def test_the_patch_memory_holds_patches_of_the_training_pictures(trained: Path, cables: Path) -> None:
    folder = trained / "runs/patch_knn"
    detector = load_detector(folder).detector
    assert isinstance(detector, PatchKNN)
    train = [e for e in manifest(folder).entries if e.split in ("train", "validate") and e.label == "good"]
    patches = len(train) * 8 * 8  # 64 px at stride 8
    assert len(detector.memory) == math.ceil(0.05 * patches)
    scores = [detector.predict(load(cables / "cable" / entry.path)).scores.item() for entry in train]
    held_out = read_calibration(folder / "calibration.json").categories["cable"].good_scores
    assert np.median(scores) < np.median(held_out)


def test_all_positions_are_shrunk_by_one_intensity_towards_the_mean_variance_of_all() -> None:
    spread = torch.tensor([0.01, 1.0, 3.0])[:, None]  # of three positions
    rng = torch.Generator().manual_seed(0)
    pictures = torch.randn(25, 3, 5, generator=rng) @ torch.randn(5, 5, generator=rng) * spread + torch.arange(5)
    mean, whitener = gaussians.gaussians(pictures)

    x = pictures.double().numpy()  # (N, P, d)
    share = np.mean([naive_oas(x[:, position]) for position in range(3)])
    assert 0.05 < share < 0.95
    for position in range(3):
        covariance = (1 - share) * np.cov(x[:, position].T, bias=True) + share * x.var(axis=0).mean() * np.eye(5)
        inverse = whitener[position].double().numpy().T @ whitener[position].double().numpy()
        np.testing.assert_allclose(inverse, np.linalg.inv(covariance), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(mean[position], x[:, position].mean(axis=0), rtol=1e-5, atol=1e-6)


def test_positions_are_worked_off_in_chunks_without_a_seam() -> None:
    pictures = torch.randn(6, 150, 4, generator=torch.Generator().manual_seed(0))
    mean, whitener = gaussians.gaussians(pictures)
    turned_mean, turned = gaussians.gaussians(pictures.flip(1))
    torch.testing.assert_close(mean, turned_mean.flip(0))
    torch.testing.assert_close(whitener, turned.flip(0))


def test_the_intensity_is_near_ledoit_and_wolfs_and_falls_with_the_number_of_pictures() -> None:
    rng = torch.Generator().manual_seed(0)
    mixing = torch.randn(30, 30, generator=rng)
    found, theirs = [], []
    for count in (2, 8, 40, 200):
        pictures = torch.randn(count, 10, 30, generator=rng) @ mixing
        found.append(gaussians.common_intensity(pictures))
        theirs.append(np.mean([ledoit_wolf_shrinkage(pictures[:, p].double().numpy()) for p in range(10)]))
    assert found[1:] == sorted(found[1:], reverse=True)
    assert found[2:] == pytest.approx(theirs[2:], rel=0.1)
    assert (found[0], theirs[0]) == (pytest.approx(2 / 3, abs=0.02), pytest.approx(0))  # why it is not theirs


def naive_oas(x: NDArray[np.float64]) -> float:
    """Chen et al. 2010, eq. 23: n pictures, p channels."""
    n, p = x.shape
    s = np.cov(x.T, bias=True)
    numerator = (1 - 2 / p) * np.trace(s @ s) + np.trace(s) ** 2
    return float(min(1, numerator / ((n + 1 - 2 / p) * (np.trace(s @ s) - np.trace(s) ** 2 / p))))


def test_a_position_where_no_good_picture_differs_is_no_more_alert_than_the_others() -> None:
    spread = torch.tensor([0.0, 1.0])[:, None]  # a black background, and the part
    pictures = torch.randn(25, 2, 12, generator=torch.Generator().manual_seed(0)) * spread + 0.1
    _, whitener = gaussians.gaussians(pictures)
    assert gaussians.common_intensity(pictures) == gaussians.common_intensity(pictures[:, 1:])
    background, part = torch.linalg.vector_norm(whitener @ torch.full((12,), 0.01), dim=1).tolist()
    assert background < 2 * part


def test_channels_are_drawn_for_positions_and_all_kept_for_a_pooled_gaussian() -> None:
    pictures = torch.randn(30, 1, 12, generator=torch.Generator().manual_seed(0))
    args = fit_mahalanobis.Args(data=Path(), category="", out=Path(), max_channels=5)
    for pooling, count in (("position", 5), ("global", 12)):
        config = MahalanobisConfig(trunk=TRUNK, use_layers=(2,), input_size=(64, 64), pooling=pooling)
        detector = fit_mahalanobis.fit(config, tiny_trunk(), [iter(pictures)], args)
        assert isinstance(detector, Mahalanobis)
        chosen = detector.channels.tolist()
        assert chosen == sorted(set(chosen))
        assert (len(chosen), detector.mean.shape, detector.whitener.shape) == (count, (1, count), (1, count, count))
        torch.testing.assert_close(detector.mean, pictures[:, :, chosen].mean(dim=0))


def test_several_categories_are_fitted_each_alone_on_the_same_channels() -> None:
    rng = torch.Generator().manual_seed(0)
    wide, narrow = 3 * torch.randn(20, 4, 12, generator=rng), torch.randn(9, 4, 12, generator=rng) + 5
    config = MahalanobisConfig(trunk=TRUNK, use_layers=(2,), input_size=(64, 64), categories=("wide", "narrow"))
    args = fit_mahalanobis.Args(data=Path(), category="", out=Path(), max_channels=5)
    detector = fit_mahalanobis.fit(config, tiny_trunk(), [iter(wide), iter(narrow)], args)
    for index, pictures in enumerate((wide, narrow)):
        mean, whitener = gaussians.gaussians(pictures[:, :, detector.channels])
        assert torch.equal(detector.mean[index], mean)
        assert torch.equal(detector.whitener[index], whitener)


def test_whitened_patches_have_shrunk_variances_in_uncorrelated_directions() -> None:
    rng = torch.Generator().manual_seed(0)
    scales = torch.tensor([5.0, 2.0, 1.0, 0.01])  # the last: less than 1 % of all variance
    basis = torch.linalg.qr(torch.randn(4, 4, generator=rng)).Q
    points = torch.randn(2000, 4, generator=rng) * scales @ basis.T + 7
    center, whitener = coreset.whitening(points)
    assert whitener.shape == (4, 3)
    behind = ((points - center) @ whitener).double().numpy()
    variances = np.linalg.eigvalsh(np.cov(points.double().numpy().T, bias=True))[::-1][:3]
    expected = variances / (0.93 * variances + 0.07 * variances.mean())
    np.testing.assert_allclose(np.cov(behind.T, bias=True), np.diag(expected), atol=1e-4)
    np.testing.assert_allclose(behind.mean(axis=0), 0, atol=1e-4)


def test_patches_that_are_all_the_same_are_whitened_to_something_finite() -> None:
    center, whitener = coreset.whitening(torch.ones(50, 4))
    assert torch.equal(center, torch.ones(4))
    assert whitener.isfinite().all()


def test_features_beyond_the_limit_are_thinned_evenly() -> None:
    tensors = [torch.full((10,), float(i)) for i in range(100)]
    assert gaussians.thinned(iter(tensors), 1000)[:, 0].tolist() == list(range(100))
    assert gaussians.thinned(iter(tensors), 999)[:, 0].tolist() == list(range(0, 100, 2))
    few = gaussians.thinned(iter(tensors), 130)[:, 0]
    assert 6 < len(few) <= 13
    assert len(set(few.diff().tolist())) == 1
    assert len(gaussians.thinned(iter(tensors), 1)) == 2  # a Gaussian needs two
