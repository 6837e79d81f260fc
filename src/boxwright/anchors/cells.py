"""Cells of a map, which YOLO detectors place their predictions in and assign their objects to.

Symbols: B images, C cells, n predictors of a cell, G padded ground truth.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

Reach = Annotated[float, Field(ge=1, le=3)]
"""Range of a predicted centre in cells: 1 keeps it in its cell, 2 lets it go half a cell beyond."""


def cell_corners(height: int, width: int, device: torch.device) -> Tensor:
    """Return column and row of the cells of a map, in order y, x: float32 ``[height * width, 2]``."""
    index = torch.arange(height * width, device=device)
    return torch.stack([index % width, index // width], dim=-1).float()


def pair_up(key: Tensor) -> tuple[Tensor, Tensor]:
    """Assign different objects to the predictors of each cell, in descending order of ``key`` ``[B, C, G, n]``.

    A key of minus infinity rules a pair out. Returns indexes into G and a mask of those that are valid, ``[B, C, n]``.
    """
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
    """Return one-hot rows, bool: ``[...] -> [..., count]``. Unlike torch's, it needs no host synchronisation."""
    return index.unsqueeze(-1) == torch.arange(count, device=index.device)
