"""Where a defect is, as a person or a program says: boxes or a drawing -> a mask."""

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anomaly import images
from anomaly.errors import DataError

MOST_BOXES = 1000
_CANVAS = 1024  # pixels of the longer side to draw on: what a phone can show, and below what its GPU can hold

Mask = NDArray[np.bool_]  # (H, W), True: defect


def mask_of(region: object, size: tuple[int, int]) -> Mask | None:
    """The pixels of a region.

    Args:
        region: boxes as `mask_of_boxes` takes them, or what is painted on the canvas of the picture, (h, w) bool.
        size: (H, W) of the picture.

    Returns:
        (H, W); None where nothing is marked.

    Raises:
        DataError: it is no region of this picture.
    """
    if not isinstance(region, np.ndarray):
        return mask_of_boxes(region, size)
    if region.shape != _canvas_size(size):
        raise DataError("the drawing is of another picture: draw on this one")
    whole = Image.fromarray(region).resize((size[1], size[0]), Image.Resampling.NEAREST)
    return np.asarray(whole) if region.any() else None


def mask_of_boxes(boxes: object, size: tuple[int, int]) -> Mask | None:
    """The pixels that boxes touch.

    Args:
        boxes: [[x, y, width, height], ...] in pixels from the upper left corner, as JSON gives them.
        size: (H, W) of the picture.

    Returns:
        (H, W); None without any box.

    Raises:
        DataError: it is no such list, or a box is empty or leaves the picture.
    """
    if not boxes and boxes in (None, [], {}, ""):
        return None
    if not isinstance(boxes, list):
        raise DataError(f"{str(boxes)[:80]!r} is no region; expected a list of boxes [x, y, width, height] in pixels")
    if len(boxes) > MOST_BOXES:
        raise DataError(f"{len(boxes)} boxes are too many for one picture; send {MOST_BOXES} at most")
    height, width = size
    mask = np.zeros(size, np.bool_)
    for box in boxes:
        numbers = isinstance(box, list) and all(isinstance(n, int | float) and not isinstance(n, bool) for n in box)
        if not numbers or len(box) != 4 or not all(abs(n) < 1e9 and math.isfinite(n) for n in box):
            raise DataError(f"{str(box)[:80]} is no box; expected four numbers [x, y, width, height] in pixels")
        x, y, w, h = box
        if min(w, h) <= 0 or min(x, y) < 0 or x + w > width or y + h > height:
            raise DataError(
                f"the box {box} does not lie in the picture of {width} x {height} pixels; "
                "expected [x, y, width, height], width and height above 0"
            )
        mask[math.floor(y) : math.ceil(y + h), math.floor(x) : math.ceil(x + w)] = True
    return mask


def canvas(picture: str | Path | bytes) -> Image.Image:
    """What a person draws on: the picture as detectors see it, made smaller where it is large.

    Raises:
        ImageError: it cannot be read.
    """
    pixels = images.read(picture)
    height, width = _canvas_size(pixels.shape[:2])
    return Image.fromarray(pixels).resize((width, height))


def _canvas_size(size: tuple[int, ...]) -> tuple[int, int]:
    share = min(1, _CANVAS / max(size))
    return max(1, round(size[0] * share)), max(1, round(size[1] * share))


def drawn(layers: list[NDArray[np.uint8]]) -> Mask | None:
    """What is painted, (h, w) bool; None where nothing is.

    Args:
        layers: (h, w, 4) RGBA each, as gradio's ImageEditor gives them.
    """
    marks = [layer[..., 3] >= 64 for layer in layers]
    mask: Mask | None = np.logical_or.reduce(marks) if marks else None
    return mask if mask is not None and mask.any() else None
