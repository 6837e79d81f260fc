"""Mosaic of four images around one point (YOLOv4)."""

from __future__ import annotations

from typing import Literal

from torch import Generator, Tensor

from boxwright.data.transforms.field_types import Fill, Interval, Size
from boxwright.data.transforms.mixing.joining import joined
from boxwright.data.transforms.sample import (
    Fetch,
    Sample,
    chance,
    integer,
    placed,
    resized,
    uniform,
)
from boxwright.fields import NotNegative, Share, config

SPREAD = 0.5
"""The point lies within this fraction of the scaled size around the centre.

At 0.5 its distribution is that of the original method, which draws it in the middle half of a canvas of twice the size,
scales about the centre and crops. Here one interpolation is enough instead of two.
"""


@config
class MosaicConfig:
    """Combine the image and three others of the data set around a random point of a canvas.

    Each image is fitted into ``size`` and scaled by one common factor. An image without a mosaic keeps its size.
    """

    kind: Literal["mosaic"] = "mosaic"
    size: Size = (640, 640)
    """Height and width of the canvas in pixels."""
    p: Share = 1.0
    """Probability of a mosaic."""
    scale: Interval = (0.5, 1.5)
    """Range of the common factor."""
    fill: Fill = (114, 114, 114)
    """Colour beside the images."""
    min_visible: Share = 0.1
    """Smallest part of a box's area that must remain, or the box is dropped."""
    min_size: NotNegative = 2.0
    """Shortest side of a remaining box in pixels, or the box is dropped."""

    @property
    def fixed(self) -> bool:
        """Return True if every image becomes a mosaic."""
        return self.p == 1

    def output_size(self, height: int, width: int) -> Size | None:
        """Return ``size``; None if some images keep their sizes."""
        return self.size if self.fixed or (height, width) == self.size else None

    def object_scale(self, height: int, width: int) -> tuple[float, float] | None:
        """Return None: the factor is random."""


def mosaic(sample: Sample, config: MosaicConfig, generator: Generator, fetch: Fetch) -> Sample:
    """Make a mosaic of the image and three others, with the probability of the configuration."""
    if not chance(generator, config.p):
        return sample
    zoom = uniform(generator, *config.scale)
    point = []
    for side in config.size:
        wander = uniform(generator, -SPREAD, SPREAD) * side * zoom
        point.append(min(max(round(side / 2 + wander), 0), side))
    y, x = point
    others = [fetch(integer(generator, len(fetch))) for _ in range(3)]
    tiles = [_tile(each, corner, y, x, zoom, config) for corner, each in enumerate([sample, *others])]
    canvas = tiles[0].image.as_subclass(Tensor).clone()
    canvas[:, :y, x:] = tiles[1].image[:, :y, x:]
    canvas[:, y:, :x] = tiles[2].image[:, y:, :x]
    canvas[:, y:, x:] = tiles[3].image[:, y:, x:]
    return joined(tiles, canvas)


def _tile(sample: Sample, corner: int, y: int, x: int, zoom: float, config: MosaicConfig) -> Sample:
    """Place one image on its own canvas so that it touches the point (y, x) from its quarter.

    Quarters 0 and 1 are above, 2 and 3 below.
    """
    (height, width), (to_height, to_width) = sample.size, config.size
    scale = min(to_height / height, to_width / width) * zoom
    tile = resized(sample, max(1, round(height * scale)), max(1, round(width * scale)))
    return placed(
        tile,
        top=y - tile.size[0] if corner < 2 else y,
        left=x - tile.size[1] if corner % 2 == 0 else x,
        height=to_height,
        width=to_width,
        fill=config.fill,
        min_visible=config.min_visible,
        min_size=config.min_size,
    )
