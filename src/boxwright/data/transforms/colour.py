"""Transforms of colour alone: the photometric chain of SSD and the HSV jitter of YOLO. Boxes are untouched.

The chain is computed in float32 0..1 with a clamp after every step, as the reference saturates, and rounded once at
the end.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Generator, Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from boxwright.data.transforms.augment import check_probability
from boxwright.data.transforms.resizing import check_range
from boxwright.data.transforms.sample import Sample, chance, check, uniform


@dataclass(frozen=True, kw_only=True)
class PhotometricConfig:
    """The distortion of SSD, in the order of its reference code.

    Brightness adds up to ``brightness`` grey levels. Then, with even odds, contrast, saturation, hue or saturation,
    hue, contrast: contrast and saturation multiply by a factor in their range, hue turns by up to ``hue`` degrees.
    Each step happens with probability ``p``. Last, with probability ``shuffle_p``, the channels change places (0 in
    the reference; a PyTorch port uses 0.5).
    """

    kind: Literal["photometric"] = "photometric"
    p: float = 0.5
    brightness: float = 32.0
    contrast: tuple[float, float] = (0.5, 1.5)
    saturation: tuple[float, float] = (0.5, 1.5)
    hue: float = 36.0
    shuffle_p: float = 0.0

    def __post_init__(self) -> None:
        check_probability(self, "p")
        check_probability(self, "shuffle_p")
        check(0 <= self.brightness <= 255, self, "brightness", "0..255 grey levels")
        check_range(self, "contrast")
        check_range(self, "saturation")
        check(0 <= self.hue <= 180, self, "hue", "0..180 degrees")


def photometric(sample: Sample, config: PhotometricConfig, generator: Generator) -> Sample:
    """See `PhotometricConfig`."""
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
    if chance(generator, config.shuffle_p):
        pixels = pixels[torch.randperm(3, generator=generator)]
    return replace(sample, image=_to_image(pixels))


@dataclass(frozen=True, kw_only=True)
class HSVJitterConfig:
    """The colour jitter of YOLOv2 and later: hue turns by up to ``hue`` of a full turn; saturation and value are
    multiplied by a number in 1..``saturation`` and 1..``value``, or divided by it, with even odds.

    ``clip`` says what happens to colours that leave the range: "hsv" stops saturation and value at 1, which keeps the
    hue; "rgb" cuts red, green and blue at the very end, as Darknet does.
    """

    kind: Literal["hsv_jitter"] = "hsv_jitter"
    p: float = 1.0
    hue: float = 0.1
    saturation: float = 1.5
    value: float = 1.5
    clip: Literal["hsv", "rgb"] = "hsv"

    def __post_init__(self) -> None:
        check_probability(self, "p")
        check(0 <= self.hue <= 0.5, self, "hue", "0..0.5 of a full turn")
        check(self.saturation >= 1, self, "saturation", "a factor of at least 1")
        check(self.value >= 1, self, "value", "a factor of at least 1")


def hsv_jitter(sample: Sample, config: HSVJitterConfig, generator: Generator) -> Sample:
    """See `HSVJitterConfig`."""
    if not chance(generator, config.p):
        return sample
    pixels = _to_float(sample.image)
    saturation, value = _factor(generator, config.saturation), _factor(generator, config.value)
    largest = pixels.amax(0, keepdim=True)  # value; a change of saturation keeps it
    if config.clip == "hsv":
        pixels = saturated(pixels, saturation)
        pixels = (pixels * torch.clamp(1 / largest.clamp(min=1e-6), max=value)).clamp(0, 1)
    else:
        pixels = (largest - (largest - pixels) * saturation) * value
    if config.hue > 0:  # by way of HSV, whose hue does not suffer from saturations and values above 1
        pixels = F.adjust_hue(pixels, uniform(generator, -config.hue, config.hue))
    return replace(sample, image=_to_image(pixels))


def _factor(generator: Generator, most: float) -> float:
    factor = uniform(generator, 1.0, most)
    return factor if chance(generator, 0.5) else 1 / factor


def saturated(pixels: Tensor, factor: float) -> Tensor:
    """The saturation of HSV times a factor, at most 1, with hue and value kept; float ``[3, H, W]`` in 0..1.

    With value V = max and saturation (V - min) / V, every channel moves on the line to V: no conversion is needed.
    """
    value, darkest = pixels.amax(0, keepdim=True), pixels.amin(0, keepdim=True)
    limit = value / (value - darkest).clamp(min=1e-6)
    return value - (value - pixels) * limit.clamp(max=factor)


def _to_float(image: tv_tensors.Image) -> Tensor:
    return image.as_subclass(Tensor).to(torch.float32) / 255


def _to_image(pixels: Tensor) -> tv_tensors.Image:
    return tv_tensors.Image((pixels * 255).round().clamp(0, 255).to(torch.uint8))
