"""Position-sensitive RoI pooling: each of k x k bins reads score maps of its own (R-FCN, arXiv 1605.06409, §2.2).

Symbols: B images, R regions an image, k bins along a side, C values of a region, H W cells of the maps.

The mean over a rectangle of cells needs four values of the maps' running sums, whatever its size. Regions of all sizes
therefore cost the same, shapes are fixed, and one weighted sum of rows with a gradient computes all of them.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from boxwright.fields import Count, NotNegative, config
from boxwright.geometry.constants import constant
from boxwright.geometry.pooling.feature_table import weighted_rows
from boxwright.geometry.pooling.roi_pooling import linear_taps
from boxwright.structures import InputError


@config
class PositionSensitiveConfig:
    """Position-sensitive RoI pooling (R-FCN §2.2)."""

    size: Count = 7
    """Bins along each side, k."""
    method: Literal["average", "align"] = "average"
    """"average": mean of all cells that a bin touches (eq. 1), 0 for an empty bin. "align": mean of bilinear samples
    at exact positions, as RoIAlign."""
    rounding: Literal["caffe", "torchvision"] = "caffe"
    """Of "average". "caffe", the authors': round corners to input pixels; a region is at least a tenth of a cell wide.
    "torchvision": round corners to cells; a region is at least one cell wide, and the last row and column of the map
    are never read."""
    offset: NotNegative = 0.0
    """Of "caffe" rounding: 1 if boxes include their last pixel."""
    sampling_ratio: Count = 2
    """Of "align": sample points along each axis of a bin."""

    def __post_init__(self) -> None:
        if self.offset != 0 and (self.method, self.rounding) != ("average", "caffe"):
            raise InputError(
                f"offset = {self.offset} counts with method average and rounding caffe only; leave it out, or set those"
            )


def pool_position_sensitive(maps: Tensor, boxes: Tensor, stride: int, config: PositionSensitiveConfig) -> Tensor:
    """Pool ``boxes`` ``[B, R, 4]``, in input pixels, from ``maps`` ``[B, C * k * k, H, W]``: ``[B, R, k, k, C]``.

    Channel ``c * k * k + row * k + column`` of the maps is read by the bin at (row, column). float32; boxes take no
    gradient.
    """
    bins = config.size**2
    if maps.shape[1] % bins:
        raise InputError(f"{maps.shape[1]} score maps for {config.size} x {config.size} bins: must be a multiple")
    boxes = boxes.detach()
    if config.method == "align":
        return _align(maps.float(), boxes, stride, config)
    return _average(maps.float(), boxes, stride, config)


def _average(maps: Tensor, boxes: Tensor, stride: int, config: PositionSensitiveConfig) -> Tensor:
    batch, _, height, width = maps.shape
    left, right = _bounds(boxes[..., 0], boxes[..., 2], width, stride, config)  # [B, R, k]
    top, bottom = _bounds(boxes[..., 1], boxes[..., 3], height, stride, config)

    # Sums are of what is left after each map's mean, so that they stay small and their differences exact.
    mean = maps.detach().mean((2, 3), keepdim=True)
    sums = F.pad(_bins_last(maps - mean, config.size).cumsum(1).cumsum(2), (0, 0, 0, 0, 1, 0, 1, 0))
    columns = torch.stack([left, right], dim=-1)[:, :, None, :, None, :]  # [B, R, 1, k, 1, 2]
    rows = torch.stack([top, bottom], dim=-1)[:, :, :, None, :, None]  # [B, R, k, 1, 2, 1]
    index = (_image_index(batch, boxes.device) * (height + 1) + rows) * (width + 1) + columns
    index = index * config.size**2 + _bin_index(config.size, boxes.device)

    wide, high = (right - left).clamp(min=0), (bottom - top).clamp(min=0)
    area = high.unsqueeze(-1) * wide.unsqueeze(-2)  # [B, R, k, k]
    sign = constant([-1.0, 1.0], boxes.device)
    weight = sign.unsqueeze(-1) * sign  # + at the outer and inner corners, - at the two others
    share = torch.where(area > 0, 1 / area.clamp(min=1), 0.0)
    weight = weight * share[..., None, None]
    pooled = weighted_rows(sums.flatten(0, 3), index.flatten(0, 3).flatten(1), weight.flatten(0, 3).flatten(1))
    pooled = pooled.reshape(*area.shape, -1)
    mean = _bins_last(mean, config.size).reshape(batch, 1, config.size, config.size, -1)
    return pooled + mean * (area > 0).unsqueeze(-1)


def _align(maps: Tensor, boxes: Tensor, stride: int, config: PositionSensitiveConfig) -> Tensor:
    batch, _, height, width = maps.shape
    size, samples = config.size, config.sampling_ratio
    corners = boxes / stride - 0.5
    step = (torch.arange(size * samples, device=boxes.device) + 0.5) / (size * samples)
    extent = corners[..., 2:] - corners[..., :2]
    limits = torch.full(boxes.shape[:2], 0, device=boxes.device, dtype=torch.int64)
    x, x_weight = linear_taps(corners[..., 0:1] + extent[..., 0:1] * step, limits + width, size)  # [B, R, k, 2S]
    y, y_weight = linear_taps(corners[..., 1:2] + extent[..., 1:2] * step, limits + height, size)
    y, y_weight = y[:, :, :, None, :, None], y_weight[:, :, :, None, :, None]
    x, x_weight = x[:, :, None, :, None, :], x_weight[:, :, None, :, None, :]
    index = (_image_index(batch, boxes.device) * height + y) * width + x
    index = index * size**2 + _bin_index(size, boxes.device)
    weight = y_weight * x_weight
    rows = _bins_last(maps, size).flatten(0, 3)
    pooled = weighted_rows(rows, index.flatten(0, 3).flatten(1), weight.flatten(0, 3).flatten(1))
    return pooled.reshape(*boxes.shape[:2], size, size, -1)


def _bins_last(maps: Tensor, size: int) -> Tensor:
    """``[B, C * k * k, H, W] -> [B, H, W, k * k, C]``: the values that one bin reads at one cell lie together."""
    return maps.unflatten(1, (-1, size**2)).permute(0, 3, 4, 2, 1).contiguous()


def _bounds(
    low: Tensor, high: Tensor, cells: int, stride: int, config: PositionSensitiveConfig
) -> tuple[Tensor, Tensor]:
    """First cell of each bin along an axis and the one after its last, int64 ``[B, R, k]`` twice."""
    edge = torch.arange(config.size + 1, device=low.device)
    if config.rounding == "caffe":
        start = _rounded(low) / stride
        step = ((_rounded(high) + config.offset) / stride - start).clamp(min=0.1) / config.size
        places = edge * step.unsqueeze(-1) + start.unsqueeze(-1)
        first, after, limit = places[..., :-1].floor(), places[..., 1:].ceil(), cells
    else:
        start = _rounded(low / stride)
        step = (_rounded(high / stride) - start).clamp(min=1.0) / config.size
        places = edge * step.unsqueeze(-1)
        first, after = places[..., :-1].floor() + start.unsqueeze(-1), places[..., 1:].ceil() + start.unsqueeze(-1)
        limit = cells - 1
    first, after = first.clamp(0, limit).to(torch.int64), after.clamp(0, limit).to(torch.int64)
    return first, torch.maximum(first, after)


def _rounded(x: Tensor) -> Tensor:
    """To the nearest whole number, halves away from zero as C rounds; torch rounds halves to even."""
    return torch.floor(x.abs() + 0.5) * x.sign()


def _image_index(batch: int, device: torch.device) -> Tensor:
    return torch.arange(batch, device=device).reshape(-1, 1, 1, 1, 1, 1)


def _bin_index(size: int, device: torch.device) -> Tensor:
    return torch.arange(size**2, device=device).reshape(1, 1, size, size, 1, 1)
