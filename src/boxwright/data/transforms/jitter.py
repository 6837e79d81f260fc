"""Geometric jitter of Darknet's training, for YOLOv2 and YOLOv3, and for YOLOv1."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from torch import Generator

from boxwright.data.transforms.field_types import Fill, Interpolation, Size
from boxwright.data.transforms.sample import Sample, integer, placed, resized, select, uniform
from boxwright.fields import Fraction, config
from boxwright.structures import InputError


@config
class DarknetJitterConfig:
    """Change the aspect and the position or crop at random, with a result of one size.

    Method "place" (YOLOv2 since 2017, YOLOv3): width and height change by a fraction of up to ``jitter``; the result is
    fitted into ``size`` at a random position on ``fill``. Method "crop" (YOLOv1 with a jitter of .2, YOLOv2 of
    2016): each edge moves in or out by up to ``jitter`` of its side, the image's edge pixels are repeated outside, and
    the crop is stretched to ``size``. Boxes are clipped.
    """

    kind: Literal["darknet_jitter"] = "darknet_jitter"
    size: Size = (416, 416)
    """Height and width of the result in pixels."""
    method: Literal["place", "crop"] = "place"
    """Variant of the jitter."""
    jitter: Fraction = 0.3
    """Largest change, as a fraction of a side; less than 0.5 for "crop"."""
    fill: Fill = (127, 127, 127)
    """Colour beside the image, for "place"."""
    min_share: Fraction = 0.001
    """Boxes with a side below this fraction of the input's side are dropped: .001 in Darknet's detectors with anchors,
    .005 in YOLOv1."""
    interpolation: Interpolation = "bilinear"
    """Method of resizing. Darknet itself does not antialias ("aliased")."""

    fixed: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.method == "crop" and self.jitter >= 0.5:
            raise InputError(f"jitter = {self.jitter}: should be less than 0.5 for the method 'crop'")

    def output_size(self, height: int, width: int) -> Size | None:
        """Return ``size``."""
        return self.size

    def object_scale(self, height: int, width: int) -> tuple[float, float] | None:
        """Return None: the factors are random."""


def darknet_jitter(sample: Sample, config: DarknetJitterConfig, generator: Generator) -> Sample:
    """Jitter the geometry by the method of the configuration, and drop tiny boxes."""
    moved = _place(sample, config, generator) if config.method == "place" else _crop(sample, config, generator)
    height, width = config.size
    sides = moved.boxes[:, 2:] - moved.boxes[:, :2]
    return select(moved, (sides >= sides.new_tensor([width, height]) * config.min_share).all(1))


def _place(sample: Sample, config: DarknetJitterConfig, generator: Generator) -> Sample:
    (height, width), (to_height, to_width) = sample.size, config.size
    aspect = width * (1 + uniform(generator, -config.jitter, config.jitter))
    aspect /= height * (1 + uniform(generator, -config.jitter, config.jitter))
    # Boxes are rounded with the image, so that they stay on their objects; Darknet rounds only the image.
    if to_height * aspect < to_width:
        inner_height, inner_width = to_height, max(1, int(to_height * aspect))
    else:
        inner_height, inner_width = max(1, int(to_width / aspect)), to_width
    return placed(
        resized(sample, inner_height, inner_width, config.interpolation),
        top=integer(generator, to_height - inner_height + 1),
        left=integer(generator, to_width - inner_width + 1),
        height=to_height,
        width=to_width,
        fill=config.fill,
    )


def _crop(sample: Sample, config: DarknetJitterConfig, generator: Generator) -> Sample:
    height, width = sample.size
    left, right = (_inset(width, config.jitter, generator) for _ in range(2))
    top, bottom = (_inset(height, config.jitter, generator) for _ in range(2))
    cut = placed(sample, top=-top, left=-left, height=height - top - bottom, width=width - left - right, fill=None)
    return resized(cut, *config.size, config.interpolation)


def _inset(side: int, jitter: float, generator: Generator) -> int:
    """Draw the number of pixels that an edge moves, inwards if positive."""
    most = int(side * jitter)
    return math.trunc(uniform(generator, -most, most))
