"""Batched selection of rows."""

from __future__ import annotations

from torch import Tensor


def take_rows(values: Tensor, index: Tensor) -> Tensor:
    """Select from each image's rows those at ``index``: ``[B, N, C]`` and int64 ``[B, M]`` to ``[B, M, C]``.

    Returns zeros if N is 0, as for the targets of a batch without objects.
    """
    if values.shape[1] == 0:
        return values.new_zeros((*index.shape, values.shape[2]))
    return values.gather(1, index.unsqueeze(-1).expand(-1, -1, values.shape[2]))


def take_entries(values: Tensor, index: Tensor) -> Tensor:
    """Select from each image's entries those at ``index``: ``[B, N]`` and int64 ``[B, M]`` to ``[B, M]``.

    Returns zeros if N is 0.
    """
    return take_rows(values.unsqueeze(-1), index).squeeze(-1)
