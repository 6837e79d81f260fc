"""EfficientNet-Lite 0 to 2: EfficientNet (Tan and Le, arXiv 1905.11946) without squeeze-and-excitation, with ReLU6.

Google published the Lite networks as code and weights (tensorflow/tpu, ``efficientnet/lite``), not in a paper. They
differ from EfficientNet in three points: no squeeze-and-excitation, ReLU6 in place of swish, and the stem, the last 1x1
convolution and the depths of the first and last stage are not scaled. The classifiers have 4,652,008 / 5,416,680 /
6,092,072 parameters (published: 4.7 / 5.4 / 6.1 M). At 224, 240 and 260 pixels their convolutions have 0.385 / 0.600 /
0.860 G multiply-adds; the published 0.407 / 0.631 / 0.899 G count norms and activations too.

Level ``Cn`` is the output of the last block of stride ``2^n``. All convolutions are padded as TensorFlow's ``SAME``: a
stride on a side of even length pads one pixel less in front, so that the weights see what they were trained on.

``detnet`` applies DetNet's idea (Li et al., arXiv 1804.06215) to the same weights: stages 5 and 6 keep the stride 16 by
dilation, and the last stage of the table becomes the sixth level. Departure from DetNet: no new blocks are added, so
every layer has ImageNet weights.

Symbols: B images, C channels, H W pixels of the padded input, k kernel, s stride.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from boxwright.backbones.layers.blocks import check_levels, divisible
from boxwright.backbones.layers.norm import ConvNormAct, Norm, conv_norm, stage_norm
from boxwright.fields import Count, CountOrZero, config
from boxwright.structures import InputError, Level

_EPS, _MOMENTUM = 1e-3, 0.01
"""Constants of the batch norms of the published networks; TensorFlow writes the momentum as 0.99."""

_STEM, _LAST = 32, 1280

_TABLE = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
"""EfficientNet's table 1: expansion, kernel, stride of the first block, channels, number of blocks."""

_SCALES = {0: (1.0, 1.0, 0.2), 1: (1.0, 1.1, 0.2), 2: (1.1, 1.2, 0.3)}
"""Factors on channels and on numbers of blocks, and the dropout of the classifier, of each version."""

INPUT_SIZES = {0: 224, 1: 240, 2: 260}
"""Side of the images that each version was trained on, in pixels."""


@config
class EfficientNetLiteConfig:
    """An EfficientNet-Lite; the defaults are Lite0 without its classifier and last convolution."""

    kind: Literal["efficientnet_lite"] = "efficientnet_lite"
    version: Literal[0, 1, 2] = 0
    """Lite0, Lite1 or Lite2."""
    norm: Norm = "bn"
    """Normalisation. ``frozen_bn`` needs loaded weights; train from scratch with ``bn`` or ``gn``."""
    freeze_at: CountOrZero = 0
    """Stages up to that of ``C{freeze_at}`` are not trained, with the stem; 0 freezes nothing."""
    output_stride: Literal[16, 32] = 32
    """Stride of ``C5``; 16 dilates its convolutions instead of striding."""
    detnet: bool = False
    """Make the last stage a level ``C6`` of its own, at stride 16 as ``C4`` and ``C5``; needs ``output_stride`` 16."""
    out_levels: tuple[Count, ...] = (2, 3, 4, 5)
    """Levels ``Cn`` that are returned, from 1 to 5, with ``detnet`` to 6. Layers above the last one are not built."""

    def __post_init__(self) -> None:
        check_levels(self.out_levels, self.freeze_at, 6 if self.detnet else 5, first=1)
        if self.detnet and self.output_stride != 16:
            raise InputError(f"output_stride = {self.output_stride}: must be 16 with detnet")


class LiteBlock(NamedTuple):
    """Constants of one block; ``replaced`` tells that dilation stands in for its stride of 2."""

    inputs: int
    outputs: int
    expansion: int
    kernel: int
    stride: int
    dilation: int
    replaced: bool
    level: int


def lite_blocks(config: EfficientNetLiteConfig) -> list[LiteBlock]:
    """Return the blocks of ``config`` in order, up to its last level."""
    width, depth, _ = _SCALES[config.version]
    blocks: list[LiteBlock] = []
    inputs, level, dilation = _STEM, 1, 1
    for number, (expansion, kernel, stride, channels, count) in enumerate(_TABLE):
        scaled = 0 < number < len(_TABLE) - 1
        outputs = divisible(channels * width)
        last_stage = number == len(_TABLE) - 1
        level += stride == 2 or (config.detnet and last_stage)
        if level > max(config.out_levels):
            break
        replaced = stride == 2 and level == 5 and config.output_stride == 16
        for i in range(math.ceil(count * depth) if scaled else count):
            first = i == 0
            blocks.append(
                LiteBlock(
                    inputs,
                    outputs,
                    expansion,
                    kernel,
                    stride if first and not replaced else 1,
                    # The convolution that lost its stride read the map of stride 16 at spacing 1, and still does.
                    dilation,
                    first and replaced,
                    level,
                )
            )
            if first and replaced:
                dilation = 2
            inputs = outputs
    return blocks


class SameConv(ConvNormAct):
    """Convolution, norm and ReLU6, padded as ``SAME`` for a stride of 2, or for one that dilation ``replaced``.

    Of ``k - 1`` pixels of padding, a side of even length has ``(k - 2) // 2`` in front and one of odd length
    ``(k - 1) // 2``. Convolutions that keep the size are padded evenly.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        *,
        norm: str,
        groups: int = 1,
        dilation: int = 1,
        replaced: bool = False,
    ) -> None:
        act = nn.ReLU6(inplace=True)
        super().__init__(
            inputs, outputs, kernel, stride, norm=norm, act=act, groups=groups, eps=_EPS, momentum=_MOMENTUM
        )
        conv = self[0]
        assert isinstance(conv, nn.Conv2d)
        self.kernel, self.uneven, self.strided = kernel, stride == 2 or replaced, stride == 2
        if self.uneven:
            conv.padding = (0, 0)
        else:
            conv.dilation, conv.padding = (dilation, dilation), (dilation * (kernel // 2),) * 2

    def linear(self, x: Tensor) -> Tensor:
        """``[B, inputs, H, W] -> [B, outputs, ceil(H / s), ceil(W / s)]`` without the activation."""
        conv = self[0]
        assert isinstance(conv, nn.Conv2d)
        if self.uneven:
            x = F.pad(x, (*self._padding(x.shape[3]), *self._padding(x.shape[2])))
        return conv_norm(x, conv, self[1])

    def _padding(self, length: int) -> tuple[int, int]:
        """Return the pixels of padding before and behind a side of ``length``."""
        total = self.kernel - 2 + length % 2
        before = total // 2
        return before, (total if self.strided else self.kernel - 1) - before


class LiteBottleneck(nn.Module):
    """1x1 expansion, depthwise convolution, linear 1x1 projection; a shortcut where the shape is kept."""

    def __init__(self, block: LiteBlock, norm: str) -> None:
        super().__init__()
        hidden = block.inputs * block.expansion
        self.expand = SameConv(block.inputs, hidden, 1, norm=norm) if block.expansion > 1 else None
        self.depthwise = SameConv(
            hidden,
            hidden,
            block.kernel,
            block.stride,
            norm=norm,
            groups=hidden,
            dilation=block.dilation,
            replaced=block.replaced,
        )
        self.project = ConvNormAct(hidden, block.outputs, 1, norm=norm, act=None, eps=_EPS, momentum=_MOMENTUM)
        self.shortcut = block.stride == 1 and not block.replaced and block.inputs == block.outputs

    def forward(self, x: Tensor) -> Tensor:
        """``[B, inputs, H, W] -> [B, outputs, ceil(H / s), ceil(W / s)]``."""
        hidden = x if self.expand is None else self.expand(x)
        out = self.project(self.depthwise(hidden))
        # In place: neither a convolution nor a batch norm keeps its output for the backward pass.
        return out.add_(x) if self.shortcut else out


class EfficientNetLite(nn.Module):
    """Stem and blocks of one version.

    ``levels`` states what ``forward`` returns, in that order; a map of stride ``s`` has ``ceil(H / s)`` rows. The
    stages up to ``freeze_at`` are not trained and their batch norms are frozen; autograd records nothing there.
    """

    def __init__(self, config: EfficientNetLiteConfig) -> None:
        super().__init__()
        self.version = config.version
        blocks = lite_blocks(config)
        self.stem = SameConv(3, _STEM, 3, 2, norm=stage_norm(config.norm, 1, config.freeze_at))
        self.blocks = nn.ModuleList(
            LiteBottleneck(block, stage_norm(config.norm, block.level, config.freeze_at)) for block in blocks
        )
        ends = {block.level: i for i, block in enumerate(blocks)}  # the last block of each level
        self._taps = frozenset(ends[n] for n in config.out_levels)
        stride_16 = 4 if config.output_stride == 16 else 5
        self.levels: tuple[Level, ...] = tuple(
            Level(f"C{n}", 2 ** min(n, stride_16), blocks[ends[n]].outputs) for n in config.out_levels
        )
        init_lite(self)
        if config.freeze_at:
            self.stem.requires_grad_(False)
        for block, layer in zip(blocks, self.blocks, strict=True):
            if block.level <= config.freeze_at:
                layer.requires_grad_(False)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Features of normalised images ``[B, 3, H, W]``: a ``[B, C, ceil(H / stride), ceil(W / stride)]`` a level."""
        features: list[Tensor] = []
        x = self.stem(x)
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in self._taps:
                features.append(x)
        return features


class EfficientNetLiteHead(nn.Module):
    """Classifier: 1x1 convolution to 1280 channels, global average, dropout, linear layer."""

    def __init__(self, backbone: EfficientNetLite, num_classes: int) -> None:
        super().__init__()
        self.last = SameConv(backbone.levels[-1].channels, _LAST, 1, norm="bn")
        init_lite(self.last)
        self.dropout = nn.Dropout(_SCALES[backbone.version][2])
        self.linear = nn.Linear(_LAST, num_classes)
        nn.init.uniform_(self.linear.weight, -(num_classes**-0.5), num_classes**-0.5)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W] -> [B, K]``."""
        return self.linear(self.dropout(torch.mean(self.last(x), dim=(2, 3))))


def init_lite(module: nn.Module) -> None:
    """Initialise convolutions as the authors do: normal, with the variance 2 / (k^2 outputs)."""
    for conv in module.modules():
        if isinstance(conv, nn.Conv2d):
            fan_out = conv.kernel_size[0] * conv.kernel_size[1] * conv.out_channels // conv.groups
            nn.init.normal_(conv.weight, 0, math.sqrt(2 / fan_out))
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)
