"""Random affine transform: rotation, scale, shear and translation about the centre of the image.

Symbols: n boxes, H W the size of the image in pixels, A the 2 x 2 matrix of the transform. A point p goes to
``A (p - centre) + centre + shift``. Pixels, masks and boxes are moved by the same matrix in one step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor
from torch.nn.functional import grid_sample
from torchvision import tv_tensors

from boxwright.data.transforms.field_types import MEAN, Fill, Interval, Size
from boxwright.data.transforms.sample import NO_WAY_BACK, Sample, chance, placed, select, uniform
from boxwright.fields import NotNegative, Share, config


@config
class AffineConfig:
    """Rotate, scale, shear and shift the image at random about its centre; the size stays.

    A box becomes the bounds of its transformed mask, where there are masks, or else of its corners or inscribed
    ellipse. It is cut to the image and dropped if too little is left.
    """

    kind: Literal["affine"] = "affine"
    p: Share = 1.0
    """Probability of the transform."""
    rotate: Annotated[float, Field(ge=0, le=180)] = 5.0
    """Largest rotation in degrees, in both directions."""
    scale: Interval = (0.75, 1.25)
    """Range of the factor on both sides."""
    translate: Share = 0.1
    """Largest shift, as a fraction of the image's side, on each axis."""
    shear: Annotated[float, Field(ge=0, lt=45)] = 2.0
    """Largest shear in degrees, on each axis."""
    bounds: Literal["corners", "ellipse"] = "corners"
    """Box of a rotated object without a mask: around the four corners of its box, which holds the object but is too
    large for most, or around the ellipse inside its box, which suits round objects."""
    fill: Fill = MEAN
    """Colour beside the image."""
    min_visible: Share = 0.1
    """Smallest part of a transformed box's area that must remain inside the image, or the box is dropped."""
    min_size: NotNegative = 2.0
    """Shortest side of a remaining box in pixels, or the box is dropped."""

    fixed: ClassVar[bool] = False

    def output_size(self, height: int, width: int) -> Size | None:
        """Return the size of the image, which does not change."""
        return height, width

    def object_scale(self, height: int, width: int) -> tuple[float, float] | None:
        """Return None: the factor is random."""

    @property
    def uses_masks(self) -> bool:
        """Return True if masks give closer boxes: where the axes are rotated or sheared."""
        return self.rotate > 0 or self.shear > 0


@dataclass(frozen=True)
class Affine:
    """One transform of an image of ``size`` (height, width): ``matrix`` A as (a, b, c, d) in rows, and the shift."""

    size: Size
    matrix: tuple[float, float, float, float]
    shift: tuple[float, float]

    def moved(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Transform points."""
        height, width = self.size
        (a, b, c, d), (right, down) = self.matrix, self.shift
        x, y = x - width / 2, y - height / 2
        return a * x + b * y + width / 2 + right, c * x + d * y + height / 2 + down

    def sources(self) -> tuple[Tensor, Tensor]:
        """Return the points x and y, ``[H, W]``, that come to lie on the centres of the pixels."""
        height, width = self.size
        (a, b, c, d), (right, down) = self.matrix, self.shift
        determinant = a * d - b * c
        x = torch.arange(width) + 0.5 - width / 2 - right
        y = (torch.arange(height) + 0.5 - height / 2 - down)[:, None]
        return (
            (d * x - b * y) / determinant + width / 2,
            (a * y - c * x) / determinant + height / 2,
        )


def affine(sample: Sample, config: AffineConfig, generator: Generator) -> Sample:
    """Apply a random affine transform with the probability of the configuration."""
    return transformed(sample, draw(sample.size, config, generator), config) if chance(generator, config.p) else sample


def draw(size: Size, config: AffineConfig, generator: Generator) -> Affine:
    """Draw the transform of an image of ``size``."""
    angle = math.radians(uniform(generator, -config.rotate, config.rotate))
    scale = uniform(generator, *config.scale)
    lean_x, lean_y = (math.tan(math.radians(uniform(generator, -config.shear, config.shear))) for _ in range(2))
    down, right = (uniform(generator, -config.translate, config.translate) * side for side in size)
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    # Shear first, then the rotation.
    matrix = (cos - sin * lean_y, cos * lean_x - sin, sin + cos * lean_y, sin * lean_x + cos)
    return Affine(size, matrix, (right, down))


def transformed(sample: Sample, move: Affine, config: AffineConfig) -> Sample:
    """Return the sample after ``move``, with boxes cut to the image; ``config`` says which boxes are kept."""
    height, width = sample.size
    x, y = move.sources()
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    boxes = _box_bounds(sample.boxes, move, config.bounds)
    masks, lost = sample.masks, torch.zeros(len(sample), dtype=torch.bool)
    if masks is not None:
        drawn = masks.flatten(1).any(1)
        if sample.with_mask is not None:
            drawn &= sample.with_mask  # the others are filled boxes, so the configuration has its say
        boxes = torch.where(drawn[:, None], _mask_bounds(masks, move), boxes)
        nearest = y.long().clamp(0, height - 1) * width + x.long().clamp(0, width - 1)
        masks = masks.flatten(1)[:, nearest.flatten()].reshape(masks.shape) & inside
        lost = drawn & ~masks.flatten(1).any(1)
    moved = replace(
        sample,
        image=tv_tensors.Image(_moved_pixels(sample.image.as_subclass(Tensor), x, y, inside, config.fill)),
        boxes=boxes,
        masks=masks,
        proposals=None if sample.proposals is None else _box_bounds(sample.proposals, move, config.bounds),
        to_original=NO_WAY_BACK,
    )
    return placed(
        select(moved, ~lost),
        top=0,
        left=0,
        height=height,
        width=width,
        min_visible=config.min_visible,
        min_size=config.min_size,
    )


def _moved_pixels(pixels: Tensor, x: Tensor, y: Tensor, inside: Tensor, fill: Fill) -> Tensor:
    """Read ``[3, H, W]`` bilinearly at the points x and y; outside the image it is ``fill``."""
    height, width = pixels.shape[1:]
    grid = torch.stack([2 * x / width - 1, 2 * y / height - 1], -1)[None]
    read = grid_sample(pixels[None].float(), grid, mode="bilinear", padding_mode="border", align_corners=False)[0]
    read = torch.where(inside, read, read.new_tensor(fill)[:, None, None])
    return read if pixels.is_floating_point() else read.round().clamp(0, 255).to(torch.uint8)


def _box_bounds(boxes: Tensor, move: Affine, bounds: Literal["corners", "ellipse"]) -> Tensor:
    """Return the bounds of transformed boxes ``[n, 4]``, or of the ellipses inside them."""
    a, b, c, d = move.matrix
    half_width, half_height = (boxes[:, 2:] - boxes[:, :2]).div(2).unbind(1)
    x, y = move.moved(*(boxes[:, :2] + boxes[:, 2:]).div(2).unbind(1))
    if bounds == "ellipse":
        right, down = torch.hypot(a * half_width, b * half_height), torch.hypot(c * half_width, d * half_height)
    else:
        right, down = abs(a) * half_width + abs(b) * half_height, abs(c) * half_width + abs(d) * half_height
    return torch.stack([x - right, y - down, x + right, y + down], 1)


def _mask_bounds(masks: Tensor, move: Affine) -> Tensor:
    """Return the bounds of transformed masks ``[n, H, W]``; those of an empty mask have no meaning.

    The extremes lie at the corners of the first or last pixel of a row, so that only these are transformed.
    """
    height, width = masks.shape[1:]
    numbers = masks.to(torch.uint8)
    left, right = numbers.argmax(2), width - numbers.flip(2).argmax(2)  # [n, H]
    rows = torch.arange(height).expand_as(left)
    x, y = move.moved(torch.stack([left, left, right, right]), torch.stack([rows, rows + 1, rows, rows + 1]))
    some = masks.any(2)
    low = [torch.where(some, value, math.inf).amin((0, 2)) for value in (x, y)]
    high = [torch.where(some, value, -math.inf).amax((0, 2)) for value in (x, y)]
    return torch.stack([*low, *high], 1)
