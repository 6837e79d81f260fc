"""Dense head with weights shared by all levels of a pyramid (RetinaNet §4).

Symbols: B images, C channels, K classes, a anchors in a cell, n anchors of a level, in order y, x, anchor.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from boxwright.backbones.layers.norm import make_norm
from boxwright.fields import Channels, CountOrZero, InnerShare, config
from boxwright.heads.class_rows import tiled_rows

HeadNorm = Literal["none", "bn", "gn"]


@config
class DenseHeadConfig:
    """Two subnets of 3x3 convolutions, one for classes and one for boxes (RetinaNet §4)."""

    convs: CountOrZero = 4
    """Hidden convolutions of each subnet."""
    channels: Channels | None = None
    """Width of the hidden convolutions. None: that of the pyramid."""
    norm: HeadNorm = "none"
    """Norm after each hidden convolution: none (paper), "gn" (torchvision's second RetinaNet, FCOS), or "bn". As all
    levels share the weights, "bn" computes its statistics over all levels. It costs nothing at inference."""
    prior: InnerShare = 0.01
    """Initial probability of every class at every anchor (§4.1)."""


class Subnet(nn.Module):
    """Hidden 3x3 convolutions, each followed by its norm, if any, and ReLU, applied to the maps of all levels."""

    def __init__(self, config: DenseHeadConfig, channels: int) -> None:
        super().__init__()
        widths = [channels] + [config.channels or channels] * config.convs
        self.layers = nn.ModuleList()
        for inputs, outputs in pairwise(widths):
            parts = OrderedDict[str, nn.Module](
                conv=nn.Conv2d(inputs, outputs, 3, padding=1, bias=config.norm == "none")
            )
            if config.norm != "none":
                parts["norm"] = make_norm(config.norm, outputs)
            self.layers.append(nn.Sequential(parts))
        self.channels = widths[-1]

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """``[B, C, h, w]`` of every level to ``[B, channels, h, w]``."""
        maps = list(maps)
        for layer in self.layers:
            conv, norm = layer.get_submodule("conv"), getattr(layer, "norm", None)
            maps = [conv(fmap) for fmap in maps]
            if isinstance(norm, _BatchNorm) and norm.training:
                maps = _activate_together(norm, maps)
            else:
                # In place: neither a convolution nor a norm keeps its output for the backward pass.
                maps = [F.relu_(fmap if norm is None else norm(fmap)) for fmap in maps]
        return maps


def _activate_together(norm: nn.Module, maps: list[Tensor]) -> list[Tensor]:
    """Apply batch norm with the statistics of all levels, then ReLU.

    Applied level by level, the norm would use the level's own statistics in training and those of all at inference.
    """
    shapes = [(fmap.shape[0], fmap.shape[2], fmap.shape[3]) for fmap in maps]
    rows = torch.cat([fmap.permute(0, 2, 3, 1).flatten(0, 2) for fmap in maps])  # [N, C]
    # As one channels-last map [1, C, N, 1], which all kernels and synchronised norms support.
    rows = F.relu_(norm(rows.t()[None, :, :, None]))[0, :, :, 0].t()
    parts = rows.split([b * h * w for b, h, w in shapes])
    return [part.unflatten(0, shape).permute(0, 3, 1, 2) for part, shape in zip(parts, shapes, strict=True)]


class DenseHead(nn.Module):
    """Class logits and box offsets of all anchors. Both subnets end in a 3x3 convolution."""

    def __init__(self, config: DenseHeadConfig, channels: int, per_cell: int, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.class_subnet = Subnet(config, channels)
        self.box_subnet = Subnet(config, channels)
        hidden = self.class_subnet.channels
        self.scores = nn.Conv2d(hidden, per_cell * num_classes, 3, padding=1)
        self.deltas = nn.Conv2d(hidden, per_cell * 4, 3, padding=1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.01)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        assert self.scores.bias is not None
        nn.init.constant_(self.scores.bias, -math.log((1 - config.prior) / config.prior))

    def class_rows(self) -> dict[str, Tensor]:
        """Return the class of each row of the layers that distinguish classes."""
        return tiled_rows(self, "scores", torch.arange(self.num_classes))

    def forward(self, maps: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Return the logits ``[B, n, K]`` and deltas ``[B, n, 4]`` of each map ``[B, C, h, w]``, in float32."""
        logits = [flatten_map(self.scores(fmap), self.num_classes) for fmap in self.class_subnet(maps)]
        return logits, [flatten_map(self.deltas(fmap), 4) for fmap in self.box_subnet(maps)]


def flatten_map(out: Tensor, values: int) -> Tensor:
    """Flatten a head's output ``[B, a * values, h, w]`` to float32 ``[B, h * w * a, values]``.

    The result is a view if ``out`` is float32 in channels-last layout.
    """
    return out.permute(0, 2, 3, 1).reshape(out.shape[0], -1, values).float()
