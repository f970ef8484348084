"""Augmentation: what each transform may do to a picture and its mask, which ones a category allows, and how often."""

from statistics import fmean

import pytest
import torch
from torch import Tensor
from torchvision import tv_tensors

from anomaly.errors import DataError
from training.augment import (
    GEOMETRIC,
    PHOTOMETRIC,
    SAFE_ANYWHERE,
    TRANSFORMS,
    UNSAFE,
    augmentation,
    safe_transforms,
    target,
)

HEIGHT, WIDTH = 96, 128


def blob() -> Tensor:
    """A white ellipse and a white square on black, no two of its eight symmetries alike: (3, H, W)."""
    y, x = torch.meshgrid(torch.arange(HEIGHT) / HEIGHT, torch.arange(WIDTH) / WIDTH, indexing="ij")
    white = (((x - 0.4) / 0.2) ** 2 + ((y - 0.55) / 0.12) ** 2 < 1) | ((x - 0.62).abs() + (y - 0.3).abs() < 0.1)
    return white.float().expand(3, -1, -1).clone()


def photo(seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    coarse = torch.rand(1, 3, 12, 16)
    return torch.nn.functional.interpolate(coarse, (HEIGHT, WIDTH), mode="bilinear")[0] * 0.6 + 0.2


# --- what a transform does -------------------------------------------------------------------------------------------


def test_there_are_twelve_transforms() -> None:
    assert len(set(TRANSFORMS)) == 12


@pytest.mark.parametrize("names", [*[(name,) for name in GEOMETRIC], GEOMETRIC], ids=str)
@pytest.mark.parametrize("seed", range(4))
def test_the_mask_follows_the_geometry_of_its_picture(names: tuple[str, ...], seed: int) -> None:
    image = blob()
    mask = tv_tensors.Mask(image[:1].to(torch.uint8))
    torch.manual_seed(seed)
    moved, with_it = augmentation(names, 1.0)(image, mask)
    assert isinstance(with_it, tv_tensors.Mask)
    assert (with_it.dtype, with_it.shape, moved.shape) == (torch.uint8, mask.shape, image.shape)
    assert not torch.equal(with_it, mask)  # it did move
    drawn, marked = moved[0] > 0.5, with_it[0].bool()
    assert (drawn & marked).sum() > 0.97 * (drawn | marked).sum()  # apart from roundings along the edge


@pytest.mark.parametrize("name", PHOTOMETRIC)
def test_light_and_focus_leave_the_mask_alone_and_the_picture_in_range(name: str) -> None:
    image, mask = photo(), tv_tensors.Mask(blob()[:1].to(torch.uint8))
    changed, same = augmentation([name], 1.0)(image, mask)
    assert torch.equal(same, mask)
    assert not torch.equal(changed, image)
    assert changed.dtype == torch.float32
    assert 0 <= changed.min() <= changed.max() <= 1


def test_flips_only_mirror() -> None:
    image = photo()
    mirrored = {"sideways": image.flip(2), "upside down": image.flip(1), "both": image.flip(1, 2)}
    seen = set()
    for seed in range(20):
        torch.manual_seed(seed)
        found = augmentation(["flips"], 1.0)(image)
        seen |= {name for name, expected in mirrored.items() if torch.allclose(found, expected, atol=1e-5)}
    assert seen == set(mirrored)


def test_a_turned_part_is_not_sheared_in_a_picture_that_is_not_square() -> None:
    y, x = torch.meshgrid(torch.arange(HEIGHT) - HEIGHT / 2, torch.arange(WIDTH) - WIDTH / 2, indexing="ij")
    disc = ((x + 0.5) ** 2 + (y + 0.5) ** 2 < 30**2).float().expand(3, -1, -1)
    torch.manual_seed(1)
    turned = augmentation(["rotation"], 1.0)(disc)
    assert (turned - disc).abs().mean() < 0.01


def test_no_black_comes_in_from_beyond_the_edge() -> None:
    bright = photo() * 0.2 + 0.8
    for seed in range(20):
        torch.manual_seed(seed)
        assert augmentation(GEOMETRIC, 1.0)(bright).min() > 0.79


def test_none_of_the_transforms_left_out_is_applied() -> None:
    image = photo()
    for seed in range(10):
        torch.manual_seed(seed)
        moved = augmentation(["translation"], 1.0)(image)
        shifted = [  # in whole pixels; the rest of the shift is an interpolation
            torch.roll(image, (dy, dx), (1, 2))[:, 15:-15, 15:-15] for dy in range(-10, 11) for dx in range(-13, 14)
        ]
        assert min((moved[:, 15:-15, 15:-15] - other).abs().max() for other in shifted) < 0.05
    assert torch.equal(augmentation((), 1.0)(image), image)
    assert torch.equal(augmentation(TRANSFORMS, 0.0)(image), image)


@pytest.mark.parametrize("probability", [0.3, 0.9])
def test_a_transform_is_applied_as_often_as_its_probability_says(probability: float) -> None:
    torch.manual_seed(0)
    image = torch.rand(3, 8, 8)
    for names in (["translation"], ["brightness"]):
        change = augmentation(names, probability)
        applied = sum(not torch.equal(change(image), image) for _ in range(400))
        assert abs(applied / 400 - probability) < 0.08  # more than three standard deviations


def test_the_global_seed_decides() -> None:
    change = augmentation(TRANSFORMS, 0.6)
    results = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        results.append(change(photo_of_no_seed()))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def photo_of_no_seed() -> Tensor:
    return torch.linspace(0, 1, 3 * 24 * 24).view(3, 24, 24)


# --- which, and how often --------------------------------------------------------------------------------------------


def test_a_category_has_its_own_safe_transforms_and_an_unknown_one_the_careful_ones() -> None:
    assert safe_transforms(None, ["cable"]) == tuple(name for name in TRANSFORMS if name != "flips")
    assert safe_transforms(None, ["Cable"]) == safe_transforms(None, ["cable"])
    assert safe_transforms(None, ["gearbox"]) == tuple(name for name in TRANSFORMS if name in SAFE_ANYWHERE)
    assert not {"flips", "rotation", "blur", "saturation"} & set(SAFE_ANYWHERE)
    both = safe_transforms(None, ["cable", "transistor"])
    assert set(both) == set(safe_transforms(None, ["cable"])) & set(safe_transforms(None, ["transistor"]))


def test_the_table_names_transforms_that_exist() -> None:
    assert {name for unsafe in UNSAFE.values() for name in unsafe} < set(TRANSFORMS)
    assert set(SAFE_ANYWHERE) < set(TRANSFORMS)


def test_what_is_asked_for_is_taken_and_a_name_that_is_none_is_refused() -> None:
    assert safe_transforms(["blur", "flips"], ["cable"]) == ("flips", "blur")
    assert safe_transforms(["all"], ["cable"]) == TRANSFORMS
    assert safe_transforms(["none"], ["bottle"]) == ()
    with pytest.raises(DataError, match=r"unknown transform 'spin'; expected all, none or some of \['rotation'"):
        safe_transforms(["flips", "spin"], ["cable"])


def test_the_rarer_a_type_the_more_it_is_changed_and_repeated() -> None:
    counts = {"good": 100, "bent": 50, "cut": 49, "poked": 20, "swapped": 9, "missing": 1}
    targeting = target(counts, (0.3, 0.6, 0.9), 4)
    types = {"bent": 0.3, "cut": 0.3, "poked": 0.6, "swapped": 0.9, "missing": 0.9}
    assert targeting.probability == types | {"good": targeting.probability["good"]}
    assert targeting.repeats == {"good": 1, "bent": 1, "cut": 2, "poked": 3, "swapped": 4, "missing": 4}
    assert set(target(counts, (0.3, 0.6, 0.9), 1).repeats.values()) == {1}
    assert target(counts, (0.3, 0.6, 0.9), 10).repeats["swapped"] == 6  # ceil(50 / 9)


def test_how_much_a_picture_was_changed_does_not_tell_whether_it_is_good() -> None:
    counts = {"good": 100, "bent": 50, "cut": 49, "poked": 20, "swapped": 9, "missing": 1}
    targeting = target(counts, (0.3, 0.6, 0.9), 4)
    changes = [targeting.probability[k] for k, n in counts.items() for _ in range(n * targeting.repeats[k])]
    assert targeting.probability["good"] == pytest.approx(fmean(changes[100:]))
    even = target({"good": 600, "bent": 150, "cut": 150}, (0.3, 0.6, 0.9), 4)
    assert even.probability == {"good": 0.3, "bent": 0.3, "cut": 0.3}  # 300 would be their share of the good
    assert even.repeats == {"good": 1, "bent": 2, "cut": 2}
    assert target({"good": 600, "bent": 20}, (0.3, 0.6, 0.9), 4).repeats == {"good": 1, "bent": 4}
    assert target({"good": 5}, (0.3, 0.6, 0.9), 4).probability == {"good": 0.3}


@pytest.mark.parametrize("strength", [(0.3, 0.6), (0.3, 0.6, 1.1), (-0.1, 0.6, 0.9)])
def test_strengths_are_three_probabilities(strength: tuple[float, ...]) -> None:
    with pytest.raises(DataError, match="strength must be three probabilities"):
        target({"good": 2}, strength, 4)
