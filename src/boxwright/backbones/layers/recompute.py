"""Maps that are made again on the way back instead of kept: time for memory (Chen et al. 2016, arXiv 1604.06174).

Worth it where a map is large and cheap to make: what VGG's first convolution returns is a sixth of all that the network
keeps for its gradients, and half a per cent of its multiplications.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F


def forgets(x: Tensor, conv: nn.Conv2d) -> bool:
    """Return True if ``conv(x)`` would be kept for the backward pass and can be recomputed instead.

    This holds on a CPU without autocast, outside compiled and exported graphs, and where ``x`` needs no gradient.
    """
    plain = x.device.type == "cpu" and not torch.is_autocast_enabled("cpu") and not torch.compiler.is_compiling()
    return plain and torch.is_grad_enabled() and conv.weight.requires_grad and not x.requires_grad


def forgotten_conv_relu(x: Tensor, conv: nn.Conv2d, then: Callable[[Tensor], Tensor]) -> Tensor:
    """``then(relu(conv(x)))`` with the same gradients, of which the map between is not kept.

    It is made twice on the way back, for the gradient of ``then`` and for that of the ReLU: holding it from one to the
    other would be what this is to avoid.

    ``then`` must not return what it is given. The parameters of ``conv`` must be on the way back what they are now.
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
