"""Mosaic: four pictures around one point, as YOLOv4 and its successors train."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Generator, Tensor
from torchvision import tv_tensors

from boxwright.data.transforms.augment import check_probability
from boxwright.data.transforms.resizing import check_fill, check_range, check_rest, check_size
from boxwright.data.transforms.sample import (
    NO_WAY_BACK,
    Fetch,
    Fill,
    Sample,
    chance,
    check,
    integer,
    placed,
    resized,
    uniform,
)


@dataclass(frozen=True, kw_only=True)
class MosaicConfig:
    """With probability ``p`` the picture and three others of the data set meet at a random point of a ``size`` canvas.

    Each picture is fitted into ``size`` and scaled by one common factor in ``scale``. The point lies within
    ``spread`` times the scaled size around the centre (0.5 is the point drawn over the middle half of a canvas of
    twice the size, then zoomed about its centre and cropped, in one interpolation and not two). Boxes of which less
    than ``min_visible`` of the area is left, or with a side under ``min_size`` pixels, are dropped. The result is
    ``size`` where it happens and the picture as it was where it does not.
    """

    kind: Literal["mosaic"] = "mosaic"
    size: tuple[int, int] = (640, 640)
    p: float = 1.0
    scale: tuple[float, float] = (0.5, 1.5)
    spread: float = 0.5
    fill: Fill = (114, 114, 114)
    min_visible: float = 0.1
    min_size: float = 2.0

    def __post_init__(self) -> None:
        check_size(self)
        check_probability(self, "p")
        check_range(self, "scale")
        check(0 <= self.spread <= 0.5, self, "spread", "a fraction in 0..0.5")
        check_fill(self)
        check_rest(self)


def mosaic(sample: Sample, config: MosaicConfig, generator: Generator, fetch: Fetch) -> Sample:
    """See `MosaicConfig`."""
    if not chance(generator, config.p):
        return sample
    zoom = uniform(generator, *config.scale)
    point = []
    for side in config.size:
        wander = uniform(generator, -config.spread, config.spread) * side * zoom
        point.append(min(max(round(side / 2 + wander), 0), side))
    y, x = point
    others = [fetch(integer(generator, len(fetch))) for _ in range(3)]
    tiles = [_tile(each, corner, y, x, zoom, config) for corner, each in enumerate([sample, *others])]
    canvas = tiles[0].image.as_subclass(Tensor).clone()
    canvas[:, :y, x:] = tiles[1].image[:, :y, x:]
    canvas[:, y:, :x] = tiles[2].image[:, y:, :x]
    canvas[:, y:, x:] = tiles[3].image[:, y:, x:]
    masks = [tile.masks for tile in tiles if tile.masks is not None]
    proposals = [tile.proposals for tile in tiles if tile.proposals is not None]
    return replace(
        sample,
        image=tv_tensors.Image(canvas),
        boxes=torch.cat([tile.boxes for tile in tiles]),
        labels=torch.cat([tile.labels for tile in tiles]),
        crowd=torch.cat([tile.crowd for tile in tiles]),
        difficult=torch.cat([tile.difficult for tile in tiles]),
        masks=torch.cat(masks) if len(masks) == 4 else None,
        proposals=torch.cat(proposals) if len(proposals) == 4 else None,
        to_original=NO_WAY_BACK,
    )


def _tile(sample: Sample, corner: int, y: int, x: int, zoom: float, config: MosaicConfig) -> Sample:
    """One picture on its own canvas, touching the point (y, x) from its quarter: 0 1 above, 2 3 below."""
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
