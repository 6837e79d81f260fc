"""Residual blocks, and the backbone of a stem and residual stages that ResNet and DetNet share.

Symbols: B images, C channels, H W pixels of the padded input. Stage 1 is the stem; stage ``n`` gives the level ``Cn``.
Module names are torchvision's: ``conv1 bn1 layer1.0.conv1 layer1.0.bn1 ... layer1.0.downsample.0``; ``layer{n}`` is
stage ``n + 1``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from boxwright.backbones.layers.norm import FrozenBatchNorm, conv_norm, make_norm, stage_norm
from boxwright.structures import InputError, Level

StemPool = Literal["padded", "ceil"]
"""The stem's 3x3 max pool: padded by 1 on all sides, or not padded and rounded up (Caffe)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResidualStage:
    """One stage of residual blocks. Its first block has the stride and, where shapes change, the projection."""

    number: int
    """The stage gives the level ``Cn`` of this number."""
    block: Literal["basic", "bottleneck"]
    """Type of its blocks."""
    blocks: int
    """Number of blocks."""
    mid: int
    """Channels inside a block."""
    out: int
    """Channels of the output."""
    stride: int = 1
    """Stride of the first block."""
    dilation: int = 1
    """Dilation of the 3x3 convolutions."""
    opening_dilation: int | None = None
    """Dilation in the first block, where it differs from the others'."""
    project: bool = False
    """Add a 1x1 projection to the first block's shortcut even where no shape changes (DetNet's block B)."""


def check_levels(out_levels: tuple[int, ...], freeze_at: int, last: int, first: int = 2) -> None:
    """Check ``out_levels`` and ``freeze_at`` of a backbone that can return its stages ``first`` to ``last``.

    Raises InputError naming the field, its value and what is allowed.
    """
    inside = bool(out_levels) and all(first <= n <= last for n in out_levels)
    if not inside or list(out_levels) != sorted(set(out_levels)):
        raise InputError(f"out_levels = {out_levels!r}: must be stages in rising order, each from {first} to {last}")
    if freeze_at > max(out_levels):
        raise InputError(f"freeze_at = {freeze_at}: must be from 0 (nothing) and 1 (stem) to {max(out_levels)}")


def divisible(channels: float) -> int:
    """Round ``channels`` to a multiple of 8 of at least 8, at most a tenth smaller (MobileNetV2, EfficientNet)."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest


def check_zero_init(zero_init_residual: bool, norm: str) -> None:
    """Raise InputError for ``zero_init_residual`` with frozen norms: a frozen zero could never be trained away."""
    if zero_init_residual and norm == "frozen_bn":
        raise InputError("zero_init_residual = True: must be false with norm = frozen_bn")


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    """Build a convolution without bias. Its map has the size of the input divided by the stride, rounded up."""
    padding = dilation * (kernel - 1) // 2
    return nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, bias=False)


def _projection(inputs: int, outputs: int, stride: int, norm: str) -> nn.Sequential:
    return nn.Sequential(_conv(inputs, outputs, 1, stride), make_norm(norm, outputs))


def _shortcut(x: Tensor, projection: nn.Sequential | None) -> Tensor:
    if projection is None:
        return x
    conv = projection[0]
    assert isinstance(conv, nn.Conv2d)
    return conv_norm(x, conv, projection[1])


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut (ResNet-18 and 34)."""

    def __init__(self, inputs: int, stage: ResidualStage, stride: int, dilation: int, project: bool, norm: str) -> None:
        super().__init__()
        self.conv1 = _conv(inputs, stage.mid, 3, stride, dilation)
        self.bn1 = make_norm(norm, stage.mid)
        self.conv2 = _conv(stage.mid, stage.out, 3, 1, dilation)
        self.bn2 = make_norm(norm, stage.out)
        self.downsample = _projection(inputs, stage.out, stride, norm) if project else None

    def forward(self, x: Tensor) -> Tensor:
        """``[B, inputs, H, W] -> [B, out, H / stride, W / stride]``, rounded up."""
        out = F.relu_(conv_norm(x, self.conv1, self.bn1))
        out = conv_norm(out, self.conv2, self.bn2)
        # In place: neither a convolution nor a batch norm keeps its output for the backward pass.
        return F.relu_(out.add_(_shortcut(x, self.downsample)))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut (ResNet-50 and deeper, DetNet's blocks A and B)."""

    def __init__(
        self,
        inputs: int,
        stage: ResidualStage,
        stride: int,
        dilation: int,
        project: bool,
        norm: str,
        stride_in_1x1: bool,
    ) -> None:
        super().__init__()
        first, second = (stride, 1) if stride_in_1x1 else (1, stride)
        self.conv1 = _conv(inputs, stage.mid, 1, first)
        self.bn1 = make_norm(norm, stage.mid)
        self.conv2 = _conv(stage.mid, stage.mid, 3, second, dilation)
        self.bn2 = make_norm(norm, stage.mid)
        self.conv3 = _conv(stage.mid, stage.out, 1)
        self.bn3 = make_norm(norm, stage.out)
        self.downsample = _projection(inputs, stage.out, stride, norm) if project else None

    def forward(self, x: Tensor) -> Tensor:
        """``[B, inputs, H, W] -> [B, out, H / stride, W / stride]``, rounded up."""
        out = F.relu_(conv_norm(x, self.conv1, self.bn1))
        out = F.relu_(conv_norm(out, self.conv2, self.bn2))
        out = conv_norm(out, self.conv3, self.bn3)
        return F.relu_(out.add_(_shortcut(x, self.downsample)))


def build_stage(inputs: int, stage: ResidualStage, norm: str, stride_in_1x1: bool) -> nn.Sequential:
    """Build the blocks of ``stage`` for a map of ``inputs`` channels."""
    blocks: list[nn.Module] = []
    for i in range(stage.blocks):
        opening = i == 0
        stride = stage.stride if opening else 1
        dilation = stage.opening_dilation if opening and stage.opening_dilation else stage.dilation
        project = opening and (stage.project or stride != 1 or inputs != stage.out)
        if stage.block == "basic":
            blocks.append(BasicBlock(inputs, stage, stride, dilation, project, norm))
        else:
            blocks.append(Bottleneck(inputs, stage, stride, dilation, project, norm, stride_in_1x1))
        inputs = stage.out
    return nn.Sequential(*blocks)


def initialise(stages: nn.Module, zero_init_residual: bool) -> None:
    """Initialise convolutions as Kaiming normal. With ``zero_init_residual`` each block starts as its shortcut."""
    for module in stages.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif zero_init_residual and isinstance(module, BasicBlock | Bottleneck):
            last = module.bn2 if isinstance(module, BasicBlock) else module.bn3
            assert isinstance(last.weight, Tensor)
            if not isinstance(last, FrozenBatchNorm):  # a frozen zero could never be trained away
                nn.init.zeros_(last.weight)


class ResidualBackbone(nn.Module):
    """Stem (7x7 convolution and 3x3 max pool, both with stride 2) and residual stages.

    ``levels`` states what ``forward`` returns, in that order; a map of stride ``s`` has ``ceil(H / s)`` rows. Stages
    above the last output level are not built, so no parameter goes unused. The first ``freeze_at`` stages (1 is the
    stem) are not trained and their batch norms are frozen; autograd records nothing there, so no activation is kept.
    """

    def __init__(
        self,
        width: int,
        stages: list[ResidualStage],
        *,
        norm: str,
        stride_in_1x1: bool,
        out_levels: tuple[int, ...],
        freeze_at: int,
        zero_init_residual: bool,
        stem_pool: StemPool = "padded",
    ) -> None:
        super().__init__()
        self.conv1 = _conv(3, width, 7, 2)
        self.bn1 = make_norm(stage_norm(norm, 1, freeze_at), width)
        self.maxpool = nn.MaxPool2d(3, 2, 1) if stem_pool == "padded" else nn.MaxPool2d(3, 2, ceil_mode=True)
        channels, stride = width, 4
        levels: list[Level] = []
        names: list[tuple[str, bool]] = []
        for stage in stages:
            if stage.number > max(out_levels):
                break
            name = f"layer{stage.number - 1}"
            own_norm = stage_norm(norm, stage.number, freeze_at)
            self.add_module(name, build_stage(channels, stage, own_norm, stride_in_1x1))
            channels, stride = stage.out, stride * stage.stride
            names.append((name, stage.number in out_levels))
            if stage.number in out_levels:
                levels.append(Level(f"C{stage.number}", stride, channels))
        self.levels: tuple[Level, ...] = tuple(levels)
        self._stages = tuple(names)
        initialise(self, zero_init_residual)
        self._freeze(freeze_at)

    def _freeze(self, freeze_at: int) -> None:
        frozen = [self.conv1, self.bn1] if freeze_at >= 1 else []
        frozen += [getattr(self, f"layer{n - 1}") for n in range(2, freeze_at + 1)]
        for module in frozen:
            module.requires_grad_(False)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Features of normalised images ``[B, 3, H, W]``: a ``[B, C, ceil(H / stride), ceil(W / stride)]`` a level."""
        # ReLU after the pool gives the same values and gradients as before it, on a quarter of the elements.
        x = F.relu_(self.maxpool(conv_norm(x, self.conv1, self.bn1)))
        features: list[Tensor] = []
        for name, wanted in self._stages:
            x = self.get_submodule(name)(x)
            if wanted:
                features.append(x)
        return features
