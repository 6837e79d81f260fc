"""From heads with a convolution for offsets and one for scores to ours of SSD's kind."""

from __future__ import annotations

import torch
from torch import Tensor


def joined_head(offsets: Tensor, scores: Tensor, background_first: bool = True) -> Tensor:
    """One layer's weight or bias from two: for every prior of a cell its 4 offsets, its scores, and background last.

    ``offsets`` ``[a * 4, ...]`` and ``scores`` ``[a * (K + 1), ...]``, where background is class 0, or the last.
    """
    cell = offsets.shape[0] // 4
    offsets, scores = offsets.unflatten(0, (cell, 4)), scores.unflatten(0, (cell, -1))
    parts = [offsets, scores[:, 1:], scores[:, :1]] if background_first else [offsets, scores]
    return torch.cat(parts, dim=1).flatten(0, 1)
