"""Max pooling 2 x 2 that stores no indices for the backward pass.

torch stores the position of each maximum in eight bytes. The layer before stores the pooled map anyway, and the
positions can be computed from it again.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


class HalvingMaxPool2d(nn.MaxPool2d):
    """``nn.MaxPool2d(2, 2)`` with the same values and gradients; the first of equal maxima gets the whole gradient.

    Uses torch's own for odd sides, on other devices than a CPU, and in compiled or exported graphs.
    """

    def __init__(self, ceil_mode: bool = False) -> None:
        super().__init__(2, 2, ceil_mode=ceil_mode)

    def forward(self, input: Tensor) -> Tensor:
        """``[B, C, H, W] -> [B, C, H / 2, W / 2]``."""
        even = input.shape[-2] % 2 == 0 and input.shape[-1] % 2 == 0
        if torch.compiler.is_compiling() or not even or input.device.type != "cpu" or not input.requires_grad:
            return F.max_pool2d(input, 2, ceil_mode=self.ceil_mode)
        return _Halving.apply(input)  # type: ignore[no-any-return]


class _Halving(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return F.max_pool2d(x, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        y = F.max_pool2d(x, 2)  # again: the returned map may have been changed in place
        out = torch.empty_like(x)
        free = torch.ones_like(y, dtype=torch.bool)
        for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
            first = (x[..., i::2, j::2] == y).logical_and_(free)
            out[..., i::2, j::2] = torch.where(first, grad, 0)
            free &= ~first
        return out
