"""Crops of regions, warped to squares of one size (R-CNN §2.1 and appendix A).

One bilinear resampling crops all regions of a batch, without a loop and without a shape that depends on data.

Symbols: B images, R regions an image, S pixels of a crop's side, n sample points of a pixel along one axis.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from boxwright.fields import Count, CountOrZero, config
from boxwright.structures import InputError


@config
class RegionWarpConfig:
    """Crop of a region, warped to ``size`` x ``size`` pixels.

    Pixels outside the image are zero, the mean of normalised pixels. Departure: the released code subtracts a mean
    image, which differs from pixel to pixel.
    """

    size: Count = 224
    """Side of the crop in pixels. The paper: 227."""
    context: CountOrZero = 16
    """Pixels of the crop on each side that show the surroundings of the region (appendix A, p)."""
    mode: Literal["warp", "square"] = "warp"
    """"warp": scale each axis by itself, the paper's choice. "square": cut the smallest square around the region
    (appendix A, "tightest square with context")."""
    rounding: bool = False
    """Round the corners of the cut to whole pixels, as the released code does."""
    samples: Count = 1
    """Sample points of a pixel along each axis. 1: bilinear resizing without antialiasing, as in the released code."""

    def __post_init__(self) -> None:
        if 2 * self.context >= self.size:
            raise InputError(
                f"warp.size = {self.size} and warp.context = {self.context}: the size must be larger than twice the "
                "context"
            )


def with_context(boxes: Tensor, config: RegionWarpConfig) -> Tensor:
    """Enlarge ``boxes`` ``[..., 4]`` by the context around their centres; the result may cross the image border."""
    centre, half = (boxes[..., :2] + boxes[..., 2:]) / 2, (boxes[..., 2:] - boxes[..., :2]).clamp(min=0) / 2
    if config.mode == "square":
        half = half.amax(-1, keepdim=True).expand_as(half)
    half = half * (config.size / (config.size - 2 * config.context))
    low, high = centre - half, centre + half
    if config.rounding:
        low, high = torch.floor(low + 0.5), torch.floor(high + 0.5)
        high = torch.maximum(high, low + 1)
    return torch.cat([low, high], -1)


def warp_regions(pixels: Tensor, sizes: Tensor, boxes: Tensor, config: RegionWarpConfig) -> Tensor:
    """Crop ``boxes`` ``[B, R, 4]`` from normalised ``pixels`` ``[B, C, H, W]``: ``[B, R, C, S, S]``.

    ``sizes`` ``[B, 2]``: true height and width of each image; nothing is read from the padding. A point within half a
    pixel of the image's edge repeats the outermost pixel. A box without area gives a crop of one colour.
    """
    side = config.size * config.samples
    cut = with_context(boxes.to(pixels.dtype), config)
    step = (torch.arange(side, device=pixels.device, dtype=pixels.dtype) + 0.5) / side
    points, inside = [], []
    for axis, length in ((0, pixels.shape[3]), (1, pixels.shape[2])):
        limit = sizes[:, 1 - axis].to(pixels.dtype)[:, None, None]  # [B, 1, 1]
        point = cut[..., axis, None] + (cut[..., 2 + axis] - cut[..., axis])[..., None] * step  # [B, R, S * n]
        inside.append((point >= 0) & (point <= limit))
        points.append(torch.minimum(point.clamp(min=0.5), limit - 0.5) * (2 / length) - 1)
    (x, y), (in_x, in_y) = points, inside
    grid = torch.stack([x.unsqueeze(2).expand(-1, -1, side, -1), y.unsqueeze(3).expand(-1, -1, -1, side)], -1)
    crops = F.grid_sample(pixels, grid.flatten(1, 2), "bilinear", "border", align_corners=False)  # [B, C, R * Sn, Sn]
    crops = crops.unflatten(2, (boxes.shape[1], side)).transpose(1, 2)
    crops = crops * (in_x.unsqueeze(2) & in_y.unsqueeze(3)).unsqueeze(2)
    if config.samples > 1:
        crops = F.avg_pool2d(crops.flatten(0, 1), config.samples).unflatten(0, boxes.shape[:2])
    return crops
