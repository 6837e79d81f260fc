"""Transforms of colour: the photometric distortion of SSD and the HSV jitter of YOLO. Boxes do not change.

The distortion is computed in float32 0..1, with a clamp after every step, as the reference saturates, and rounded once
at the end.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from boxwright.data.transforms.field_types import Interval, Size
from boxwright.data.transforms.sample import Sample, chance, uniform
from boxwright.fields import Share, config

Factor = Annotated[float, Field(ge=1, allow_inf_nan=False)]
"""Factor of at least 1."""


@config
class PhotometricConfig:
    """Distort brightness, contrast, saturation and hue in the order of SSD's code.

    Brightness comes first. Then follow, with even odds, contrast, saturation, hue or saturation, hue, contrast.
    """

    kind: Literal["photometric"] = "photometric"
    p: Share = 0.5
    """Probability of each step."""
    brightness: Annotated[float, Field(ge=0, le=255)] = 32.0
    """Largest change of brightness in grey levels, 0..255."""
    contrast: Interval = (0.5, 1.5)
    """Range of the factor on all channels."""
    saturation: Interval = (0.5, 1.5)
    """Range of the factor on the saturation."""
    hue: Annotated[float, Field(ge=0, le=180)] = 36.0
    """Largest turn of the hue in degrees, 0..180."""

    fixed: ClassVar[bool] = False

    def output_size(self, height: int, width: int) -> Size | None:
        """Return the size of the image, which does not change."""
        return height, width

    def object_scale(self, height: int, width: int) -> tuple[float, float] | None:
        """Return 1, since objects keep their size."""
        return 1.0, 1.0


def photometric(sample: Sample, config: PhotometricConfig, generator: Generator) -> Sample:
    """Distort the colours as the configuration says."""
    pixels = _to_float(sample.image)
    if chance(generator, config.p):
        shift = uniform(generator, -config.brightness, config.brightness)
        pixels = (pixels + shift / 255).clamp(0, 1)
    contrast_first = chance(generator, 0.5)
    contrast = uniform(generator, *config.contrast) if chance(generator, config.p) else 1.0
    if contrast_first and contrast != 1.0:
        pixels = (pixels * contrast).clamp(0, 1)
    if chance(generator, config.p):
        pixels = saturated(pixels, uniform(generator, *config.saturation))
    if chance(generator, config.p):
        pixels = F.adjust_hue(pixels, uniform(generator, -config.hue, config.hue) / 360)
    if not contrast_first and contrast != 1.0:
        pixels = (pixels * contrast).clamp(0, 1)
    uniform(
        generator, 0.0, 1.0
    )  # unused draw, so that later transforms get the same random numbers as in earlier versions
    return replace(sample, image=_to_image(pixels))


@config
class HSVJitterConfig:
    """Change hue, saturation and value at random, as YOLOv2 and its successors train."""

    kind: Literal["hsv_jitter"] = "hsv_jitter"
    p: Share = 1.0
    """Probability of the change."""
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    """Largest turn of the hue as a fraction of a full turn, 0..0.5."""
    saturation: Factor = 1.5
    """The saturation is multiplied or divided, with even odds, by a number from 1 to this."""
    value: Factor = 1.5
    """The value is multiplied or divided, with even odds, by a number from 1 to this."""
    clip: Literal["hsv", "rgb"] = "hsv"
    """Treatment of colours that leave the range: "hsv" stops saturation and value at 1, which keeps the hue; "rgb" cuts
    red, green and blue at the very end, as Darknet does."""

    fixed: ClassVar[bool] = False

    def output_size(self, height: int, width: int) -> Size | None:
        """Return the size of the image, which does not change."""
        return height, width

    def object_scale(self, height: int, width: int) -> tuple[float, float] | None:
        """Return 1, since objects keep their size."""
        return 1.0, 1.0


def hsv_jitter(sample: Sample, config: HSVJitterConfig, generator: Generator) -> Sample:
    """Change hue, saturation and value with the probability of the configuration."""
    if not chance(generator, config.p):
        return sample
    pixels = _to_float(sample.image)
    saturation, value = _factor(generator, config.saturation), _factor(generator, config.value)
    largest = pixels.amax(0, keepdim=True)  # value, which a change of saturation keeps
    if config.clip == "hsv":
        pixels = saturated(pixels, saturation)
        pixels = (pixels * torch.clamp(1 / largest.clamp(min=1e-6), max=value)).clamp(0, 1)
    else:
        pixels = (largest - (largest - pixels) * saturation) * value
    if config.hue > 0:  # by HSV, whose hue stays correct for saturations and values above 1
        pixels = F.adjust_hue(pixels, uniform(generator, -config.hue, config.hue))
    return replace(sample, image=_to_image(pixels))


def _factor(generator: Generator, most: float) -> float:
    factor = uniform(generator, 1.0, most)
    return factor if chance(generator, 0.5) else 1 / factor


def saturated(pixels: Tensor, factor: float) -> Tensor:
    """Multiply the saturation of HSV by a factor, up to 1; hue and value stay. Pixels are float ``[3, H, W]`` in 0..1.

    With value V = max and saturation (V - min) / V, every channel moves on the line to V. No conversion is needed.
    """
    value, darkest = pixels.amax(0, keepdim=True), pixels.amin(0, keepdim=True)
    limit = value / (value - darkest).clamp(min=1e-6)
    return value - (value - pixels) * limit.clamp(max=factor)


def _to_float(image: tv_tensors.Image) -> Tensor:
    return image.as_subclass(Tensor).to(torch.float32) / 255


def _to_image(pixels: Tensor) -> tv_tensors.Image:
    return tv_tensors.Image((pixels * 255).round().clamp(0, 255).to(torch.uint8))
