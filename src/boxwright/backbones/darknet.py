"""Backbones of Darknet (pjreddie/darknet): Darknet-19, Darknet-53, and those of YOLOv1 and of the tiny detectors.

YOLOv1 is arXiv 1506.02640 (its figure 3), Darknet-19 arXiv 1612.08242 (table 6), Darknet-53 arXiv 1804.02767 (table 1).
Level ``Cn`` is the last map of stride ``2^n``: ``C4`` and ``C5`` of Darknet-19 are the 26 x 26 x 512 and 13 x 13 x 1024
of YOLOv2, ``C3``, ``C4``, ``C5`` of Darknet-53 are layers 36, 61 and 74 of yolov3.cfg.

Every convolution has batch norm (eps 1e-5, momentum .01) and a leaky ReLU of slope
.1. Convolutions are registered in the order in which Darknet's ``.weights`` files hold them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from boxwright.backbones.layers.blocks import check_levels
from boxwright.backbones.layers.norm import ConvNormAct, OptionalNorm, stage_norm
from boxwright.backbones.layers.pooling import HalvingMaxPool2d
from boxwright.fields import Count, CountOrZero, config
from boxwright.structures import Level

SLOPE = 0.1


@dataclass(frozen=True, slots=True)
class Conv:
    """A convolution of ``channels`` outputs at width 1, with norm and leaky ReLU."""

    channels: int
    kernel: int = 3
    stride: int = 1


@dataclass(frozen=True, slots=True)
class Residual:
    """``count`` residual blocks: a 1x1 convolution to ``channels`` / 2, a 3x3 one back, and a shortcut."""

    channels: int
    count: int


Layer: TypeAlias = Conv | Residual | Literal["pool", "pool1"]
"""``pool``: max 2x2 with stride 2. ``pool1``: max 2x2 with stride 1, which keeps the size."""

TrunkStage: TypeAlias = tuple[Layer, ...]


def _plain(*channels: int) -> tuple[TrunkStage, ...]:
    """Return stages of one 3x3 convolution each, separated by pools."""
    return tuple((Conv(c),) if i == 0 else ("pool", Conv(c)) for i, c in enumerate(channels))


def _pairs(count: int, channels: int) -> TrunkStage:
    """Return ``count`` pairs of a 1x1 convolution to half of ``channels`` and a 3x3 one to ``channels``."""
    return (Conv(channels // 2, 1), Conv(channels)) * count


_DARKNET53: tuple[TrunkStage, ...] = (
    (Conv(32),),
    *(
        (Conv(channels, stride=2), Residual(channels, count))
        for channels, count in ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4))
    ),
)
_DARKNET19: tuple[TrunkStage, ...] = (
    *_plain(32, 64),
    ("pool", Conv(128), *_pairs(1, 128)),
    ("pool", Conv(256), *_pairs(1, 256)),
    ("pool", Conv(512), *_pairs(2, 512)),
    ("pool", Conv(1024), *_pairs(2, 1024)),
)
_EXTRACTION: tuple[TrunkStage, ...] = (
    (),
    (Conv(64, 7, 2),),
    ("pool", Conv(192)),
    ("pool", Conv(128, 1), Conv(256), Conv(256, 1), Conv(512)),
    ("pool", *_pairs(4, 512), Conv(512, 1), Conv(1024)),
    ("pool", *_pairs(2, 1024)),
)
_YOLOV1: tuple[TrunkStage, ...] = (
    *_EXTRACTION[:-1],
    (*_EXTRACTION[-1], Conv(1024)),
    (Conv(1024, stride=2), Conv(1024), Conv(1024)),
)
_TINY: tuple[TrunkStage, ...] = (*_plain(16, 32, 64, 128, 256), ("pool", Conv(512), "pool1", Conv(1024)))

VARIANTS: dict[str, tuple[TrunkStage, ...]] = {
    "darknet19": _DARKNET19,
    "darknet53": _DARKNET53,
    "tiny_v2": _TINY,  # the two tiny detectors differ only in their heads
    "tiny_v3": _TINY,
    "extraction": _EXTRACTION,
    "yolov1": _YOLOV1,
    "yolov1_fast": (*_plain(16, 32, 64, 128, 256, 512), ("pool", Conv(1024), Conv(1024), Conv(1024))),
    "yolov1_tiny": (*_plain(16, 32, 64, 128, 256, 512), ("pool", Conv(1024), Conv(256))),
}
"""Stages 0, 1, ... of each network; stage n has the maps of stride ``2^n``."""

Variant = Literal["darknet19", "darknet53", "tiny_v2", "tiny_v3", "extraction", "yolov1", "yolov1_fast", "yolov1_tiny"]


@config
class DarknetConfig:
    """A backbone of Darknet; the default is Darknet-53."""

    kind: Literal["darknet"] = "darknet"
    variant: Variant = "darknet53"
    """Network whose convolutions are built.

    ``tiny_v2`` and ``tiny_v3`` (Tiny YOLOv2 and v3) are the same network. ``yolov1`` has the 24 convolutions of YOLOv1,
    ``extraction`` the first 20 of them, which are pretrained, ``yolov1_fast`` the 9 of Fast YOLO and ``yolov1_tiny``
    the 8 of the later tiny-yolo(v1).cfg.
    """
    width: Annotated[float, Field(gt=0, lt=100)] = 1.0
    """Factor on all channels, which become multiples of 8."""
    norm: OptionalNorm = "bn"
    """Normalisation. ``none`` is YOLOv1 as published, with biases; ``frozen_bn`` needs loaded weights."""
    freeze_at: CountOrZero = 0
    """Stages up to that of ``C{freeze_at}`` are not trained; 0 freezes nothing."""
    out_levels: tuple[Count, ...] = (3, 4, 5)
    """Levels ``Cn`` that are returned. Layers above the last one are not built."""

    def __post_init__(self) -> None:
        check_levels(self.out_levels, self.freeze_at, len(VARIANTS[self.variant]) - 1, first=1)


def conv_bn_leaky(inputs: int, outputs: int, kernel: int, stride: int = 1, norm: str = "bn") -> ConvNormAct:
    """Build a convolution of Darknet, padded to keep the size, with norm and a leaky ReLU of slope .1."""
    act = nn.LeakyReLU(SLOPE, inplace=True)
    return ConvNormAct(inputs, outputs, kernel, stride, norm=norm, act=act, eps=1e-5, momentum=0.01)


def init_darknet(module: nn.Module) -> None:
    """Initialise the convolutions of ``module`` as Darknet does: normal with variance 2 / fan_in, biases 0."""
    for conv in module.modules():
        if isinstance(conv, nn.Conv2d):
            nn.init.kaiming_normal_(conv.weight, mode="fan_in", nonlinearity="relu")
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)


class ResidualBlock(nn.Module):
    """1x1 and 3x3 convolutions beside a shortcut, with nothing after the sum."""

    def __init__(self, channels: int, mid: int, norm: str) -> None:
        super().__init__()
        self.conv1 = conv_bn_leaky(channels, mid, 1, norm=norm)
        self.conv2 = conv_bn_leaky(mid, channels, 3, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, channels, H, W]`` to the same shape."""
        out = self.conv2(self.conv1(x))
        # The in-place leaky ReLU keeps its output for the backward pass, so only without one may the sum overwrite it.
        return out + x if out.requires_grad else out.add_(x)


class HoldPool(nn.Module):
    """Darknet's 2x2 max pool of stride 1, padded by one row below and one column on the right to keep the size."""

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]`` to the same shape."""
        # Not zeros: outputs of a leaky ReLU may be negative everywhere.
        return F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=float("-inf")), 2, 1)


class Darknet(nn.Module):
    """The stages of a Darknet.

    ``levels`` states what ``forward`` returns, in that order; a map of stride ``s`` has ``ceil(H / s)`` rows. The
    stages up to ``freeze_at`` are not trained and their batch norms are frozen; autograd records nothing there.
    """

    def __init__(self, config: DarknetConfig) -> None:
        super().__init__()
        levels: list[Level] = []
        channels = 3
        self.variant = config.variant
        self._wanted = config.out_levels
        self.stages = nn.ModuleList()
        for number, stage in enumerate(VARIANTS[config.variant][: max(config.out_levels) + 1]):
            norm = stage_norm(config.norm, max(number, 1), config.freeze_at)
            layers: list[nn.Module] = []
            for layer in stage:
                built, channels = _build_layer(layer, channels, config.width, norm)
                layers += built
            self.stages.append(nn.ModuleList(layers))
            if number in config.out_levels:
                levels.append(Level(f"C{number}", 2**number, channels))
        self.levels: tuple[Level, ...] = tuple(levels)
        init_darknet(self)
        if config.freeze_at:
            for module in self.stages[: config.freeze_at + 1]:
                module.requires_grad_(False)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Features of normalised images ``[B, 3, H, W]``: a ``[B, C, ceil(H / stride), ceil(W / stride)]`` a level."""
        features: list[Tensor] = []
        # The activation is delayed: it commutes with a max pool, and is cheaper after one.
        waiting = False
        for number, stage in enumerate(self.stages):
            assert isinstance(stage, nn.ModuleList)
            for layer in stage:
                if waiting and not isinstance(layer, nn.MaxPool2d):
                    x = F.leaky_relu_(x, SLOPE)
                waiting = isinstance(layer, ConvNormAct) or (waiting and isinstance(layer, nn.MaxPool2d))
                x = layer.linear(x) if isinstance(layer, ConvNormAct) else layer(x)
            if number in self._wanted:
                x = F.leaky_relu_(x, SLOPE) if waiting else x
                waiting = False
                features.append(x)
        return features


def _build_layer(layer: Layer, inputs: int, width: float, norm: str) -> tuple[list[nn.Module], int]:
    """Build the modules of one table entry for ``inputs`` channels; return them and their output channels."""
    match layer:
        case "pool":
            # Darknet's size and padding round up, with the extra row below and column on the right.
            return [HalvingMaxPool2d(ceil_mode=True)], inputs
        case "pool1":
            return [HoldPool()], inputs
        case Conv(channels, kernel, stride):
            outputs = scaled(channels, width)
            return [conv_bn_leaky(inputs, outputs, kernel, stride, norm)], outputs
        case Residual(channels, count):
            mid = scaled(channels // 2, width)
            return [ResidualBlock(inputs, mid, norm) for _ in range(count)], inputs


def scaled(channels: int, width: float) -> int:
    """Return ``channels`` times ``width``, rounded to a multiple of 8, at least 8."""
    return max(8, round(channels * width / 8) * 8)
