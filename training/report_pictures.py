"""Pictures of a report: for each type of defect the clearest, the median and the least clear case, and all heatmaps."""

import base64
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anomaly import images
from anomaly.datasets import GOOD
from anomaly.evaluation import Scored, counting_threshold
from anomaly.images import RgbImage
from anomaly.render import OPACITY, overlay

SIDE = 190  # pixels of the longer side of a small picture
MOST_TYPES = 24
_OUTLINE = (255, 0, 160)


@dataclass(frozen=True, slots=True)
class Tile:
    """One small picture."""

    title: str
    source: str  # data URI
    rejected: bool | None = None  # by that member; None for what no member says


@dataclass(frozen=True, slots=True)
class Case:
    """One part, seen by everybody."""

    label: str
    rank: str  # in words
    name: str  # of the file
    tiles: tuple[Tile, ...]


def cases(scored: Scored, leader: str) -> list[Case]:
    """Chooses by the score of one member and draws what all of them show.

    Args:
        scored: with heatmaps kept.
        leader: the member whose score ranks the pictures of a type.

    Returns:
        Types by name, then good parts; at most `MOST_TYPES` of them.
    """
    places: dict[str, list[tuple[float, int]]] = {}
    for index, row in enumerate(scored.rows):
        if (vote := row.vote(leader)) is not None:
            places.setdefault(row.sample.label, []).append((vote.score, index))
    labels = sorted(places, key=lambda label: (label == GOOD, label))
    if len(labels) > MOST_TYPES:
        labels = [*labels[: MOST_TYPES - 1], GOOD] if GOOD in places else labels[:MOST_TYPES]
    found = []
    for label in labels:
        ordered = [index for _, index in sorted(places[label], reverse=True)]
        highest = "highest score: the worst false alarm" if label == GOOD else "highest score"
        chosen = {ordered[0]: highest}
        if len(ordered) > 2:
            chosen[ordered[(len(ordered) - 1) // 2]] = "median score"
        if len(ordered) > 1:
            chosen[ordered[-1]] = "lowest score"
        else:
            chosen = {ordered[0]: "the only one"}
        found += [case_of(scored, index, rank) for index, rank in chosen.items()]
    return found


def case_of(scored: Scored, index: int, rank: str) -> Case:
    row = scored.rows[index]
    picture = images.read(row.sample.path)
    tiles = [Tile("picture", _uri(picture))]
    if scored.masks and row.sample.is_defect:
        tiles = [Tile("picture, defect outlined", _uri(outlined(picture, scored.masks[index])))]
    for name, member in scored.inspector.members.items():
        heatmap, scale, vote = scored.maps[name].get(index), member.calibration.heatmap, row.vote(name)
        rejected = None
        if vote is not None:
            key = counting_threshold(scored.inspector, name)
            rejected = vote.score >= member.calibration.thresholds[key].value
        if heatmap is not None and scale is not None:
            tiles.append(Tile(name, _uri(overlay(picture, np.asarray(heatmap), scale, OPACITY)), rejected))
        else:
            tiles.append(Tile(name, "", rejected))
    return Case(row.sample.label, rank, row.sample.relative, tuple(tiles))


def outlined(picture: RgbImage, mask: NDArray[np.bool_]) -> RgbImage:
    """The picture at its small size, with a line around what is marked.

    Args:
        picture: uint8 (H, W, 3).
        mask: (H, W).
    """
    from scipy.ndimage import binary_dilation

    small = Image.fromarray(picture)
    small.thumbnail((SIDE, SIDE))
    drawn = np.array(small)
    marked = np.asarray(Image.fromarray(mask).resize(small.size))
    around = binary_dilation(marked, iterations=2)
    drawn[binary_dilation(around, iterations=2) & ~around] = _OUTLINE
    return drawn


def _uri(picture: RgbImage) -> str:
    """A small JPEG inside the page."""
    image = Image.fromarray(picture)
    image.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
