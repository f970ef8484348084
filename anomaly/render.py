"""Heatmap -> overlay on the calibrated, fixed scale (colours: plasma, matplotlib.org, CC0).

The scale comes from good held-out images: 0 is their median pixel, 1 their 99.9th percentile. The same colour means the
same thing on every picture; nothing is stretched to the picture at hand.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from anomaly.boxes import DEFECT
from anomaly.calibration import Calibration, HeatmapScale
from anomaly.explain import interquartile_range
from anomaly.images import RgbImage
from anomaly.report import BoxRow, Report
from anomaly.rules import Policy

Heatmap = NDArray[np.float32]  # (H, W), in the detector's own units

ALL = "all"  # the view that is the mean of all heatmaps
NONE = "none"  # the view that is the picture alone
MAX_SIDE = 1024  # pixels: what a session keeps and the page shows
OPACITY = 0.7

# Where the drawing begins and where it is full, on the scale where 1 is the 99.9th percentile of good pixels.
CLEAN, FULL = 0.8, 2.0

# Evenly spaced along the scale, the dark blue beginning of plasma left out: it reads as a shadow of the part.
_PLASMA = np.array(
    [(126, 3, 168), (168, 34, 150), (203, 70, 121), (229, 107, 93), (248, 148, 65), (253, 195, 40), (240, 249, 33)],
    np.float32,
)
_LIGHT, _DARK = "#ffffff", "#101418"  # of boxes
_UNIT = HeatmapScale(low=0, high=1, images=1)


@dataclass(frozen=True, slots=True)
class Exhibit:
    """What a page keeps of one inspection: enough to draw it again without running a model."""

    report: Report
    picture: RgbImage  # at most MAX_SIDE a side
    heatmaps: Mapping[str, Heatmap]  # by member, at the size of `picture`
    calibrations: Mapping[str, Calibration]  # by member
    policy: Policy | None = None  # that decided, as it is for the category


def exhibit(
    report: Report,
    image: RgbImage,
    heatmaps: Mapping[str, Heatmap],
    calibrations: Mapping[str, Calibration],
    policy: Policy | None = None,
) -> Exhibit:
    """Shrinks picture and heatmaps to what a page shows.

    Args:
        report: of the inspection.
        image: uint8 (H, W, 3), the picture that was inspected.
        heatmaps: by member, (H, W).
        calibrations: of the inspector's members.
        policy: that decided.
    """
    height, width = image.shape[:2]
    shrink = min(1.0, MAX_SIDE / max(height, width))
    size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
    drawn = {name: heatmap for name, heatmap in heatmaps.items() if calibrations[name].heatmap is not None}
    smaller = {name: _resized(heatmap, size) for name, heatmap in drawn.items()}
    return Exhibit(report, _resized(image, size), smaller, calibrations, policy)


def views(shown: Exhibit) -> list[str]:
    """What `draw` can show, the most telling first: the member most above its threshold, the others, all, none."""
    votes = {vote.member: vote for vote in shown.report.votes}

    def margin(name: str) -> float:
        vote = votes[name]
        if vote.score is None:
            return -np.inf
        return (vote.score - vote.threshold) / interquartile_range(shown.calibrations[name])

    members = sorted(shown.heatmaps, key=margin, reverse=True)
    return [*members, *([ALL] if len(members) > 1 else []), NONE]


def draw(shown: Exhibit, view: str, opacity: float) -> RgbImage:
    """The picture under one heatmap, with the boxes of its member.

    Args:
        shown: the inspection.
        view: one of `views`; the first of them for a view that this inspection has not.
        opacity: 0 to 1.
    """
    view = view if view in views(shown) else views(shown)[0]
    scales = {name: scale for name in shown.heatmaps if (scale := shown.calibrations[name].heatmap) is not None}
    if view == NONE:
        return shown.picture
    if view == ALL:
        return overlay(shown.picture, mean_map(shown.heatmaps, scales), _UNIT, opacity)
    boxes = next(vote.boxes for vote in shown.report.votes if vote.member == view)
    drawn = overlay(shown.picture, shown.heatmaps[view], scales[view], opacity)
    return framed(drawn, boxes, shown.picture.shape[1] / shown.report.image_width)


def stamped(drawn: RgbImage, report: Report) -> Image.Image:
    """A drawing that says in its PNG which inspection it is of.

    That also makes the files of two inspections differ: gradio names a file by its content and writes it anew while
    another person may be downloading it, who then got a part of it.
    """
    image = Image.fromarray(drawn)
    image.info |= {
        "Title": f"{report.category}: {report.decision}",
        "Source": f"revision {report.revision} ({report.commit}), policy {report.policy}",
        "Creation Time": report.created_at,
        "Software": f"Vigie {report.version}",
    }
    return image


def overlay(image: RgbImage, heatmap: Heatmap, scale: HeatmapScale, opacity: float) -> RgbImage:
    """Lays a heatmap over its picture.

    Args:
        image: uint8 (H, W, 3) RGB.
        heatmap: (H, W), in the detector's own units.
        scale: from the detector's calibration.
        opacity: 0 to 1, of the strongest places.

    Returns:
        uint8 (H, W, 3) RGB; equal to the picture wherever the heatmap is as on good parts.
    """
    colour, alpha = colours(_scaled(heatmap, scale))
    alpha = (alpha * np.float32(opacity))[..., None]
    return np.rint(image * (1 - alpha) + colour * alpha).astype(np.uint8)


def framed(image: RgbImage, boxes: Sequence[BoxRow], scale: float = 1.0) -> RgbImage:
    """Draws boxes just outside the places they mark, with the type of defect where it is known.

    Args:
        image: uint8 (H, W, 3) RGB.
        boxes: in pixels of a picture that is `scale` times smaller.
        scale: of the image to that picture.

    Returns:
        uint8 (H, W, 3) RGB, the image itself without boxes.
    """
    if not boxes:
        return image
    picture = Image.fromarray(image)
    canvas = ImageDraw.Draw(picture)
    unit = max(1, round(max(image.shape[:2]) / 500))  # pixels a line is wide
    font = ImageFont.load_default(11 * unit)
    for box in boxes:
        x0, y0, x1, y1 = (side * scale for side in (box.x0, box.y0, box.x1, box.y1))
        # dark around light: to be seen on any part and any colour of the scale
        for colour, away in ((_DARK, 2 * unit), (_LIGHT, unit)):
            canvas.rectangle((x0 - away, y0 - away, x1 - 1 + away, y1 - 1 + away), outline=colour, width=unit)
        if box.label != DEFECT:
            below = y0 < 15 * unit
            at = (x0, y1 + 3 * unit) if below else (x0, y0 - 3 * unit)
            anchor = "la" if below else "ld"
            canvas.text(at, box.label, fill=_LIGHT, font=font, anchor=anchor, stroke_width=unit, stroke_fill=_DARK)
    return np.asarray(picture)


def colours(value: Heatmap) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The fixed colour scale.

    Args:
        value: any shape, where 0 is the median and 1 the 99.9th percentile of good pixels.

    Returns:
        colour (..., 3) in 0 to 255, and alpha (...) in 0 to 1.
    """
    along = np.clip((value - CLEAN) / (FULL - CLEAN), 0, 1)
    place = along * (len(_PLASMA) - 1)
    below = np.minimum(place.astype(np.int64), len(_PLASMA) - 2)
    part = (place - below)[..., None]
    colour = _PLASMA[below] * (1 - part) + _PLASMA[below + 1] * part
    return colour.astype(np.float32), (along**0.7).astype(np.float32)


def mean_map(heatmaps: Mapping[str, Heatmap], scales: Mapping[str, HeatmapScale]) -> Heatmap:
    """Mean over members, each on its own scale: 0 is the median of good pixels, 1 their 99.9th percentile.

    Args:
        heatmaps: by member, all of one size.
        scales: by member.
    """
    scaled = [_scaled(heatmap, scales[name]) for name, heatmap in heatmaps.items()]
    mean: Heatmap = np.mean(scaled, axis=0, dtype=np.float32)
    return mean


def _scaled(heatmap: Heatmap, scale: HeatmapScale) -> Heatmap:
    """A detector whose good pixels are all alike (Grad-CAM often is zero) has a scale of no width."""
    width = max(scale.high - scale.low, 1e-12)
    return ((heatmap - np.float32(scale.low)) / np.float32(width)).astype(np.float32)


def _resized(pixels: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    if (pixels.shape[1], pixels.shape[0]) == size:
        return pixels
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))  # averages where it shrinks
