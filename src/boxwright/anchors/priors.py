"""SSD's default boxes, also called priors: several shapes in every cell of each map (arXiv 1512.02325 §2.2).

Symbols: m maps, f_k cells in a row of map k, A boxes over all maps, in order map, y, x, shape.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from boxwright.fields import Positive, config
from boxwright.geometry.constants import constant
from boxwright.structures import InputError

Size = Annotated[float, Field(ge=1)]


@config
class PriorConfig:
    """Shapes and positions of the default boxes. The defaults are SSD300's on VOC."""

    sizes: tuple[Size, ...] = (30, 60, 111, 162, 213, 264, 315)
    """Side in pixels of the square box on each map, in ascending order, and one size more. The second square of map k
    has the geometric mean of sizes k and k + 1. :func:`paper_sizes` computes the published lists."""
    ratios: tuple[tuple[Positive, ...], ...] = ((2,), (2, 3), (2, 3), (2, 3), (2,), (2,))
    """Aspect ratios on each map besides 1, each for a wide and a high box."""
    square: bool = True
    """Add the second square."""
    steps: tuple[Positive, ...] | None = (8, 16, 32, 64, 100, 300)
    """Distance of centres on each map in pixels. None: spread the f_k centres evenly over the input. The paper says so,
    but no released model was trained with that (300 / 38 is not 8)."""
    truncate: bool = False
    """Truncate ``sizes`` to whole pixels, as Caffe's layer does since June 2016; SSD512's later weights need it."""
    clip: Literal["none", "sides", "all", "corners"] = "none"
    """"none": boxes may cross the border (Caffe). "sides": limit width and height to the input's (torchvision). "all":
    the centre too (amdegroot, lufficc). "corners": clip to the input."""

    def __post_init__(self) -> None:
        if len(self.sizes) != len(self.ratios) + 1:
            raise InputError(
                f"priors.sizes has {len(self.sizes)} entries and priors.ratios {len(self.ratios)}: give one size more "
                "than there are maps, and ratios (possibly none) for every map"
            )
        if self.steps is not None and len(self.steps) != len(self.ratios):
            raise InputError(
                f"priors.steps has {len(self.steps)} entries for {len(self.ratios)} maps: give one for each, or none"
            )
        if list(self.sizes) != sorted(self.sizes):
            raise InputError(f"priors.sizes = {list(self.sizes)}: must be in ascending order")

    @property
    def shapes(self) -> list[list[tuple[float, float]]]:
        """Width and height in pixels of the boxes in a cell of each map, before clipping."""
        sizes = [float(int(size)) if self.truncate else float(size) for size in self.sizes]
        shapes = []
        for size, larger, ratios in zip(sizes, sizes[1:], self.ratios, strict=False):
            cell = [(size, size)]
            if self.square:
                mean = math.sqrt(size * larger)
                cell.append((mean, mean))
            for ratio in ratios:
                long, short = size * math.sqrt(ratio), size / math.sqrt(ratio)
                cell += [(long, short), (short, long)]
            shapes.append(cell)
        return shapes

    @property
    def per_cell(self) -> list[int]:
        """Number of boxes in a cell of each map."""
        return [len(cell) for cell in self.shapes]


def default_boxes(
    config: PriorConfig, maps: Sequence[tuple[int, int]], size: tuple[int, int], device: torch.device
) -> Tensor:
    """Return boxes ``[A, 4]`` in pixels for ``maps`` (rows, columns) and an input of ``size`` (height, width)."""
    height, width = size
    boxes = []
    for k, ((rows, columns), shapes) in enumerate(zip(maps, config.shapes, strict=True)):
        step_y, step_x = (height / rows, width / columns) if config.steps is None else (config.steps[k],) * 2
        y = (torch.arange(rows, dtype=torch.float32, device=device) + 0.5) * step_y
        x = (torch.arange(columns, dtype=torch.float32, device=device) + 0.5) * step_x
        if config.clip == "all":
            y, x = y.clamp(max=height), x.clamp(max=width)
        if config.clip in ("sides", "all"):
            shapes = [(min(w, width), min(h, height)) for w, h in shapes]
        centre_y, centre_x = torch.meshgrid(y, x, indexing="ij")
        centre = torch.stack([centre_x, centre_y], dim=-1).reshape(-1, 1, 2)
        half = constant([(w / 2, h / 2) for w, h in shapes], device)
        boxes.append(torch.cat([centre - half, centre + half], dim=-1).reshape(-1, 4))
    every = torch.cat(boxes)
    if config.clip == "corners":
        every = torch.minimum(every.clamp(min=0), constant([width, height, width, height], device))
    return every


def paper_sizes(side: int, maps: int, first: int, low: int, high: int = 90, even: bool = False) -> tuple[float, ...]:
    """Compute the ``sizes`` of :class:`PriorConfig` by §2.2, eq. 4, for an input of ``side`` pixels.

    ``first``: size on the first map in percent of the side. ``low`` and ``high``: on the second and the last map; those
    between are evenly spaced. The released models round the step down to whole percents, so that the last may be below
    ``high``; ``even`` follows the equation instead. Raises InputError for fewer than three maps.
    """
    if maps < 3:
        raise InputError(f"paper_sizes for {maps} maps: the rule needs at least 3; list the sizes yourself")
    step = (high - low) / (maps - 2)
    if not even:
        step = math.floor(step)
    return tuple(side * percent / 100 for percent in (first, *(low + step * k for k in range(maps))))
