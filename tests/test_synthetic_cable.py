"""The drawn cables: same seed, same picture; the mask is where the defect changed it; the folders are MVTec AD's."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from anomaly.errors import DataError
from training import synthetic_cable
from training.cable_part import Conductor, Part, make_part, spoil
from training.cable_picture import Scene, axes, expose, make_scene
from training.synthetic_cable import DEFECTS, render, write_dataset

SEEDS = range(3)


def test_a_good_part_is_rgb_bytes_with_an_empty_mask() -> None:
    image, mask = render(None, seed=0, size=128)
    assert (image.shape, image.dtype) == ((128, 128, 3), np.uint8)
    assert (mask.shape, mask.dtype) == ((128, 128), np.uint8)
    assert not mask.any()


@pytest.mark.parametrize("defect", [None, *DEFECTS])
def test_the_same_seed_gives_the_same_picture_and_another_seed_another(defect: str | None) -> None:
    image, mask = render(defect, seed=3, size=96)
    again, mask_again = render(defect, seed=3, size=96)
    other, _ = render(defect, seed=4, size=96)
    assert np.array_equal(image, again)
    assert np.array_equal(mask, mask_again)
    assert (image != other).mean() > 0.5


@pytest.mark.parametrize("defect", DEFECTS)
@pytest.mark.parametrize("seed", SEEDS)
def test_outside_the_mask_nothing_differs_from_the_good_twin_and_inside_nearly_all_does(defect: str, seed: int) -> None:
    good, _ = render(None, seed=seed)
    image, mask = render(defect, seed=seed)
    assert set(np.unique(mask)) == {0, 255}
    differs = (image != good).any(axis=2)
    assert not differs[mask == 0].any()
    assert differs[mask > 0].mean() > 0.95  # the rest are closed pinholes


@pytest.mark.parametrize("defect", DEFECTS)
@pytest.mark.parametrize("seed", SEEDS)
def test_the_mask_hides_no_change_worth_seeing(defect: str, seed: int) -> None:
    part, scene = parts(seed, 256)
    rng = np.random.default_rng((seed, 2, DEFECTS.index(defect)))
    spoiled = expose(spoil(part, defect, rng), scene)
    change = np.abs(spoiled - expose(part, scene)).max(axis=2)
    _, mask = render(defect, seed=seed)
    assert change[mask == 0].sum() < 0.02 * change.sum()
    assert change[mask == 0].max() < 0.25 * change.max()


@pytest.mark.parametrize(("defect", "discs"), [("missing_cable", 1), ("cable_swap", 2)])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_whole_conductor_is_masked_as_its_disc(defect: str, discs: int, seed: int) -> None:
    _, mask = render(defect, seed=seed)
    part, _ = parts(seed, 256)
    shares = [(mask[disc(conductor, 256)] > 0).mean() for conductor in part.conductors]
    masked = [i for i, share in enumerate(shares) if share > 0.5]
    assert len(masked) == discs
    expected = np.logical_or.reduce([disc(part.conductors[i], 256) for i in masked])
    assert ((mask > 0) & expected).sum() / ((mask > 0) | expected).sum() > 0.93


@pytest.mark.parametrize("seed", SEEDS)
def test_missing_wires_are_masked_inside_one_core(seed: int) -> None:
    _, mask = render("missing_wire", seed=seed)
    part, _ = parts(seed, 256)
    hit = [((mask > 0) & disc(conductor, 256, conductor.core)).sum() for conductor in part.conductors]
    assert sorted(hit) == [0, 0, (mask > 0).sum()]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_cut_in_the_sheath_spares_the_conductors(seed: int) -> None:
    _, mask = render("cut_outer_insulation", seed=seed)
    part, _ = parts(seed, 256)
    for conductor in part.conductors:
        assert not mask[disc(conductor, 256, 0.95 * conductor.outline.radius)].any()


def test_combined_has_more_than_one_kind_of_defect() -> None:
    for seed in range(20):
        part, _ = parts(seed, 64)
        spoiled = spoil(part, "combined", np.random.default_rng((seed, 2, DEFECTS.index("combined"))))
        changed = sum(
            after is not before for after, before in zip(spoiled.conductors, part.conductors, strict=True)
        ) + len(spoiled.marks)
        assert changed >= 2


def test_every_defect_still_has_a_mask_in_a_small_picture() -> None:
    assert all(render(defect, seed=seed, size=64)[1].any() for defect in DEFECTS for seed in range(8))


def test_good_parts_vary_in_place_and_in_light() -> None:
    images = np.stack([render(None, seed=seed, size=64)[0] for seed in range(12)]).astype(float)
    assert images.mean(axis=(1, 2, 3)).std() > 3
    assert np.median(images.std(axis=0)) > 12


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"defect": "rust", "seed": 0}, "unknown defect 'rust'"),
        ({"defect": None, "seed": -1}, "seed -1"),
        ({"defect": None, "seed": 0, "size": 16}, "size 16"),
    ],
)
def test_what_cannot_be_drawn_is_refused_with_its_value(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(DataError, match=words):
        render(**arguments)  # type: ignore[arg-type]


def test_the_folders_are_those_of_mvtec_ad(tmp_path: Path) -> None:
    write_dataset(tmp_path, train_good=2, test_good=1, test_per_defect=1, size=64)
    expected = {"train/good/000.png", "train/good/001.png", "test/good/000.png"}
    expected |= {f"test/{defect}/000.png" for defect in DEFECTS}
    expected |= {f"ground_truth/{defect}/000_mask.png" for defect in DEFECTS}
    assert files(tmp_path) == expected
    with Image.open(tmp_path / "cable/ground_truth/combined/000_mask.png") as mask:
        assert (mask.mode, mask.size) == ("L", (64, 64))


def test_labelled_training_defects_keep_their_masks_apart(tmp_path: Path) -> None:
    write_dataset(tmp_path, train_good=0, test_good=0, test_per_defect=0, train_per_defect=1, size=64)
    expected = {f"train/{defect}/000.png" for defect in DEFECTS}
    expected |= {f"ground_truth_train/{defect}/000_mask.png" for defect in DEFECTS}
    assert files(tmp_path) == expected


def test_growing_one_class_leaves_every_other_image_byte_for_byte(tmp_path: Path) -> None:
    write_dataset(tmp_path / "a", train_good=1, test_good=1, test_per_defect=1, size=64, seed=5)
    write_dataset(tmp_path / "b", train_good=3, test_good=1, test_per_defect=1, size=64, seed=5)
    assert len(files(tmp_path / "b") - files(tmp_path / "a")) == 2
    for name in files(tmp_path / "a"):
        assert (tmp_path / "a/cable" / name).read_bytes() == (tmp_path / "b/cable" / name).read_bytes(), name


def test_no_two_images_of_a_set_are_alike(tmp_path: Path) -> None:
    write_dataset(tmp_path, train_good=3, test_good=3, test_per_defect=2, train_per_defect=2, size=64)
    images = [path.read_bytes() for path in tmp_path.glob("cable/t*/*/*.png")]
    assert len(images) == len(set(images)) == 6 + 4 * len(DEFECTS)


def test_a_negative_count_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="-2"):
        write_dataset(tmp_path, train_good=1, test_good=-2, test_per_defect=0)
    assert not (tmp_path / "cable").exists()


def test_the_command_says_what_it_wrote_and_refuses_to_write_over_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = f"--out {tmp_path} --train-good 1 --test-good 1 --test-per-defect 1 --size 64".split()
    assert synthetic_cable.main(command) == 0
    assert capsys.readouterr().out == f"wrote 2 good and 8 defective images to {tmp_path / 'cable'}\n"
    assert synthetic_cable.main(command) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"{tmp_path / 'cable'} is not an empty folder; delete it or choose another --out\n"


def test_a_thumbnail_gaussian_cannot_tell_defects_from_good_parts() -> None:
    from sklearn.metrics import roc_auc_score

    fitted = np.stack([thumbnail(None, seed) for seed in range(60)])
    mean, spread = fitted.mean(axis=0), fitted.std(axis=0) + 2
    pictures = [(None, 1000 + i) for i in range(24)] + [(d, 2000 + i) for i in range(3) for d in DEFECTS]
    scores = [float((((thumbnail(*picture) - mean) / spread) ** 2).mean()) for picture in pictures]
    assert roc_auc_score([defect is not None for defect, _ in pictures], scores) < 0.85


def thumbnail(defect: str | None, seed: int) -> NDArray[np.float64]:
    image = Image.fromarray(render(defect, seed=seed, size=128)[0]).convert("L")
    return np.asarray(image.filter(ImageFilter.BoxBlur(1)).resize((32, 32)), float)


def parts(seed: int, size: int) -> tuple[Part, Scene]:
    part = make_part(np.random.default_rng((seed, 0)))
    return part, make_scene(np.random.default_rng((seed, 1)), part, size)


def disc(conductor: Conductor, size: int, radius: float | None = None) -> NDArray[np.bool_]:
    x, y = axes(size)
    outline = conductor.outline
    return np.hypot(x - outline.x, y - outline.y) < (radius or outline.radius)


def files(out: Path) -> set[str]:
    return {path.relative_to(out / "cable").as_posix() for path in out.rglob("*.png")}
