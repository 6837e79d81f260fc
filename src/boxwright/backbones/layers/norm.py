"""Normalisation layers, with frozen batch norms computed inside convolutions.

A frozen batch norm is an affine map per channel. ``conv_norm`` applies it by scaling the weight of the convolution
before it, so that no second activation is stored, in training either; the gradient reaches the unscaled weight.
``fold_norms`` scales the weights once, for inference.

Trained batch norm is the stock ``nn.BatchNorm2d``, so that ``nn.SyncBatchNorm.convert_sync_batchnorm`` finds it.
"""

from __future__ import annotations

import copy
import itertools
import math
from typing import Any, Literal, TypeVar, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

Norm = Literal["bn", "frozen_bn", "gn"]
"""``bn``: batch norm. ``frozen_bn``: fixed statistics and affine parameters, for loaded weights. ``gn``: group norm."""

OptionalNorm = Literal["none", "bn", "frozen_bn", "gn"]
"""As ``Norm``, or ``none``: convolutions have a bias and no norm, as in networks before batch norm."""

OPTIONAL_NORMS: tuple[str, ...] = get_args(OptionalNorm)

_Module = TypeVar("_Module", bound=nn.Module)


class FrozenBatchNorm(nn.Module):
    """Batch norm whose statistics and affine parameters are buffers. It is not trained, and ``train()`` has no effect.

    Its state has the keys of ``nn.BatchNorm2d`` (a ``num_batches_tracked`` is dropped on loading), so either loads the
    weights of the other. Fresh statistics are the identity, with variance ``1 - eps``, so that checkpoints that hold
    only a scale and a bias stay exact. A network with fresh frozen norms is not normalised: train from scratch with
    ``bn`` or ``gn``.
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
        """Return ``scale [C]`` and ``shift [C]``: the norm computes ``x * scale + shift``."""
        scale = self.weight * torch.rsqrt(self.running_var + self.eps)
        return scale, self.bias - self.running_mean * scale

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``[B, C, H, W]`` separately, for a norm that follows no convolution."""
        scale, shift = self.scale_and_shift()
        return x * scale[:, None, None] + shift[:, None, None]

    def extra_repr(self) -> str:
        return f"{self.weight.numel()}, eps={self.eps}"


class L2Norm(nn.Module):
    """Scale the channels of each position to length 1, times a trained factor per channel (ParseNet, arXiv 1506.04579).

    ``scale``: initial factor. ``eps_place``: 1e-10 is added to the sum of squares (Caffe) or its root (PyTorch ports).
    """

    def __init__(self, channels: int, scale: float, eps_place: Literal["sum", "root"] = "sum") -> None:
        super().__init__()
        self.eps_place = eps_place
        self.weight = nn.Parameter(torch.full((channels,), float(scale)))

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]`` to the same shape, in float32: half precision cannot hold the eps or its inverse."""
        wide = x.float()
        if self.eps_place == "sum":
            inverse = torch.rsqrt(wide.square().sum(1, keepdim=True) + 1e-10)
        else:
            inverse = 1 / (torch.linalg.vector_norm(wide, dim=1, keepdim=True) + 1e-10)
        return (wide * inverse * self.weight[:, None, None]).to(x.dtype)


def set_norm_momentum(module: nn.Module, momentum: float | None) -> None:
    """Set the momentum of all batch norms of ``module``; None changes nothing."""
    for norm in module.modules():
        if momentum is not None and isinstance(norm, _BatchNorm):
            norm.momentum = momentum


def set_norm_eps(module: nn.Module, eps: float) -> None:
    """Set the ``eps`` of all batch norms of ``module``; a fresh frozen norm stays the identity."""
    for norm in module.modules():
        if isinstance(norm, FrozenBatchNorm):
            norm.running_var += norm.eps - eps
            norm.eps = eps
        elif isinstance(norm, _BatchNorm):
            norm.eps = eps


def make_norm(kind: str, channels: int, eps: float = 1e-5, momentum: float = 0.1) -> nn.Module:
    """Build the normalisation layer ``kind``, one of ``OPTIONAL_NORMS``; ``none`` is the identity.

    ``momentum``: weight of a new batch in the running statistics of ``bn``.
    """
    match kind:
        case "none":
            return nn.Identity()
        case "bn":
            return nn.BatchNorm2d(channels, eps, momentum)
        case "frozen_bn":
            return FrozenBatchNorm(channels, eps)
        case "gn":
            # 32 groups as published; narrower layers get fewer, because a group of one channel is instance norm.
            return nn.GroupNorm(math.gcd(32, channels // 2), channels)
        case _:
            raise ValueError(f"norm {kind!r} is not one of {', '.join(OPTIONAL_NORMS)}")


def stage_norm(kind: str, number: int, freeze_at: int) -> str:
    """Return the norm of stage ``number``: batch norms of the first ``freeze_at`` stages are frozen."""
    return "frozen_bn" if kind == "bn" and number <= freeze_at else kind


def conv_norm(x: Tensor, conv: nn.Conv2d, norm: nn.Module) -> Tensor:
    """Compute ``norm(conv(x))``, by a single convolution if the norm is frozen."""
    if not isinstance(norm, FrozenBatchNorm):
        return norm(conv(x))
    scale, shift = norm.scale_and_shift()
    weight = conv.weight * scale[:, None, None, None]
    bias = shift if conv.bias is None else shift + conv.bias * scale
    return F.conv2d(x, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups)


class ConvNormAct(nn.Sequential):
    """Convolution, norm and activation under the names ``0``, ``1``, ``2``, as in torchvision and most other libraries.

    Keeps the size, or divides it by ``stride`` and rounds up. The convolution has a bias only where ``norm`` is
    ``none``. ``act`` should work in place: nothing keeps what comes before it.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        *,
        norm: str,
        act: nn.Module | None,
        groups: int = 1,
        eps: float = 1e-5,
        momentum: float = 0.1,
    ) -> None:
        conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=norm == "none")
        layers = [conv, make_norm(norm, outputs, eps, momentum)]
        super().__init__(*layers, *([act] if act is not None else []))

    def linear(self, x: Tensor) -> Tensor:
        """``[B, inputs, H, W] -> [B, outputs, H / stride, W / stride]`` without the activation."""
        conv = self[0]
        assert isinstance(conv, nn.Conv2d)
        return conv_norm(x, conv, self[1])

    def forward(self, input: Tensor) -> Tensor:
        """``[B, inputs, H, W] -> [B, outputs, H / stride, W / stride]``, rounded up."""
        x = self.linear(input)
        return self[2](x) if len(self) == 3 else x


def fold_norms(module: _Module) -> _Module:
    """Return a copy of ``module`` with fixed batch norms folded into their convolutions. Outputs are the same.

    Fixed are ``FrozenBatchNorm`` and any batch norm in eval mode that tracks statistics. Batch norms in training mode
    and group norms are unchanged. A norm belongs to the (transposed) convolution that its parent registered right
    before it, as in ``conv1, bn1`` or ``nn.Sequential(conv, norm, relu)``, and becomes ``nn.Identity``. The copy is for
    inference: it has gradients, but its norms do not follow changes of the statistics. Modules with a true
    ``foreign_norms``, whose order of registration is arbitrary, are unchanged, and so are subclasses of batch norm that
    compute more than it does.
    """
    folded = copy.deepcopy(module)
    foreign = {id(m) for outer in folded.modules() if getattr(outer, "foreign_norms", False) for m in outer.modules()}
    for parent in list(folded.modules()):
        if id(parent) in foreign:
            continue
        children = list(parent.named_children())
        for (_, conv), (name, norm) in itertools.pairwise(children):
            if not isinstance(conv, nn.Conv2d | nn.ConvTranspose2d) or (conv.transposed and conv.groups > 1):
                continue
            if _is_fixed(norm) and _channels(norm) == conv.out_channels:
                _fold(conv, norm)
                setattr(parent, name, nn.Identity())
    return folded


def _is_fixed(norm: nn.Module) -> bool:
    if isinstance(norm, FrozenBatchNorm):
        return True
    plain = isinstance(norm, _BatchNorm) and type(norm).forward in (_BatchNorm.forward, nn.SyncBatchNorm.forward)
    return plain and not norm.training and norm.running_var is not None


def _channels(norm: nn.Module) -> int:
    assert isinstance(norm.running_mean, Tensor)
    return norm.running_mean.numel()


@torch.no_grad()
def _fold(conv: nn.Conv2d | nn.ConvTranspose2d, norm: nn.Module) -> None:
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
    # The second dimension of a transposed convolution's weight is that of the outputs.
    conv.weight.mul_(scale[:, None, None] if conv.transposed else scale[:, None, None, None])
    conv.bias = nn.Parameter(shift.to(conv.weight.dtype), requires_grad=conv.weight.requires_grad)
