"""A bounded sample of patches, its whitening, and the coreset of it that becomes the memory of patch_knn."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor
from tqdm import trange

_PROJECTED = 64  # dimensions that distances are compared in while choosing (Johnson-Lindenstrauss, as in PatchCore)
_VARIANCE = 0.99  # share that the principal components kept explain, and
_SHRINKAGE = 0.07  # of their covariance towards its mean variance: both from the code of Mahalanobis PatchCore


def reservoir(patches: Iterable[Tensor], size: int, generator: torch.Generator) -> tuple[Tensor, int]:
    """An even random sample of a stream of rows, and how many there were (Vitter 1985, algorithm R, by blocks)."""
    kept = torch.empty(0)
    seen = 0
    for rows in patches:
        if seen == 0:
            kept = torch.empty(size, rows.shape[1])
        room = max(0, min(size - seen, len(rows)))
        kept[seen : seen + room] = rows[:room]
        late = rows[room:]
        if len(late):
            ranks = torch.arange(seen + room, seen + len(rows))  # the i-th row replaces a random one of i + 1
            places = (torch.rand(len(late), generator=generator, dtype=torch.float64) * (ranks + 1)).long()
            for row, place in zip(late[places < size], places[places < size].tolist(), strict=True):
                kept[place] = row
        seen += len(rows)
    return kept[: min(seen, size)], seen


def whitening(points: Tensor) -> tuple[Tensor, Tensor]:
    """PCA whitening, after Mahalanobis PatchCore (arXiv 2605.27748).

    Euclidean distances behind it are Mahalanobis distances in the space of the principal components, with one
    covariance for all patches. The paper estimates both in a stream; here they come from the points at hand.

    Args:
        points: (N, C).

    Returns:
        center (C,) and whitener (C, k): (x - center) @ whitener has k <= C values.
    """
    center = points.mean(dim=0)
    deviation = (points - center).double()
    variances, directions = torch.linalg.eigh(deviation.T @ deviation / len(points))  # ascending
    variances, directions = variances.flip(0).clamp(min=0), directions.flip(1)
    explained = variances.cumsum(dim=0) / variances.sum().clamp(min=1e-12)
    count = int((explained < _VARIANCE).sum()) + 1
    kept = variances[:count]
    shrunk = (1 - _SHRINKAGE) * kept + _SHRINKAGE * kept.mean()
    return center, (directions[:, :count] / shrunk.clamp(min=1e-12).sqrt()).float()


def coreset(points: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """`k_center` on a random projection where that is smaller: (N, d) -> (size,) int64, indices."""
    if points.shape[1] > _PROJECTED:
        points = points @ (torch.randn(points.shape[1], _PROJECTED, generator=generator) / math.sqrt(_PROJECTED))
    return k_center(points, size, generator)


def k_center(points: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Greedy k-center: each next one is the point farthest from all that were chosen (Sener & Savarese 2018, alg. 1).

    Args:
        points: (N, d).
        size: how many to choose.
        generator: for the first one.

    Returns:
        (size,) int64, indices.
    """
    norms = points.square().sum(dim=1)
    nearest = torch.full((len(points),), torch.inf)
    chosen = torch.empty(size, dtype=torch.int64)
    chosen[0] = torch.randint(len(points), (1,), generator=generator)
    for step in trange(1, size, desc="coreset", unit="patch", leave=False, disable=None):
        last = int(chosen[step - 1])
        # |a - b|^2 without the root: the order is the same
        squared = torch.addmv(norms, points, points[last], alpha=-2).add_(norms[last])
        torch.minimum(nearest, squared, out=nearest)
        nearest[last] = -torch.inf  # rounding must not choose it twice
        chosen[step] = nearest.argmax()
    return chosen
