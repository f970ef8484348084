"""Patch features: what PatchCore, PaDiM and AnomalyDINO make of a trunk's maps."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def patch_features(maps: Sequence[Tensor], window: int = 3) -> Tensor:
    """Averages each map over window x window neighbours and stacks them at the finest grid.

    The local average is PatchCore's neighbourhood aggregation (Roth et al. 2022, eq. 2), p = 3, zeros beyond the border
    included as in the authors' code: leaving them out made border patches the loudest of good images. Coarser maps are
    brought to the finest grid bilinearly.

    Args:
        maps: (B, C_i, h_i, w_i) each, the finest first or last.
        window: odd; 1 leaves the maps as they are (AnomalyDINO: a ViT's tokens have seen the whole picture).

    Returns:
        (B, sum C_i, h, w) at the largest h and w, channels last in memory.
    """
    height, width = max(m.shape[-2] for m in maps), max(m.shape[-1] for m in maps)
    # channels last: the same bits in a fifth of the time, and rows of patches that a matrix product takes as they lie
    last = [m.contiguous(memory_format=torch.channels_last) for m in maps]
    averaged = [F.avg_pool2d(m, window, stride=1, padding=window // 2) for m in last] if window > 1 else last
    same = [
        m
        if m.shape[-2:] == (height, width)
        else F.interpolate(m, (height, width), mode="bilinear", align_corners=False)
        for m in averaged
    ]
    return torch.cat(same, dim=1)
