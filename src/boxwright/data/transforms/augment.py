"""Transforms that move or cut the picture: flips, quarter turns, zooming out, and the min-IoU crop of SSD."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor

from boxwright.data.transforms.resizing import CAFFE_MEAN, check_fill, check_range, check_rest
from boxwright.data.transforms.sample import (
    Fill,
    Sample,
    chance,
    check,
    flipped,
    integer,
    placed,
    select,
    turned,
    uniform,
)


@dataclass(frozen=True, kw_only=True)
class FlipConfig:
    """Mirror left for right with probability ``p`` and, independently, upside down with ``vertical_p``.

    Upside down suits pictures from above or through a microscope.
    """

    kind: Literal["flip"] = "flip"
    p: float = 0.5
    vertical_p: float = 0.0

    def __post_init__(self) -> None:
        check_probability(self, "p")
        check_probability(self, "vertical_p")


def flip(sample: Sample, config: FlipConfig, generator: Generator) -> Sample:
    """See `FlipConfig`."""
    if chance(generator, config.p):
        sample = flipped(sample)
    if chance(generator, config.vertical_p):
        sample = flipped(sample, vertical=True)
    return sample


@dataclass(frozen=True, kw_only=True)
class QuarterTurnConfig:
    """With probability ``p`` turn the picture by 90, 180 or 270 degrees: for pictures without an up."""

    kind: Literal["quarter_turn"] = "quarter_turn"
    p: float = 0.75

    def __post_init__(self) -> None:
        check_probability(self, "p")


def quarter_turn(sample: Sample, config: QuarterTurnConfig, generator: Generator) -> Sample:
    """See `QuarterTurnConfig`."""
    return turned(sample, 1 + integer(generator, 3)) if chance(generator, config.p) else sample


@dataclass(frozen=True, kw_only=True)
class ExpandConfig:
    """Zoom out with probability ``p``: lay the image at random on a canvas ``ratio`` times as wide and high, one
    factor for both sides, filled with ``fill`` (SSD §3.6 "zoom out": up to 4 x 4 = 16 times the area, filled with
    the mean)."""

    kind: Literal["expand"] = "expand"
    p: float = 0.5
    ratio: tuple[float, float] = (1.0, 4.0)
    fill: Fill = CAFFE_MEAN

    def __post_init__(self) -> None:
        check_probability(self, "p")
        check_range(self, "ratio")
        check(self.ratio[0] >= 1, self, "ratio", "two increasing numbers of at least 1")
        check_fill(self)


def expand(sample: Sample, config: ExpandConfig, generator: Generator) -> Sample:
    """See `ExpandConfig`."""
    if not chance(generator, config.p):
        return sample
    height, width = sample.size
    ratio = uniform(generator, *config.ratio)
    to_height, to_width = int(height * ratio), int(width * ratio)
    return placed(
        sample,
        top=integer(generator, to_height - height + 1),
        left=integer(generator, to_width - width + 1),
        height=to_height,
        width=to_width,
        fill=config.fill,
    )


@dataclass(frozen=True, kw_only=True)
class MinIoUCropConfig:
    """The crop of SSD (§2.2): one of several samplers, uniformly among those that find a crop.

    The samplers are one for each value of ``min_ious`` (the crop overlaps at least one object by that IoU; crowds do
    not count), the whole image if ``whole``, and an unconstrained crop if ``free``. A crop covers ``scale`` of the
    image's sides with a relative aspect in ``aspect``, moved to where neither side is longer than the image's; each
    sampler tries ``trials`` times. The paper's least scale is .1, its code's .3. ``keep`` says which boxes stay: those
    with their "centre" inside (the reference), or all of which ``min_visible`` of the area is "visible".

    As in the reference a crop may end without a box: acceptance tests the overlap, keeping tests the centre. Unlike
    the reference an image without objects can be cropped by the free sampler.
    """

    kind: Literal["min_iou_crop"] = "min_iou_crop"
    p: float = 1.0
    min_ious: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7, 0.9)
    whole: bool = True
    free: bool = True
    scale: tuple[float, float] = (0.3, 1.0)
    aspect: tuple[float, float] = (0.5, 2.0)
    trials: int = 50
    keep: Literal["centre", "visible"] = "centre"
    min_visible: float = 0.0
    min_size: float = 0.0

    def __post_init__(self) -> None:
        check_probability(self, "p")
        check(all(0 <= v <= 1 for v in self.min_ious), self, "min_ious", "overlaps in 0..1")
        check(
            bool(self.min_ious) or self.whole or self.free, self, "min_ious", "not empty where whole and free are off"
        )
        check_range(self, "scale", high=1.0)
        check_range(self, "aspect")
        check(self.trials >= 1, self, "trials", "at least 1")
        check_rest(self)


def min_iou_crop(sample: Sample, config: MinIoUCropConfig, generator: Generator) -> Sample:
    """See `MinIoUCropConfig`."""
    if not chance(generator, config.p):
        return sample
    window = _find_window(sample, config, generator)
    if window is None:
        return sample
    top, left, height, width = window
    if config.keep == "centre":
        x, y = (sample.boxes[:, :2] + sample.boxes[:, 2:]).div(2).unbind(1)
        sample = select(sample, (x >= left) & (x < left + width) & (y >= top) & (y < top + height))
    return placed(
        sample,
        top=-top,
        left=-left,
        height=height,
        width=width,
        min_visible=config.min_visible,
        min_size=config.min_size,
    )


def _find_window(sample: Sample, config: MinIoUCropConfig, generator: Generator) -> tuple[int, int, int, int] | None:
    """Top, left, height, width of the crop; None for the whole image.

    The first success in a random order of the samplers is a uniform choice among all that would succeed, at a
    fraction of the reference's work, which runs every one.
    """
    samplers: list[float | None] = [*config.min_ious]
    samplers += [0.0] if config.free else []
    samplers += [None] if config.whole else []
    objects = sample.boxes[~sample.crowd]
    for number in torch.randperm(len(samplers), generator=generator).tolist():
        bound = samplers[number]
        if bound is None:
            return None
        if bound > 0 and len(objects) == 0:
            continue
        for _ in range(config.trials):
            window = _random_window(sample.size, config, generator)
            if bound == 0 or bool((_window_iou(window, objects) >= bound).any()):
                return window
    return None


def _random_window(size: tuple[int, int], config: MinIoUCropConfig, generator: Generator) -> tuple[int, int, int, int]:
    scale = uniform(generator, *config.scale)
    aspect = min(max(uniform(generator, *config.aspect), scale**2), 1 / scale**2)
    height = max(1, round(size[0] * scale / math.sqrt(aspect)))
    width = max(1, round(size[1] * scale * math.sqrt(aspect)))
    height, width = min(height, size[0]), min(width, size[1])
    return integer(generator, size[0] - height + 1), integer(generator, size[1] - width + 1), height, width


def _window_iou(window: tuple[int, int, int, int], boxes: Tensor) -> Tensor:
    top, left, height, width = window
    low = torch.maximum(boxes[:, :2], boxes.new_tensor([left, top]))
    high = torch.minimum(boxes[:, 2:], boxes.new_tensor([left + width, top + height]))
    common = (high - low).clamp(min=0).prod(1)
    return common / (height * width + (boxes[:, 2:] - boxes[:, :2]).prod(1) - common)


def check_probability(config: object, field: str) -> None:
    """The field is a probability."""
    check(0 <= getattr(config, field) <= 1, config, field, "a probability in 0..1")
