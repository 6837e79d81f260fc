"""Transforms that move or crop the image: flips, quarter turns, zooming out, and the min-IoU crop of SSD."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from torch import Generator, Tensor

from boxwright.data.transforms.field_types import CAFFE_MEAN, Fill, Interval, ShareInterval, Size
from boxwright.data.transforms.sample import Sample, chance, flipped, integer, placed, select, turned, uniform
from boxwright.fields import NotNegative, Share, config
from boxwright.structures import InputError


@config
class FlipConfig:
    """Mirror the image left for right and, independently, upside down."""

    kind: Literal["flip"] = "flip"
    p: Share = 0.5
    """Probability of mirroring left for right."""
    vertical_p: Share = 0.0
    """Probability of mirroring upside down, which suits images from above or through a microscope."""

    fixed: ClassVar[bool] = False

    def output_size(self, height: int, width: int) -> Size | None:
        """Return the size of the image, which does not change."""
        return height, width

    def object_scale(self, height: int, width: int) -> tuple[float, float] | None:
        """Return 1, since objects keep their size."""
        return 1.0, 1.0


def flip(sample: Sample, config: FlipConfig, generator: Generator) -> Sample:
    """Mirror the image with the probabilities of the configuration."""
    if chance(generator, config.p):
        sample = flipped(sample)
    if chance(generator, config.vertical_p):
        sample = flipped(sample, vertical=True)
    return sample


@config
class QuarterTurnConfig:
    """Rotate the image by 90, 180 or 270 degrees, evenly drawn: for images without a natural orientation."""

    kind: Literal["quarter_turn"] = "quarter_turn"
    p: Share = 0.75
    """Probability of a turn."""

    fixed: ClassVar[bool] = False

    def output_size(self, height: int, width: int) -> Size | None:
        """Return the size of a square image, which does not change; None for others."""
        return (height, width) if height == width else None

    def object_scale(self, height: int, width: int) -> tuple[float, float] | None:
        """Return None: height and width of an object may be exchanged."""


def quarter_turn(sample: Sample, config: QuarterTurnConfig, generator: Generator) -> Sample:
    """Turn the image with the probability of the configuration."""
    return turned(sample, 1 + integer(generator, 3)) if chance(generator, config.p) else sample


@config
class ExpandConfig:
    """Zoom out: place the image at a random position on a larger canvas (SSD §3.6)."""

    kind: Literal["expand"] = "expand"
    p: Share = 0.5
    """Probability of zooming out."""
    ratio: Interval = (1.0, 4.0)
    """Range of the factor on both sides, from 1 (SSD: up to 4 times each side, 16 times the area)."""
    fill: Fill = CAFFE_MEAN
    """Colour beside the image (SSD: the mean)."""

    fixed: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.ratio[0] < 1:
            raise InputError(f"ratio = {self.ratio}: should be two increasing numbers of at least 1")

    def output_size(self, height: int, width: int) -> Size | None:
        """Return None: the size is random."""

    def object_scale(self, height: int, width: int) -> tuple[float, float] | None:
        """Return 1, since objects keep their size."""
        return 1.0, 1.0


def expand(sample: Sample, config: ExpandConfig, generator: Generator) -> Sample:
    """Zoom out with the probability of the configuration."""
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


TRIALS = 50
"""Number of crops that each sampler of the min-IoU crop tries (SSD's code)."""
FREE, WHOLE = 0.0, None
"""Number of samplers of the min-IoU crop without a minimum IoU: any crop, and the whole image."""


@config
class MinIoUCropConfig:
    """Crop the image by one of several samplers, drawn evenly among those that find a crop (SSD §2.2).

    The samplers are one for each value of ``min_ious``, the whole image, and a crop without a condition. As in the
    reference a crop may have no box left, since it is accepted by overlap and boxes are kept by centre. Unlike in the
    reference an image without objects can be cropped by the sampler without a condition.
    """

    kind: Literal["min_iou_crop"] = "min_iou_crop"
    p: Share = 1.0
    """Probability of drawing a sampler."""
    min_ious: tuple[Share, ...] = (0.1, 0.3, 0.5, 0.7, 0.9)
    """Minimum IoU of the crop with at least one object, for each sampler; crowds do not count."""
    scale: ShareInterval = (0.3, 1.0)
    """Range of the crop's sides as a fraction of the image's. The minimum is .1 in the paper, .3 in its code."""
    aspect: Interval = (0.5, 2.0)
    """Range of the aspect relative to the image's, limited so that no side is longer than the image's."""
    keep: Literal["centre", "visible"] = "centre"
    """Boxes that are kept: those with their centre inside (the reference), or those visible by ``min_visible``."""
    min_visible: Share = 0.0
    """Smallest part of a box's area that must remain, or the box is dropped."""
    min_size: NotNegative = 0.0
    """Shortest side of a remaining box in pixels, or the box is dropped."""

    fixed: ClassVar[bool] = False

    def output_size(self, height: int, width: int) -> Size | None:
        """Return None: the size is random."""

    def object_scale(self, height: int, width: int) -> tuple[float, float] | None:
        """Return 1, since objects keep their size."""
        return 1.0, 1.0


Window = tuple[int, int, int, int]
"""Top, left, height and width of a crop in pixels."""


def min_iou_crop(sample: Sample, config: MinIoUCropConfig, generator: Generator) -> Sample:
    """Crop the image by a sampler drawn evenly among those that succeed.

    The first success in a random order of the samplers is such a draw, at a fraction of the work of the reference,
    which runs every sampler.
    """
    if not chance(generator, config.p):
        return sample
    samplers = (*config.min_ious, FREE, WHOLE)
    for number in torch.randperm(len(samplers), generator=generator).tolist():
        least = samplers[number]
        if least is WHOLE:
            return sample
        window = find_window(sample, config, least, generator)
        if window is not None:
            return cut_to(sample, config, window)
    return sample


def find_window(sample: Sample, config: MinIoUCropConfig, least: float, generator: Generator) -> Window | None:
    """Draw a crop with an IoU of at least ``least`` with an object; None if `TRIALS` draws find none."""
    objects = sample.boxes[~sample.crowd]
    if least > FREE and len(objects) == 0:
        return None
    for _ in range(TRIALS):
        window = _random_window(sample.size, config, generator)
        if least == FREE or bool((_window_iou(window, objects) >= least).any()):
            return window
    return None


def cut_to(sample: Sample, config: MinIoUCropConfig, window: Window) -> Sample:
    """Crop the image to ``window`` and keep the boxes that the configuration selects."""
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


def _random_window(size: tuple[int, int], config: MinIoUCropConfig, generator: Generator) -> Window:
    scale = uniform(generator, *config.scale)
    aspect = min(max(uniform(generator, *config.aspect), scale**2), 1 / scale**2)
    height = max(1, round(size[0] * scale / math.sqrt(aspect)))
    width = max(1, round(size[1] * scale * math.sqrt(aspect)))
    height, width = min(height, size[0]), min(width, size[1])
    return integer(generator, size[0] - height + 1), integer(generator, size[1] - width + 1), height, width


def _window_iou(window: Window, boxes: Tensor) -> Tensor:
    top, left, height, width = window
    low = torch.maximum(boxes[:, :2], boxes.new_tensor([left, top]))
    high = torch.minimum(boxes[:, 2:], boxes.new_tensor([left + width, top + height]))
    common = (high - low).clamp(min=0).prod(1)
    return common / (height * width + (boxes[:, 2:] - boxes[:, :2]).prod(1) - common)
