"""Cut segmentations to a window of their image."""

from __future__ import annotations

import numpy as np

from boxwright.data.masks.clipping import cut_polygon
from boxwright.data.masks.masks import Segmentation, decompress_counts, encode

Window = tuple[int, int, int, int]
"""A part of an image, x y width height in whole pixels."""


def cut_segmentation(segmentation: Segmentation, window: Window) -> Segmentation | None:
    """Return the part of a segmentation in a window, in pixels of the window; None if it has no area there."""
    if isinstance(segmentation, dict):
        mask = window_of_runs(segmentation, window)
        return encode(mask) if mask.any() else None
    _, _, width, height = window
    return [part for polygon in _moved(segmentation, window) for part in cut_polygon(polygon, height, width)] or None


def shifted(segmentation: Segmentation, window: Window) -> Segmentation:
    """Return a segmentation that lies in a window, in pixels of the window; polygons are not cut."""
    if isinstance(segmentation, dict):
        return encode(window_of_runs(segmentation, window))
    return _moved(segmentation, window)


def _moved(polygons: list[list[float]], window: Window) -> list[list[float]]:
    x, y, _, _ = window
    return [[value - (y if n % 2 else x) for n, value in enumerate(polygon)] for polygon in polygons]


def window_of_runs(segmentation: dict[str, object], window: Window) -> np.ndarray:
    """Rasterise a run-length encoding in a window, bool ``[height, width]``.

    Only the columns of the window are decoded, so that the memory does not depend on the width of the image.
    """
    x, y, width, height = window
    size, counts = segmentation["size"], segmentation["counts"]
    assert isinstance(size, list)
    rows = int(size[0])
    if isinstance(counts, list):
        runs = np.array(counts, dtype=np.int64)
    else:
        runs = np.array(decompress_counts(counts.decode() if isinstance(counts, bytes) else str(counts)))
    ends = np.clip(np.cumsum(runs), x * rows, (x + width) * rows)
    lengths = np.diff(ends, prepend=x * rows)
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, lengths).reshape(width, rows)[:, y : y + height].T
