"""Anchors over a feature pyramid (Faster R-CNN §3.1.1, FPN §4.1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from boxwright.geometry.constants import constant
from boxwright.structures import InputError, Level


@dataclass(frozen=True, slots=True, kw_only=True)
class AnchorConfig:
    """Shapes of the anchors and the three conventions in which implementations differ.

    ``sizes``: for each level the sides in pixels of its square anchors. ``ratios``: aspect ratios.
    ``ratio``: what a ratio divides, "h/w" (all but DetNet_pytorch) or "w/h".
    ``centre``: place of the first anchor: "corner" at 0 (torchvision, detectron2), "pixel" at (stride - 1) / 2 (Caffe),
    "cell" at stride / 2 (one-stage detectors).
    ``rounding``: "none" (detectron2), "extent" rounds half widths and heights (torchvision), "caffe" rounds the ratio's
    sides at the base stride before scaling and keeps inclusive corners.
    ``order``: anchors of a cell by "size" then ratio, or by "ratio" then size.
    ``steps``: cells are apart by the "declared" stride of their level, or by the side of the padded input over the
    number of cells, rounded down ("measured": torchvision; less than the stride where it does not divide the input).
    ``shapes``: for each level the (width, height) in pixels of its anchors, in place of ``sizes`` and ``ratios``:
    k-means anchors, SSD's default boxes.
    """

    sizes: tuple[tuple[float, ...], ...] = ((32,), (64,), (128,), (256,), (512,))
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    ratio: Literal["h/w", "w/h"] = "h/w"
    centre: Literal["corner", "pixel", "cell"] = "corner"
    rounding: Literal["none", "extent", "caffe"] = "none"
    order: Literal["size", "ratio"] = "size"
    steps: Literal["declared", "measured"] = "declared"
    shapes: tuple[tuple[tuple[float, float], ...], ...] | None = None

    def __post_init__(self) -> None:
        if self.shapes is not None:
            if (
                not self.shapes
                or not all(self.shapes)
                or min(min(pair) for level in self.shapes for pair in level) <= 0
            ):
                raise InputError(
                    f"anchors.shapes = {self.shapes}: give each level at least one (width, height) above 0"
                )
            return
        if not self.sizes or not all(self.sizes) or min(min(s) for s in self.sizes) <= 0:
            raise InputError(
                f"anchors.sizes = {self.sizes}: give each level at least one side above 0, such as ((32,),)"
            )
        if not self.ratios or min(self.ratios) <= 0:
            raise InputError(f"anchors.ratios = {self.ratios}: give at least one ratio above 0, such as (0.5, 1, 2)")


class AnchorGenerator:
    """Anchors for the whole batch as one ``[A, 4]``, in order level, y, x, anchor."""

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
        # Python floats, not tensors: the generator then has no device, and a compiled graph folds them as constants.
        if config.shapes is None:
            self.cells = [self._cell(sizes, stride) for sizes, stride in zip(config.sizes, self.strides, strict=True)]
        else:
            self.cells = [
                [self._placed(width, height, stride) for width, height in level]
                for level, stride in zip(config.shapes, self.strides, strict=True)
            ]

    @property
    def per_cell(self) -> list[int]:
        """Anchors in each cell, by level."""
        return [len(cell) for cell in self.cells]

    @property
    def shapes(self) -> list[tuple[float, float]]:
        """Width and height of the anchors of all levels."""
        return [(x2 - x1, y2 - y1) for cell in self.cells for x1, y1, x2, y2 in cell]

    def __call__(self, shapes: Sequence[tuple[int, int]], device: torch.device) -> Tensor:
        """Anchors ``[A, 4]`` for maps of ``shapes`` (height, width), one for each level."""
        return torch.cat(self.by_level(shapes, device))

    def by_level(self, shapes: Sequence[tuple[int, int]], device: torch.device) -> list[Tensor]:
        """Anchors ``[H * W * per_cell, 4]`` of each level."""
        if self.config.steps == "declared":
            return [self.level(i, shape, device) for i, shape in enumerate(shapes)]
        # The input is padded to a multiple of the finest stride at least, so that the finest map tells its sides.
        sides = [cells * self.strides[0] for cells in shapes[0]]
        return [
            self.level(i, shape, device, (sides[0] // shape[0], sides[1] // shape[1])) for i, shape in enumerate(shapes)
        ]

    def level(
        self, level: int, shape: tuple[int, int], device: torch.device, step: tuple[int, int] | None = None
    ) -> Tensor:
        """Anchors ``[H * W * per_cell, 4]`` of one level; ``step``: pixels from cell to cell, down and across."""
        (height, width), (down, across) = shape, step or (self.strides[level], self.strides[level])
        y = torch.arange(height, dtype=torch.float32, device=device) * down
        x = torch.arange(width, dtype=torch.float32, device=device) * across
        grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
        shift = torch.stack([grid_x, grid_y, grid_x, grid_y], dim=-1).reshape(-1, 1, 4)
        cell = constant(self.cells[level], device)
        return (shift + cell).reshape(-1, 4)

    def _cell(self, sizes: Sequence[float], stride: int) -> list[list[float]]:
        """Anchors of the first cell, as plain numbers."""
        ratios = self.config.ratios
        if self.config.order == "size":
            pairs = [(size, ratio) for size in sizes for ratio in ratios]
        else:
            pairs = [(size, ratio) for ratio in ratios for size in sizes]
        return [self._anchor(size, ratio if self.config.ratio == "h/w" else 1 / ratio, stride) for size, ratio in pairs]

    def _anchor(self, size: float, h_over_w: float, stride: int) -> list[float]:
        if self.config.rounding == "caffe":
            centre = self._centre(stride)
            # Caffe rounds the sides of a stride x stride box of that ratio, then scales; corners are inclusive.
            base_width = round(math.sqrt(stride * stride / h_over_w))
            width = base_width * size / stride
            height = round(base_width * h_over_w) * size / stride
            left, top = centre - (width - 1) / 2, centre - (height - 1) / 2
            return [left, top, left + width - 1, top + height - 1]
        return self._placed(size / math.sqrt(h_over_w), size * math.sqrt(h_over_w), stride)

    def _placed(self, width: float, height: float, stride: int) -> list[float]:
        centre = self._centre(stride)
        if self.config.rounding == "extent":
            half_width, half_height = round(width / 2), round(height / 2)  # half to even, as torch.round
        else:
            half_width, half_height = width / 2, height / 2
        return [centre - half_width, centre - half_height, centre + half_width, centre + half_height]

    def _centre(self, stride: int) -> float:
        return {"corner": 0.0, "pixel": (stride - 1) / 2, "cell": stride / 2}[self.config.centre]
