"""What is fitted rather than trained: coresets, reservoirs and Gaussians against their definitions."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.covariance import ledoit_wolf_shrinkage
from tiny import TRUNK, tiny_trunk
from trained import manifest

from anomaly.calibration import read_calibration
from anomaly.detectors import Mahalanobis, MahalanobisConfig, PatchKNN
from anomaly.model_repo import load_detector
from training import fit_mahalanobis, fit_patch_knn
from training.pictures import load


@pytest.mark.parametrize("seed", range(3))
def test_k_center_takes_the_point_farthest_from_all_that_were_chosen(seed: int) -> None:
    points = torch.randn(120, 5, generator=torch.Generator().manual_seed(seed))
    chosen = fit_patch_knn.k_center(points, 30, torch.Generator().manual_seed(seed))
    exact = points.double().numpy()
    expected = [int(chosen[0])]
    while len(expected) < 30:
        to_chosen = np.linalg.norm(exact[:, None] - exact[expected][None], axis=-1)
        expected.append(int(to_chosen.min(axis=1).argmax()))
    assert chosen.tolist() == expected


def test_k_center_takes_every_point_once_where_all_are_asked_for() -> None:
    points = torch.randn(20, 3, generator=torch.Generator().manual_seed(0)).repeat(2, 1)  # each there twice
    chosen = fit_patch_knn.k_center(points, 40, torch.Generator().manual_seed(0))
    assert sorted(chosen.tolist()) == list(range(40))


def test_the_reservoir_is_an_even_sample_whatever_the_size_of_the_blocks() -> None:
    draws, size, count = 600, 10, 60
    hits = np.zeros(count)
    for seed in range(draws):
        rows = torch.arange(count, dtype=torch.float32)[:, None]
        blocks = rows.split([7, 3, 25, 1, 24])
        kept, seen = fit_patch_knn.reservoir(blocks, size, torch.Generator().manual_seed(seed))
        assert seen == count
        assert len(set(kept[:, 0].tolist())) == size
        hits[kept[:, 0].long().numpy()] += 1
    expected = draws * size / count
    chi_square = ((hits - expected) ** 2 / (expected * (1 - size / count))).sum()
    assert chi_square < 110  # 60 degrees of freedom: a fair sample exceeds it once in 10,000 times


def test_the_reservoir_keeps_all_of_a_stream_that_is_short_and_no_more_than_its_size_of_a_long_one() -> None:
    blocks = [torch.full((4, 2), float(i)) for i in range(3)]
    kept, seen = fit_patch_knn.reservoir(blocks, 100, torch.Generator())
    assert torch.equal(kept, torch.cat(blocks))
    assert seen == 12
    kept, seen = fit_patch_knn.reservoir((torch.zeros(500, 2) for _ in range(20)), 8, torch.Generator())
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


def test_the_gaussian_at_each_position_is_shrunk_towards_the_mean_variance_of_all_positions() -> None:
    spread = torch.tensor([0.01, 1.0, 3.0])[:, None]  # of three positions
    rng = torch.Generator().manual_seed(0)
    pictures = [torch.randn(3, 12, generator=rng) * spread + torch.arange(12) for _ in range(25)]
    config = MahalanobisConfig(trunk=TRUNK, use_layers=(2, 3), input_size=(64, 64))
    args = fit_mahalanobis.Args(data=Path(), category="", out=Path(), max_channels=5)
    detector = fit_mahalanobis.fit(config, tiny_trunk(), iter(pictures), args)

    assert detector.channels.tolist() == sorted(set(detector.channels.tolist()))
    assert len(detector.channels) == 5
    x = torch.stack(pictures)[:, :, detector.channels].double().numpy()  # (N, P, d)
    target = x.var(axis=0).mean()
    for position in range(3):
        centred = x[:, position] - x[:, position].mean(axis=0)
        share = ledoit_wolf_shrinkage(x[:, position])
        covariance = (1 - share) * centred.T @ centred / len(x) + share * target * np.eye(5)
        whitener = detector.whitener[position].double().numpy()
        np.testing.assert_allclose(whitener.T @ whitener, np.linalg.inv(covariance), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(detector.mean[position], x[:, position].mean(axis=0), rtol=1e-5, atol=1e-6)


def test_a_position_where_no_good_picture_differs_is_no_more_alert_than_the_others() -> None:
    spread = torch.tensor([0.0, 1.0])[:, None]  # a black background, and the part
    rng = torch.Generator().manual_seed(0)
    pictures = [torch.randn(2, 12, generator=rng) * spread + 0.1 for _ in range(25)]
    config = MahalanobisConfig(trunk=TRUNK, use_layers=(2, 3), input_size=(64, 64))
    args = fit_mahalanobis.Args(data=Path(), category="", out=Path())
    detector = fit_mahalanobis.fit(config, tiny_trunk(), pictures, args)
    background, part = torch.linalg.vector_norm(detector.whitener @ torch.full((12,), 0.01), dim=1).tolist()
    assert part / 2 < background < part * 2


def test_a_pooled_gaussian_keeps_every_channel() -> None:
    pictures = torch.randn(30, 1, 12, generator=torch.Generator().manual_seed(0))
    config = MahalanobisConfig(trunk=TRUNK, use_layers=(2,), input_size=(64, 64), pooling="global")
    args = fit_mahalanobis.Args(data=Path(), category="", out=Path(), pooling="global", max_channels=5)
    detector = fit_mahalanobis.fit(config, tiny_trunk(), pictures, args)
    assert isinstance(detector, Mahalanobis)
    assert detector.channels.tolist() == list(range(12))


def test_features_beyond_the_limit_are_thinned_evenly() -> None:
    tensors = [torch.full((10,), float(i)) for i in range(100)]
    assert fit_mahalanobis.thinned(iter(tensors), 1000)[:, 0].tolist() == list(range(100))
    assert fit_mahalanobis.thinned(iter(tensors), 999)[:, 0].tolist() == list(range(0, 100, 2))
    few = fit_mahalanobis.thinned(iter(tensors), 130)[:, 0]
    assert 6 < len(few) <= 13
    assert len(set(few.diff().tolist())) == 1
    assert len(fit_mahalanobis.thinned(iter(tensors), 1)) == 2  # a Gaussian needs two
