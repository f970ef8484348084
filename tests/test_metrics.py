"""What the metrics promise: exact areas from raw scores, checked by hand and against an independent implementation."""

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError
from sklearn.metrics import roc_auc_score

from anomaly.metrics import Confusion, au_pro, confusion, image_auroc, pixel_auroc

Pictures = tuple[list[NDArray[np.bool_]], list[NDArray[np.float32]]]


def scene(seed: int = 0, size: int = 64) -> Pictures:
    """Six maps of noise, four of them with two defects of unlike size and strength, two of good parts."""
    rng = np.random.default_rng(seed)
    masks, maps = [], []
    for i in range(6):
        mask = np.zeros((size, size), dtype=bool)
        heatmap = rng.normal(size=(size, size))
        if i < 4:
            mask[5 : 15 + i, 5:20] = mask[40:44, 30 : 34 + 3 * i] = True
            heatmap[5 : 15 + i, 5:20] += 1.5
            heatmap[40:44, 30 : 34 + 3 * i] += 0.5
        masks.append(mask)
        maps.append(heatmap.astype(np.float32))
    return masks, maps


def row(*scores: float) -> NDArray[np.float32]:
    return np.array([scores], dtype=np.float32)


def truth(text: str) -> NDArray[np.bool_]:
    """`#` is defect: `truth("#..")` is one row of three pixels; `/` starts the next row."""
    return np.array([[c == "#" for c in line] for line in text.split("/")])


# --- AU-PRO ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [0.3, 0.05, 1.0])
def test_au_pro_agrees_with_an_independent_implementation(limit: float) -> None:
    from adeval.au_pro import calculate_au_pro

    masks, maps = scene()
    n_good = sum(int((~mask).sum()) for mask in masks)
    expected, _ = calculate_au_pro(masks, maps, integration_limit=limit, num_thresholds=n_good)  # every threshold
    assert au_pro(masks, maps, limit) == pytest.approx(expected, abs=1e-3)
    assert 0.1 < expected < 0.95  # neither end of the scale, where any two implementations agree


def test_au_pro_of_a_case_worked_by_hand() -> None:
    # One picture `##.#......`: components A (2 pixels) and B (1 pixel), 7 good pixels; a good picture adds 3: 10 good.
    # Score downwards    9: A        -> FPR 0,   PRO (1/2 + 0)/2 = 1/4
    #                    8: good     -> FPR .1,  PRO 1/4
    #                    7: B        -> FPR .1,  PRO (1/2 + 1)/2 = 3/4
    #                    6: good     -> FPR .2,  PRO 3/4          (the good picture's pixel)
    #                    5: A, good  -> FPR .3,  PRO 1            (a tie: one slanted step from 3/4 to 1)
    # Area to .3: .1 * 1/4 + .1 * 3/4 + .1 * (3/4 + 1)/2 = .1875; over .3 = .625
    masks = [truth("##.#......"), truth("...")]
    maps = [row(9, 5, 8, 7, 5, 0, 0, 0, 0, 0), row(6, 0, 0)]
    assert au_pro(masks, maps, limit=0.3) == pytest.approx(0.625, abs=1e-12)
    # Interpolated at .25, half way up the slanted step, PRO = 7/8: .025 + .075 + .05 * (3/4 + 7/8)/2 = .140625; / .25
    assert au_pro(masks, maps, limit=0.25) == pytest.approx(0.5625, abs=1e-12)
    # To 1: .1875 + .7 * 1
    assert au_pro(masks, maps, limit=1.0) == pytest.approx(0.8875, abs=1e-12)


@pytest.mark.parametrize("transform", [np.exp, lambda x: x**3, lambda x: 1e6 * x - 5], ids=["exp", "cube", "affine"])
def test_areas_do_not_change_under_a_monotone_transform(transform) -> None:  # type: ignore[no-untyped-def]
    masks, maps = scene()
    wide = [heatmap.astype(np.float64) for heatmap in maps]  # float64, so that the transform makes no new ties
    changed = [transform(heatmap) for heatmap in wide]
    assert au_pro(masks, changed) == pytest.approx(au_pro(masks, wide), abs=1e-12)
    assert pixel_auroc(masks, changed) == pytest.approx(pixel_auroc(masks, wide), abs=1e-12)


def test_a_diagonal_scratch_is_one_component() -> None:
    # Scratch of 3 diagonal pixels, one pixel on its own; only the lone pixel is found before any good pixel.
    # 8-connectivity: 2 components, PRO 1/2. With 4-connectivity it would be 4 components, PRO 1/4.
    mask = truth("#..../.#.../..#../...../#....")
    heatmap = np.where(mask, 0.0, 1.0).astype(np.float32)
    heatmap[4, 0] = 2.0
    assert au_pro([mask], [heatmap], limit=0.3) == pytest.approx(0.5, abs=1e-12)


def test_every_component_weighs_the_same_whatever_its_size() -> None:
    mask = np.zeros((20, 20), dtype=bool)
    mask[:10, :10] = mask[15, 15] = True  # 100 pixels and 1 pixel
    heatmap = np.full((20, 20), 1.0, dtype=np.float32)
    heatmap[:10, :10] = 2.0
    heatmap[15, 15] = 0.0
    assert au_pro([mask], [heatmap]) == pytest.approx(0.5, abs=1e-12)


def test_false_alarms_on_good_images_count() -> None:
    mask, heatmap = truth("#........."), row(1, *[0] * 9)
    good = truth("..........")
    quiet, noisy = row(*[0] * 10), row(*[2] * 10)
    assert au_pro([mask, good], [heatmap, quiet]) == pytest.approx(1.0, abs=1e-12)
    assert au_pro([mask, good], [heatmap, noisy]) == 0.0  # 10 of 19 good pixels come first: beyond the limit


def test_a_constant_map_gives_the_diagonal() -> None:
    masks, _ = scene()
    flat = [np.full(mask.shape, 7.0, dtype=np.float32) for mask in masks]
    assert au_pro(masks, flat, limit=0.3) == pytest.approx(0.15, abs=1e-12)  # .3 * .3 / 2 / .3
    assert pixel_auroc(masks, flat) == pytest.approx(0.5, abs=1e-12)


@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
def test_a_perfect_map_gives_exactly_one_and_its_opposite_zero(limit: float) -> None:
    masks, _ = scene()
    assert au_pro(masks, [mask.astype(np.float32) for mask in masks], limit) == pytest.approx(1.0, abs=1e-12)
    assert au_pro(masks, [-mask.astype(np.float32) for mask in masks], 0.3) == pytest.approx(0.0, abs=1e-12)


def test_the_order_of_tied_pixels_does_not_matter() -> None:
    masks, maps = scene()
    tied = [np.round(heatmap) for heatmap in maps]  # a handful of distinct scores, every group mixed
    flipped = au_pro([mask[::-1, ::-1] for mask in masks[::-1]], [heatmap[::-1, ::-1] for heatmap in tied[::-1]])
    assert au_pro(masks, tied) == pytest.approx(flipped, abs=1e-12)


def test_images_may_differ_in_size() -> None:
    masks, maps = scene()
    cut = [heatmap[: 60 - i] for i, heatmap in enumerate(maps)]
    assert au_pro([mask[: 60 - i] for i, mask in enumerate(masks)], cut) == pytest.approx(au_pro(masks, maps), abs=0.05)


def test_without_a_component_or_a_good_pixel_there_is_no_au_pro() -> None:
    assert au_pro([truth("...")], [row(1, 2, 3)]) is None
    assert au_pro([truth("###")], [row(1, 2, 3)]) is None
    assert au_pro([], []) is None


@pytest.mark.parametrize("limit", [0.0, -0.1, 1.5, float("nan")])
def test_a_limit_out_of_range_is_refused(limit: float) -> None:
    with pytest.raises(ValueError, match=r"limit=.* \(0, 1\]"):
        au_pro([truth("#.")], [row(1, 0)], limit)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("metric", [au_pro, pixel_auroc])
def test_a_map_that_is_not_finite_is_refused_with_its_number(metric, bad: float) -> None:  # type: ignore[no-untyped-def]
    masks, maps = scene()
    maps[3][2, 2] = bad
    with pytest.raises(ValueError, match="map 3: 1 of 4096"):
        metric(masks, maps)


@pytest.mark.parametrize("metric", [au_pro, pixel_auroc])
def test_maps_that_do_not_fit_their_masks_are_refused(metric) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="image 1: mask"):
        metric([truth("#."), truth("..")], [row(1, 0), row(1, 0, 0)])
    with pytest.raises(ValueError, match="2 masks for 1 maps"):
        metric([truth("#."), truth("..")], [row(1, 0)])


# --- AUROC ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decimals", [6, 0], ids=["few ties", "many ties"])
def test_pixel_auroc_equals_scikit_learn(decimals: int) -> None:
    masks, maps = scene()
    maps = [np.round(heatmap, decimals) for heatmap in maps]
    expected = roc_auc_score(np.concatenate(masks).ravel(), np.concatenate(maps).ravel())
    assert pixel_auroc(masks, maps) == pytest.approx(expected, abs=1e-9)
    levels = [mask.astype(np.uint8) * (100 + i) for i, mask in enumerate(masks)]  # any value > 0 is defect
    assert pixel_auroc(levels, maps) == pytest.approx(expected, abs=1e-9)


def test_image_auroc_of_a_case_worked_by_hand() -> None:
    # Defects 5, 3; good 4, 3, 1. Pairs won: 5 beats all 3; 3 loses to 4, ties 3 (half), beats 1: 4.5 of 6.
    assert image_auroc([True, True, False, False, False], [5, 3, 4, 3, 1]) == pytest.approx(0.75)


def test_image_auroc_takes_raw_scores_far_outside_zero_to_one() -> None:
    # A sigmoid would saturate all of these to 1.0 and print .5
    assert image_auroc([False, False, True, True], [1000.0, 1001.0, 1002.0, 1003.0]) == 1.0


def test_auroc_of_one_class_is_undefined() -> None:
    assert image_auroc([True, True], [1.0, 2.0]) is None
    assert image_auroc([False], [1.0]) is None
    assert image_auroc([], []) is None
    assert pixel_auroc([truth("..")], [row(1, 2)]) is None
    assert pixel_auroc([truth("##")], [row(1, 2)]) is None


def test_image_scores_that_are_nan_or_too_few_are_refused() -> None:
    with pytest.raises(ValueError, match="scores: 1 of 2 are NaN"):
        image_auroc([True, False], [1.0, float("nan")])
    with pytest.raises(ValueError, match="one score an image"):
        image_auroc([True, False], [1.0])


# --- Confusion ------------------------------------------------------------------------------------------------------


def test_a_review_is_neither_right_nor_wrong() -> None:
    labels = [True, True, True, True, False, False, False, False, False]
    decisions = ["defect", "defect", "ok", "review", "ok", "ok", "defect", "review", "review"]
    counts = confusion(labels, decisions)
    assert counts == Confusion(tp=2, fn=1, review_defect=1, tn=2, fp=1, review_good=2)
    assert counts.review == 3
    assert counts.total == len(labels)
    assert Confusion.model_validate_json(counts.model_dump_json()) == counts


def test_numpy_labels_count_like_python_ones() -> None:
    assert confusion(np.array([True, False]), np.array(["defect", "ok"])).tp == 1


def test_an_unknown_decision_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\['OK'\]; expected 'ok', 'defect' or 'review'"):
        confusion([True], ["OK"])
    with pytest.raises(ValueError, match="2 labels for 1 decisions"):
        confusion([True, False], ["ok"])
    with pytest.raises(ValidationError):
        Confusion(tp=-1, fp=0, fn=0, tn=0, review_defect=0, review_good=0)
