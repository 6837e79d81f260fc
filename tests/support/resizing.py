"""Image resizing as reference implementations do it."""

import numpy as np
import torch
from torch import Tensor


def darknet_resize(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resize bilinearly with aligned corners, as Darknet does: ``[height, width, 3]``."""
    out = image.astype(np.float32) / 255
    for axis, side in ((1, width), (0, height)):
        at = np.linspace(0, out.shape[axis] - 1, side)
        low = np.minimum(at.astype(int), out.shape[axis] - 2)
        part = (at - low).astype(np.float32).reshape([-1, 1, 1] if axis == 0 else [1, -1, 1])
        out = out.take(low, axis) * (1 - part) + out.take(low + 1, axis) * part
    return out


def darknet_letterbox(image: np.ndarray, side: int) -> tuple[Tensor, int, int]:
    """Letterbox an image as Darknet does. Returns ``[1, 3, side, side]`` in 0..1, and the size of the image inside."""
    height, width = image.shape[:2]
    inner_width, inner_height = (side, height * side // width) if width > height else (width * side // height, side)
    canvas = np.full((side, side, 3), 0.5, np.float32)
    top, left = (side - inner_height) // 2, (side - inner_width) // 2
    canvas[top : top + inner_height, left : left + inner_width] = darknet_resize(image, inner_width, inner_height)
    return torch.from_numpy(canvas).permute(2, 0, 1)[None].contiguous(), inner_width, inner_height


def opencv_resize(array: np.ndarray, height: int, width: int) -> np.ndarray:
    """Reproduce cv2.resize of uint8 ``[h, w, 3]`` with INTER_LINEAR bit for bit: weights of 11 bits, each product
    truncated.
    """
    left, right, from_left, from_right = _taps(array.shape[1], width, clamp=True)
    wide = array.astype(np.int64)
    rows = wide[:, left] * from_left[:, None] + wide[:, right] * from_right[:, None]
    upper, lower, from_upper, from_lower = (t[:, None, None] for t in _taps(array.shape[0], height, clamp=False))
    above, below = (rows[index[:, 0, 0]] >> 4 for index in (upper, lower))
    return ((((from_upper * above) >> 16) + ((from_lower * below) >> 16) + 2) >> 2).astype(np.uint8)


def _taps(source: int, target: int, clamp: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    place = ((np.arange(target) + 0.5) * (source / target) - 0.5).astype(np.float32)
    low = np.floor(place).astype(int)
    fraction = place - low.astype(np.float32)
    if clamp:  # in x only: in y a border row is met twice, with both weights
        fraction = np.where((low < 0) | (low >= source - 1), np.float32(0), fraction)
    weights = [np.rint(w * np.float32(2048)).astype(np.int64) for w in (np.float32(1) - fraction, fraction)]
    return low.clip(0, source - 1), (low + 1).clip(0, source - 1), weights[0], weights[1]
