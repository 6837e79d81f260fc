"""Anchor shapes from the boxes of a data set by k-means with an IoU distance (YOLOv2 §2, "Dimension Clusters").

Symbols: N boxes, k clusters.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from torch import Tensor

from boxwright.structures import InputError

_ROUNDS = 1000  # k-means on real boxes converges within 100 to 200
_SAMPLE = 20_000  # boxes for comparing the starts; only the best start runs on all boxes (860,000 in COCO)


class KMeansAnchors(NamedTuple):
    """Clusters of box shapes.

    ``shapes``: width and height in ascending order of area, float64 ``[k, 2]``. ``mean_iou``: mean over the boxes of
    the IoU with the best shape at the same centre, 0..1. ``counts``: number of boxes of each shape, int64 ``[k]``.
    """

    shapes: np.ndarray
    mean_iou: float
    counts: np.ndarray


def kmeans_anchors(
    sizes: np.ndarray | Tensor,
    k: int,
    seed: int = 0,
    restarts: int = 10,
    distance: Literal["iou", "euclid"] = "iou",
    update: Literal["mean", "median"] = "mean",
) -> KMeansAnchors:
    """Find ``k`` anchors for boxes of ``sizes`` ``[N, 2]`` (width, height in any unit), the best of ``restarts`` runs.

    ``distance``: 1 - IoU of boxes with a common corner, or the Euclidean one of width and height. ``update``: a
    cluster's shape is the mean or the median of its boxes. Initial shapes are drawn far apart (k-means++). An empty
    cluster restarts at the box with the worst fit. The same seed gives the same anchors.

    Raises InputError if there are fewer different sizes than ``k``, or if a size is not a positive number.
    """
    boxes = np.ascontiguousarray(np.asarray(sizes, dtype=np.float64).reshape(-1, 2))
    bad = ~(np.isfinite(boxes).all(1) & (boxes > 0).all(1))
    if bad.any():
        row = int(bad.argmax())
        raise InputError(f"box {row} has the size {boxes[row].tolist()}; k-means needs widths and heights above 0")
    different = _different(boxes)
    if different == 0:
        raise InputError(f"{k} anchors from no boxes: give a data set with annotated objects")
    if not 1 <= k <= different:
        raise InputError(
            f"{k} anchors from {len(boxes)} boxes of {different} different sizes: ask for 1 to {different}"
        )
    if restarts < 1:
        raise InputError(f"restarts = {restarts}: at least 1")
    generator = np.random.default_rng(seed)
    tried = boxes
    if len(boxes) > _SAMPLE:
        tried = boxes[generator.choice(len(boxes), _SAMPLE, replace=False)]
        tried = tried if _different(tried) >= k else boxes
    starts = (_first_shapes(tried, k, generator, distance) for _ in range(restarts))
    best = max((_settle(tried, start, distance, update) for start in starts), key=lambda run: run.mean_iou)
    return best if tried is boxes else _settle(boxes, best.shapes, distance, update)


def shape_iou(boxes: np.ndarray, shapes: np.ndarray) -> np.ndarray:
    """Compute the IoU of boxes with a common corner, ``[N, 2], [k, 2] -> [N, k]``."""
    shared = np.minimum(boxes[:, :1], shapes[:, 0]) * np.minimum(boxes[:, 1:], shapes[:, 1])
    return shared / (boxes.prod(1)[:, None] + shapes.prod(1) - shared)


def _distances(boxes: np.ndarray, shapes: np.ndarray, distance: str) -> np.ndarray:
    if distance == "iou":
        return 1 - shape_iou(boxes, shapes)
    return np.square(boxes[:, :1] - shapes[:, 0]) + np.square(boxes[:, 1:] - shapes[:, 1])


def _different(boxes: np.ndarray) -> int:
    """Count the different sizes."""
    return len(np.unique(np.ascontiguousarray(boxes).view(np.complex128)))  # sorts pairs faster than rows


def _settle(boxes: np.ndarray, shapes: np.ndarray, distance: str, update: str) -> KMeansAnchors:
    """Run k-means from the given shapes until no box changes its cluster."""
    middle = np.mean if update == "mean" else np.median
    owner = np.full(len(boxes), -1)
    for _ in range(_ROUNDS):
        away = _distances(boxes, shapes, distance)
        before, owner = owner, away.argmin(1)
        _fill_empty(away, owner, len(shapes))
        if (owner == before).all():
            break
        shapes = np.stack([middle(boxes[owner == i], axis=0) for i in range(len(shapes))])
    shapes = shapes[shapes.prod(1).argsort(kind="stable")]
    counts = np.bincount(_distances(boxes, shapes, distance).argmin(1), minlength=len(shapes))
    return KMeansAnchors(shapes, float(shape_iou(boxes, shapes).max(1).mean()), counts)


def _first_shapes(boxes: np.ndarray, k: int, generator: np.random.Generator, distance: str) -> np.ndarray:
    """Draw the initial shapes from the boxes; a box farther from those drawn is more probable (k-means++, 2007)."""
    shapes = boxes[generator.integers(len(boxes))][None]
    nearest = _distances(boxes, shapes, distance)[:, 0]
    while len(shapes) < k:
        weight = nearest if distance == "euclid" else np.square(nearest)  # the former is a square already
        weight = np.where((boxes[:, None] == shapes).all(-1).any(1), 0.0, np.maximum(weight, 1e-12))
        shapes = np.vstack([shapes, boxes[generator.choice(len(boxes), p=weight / weight.sum())]])
        nearest = np.minimum(nearest, _distances(boxes, shapes[-1:], distance)[:, 0])
    return shapes


def _fill_empty(away: np.ndarray, owner: np.ndarray, k: int) -> None:
    """Move to each empty cluster the box farthest from its own shape, unless it is alone there."""
    counts = np.bincount(owner, minlength=k)
    for empty in np.flatnonzero(counts == 0):
        own = np.where(counts[owner] > 1, away[np.arange(len(owner)), owner], -1.0)
        worst = int(own.argmax())
        counts[owner[worst]] -= 1
        owner[worst] = empty
        counts[empty] = 1
