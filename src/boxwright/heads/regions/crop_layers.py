"""Layers of R-CNN on the map of a crop: pool5, fc6 and fc7 of VGG-16 or ZF, or the mean of a residual network's map.

Symbols: N crops, C channels and H W cells of a map, D7 length of fc7, D5 length of pool5.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from boxwright.fields import Count, Fraction, config
from boxwright.structures import InputError


@config
class LayersConfig:
    """pool5, fc6 and fc7 of VGG-16 or ZF."""

    kind: Literal["layers"] = "layers"
    """Kind of layers."""
    hidden: Annotated[tuple[Count, ...], Field(min_length=1)] = (4096, 4096)
    """Widths of fc6 and fc7."""
    dropout: Fraction = 0.5
    """Dropout after each of them in fine-tuning."""
    pool: Count = 2
    """Window of the max pooling of stride 2, pool5: 2 in VGG-16, 3 in ZF."""


@config
class MeanConfig:
    """Global average pooling of the last map, for residual networks."""

    kind: Literal["mean"] = "mean"
    """Kind of layers."""
    cells: Count = 3
    """Boxes are regressed from the map averaged to ``cells`` x ``cells``."""


class CropLayers(nn.ModuleList):
    """fc6 and fc7, or no layer for global average pooling. The caller initialises them.

    ``widths``: lengths (D7, D5) of the two features.
    """

    def __init__(self, config: LayersConfig | MeanConfig, channels: int, side: int) -> None:
        """Build the layers for maps of ``channels`` with ``side`` x ``side`` cells.

        Raises InputError if pool5 leaves no cell.
        """
        super().__init__()
        self.config = config
        if isinstance(config, MeanConfig):
            self.widths = channels, channels * config.cells**2
            return
        pooled = channels * (max(side - config.pool + 2, 0) // 2) ** 2
        if pooled == 0:
            raise InputError(f"pool5 leaves no cell of the {side} x {side} of a crop; raise detector.warp.size")
        self.extend(nn.Linear(a, b) for a, b in pairwise((pooled, *config.hidden)))
        self.widths = config.hidden[-1], pooled

    def forward(self, fmap: Tensor) -> tuple[Tensor, Tensor]:
        """Compute fc7 ``[N, D7]`` and pool5 ``[N, D5]`` from maps ``[N, C, H, W]``."""
        if isinstance(self.config, MeanConfig):
            return fmap.mean((2, 3)), F.adaptive_avg_pool2d(fmap, self.config.cells).flatten(1)
        pooled = F.max_pool2d(fmap, self.config.pool, 2).flatten(1)
        x = pooled
        for layer in self:
            x = F.dropout(F.relu(layer(x)), self.config.dropout, self.training)
        return x, pooled
