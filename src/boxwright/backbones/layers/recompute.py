"""Recompute a map in the backward pass instead of storing it (Chen et al. 2016, arXiv 1604.06174).

This pays for a large map that is cheap to compute. The output of VGG's first convolution is a sixth of all that the
network stores for its gradients, and takes half a per cent of its multiplications.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F


def can_recompute(x: Tensor, conv: nn.Conv2d) -> bool:
    """Return True if ``conv(x)`` would be kept for the backward pass and can be recomputed instead.

    This holds on a CPU without autocast, outside compiled and exported graphs, and where ``x`` needs no gradient.
    """
    plain = x.device.type == "cpu" and not torch.is_autocast_enabled("cpu") and not torch.compiler.is_compiling()
    return plain and torch.is_grad_enabled() and conv.weight.requires_grad and not x.requires_grad


def recomputed_conv_relu(x: Tensor, conv: nn.Conv2d, then: Callable[[Tensor], Tensor]) -> Tensor:
    """Compute ``then(relu(conv(x)))`` with the same gradients, without storing the output of ReLU.

    The backward pass computes it twice, for the gradients of ``then`` and of ReLU, so that it is never held between
    the two. ``then`` must not return its argument, and the parameters of ``conv`` must not change before the backward
    pass.
    """
    pointer, shape = 0, torch.Size()

    def pack(tensor: Tensor) -> Tensor | None:
        return None if tensor.data_ptr() == pointer and tensor.shape == shape else tensor

    @torch.no_grad()
    def unpack(kept: Tensor | None) -> Tensor:
        return F.relu_(conv(x)) if kept is None else kept

    with saved_tensors_hooks(pack, unpack):
        fmap = conv(x)
        pointer, shape = fmap.data_ptr(), fmap.shape
        return then(F.relu_(fmap))
