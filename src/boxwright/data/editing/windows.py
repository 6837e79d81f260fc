"""Places of the tiles of an image, and the part of its annotations that lies in each.

Symbols: n boxes of an image, T tiles of an image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from boxwright.data.formats.opening import DatasetFormat
from boxwright.data.index import DetectionIndex
from boxwright.data.masks.masks import Segmentation, area, bounds
from boxwright.data.masks.windows import Window, cut_segmentation, shifted
from boxwright.data.packing import CROWD, TRUNCATED

_NEAR = 1e-6
"""Area of a mask without area, in square pixels."""


def starts(length: int, size: int, overlap: float) -> list[int]:
    """Return where tiles of ``size`` pixels begin along a side of an image of ``length`` pixels.

    Neighbours share at least ``overlap`` of their side. The last tile is moved inward so that it ends with the image. A
    side that is no longer than a tile has one, as long as the side.
    """
    if length <= size:
        return [0]
    step = max(1, size - math.ceil(size * overlap))
    return [*range(0, length - size, step), length - size]


def windows_of(height: int, width: int, size: int, overlap: float) -> list[Window]:
    """Return the tiles of an image, row by row."""
    return [
        (x, y, min(size, width), min(size, height))
        for y in starts(height, size, overlap)
        for x in starts(width, size, overlap)
    ]


@dataclass
class TileRows:
    """Annotations of one tile, in its pixels.

    ``boxes`` x y width height; ``flags`` as in an index. ``cut`` counts the boxes that are not whole, ``ignored`` the
    parts that became crowd regions or were left out for YOLO.
    """

    boxes: list[list[float]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    flags: list[int] = field(default_factory=list)
    areas: list[float | None] = field(default_factory=list)
    segmentations: list[Segmentation | None] = field(default_factory=list)
    ignored: int = 0
    cut: int = 0

    def add(
        self, box: list[float], label: int, flags: int, area: float | None, segmentation: Segmentation | None
    ) -> None:
        """Append an object; without an area it has that of its segmentation or box."""
        self.boxes.append(box)
        self.labels.append(label)
        self.flags.append(flags)
        self.areas.append(area)
        self.segmentations.append(segmentation)

    @property
    def has_objects(self) -> bool:
        """Return True if the tile has an object that is no crowd region."""
        return any(not flags & CROWD for flags in self.flags)


class ImageRows:
    """Annotations of one image, its segmentations parsed once for all tiles, to be written in a format."""

    def __init__(self, index: DetectionIndex, i: int, format: DatasetFormat) -> None:
        self.format = format
        rows = slice(int(index.box_ends[i]), int(index.box_ends[i + 1]))
        self.height, self.width = index.size(i)
        self.low = index.xywh[rows, :2]
        self.high = index.xywh[rows, :2] + index.xywh[rows, 2:]
        self.sides = index.xywh[rows, 2:]
        self.labels = index.labels[rows].tolist()
        self.flags = index.flags[rows].tolist()
        self.areas = index.areas[rows].tolist()
        self.segmentations = index.annotations(i).segmentations or [None] * len(self.labels)
        self.whole = np.zeros(len(self.labels), dtype=bool)  # in one of the tiles so far
        self.learnt = np.zeros(len(self.labels), dtype=bool)  # an object in one of the tiles so far

    def inside(self, window: Window, min_visible: float) -> TileRows:
        """Return what lies in a tile.

        An object that is whole in it is unchanged but for the shift; what reaches over the edge of the image does not
        count. Of the others, box and mask are cut to the tile, and VOC marks the object as truncated. One of which less
        than ``min_visible`` of the area is inside becomes a crowd region: too little to be learnt as an object, and too
        much to be learnt as background. YOLO has no mark for it, so it is left out. The area is that of the mask if
        there is one, and the box of a cut object then fits the part of the mask.
        """
        found = TileRows()
        x, y, width, height = window
        near = ((self.high > (x, y)) & (self.low < (x + width, y + height))).all(axis=1)
        for k in np.flatnonzero(near).tolist():
            if window == (0, 0, self.width, self.height):
                self._keep(found, k, self.low[k], self.sides[k], self.segmentations[k])
            else:
                self._add(found, k, window, min_visible)
        return found

    def _add(self, found: TileRows, k: int, window: Window, min_visible: float) -> None:
        """Add object ``k`` to a tile that is smaller than the image."""
        shift, size = np.array(window[:2]), np.array(window[2:])
        segmentation = self.segmentations[k]
        low = np.maximum(self.low[k], 0) - shift
        high = np.minimum(self.high[k], (self.width, self.height)) - shift
        if (low >= 0).all() and (high <= size).all():
            part = None if segmentation is None else shifted(segmentation, window)
            self._keep(found, k, self.low[k] - shift, self.sides[k], part)
            return
        part = None if segmentation is None else cut_segmentation(segmentation, window)
        if segmentation is not None and part is None:
            return  # only an empty corner of the box is in the tile
        before = float(np.prod(high - low))
        low, high = np.maximum(low, 0), np.minimum(high, size)
        visible = float(np.prod(high - low)) / before
        if part is not None and segmentation is not None:
            visible = area(part) / max(area(segmentation), _NEAR)
            x1, y1, x2, y2 = bounds(part)
            low, high = np.maximum(low, (x1, y1)), np.minimum(high, (x2, y2))
        if (high <= low).any():
            return
        ignoring = visible < min_visible and not self.flags[k] & CROWD
        self.learnt[k] |= not ignoring
        found.ignored += ignoring
        if ignoring and self.format == "yolo":
            return
        found.cut += 1
        flags = self.flags[k] | (TRUNCATED if self.format == "voc" else 0) | (CROWD if ignoring else 0)
        found.add([*low.tolist(), *(high - low).tolist()], self.labels[k], flags, None, part)

    def _keep(
        self, found: TileRows, k: int, low: np.ndarray, sides: np.ndarray, segmentation: Segmentation | None
    ) -> None:
        """Add object ``k`` to a tile in which it is whole."""
        self.whole[k] = self.learnt[k] = True
        found.add([*low.tolist(), *sides.tolist()], self.labels[k], self.flags[k], self.areas[k], segmentation)
