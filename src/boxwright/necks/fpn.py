"""Feature pyramid network (Lin et al. 2017, arXiv 1612.03144), for any strides that its levels declare.

Every level gets a lateral 1x1 convolution to a common width, plus the map of the level above: upsampled where that has
a larger stride, and as it is where strides are equal (DetNet's stages 4, 5 and 6). Then a 3x3 convolution smooths the
sum. The unsmoothed sum goes further down. Neither convolution has a norm or an activation in the paper.

RetinaNet (Lin et al. 2017, arXiv 1708.02002) adds coarser levels by 3x3 convolutions instead of pooling: the first on
the backbone's top map, and each further one on the ReLU of the level below it. That ReLU is the convolution's alone:
the level itself is not activated.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from boxwright.fields import Channels, config
from boxwright.structures import InputError, Level


@config
class FPNConfig:
    """An FPN; the defaults are the paper's.

    The second values of ``output_convs``, ``upsample`` and ``passed_down`` together are guoruoqian/DetNet_pytorch.
    """

    kind: Literal["fpn"] = "fpn"
    channels: Channels = 256
    """Channels of every output level."""
    extra: Literal["auto", "pool", "none", "conv_c", "conv_p"] = "auto"
    """Levels that are added above the top.

    ``pool`` adds one by taking every second pixel (P6 on ResNet). ``auto`` pools unless the backbone has a C6 (DetNet).
    ``conv_c`` and ``conv_p`` add a 3x3 convolution for each of ``extra_strides``, the first on the backbone's top map
    (RetinaNet, Detectron, detectron2) or on the pyramid's (torchvision's first RetinaNet).
    """
    extra_strides: Annotated[tuple[Literal[1, 2], ...], Field(min_length=1)] = (2, 2)
    """Strides of the added convolutions: (2, 2) is P6 and P7 above ResNet's C5; (2,) is P7 above DetNet's C6."""
    extra_relu: bool = True
    """Apply ReLU to the input of each added convolution but the first (RetinaNet; not MMDetection)."""
    output_convs: Literal["all", "upsampled"] = "all"
    """Levels that get a 3x3 convolution: all, or only those that receive an upsampled map."""
    upsample: Literal["nearest", "bilinear_align_corners"] = "nearest"
    """Interpolation of the map of the level above."""
    passed_down: Literal["merged", "smoothed"] = "merged"
    """Map that goes to the level below: the sum itself, or the sum after its 3x3 convolution."""
    norm: Literal["none", "bn", "gn"] = "none"
    """Norm after every convolution, which then has no bias."""


class FPN(nn.Module):
    """Levels ``C2, C3, ...`` in, ``P2, P3, ...`` out, finest first; ``levels`` declares what comes out."""

    def __init__(self, levels: Sequence[Level], config: FPNConfig) -> None:
        super().__init__()
        strides = [level.stride for level in levels]
        if not strides or strides != sorted(strides):
            raise InputError(f"an FPN needs levels from the finest to the coarsest, got strides {strides}")
        self.config = config
        names = [f"P{level.name.removeprefix('C')}" for level in levels]
        above = [*strides[1:], strides[-1]]
        # Whether level i receives an upsampled map: strides decide, never the level's number.
        self._upsampled = tuple(s < a for s, a in zip(strides, above, strict=True))
        self.lateral = nn.ModuleDict()
        self.output = nn.ModuleDict()
        for name, level, upsampled in zip(names, levels, self._upsampled, strict=True):
            self.lateral[name] = _conv(level.channels, config.channels, 1, config.norm)
            if config.output_convs == "all" or upsampled:
                self.output[name] = _conv(config.channels, config.channels, 3, config.norm)
        self._names = tuple(names)
        out = [Level(name, stride, config.channels) for name, stride in zip(names, strides, strict=True)]
        self._pool = config.extra == "pool" or (config.extra == "auto" and levels[-1].name != "C6")
        if self._pool:
            out.append(Level(_next_name(names[-1]), strides[-1] * 2, config.channels))
        self.extra = nn.ModuleDict()
        if config.extra in ("conv_c", "conv_p"):
            inputs = levels[-1].channels if config.extra == "conv_c" else config.channels
            for step in config.extra_strides:
                level = Level(_next_name(out[-1].name), out[-1].stride * step, config.channels)
                self.extra[level.name] = _conv(inputs, config.channels, 3, config.norm, step)
                out.append(level)
                inputs = config.channels
        self.levels: tuple[Level, ...] = tuple(out)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """``[B, C, h, w]`` of every input level to ``[B, channels, h, w]`` of every output level."""
        outputs: list[Tensor] = []
        above: Tensor | None = None
        for i in reversed(range(len(self._names))):
            name = self._names[i]
            merged = self.lateral[name](features[i])
            if above is not None:
                # In place: no convolution or norm keeps its output for the backward pass.
                merged = merged.add_(self._to_size_of(merged, above) if self._upsampled[i] else above)
            smoothed = self.output[name](merged) if name in self.output else merged
            outputs.insert(0, smoothed)
            above = merged if self.config.passed_down == "merged" else smoothed
        if self._pool:
            outputs.append(F.max_pool2d(outputs[-1], kernel_size=1, stride=2))
        below = features[-1] if self.config.extra == "conv_c" else outputs[-1]
        for i, conv in enumerate(self.extra.values()):
            outputs.append(conv(F.relu(below) if i and self.config.extra_relu else below))
            below = outputs[-1]
        return outputs

    def _to_size_of(self, target: Tensor, above: Tensor) -> Tensor:
        """``above`` at the exact size of ``target``: a factor of 2 would not fit maps with an odd side."""
        size = target.shape[-2:]
        if self.config.upsample == "nearest":
            return F.interpolate(above, size=size, mode="nearest")
        return F.interpolate(above, size=size, mode="bilinear", align_corners=True)


def _next_name(name: str) -> str:
    """The name of the level above: P6 for P5."""
    return f"P{int(name.removeprefix('P')) + 1}"


def _conv(inputs: int, outputs: int, kernel: int, norm: str, stride: int = 1) -> nn.Sequential:
    """A convolution that keeps the size over ``stride``, as ``conv``, and its norm, if any, as ``norm``."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=norm == "none")
    nn.init.kaiming_uniform_(conv.weight, a=1)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    layers = OrderedDict[str, nn.Module](conv=conv)
    if norm == "bn":
        layers["norm"] = nn.BatchNorm2d(outputs)
    elif norm == "gn":
        layers["norm"] = nn.GroupNorm(math.gcd(32, outputs // 2), outputs)
    return nn.Sequential(layers)
