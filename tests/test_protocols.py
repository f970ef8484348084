"""Protocols: what the test is, folds, shots, several categories, repeats; and the threshold of heatmap pixels."""

import dataclasses
import json
import shutil
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from test_splits import boards, data, splits_of
from trained import knn_args, metrics

from anomaly.calibration import PixelThreshold, pixel_threshold
from anomaly.errors import CalibrationError, DataError
from training import fit_patch_knn, train_all
from training.arguments import DataArgs, run
from training.data import categories_of, data_figures, split_data, too_few_defects, with_near_duplicates
from training.manifest import Manifest, counts, verify_disjoint
from training.near_duplicates import Pair
from training.splits import make_manifest

# --- supervised ------------------------------------------------------------------------------------------------------


def test_supervised_merges_train_and_test_and_gives_every_label_60_20_20(tmp_path: Path) -> None:
    dataset = data(tmp_path, good=200, defects={"bent": 40, "cut": 50}, test=10)
    assert counts(make_manifest(dataset, protocol="supervised", far=0.1)) == {
        "train": {"good": 126, "bent": 30, "cut": 30},
        "validate": {"good": 17, "bent": 4, "cut": 4},
        "calibrate": {"good": 25, "bent": 6, "cut": 6},
        "test": {"good": 42, "bent": 10, "cut": 10},
    }


def test_supervised_needs_no_train_folder(tmp_path: Path) -> None:
    dataset = dataclasses.replace(data(tmp_path, good=60, defects={"bent": 20}, test=0), samples=())
    samples = data(tmp_path, good=60, defects={"bent": 20}, test=0).samples
    as_test = tuple(dataclasses.replace(sample, split="test") for sample in samples)
    manifest = make_manifest(dataclasses.replace(dataset, samples=as_test), protocol="supervised", far=0.1)
    assert splits_of(manifest, "bent") == {"train": 12, "validate": 2, "calibrate": 2, "test": 4}


@pytest.mark.parametrize("seed", range(5))
def test_a_group_is_on_one_side_whatever_the_protocol(tmp_path: Path, seed: int) -> None:
    dataset = boards(tmp_path, seed)
    for manifest in [
        make_manifest(dataset, seed, group_regex=r"(board\d+)_", far=0.1, protocol="supervised"),
        make_manifest(dataset, seed, group_regex=r"(board\d+)_", far=0.1, protocol="kfold", folds=4, fold=seed % 4),
    ]:
        verify_disjoint(manifest)
        assert len(manifest.entries) == len(dataset.samples)  # identical files stay together; none is dropped
        assert manifest.dropped == ()


def test_shares_that_leave_nothing_to_train_on_are_refused(tmp_path: Path) -> None:
    dataset = data(tmp_path)
    with pytest.raises(CalibrationError, match=r"test_share=0\.9 must be 0 or more and sum to less than 1"):
        make_manifest(dataset, protocol="supervised", test_share=0.9)


# --- kfold -----------------------------------------------------------------------------------------------------------


def test_every_picture_is_the_test_of_exactly_one_fold(tmp_path: Path) -> None:
    dataset = data(tmp_path, good=43, defects={"bent": 11, "cut": 3}, test=7)
    tested: Counter[str] = Counter()
    for fold in range(5):
        manifest = make_manifest(dataset, 3, far=0.1, protocol="kfold", folds=5, fold=fold)
        test = [entry for entry in manifest.entries if entry.split == "test"]
        tested.update(entry.path for entry in test)
        assert 8 <= sum(entry.label == "good" for entry in test) <= 12
    assert tested == Counter({sample.relative: 1 for sample in dataset.samples})


def test_a_fold_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="fold 5 of 5 folds does not exist"):
        make_manifest(data(tmp_path), protocol="kfold", folds=5, fold=5)


def test_other_protocols_and_folds_are_other_splits(tmp_path: Path) -> None:
    dataset = data(tmp_path, defects={"bent": 20})
    hashes = [
        make_manifest(dataset, far=0.1).split_hash,
        make_manifest(dataset, far=0.1, protocol="supervised").split_hash,
        *(make_manifest(dataset, far=0.1, protocol="kfold", folds=3, fold=fold).split_hash for fold in range(3)),
        make_manifest(dataset, far=0.1, shots=4).split_hash,
    ]
    assert len(set(hashes)) == len(hashes)


# --- shots -----------------------------------------------------------------------------------------------------------


def test_shots_limit_training_and_leave_calibration_and_test_alone(tmp_path: Path) -> None:
    dataset = data(tmp_path, defects={"bent": 20, "cut": 2})
    whole, few = make_manifest(dataset), make_manifest(dataset, shots=4)
    assert counts(few)["train"] == {"good": 4, "bent": 4, "cut": 2}
    assert counts(few)["validate"] == {}
    for split in ("calibrate", "test"):
        assert [e for e in few.entries if e.split == split] == [e for e in whole.entries if e.split == split]


def test_fewer_shots_are_among_more(tmp_path: Path) -> None:
    dataset = data(tmp_path)
    chosen = [
        {entry.path for entry in make_manifest(dataset, shots=shots).entries if entry.split == "train"}
        for shots in (1, 2, 4, 8, 16)
    ]
    assert [len(paths) for paths in chosen] == [1, 2, 4, 8, 16]
    assert all(few < more for few, more in pairwise(chosen))


# --- near-duplicates -------------------------------------------------------------------------------------------------


def alike(dataset_root: Path) -> tuple[Manifest, list[Pair]]:
    manifest = make_manifest(data(dataset_root, defects={"bent": 20}))
    train, test = (next(e for e in manifest.entries if e.split == split) for split in ("train", "test"))
    pair = Pair(path=train.path, other=test.path, distance=3, splits=("train", "test"), turned=None)
    return manifest, [pair]


def test_near_duplicates_are_written_down_and_change_nothing(tmp_path: Path) -> None:
    manifest, pairs = alike(tmp_path)
    noted = with_near_duplicates(manifest, pairs, drop=False)
    assert [(found.path, found.other, found.distance) for found in noted.near_duplicates] == [
        (pairs[0].path, pairs[0].other, 3)
    ]
    assert noted.entries == manifest.entries
    assert noted.split_hash == manifest.split_hash


def test_near_duplicates_of_test_pictures_can_be_left_out_of_training(tmp_path: Path) -> None:
    manifest, pairs = alike(tmp_path)
    left = with_near_duplicates(manifest, pairs, drop=True)
    assert {e.path for e in manifest.entries} - {e.path for e in left.entries} == {pairs[0].path}
    assert left.dropped[-1].reason == "near_duplicate"
    assert left.dropped[-1].same_as == pairs[0].other
    assert left.split_hash != manifest.split_hash


def test_dropping_all_that_there_is_to_train_on_is_refused(tmp_path: Path) -> None:
    manifest, _ = alike(tmp_path)
    test = next(e for e in manifest.entries if e.split == "test")
    bent = [e for e in manifest.entries if e.split == "train" and e.label == "bent"]
    pairs = [Pair(path=e.path, other=test.path, distance=0, splits=("train", "test"), turned=None) for e in bent]
    with pytest.raises(CalibrationError, match="every bent picture of train looks like one of another split"):
        with_near_duplicates(manifest, pairs, drop=True)


# --- several categories ----------------------------------------------------------------------------------------------


@pytest.fixture
def two(cables: Path, tmp_path: Path) -> Path:
    """Two categories below one root."""
    for name in ("cable", "wire"):
        shutil.copytree(cables / "cable", tmp_path / "two" / name)
    (tmp_path / "two" / "notes").mkdir()
    return tmp_path / "two"


def test_all_is_every_subfolder_with_pictures_to_train_on(two: Path, tmp_path: Path) -> None:
    assert categories_of(two) == ("cable", "wire")
    with pytest.raises(DataError, match="no category in it; --category all needs"):
        categories_of(two / "notes")


def test_a_defect_of_several_categories_is_named_after_its_category(two: Path, training_args: train_all.Args) -> None:
    args = DataArgs(data=two, category="all", out=two, seed=training_args.seed, far=training_args.far)
    split = split_data(args)
    assert split.categories == ("cable", "wire")
    assert split.labels[0] == "good"
    assert {label.split("/")[0] for label in split.labels[1:]} == {"cable", "wire"}
    assert len(split.samples("train", category="wire")) * 2 == len(split.samples("train"))
    assert all(sample.relative.startswith("wire/") for sample in split.samples("test", category="wire"))
    alone = split_data(dataclasses.replace(args, category="wire"))
    assert alone.manifest("wire").split_hash == split.manifest("wire").split_hash  # members of one inspector fit
    assert data_figures(split, "wire").counts == data_figures(alone).counts
    assert data_figures(split).counts["test"]["good"] == 2 * data_figures(alone).counts["test"]["good"]


def test_what_is_supervised_says_what_it_lacks(cables: Path, training_args: train_all.Args) -> None:
    args = DataArgs(data=cables, category="cable", out=cables, seed=training_args.seed, far=training_args.far)
    assert too_few_defects(split_data(args), cables) is None
    split = split_data(args)
    bare = dataclasses.replace(
        split,
        manifests=(
            split.manifests[0].model_copy(
                update={"entries": tuple(e for e in split.manifests[0].entries if e.label == "good")}
            ),
        ),
    )
    assert "0 to train on, 0 to calibrate" in str(too_few_defects(bare, cables))


# --- repeats ---------------------------------------------------------------------------------------------------------


def test_seeds_are_runs_of_their_own_and_their_spread_is_the_samples(
    training_args: train_all.Args, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = knn_args(training_args, tmp_path / "out")
    options = [f"--{key}={getattr(args, key)}" for key in ("category", "out", "far", "image_size", "coreset")]
    flags = [option.replace("_", "-") if "_" in option.split("=")[0] else option for option in options]
    code = run(
        fit_patch_knn.main,
        fit_patch_knn.Args,
        [*flags, f"--data={args.data}", f"--weights={args.weights}", "--seeds=2"],
    )
    assert code == 0
    found = json.loads((tmp_path / "out/repeats.json").read_text())
    assert found["runs"] == ["seed0", "seed1"]
    tests = [metrics(tmp_path / "out" / name).test for name in found["runs"]]
    aurocs = [test.image_auroc for test in tests if test]
    auroc = found["members"]["patch_knn"]["image_auroc"]
    assert auroc["runs"] == aurocs
    assert auroc["mean"] == pytest.approx(np.mean(aurocs))
    assert auroc["std"] == pytest.approx(np.std(aurocs, ddof=1))
    assert "(n = 2)" in capsys.readouterr().out
    assert metrics(tmp_path / "out/seed1").data.seed == 1


def test_without_a_fold_each_is_done_in_turn(training_args: train_all.Args, tmp_path: Path) -> None:
    args = knn_args(training_args, tmp_path / "out", protocol="kfold", folds=2, far=0.2)
    from training.seeds import is_repeated, repeat

    assert is_repeated(args)
    summary = repeat(fit_patch_knn.main, args)
    assert summary["runs"] == ["seed0-fold0", "seed0-fold1"]
    tested = [metrics(tmp_path / "out" / name).data.counts["test"] for name in summary["runs"]]
    assert sum(sum(part.values()) for part in tested) == sum(
        sum(part.values()) for part in metrics(tmp_path / "out/seed0-fold0").data.counts.values()
    )


def test_several_runs_are_not_pushed_under_one_name(
    training_args: train_all.Args, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [f"--data={training_args.data}", "--category=cable", f"--out={tmp_path}", "--seeds=2", "--push=org/name"]
    assert run(fit_patch_knn.main, fit_patch_knn.Args, flags) == 1
    assert "--push goes with one run" in capsys.readouterr().err


# --- pixel threshold -------------------------------------------------------------------------------------------------


def test_with_masks_the_pixel_threshold_has_the_best_dice() -> None:
    rng = np.random.default_rng(0)
    masks = rng.random(500) < 0.2
    pixels = (rng.normal(size=500) + 1.5 * masks).round(1).astype(np.float32)  # with ties
    found = pixel_threshold([9.0], pixels, masks, far=0.05, images=3)

    def dice(cut: float) -> float:
        said = pixels >= cut
        return float(2 * (said & masks).sum() / (said.sum() + masks.sum()))

    assert found.source == "dice"
    assert found.images == 3
    assert found.dice == pytest.approx(max(dice(float(cut)) for cut in np.unique(pixels)))
    assert dice(found.value) == pytest.approx(found.dice)


def test_without_masks_few_good_pictures_have_a_pixel_beyond_the_threshold() -> None:
    maxima = list(np.random.default_rng(1).normal(size=40))
    none = np.empty(0, np.float32), np.empty(0, np.bool_)
    found = pixel_threshold(maxima, *none, far=0.1, images=0)
    assert found == PixelThreshold(value=found.value, source="good", images=40)
    assert sum(maximum >= found.value for maximum in maxima) + 1 <= 0.1 * 41
    with pytest.raises(CalibrationError, match="needs 9 held-out good images, there are 5"):
        pixel_threshold(maxima[:5], *none, far=0.1, images=0)
