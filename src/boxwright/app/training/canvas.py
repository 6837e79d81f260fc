"""Sizes of the batches that a network sees, without reading an image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from boxwright.config.input_check import fixed_output
from boxwright.data.config import DataConfig
from boxwright.data.index import DetectionIndex
from boxwright.data.transforms.configs import TransformConfig
from boxwright.data.transforms.resizing import ResizeConfig, ScaleJitterConfig
from boxwright.geometry.rounding import round_up

Size = tuple[int, int]
"""Height and width in pixels."""


def training_canvas(data: DataConfig, index: DetectionIndex) -> tuple[Size, Size] | None:
    """Return the smallest and the largest size of a training batch; None if the transforms draw it at random."""
    if data.multi_scale is not None:
        sides = data.multi_scale.all_sizes
        return (sides[0], sides[0]), (sides[-1], sides[-1])
    return _canvas(data, data.train, index)


def evaluation_canvas(data: DataConfig, index: DetectionIndex) -> tuple[Size, Size] | None:
    """Return the smallest and the largest size of a batch of validation."""
    return _canvas(data, data.eval, index)


def canvas_text(canvas: tuple[Size, Size] | None) -> str:
    """Return a canvas in words: ``256 x 256``, height first."""
    if canvas is None:
        return "drawn at random"
    low, high = (f"{height} x {width}" for height, width in canvas)
    return low if low == high else f"{low} to {high}"


def _canvas(data: DataConfig, transforms: Sequence[TransformConfig], index: DetectionIndex) -> tuple[Size, Size] | None:
    if data.fixed_size is not None:
        return data.fixed_size, data.fixed_size
    if data.shapes is not None:
        ordered = sorted(data.shapes, key=lambda shape: shape[0] * shape[1])
        return ordered[0], ordered[-1]
    made = fixed_output(transforms)
    found = [made[1]] if made is not None else _sizes(transforms, index)
    if found is None:
        return None
    heights, widths = ([round_up(side, data.pad_multiple) for side in sides] for sides in zip(*found, strict=True))
    return (min(heights), min(widths)), (max(heights), max(widths))


def _sizes(transforms: Sequence[TransformConfig], index: DetectionIndex) -> list[Size] | None:
    """Return the sizes that the images of ``index`` get, of a random scale both ends; None if they are random."""
    found = []
    for size in np.unique(index.sizes, axis=0).tolist():
        for pick in (min, max):
            height, width = size
            for transform in transforms:
                made = _extreme(transform, height, width, pick)
                if made is None:
                    return None
                height, width = made
            found.append((height, width))
    return found


def _extreme(
    transform: TransformConfig, height: int, width: int, pick: Callable[[Sequence[float]], float]
) -> Size | None:
    """Return the smallest or largest size that an image of ``height`` x ``width`` gets; None if it is random."""
    match transform:
        case ResizeConfig():
            return replace(transform, short=(int(pick(transform.short)),)).output_size(height, width)
        case ScaleJitterConfig():
            factor = min(transform.size[0] / height, transform.size[1] / width) * pick(transform.scale)
            return max(1, round(height * factor)), max(1, round(width * factor))
        case _:
            return transform.output_size(height, width)
