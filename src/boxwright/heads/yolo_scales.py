"""YOLOv3's heads on the levels of its backbone (arXiv 1804.02767 §2.3, yolov3.cfg and its variants).

The coarsest level comes first. Part-way through its head, the map is narrowed, upsampled and concatenated with the next
finer level.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from boxwright.backbones.darknet import conv_bn_leaky, init_darknet
from boxwright.fields import Count, InnerShare, config
from boxwright.heads.class_rows import tiled_rows, under
from boxwright.structures import InputError, Level


@config
class YOLOScalesConfig:
    """Convolutions of the heads on all levels."""

    channels: Annotated[tuple[Count, ...], Field(min_length=1)] = (128, 256, 512)
    """Width n of each level's head, from fine to coarse. Its 3x3 convolutions have 2n channels."""
    style: Literal["full", "tiny"] = "full"
    """"full": three pairs of 1x1 and 3x3 convolutions; the finer level continues from the third 1x1 (yolov3). "tiny":
    one pair on the coarsest level, whose 1x1 the finer level continues from, and a 3x3 on the others (yolov3-tiny)."""
    spp: bool = False
    """Max pooling of sizes 5, 9 and 13 after the third convolution of the coarsest level (yolov3-spp)."""
    prior: InnerShare | None = None
    """Initial objectness of all predictors, whose initial boxes are then their anchors. None: random weights, with an
    objectness around 0.5 (Darknet)."""

    def __post_init__(self) -> None:
        if self.spp and self.style != "full":
            raise InputError('scales.spp needs scales.style = "full": the tiny head has no third convolution')


class SpatialPyramidPooling(nn.Module):
    """Concatenate max pooling of 13 x 13, 9 x 9 and 5 x 5 windows with the map itself: ``C -> 4 C`` channels."""

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W] -> [B, 4 C, H, W]``."""
        # The 9 x 9 maximum is the 5 x 5 maximum of 5 x 5 maxima, and so on: a third of the comparisons.
        five = F.max_pool2d(x, 5, 1, 2)
        nine = F.max_pool2d(five, 5, 1, 2)
        return torch.cat([F.max_pool2d(nine, 5, 1, 2), nine, five, x], dim=1)


class Scale(nn.Module):
    """Head of one level, with its layers in the order of Darknet's files.

    ``narrow`` reduces the channels of the coarser level's branch (None on the coarsest), and ``factor`` is its
    upsampling factor. ``body`` ends where the next finer level branches off, with ``channels`` channels.
    """

    def __init__(
        self, inputs: int, width: int, outputs: int, coarser: int | None, factor: int, config: YOLOScalesConfig
    ) -> None:
        super().__init__()
        self.factor = factor
        self.narrow = None if coarser is None else conv_bn_leaky(coarser, width, 1)
        inputs += 0 if coarser is None else width
        wide = 2 * width
        if config.style == "full":
            body: list[nn.Module] = [
                conv_bn_leaky(inputs, width, 1), conv_bn_leaky(width, wide, 3), conv_bn_leaky(wide, width, 1)
            ]  # fmt: skip
            if config.spp and coarser is None:
                body += [SpatialPyramidPooling(), conv_bn_leaky(4 * width, width, 1)]
            body += [conv_bn_leaky(width, wide, 3), conv_bn_leaky(wide, width, 1)]
            self.channels = width
        elif coarser is None:
            body = [conv_bn_leaky(inputs, width, 1)]
            self.channels = width
        else:
            body = [conv_bn_leaky(inputs, wide, 3)]
            self.channels = wide
        self.body = nn.Sequential(*body)
        self.hidden = nn.Sequential(*([conv_bn_leaky(width, wide, 3)] if self.channels == width else []))
        self.predict = nn.Conv2d(wide, outputs, 1)

    def forward(self, level: Tensor, coarser: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return predictions ``[B, outputs, H, W]`` and the branch ``[B, channels, H, W]`` for the next finer level."""
        if self.narrow is not None:
            above = self.narrow(coarser)
            if self.factor > 1:
                above = F.interpolate(above, scale_factor=float(self.factor), mode="nearest")
            level = torch.cat([above, level], dim=1)
        branch = self.body(level)
        return self.predict(self.hidden(branch)), branch


class YOLOScales(nn.Module):
    """Heads of all levels, stored from coarse to fine, the order of Darknet's files.

    ``per_cell``: predictors in a cell of each level. ``values``: outputs of a predictor.
    """

    def __init__(self, config: YOLOScalesConfig, levels: Sequence[Level], per_cell: Sequence[int], values: int) -> None:
        super().__init__()
        if len(config.channels) != len(levels):
            raise InputError(
                f"scales.channels has {len(config.channels)} entries but the backbone gives {len(levels)} levels "
                f"({', '.join(level.name for level in levels)}); give one entry per level"
            )
        scales: list[nn.Module] = []
        coarser, stride = None, levels[-1].stride
        for level, width, count in reversed(list(zip(levels, config.channels, per_cell, strict=True))):
            if stride % level.stride:
                raise InputError(f"level {level.name} has stride {level.stride}, which does not divide {stride}")
            scale = Scale(level.channels, width, count * values, coarser, stride // level.stride, config)
            scales.append(scale)
            coarser, stride = scale.channels, level.stride
        self.scales = nn.ModuleList(scales)
        init_darknet(self)
        if config.prior is not None:
            self._start_at(config.prior, values)

    def class_rows(self, classes: int) -> dict[str, Tensor]:
        """Return the class of each row of the predicting layers: for an anchor 5 shared rows, then one a class."""
        rows: dict[str, Tensor] = {}
        for i, scale in enumerate(self.scales):
            rows |= under(f"scales.{i}", tiled_rows(scale, "predict", torch.arange(classes), shared=5))
        return rows

    @torch.no_grad()
    def _start_at(self, prior: float, values: int) -> None:
        """Initialise all predictors with the objectness ``prior`` and their anchors as boxes."""
        for scale in self.scales:
            assert isinstance(scale, Scale)
            assert scale.predict.bias is not None
            scale.predict.weight.normal_(std=0.01)
            scale.predict.bias[4::values] = -math.log(1 / prior - 1)

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Return the predictions of all levels, in the order of ``levels``, from fine to coarse."""
        raw: list[Tensor] = []
        branch: Tensor | None = None
        for scale, level in zip(self.scales, reversed(levels), strict=True):
            out, branch = scale(level, branch)
            raw.insert(0, out)
        return raw
