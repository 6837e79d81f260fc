"""Detections of a data set as columns, checked per image as they arrive and joined once at the end.

Symbols: D detections of one image, M detections of the data set. Boxes that come in are ``x1 y1 x2 y2`` in pixels of
the original image. The columns hold ``x y w h`` float64, as in COCO's files: converting to corners and back can change
the last bit, and an IoU exactly at a threshold would then fall on the other side.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boxwright.structures import InputError

Rle = dict[str, Any]
"""A run-length mask as pycocotools writes it: ``{"size": [height, width], "counts": bytes, str or list of int}``."""


@dataclass(frozen=True, slots=True, eq=False)
class DetectionColumns:
    """All detections of a data set, in the order in which they were added.

    ``image_ids`` int64 ``[M]``; ``boxes`` float64 ``[M, 4]`` as ``x y w h``; ``scores`` float64 ``[M]``;
    ``labels`` int64 ``[M]`` in 0..K-1; ``masks`` a list of M run-length masks, or None for boxes alone.
    """

    image_ids: NDArray[np.int64]
    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    labels: NDArray[np.int64]
    masks: list[Rle] | None = None

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def corners(self) -> NDArray[np.float64]:
        """Return the boxes as ``x1 y1 x2 y2`` ``[M, 4]``."""
        return np.concatenate([self.boxes[:, :2], self.boxes[:, :2] + self.boxes[:, 2:]], axis=1)

    def rows_by_image(self, image_ids: Sequence[int]) -> Iterator[NDArray[np.int64]]:
        """Return, for each image id, the rows of its detections in the order in which they were added."""
        order = np.argsort(self.image_ids, kind="stable")
        arranged = self.image_ids[order]
        wanted = np.asarray(image_ids, dtype=np.int64)
        starts, stops = np.searchsorted(arranged, wanted), np.searchsorted(arranged, wanted, side="right")
        for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
            yield order[start:stop]


class DetectionLog:
    """Collect detections image by image, and refuse invalid ones."""

    def __init__(self, image_sizes: Mapping[int, tuple[int, int]], num_classes: int, with_masks: bool = False) -> None:
        """Accept detections of the images in ``image_sizes`` (image id to height and width) only."""
        self.image_sizes = dict(image_sizes)
        self.num_classes = num_classes
        self.with_masks = with_masks
        self._seen: set[int] = set()
        self._parts: list[DetectionColumns] = []

    def add(self, image_id: int, boxes: Any, scores: Any, labels: Any, masks: Sequence[Rle] | None = None) -> None:
        """Add the detections of one image: ``boxes`` ``[D, 4]`` as corners, ``scores`` ``[D]``, ``labels`` ``[D]``.

        Accepts tensors of any device and type, arrays and lists. Raises InputError for an image that is not in the data
        set or was added before, unequal lengths, a value that is not finite, a label out of range, a box whose corners
        are swapped, and masks that are missing or differ in size from the image.
        """
        image_id = int(image_id)
        place = f"detections of image id {image_id}"
        corners = as_array(boxes, np.float64).reshape(-1, 4)
        sides = corners[:, 2:] - corners[:, :2]
        swapped = np.flatnonzero((sides < 0).any(axis=1))
        if len(swapped):
            raise InputError(
                f"{place}: box {swapped[0]} is {corners[swapped[0]].tolist()}, with a negative width or height; "
                "give corners x1 y1 x2 y2, the smaller first"
            )
        part = DetectionColumns(
            np.full(len(corners), image_id, dtype=np.int64),
            np.concatenate([corners[:, :2], sides], axis=1),
            as_array(scores, np.float64).reshape(-1),
            as_array(labels, np.int64).reshape(-1),
            list(masks) if masks is not None and self.with_masks else None,
        )
        self._check(part, place)
        self._mark([image_id])
        self._parts.append(part)

    def extend(self, columns: DetectionColumns, image_ids: Sequence[int] | None = None) -> None:
        """Add the columns of another log, such as that of another process or a results file.

        ``image_ids`` are the images that the columns cover, including those without detections; None means those
        that occur in them. Raises as `add`.
        """
        self._check(columns, "detections")
        self._mark(np.unique(columns.image_ids).tolist() if image_ids is None else list(image_ids))
        self._parts.append(columns if self.with_masks else replace(columns, masks=None))

    @property
    def seen(self) -> list[int]:
        """Return the ids of the images added so far, in ascending order."""
        return sorted(self._seen)

    def columns(self) -> DetectionColumns:
        """Return all detections joined."""
        parts = self._parts
        if not parts:
            empty = np.zeros(0, dtype=np.int64)
            return DetectionColumns(empty, np.zeros((0, 4)), np.zeros(0), empty, [] if self.with_masks else None)
        joined = DetectionColumns(
            np.concatenate([part.image_ids for part in parts]),
            np.concatenate([part.boxes for part in parts]),
            np.concatenate([part.scores for part in parts]),
            np.concatenate([part.labels for part in parts]),
            [mask for part in parts for mask in part.masks or ()] if self.with_masks else None,
        )
        self._parts = [joined]
        return self._parts[0]

    def _mark(self, image_ids: Sequence[int]) -> None:
        for image_id in image_ids:
            if image_id not in self.image_sizes:
                raise InputError(
                    f"detections of image id {image_id}: the evaluated data set has no such image; "
                    "give the detections of the same split"
                )
            if image_id in self._seen:
                raise InputError(
                    f"detections of image id {image_id} were added twice; add each image once, with all its detections"
                )
            self._seen.add(image_id)

    def _check(self, part: DetectionColumns, place: str) -> None:
        lengths = {"boxes": len(part.boxes), "scores": len(part.scores), "labels": len(part.labels)}
        if self.with_masks:
            lengths["masks"] = 0 if part.masks is None else len(part.masks)
        if len(set(lengths.values())) > 1:
            counts = ", ".join(f"{count} {name}" for name, count in lengths.items())
            raise InputError(f"{place}: {counts}; give one of each for every detection")
        if not (np.isfinite(part.boxes).all() and np.isfinite(part.scores).all()):
            raise InputError(f"{place}: a box or a score is not finite; the model has probably diverged")
        wrong = np.flatnonzero((part.labels < 0) | (part.labels >= self.num_classes))
        if len(wrong):
            raise InputError(
                f"{place}: label {part.labels[wrong[0]]} is outside 0..{self.num_classes - 1}; "
                "the model was trained on other classes than those of the data set"
            )
        for row, mask in enumerate(part.masks or () if self.with_masks else ()):
            image_id = int(part.image_ids[row])
            if not (isinstance(mask, dict) and {"size", "counts"} <= mask.keys()):
                raise InputError(
                    f"detections of image id {image_id}: a mask is {type(mask).__name__}; give run-length masks, "
                    "dicts of size and counts"
                )
            size = self.image_sizes.get(image_id)
            if size is not None and tuple(mask["size"]) != tuple(size):
                raise InputError(
                    f"detections of image id {image_id}: a mask of size {list(mask['size'])} for an image of "
                    f"{list(size)} (height, width); give masks in pixels of the original image"
                )


def as_array(values: Any, dtype: type[np.float64] | type[np.int64]) -> NDArray[Any]:
    """Convert a tensor of any device (also bfloat16, which numpy lacks), an array or a list to an array."""
    if hasattr(values, "detach"):  # recognises a tensor without importing torch
        values = values.detach().cpu()
        values = (values.double() if values.is_floating_point() else values).numpy()
    return np.asarray(values, dtype=dtype)
