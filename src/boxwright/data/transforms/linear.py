"""Bilinear resizing on grids that torch's own does not have: OpenCV's whole numbers, and a step of one's own.

Symbols: H W rows and columns of the image.
"""

from __future__ import annotations

import torch
from torch import Tensor


def opencv_linear(pixels: Tensor, height: int, width: int) -> Tensor:
    """Resize uint8 ``[3, H, W]`` as OpenCV's INTER_LINEAR does, to the bit.

    Weights have 11 bits, and the products of the second axis are cut to whole numbers before they are added.
    """
    left, right, from_left, from_right = _whole_taps(pixels.shape[2], width, clamp=True)
    wide = pixels.to(torch.int32)
    rows = (wide[..., left] * from_left + wide[..., right] * from_right) >> 4
    upper, lower, from_upper, from_lower = _whole_taps(pixels.shape[1], height, clamp=False)
    above, below = rows[:, upper] * from_upper[:, None], rows[:, lower] * from_lower[:, None]
    return (((above >> 16) + (below >> 16) + 2) >> 2).to(torch.uint8)


def _whole_taps(old: int, new: int, clamp: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return both neighbours of each new position, and their weights times 2048."""
    place = ((torch.arange(new, dtype=torch.float64) + 0.5) * (old / new) - 0.5).float()
    low = place.floor().long()
    fraction = place - low
    if clamp:  # in x only: in y a border row is met twice, with both weights
        fraction = torch.where((low < 0) | (low >= old - 1), 0.0, fraction)
    weights = [(weight * 2048).round().to(torch.int32) for weight in (1 - fraction, fraction)]
    return low.clamp(0, old - 1), (low + 1).clamp(0, old - 1), weights[0], weights[1]


def stepped_linear(pixels: Tensor, height: int, width: int, step: float) -> Tensor:
    """Resize ``[3, H, W]`` bilinearly to float32, with positions ``step`` old pixels apart.

    The step is that of the scale before the sides are rounded, as in OpenCV's resize by a factor. Positions beyond the
    last pixel repeat it.
    """
    out = pixels.float()
    for axis, length in ((1, height), (2, width)):
        old = out.shape[axis]
        place = ((torch.arange(length, dtype=torch.float64) + 0.5) * step - 0.5).clamp(0, old - 1)
        low = place.floor().long()
        part = (place - low).float().reshape([-1, 1] if axis == 1 else [-1])
        near, far = out.index_select(axis, low), out.index_select(axis, (low + 1).clamp(max=old - 1))
        out = torch.lerp(near, far, part)
    return out
