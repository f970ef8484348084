"""Heatmap -> overlay: a fixed scale, clean where a part is as good ones are, and never stretched to the picture."""

import pickle

import numpy as np
import pytest
from reports import make_report, make_vote

from anomaly.calibration import Calibration, HeatmapScale, Threshold
from anomaly.render import (
    ALL,
    CLEAN,
    FULL,
    MAX_SIDE,
    NONE,
    Exhibit,
    Heatmap,
    colours,
    draw,
    exhibit,
    mean_map,
    overlay,
    views,
)

SCALE = HeatmapScale(low=10.0, high=20.0, images=5)
GREY = np.full((8, 8, 3), 100, np.uint8)


def at(value: float) -> Heatmap:
    """A map that lies everywhere at `value` of SCALE, where 0 is the median and 1 the 99.9th percentile of good."""
    return np.full((8, 8), SCALE.low + value * (SCALE.high - SCALE.low), np.float32)


def calibration(threshold: float, scale: HeatmapScale | None = SCALE) -> Calibration:
    cut = Threshold(value=threshold, false_alarms=0, good=5, missed=0, defects=0, level=0.2)
    good = (0.0, 1.0, 2.0, 3.0, 4.0)
    return Calibration(split_hash="0", good_scores=good, thresholds={"far": cut}, heatmap=scale)


@pytest.fixture
def shown() -> Exhibit:
    """`loud` is two interquartile ranges above its threshold, `quiet` below it, `mute` draws no heatmap."""
    votes = (make_vote("quiet", score=4.0), make_vote("loud", score=9.0), make_vote("mute", score=99.0))
    calibrations = {name: calibration(5.0) for name in ("quiet", "loud", "mute")}
    return exhibit(make_report(votes=votes), GREY, {"quiet": at(0.2), "loud": at(3.0)}, calibrations)


def test_members_are_ordered_by_their_distance_to_the_line_whatever_its_unit() -> None:
    votes = (make_vote("quiet", score=4.0), make_vote("loud", score=9.0, threshold_name="p ≤ 0.01"))
    calibrations = {name: calibration(5.0) for name in ("quiet", "loud")}
    shown = exhibit(make_report(votes=votes), GREY, {"quiet": at(0.2), "loud": at(3.0)}, calibrations)
    assert views(shown)[:2] == ["loud", "quiet"]


@pytest.mark.parametrize("value", [-5.0, 0.0, CLEAN])
def test_what_is_as_on_good_parts_leaves_the_picture_as_it_is(value: float) -> None:
    assert np.array_equal(overlay(GREY, at(value), SCALE, opacity=1.0), GREY)


def test_the_limit_of_good_parts_shows_and_twice_that_covers_the_picture() -> None:
    limit, beyond = (overlay(GREY, at(value), SCALE, opacity=1.0) for value in (1.0, FULL))
    assert not np.array_equal(limit, GREY)
    colour, alpha = colours(np.float32(FULL))
    assert alpha == 1
    assert np.array_equal(beyond[0, 0], np.rint(colour))


def test_above_the_scale_nothing_changes_any_more() -> None:
    assert np.array_equal(overlay(GREY, at(FULL), SCALE, 0.7), overlay(GREY, at(50.0), SCALE, 0.7))


def test_a_hotter_place_is_drawn_more_opaque_and_lighter() -> None:
    colour, alpha = colours(np.linspace(CLEAN, FULL, 50, dtype=np.float32))
    luminance = colour @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(alpha) > 0).all()
    assert (np.diff(luminance) > 0).all()


def test_one_hot_pixel_does_not_change_how_the_others_are_drawn() -> None:
    heatmap = at(1.2)
    hot = heatmap.copy()
    hot[0, 0] = 1e6
    before, after = (overlay(GREY, h, SCALE, 0.7) for h in (heatmap, hot))
    assert np.array_equal(before[1:], after[1:])
    assert not np.array_equal(before[0, 0], after[0, 0])


def test_at_opacity_zero_only_the_picture_is_seen() -> None:
    assert np.array_equal(overlay(GREY, at(5.0), SCALE, opacity=0.0), GREY)


def test_a_scale_without_width_is_drawn_without_a_warning() -> None:
    flat = HeatmapScale(low=0.0, high=0.0, images=5)  # Grad-CAM of good parts is often zero everywhere
    heatmap = np.zeros((8, 8), np.float32)
    heatmap[2, 3] = 0.5
    with np.errstate(all="raise"):
        drawn = overlay(GREY, heatmap, flat, 1.0)
    changed = (drawn != GREY).any(axis=2)
    assert changed[2, 3]
    assert changed.sum() == 1


def test_the_mean_map_takes_each_detector_on_its_own_scale() -> None:
    scales = {"a": HeatmapScale(low=0, high=2, images=1), "b": HeatmapScale(low=100, high=300, images=1)}
    heatmaps = {"a": np.array([[0, 2]], np.float32), "b": np.array([[100, 500]], np.float32)}
    assert mean_map(heatmaps, scales).tolist() == [[0.0, 1.5]]  # (0 + 0) / 2 and (1 + 2) / 2


def test_the_first_view_is_the_detector_most_above_its_threshold(shown: Exhibit) -> None:
    assert views(shown) == ["loud", "quiet", ALL, NONE]


def test_a_member_without_a_vote_or_a_scale_is_no_view() -> None:
    votes = (make_vote("failed", score=None), make_vote("unscaled", score=1.0))
    calibrations = {"failed": calibration(5.0), "unscaled": calibration(5.0, scale=None)}
    shown = exhibit(make_report(votes=votes), GREY, {"unscaled": at(2.0)}, calibrations)
    assert views(shown) == [NONE]
    assert np.array_equal(draw(shown, ALL, 1.0), GREY)


def test_each_view_draws_its_own_map(shown: Exhibit) -> None:
    assert np.array_equal(draw(shown, NONE, 1.0), GREY)
    assert np.array_equal(draw(shown, "quiet", 1.0), GREY)
    assert np.array_equal(draw(shown, "loud", 1.0), overlay(GREY, at(3.0), SCALE, 1.0))
    assert np.array_equal(draw(shown, ALL, 1.0), overlay(GREY, at(1.6), SCALE, 1.0))


def test_a_view_of_another_inspection_is_drawn_as_the_first_one(shown: Exhibit) -> None:
    assert np.array_equal(draw(shown, "gone", 1.0), draw(shown, "loud", 1.0))


def test_a_big_picture_is_kept_small_in_its_own_proportions() -> None:
    image = np.zeros((1500, 3000, 3), np.uint8)
    heatmap = np.full((1500, 3000), 7.0, np.float32)
    kept = exhibit(make_report(votes=(make_vote("a", score=1.0),)), image, {"a": heatmap}, {"a": calibration(5.0)})
    assert kept.picture.shape == (MAX_SIDE // 2, MAX_SIDE, 3)
    assert kept.heatmaps["a"].shape == (MAX_SIDE // 2, MAX_SIDE)
    assert np.allclose(kept.heatmaps["a"], 7.0)


def test_an_exhibit_survives_the_way_between_two_processes(shown: Exhibit) -> None:
    """ZeroGPU inspects in another process."""
    arrived = pickle.loads(pickle.dumps(shown))
    assert arrived.report == shown.report
    assert np.array_equal(draw(arrived, "loud", 0.5), draw(shown, "loud", 0.5))
