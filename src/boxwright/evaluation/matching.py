"""IoU of boxes, and matching of detections with objects, in numpy and float64.

Symbols: D detections of one image, best first; G objects of that image. Boxes are ``x1 y1 x2 y2``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from boxwright.data.index import DetectionIndex


class Objects(NamedTuple):
    """Ground truth of one image: ``boxes`` float64 ``[G, 4]``, ``labels`` int64 ``[G]``, ``ignored`` bool ``[G]``."""

    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    ignored: NDArray[np.bool_]
    crowd: NDArray[np.bool_]


def ground_truth(index: DetectionIndex) -> list[Objects]:
    """Return the objects of every image. Crowds and difficult objects are ignored: neither found nor missed."""
    out = []
    for i in range(len(index)):
        row = index.annotations(i)
        boxes = np.asarray(row.boxes, dtype=np.float64).reshape(-1, 4)
        crowd, difficult = np.asarray(row.crowd, dtype=bool), np.asarray(row.difficult, dtype=bool)
        out.append(Objects(boxes, np.asarray(row.labels, dtype=np.int64), crowd | difficult, crowd))
    return out


def image_sizes(index: DetectionIndex) -> dict[int, tuple[int, int]]:
    """Return height and width by image id, in the order of the index."""
    return {int(index.image_id(i)): index.size(i) for i in range(len(index))}


def box_overlaps(
    found: NDArray[np.float64],
    truth: NDArray[np.float64],
    crowd: NDArray[np.bool_] | None = None,
    extra_pixel: float = 0.0,
) -> NDArray[np.float64]:
    """Return the IoU ``[D, G]``; for a crowd the intersection over the detection's area. 0 where a box has no area.

    ``extra_pixel`` is added to every width and height: 1 for corners that are both inside the box, as VOC has them.
    """
    top_left = np.maximum(found[:, None, :2], truth[None, :, :2])
    bottom_right = np.minimum(found[:, None, 2:], truth[None, :, 2:])
    shared = np.maximum(bottom_right - top_left + extra_pixel, 0).prod(axis=2)
    own = (found[:, 2:] - found[:, :2] + extra_pixel).prod(axis=1)[:, None]
    other = (truth[:, 2:] - truth[:, :2] + extra_pixel).prod(axis=1)[None]
    union = own + other - shared
    if crowd is not None:
        union = np.where(crowd[None], own, union)
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def match_greedily(
    overlaps: NDArray[np.float64], threshold: float, ignored: NDArray[np.bool_], crowd: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Match detections with objects as COCO does; -1 for detections without an object.

    Each detection, best first, matches the free object with the largest IoU. An ignored object is matched only if no
    other reaches the threshold. A crowd region can match any number of detections. Of objects with equal IoU the later
    one is matched.
    """
    match = np.full(len(overlaps), -1, dtype=np.int64)
    if not overlaps.size:
        return match
    free = np.ones(overlaps.shape[1], dtype=bool)
    threshold = min(threshold, 1 - 1e-10)
    for row in np.flatnonzero(overlaps.max(axis=1) >= threshold):
        for candidates in (free & ~ignored, free & ignored):
            values = np.where(candidates, overlaps[row], -1.0)
            best = len(values) - 1 - int(values[::-1].argmax())
            if values[best] >= threshold:
                match[row] = best
                free[best] = crowd[best]
                break
    return match
