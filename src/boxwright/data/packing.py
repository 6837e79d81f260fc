"""Records of images as readers make them, and their packing into the flat arrays of an index.

Symbols: n boxes of one image, M boxes of all images.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from boxwright.data.masks import masks as mask_tools
from boxwright.data.masks.masks import Segmentation
from boxwright.structures import InputError

CROWD, DIFFICULT, TRUNCATED, OCCLUDED, POSE_SHIFT = 1, 2, 4, 8, 4
"""Bits of a box's flags; the three bits from ``POSE_SHIFT`` on hold the position of its pose in `POSES`."""

POSES = ("Unspecified", "Frontal", "Rear", "Left", "Right")
"""Views of an object that Pascal VOC annotates."""


@dataclass(kw_only=True)
class ImageRecord:
    """One image with its annotations, as a reader passes it to `DetectionIndex.build`.

    ``boxes`` ``[n, 4]`` are x1 y1 x2 y2, exclusive, or with ``box_format="xywh"`` x y width height; ``labels`` ``[n]``
    index the classes. Defaults: no crowd, nothing difficult, truncated or occluded, no poses, the areas of the
    segmentations or else of the boxes, ids that count from 1 through the data set.
    """

    path: Path
    image_id: int
    height: int
    width: int
    boxes: Sequence[Sequence[float]] | np.ndarray = ()
    labels: Sequence[int] | np.ndarray = ()
    crowd: Sequence[bool] | np.ndarray | None = None
    difficult: Sequence[bool] | np.ndarray | None = None
    areas: Sequence[float | None] | np.ndarray | None = None
    ids: Sequence[int] | np.ndarray | None = None
    segmentations: Sequence[Segmentation | None] | None = None
    truncated: Sequence[bool] | np.ndarray | None = None
    occluded: Sequence[bool] | np.ndarray | None = None
    poses: Sequence[str] | None = None
    box_format: str = "xyxy"


class Packer:
    """Build the columns of an index record by record."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.image_ids: list[int] = []
        self.sizes: list[tuple[int, int]] = []
        self.paths = bytearray()
        self.path_ends, self.box_ends, self.text_ends = [0], [0], [0]
        self.xywh: list[np.ndarray] = []
        self.labels: list[np.ndarray] = []
        self.flags: list[np.ndarray] = []
        self.areas: list[np.ndarray] = []
        self.ids: list[np.ndarray] = []
        self.texts = bytearray()

    def add(self, record: ImageRecord, num_classes: int) -> None:
        """Append one image and its boxes."""
        boxes = np.array(record.boxes, dtype=np.float64).reshape(-1, 4)
        if record.box_format == "xyxy":
            boxes[:, 2:] -= boxes[:, :2]
        count = len(boxes)
        labels = _column(record, "labels", count, np.int32, None)
        if count and (labels.min() < 0 or labels.max() >= num_classes):
            raise InputError(f"{record.path}: a label is not one of 0..{num_classes - 1}; correct it or add its class")
        crowd = _column(record, "crowd", count, bool, np.zeros(count))
        difficult = _column(record, "difficult", count, bool, np.zeros(count))
        start = self.box_ends[-1]
        self.ids.append(_column(record, "ids", count, np.int64, np.arange(start + 1, start + count + 1)))
        self.areas.append(_areas(record, boxes))
        self.xywh.append(boxes)
        self.labels.append(labels)
        flags = crowd * np.uint8(CROWD) | difficult * np.uint8(DIFFICULT)
        for name, bit in (("truncated", TRUNCATED), ("occluded", OCCLUDED)):
            flags |= _column(record, name, count, bool, np.zeros(count)) * np.uint8(bit)
        if record.poses is not None:
            if len(record.poses) != count:
                raise InputError(f"{record.path}: {count} boxes but {len(record.poses)} poses; give one for each box")
            flags |= np.array([POSES.index(pose) << POSE_SHIFT for pose in record.poses], dtype=np.uint8)
        self.flags.append(flags)
        for segmentation in record.segmentations if record.segmentations is not None else [None] * count:
            if segmentation is not None:
                self.texts += json.dumps(segmentation, separators=(",", ":")).encode()
            self.text_ends.append(len(self.texts))
        self.box_ends.append(start + count)
        self.image_ids.append(record.image_id)
        self.sizes.append((record.height, record.width))
        self.paths += _below(Path(record.path), self.root).encode("utf-8", "surrogateescape")
        self.path_ends.append(len(self.paths))

    def columns(self) -> dict[str, Any]:
        """Return the packed arrays by the names of the index's fields."""

        def joined(parts: list[np.ndarray], shape: tuple[int, ...], dtype: Any) -> np.ndarray:
            return np.concatenate(parts) if parts else np.zeros(shape, dtype)

        return {
            "image_ids": np.array(self.image_ids, dtype=np.int64),
            "sizes": np.array(self.sizes, dtype=np.int32).reshape(-1, 2),
            "paths": np.frombuffer(self.paths, dtype=np.uint8).copy(),
            "path_ends": np.array(self.path_ends, dtype=np.int64),
            "box_ends": np.array(self.box_ends, dtype=np.int64),
            "xywh": joined(self.xywh, (0, 4), np.float64),
            "labels": joined(self.labels, (0,), np.int32),
            "flags": joined(self.flags, (0,), np.uint8),
            "areas": joined(self.areas, (0,), np.float64),
            "annotation_ids": joined(self.ids, (0,), np.int64),
            "texts": np.frombuffer(self.texts, dtype=np.uint8).copy(),
            "text_ends": np.array(self.text_ends, dtype=np.int64) if self.texts else None,
        }


def _column(record: ImageRecord, name: str, count: int, dtype: Any, default: np.ndarray | None) -> np.ndarray:
    """Return a column with one value per box, or the default if the record leaves it out."""
    given = getattr(record, name)
    values = np.asarray(default if given is None else given).astype(dtype).reshape(-1)
    if len(values) != count:
        raise InputError(f"{record.path}: {count} boxes but {len(values)} {name}; give one for each box")
    return values


def _areas(record: ImageRecord, xywh: np.ndarray) -> np.ndarray:
    """Return the given areas, or those of the segmentations, or those of the boxes."""
    given = [None] * len(xywh) if record.areas is None else list(record.areas)
    segments = [None] * len(xywh) if record.segmentations is None else list(record.segmentations)
    for name, values in (("areas", given), ("segmentations", segments)):
        if len(values) != len(xywh):
            raise InputError(f"{record.path}: {len(xywh)} boxes but {len(values)} {name}; give one for each box")
    areas = np.empty(len(xywh), dtype=np.float64)
    for i, (area, segment) in enumerate(zip(given, segments, strict=True)):
        if area is None:
            area = xywh[i, 2] * xywh[i, 3] if segment is None else mask_tools.area(segment)
        areas[i] = area
    return areas


def _below(path: Path, root: Path) -> str:
    """Return the path relative to ``root`` if it is below it, else the full path."""
    try:
        return path.relative_to(root).as_posix()
    except ValueError:
        return str(path if path.is_absolute() else path.absolute())
