"""Heatmap or mask -> rectangles: connected components (scipy.ndimage.label), corners touching included."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:  # the page imports this file before torch is loaded
    from anomaly.detectors.base import Boxes

__all__ = ["DEFECT", "BoxSettings", "find_boxes", "mask_boxes"]

DEFECT = "defect"  # the label of a box whose detector does not know the type

_EIGHT = np.ones((3, 3), dtype=bool)  # a thin scratch often runs diagonally


class BoxSettings(BaseModel):
    """Which components of a heatmap are worth a box."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    least_share: float = Field(default=1e-4, ge=0, le=1)  # of the picture's area: 6.6 pixels of 256 x 256
    most: int = Field(default=20, ge=0)  # boxes of one heatmap


_USUAL = BoxSettings()


def find_boxes(heatmap: NDArray[np.float32], threshold: float, settings: BoxSettings = _USUAL) -> "Boxes":
    """Frames every connected area in which the heatmap reaches a threshold.

    Args:
        heatmap: (H, W), higher = more anomalous.
        threshold: in the heatmap's units; a pixel >= threshold belongs to an area.
        settings: how small an area may be, and how many boxes there may be.

    Returns:
        Half-open boxes of whole pixels, the highest score first; a score is the largest pixel of its area.
    """
    import torch

    from anomaly.detectors.base import Boxes

    reached = heatmap >= threshold
    if not reached.any():  # as on most parts; importing scipy.ndimage takes a fifteenth of a cold start
        return Boxes(torch.empty(0, 4), torch.empty(0), ())
    from scipy import ndimage

    areas, count = ndimage.label(reached, structure=_EIGHT)
    large = np.bincount(areas.ravel())[1:] >= settings.least_share * heatmap.size
    scores = np.full(count, -np.inf, np.float32)
    np.maximum.at(scores, areas[reached] - 1, heatmap[reached])  # ndimage.maximum sorts the whole picture first
    order = [i for i in np.argsort(-scores, kind="stable") if large[i]][: settings.most]
    corners = _corners(areas)[order]
    return Boxes(torch.from_numpy(corners), torch.from_numpy(scores[order]), (DEFECT,) * len(order))


def mask_boxes(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Frames every connected area of a mask (H, W): (N, 4) xyxy, half-open, from top to bottom."""
    from scipy import ndimage

    areas, _ = ndimage.label(mask, structure=_EIGHT)
    return _corners(areas)


def _corners(areas: NDArray[np.int32]) -> NDArray[np.float32]:
    from scipy import ndimage

    found = ndimage.find_objects(areas)
    rows = [(place[1].start, place[0].start, place[1].stop, place[0].stop) for place in found]
    return np.array(rows, np.float32).reshape(-1, 4)
