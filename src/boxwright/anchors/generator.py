"""Anchors over a feature pyramid (Faster R-CNN §3.1.1, FPN §4.1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal, TypeVar

import torch
from pydantic import Field
from torch import Tensor

from boxwright.fields import Positive, config
from boxwright.geometry.constants import constant
from boxwright.structures import InputError, Level

T = TypeVar("T")
Levels = Annotated[tuple[Annotated[tuple[T, ...], Field(min_length=1)], ...], Field(min_length=1)]
"""At least one value for each of at least one level."""


@config
class AnchorConfig:
    """Shapes of the anchors, and the conventions in which implementations differ."""

    sizes: Levels[Positive] = ((32,), (64,), (128,), (256,), (512,))
    """Sides in pixels of the square anchors of each level."""
    ratios: Annotated[tuple[Positive, ...], Field(min_length=1)] = (0.5, 1.0, 2.0)
    """Aspect ratios."""
    ratio: Literal["h/w", "w/h"] = "h/w"
    """Meaning of a ratio: height over width, or "w/h" (DetNet_pytorch)."""
    centre: Literal["corner", "pixel", "cell"] = "corner"
    """Centre of the first anchor: 0 (torchvision, detectron2), "pixel" (stride - 1) / 2 (Caffe), "cell" stride / 2
    (one-stage detectors)."""
    rounding: Literal["none", "extent", "caffe"] = "none"
    """"none" (detectron2). "extent": round half widths and heights (torchvision). "caffe": round the ratio's sides at
    the base stride before scaling, with inclusive corners."""
    order: Literal["size", "ratio"] = "size"
    """Order of the anchors of a cell: by size, then ratio, or by ratio, then size."""
    steps: Literal["declared", "measured"] = "declared"
    """Distance of cells: the level's "declared" stride, or the side of the padded input over the number of cells,
    rounded down ("measured", torchvision; it is less than the stride if that does not divide the input)."""
    shapes: Levels[tuple[Positive, Positive]] | None = None
    """(width, height) in pixels of the anchors of each level, in place of ``sizes`` and ``ratios``: k-means anchors."""


class AnchorGenerator:
    """Generate anchors ``[A, 4]`` for the whole batch, in order level, y, x, anchor.

    Raises InputError if ``config`` has another number of levels than the pyramid.
    """

    def __init__(self, config: AnchorConfig, levels: Sequence[Level]) -> None:
        field, given = ("sizes", config.sizes) if config.shapes is None else ("shapes", config.shapes)
        if len(given) != len(levels):
            names = ", ".join(level.name for level in levels)
            raise InputError(
                f"anchors.{field} has {len(given)} entries but the pyramid has {len(levels)} levels ({names}); "
                "give one entry per level"
            )
        self.config = config
        self.strides = [level.stride for level in levels]
        # Python floats, not tensors: the generator has no device, and a compiled graph folds them as constants.
        if config.shapes is None:
            self.cells = [self._cell(sizes, stride) for sizes, stride in zip(config.sizes, self.strides, strict=True)]
        else:
            self.cells = [
                [self._centred(width, height, stride) for width, height in level]
                for level, stride in zip(config.shapes, self.strides, strict=True)
            ]

    @property
    def per_cell(self) -> list[int]:
        """Number of anchors in a cell of each level."""
        return [len(cell) for cell in self.cells]

    @property
    def shapes(self) -> list[tuple[float, float]]:
        """Width and height of the anchors of a cell, for all levels."""
        return [(x2 - x1, y2 - y1) for cell in self.cells for x1, y1, x2, y2 in cell]

    def __call__(self, shapes: Sequence[tuple[int, int]], device: torch.device) -> Tensor:
        """Return anchors ``[A, 4]`` for maps of ``shapes`` (height, width), one for each level."""
        return torch.cat(self.by_level(shapes, device))

    def by_level(self, shapes: Sequence[tuple[int, int]], device: torch.device) -> list[Tensor]:
        """Return the anchors ``[H * W * per_cell, 4]`` of each level."""
        if self.config.steps == "declared":
            return [self.level(i, shape, device) for i, shape in enumerate(shapes)]
        # The input is padded at least to a multiple of the finest stride, so its sides follow from the finest map.
        sides = [cells * self.strides[0] for cells in shapes[0]]
        return [
            self.level(i, shape, device, (sides[0] // shape[0], sides[1] // shape[1])) for i, shape in enumerate(shapes)
        ]

    def level(
        self, level: int, shape: tuple[int, int], device: torch.device, step: tuple[int, int] | None = None
    ) -> Tensor:
        """Return the anchors ``[H * W * per_cell, 4]`` of one level; ``step``: pixels between cells in y and x."""
        (height, width), (down, across) = shape, step or (self.strides[level], self.strides[level])
        y = torch.arange(height, dtype=torch.float32, device=device) * down
        x = torch.arange(width, dtype=torch.float32, device=device) * across
        grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
        shift = torch.stack([grid_x, grid_y, grid_x, grid_y], dim=-1).reshape(-1, 1, 4)
        cell = constant(self.cells[level], device)
        return (shift + cell).reshape(-1, 4)

    def _cell(self, sizes: Sequence[float], stride: int) -> list[list[float]]:
        """Return the anchors of the first cell."""
        ratios = self.config.ratios
        if self.config.order == "size":
            pairs = [(size, ratio) for size in sizes for ratio in ratios]
        else:
            pairs = [(size, ratio) for ratio in ratios for size in sizes]
        return [self._anchor(size, ratio if self.config.ratio == "h/w" else 1 / ratio, stride) for size, ratio in pairs]

    def _anchor(self, size: float, h_over_w: float, stride: int) -> list[float]:
        if self.config.rounding == "caffe":
            centre = self._centre(stride)
            # Caffe rounds the sides of a stride x stride box of that ratio, then scales. Corners are inclusive.
            base_width = round(math.sqrt(stride * stride / h_over_w))
            width = base_width * size / stride
            height = round(base_width * h_over_w) * size / stride
            left, top = centre - (width - 1) / 2, centre - (height - 1) / 2
            return [left, top, left + width - 1, top + height - 1]
        return self._centred(size / math.sqrt(h_over_w), size * math.sqrt(h_over_w), stride)

    def _centred(self, width: float, height: float, stride: int) -> list[float]:
        centre = self._centre(stride)
        if self.config.rounding == "extent":
            half_width, half_height = round(width / 2), round(height / 2)  # half to even, as torch.round
        else:
            half_width, half_height = width / 2, height / 2
        return [centre - half_width, centre - half_height, centre + half_width, centre + half_height]

    def _centre(self, stride: int) -> float:
        return {"corner": 0.0, "pixel": (stride - 1) / 2, "cell": stride / 2}[self.config.centre]


def with_sides_within(anchors: Tensor, height: int, width: int) -> Tensor:
    """Shrink ``anchors`` ``[A, 4]`` about their centres so that none is wider or higher than the input."""
    centre, size = (anchors[:, :2] + anchors[:, 2:]) / 2, anchors[:, 2:] - anchors[:, :2]
    half = torch.stack([size[:, 0].clamp(max=width), size[:, 1].clamp(max=height)], dim=1) / 2
    return torch.cat([centre - half, centre + half], dim=1)
