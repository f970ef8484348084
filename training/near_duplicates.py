"""Pictures that are almost the same in two splits, found by perceptual hashes (pHash, as imagehash computes it).

Of a 64 x 64 grey copy the 16 x 16 lowest frequencies of a DCT each give one bit, above the median or not: 256 bits. The
usual 8 x 8 is too coarse here, as all good parts of one type look alike: `transistor` parts that differ come down to 2
bits of 64, which is what a re-encoded copy has. Every picture is compared in its eight orientations, for data sets that
were augmented before they were divided hold flips and quarter turns (`casting` does).

What it does not see: a defect of few pixels (a spoiled copy counts as a near-duplicate of its original), turns by any
other angle, shifts and crops. Where a data set was augmented with those, as `casting` was, what is found is a lower
bound: group its pictures by part (`group_regex`) where the names allow it.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict
from tqdm import tqdm

from anomaly import images
from anomaly.datasets import Sample

__all__ = ["MAX_DISTANCE", "Pair", "droppable", "hashes", "near_duplicates"]

# Of 256 bits. Copies (JPEG at quality 40, half the size, 10 % brighter, noise of 5 grey levels, blur of 1 px) are at
# most 10 away from their original on mvtec_transistor, casting and deeppcb; the two most similar of all different
# parts are 22 away in mvtec_transistor and 54 in deeppcb.
MAX_DISTANCE = 12

_SIDE = 16
_BITS = _SIDE * _SIDE
_BLOCK = 256  # pictures of one split at a time: 41 MB of distances to 5,000 others in eight orientations
_TURNS = (None, *Image.Transpose)
_ORDER = ("train", "validate", "calibrate", "test")

Hash = NDArray[np.uint8]  # (8, 32) packed bits, one row for each of _TURNS


class Pair(BaseModel):
    """Two pictures of different splits that look alike; `path` is the one further from the test."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    other: str
    distance: int  # bits of 256 in which the hashes differ
    splits: tuple[str, str]  # of path, of other
    turned: str | None  # how `path` is turned to look like `other`, such as rotate_90; None: not at all


def hashes(samples: Iterable[Sample], *, progress: bool = True) -> dict[str, Hash]:
    """Hashes each picture as detectors see it, in its eight orientations; about 2 ms for one of 300 x 300 pixels.

    Args:
        samples: what to hash.
        progress: show a bar where there is a terminal.

    Returns:
        `Sample.relative` -> its hash.

    Raises:
        ImageError: a picture cannot be read.
    """
    bar = tqdm(
        list(samples), desc="looking for near-duplicates", unit="img", leave=False, disable=None if progress else True
    )
    return {sample.relative: _hash(images.read(sample.path)) for sample in bar}


def near_duplicates(
    hashes: Mapping[str, Hash], split_of: Mapping[str, str], max_distance: int = MAX_DISTANCE
) -> tuple[Pair, ...]:
    """Finds the pictures that look alike and are in different splits.

    Args:
        hashes: of the pictures, see `hashes`.
        split_of: the same keys -> the split; pictures without one are left out.
        max_distance: bits of 256.

    Returns:
        The closest pairs first, then by name.
    """
    members: dict[str, list[str]] = {}
    for path in sorted(hashes):
        if path in split_of:
            members.setdefault(split_of[path], []).append(path)
    splits = sorted(members, key=_rank)
    pairs: list[Pair] = []
    for index, split in enumerate(splits):
        turned = _signs([hashes[path] for path in members[split]])
        for later in splits[index + 1 :]:
            upright = _signs([hashes[path][:1] for path in members[later]])[:, 0]
            for mine, theirs, distance, turn in _close(turned, upright, max_distance):
                kind = _TURNS[turn]
                pairs.append(
                    Pair(
                        path=members[split][mine],
                        other=members[later][theirs],
                        distance=distance,
                        splits=(split, later),
                        turned=None if kind is None else kind.name.lower(),
                    )
                )
    return tuple(sorted(pairs, key=lambda pair: (pair.distance, pair.path, pair.other)))


def droppable(pairs: Iterable[Pair]) -> set[str]:
    """Pictures without which no pair is left; never a test picture.

    Returns:
        The paths of what resembles a test picture and, of what then remains, of the one further from the test of each
        pair.
    """
    dropped: set[str] = set()
    for pair in sorted(pairs, key=lambda pair: _rank(pair.splits[1]), reverse=True):
        if pair.other not in dropped:
            dropped.add(pair.path)
    return dropped


def _rank(split: str) -> tuple[int, str]:
    return _ORDER.index(split) if split in _ORDER else -1, split


def _hash(image: images.RgbImage) -> Hash:
    from imagehash import phash

    grey = Image.fromarray(image).convert("L").resize((4 * _SIDE, 4 * _SIDE), Image.Resampling.LANCZOS)
    turned = [grey if turn is None else grey.transpose(turn) for turn in _TURNS]
    return np.stack([np.packbits(phash(copy, hash_size=_SIDE).hash) for copy in turned])


def _signs(stacked: Sequence[Hash]) -> NDArray[np.float32]:
    """(n, turns, 256) of -1 and 1: the product of two rows is 256 - 2 x the bits in which they differ, and exact."""
    return np.unpackbits(np.stack(stacked), axis=-1).astype(np.float32) * 2 - 1


def _close(
    turned: NDArray[np.float32], upright: NDArray[np.float32], max_distance: int
) -> list[tuple[int, int, int, int]]:
    """(row of turned, row of upright, distance, best turn) of all within reach."""
    found: list[tuple[int, int, int, int]] = []
    for start in range(0, len(turned), _BLOCK):
        block = turned[start : start + _BLOCK]
        products = block.reshape(-1, _BITS) @ upright.T
        distances = ((_BITS - products) / 2).reshape(len(block), len(_TURNS), len(upright))
        nearest = distances.min(axis=1)
        for mine, theirs in np.argwhere(nearest <= max_distance).tolist():
            turn = int(distances[mine, :, theirs].argmin())  # the first of equals: upright before turned
            found.append((start + mine, theirs, int(nearest[mine, theirs]), turn))
    return found
