"""Fit boxes to what a format can hold: cut to the image, in whole pixels, with counts of what was changed.

Boxes are x1 y1 x2 y2 in pixels from 0, the ends exclusive.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

Box = tuple[float, float, float, float]

NEAR = 0.001
"""Pixels by which a side may move unreported: numbers in files are rounded."""


@dataclass
class BoxChanges:
    """Counts of the boxes of a split that a writer changed or left out. ``rounded_by`` is the largest move, pixels."""

    cut: int = 0
    over_edge: int = 0
    vanished: int = 0
    rounded: int = 0
    rounded_by: float = 0.0
    widened: int = 0

    def sentences(self) -> list[str]:
        """Return one sentence for each kind of change."""
        found = (
            (self.cut, f"{self.cut} boxes reached over the edge of their image and were cut to it"),
            (
                self.over_edge,
                f"{self.over_edge} boxes reach over the edge of their image and are kept so; other programs cut them, "
                "leave them out, or leave out the whole image",
            ),
            (self.vanished, f"{self.vanished} boxes are too thin to be written, and are left out"),
            (
                self.rounded,
                f"{self.rounded} boxes were rounded to whole pixels, which moved sides by up to {self.rounded_by:.2f}",
            ),
            (
                self.widened,
                f"{self.widened} boxes of at most one pixel were widened, because equal corners are read as no area",
            ),
        )
        return [sentence for count, sentence in found if count]


def cut_box(box: Box, height: int, width: int) -> Box | None:
    """Return the part of a box that lies in its image, None if there is none."""
    x1, y1, x2, y2 = max(box[0], 0.0), max(box[1], 0.0), min(box[2], float(width)), min(box[3], float(height))
    return (x1, y1, x2, y2) if x2 > x1 and y2 > y1 else None


def reaches_over(box: Box, height: int, width: int) -> bool:
    """Return True if a side of a box lies outside its image by more than `NEAR`."""
    return box[0] < -NEAR or box[1] < -NEAR or box[2] > width + NEAR or box[3] > height + NEAR


def whole_corners(low: float, high: float, size: int | None) -> tuple[int, int] | None:
    """Return the first and last pixel, counted from 1, of a side from ``low`` to ``high``, each rounded.

    They stay within 1..``size``, if given, and are never equal: a side of at most a pixel becomes two. None if the
    image has no second pixel.
    """
    first, last = math.floor(low + 1.5), math.floor(high + 0.5)
    if size is not None:
        first, last = max(first, 1), min(last, size)
    if last > first:
        return first, last
    middle = math.floor((low + high) / 2) + 1  # the pixel that holds the centre
    if size is not None:
        middle = min(max(middle, 1), size)
    if size is None or middle < size:
        return middle, middle + 1
    return (middle - 1, middle) if middle > 1 else None


def near_corners(low: float, high: float) -> tuple[float, float]:
    """Return first and last pixel of a side, counted from 1, with fractions; whole where they nearly are."""
    first, last = (float(round(v)) if abs(v - round(v)) < NEAR else round(v, 6) for v in (low + 1, high))
    return first, max(last, first + NEAR)
