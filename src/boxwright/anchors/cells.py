"""The cells of a map: what YOLO's first versions place their predictions by, and give their objects to.

Symbols: B images, C cells, n predictors of a cell, G padded ground truth.
"""

from __future__ import annotations

import torch
from torch import Tensor


def cell_corners(height: int, width: int, device: torch.device) -> Tensor:
    """Column and row of every cell of a ``height`` x ``width`` map, in order y, x: float32 ``[height * width, 2]``."""
    index = torch.arange(height * width, device=device)
    return torch.stack([index % width, index // width], dim=-1).float()


def pair_up(key: Tensor) -> tuple[Tensor, Tensor]:
    """Give each cell's predictors different objects, the best pair first: ``key`` ``[B, C, G, n]``, minus infinity
    where there may be no pair, to indexes into G and whether there is one, ``[B, C, n]``."""
    count, each = key.shape[2:]
    owner = torch.zeros_like(key[:, :, 0], dtype=torch.int64)
    positive = torch.zeros_like(owner, dtype=torch.bool)
    for _ in range(min(count, each)):
        value, index = key.flatten(2).max(-1)
        row, column = one_hot(index // each, count), one_hot(index % each, each)
        hit = column & (value > -torch.inf).unsqueeze(-1)
        owner = torch.where(hit, (index // each).unsqueeze(-1), owner)
        positive = positive | hit
        key = key.masked_fill(row.unsqueeze(-1) | column.unsqueeze(-2), -torch.inf)
    return owner, positive


def one_hot(index: Tensor, count: int) -> Tensor:
    """One-hot rows ``[...] -> [..., count]``, bool; torch's own looks at the values to check them."""
    return index.unsqueeze(-1) == torch.arange(count, device=index.device)
