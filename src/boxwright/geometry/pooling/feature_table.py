"""A feature pyramid as one table of rows, one row for each cell of each level of each image.

Pooling a region is then a weighted sum of table rows, for which torch has one fast kernel with a gradient
(``embedding_bag``): no loop over levels, no sorting of regions by level, no shape that depends on data, and with
channels-last maps the rows are contiguous in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from boxwright.geometry.constants import constant


@dataclass(frozen=True)
class FeatureTable:
    """``rows`` ``[T, C]`` in order level, image, y, x; ``shapes`` (height, width) and ``strides`` of the levels, whole
    numbers unless a map is read as if it covered the input exactly."""

    rows: Tensor
    shapes: tuple[tuple[int, int], ...]
    strides: tuple[float, ...]
    batch: int

    @classmethod
    def from_maps(cls, maps: Sequence[Tensor], strides: Sequence[float]) -> FeatureTable:
        """Stack maps ``[B, C, H, W]``; a copy, cheap beside a convolution if they are channels-last."""
        channels = maps[0].shape[1]
        rows = torch.cat([m.permute(0, 2, 3, 1).reshape(-1, channels) for m in maps])
        shapes = tuple((m.shape[2], m.shape[3]) for m in maps)
        return cls(rows, shapes, tuple(strides), maps[0].shape[0])

    def first(self, levels: int) -> FeatureTable:
        """Return the table of the first levels only; it shares the rows."""
        kept = sum(self.batch * height * width for height, width in self.shapes[:levels])
        return FeatureTable(self.rows[:kept], self.shapes[:levels], self.strides[:levels], self.batch)

    def constants(self, level: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return ``start`` row, ``height``, ``width`` (int64) and ``stride`` (float32) of each ``level``."""
        starts, total = [], 0
        for height, width in self.shapes:
            starts.append(total)
            total += self.batch * height * width
        heights, widths = zip(*self.shapes, strict=True)
        integers = constant([starts, heights, widths], level.device, torch.int64)
        start, height, width = integers[:, level].unbind(0)
        stride = constant(self.strides, level.device)[level]
        return start, height, width, stride

    def image_starts(self, level: Tensor) -> Tensor:
        """Return the first row of each image's map, ``[B, N]`` for levels ``[B, N]``."""
        start, height, width, _ = self.constants(level)
        image = torch.arange(self.batch, device=level.device).unsqueeze(1)
        return start + image * height * width


def weighted_rows(rows: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """Sum over the last axis of ``weight * rows[index]``: ``[N, S] -> [N, C]``. ``index`` int, ``weight`` float32.

    On a CPU it runs in float32 whatever the rows are: the kernel for shorter floats is slower than the conversion.
    """
    dtype = rows.dtype
    if rows.device.type == "cpu" and dtype != torch.float32:
        rows = rows.float()
    out = torch.nn.functional.embedding_bag(
        index.to(torch.int32), rows, mode="sum", per_sample_weights=weight.to(rows.dtype)
    )
    return out.to(dtype)


def patch_rows(table: FeatureTable, level: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Gather the 3x3 neighbourhoods of cells, zero outside the map: ``[B, N] -> [B, N, 9 * C]`` (dy, dx, channel)."""
    _, height, width, _ = table.constants(level)
    step = torch.arange(-1, 2, device=level.device)
    near_y = (y.unsqueeze(-1) + step).unsqueeze(-1)  # [B, N, 3, 1]
    near_x = (x.unsqueeze(-1) + step).unsqueeze(-2)  # [B, N, 1, 3]
    height, width = height[..., None, None], width[..., None, None]
    inside = (near_y >= 0) & (near_y < height) & (near_x >= 0) & (near_x < width)
    cell = near_y.clamp(min=0).minimum(height - 1) * width + near_x.clamp(min=0).minimum(width - 1)
    index = table.image_starts(level)[..., None, None] + cell
    rows = table.rows[index] * inside.unsqueeze(-1).to(table.rows.dtype)
    return rows.flatten(2)
