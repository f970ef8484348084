"""A bounded sample of patches, its whitening, and the coreset of it that becomes the memory of patch_knn."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor
from tqdm import tqdm

_PROJECTED = 64  # dimensions that distances are compared in while choosing (Johnson-Lindenstrauss, as in PatchCore)
_POOL = 8000  # points looked at one by one; fewer mean more rounds over all, more make each step dearer
_DISTANCES = 1_000_000  # computed at a time: 4 MB
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
            # numpy and not torch: of several rows for one place it takes the last
            kept.numpy()[places[places < size].numpy()] = late[places < size].numpy()
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
    """`k_center` of the points as `projected` returns them: (N, d) -> (size,) int64, indices."""
    return k_center(projected(points, generator), size, generator)


def projected(points: Tensor, generator: torch.Generator) -> Tensor:
    """A random projection, where that has fewer dimensions: (N, d) -> (N, at most 64)."""
    if points.shape[1] <= _PROJECTED:
        return points
    return points @ (torch.randn(points.shape[1], _PROJECTED, generator=generator) / math.sqrt(_PROJECTED))


def k_center(points: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Greedy k-center: each next one is the point farthest from all that were chosen (Sener & Savarese 2018, alg. 1).

    Lazily, which gives the same points: distances to the nearest chosen one only shrink. So as long as the farthest of
    a pool is at least as far as all others were when the pool was taken, it is the farthest of all, and the others need
    not be looked at. Then they are compared with all that were chosen meanwhile in one matrix product.

    Args:
        points: (N, d).
        size: how many to choose.
        generator: for the first one.

    Returns:
        (size,) int64, indices.
    """
    norms = points.square().sum(dim=1)
    nearest = torch.full((len(points),), torch.inf)  # squared distance to the nearest that was chosen
    chosen = [int(torch.randint(len(points), (1,), generator=generator))]
    new = chosen
    with tqdm(total=size, initial=1, desc="coreset", unit="patch", leave=False, disable=None) as progress:
        while len(chosen) < size:
            step = max(1, _DISTANCES // len(new))
            for start in range(0, len(points), step):
                rows = slice(start, start + step)
                squared = torch.addmm(norms[new], points[rows], points[new].T, alpha=-2).amin(dim=1)
                nearest[rows] = torch.minimum(nearest[rows], squared.add_(norms[rows]))
            nearest[new] = -torch.inf  # rounding must not choose it twice
            pool = nearest.topk(min(_POOL, len(points)))
            others = float(pool.values[-1]) if len(points) > _POOL else -math.inf  # at most
            new = _farthest(points[pool.indices], norms[pool.indices], pool.values, others, size - len(chosen))
            new = pool.indices[new].tolist()
            chosen += new
            progress.update(len(new))
    return torch.tensor(chosen)


def _farthest(points: Tensor, norms: Tensor, nearest: Tensor, least: float, most: int) -> list[int]:
    """Indices of one point after another that is the farthest, as long as it is at least as far as `least`.

    Args:
        points: (N, d), with their `norms` squared (N,).
        nearest: (N,), squared distance to the nearest that was chosen before.
        least: squared distance.
        most: so many at the most; at least one.
    """
    chosen: list[int] = []
    while len(chosen) < most:
        farthest, index = nearest.max(dim=0)
        if chosen and farthest < least:
            break
        last = int(index)
        chosen.append(last)
        squared = torch.addmv(norms, points, points[last], alpha=-2).add_(norms[last])
        nearest = torch.minimum(nearest, squared)
        nearest[last] = -torch.inf
    return chosen
