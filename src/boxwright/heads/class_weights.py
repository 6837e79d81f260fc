"""Weights of the classes in a classification loss.

Symbols: K classes, [...] the rows of a head: anchors, regions, cells.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ClassWeights(nn.Module):
    """Multiply the classification loss of each row by the weight of the class that it is assigned to.

    So a softmax, a focal loss and independent sigmoids are weighted alike: the whole loss of the row, of all its
    columns. Background and ignored rows have the weight 1. The weights belong to training, not to the network: they
    are in no state dict. Until :meth:`set` is called nothing is weighted.
    """

    values: Tensor | None
    """Float32 ``[K + 1]``, the last 1 for background; None weights nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("values", None, persistent=False)

    def set(self, weights: Tensor | None) -> None:
        """Weight by ``weights`` ``[K]``, positive; None weights nothing."""
        self.values = None if weights is None else torch.cat([weights.float(), weights.new_ones(1).float()])

    def of(self, labels: Tensor) -> Tensor | None:
        """Return the weights ``[...]`` of rows with ``labels``, None if nothing is weighted.

        ``labels``: int64 ``[...]``, K for background and -1 for an ignored row, or the targets of the K columns, float
        ``[..., K]``; a row of several classes takes the largest of their weights.
        """
        if self.values is None:
            return None
        if labels.is_floating_point():
            given = torch.where(labels > 0, self.values[:-1], 0.0).amax(-1)
            return torch.where(given > 0, given, 1.0)
        return self.values[labels]  # -1 is the last entry, background's

    def forward(self, losses: Tensor, labels: Tensor) -> Tensor:
        """Return the ``losses`` ``[...]`` of rows with ``labels``, see :meth:`of`, multiplied by their weights."""
        weights = self.of(labels)
        return losses if weights is None else losses * weights
