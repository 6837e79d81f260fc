"""MobileNet V1 (arXiv 1704.04861), V2 (arXiv 1801.04381) and V3-Large (arXiv 1905.02244).

Level ``Cn`` is the output of the last block of stride ``2^n``; in V1 ``C4`` and ``C5`` are the Conv2d_11 and Conv2d_13
that SSD reads. V2 and V3 end with a 1x1 convolution (to 1280 and 960 channels), which is the level ``C6``, at the
stride of ``C5``; the feature pyramid needs only ``C2`` to ``C5``.

The names of V2 and V3 are torchvision's (``features.0.0``, ``features.2.conv.1.0``, ``features.4.block.2.fc1``), so its
ImageNet weights fit; V1, which has none there, is named likewise. At 224 the classifiers have 4,231,976 / 3,504,872 /
5,483,032 parameters and 0.569 / 0.301 / 0.217 G multiply-adds.
"""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from boxwright.backbones.layers.blocks import check_levels, divisible
from boxwright.backbones.layers.norm import ConvNormAct, Norm, conv_norm, make_norm, set_norm_eps, stage_norm
from boxwright.fields import Count, CountOrZero, Fraction, config
from boxwright.structures import InputError, Level


@config
class MobileNetConfig:
    """A MobileNet; the defaults are torchvision's ``mobilenet_v2`` without its classifier and last convolution."""

    kind: Literal["mobilenet"] = "mobilenet"
    version: Literal[1, 2, 3] = 2
    """MobileNet V1, V2 or V3-Large."""
    width: Annotated[float, Field(gt=0, lt=100)] = 1.0
    """Factor on all channels, which become multiples of 8."""
    norm: Norm = "bn"
    """Normalisation. ``frozen_bn`` needs loaded weights; train from scratch with ``bn`` or ``gn``."""
    norm_eps: Fraction | None = None
    """Constant that batch norms add to the variance; None takes that of the classifiers, 1e-5 and in V3 1e-3.

    torchvision's Faster R-CNN has 1e-5 always.
    """
    freeze_at: CountOrZero = 0
    """Blocks up to those of ``C{freeze_at}`` are not trained, with the stem; 0 freezes nothing."""
    reduced: bool = False
    """Halve the channels from the first block of stride 32 on, as V3's authors do under detectors (V3 §6.3)."""
    tap: Literal["last", "first", "expansion"] = "last"
    """Position at which ``C1`` to ``C5`` are read, among the blocks of their stride.

    ``last`` and ``first`` (torchvision's pyramids) read after that block; ``expansion`` reads inside the block that
    leaves the stride, as SSDLite does with V2 and V3 (V2 §6.2, V3 §6.3), and gives no ``C5``.
    """
    out_levels: tuple[Count, ...] = (2, 3, 4, 5)
    """Levels ``Cn`` that are returned, from 1 to 5; in V2 and V3 also 6, the last 1x1 convolution.

    Layers above the last one are not built.
    """

    def __post_init__(self) -> None:
        check_levels(self.out_levels, self.freeze_at, 5 if self.version == 1 else 6, first=1)
        if self.reduced and self.version != 3:
            raise InputError("reduced = True: must be false but with version 3")
        if self.tap == "expansion" and self.version == 1:
            raise InputError("tap = 'expansion': must be last or first with version 1, which expands nothing")
        if self.tap == "expansion" and (5 in self.out_levels or 6 not in self.out_levels):
            raise InputError(f"out_levels = {self.out_levels!r}: must be without 5 and with 6 where tap is expansion")


class Block(NamedTuple):
    """A depthwise convolution between two 1x1; the first is left out where ``expanded`` equals ``inputs``."""

    inputs: int
    expanded: int
    outputs: int
    stride: int
    kernel: int = 3
    squeeze: int = 0
    hard: bool = False


_V1 = (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1)
"""Table 1 of V1: outputs and stride of each depthwise separable block."""

_V2 = (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)
"""Table 2 of V2: expansion, outputs, number of blocks, stride of the first."""

_V3 = (
    (3, 16, 16, False, False, 1),
    (3, 64, 24, False, False, 2),
    (3, 72, 24, False, False, 1),
    (5, 72, 40, True, False, 2),
    (5, 120, 40, True, False, 1),
    (5, 120, 40, True, False, 1),
    (3, 240, 80, False, True, 2),
    (3, 200, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 480, 112, True, True, 1),
    (3, 672, 112, True, True, 1),
    (5, 672, 160, True, True, 2),
    (5, 960, 160, True, True, 1),
    (5, 960, 160, True, True, 1),
)
"""Table 1 of V3: kernel, expanded channels, outputs, squeeze and excitation, hard swish, stride."""


def mobilenet_blocks(version: int, width: float, reduced: bool = False) -> tuple[int, list[Block]]:
    """Return the channels of the stem, and the blocks after it."""
    stem = inputs = divisible((16 if version == 3 else 32) * width)
    blocks: list[Block] = []
    match version:
        case 1:
            for channels, stride in _V1:
                outputs = divisible(channels * width)
                blocks.append(Block(inputs, inputs, outputs, stride))
                inputs = outputs
        case 2:
            for expansion, channels, count, stride in _V2:
                outputs = divisible(channels * width)
                for i in range(count):
                    blocks.append(Block(inputs, inputs * expansion, outputs, stride if i == 0 else 1))
                    inputs = outputs
        case _:
            for kernel, expanded, channels, squeeze, hard, stride in _V3:
                if reduced and channels == 160:
                    expanded, channels = expanded if stride == 2 else expanded // 2, channels // 2
                hidden, outputs = divisible(expanded * width), divisible(channels * width)
                squeezed = divisible(hidden // 4) if squeeze else 0
                blocks.append(Block(inputs, hidden, outputs, stride, kernel, squeezed, hard))
                inputs = outputs
    return stem, blocks


def conv_norm_act(
    version: int, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, *, norm: str, hard: bool
) -> ConvNormAct:
    """Build a convolution with norm and the activation of ``version``: ReLU, ReLU6, and in V3 ReLU or hard swish."""
    acts: dict[int, type[nn.Module]] = {1: nn.ReLU, 2: nn.ReLU6, 3: nn.Hardswish if hard else nn.ReLU}
    act = acts[version](inplace=True)
    eps, momentum = _norm_constants(version)
    return ConvNormAct(inputs, outputs, kernel, stride, norm=norm, act=act, groups=groups, eps=eps, momentum=momentum)


def last_conv(version: int, inputs: int, width: float, norm: str) -> tuple[ConvNormAct, int]:
    """Build the last 1x1 convolution of V2 or V3, whose output is classified; return it and its channels."""
    outputs = inputs * 6 if version == 3 else divisible(1280 * max(1.0, width))
    return conv_norm_act(version, inputs, outputs, 1, norm=norm, hard=True), outputs


def _norm_constants(version: int) -> tuple[float, float]:
    """Return ``eps`` and ``momentum`` of the batch norms, as in torchvision (V1 has those of V2)."""
    return (1e-3, 0.01) if version == 3 else (1e-5, 0.1)


class SqueezeExcitation(nn.Module):
    """Multiply each channel by a weight in 0..1, computed by two layers from the means of all channels (V3 §5.3)."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]`` to the same shape."""
        weight = F.hardsigmoid(self.fc2(F.relu_(self.fc1(x.mean((2, 3), keepdim=True)))))
        return x * weight


class InvertedResidualV2(nn.Module):
    """1x1 expansion, depthwise convolution, linear 1x1 projection; a shortcut where the shape is kept (V2 §3.3)."""

    def __init__(self, block: Block, norm: str) -> None:
        super().__init__()
        inputs, hidden, outputs, stride, *_ = block
        eps, momentum = _norm_constants(2)
        layers: list[nn.Module] = []
        if hidden != inputs:
            layers.append(conv_norm_act(2, inputs, hidden, 1, norm=norm, hard=False))
        layers.append(conv_norm_act(2, hidden, hidden, 3, stride, hidden, norm=norm, hard=False))
        layers += [nn.Conv2d(hidden, outputs, 1, bias=False), make_norm(norm, outputs, eps, momentum)]
        self.conv = nn.Sequential(*layers)
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """``[B, inputs, H, W] -> [B, outputs, H / stride, W / stride]``, rounded up."""
        out = self.project(self.expand(x)) if len(self.conv) == 4 else self.project(x)
        # In place: neither a convolution nor a batch norm keeps its output for the backward pass.
        return out.add_(x) if self.shortcut else out

    def expand(self, x: Tensor) -> Tensor:
        """Return the expanded map, before the depthwise convolution."""
        return self.conv[0](x)

    def project(self, x: Tensor) -> Tensor:
        """Turn the expanded map into the output of the block, without the shortcut."""
        *_, depthwise, project, norm = self.conv
        assert isinstance(project, nn.Conv2d)
        return conv_norm(depthwise(x), project, norm)


class InvertedResidualV3(nn.Module):
    """Block of V2 with squeeze and excitation before the projection, in the blocks that table 1 marks (V3 §5)."""

    def __init__(self, block: Block, norm: str) -> None:
        super().__init__()
        inputs, hidden, outputs, stride, kernel, squeezed, hard = block
        eps, momentum = _norm_constants(3)
        layers: list[nn.Module] = []
        if hidden != inputs:
            layers.append(conv_norm_act(3, inputs, hidden, 1, norm=norm, hard=hard))
        layers.append(conv_norm_act(3, hidden, hidden, kernel, stride, hidden, norm=norm, hard=hard))
        if squeezed:
            layers.append(SqueezeExcitation(hidden, squeezed))
        layers.append(ConvNormAct(hidden, outputs, 1, norm=norm, act=None, eps=eps, momentum=momentum))
        self.block = nn.Sequential(*layers)
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """``[B, inputs, H, W] -> [B, outputs, H / stride, W / stride]``, rounded up."""
        out = self.block(x)
        return out.add_(x) if self.shortcut else out

    def expand(self, x: Tensor) -> Tensor:
        """Return the expanded map, before the depthwise convolution."""
        return self.block[0](x)

    def project(self, x: Tensor) -> Tensor:
        """Turn the expanded map into the output of the block, without the shortcut."""
        return self.block[1:](x)


def _build_block(version: int, block: Block, norm: str) -> nn.Module:
    match version:
        case 1:
            return nn.Sequential(
                conv_norm_act(1, block.inputs, block.inputs, 3, block.stride, block.inputs, norm=norm, hard=False),
                conv_norm_act(1, block.inputs, block.outputs, 1, norm=norm, hard=False),
            )
        case 2:
            return InvertedResidualV2(block, norm)
        case _:
            return InvertedResidualV3(block, norm)


class MobileNet(nn.Module):
    """Stem and blocks of one version.

    ``levels`` states what ``forward`` returns, in that order; a map of stride ``s`` has ``ceil(H / s)`` rows. The
    stages up to ``freeze_at`` are not trained and their batch norms are frozen; autograd records nothing there.
    """

    def __init__(self, config: MobileNetConfig) -> None:
        super().__init__()
        self.version, self.width = config.version, config.width
        stem, blocks = mobilenet_blocks(config.version, config.width, config.reduced)
        top = max(config.out_levels)
        norm = stage_norm(config.norm, 1, config.freeze_at)
        layers: list[nn.Module] = [conv_norm_act(config.version, 3, stem, 3, 2, norm=norm, hard=True)]
        stages, channels = [1], [stem]
        for block in blocks:
            stage = stages[-1] + (block.stride == 2)
            if stage > top:
                break
            layers.append(_build_block(config.version, block, stage_norm(config.norm, stage, config.freeze_at)))
            stages.append(stage)
            channels.append(block.outputs)
        if top == 6:
            norm = stage_norm(config.norm, 6, config.freeze_at)
            tail, outputs = last_conv(config.version, channels[-1], config.width, norm)
            layers.append(tail)
            stages.append(6)
            channels.append(outputs)
        ends = {stage: i for i, stage in enumerate(stages)}  # the last layer of each stage
        places = {n: stages.index(n) if config.tap == "first" else ends[n] for n in config.out_levels}
        widths = {n: channels[place] for n, place in places.items()}
        self._expansions: frozenset[int] = frozenset()
        if config.tap == "expansion":
            places = {n: place if n == 6 else place + 1 for n, place in places.items()}
            widths |= {n: blocks[place - 1].expanded for n, place in places.items() if n != 6}
            self._expansions = frozenset(place for n, place in places.items() if n != 6)
        self._taps = frozenset(places.values())
        self.features = nn.Sequential(*layers[: max(self._taps) + 1])
        self.levels: tuple[Level, ...] = tuple(Level(f"C{n}", 2 ** min(n, 5), widths[n]) for n in config.out_levels)
        init_mobilenet(self)
        if config.norm_eps is not None:
            set_norm_eps(self, config.norm_eps)
        for layer, stage in zip(self.features, stages, strict=False):
            if stage <= config.freeze_at:
                layer.requires_grad_(False)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Features of normalised images ``[B, 3, H, W]``: a ``[B, C, ceil(H / stride), ceil(W / stride)]`` a level."""
        features: list[Tensor] = []
        for i, layer in enumerate(self.features):
            if i in self._expansions:
                assert isinstance(layer, InvertedResidualV2 | InvertedResidualV3)
                features.append(layer.expand(x))
                x = layer.project(features[-1])
                continue
            x = layer(x)
            if i in self._taps:
                features.append(x)
        return features


class MobileNetHead(nn.Module):
    """Classifier of V2 and V3: the last convolution unless the backbone has it, global average, linear layers."""

    def __init__(self, backbone: MobileNet, num_classes: int) -> None:
        super().__init__()
        last = backbone.levels[-1]
        self.last: nn.Module = nn.Identity()
        channels = last.channels
        if last.name != "C6":
            self.last, channels = last_conv(backbone.version, channels, backbone.width, "bn")
            init_mobilenet(self.last)
        layers: list[nn.Module] = []
        if backbone.version == 3:
            hidden = divisible(1280 * backbone.width)
            layers += [nn.Linear(channels, hidden), nn.Hardswish(inplace=True)]
            channels = hidden
        layers += [nn.Dropout(0.2), nn.Linear(channels, num_classes)]
        self.layers = nn.Sequential(*layers)
        for layer in layers:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, 0, 0.01)
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W] -> [B, K]``."""
        return self.layers(torch.mean(self.last(x), dim=(2, 3)))


def init_mobilenet(module: nn.Module) -> None:
    """Initialise convolutions as torchvision does: Kaiming normal by fan-out, biases 0."""
    for conv in module.modules():
        if isinstance(conv, nn.Conv2d):
            nn.init.kaiming_normal_(conv.weight, mode="fan_out")
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)
