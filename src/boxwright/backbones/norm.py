"""Normalisation that costs nothing when it is frozen.

A frozen batch norm is an affine map per channel, and so is the tail of a convolution. ``conv_norm`` therefore scales
the convolution's weight and runs one convolution: the normalised map is the only activation that exists, in training
too, and the gradient still reaches the unscaled weight. ``fold_norms`` does the same once and for all, for inference.

Live batch norm is the stock ``nn.BatchNorm2d``, so that ``nn.SyncBatchNorm.convert_sync_batchnorm`` finds it.
"""

from __future__ import annotations

import copy
import itertools
import math
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

Norm = Literal["bn", "frozen_bn", "gn"]
"""``bn`` live batch norm; ``frozen_bn`` fixed statistics and affine, for loaded weights; ``gn`` group norm."""

NORMS: tuple[str, ...] = ("bn", "frozen_bn", "gn")

_Module = TypeVar("_Module", bound=nn.Module)


class FrozenBatchNorm(nn.Module):
    """Batch norm whose statistics and affine are buffers: nothing in it learns and ``train()`` does not change it.

    Its state has the keys of ``nn.BatchNorm2d`` (a ``num_batches_tracked`` is dropped on loading), so weights pass
    between the two. Fresh statistics are the identity, with variance ``1 - eps``, so that checkpoints which hold only
    a scale and a bias stay exact. A network that starts from the identity is not normalised at all: train from scratch
    with ``bn`` or ``gn``.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels) - eps)

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        state_dict.pop(f"{prefix}num_batches_tracked", None)  # the caller's own copy
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """``[C], [C]``: the map is ``x * scale + shift``."""
        scale = self.weight * torch.rsqrt(self.running_var + self.eps)
        return scale, self.bias - self.running_mean * scale

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``[B, C, H, W]`` in a pass of its own, for a norm that follows no convolution."""
        scale, shift = self.scale_and_shift()
        return x * scale[:, None, None] + shift[:, None, None]

    def extra_repr(self) -> str:
        return f"{self.weight.numel()}, eps={self.eps}"


def make_norm(kind: str, channels: int) -> nn.Module:
    """The normalisation layer called ``kind``, one of ``NORMS``."""
    match kind:
        case "bn":
            return nn.BatchNorm2d(channels)
        case "frozen_bn":
            return FrozenBatchNorm(channels)
        case "gn":
            # 32 groups as published; narrower layers get fewer, because a group of one channel is instance norm.
            return nn.GroupNorm(math.gcd(32, channels // 2), channels)
        case _:
            raise ValueError(f"norm {kind!r} is not one of {', '.join(NORMS)}")


def conv_norm(x: Tensor, conv: nn.Conv2d, norm: nn.Module) -> Tensor:
    """``norm(conv(x))``, as a single convolution where the norm is frozen."""
    if not isinstance(norm, FrozenBatchNorm):
        return norm(conv(x))
    scale, shift = norm.scale_and_shift()
    weight = conv.weight * scale[:, None, None, None]
    bias = shift if conv.bias is None else shift + conv.bias * scale
    return F.conv2d(x, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups)


def fold_norms(module: _Module) -> _Module:
    """A copy of ``module`` whose fixed batch norms are part of their convolutions; outputs are the same.

    Fixed are ``FrozenBatchNorm`` and any batch norm in eval mode that tracks statistics; batch norms in training mode
    and group norms stay as they are. A norm belongs to the convolution that its parent registered right before it,
    as in ``conv1, bn1`` or ``nn.Sequential(conv, norm, relu)``. Folded norms become ``nn.Identity``. For inference: the
    copy still has gradients, but no longer normalises anything that changes.
    """
    folded = copy.deepcopy(module)
    for parent in list(folded.modules()):
        children = list(parent.named_children())
        for (_, conv), (name, norm) in itertools.pairwise(children):
            if isinstance(conv, nn.Conv2d) and _is_fixed(norm) and _channels(norm) == conv.out_channels:
                _fold(conv, norm)
                setattr(parent, name, nn.Identity())
    return folded


def _is_fixed(norm: nn.Module) -> bool:
    if isinstance(norm, FrozenBatchNorm):
        return True
    return isinstance(norm, _BatchNorm) and not norm.training and norm.running_var is not None


def _channels(norm: nn.Module) -> int:
    assert isinstance(norm.running_mean, Tensor)
    return norm.running_mean.numel()


@torch.no_grad()
def _fold(conv: nn.Conv2d, norm: nn.Module) -> None:
    """Write the affine map of ``norm`` into ``conv``, in place."""
    if isinstance(norm, FrozenBatchNorm):
        scale, shift = norm.scale_and_shift()
    else:
        assert isinstance(norm, _BatchNorm)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = torch.rsqrt(norm.running_var + norm.eps)
        if norm.affine:
            scale = scale * norm.weight
        shift = -norm.running_mean * scale
        if norm.affine:
            shift = shift + norm.bias
    if conv.bias is not None:
        shift = shift + conv.bias * scale
    conv.weight.mul_(scale[:, None, None, None])
    conv.bias = nn.Parameter(shift.to(conv.weight.dtype), requires_grad=conv.weight.requires_grad)
