"""SSD's default boxes (§2.2, arXiv 1512.02325), also called priors: several shapes in every cell of each map.

Symbols: m maps, f_k cells in a row of map k, A boxes over all maps, in order map, y, x, shape.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from boxwright.geometry.constants import constant
from boxwright.structures import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorConfig:
    """Shapes and places of the default boxes; the defaults are SSD300's on VOC.

    ``sizes``: side in pixels of the square box on each map, and one more: box k of ratio 1 also comes in the geometric
    mean of sizes k and k + 1. :func:`paper_sizes` computes the published lists. ``ratios``: aspect ratios on each map
    beside 1; each stands both ways, as wide as high by the ratio and as high as wide. ``square``: whether there is that
    second square (RefineDet leaves it out).
    ``steps``: pixels from one centre to the next on each map; None spreads the f_k centres evenly over the input, which
    is the paper's formula but not what any released model was trained with (300 / 38 is not 8).
    ``truncate``: cut ``sizes`` to whole pixels, as Caffe's layer does since June 2016: SSD512's later weights need it.
    ``clip``: "none" lets boxes reach over the border (Caffe); "sides" cuts width and height to the input's
    (torchvision), "all" the centre too (amdegroot, lufficc: a clamp of cx cy w h); "corners" cuts what is outside.
    """

    sizes: tuple[float, ...] = (30, 60, 111, 162, 213, 264, 315)
    ratios: tuple[tuple[float, ...], ...] = ((2,), (2, 3), (2, 3), (2, 3), (2,), (2,))
    square: bool = True
    steps: tuple[float, ...] | None = (8, 16, 32, 64, 100, 300)
    truncate: bool = False
    clip: Literal["none", "sides", "all", "corners"] = "none"

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
        if min(self.sizes) < 1 or list(self.sizes) != sorted(self.sizes):
            raise InputError(f"priors.sizes = {list(self.sizes)}: pixels, at least 1, that do not fall")
        if any(ratio <= 0 for ratios in self.ratios for ratio in ratios) or min(self.steps or (1,)) <= 0:
            raise InputError("priors.ratios and priors.steps: every number must be above 0")

    @property
    def shapes(self) -> list[list[tuple[float, float]]]:
        """Width and height in pixels of the boxes in a cell of each map, before any clipping."""
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
        """Boxes in a cell of each map."""
        return [len(cell) for cell in self.shapes]


def default_boxes(
    config: PriorConfig, maps: Sequence[tuple[int, int]], size: tuple[int, int], device: torch.device
) -> Tensor:
    """Boxes ``[A, 4]`` in pixels for ``maps`` of (height, width) cells on an input of ``size`` (height, width)."""
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
    """The ``sizes`` of :class:`PriorConfig` by the rule of §2.2, eq. 4, for an input of ``side`` pixels.

    ``first``: size on the first map in percent of the side; ``low`` and ``high``: on the second and the last, with
    those between evenly spaced. The released models step by whole percents, rounded down, so that the last may fall
    short of ``high``; ``even`` follows the equation instead.
    """
    if maps < 3:
        raise InputError(f"paper_sizes for {maps} maps: the rule needs at least 3; list the sizes yourself")
    step = (high - low) / (maps - 2)
    if not even:
        step = math.floor(step)
    return tuple(side * percent / 100 for percent in (first, *(low + step * k for k in range(maps))))
