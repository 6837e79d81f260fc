"""The geometry of Darknet's training: the jitter of YOLOv2 and YOLOv3, and the one of YOLOv1 before it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from torch import Generator

from boxwright.data.transforms.resizing import check_fill, check_size
from boxwright.data.transforms.sample import (
    Fill,
    Interpolation,
    Sample,
    check,
    integer,
    placed,
    resized,
    select,
    uniform,
)


@dataclass(frozen=True, kw_only=True)
class DarknetJitterConfig:
    """A random aspect, place or cut, always ending at ``size`` (height, width).

    ``method`` "place" (YOLOv2 since 2017, YOLOv3): width and height change by up to ``jitter`` of themselves, what that
    gives is fitted into ``size`` and laid at a random place on ``fill``. "crop" (YOLOv1 with a jitter of .2, YOLOv2 of
    2016): each edge moves in or out by up to ``jitter`` of its side, the image's edge is repeated outside, and the rest
    is stretched to ``size``.

    Boxes are clipped, and dropped where a side is less than ``min_share`` of the input's: .001 in Darknet's detectors
    with anchors, .005 in YOLOv1. Darknet itself does not antialias (``interpolation`` "aliased").
    """

    kind: Literal["darknet_jitter"] = "darknet_jitter"
    size: tuple[int, int] = (416, 416)
    method: Literal["place", "crop"] = "place"
    jitter: float = 0.3
    fill: Fill = (127, 127, 127)
    min_share: float = 0.001
    interpolation: Interpolation = "bilinear"

    def __post_init__(self) -> None:
        check_size(self)
        check(self.method in ("place", "crop"), self, "method", '"place" or "crop"')
        most = 1 if self.method == "place" else 0.5
        check(0 <= self.jitter < most, self, "jitter", f"a fraction of at least 0 and less than {most}")
        check_fill(self)
        check(0 <= self.min_share < 1, self, "min_share", "a fraction in 0..1")


def darknet_jitter(sample: Sample, config: DarknetJitterConfig, generator: Generator) -> Sample:
    """See `DarknetJitterConfig`."""
    moved = _place(sample, config, generator) if config.method == "place" else _crop(sample, config, generator)
    height, width = config.size
    sides = moved.boxes[:, 2:] - moved.boxes[:, :2]
    return select(moved, (sides >= sides.new_tensor([width, height]) * config.min_share).all(1))


def _place(sample: Sample, config: DarknetJitterConfig, generator: Generator) -> Sample:
    (height, width), (to_height, to_width) = sample.size, config.size
    aspect = width * (1 + uniform(generator, -config.jitter, config.jitter))
    aspect /= height * (1 + uniform(generator, -config.jitter, config.jitter))
    # Whole pixels, for the boxes too, so that they stay on their objects; Darknet rounds the picture alone.
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
    left, right = (_step(width, config.jitter, generator) for _ in range(2))
    top, bottom = (_step(height, config.jitter, generator) for _ in range(2))
    cut = placed(sample, top=-top, left=-left, height=height - top - bottom, width=width - left - right, fill=None)
    return resized(cut, *config.size, config.interpolation)


def _step(side: int, jitter: float, generator: Generator) -> int:
    """How far an edge moves, inwards where positive."""
    most = int(side * jitter)
    return math.trunc(uniform(generator, -most, most))
