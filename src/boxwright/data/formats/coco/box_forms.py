"""Evidence that the boxes of a COCO file are not ``x y width height`` in pixels."""

from __future__ import annotations

import math
from pathlib import Path

from boxwright.data.formats.problems import ProblemLog, refuse_fractions
from boxwright.data.masks.agreement import Corners, iou


class BoxForms:
    """Counts of what speaks for and against another meaning of ``bbox``, over all annotations of a file."""

    def __init__(self) -> None:
        self.boxes = self.fractions = self.over_edge = 0
        self.possible = True  # every box read as x1 y1 x2 y2 lies in its image
        self.for_corners = self.against = 0
        self.first = ""

    def add(
        self, place: str, box: list[float], size: tuple[int, int], mask: Corners | None, area: float | None
    ) -> None:
        """Count a box ``x y w h`` of an image of ``size`` (height, width), with its mask's bounds and its area."""
        x, y, w, h = box
        if not all(map(math.isfinite, box)):
            return
        self.boxes += 1
        self.fractions += max(box) <= 1 and min(box) >= 0
        fits = 0 <= x < w <= size[1] + 1 and 0 <= y < h <= size[0] + 1
        self.possible &= fits
        if not fits:
            self.against += mask is not None or area is not None
            return
        over_edge = x + w > size[1] + 1 or y + h > size[0] + 1
        self.over_edge += over_edge
        corners = read = False
        if mask is not None:
            as_corners, as_size = iou(mask, (x, y, w, h)), iou(mask, (x, y, x + w, y + h))
            corners = as_corners > max(0.9, as_size + 0.05)
            read = as_size > max(0.9, as_corners + 0.05)
        elif area:
            corners = _close(area, (w - x) * (h - y)) and not _close(area, w * h)
            read = _close(area, w * h) and not _close(area, (w - x) * (h - y))
        self.for_corners += corners
        self.against += read
        if (corners or over_edge) and not self.first:
            self.first = f"{place} has {' '.join(f'{v:.6g}' for v in box)}"

    def judge(self, file: Path, log: ProblemLog) -> bool:
        """Refuse a file whose boxes are not in pixels, or corners; note one that may be. True if none is refused."""
        if self.boxes and self.fractions == self.boxes:
            return not refuse_fractions(log, file, self.boxes)
        if self.for_corners and self.against * 10 <= self.for_corners:
            message = (
                f"bbox seems to be x1 y1 x2 y2: that fits the area or mask of {self.for_corners} of {self.boxes} "
                f"objects ({self.first}); COCO holds x y width height, convert them"
            )
            log.refuse("corners", file, "", message)
            return False
        if self.possible and not self.against and self.over_edge >= max(2, 0.1 * self.boxes):
            message = (
                f"bbox may be x1 y1 x2 y2 instead of x y width height: {self.over_edge} of {self.boxes} boxes extend "
                f"over the edge, and all would fit as corners ({self.first})"
            )
            log.correct("corners", "warning", file, "", message)
        return True


def _close(one: float, other: float) -> bool:
    return abs(one - other) <= 0.005 * max(one, other)
