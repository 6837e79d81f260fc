"""How large the boxes of a data set are for a network, after its images have been resized."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from boxwright.data.index import DetectionIndex
from boxwright.data.transforms.configs import LetterboxConfig, ResizeConfig, TransformConfig, WarpConfig

Resize = Literal["letterbox", "warp", "keep"]


def network_sizes(index: DetectionIndex, size: tuple[int, int] | None, resize: Resize) -> np.ndarray:
    """Width and height of all boxes but crowd regions in pixels of the network's input, float64 ``[M, 2]``.

    Boxes are cut at the edges of their image. Sides of the resized image are rounded as the transforms round them.
    """
    height, width = index.sizes.astype(np.int64).T
    if resize == "keep" or size is None:
        inner = np.stack([width, height], axis=1)
    elif resize == "warp":
        inner = np.broadcast_to(np.array(size[::-1]), (len(width), 2))
    else:
        tight = size[1] * height < size[0] * width  # the width fills the box, and the height is rounded down
        across = np.where(tight, size[1], np.maximum(1, width * size[0] // height))
        down = np.where(tight, np.maximum(1, height * size[1] // width), size[0])
        inner = np.stack([across, down], axis=1)
    return _scaled_boxes(index, inner / np.stack([width, height], axis=1))


def evaluated_sizes(index: DetectionIndex, transforms: Sequence[TransformConfig]) -> np.ndarray:
    """The same for the images as ``transforms`` make them at evaluation: by the first that resizes."""
    for transform in transforms:
        match transform:
            case LetterboxConfig(size=size):
                return network_sizes(index, size, "letterbox")
            case WarpConfig(size=size):
                return network_sizes(index, size, "warp")
            case ResizeConfig(short=short, long=long):
                sides = index.sizes.astype(np.float64)
                scale = np.minimum(short[0] / sides.min(axis=1), long / sides.max(axis=1))
                return _scaled_boxes(index, np.repeat(scale[:, None], 2, axis=1))
            case _:
                pass
    return network_sizes(index, None, "keep")


def _scaled_boxes(index: DetectionIndex, factors: np.ndarray) -> np.ndarray:
    """Box sizes ``[M, 2]``, cut at the images' edges, times the ``factors`` ``[N, 2]`` in x and y of their images."""
    height, width = index.sizes.astype(np.int64).T
    per_image = np.diff(index.box_ends)
    sides = np.repeat(np.stack([width, height], axis=1), per_image, axis=0)
    low = np.clip(index.xywh[:, :2], 0, sides)
    high = np.clip(index.xywh[:, :2] + index.xywh[:, 2:], 0, sides)
    scale = np.repeat(factors, per_image, axis=0)
    return ((high - low) * scale)[~index.crowd]
