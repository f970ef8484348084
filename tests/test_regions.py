"""Where a defect is: boxes and drawings become masks of the picture, or are refused."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from anomaly.errors import DataError
from anomaly.regions import canvas, drawn, mask_of

SIZE = (24, 32)


@pytest.mark.parametrize("nothing", [None, [], {}, ""])
def test_no_boxes_are_no_region(nothing: object) -> None:
    assert mask_of(nothing, SIZE) is None


def test_boxes_are_the_pixels_that_they_touch() -> None:
    mask = mask_of([[0.5, 0.5, 1, 1], [30, 22, 2, 2]], SIZE)
    assert mask is not None
    assert mask.shape == SIZE
    assert np.argwhere(mask).tolist() == [[0, 0], [0, 1], [1, 0], [1, 1], [22, 30], [22, 31], [23, 30], [23, 31]]


@pytest.mark.parametrize(
    "box", [[-1, 0, 5, 5], [0, 0, 33, 5], [0, 20, 5, 5], [0, 0, 0, 5], [0, 0, 5, -5], [40, 40, 5, 5]]
)
def test_a_box_that_leaves_the_picture_or_is_empty_is_refused(box: list[float]) -> None:
    with pytest.raises(DataError, match="does not lie in the picture of 32 x 24 pixels"):
        mask_of([box], SIZE)


@pytest.mark.parametrize(
    "text",
    [
        "[[1, 2, 3]]",
        "[[1, 2, 3, NaN]]",
        "[[0, 0, Infinity, 1]]",
        '[["1", 2, 3, 4]]',
        "[1, 2, 3, 4]",
        "[[1, 2, 3, true]]",
    ],
)
def test_what_is_no_box_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="is no box; expected four numbers"):
        mask_of(json.loads(text), SIZE)


@pytest.mark.parametrize("wrong", ["box", {"x": 1}, 3])
def test_what_is_no_list_is_refused(wrong: object) -> None:
    with pytest.raises(DataError, match="is no region; expected a list of boxes"):
        mask_of(wrong, SIZE)


def test_too_many_boxes_are_refused() -> None:
    with pytest.raises(DataError, match="1001 boxes are too many"):
        mask_of([[0, 0, 1, 1]] * 1001, SIZE)


def test_a_drawing_on_a_smaller_canvas_is_a_mask_of_the_whole_picture() -> None:
    file = io.BytesIO()
    Image.new("RGB", (2048, 1000)).save(file, "PNG")
    shown = canvas(file.getvalue())
    assert shown.size == (1024, 500)
    layer = np.zeros((500, 1024, 4), np.uint8)
    layer[10:20, 100:104] = (255, 0, 0, 153)
    mask = mask_of(drawn([layer]), (1000, 2048))
    assert mask is not None
    assert np.argwhere(mask).min(axis=0).tolist() == [20, 200]
    assert mask.sum() == 20 * 8


def test_an_empty_drawing_is_none() -> None:
    assert drawn([np.zeros((24, 32, 4), np.uint8)]) is None
    assert drawn([]) is None


def test_a_drawing_of_another_picture_is_refused() -> None:
    with pytest.raises(DataError, match="the drawing is of another picture"):
        mask_of(np.ones((32, 24), np.bool_), SIZE)
