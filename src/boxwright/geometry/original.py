"""Boxes of a prepared image, in pixels of the image that it was made of."""

from __future__ import annotations

import torch
from torch import Tensor


def in_original(boxes: Tensor, to_original: Tensor, sizes: Tensor) -> Tensor:
    """Map boxes ``[B, D, 4]`` to the original images and clip them to their edges.

    ``to_original`` ``[B, 4]``: scale x, scale y, offset x, offset y from the original to the prepared image. A negative
    scale is a mirrored image. ``sizes`` ``[B, 2]``: heights and widths of the original images.
    """
    scale, offset = to_original[:, None, :2].repeat(1, 1, 2), to_original[:, None, 2:].repeat(1, 1, 2)
    back = (boxes - offset) / scale
    corners = back[..., :2], back[..., 2:]
    back = torch.cat([torch.minimum(*corners), torch.maximum(*corners)], -1)  # mirrored: right has become left
    return torch.minimum(back.clamp(min=0), sizes.flip(1).repeat(1, 2)[:, None].float())
