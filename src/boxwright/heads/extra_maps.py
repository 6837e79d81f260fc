"""Layers that add coarser maps above a backbone's (SSD §2.1, RefineDet §3.1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from torch import nn

from boxwright.backbones.layers.blocks import Bottleneck, ResidualStage
from boxwright.backbones.layers.norm import ConvNormAct, make_norm
from boxwright.fields import Count, CountOrZero, config
from boxwright.structures import InputError, Level


@config
class ExtraConfig:
    """One map of SSD above the backbone: a 1x1 and a ``kernel`` x ``kernel`` convolution, each with ReLU (figure 2)."""

    hidden: Count
    """Channels of the 1x1 convolution."""
    out: Count
    """Channels of the map."""
    kernel: Count = 3
    """Kernel size of the second convolution."""
    stride: Count = 2
    """Stride of the second convolution."""
    padding: CountOrZero = 1
    """Padding of the second convolution."""


# conv8_2 to conv11_2, and to conv12_2 (SSD §3.1, §3.2).
EXTRAS_300 = (
    ExtraConfig(hidden=256, out=512),
    ExtraConfig(hidden=128, out=256),
    ExtraConfig(hidden=128, out=256, stride=1, padding=0),
    ExtraConfig(hidden=128, out=256, stride=1, padding=0),
)
EXTRAS_512 = (
    ExtraConfig(hidden=256, out=512),
    ExtraConfig(hidden=128, out=256),
    ExtraConfig(hidden=128, out=256),
    ExtraConfig(hidden=128, out=256),
    ExtraConfig(hidden=128, out=256, kernel=4, stride=1),
)


def extra_layers(inputs: int, extra: ExtraConfig, norm: str, separable: bool) -> nn.Sequential:
    """Build the layers of one extra map. ``separable``: SSDLite's, with a depthwise convolution and ReLU6.

    Raises InputError if a separable map has another kernel or padding than 3 and 1.
    """
    if separable:
        if (extra.kernel, extra.padding) != (3, 1):
            raise InputError(f"extras: separable layers have a kernel of 3 and a padding of 1, not {extra}")
        return nn.Sequential(
            ConvNormAct(inputs, extra.hidden, 1, norm=norm, act=nn.ReLU6(inplace=True)),
            depthwise(extra.hidden, extra.stride, norm),
            ConvNormAct(extra.hidden, extra.out, 1, norm=norm, act=nn.ReLU6(inplace=True)),
        )
    bias = norm == "none"
    return nn.Sequential(
        ConvNormAct(inputs, extra.hidden, 1, norm=norm, act=nn.ReLU(inplace=True)),
        nn.Conv2d(extra.hidden, extra.out, extra.kernel, extra.stride, extra.padding, bias=bias),
        make_norm(norm, extra.out),
        nn.ReLU(inplace=True),
    )


def check_extra_sizes(extras: Sequence[ExtraConfig], size: tuple[int, int], stride: int) -> None:
    """Raise InputError if an extra map would have no cells.

    ``size``: height and width of the input. ``stride``: of the backbone's last map.
    """
    sides = [math.ceil(side / stride) for side in size]
    for i, extra in enumerate(extras):
        sides = [(side + 2 * extra.padding - extra.kernel) // extra.stride + 1 for side in sides]
        if min(sides) < 1:
            raise InputError(
                f"extras.{i} would make a map without cells from an input of {size[0]} x {size[1]}; "
                f"use {i} extras or a larger size"
            )


def depthwise(channels: int, stride: int, norm: str) -> ConvNormAct:
    """Build a 3x3 depthwise convolution with norm and ReLU6 (MobileNetV2 §6.2)."""
    return ConvNormAct(channels, channels, 3, stride, norm=norm, act=nn.ReLU6(inplace=True), groups=channels)


def residual_block(inputs: int, hidden: int, outputs: int, stride: int, norm: str) -> Bottleneck:
    """Build a bottleneck block with a projection on its shortcut."""
    stage = ResidualStage(number=6, block="bottleneck", blocks=1, mid=hidden, out=outputs)
    return Bottleneck(inputs, stage, stride, 1, True, norm, stride_in_1x1=True)


def top_layers(
    kind: Literal["convs", "residual", "none"], last: Level, channels: tuple[int, int], norm: str
) -> nn.Module | None:
    """Build RefineDet's layers for one map of twice the stride of ``last``, or return None for ``kind`` "none".

    ``channels``: hidden and output width.
    """
    hidden, width = channels
    match kind:
        case "none":
            return None
        case "residual":
            return residual_block(last.channels, hidden, width, 2, norm)
        case "convs":
            relu = nn.ReLU(inplace=True)
            return nn.Sequential(
                ConvNormAct(last.channels, hidden, 1, norm=norm, act=relu),
                ConvNormAct(hidden, width, 3, 2, norm=norm, act=relu),
            )
