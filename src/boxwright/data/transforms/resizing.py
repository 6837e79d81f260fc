"""Transforms that change the size of the image: short/long side, letterbox, warp, scale jitter, large-scale jitter.

Resizing is antialiased bilinear on uint8 unless a configuration says otherwise. Boxes are scaled by the exact ratio of
the rounded sizes, so a box keeps its position relative to the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Generator

from boxwright.data.transforms.field_types import MEAN, Fill, Interpolation, Interval, Levels, Size
from boxwright.data.transforms.sample import Sample, integer, placed, resized, uniform
from boxwright.fields import Count, NotNegative, Share, config
from boxwright.structures import InputError

SSD_INTERPOLATIONS: tuple[Interpolation, ...] = ("aliased", "area", "nearest", "aliased_bicubic", "lanczos4")
"""Methods that SSD's training draws from for each image: OpenCV's linear, area, nearest, cubic and Lanczos."""

FRACTIONAL: tuple[Interpolation, ...] = ("bilinear", "aliased", "corners", "bicubic")
"""Methods whose results may stay fractions."""


def check_levels(levels: Levels, methods: Sequence[Interpolation]) -> None:
    """Raise InputError for a method that has no fractions of grey levels."""
    if levels == "fractions" and (bad := [method for method in methods if method not in FRACTIONAL]):
        raise InputError(f"levels = 'fractions' with interpolation {bad[0]!r}; give one of {', '.join(FRACTIONAL)}")


@config
class ResizeConfig:
    """Resize so that the short side becomes ``short``, or less if the long side would exceed ``long``."""

    kind: Literal["resize"] = "resize"
    short: Annotated[tuple[Count, ...], Field(min_length=1)] = (800,)
    """Short side in pixels (FPN §5: 800). One of several values is drawn for each image (multi-scale training)."""
    long: Count = 1333
    """Largest long side in pixels."""
    interpolation: Interpolation = "bilinear"
    """Method of resizing."""
    rounding: Literal["nearest", "down"] = "nearest"
    """Rounding of the sides to whole pixels. Torchvision rounds down."""
    levels: Levels = "whole"
    """Grey levels of the result."""
    sampling: Literal["sides", "scale"] = "sides"
    """Distance of the pixels that are read, and scale of the boxes: the ratio of the whole sides on each axis, or the
    scale before the sides are rounded, as DetNet_pytorch, Detectron and py-faster-rcnn resize."""

    fixed: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_levels(self.levels, (self.interpolation,))
        if self.sampling == "scale" and self.interpolation != "aliased":
            raise InputError(f"sampling = 'scale' is for interpolation = 'aliased', not {self.interpolation!r}")
        if self.long < max(self.short):
            raise InputError(f"long = {self.long}: should be at least the largest short side, {max(self.short)}")

    def output_size(self, height: int, width: int) -> Size | None:
        """Return the size after resizing; None if the short side is random."""
        return self.size_for(height, width, self.short[0]) if len(self.short) == 1 else None

    def object_scale(self, height: int, width: int) -> tuple[float, float] | None:
        """Return the factor of both sides before rounding; None if the short side is random."""
        if self.output_size(height, width) is None:
            return None
        scale = self.scale_for(height, width, self.short[0])
        return scale, scale

    def scale_for(self, height: int, width: int, short: int) -> float:
        """Return the factor that makes ``short`` of the short side, or less for the limit of the long one."""
        return min(short / min(height, width), self.long / max(height, width))

    def size_for(self, height: int, width: int, short: int) -> Size:
        """Return the size of an image resized to a short side of ``short``."""
        scale = self.scale_for(height, width, short)
        part = 0.5 if self.rounding == "nearest" else 0.0
        return _scaled(height, scale, part), _scaled(width, scale, part)


def resize(sample: Sample, config: ResizeConfig, generator: Generator) -> Sample:
    """Resize the short side, keeping the aspect; the long side has a limit."""
    short = config.short[integer(generator, len(config.short)) if len(config.short) > 1 else 0]
    scale = config.scale_for(*sample.size, short) if config.sampling == "scale" else None
    return resized(sample, *config.size_for(*sample.size, short), config.interpolation, config.levels, scale)


def _scaled(side: int, scale: float, part: float = 0.5) -> int:
    """Return ``side`` times ``scale`` in whole pixels, at least 1; a fraction of ``1 - part`` rounds up."""
    return max(1, int(side * scale + part))


@config
class LetterboxConfig:
    """Fit the image into a fixed size, keeping the aspect, with equal margins on both sides.

    Rounding is as in Darknet: the free side is rounded down, and an odd margin is larger at the bottom or right.
    """

    kind: Literal["letterbox"] = "letterbox"
    size: Size
    """Height and width of the result in pixels."""
    fill: Fill = (127, 127, 127)
    """Colour beside the image."""
    interpolation: Interpolation = "bilinear"
    """Method of resizing; "corners" is Darknet's."""
    levels: Levels = "whole"
    """Grey levels of the result."""
    margins: Literal["whole", "halves"] = "whole"
    """Margin that detections are mapped back by: the whole pixels before the image, or half of all that are free, as
    Darknet does though it puts the image at whole pixels. Where an odd number is free, its boxes lie half a pixel off.
    """

    fixed: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_levels(self.levels, (self.interpolation,))

    def output_size(self, height: int, width: int) -> Size | None:
        """Return ``size``."""
        return self.size

    def object_scale(self, height: int, width: int) -> tuple[float, float] | None:
        """Return the factors of height and width, after rounding."""
        inner_height, inner_width = self.inner_size(height, width)
        return inner_height / height, inner_width / width

    def inner_size(self, height: int, width: int) -> Size:
        """Return the size of the resized image without the margins."""
        to_height, to_width = self.size
        if (
            to_width * height < to_height * width
        ):  # in integers, so that rounding does not decide which side limits the size
            return max(1, height * to_width // width), to_width
        return to_height, max(1, width * to_height // height)


def letterbox(sample: Sample, config: LetterboxConfig) -> Sample:
    """Fit the image into ``config.size`` and centre it."""
    to_height, to_width = config.size
    inner = resized(sample, *config.inner_size(*sample.size), config.interpolation, config.levels)
    free = to_height - inner.size[0], to_width - inner.size[1]
    top, left = free[0] // 2, free[1] // 2
    whole = placed(inner, top=top, left=left, height=to_height, width=to_width, fill=config.fill)
    if config.margins == "whole":
        return whole
    kx, ky, ox, oy = whole.to_original
    return replace(whole, to_original=(kx, ky, ox + free[1] / 2 - left, oy + free[0] / 2 - top))


@config
class WarpConfig:
    """Stretch the image to a fixed size, ignoring its aspect (R-CNN, SSD, YOLOv1)."""

    kind: Literal["warp"] = "warp"
    size: Size
    """Height and width of the result in pixels."""
    interpolations: Annotated[tuple[Interpolation, ...], Field(min_length=1)] = ("bilinear",)
    """Methods of resizing, one drawn for each image; SSD's are `SSD_INTERPOLATIONS`."""
    levels: Levels = "whole"
    """Grey levels of the result."""

    fixed: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_levels(self.levels, self.interpolations)

    def output_size(self, height: int, width: int) -> Size | None:
        """Return ``size``."""
        return self.size

    def object_scale(self, height: int, width: int) -> tuple[float, float] | None:
        """Return the factors of height and width."""
        return self.size[0] / height, self.size[1] / width


def warp(sample: Sample, config: WarpConfig, generator: Generator) -> Sample:
    """Stretch the image to ``config.size``."""
    methods = config.interpolations
    method = methods[integer(generator, len(methods)) if len(methods) > 1 else 0]
    return resized(sample, *config.size, method, config.levels)


@config
class ScaleJitterConfig:
    """Fit the image into ``size`` times a random factor; no cropping, no padding."""

    kind: Literal["scale_jitter"] = "scale_jitter"
    size: Size
    """Height and width in pixels that a factor of 1 fits the image into."""
    scale: Interval = (0.8, 1.25)
    """Range of the factor."""

    fixed: ClassVar[bool] = False

    def output_size(self, height: int, width: int) -> Size | None:
        """Return None: the size is random."""

    def object_scale(self, height: int, width: int) -> tuple[float, float] | None:
        """Return None: the factor is random."""


def scale_jitter(sample: Sample, config: ScaleJitterConfig, generator: Generator) -> Sample:
    """Fit the image into ``config.size`` times a random factor."""
    return _jittered(sample, config.size, config.scale, generator)


def _jittered(sample: Sample, size: Size, scale: tuple[float, float], generator: Generator) -> Sample:
    (height, width), (to_height, to_width) = sample.size, size
    factor = min(to_height / height, to_width / width) * uniform(generator, *scale)
    return resized(sample, _scaled(height, factor), _scaled(width, factor))


@config
class LargeScaleJitterConfig:
    """Jitter the scale, then crop at random or pad below and to the right to one size.

    Simple Copy-Paste §3.1.
    """

    kind: Literal["large_scale_jitter"] = "large_scale_jitter"
    size: Size = (1024, 1024)
    """Height and width of the result in pixels."""
    scale: Interval = (0.1, 2.0)
    """Range of the factor on the size that fits into ``size``."""
    fill: Fill = MEAN
    """Colour beside a small image."""
    min_visible: Share = 0.1
    """Smallest part of a box's area that must remain after the crop, or the box is dropped."""
    min_size: NotNegative = 1.0
    """Shortest side of a remaining box in pixels, or the box is dropped."""

    fixed: ClassVar[bool] = True

    def output_size(self, height: int, width: int) -> Size | None:
        """Return ``size``."""
        return self.size

    def object_scale(self, height: int, width: int) -> tuple[float, float] | None:
        """Return None: the factor is random."""


def large_scale_jitter(sample: Sample, config: LargeScaleJitterConfig, generator: Generator) -> Sample:
    """Jitter the scale, then crop or fill to ``config.size``."""
    (to_height, to_width) = config.size
    scaled = _jittered(sample, config.size, config.scale, generator)
    height, width = scaled.size
    return placed(
        scaled,
        top=-integer(generator, max(height - to_height, 0) + 1),
        left=-integer(generator, max(width - to_width, 0) + 1),
        height=to_height,
        width=to_width,
        fill=config.fill,
        min_visible=config.min_visible,
        min_size=config.min_size,
    )
