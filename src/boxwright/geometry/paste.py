"""Pasting of predicted masks into images, stored as windows around the objects.

Symbols: n objects of one image, m the side of a network's mask, H W the size of the image in pixels.

Linear resizing is two products with matrices of interpolation weights, with two non-zero entries in each row. Only the
window around the box is computed and stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, overload

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from boxwright.fields import config

_STRIP = 2**18  # pixels resized at once: what the cache holds


@config
class PasteConfig:
    """Conversion of a mask of m x m probabilities to pixels."""

    method: Literal["expand", "centres"] = "expand"
    """"expand": enlarge the box by a border of one cell on each side, round it to whole pixels, resize to those, and
    take pixels above ``threshold`` (Detectron, torchvision). "centres": read the mask at the centre of each pixel
    without rounding, and take pixels at or above it (detectron2)."""
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Minimum probability of a pixel of the object."""


@dataclass(frozen=True, slots=True, eq=False)
class InstanceMasks:
    """The masks of n objects in an image of ``size`` (H, W): a sequence of bool arrays ``[H, W]`` made on access.

    ``corners`` int64 ``[n, 2]``: top and left of each object's window; ``windows``: n bool arrays, its pixels. Arrays
    of the image's size, which ``numpy.asarray`` makes, take 1.2 GB for 100 objects in a photograph of 12 megapixels.
    """

    size: tuple[int, int]
    corners: NDArray[np.int64]
    windows: tuple[NDArray[np.bool_], ...]

    @classmethod
    def from_dense(cls, masks: NDArray[np.bool_]) -> InstanceMasks:
        """Convert bool ``[n, H, W]``; each window is the bounding box of the object's pixels."""
        corners, windows = np.zeros((len(masks), 2), dtype=np.int64), []
        for i, mask in enumerate(masks):
            rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            if len(rows):
                corners[i] = rows[0], columns[0]
                windows.append(mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].copy())
            else:
                windows.append(np.zeros((0, 0), dtype=bool))
        return cls((masks.shape[1], masks.shape[2]), corners, tuple(windows))

    @property
    def shape(self) -> tuple[int, int, int]:
        """n, H, W."""
        return len(self.windows), *self.size

    def __len__(self) -> int:
        return len(self.windows)

    def __iter__(self) -> Iterator[NDArray[np.bool_]]:
        return (self[i] for i in range(len(self)))

    @overload
    def __getitem__(self, index: int | np.integer) -> NDArray[np.bool_]: ...
    @overload
    def __getitem__(self, index: slice | np.ndarray | Sequence[int] | Sequence[bool]) -> InstanceMasks: ...
    def __getitem__(self, index: Any) -> NDArray[np.bool_] | InstanceMasks:
        """Return one mask as ``[H, W]``, or several in the order of ``index``."""
        if isinstance(index, (int, np.integer)):
            (top, left), window = self.corners[index], self.windows[index]
            mask = np.zeros(self.size, dtype=bool)
            mask[top : top + window.shape[0], left : left + window.shape[1]] = window
            return mask
        rows = np.arange(len(self))[index]
        return InstanceMasks(self.size, self.corners[rows], tuple(self.windows[i] for i in rows))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("masks are kept as windows; an array of them is always a new one")
        dense = np.zeros(self.shape, dtype=bool)
        for mask, (top, left), window in zip(dense, self.corners, self.windows, strict=True):
            mask[top : top + window.shape[0], left : left + window.shape[1]] = window
        return dense if dtype is None else dense.astype(dtype)

    def areas(self) -> NDArray[np.int64]:
        """Count the pixels of each object, ``[n]``."""
        return np.array([np.count_nonzero(window) for window in self.windows], dtype=np.int64)

    def run_lengths(self) -> list[dict[str, Any]]:
        """Encode each mask in COCO's compressed run-length code, with ``counts`` as text as in JSON files."""
        from hotcoco import mask as mask_api

        height, width = self.size
        codes: list[dict[str, Any]] = []
        for (top, left), window in zip(self.corners.tolist(), self.windows, strict=True):
            counts = _runs(window, top, left, height, width).tolist()
            code: Any = mask_api.frPyObjects({"size": [height, width], "counts": counts}, height, width)
            text = code["counts"]
            codes.append({"size": [height, width], "counts": text.decode() if isinstance(text, bytes) else text})
        return codes


def paste_masks(
    masks: np.ndarray, boxes: np.ndarray, size: tuple[int, int], config: PasteConfig | None = None
) -> InstanceMasks:
    """Paste mask probabilities ``[n, m, m]`` of ``boxes`` ``[n, 4]`` into an image of ``size`` (H, W)."""
    config = config or PasteConfig()
    count, side = masks.shape[:2]
    padded = np.zeros((count, side + 2, side + 2), dtype=np.float32)
    padded[:, 1:-1, 1:-1] = masks
    boxes = np.asarray(boxes, dtype=np.float32).reshape(-1, 4)
    spans = _expanded(boxes, side) if config.method == "expand" else boxes
    corners, windows = np.zeros((count, 2), dtype=np.int64), []
    for i, (x1, y1, x2, y2) in enumerate(spans.tolist()):
        top, rows = _weights(y1, y2, side, size[0], config)
        left, columns = _weights(x1, x2, side, size[1], config)
        corners[i] = top, left
        windows.append(_window(rows, padded[i] @ columns.T, config))
    return InstanceMasks(size, corners, tuple(windows))


def _expanded(boxes: NDArray[np.float32], side: int) -> NDArray[np.int64]:
    """Enlarge boxes by a border of one cell of the mask, and truncate corners to whole pixels, both inclusive."""
    # float32 throughout, and in this order: a corner next to a whole number must fall on the references' side of it.
    half = (boxes[:, 2:] - boxes[:, :2]) * 0.5
    centre = (boxes[:, 2:] + boxes[:, :2]) * 0.5
    half = half * np.float32((side + 2) / side)
    return np.concatenate([centre - half, centre + half], axis=1).astype(np.int64)


def _weights(low: float, high: float, side: int, limit: int, config: PasteConfig) -> tuple[int, NDArray[np.float32]]:
    """Return a window's first pixel along one axis, and the weights of the padded mask's cells, ``[pixels, m + 2]``."""
    cells = side + 2
    if config.method == "expand":
        length = max(high - low + 1, 1)
        first, last = max(low, 0), min(low + length, limit)
        place = (np.arange(first - low, last - low, dtype=np.float32) + 0.5) * np.float32(cells / length) - 0.5
    else:
        length = max(high - low, 1e-6)
        margin = length / (2 * side) + 0.5  # beyond it there is only the border, which is empty
        first, last = max(int(np.floor(low - margin)), 0), min(int(np.ceil(high + margin)), limit)
        pixel = np.arange(first, last, dtype=np.float32) + np.float32(0.5)
        place = (pixel - np.float32(low)) * np.float32(side / length) + np.float32(0.5)
    place = place.clip(0, cells - 1)[:, None]
    return int(first), (1 - np.abs(place - np.arange(cells, dtype=np.float32))).clip(min=0)


def _window(rows: NDArray[np.float32], across: NDArray[np.float32], config: PasteConfig) -> NDArray[np.bool_]:
    """Threshold ``rows [h, m + 2] @ across [m + 2, w]``, strip by strip."""
    window = np.empty((len(rows), across.shape[1]), dtype=bool)
    step = max(1, _STRIP // max(1, across.shape[1]))
    compare = np.greater if config.method == "expand" else np.greater_equal
    for start in range(0, len(rows), step):
        compare(rows[start : start + step] @ across, np.float32(config.threshold), out=window[start : start + step])
    return window


def _runs(window: NDArray[np.bool_], top: int, left: int, height: int, width: int) -> NDArray[np.int64]:
    """Compute the lengths of the runs of 0, 1, 0 ... of the whole image, column by column."""
    high = window.shape[0]
    columns = np.zeros((window.shape[1], high + 1), dtype=bool)  # an empty pixel ends each column
    columns[:, :high] = window.T
    flat = columns.reshape(-1)
    change = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    if flat.size and flat[0]:
        change = np.concatenate([[0], change])
    column, row = np.divmod(change, high + 1)
    place = (left + column) * height + top + row
    # A run that reaches the bottom of the image goes on where the next one starts at its top.
    through = np.flatnonzero(place[1:-1:2] == place[2::2]) if len(place) > 2 else np.zeros(0, dtype=np.int64)
    place = np.delete(place, np.concatenate([2 * through + 1, 2 * through + 2]))
    runs = np.diff(place, prepend=0, append=height * width)
    return runs[:-1] if len(runs) > 1 and runs[-1] == 0 else runs
