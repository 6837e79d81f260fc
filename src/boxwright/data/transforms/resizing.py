"""Transforms that change the size of the image: short/long side, letterbox, warp, scale jitter, large-scale jitter.

Resizing is antialiased bilinear on uint8 unless a configuration says otherwise. Boxes are scaled by the exact ratio of
the rounded sizes, so a box keeps its place relative to the image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Generator

from boxwright.data.transforms.sample import Fill, Interpolation, Sample, check, integer, placed, resized, uniform

MEAN = (124, 116, 104)
"""The ImageNet mean colour in RGB: a neutral filling for networks that subtract it."""

CAFFE_MEAN = (123, 117, 104)
"""The mean colour, in RGB, that the networks trained in Caffe subtract: SSD, RefineDet."""

SSD_INTERPOLATIONS: tuple[Interpolation, ...] = ("aliased", "area", "nearest", "aliased_bicubic", "lanczos4")
"""What SSD's training draws from for each image: OpenCV's linear, area, nearest, cubic and Lanczos methods."""


@dataclass(frozen=True, kw_only=True)
class ResizeConfig:
    """Keep the aspect: the short side becomes ``short``, or less so that the long side does not exceed ``long``.

    Several values of ``short`` mean one at random for each image (multi-scale training). Sides are rounded to the
    nearest pixel (FPN §5: 800 and 1333), or ``rounding`` "down" (torchvision). ``interpolation`` "aliased" is OpenCV's
    linear method, which Caffe's detectors and DetNet_pytorch were trained with; see `WarpConfig` for the others.
    """

    kind: Literal["resize"] = "resize"
    short: tuple[int, ...] = (800,)
    long: int = 1333
    interpolation: Interpolation = "bilinear"
    rounding: Literal["nearest", "down"] = "nearest"

    def __post_init__(self) -> None:
        check(len(self.short) > 0 and min(self.short) >= 1, self, "short", "one or more sizes of at least 1 pixel")
        check(self.long >= max(self.short), self, "long", f"at least the largest short side, {max(self.short)}")


def resize(sample: Sample, config: ResizeConfig, generator: Generator) -> Sample:
    """See `ResizeConfig`."""
    short = config.short[integer(generator, len(config.short)) if len(config.short) > 1 else 0]
    height, width = sample.size
    scale = min(short / min(height, width), config.long / max(height, width))
    part = 0.5 if config.rounding == "nearest" else 0.0
    return resized(sample, _scaled(height, scale, part), _scaled(width, scale, part), config.interpolation)


def _scaled(side: int, scale: float, part: float = 0.5) -> int:
    """``side`` times ``scale`` as whole pixels, up from ``1 - part`` of one."""
    return max(1, int(side * scale + part))


@dataclass(frozen=True, kw_only=True)
class LetterboxConfig:
    """Keep the aspect, fit into a fixed ``size`` (height, width), and fill the rest evenly on both sides.

    Rounding is darknet's: the free side is rounded down, and an odd gap has its larger half at the bottom or right.
    ``enlarge`` false leaves small images at their size. ``interpolation`` "corners" is darknet's: bilinear without
    antialiasing, the corner pixels staying where they are.
    """

    kind: Literal["letterbox"] = "letterbox"
    size: tuple[int, int]
    fill: Fill = (127, 127, 127)
    enlarge: bool = True
    interpolation: Interpolation = "bilinear"

    def __post_init__(self) -> None:
        check_size(self)
        check_fill(self)


def letterbox(sample: Sample, config: LetterboxConfig) -> Sample:
    """See `LetterboxConfig`."""
    (height, width), (to_height, to_width) = sample.size, config.size
    if not config.enlarge and height <= to_height and width <= to_width:
        inner_height, inner_width = height, width
    elif to_width * height < to_height * width:  # integers, so that no rounding decides which side is the tight one
        inner_height, inner_width = max(1, height * to_width // width), to_width
    else:
        inner_height, inner_width = to_height, max(1, width * to_height // height)
    inner = resized(sample, inner_height, inner_width, config.interpolation)
    top, left = (to_height - inner_height) // 2, (to_width - inner_width) // 2
    return placed(inner, top=top, left=left, height=to_height, width=to_width, fill=config.fill)


@dataclass(frozen=True, kw_only=True)
class WarpConfig:
    """Stretch to a fixed ``size`` (height, width), whatever the aspect: R-CNN, SSD, YOLOv1.

    Several ``interpolations`` mean one at random for each image; SSD's are `SSD_INTERPOLATIONS`. "bilinear", "bicubic"
    and "lanczos" are antialiased; "aliased", "aliased_bicubic" and "lanczos4" (OpenCV's) are not; "corners" is
    Darknet's bilinear, which is not either and keeps the corner pixels in the corners.
    """

    kind: Literal["warp"] = "warp"
    size: tuple[int, int]
    interpolations: tuple[Interpolation, ...] = ("bilinear",)

    def __post_init__(self) -> None:
        check_size(self)
        check(len(self.interpolations) > 0, self, "interpolations", "one or more methods")


def warp(sample: Sample, config: WarpConfig, generator: Generator) -> Sample:
    """See `WarpConfig`."""
    methods = config.interpolations
    return resized(sample, *config.size, methods[integer(generator, len(methods)) if len(methods) > 1 else 0])


@dataclass(frozen=True, kw_only=True)
class ScaleJitterConfig:
    """Fit the image into ``size`` (height, width) times a random factor in ``scale``; no cropping, no padding."""

    kind: Literal["scale_jitter"] = "scale_jitter"
    size: tuple[int, int]
    scale: tuple[float, float] = (0.8, 1.25)

    def __post_init__(self) -> None:
        check_size(self)
        check_range(self, "scale")


def scale_jitter(sample: Sample, config: ScaleJitterConfig, generator: Generator) -> Sample:
    """See `ScaleJitterConfig`."""
    (height, width), (to_height, to_width) = sample.size, config.size
    scale = min(to_height / height, to_width / width) * uniform(generator, *config.scale)
    return resized(sample, _scaled(height, scale), _scaled(width, scale))


@dataclass(frozen=True, kw_only=True)
class LargeScaleJitterConfig:
    """Scale jitter, then a random crop where the image is larger than ``size`` and filling below and to the right
    where it is smaller, so that the result is always ``size`` (Simple Copy-Paste §3.1: 1024 and 0.1..2.0).

    Boxes of which less than ``min_visible`` of the area is left, or with a side under ``min_size`` pixels, are dropped.
    """

    kind: Literal["large_scale_jitter"] = "large_scale_jitter"
    size: tuple[int, int] = (1024, 1024)
    scale: tuple[float, float] = (0.1, 2.0)
    fill: Fill = MEAN
    min_visible: float = 0.1
    min_size: float = 1.0

    def __post_init__(self) -> None:
        check_size(self)
        check_range(self, "scale")
        check_fill(self)
        check_rest(self)


def large_scale_jitter(sample: Sample, config: LargeScaleJitterConfig, generator: Generator) -> Sample:
    """See `LargeScaleJitterConfig`."""
    (to_height, to_width) = config.size
    scaled = scale_jitter(sample, ScaleJitterConfig(size=config.size, scale=config.scale), generator)
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


# Checks that several configurations share.


def check_size(config: object) -> None:
    """``size`` is a height and a width."""
    size = getattr(config, "size")  # noqa: B009 - the configurations share the field, not a base class
    check(len(size) == 2 and min(size) >= 1, config, "size", "a height and a width of at least 1 pixel each")


def check_range(config: object, field: str, low: float = 0.0, high: float = float("inf")) -> None:
    """The field is a pair of increasing numbers above ``low``, and not above ``high``."""
    pair = getattr(config, field)
    holds = len(pair) == 2 and low < pair[0] <= pair[1] <= high and pair[1] < float("inf")
    limit = f" and at most {high}" if high < float("inf") else ""
    check(holds, config, field, f"two increasing numbers above {low}{limit}")


def check_fill(config: object) -> None:
    """``fill`` is a colour."""
    fill = getattr(config, "fill")  # noqa: B009
    check(len(fill) == 3 and all(0 <= value <= 255 for value in fill), config, "fill", "three values in 0..255 (RGB)")


def check_rest(config: object) -> None:
    """``min_visible`` is a fraction and ``min_size`` a length."""
    visible, size = getattr(config, "min_visible"), getattr(config, "min_size")  # noqa: B009
    check(0 <= visible <= 1, config, "min_visible", "a fraction in 0..1")
    check(size >= 0, config, "min_size", "0 or more pixels")
