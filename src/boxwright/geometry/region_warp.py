"""Regions of an image as pictures of one size, each stretched to a square (R-CNN §2.1 and appendix A).

All regions of a batch are one bilinear resampling, without a loop and without a shape that depends on data.

Symbols: B images, R regions an image, S pixels of a crop's side, n sample points of a pixel along one axis.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from boxwright.structures import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionWarpConfig:
    """How a region becomes a crop of ``size`` x ``size`` pixels.

    ``context``: pixels of the crop, on each side, that show what lies around the region; 16 in the paper, of 227.
    ``mode``: "warp" stretches both axes apart, the paper's choice; "square" cuts the smallest square around the region
    and stretches both alike (appendix A, "tightest square with context").
    ``rounding``: corners of the cut are rounded to whole pixels, as the released code does.
    ``samples``: points of a pixel along each axis whose mean it is; 1 is bilinear resizing without antialiasing, as in
    the released code; more are kinder to regions much larger than the crop.

    What lies outside the image is filled with zeros, the mean colour of normalised pixels. Departure: the released code
    subtracts a mean image, which differs from place to place.
    """

    size: int = 224
    context: int = 16
    mode: Literal["warp", "square"] = "warp"
    rounding: bool = False
    samples: int = 1

    def __post_init__(self) -> None:
        if self.size < 1 or not 0 <= 2 * self.context < self.size:
            raise InputError(
                f"warp.size = {self.size} and warp.context = {self.context}: the size must be at least 1 and larger "
                "than twice the context, which is at least 0"
            )
        if self.samples < 1:
            raise InputError(f"warp.samples = {self.samples}: must be at least 1; 1 is plain bilinear resizing")


def with_context(boxes: Tensor, config: RegionWarpConfig) -> Tensor:
    """What is cut out for ``boxes`` ``[..., 4]``: the same centres, larger, and reaching over the image's edges."""
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
    """Crops ``[B, R, C, S, S]`` of ``boxes`` ``[B, R, 4]`` from normalised ``pixels`` ``[B, C, H, W]``.

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
