"""Sizes of the boxes of a data set in pixels of the network's input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from boxwright.data.index import DetectionIndex
from boxwright.data.transforms.configs import LetterboxConfig, ResizeConfig, TransformConfig, WarpConfig

Resize = Literal["letterbox", "warp", "keep"]


def network_sizes(index: DetectionIndex, size: tuple[int, int] | None, resize: Resize) -> np.ndarray:
    """Return width and height of all boxes but crowds in the network's input, float64 ``[M, 2]``.

    Images are resized to ``size`` (height, width) by the named method. Boxes are clipped to their image.
    """
    transforms: tuple[TransformConfig, ...] = ()
    if size is not None and resize != "keep":
        transforms = (LetterboxConfig(size=size) if resize == "letterbox" else WarpConfig(size=size),)
    return evaluated_sizes(index, transforms)


def evaluated_sizes(index: DetectionIndex, transforms: Sequence[TransformConfig]) -> np.ndarray:
    """Return width and height of all boxes but crowds after ``transforms``, float64 ``[M, 2]``.

    Boxes are clipped to their image. Of several short sides to resize to, the first counts. Other transforms
    that scale objects at random are ignored.
    """
    sizes, rows = np.unique(index.sizes, axis=0, return_inverse=True)
    scales = [_factors(height, width, transforms) for height, width in sizes.tolist()]
    factors = np.array(scales, dtype=np.float64).reshape(-1, 2)
    sides = np.repeat(index.sizes.astype(np.int64)[:, ::-1], np.diff(index.box_ends), axis=0)
    low = np.clip(index.xywh[:, :2], 0, sides)
    high = np.clip(index.xywh[:, :2] + index.xywh[:, 2:], 0, sides)
    scale = np.repeat(factors[rows.reshape(-1)], np.diff(index.box_ends), axis=0)
    return ((high - low) * scale)[~index.crowd]


def _factors(height: int, width: int, transforms: Sequence[TransformConfig]) -> tuple[float, float]:
    """Return the factors on width and height of an object in an image of ``height`` x ``width``."""
    x = y = 1.0
    for transform in transforms:
        if isinstance(transform, ResizeConfig):
            transform = replace(transform, short=transform.short[:1])
        scale = transform.object_scale(height, width)
        if scale is not None:
            y, x = y * scale[0], x * scale[1]
            height, width = transform.output_size(height, width) or (height, width)
    return x, y
