"""Which pictures of two splits count as the same, and which are left out for it."""

import io
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from anomaly.datasets import Sample, Split, read_dataset
from anomaly.errors import ImageError
from training.near_duplicates import MAX_DISTANCE, Pair, droppable, hashes, near_duplicates
from training.synthetic_cable import render

SIZE = 128
Change = Callable[[Image.Image], Image.Image]


def part(seed: int, defect: str | None = None) -> Image.Image:
    return Image.fromarray(render(defect, seed=seed, size=SIZE)[0])


def sample(folder: Path, name: str, picture: Image.Image, split: Split = "train") -> Sample:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
    return Sample(path, name, "good", split, None)


def pairs_of(folder: Path, train: dict[str, Image.Image], test: dict[str, Image.Image]) -> tuple[Pair, ...]:
    samples = [sample(folder, name, picture) for name, picture in train.items()]
    samples += [sample(folder, name, picture, "test") for name, picture in test.items()]
    return near_duplicates(hashes(samples), {s.relative: s.split for s in samples})


def jpeg(picture: Image.Image) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=40)
    return Image.open(file)


def noisy(picture: Image.Image) -> Image.Image:
    pixels = np.asarray(picture) + np.random.default_rng(0).normal(0, 5, (SIZE, SIZE, 3))
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


SAME: dict[str, Change] = {
    "itself": lambda picture: picture,
    "jpeg at quality 40": jpeg,
    "half the size": lambda picture: picture.resize((SIZE // 2, SIZE // 2)),
    "10 % brighter": lambda picture: ImageEnhance.Brightness(picture).enhance(1.1),
    "noise": noisy,
    "blur": lambda picture: picture.filter(ImageFilter.GaussianBlur(1)),
    "grey": lambda picture: picture.convert("L"),
}


@pytest.mark.parametrize("change", SAME.values(), ids=SAME)
def test_a_copy_is_found_however_it_was_encoded(tmp_path: Path, change: Change) -> None:
    (pair,) = pairs_of(tmp_path, {"a.png": part(1)}, {"b.png": change(part(1)), "c.png": part(2)})
    assert (pair.path, pair.other, pair.splits, pair.turned) == ("a.png", "b.png", ("train", "test"), None)
    assert pair.distance <= MAX_DISTANCE


@pytest.mark.parametrize("turn", Image.Transpose, ids=lambda turn: turn.name.lower())
def test_a_mirrored_or_turned_copy_is_found_and_the_turn_is_named(tmp_path: Path, turn: Image.Transpose) -> None:
    (pair,) = pairs_of(tmp_path, {"a.png": part(1)}, {"b.png": jpeg(part(1).transpose(turn))})
    assert pair.turned == turn.name.lower()


def test_parts_of_one_type_that_differ_are_not_near_duplicates(tmp_path: Path) -> None:
    parts = {f"{seed}.png": part(seed) for seed in range(24)}
    assert pairs_of(tmp_path, dict(list(parts.items())[:12]), dict(list(parts.items())[12:])) == ()


def test_a_copy_with_a_small_defect_counts_as_the_same_picture(tmp_path: Path) -> None:
    (pair,) = pairs_of(tmp_path, {"good.png": part(1)}, {"poked.png": part(1, "poke_insulation")})
    assert pair.distance <= MAX_DISTANCE


def test_a_picture_is_hashed_as_detectors_see_it(tmp_path: Path) -> None:
    upright = sample(tmp_path, "a.png", part(1))
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side
    path = tmp_path / "b.jpg"
    part(1).transpose(Image.Transpose.ROTATE_90).save(path, quality=95, exif=exif)
    found = hashes([upright, Sample(path, "b.jpg", "good", "test", None)])
    (pair,) = near_duplicates(found, {"a.png": "train", "b.jpg": "test"})
    assert pair.turned is None


def test_a_picture_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    broken = sample(tmp_path, "broken.png", part(1))
    broken.path.write_bytes(broken.path.read_bytes()[:300])
    with pytest.raises(ImageError, match=r"broken\.png"):
        hashes([broken])


# --- Which pairs ----------------------------------------------------------------------------------------------------


def bits(*differing: int) -> np.ndarray:
    """An upright hash with these bits flipped; far away in every other orientation."""
    rows = np.random.default_rng(0).integers(0, 2, (8, 256), dtype=np.uint8)
    rows[0, list(differing)] ^= 1
    return np.packbits(rows, axis=1)


def test_pairs_within_a_split_are_no_leak() -> None:
    found = {"a": bits(), "b": bits(), "c": bits()}
    pairs = near_duplicates(found, {"a": "train", "b": "train", "c": "validate"})
    assert [(pair.path, pair.other) for pair in pairs] == [("a", "c"), ("b", "c")]


def test_a_picture_in_no_split_is_left_out() -> None:
    assert near_duplicates({"a": bits(), "b": bits()}, {"a": "train"}) == ()
    assert near_duplicates({}, {}) == ()


@pytest.mark.parametrize(("limit", "expected"), [(4, 0), (5, 1), (6, 1)])
def test_the_distance_is_the_bits_that_differ_and_the_limit_belongs_to_it(limit: int, expected: int) -> None:
    pairs = near_duplicates({"a": bits(), "b": bits(0, 7, 8, 100, 255)}, {"a": "train", "b": "test"}, limit)
    assert [pair.distance for pair in pairs] == [5] * expected


def test_the_closest_pair_comes_first_and_the_test_picture_is_the_other() -> None:
    found = {"z": bits(), "y": bits(1), "x": bits(1, 2, 3)}
    pairs = near_duplicates(found, {"z": "test", "y": "train", "x": "calibrate"})
    assert [(pair.path, pair.other, pair.distance, pair.splits) for pair in pairs] == [
        ("y", "z", 1, ("train", "test")),
        ("y", "x", 2, ("train", "calibrate")),
        ("x", "z", 3, ("calibrate", "test")),
    ]


def test_the_result_is_what_comparing_one_by_one_gives() -> None:
    generator = np.random.default_rng(0)
    base = generator.integers(0, 2, (5, 8, 256), dtype=np.uint8)
    found, names = {}, [f"{number:03d}" for number in range(330)]  # of train more than one block
    for number, name in enumerate(names):
        flips = generator.random((8, 256)) < 0.03
        found[name] = np.packbits(base[number % 5] ^ flips, axis=1)
    split_of = {name: "test" if number >= 300 else "train" for number, name in enumerate(names)}
    expected = set()
    for a in names[:300]:
        for b in names[300:]:
            distance = min(int(np.unpackbits(row ^ found[b][0]).sum()) for row in found[a])
            if distance <= MAX_DISTANCE:
                expected.add((a, b, distance))
    assert expected
    assert {(pair.path, pair.other, pair.distance) for pair in near_duplicates(found, split_of)} == expected


def test_thousands_against_thousands_take_seconds() -> None:
    generator = np.random.default_rng(0)
    found = {f"{number:05d}": generator.integers(0, 256, (8, 32), dtype=np.uint8) for number in range(6000)}
    start = time.perf_counter()
    assert near_duplicates(found, {name: "test" if name >= "03000" else "train" for name in found}) == ()
    assert time.perf_counter() - start < 30  # about 1.2 s on an idle core


# --- What is dropped ------------------------------------------------------------------------------------------------


def test_a_test_picture_is_never_dropped_and_no_pair_is_left() -> None:
    generator = np.random.default_rng(1)
    order = ("train", "validate", "calibrate", "test")
    found = {str(number): bits(*generator.choice(256, 5, replace=False)) for number in range(60)}
    split_of = {name: order[int(name) % 4] for name in found}
    dropped = droppable(near_duplicates(found, split_of))
    left = {name: split for name, split in split_of.items() if name not in dropped}
    assert near_duplicates(found, left) == ()
    assert [name for name in left if split_of[name] == "test"] == [name for name in found if split_of[name] == "test"]


def test_what_resembles_only_dropped_pictures_is_kept() -> None:
    found = {"t": bits(1, 2, 3), "c": bits(), "test": bits(4, 5, 6)}
    pairs = near_duplicates(found, {"t": "train", "c": "calibrate", "test": "test"}, 4)
    assert [(pair.path, pair.other) for pair in pairs] == [("c", "test"), ("t", "c")]
    assert droppable(pairs) == {"c"}


def test_different_transistors_are_no_near_duplicates() -> None:
    data = Path(os.environ.get("VIGIE_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (data / "mvtec_transistor").is_dir():
        pytest.skip(f"no real pictures in {data}; set VIGIE_DATA")
    dataset = read_dataset(data / "mvtec_transistor", "transistor")
    assert near_duplicates(hashes(dataset.samples), {s.relative: s.split for s in dataset.samples}) == ()
