"""RoI pooling: features of fixed size from regions of any size.

Symbols: B images, R regions an image, P cells of the output's side, S sample points along one axis, C channels.
"""

from __future__ import annotations

from typing import Literal

import torch
import torchvision
from torch import Tensor

from boxwright.fields import Count, CountOrZero, NotNegative, Positive, config
from boxwright.geometry.constants import constant
from boxwright.geometry.pooling.feature_table import FeatureTable, weighted_rows
from boxwright.structures import InputError

CANONICAL_LEVEL, FIRST_LEVEL = 4, 2
"""FPN eq. 1: a region of ``canonical_size`` goes to P4; the first level of the pyramid is P2."""


@config
class RoIPoolingConfig:
    """Pooling of a region to ``size`` x ``size`` cells."""

    method: Literal["align", "pool", "crop", "corners"] = "align"
    """"align": RoIAlign (Mask R-CNN §3). "pool": RoIPool with Caffe's rounding (Fast R-CNN §2.1). "crop": bilinear crop
    of twice the size from corner to corner, then 2x2 max pooling (tf-faster-rcnn). "corners": mean of the samples at
    the four corners of a cell, in a region enlarged by one map cell (first RoIAlign of PyTorch ports, such as
    DetNet_pytorch)."""
    size: Count = 7
    """Cells along each side, P."""
    sampling_ratio: CountOrZero = 2
    """Of "align": sample points along each axis of a cell; 0 for as many as the cell has pixels."""
    aligned: bool = True
    """Of "align": shift by half a pixel, as detectron2's ROIAlignV2; torchvision and Detectron do not."""
    canonical_size: Positive = 224.0
    """Side in pixels of a region that goes to level P4 (FPN eq. 1)."""
    level_epsilon: NotNegative = 1e-6
    """Added to the logarithm of eq. 1; matters at exact powers of two only."""
    level_offset: NotNegative = 0.0
    """Added to a region's sides in eq. 1: 1 in Detectron, whose boxes include their last pixel."""
    inclusive: bool = False
    """Of "pool": shorten regions by one pixel, because its rounding is made for boxes that include their last pixel.
    False if the detector's boxes follow that convention themselves."""

    def __post_init__(self) -> None:
        if self.inclusive and self.method != "pool":
            raise InputError(f'pooling.inclusive is for method "pool"; leave it out with {self.method!r}')


def assign_levels(boxes: Tensor, levels: int, config: RoIPoolingConfig) -> Tensor:
    """Choose the level, 0..levels-1, that each box ``[..., 4]`` is pooled from (FPN eq. 1): int64 ``[...]``."""
    width = boxes[..., 2] - boxes[..., 0] + config.level_offset
    height = boxes[..., 3] - boxes[..., 1] + config.level_offset
    side = (width.clamp(min=0) * height.clamp(min=0)).sqrt().clamp(min=1e-6)  # finite logarithm for empty boxes
    number = torch.floor(CANONICAL_LEVEL + torch.log2(side / config.canonical_size) + config.level_epsilon)
    return (number - FIRST_LEVEL).clamp(0, levels - 1).to(torch.int64)


def pool_regions(table: FeatureTable, boxes: Tensor, config: RoIPoolingConfig) -> Tensor:
    """Pool ``boxes`` ``[B, R, 4]``, each from one level of the pyramid: ``[B, R, P, P, C]``, channels last."""
    level = assign_levels(boxes, len(table.shapes), config)
    if config.method == "pool" or (config.method == "align" and config.sampling_ratio == 0):
        return _pool_by_operator(table, boxes, level, config)
    if config.method == "crop":
        return _crop_and_pool(table, boxes, level, config)
    if config.method == "corners":
        return _corner_means(table, boxes, level, config)
    return _align(table, boxes, level, config)


def _align(table: FeatureTable, boxes: Tensor, level: Tensor, config: RoIPoolingConfig) -> Tensor:
    cells, samples = config.size, config.sampling_ratio
    _, height, width, stride = table.constants(level)
    shift = 0.5 if config.aligned else 0.0
    corners = boxes / stride.unsqueeze(-1) - shift
    extent = corners[..., 2:] - corners[..., :2]
    if not config.aligned:
        extent = extent.clamp(min=1.0)  # the first RoIAlign never pooled less than one cell
    step = (torch.arange(cells * samples, device=boxes.device) + 0.5) / (cells * samples)
    x = corners[..., 0:1] + extent[..., 0:1] * step  # [B, R, P * S]
    y = corners[..., 1:2] + extent[..., 1:2] * step
    return _bilinear_cells(table, level, linear_taps(y, height, cells), linear_taps(x, width, cells), width)


def linear_taps(points: Tensor, size: Tensor, cells: int) -> tuple[Tensor, Tensor]:
    """Compute indices and weights of linear interpolation at ``points``, averaged within each cell.

    Maps ``[B, R, P * S]`` to two tensors ``[B, R, P, 2 * S]``: rows (or columns) of the map, and their weights. A point
    more than one cell outside the map counts as zero; within that margin the border is repeated.
    """
    limit = size.unsqueeze(-1)
    inside = (points >= -1) & (points <= limit)
    points = points.clamp(min=0)
    low = points.floor().to(torch.int64).minimum(limit - 1)
    fraction = (points - low).clamp(max=1).where(low < limit - 1, 0.0)
    samples = points.shape[-1] // cells
    index = torch.stack([low, (low + 1).minimum(limit - 1)], dim=-1)
    weight = torch.stack([1 - fraction, fraction], dim=-1) * (inside.unsqueeze(-1) / samples)
    shape = (*points.shape[:-1], cells, 2 * samples)
    return index.reshape(shape), weight.reshape(shape)


def _bilinear_cells(
    table: FeatureTable, level: Tensor, rows: tuple[Tensor, Tensor], columns: tuple[Tensor, Tensor], width: Tensor
) -> Tensor:
    """Sum the map over the outer product of row and column taps: ``[B, R, P, P, C]``."""
    (y, y_weight), (x, x_weight) = rows, columns
    batch, regions, cells, _ = y.shape
    start = table.image_starts(level)[..., None, None, None, None]
    width = width[..., None, None, None, None]
    index = start + y[:, :, :, None, :, None] * width + x[:, :, None, :, None, :]
    weight = y_weight[:, :, :, None, :, None] * x_weight[:, :, None, :, None, :]
    flat = (batch * regions * cells * cells, -1)
    pooled = weighted_rows(table.rows, index.reshape(flat), weight.reshape(flat))
    return pooled.reshape(batch, regions, cells, cells, -1)


def _crop_and_pool(table: FeatureTable, boxes: Tensor, level: Tensor, config: RoIPoolingConfig) -> Tensor:
    cells = 2 * config.size
    _, height, width, stride = table.constants(level)
    corners = boxes / stride.unsqueeze(-1)
    step = torch.arange(cells, device=boxes.device) / (cells - 1)  # the outer samples lie on the box's corners
    x = corners[..., 0:1] + (corners[..., 2:3] - corners[..., 0:1]) * step
    y = corners[..., 1:2] + (corners[..., 3:4] - corners[..., 1:2]) * step
    sampled = _bilinear_cells(table, level, linear_taps(y, height, cells), linear_taps(x, width, cells), width)
    pairs = sampled.reshape(*boxes.shape[:2], config.size, 2, config.size, 2, -1)
    return pairs.amax(dim=(3, 5))


def _corner_means(table: FeatureTable, boxes: Tensor, level: Tensor, config: RoIPoolingConfig) -> Tensor:
    cells = config.size
    _, height, width, stride = table.constants(level)
    corners = boxes / stride.unsqueeze(-1)
    step = (corners[..., 2:] - corners[..., :2] + 1).clamp(min=0) / cells  # the 1 is a cell of the map
    steps = torch.arange(cells + 1, device=boxes.device)
    rows = _extrapolating_taps(corners[..., 1:2] + step[..., 1:2] * steps, height)
    columns = _extrapolating_taps(corners[..., 0:1] + step[..., 0:1] * steps, width)
    grid = _bilinear_cells(table, level, rows, columns, width)  # [B, R, P + 1, P + 1, C]
    pairs = grid[:, :, 1:] + grid[:, :, :-1]
    return (pairs[..., 1:, :] + pairs[..., :-1, :]) / 4


def _extrapolating_taps(points: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the taps of single samples, ``[B, R, P] -> [B, R, P, 2]``, as DetNet_pytorch does.

    Points outside the map count as zero. Between the last cell and the border, values are extrapolated from the last
    two cells.
    """
    limit = size.unsqueeze(-1)
    inside = (points >= 0) & (points < limit)
    low = points.floor().to(torch.int64).clamp(min=0).minimum(limit - 2).clamp(min=0)
    fraction = points - low
    index = torch.stack([low, (low + 1).minimum(limit - 1)], dim=-1)
    weight = torch.stack([1 - fraction, fraction], dim=-1)
    return index, torch.where(inside.unsqueeze(-1), weight, 0.0)


def _pool_by_operator(table: FeatureTable, boxes: Tensor, level: Tensor, config: RoIPoolingConfig) -> Tensor:
    """Run torchvision's kernels for RoIPool, and for RoIAlign with as many samples as a cell has pixels.

    Every level pools all regions, so that shapes stay fixed. A region of another level is replaced by one pixel, which
    costs almost nothing, and its result is dropped.
    """
    batch, regions = level.shape
    image = torch.arange(batch, device=boxes.device, dtype=boxes.dtype).repeat_interleave(regions).unsqueeze(1)
    channels, start, out = table.rows.shape[1], 0, None
    ends = boxes - constant([0, 0, 1, 1], boxes.device, boxes.dtype) if config.inclusive else boxes
    for number, ((height, width), stride) in enumerate(zip(table.shapes, table.strides, strict=True)):
        rows = table.rows[start : start + batch * height * width]
        start += batch * height * width
        fmap = rows.reshape(batch, height, width, channels).permute(0, 3, 1, 2)
        here = (level == number).reshape(-1)
        pixel = constant([0, 0, 1, 1], boxes.device, boxes.dtype)
        regions_here = torch.cat([image, torch.where(here.unsqueeze(1), ends.reshape(-1, 4), pixel)], dim=1)
        if config.method == "pool":
            pooled = torchvision.ops.roi_pool(fmap.float(), regions_here, config.size, 1.0 / stride)
        else:
            pooled = torchvision.ops.roi_align(
                fmap.float(), regions_here, config.size, 1.0 / stride, config.sampling_ratio, config.aligned
            )
        pooled = pooled.to(table.rows.dtype)
        out = pooled if out is None else torch.where(here[:, None, None, None], pooled, out)
    assert out is not None
    return out.permute(0, 2, 3, 1).reshape(batch, regions, config.size, config.size, channels)
