"""Annotations of a data set in a few flat arrays that loader workers share.

Symbols: N images, n boxes of one image, M boxes of all images, H W height and width of an image.

A Python list of a million dictionaries is copied page by page into every forked worker, because reading an object
writes its reference count. Here everything is in numpy arrays, including the UTF-8 text of paths and segmentations.
Forked workers share the pages, and spawned workers map one block of shared memory (`boxwright.data.loading.sharing`).
An image takes 32 bytes and its path. A box takes 53 bytes; with masks, 8 more and the JSON text of its segmentation.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from boxwright.data.masks import masks as mask_tools
from boxwright.data.masks.masks import Segmentation
from boxwright.data.packing import CROWD, DIFFICULT, OCCLUDED, POSE_SHIFT, POSES, TRUNCATED, ImageRecord, Packer
from boxwright.structures import Classes, InputError


class Annotations(NamedTuple):
    """Annotations of one image, in pixels of the original image.

    ``boxes`` float32 ``[n, 4]`` x1 y1 x2 y2, exclusive, as annotated: they may extend over the image's edge; ``labels``
    int64 ``[n]``; ``crowd`` and ``difficult`` bool ``[n]``; ``area`` float64 ``[n]`` square pixels of the segment, or
    of the box without one; ``ids`` int64 ``[n]``; ``segmentations`` a COCO polygon list, a run-length dictionary or
    None per box, or None if the data set has no masks.
    """

    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    difficult: np.ndarray
    area: np.ndarray
    ids: np.ndarray
    segmentations: list[Segmentation | None] | None


@dataclass(frozen=True, eq=False, repr=False)
class DetectionIndex:
    """Images and annotations of one split, immutable. Created by the readers, or by `build`.

    ``classes``; ``name``, the name of the split or ""; ``root``, the folder of the data set. ``len()`` counts images.
    The other fields are packed arrays; use the methods to read them.
    """

    classes: Classes
    name: str
    root: Path
    image_ids: np.ndarray  # int64 [N]
    sizes: np.ndarray  # int32 [N, 2] height, width
    paths: np.ndarray  # uint8, concatenated UTF-8
    path_ends: np.ndarray  # int64 [N + 1] into paths
    box_ends: np.ndarray  # int64 [N + 1] into the rows below
    xywh: np.ndarray  # float64 [M, 4], the values in the file
    labels: np.ndarray  # int32 [M]
    flags: np.ndarray  # uint8 [M]
    areas: np.ndarray  # float64 [M]
    annotation_ids: np.ndarray  # int64 [M]
    texts: np.ndarray  # uint8, concatenated JSON
    text_ends: np.ndarray | None = None  # int64 [M + 1] into texts, None without masks

    @classmethod
    def build(
        cls, classes: Classes, records: Sequence[ImageRecord], *, root: Path | str | None = None, name: str = ""
    ) -> DetectionIndex:
        """Pack ``records`` into an index, in their order. ``root`` defaults to the folder of the first image.

        Raises ``InputError``, naming the image, for a label outside the classes and for unequal lengths.
        """
        folder = Path(root) if root is not None else (Path(records[0].path).parent if records else Path())
        packed = Packer(folder)
        for record in records:
            packed.add(record, len(classes))
        return cls(classes, name, folder, **packed.columns())

    def __len__(self) -> int:
        return len(self.image_ids)

    def __repr__(self) -> str:
        return (
            f"DetectionIndex({self.name or 'unnamed'}: {len(self)} images, {self.num_boxes} boxes, "
            f"{len(self.classes)} classes, {'masks' if self.has_masks else 'no masks'}, {self.root})"
        )

    @property
    def has_masks(self) -> bool:
        """Return True if any box has a segmentation."""
        return self.text_ends is not None

    @property
    def num_boxes(self) -> int:
        """Return the number of boxes of all images."""
        return len(self.labels)

    @property
    def aspect_ratios(self) -> np.ndarray:
        """Return width divided by height of each image, float64 ``[N]``."""
        return self.sizes[:, 1] / self.sizes[:, 0]

    @property
    def crowd(self) -> np.ndarray:
        """Return a mask of the crowd regions among all boxes, bool ``[M]``."""
        return (self.flags & CROWD) > 0

    @property
    def difficult(self) -> np.ndarray:
        """Return a mask of the difficult boxes among all boxes, bool ``[M]``."""
        return (self.flags & DIFFICULT) > 0

    @property
    def truncated(self) -> np.ndarray:
        """Return a mask of the objects that VOC annotates as cut by the image's edge or an occluder, bool ``[M]``."""
        return (self.flags & TRUNCATED) > 0

    @property
    def occluded(self) -> np.ndarray:
        """Return a mask of the objects that VOC annotates as partly hidden, bool ``[M]``."""
        return (self.flags & OCCLUDED) > 0

    @property
    def poses(self) -> list[str]:
        """Return VOC's view of each object, one of `POSES`, by box ``[M]``."""
        return [POSES[code] for code in (self.flags >> POSE_SHIFT).tolist()]

    @property
    def with_mask(self) -> np.ndarray:
        """Return a mask of the boxes with a segmentation, bool ``[M]``."""
        if self.text_ends is None:
            return np.zeros(self.num_boxes, dtype=bool)
        return np.diff(self.text_ends) > 0

    def path(self, i: int) -> Path:
        """Return the path of the image file."""
        return self.root / self.relative_path(i)

    def relative_path(self, i: int) -> str:
        """Return the path of the image below ``root`` with forward slashes, or the full path if it is elsewhere."""
        i = self._row(i)
        return self.paths[self.path_ends[i] : self.path_ends[i + 1]].tobytes().decode("utf-8", "surrogateescape")

    def image_id(self, i: int) -> int:
        """Return the id of the image in the files of the data set."""
        return int(self.image_ids[self._row(i)])

    def size(self, i: int) -> tuple[int, int]:
        """Return height and width of the upright image in pixels."""
        height, width = self.sizes[self._row(i)].tolist()
        return height, width

    def annotations(self, i: int) -> Annotations:
        """Return the annotations of image ``i``."""
        rows = self._rows(i)
        x, y, w, h = self.xywh[rows].T
        flags = self.flags[rows]
        return Annotations(
            boxes=np.stack([x, y, x + w, y + h], axis=1).astype(np.float32),
            labels=self.labels[rows].astype(np.int64),
            crowd=(flags & CROWD) > 0,
            difficult=(flags & DIFFICULT) > 0,
            area=self.areas[rows].copy(),
            ids=self.annotation_ids[rows].copy(),
            segmentations=self._segmentations(rows),
        )

    def masks(self, i: int) -> np.ndarray:
        """Rasterise the objects, bool ``[n, H, W]``; an object without a segmentation fills its box.

        Raises ``InputError`` if the data set has no masks.
        """
        rows = self._rows(i)
        segmentations = self._segmentations(rows)
        if segmentations is None:
            raise InputError(f"{self.root}: {self.name or 'the data set'} has boxes only; train and evaluate boxes")
        height, width = self.size(i)
        masks = np.zeros((len(segmentations), height, width), dtype=bool)
        for k, segmentation in enumerate(segmentations):
            if segmentation is not None:
                masks[k] = mask_tools.rasterise(segmentation, height, width)
            else:
                x, y, w, h = self.xywh[rows.start + k]
                masks[k, max(0, round(y)) : max(0, round(y + h)), max(0, round(x)) : max(0, round(x + w))] = True
        return masks

    def subset(self, indices: Sequence[int] | np.ndarray) -> DetectionIndex:
        """Return an index of the images at ``indices``, in that order; an image may be repeated."""
        chosen = np.array([self._row(int(i)) for i in indices], dtype=np.int64)
        rows, box_ends = _gather(self.box_ends, chosen)
        path_bytes, path_ends = _gather(self.path_ends, chosen)
        texts, text_ends = self._texts_of(rows)
        return replace(
            self,
            image_ids=self.image_ids[chosen],
            sizes=self.sizes[chosen],
            paths=self.paths[path_bytes],
            path_ends=path_ends,
            box_ends=box_ends,
            xywh=self.xywh[rows],
            labels=self.labels[rows],
            flags=self.flags[rows],
            areas=self.areas[rows],
            annotation_ids=self.annotation_ids[rows],
            texts=texts,
            text_ends=text_ends,
        )

    def _texts_of(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the segmentations of the boxes ``rows`` and their ends; None if these boxes have none."""
        if self.text_ends is None:
            return self.texts, None
        text_bytes, text_ends = _gather(self.text_ends, rows)
        texts = self.texts[text_bytes]
        return texts, text_ends if len(texts) else None

    def select_boxes(self, keep: np.ndarray) -> DetectionIndex:
        """Return an index of all images with the boxes where ``keep``, bool ``[M]``, is true."""
        rows = np.flatnonzero(keep)
        texts, text_ends = self._texts_of(rows)
        return replace(
            self,
            box_ends=np.concatenate([[0], np.cumsum(keep)])[self.box_ends].astype(np.int64),
            xywh=self.xywh[rows],
            labels=self.labels[rows],
            flags=self.flags[rows],
            areas=self.areas[rows],
            annotation_ids=self.annotation_ids[rows],
            texts=texts,
            text_ends=text_ends,
        )

    def fingerprint(self) -> str:
        """SHA-256, in hex, of image names, sizes, boxes, labels, flags, segmentations and classes.

        It does not depend on the folder of the data set or on ids. The images are not read.
        """
        digest = hashlib.sha256(json.dumps([self.classes.names, self.classes.ids]).encode())
        flags = self.flags & (CROWD | DIFFICULT)  # the others have no effect on training
        parts = (self.paths, self.path_ends, self.sizes, self.box_ends, self.xywh, self.labels, flags, self.texts)
        for part in parts:
            digest.update(np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()

    def to_coco(self) -> dict[str, Any]:
        """Return the COCO ground truth as a dictionary, with boxes and areas exactly as in the file.

        Ids are those of the file, except if an annotation id is 0, negative or repeated, which the COCO evaluation
        treats as "no match" or confuses. Then all annotations are numbered from 1. Difficult boxes have
        ``"difficult": 1``, which COCO tools ignore.
        """
        ids = self.annotation_ids
        if len(ids) and (ids.min() < 1 or len(np.unique(ids)) < len(ids)):
            ids = np.arange(1, len(ids) + 1)
        images = [
            {"id": int(self.image_ids[i]), "file_name": self.relative_path(i), "width": width, "height": height}
            for i, (height, width) in enumerate(self.sizes.tolist())
        ]
        owners = np.repeat(self.image_ids, np.diff(self.box_ends))
        annotations: list[dict[str, Any]] = []
        for i, (box, label, flags, area) in enumerate(
            zip(self.xywh.tolist(), self.labels.tolist(), self.flags.tolist(), self.areas.tolist(), strict=True)
        ):
            row: dict[str, Any] = {
                "id": int(ids[i]),
                "image_id": int(owners[i]),
                "category_id": self.classes.ids[label],
                "bbox": box,
                "area": area,
                "iscrowd": flags & CROWD,
            }
            if flags & DIFFICULT:
                row["difficult"] = 1
            if (segmentation := self._segmentation(i)) is not None:
                row["segmentation"] = segmentation
            annotations.append(row)
        categories = [{"id": k, "name": n} for n, k in zip(self.classes.names, self.classes.ids, strict=True)]
        return {"images": images, "annotations": annotations, "categories": categories}

    def _row(self, i: int) -> int:
        """Return a valid position; a negative one counts from the end."""
        if not -len(self) <= i < len(self):
            raise IndexError(f"image {i} of an index of {len(self)} images")
        return i % len(self)

    def _rows(self, i: int) -> slice:
        i = self._row(i)
        return slice(int(self.box_ends[i]), int(self.box_ends[i + 1]))

    def _segmentation(self, row: int) -> Segmentation | None:
        if self.text_ends is None or self.text_ends[row] == self.text_ends[row + 1]:
            return None
        return json.loads(self.texts[self.text_ends[row] : self.text_ends[row + 1]].tobytes())

    def _segmentations(self, rows: slice) -> list[Segmentation | None] | None:
        if self.text_ends is None:
            return None
        return [self._segmentation(row) for row in range(rows.start, rows.stop)]


def _gather(ends: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions of the chosen items' content in a packed column, and the ends after repacking."""
    starts, lengths = ends[chosen], ends[chosen + 1] - ends[chosen]
    new_ends = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return np.repeat(starts - new_ends[:-1], lengths) + np.arange(new_ends[-1]), new_ends
