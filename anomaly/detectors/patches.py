"""Patch features: what PatchCore and PaDiM make of a trunk's maps."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def patch_features(maps: Sequence[Tensor]) -> Tensor:
    """Averages each map over 3x3 neighbours and stacks them at the finest grid.

    The local average is PatchCore's neighbourhood aggregation (Roth et al. 2022, eq. 2), p = 3, zeros beyond the border
    included as in the authors' code: leaving them out made border patches the loudest of good images. Coarser maps are
    brought to the finest grid bilinearly.

    Args:
        maps: (B, C_i, h_i, w_i) each, the finest first or last.

    Returns:
        (B, sum C_i, h, w) at the largest h and w.
    """
    height, width = max(m.shape[-2] for m in maps), max(m.shape[-1] for m in maps)
    averaged = [F.avg_pool2d(m, 3, stride=1, padding=1) for m in maps]
    same = [
        m
        if m.shape[-2:] == (height, width)
        else F.interpolate(m, (height, width), mode="bilinear", align_corners=False)
        for m in averaged
    ]
    return torch.cat(same, dim=1)
