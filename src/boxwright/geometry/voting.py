"""Box voting: detections of one image from several passes (scales, flips) merged into one set.

Gidaris and Komodakis: Object detection via a multi-region & semantic segmentation-aware CNN, arXiv 1505.01749, §5.2,
in the form that RefineDet's multi-scale testing has. It runs on the host, after the detector.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from boxwright.structures import InputError


def box_voting(
    boxes: Tensor | np.ndarray,
    scores: Tensor | np.ndarray,
    labels: Tensor | np.ndarray,
    iou: float = 0.45,
    *,
    soft: bool = False,
    floor: float = 0.01,
    offset: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Merge ``boxes`` ``[N, 4]`` with ``scores`` ``[N]`` above 0 and ``labels`` ``[N]``, class by class.

    The best box and all that overlap it by at least ``iou`` become one: the mean of their corners weighted by score,
    with the best score; then the next best that is left. ``soft`` also keeps the members of a group, with their scores
    times 1 - IoU with the best box, if that reaches ``floor``. ``offset`` 1 counts the last pixel as part of a box.

    Returns boxes, scores and labels by falling score, on the CPU.
    """
    if not 0 < iou <= 1:
        raise InputError(f"voting at IoU {iou}: must be above 0 and at most 1")
    corner, score, label = (torch.as_tensor(part).detach().cpu().numpy() for part in (boxes, scores, labels))
    corner, score = corner.astype(np.float64).reshape(-1, 4), score.astype(np.float64)
    merged: list[tuple[np.ndarray, np.ndarray, int]] = []
    for number in np.unique(label):
        mine = label == number
        merged += [(b, s, number) for b, s in _vote(corner[mine], score[mine], iou, soft, floor, offset)]
    if not merged:
        return torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64)
    found = np.concatenate([b for b, _, _ in merged])
    rank = np.concatenate([s for _, s, _ in merged])
    kind = np.concatenate([np.full(len(s), n, dtype=np.int64) for _, s, n in merged])
    order = np.argsort(-rank, kind="stable")
    return (
        torch.from_numpy(found[order].astype(np.float32)),
        torch.from_numpy(rank[order].astype(np.float32)),
        torch.from_numpy(kind[order]),
    )


def _vote(
    boxes: np.ndarray, scores: np.ndarray, iou: float, soft: bool, floor: float, offset: float
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Groups of one class: the merged box first, then with ``soft`` the members that stay."""
    order = np.argsort(-scores, kind="stable")
    boxes, scores = boxes[order], scores[order]
    area = (boxes[:, 2:] - boxes[:, :2] + offset).clip(0).prod(1)
    groups: list[tuple[np.ndarray, np.ndarray]] = []
    while len(boxes):
        low, high = np.maximum(boxes[:, :2], boxes[0, :2]), np.minimum(boxes[:, 2:], boxes[0, 2:])
        shared = (high - low + offset).clip(0).prod(1)
        overlap = shared / np.maximum(area + area[0] - shared, 1e-12)
        overlap[0] = 1.0  # itself, also where it has no area
        group = overlap >= iou
        weight = scores[group]
        merged = (boxes[group] * weight[:, None]).sum(0, keepdims=True) / weight.sum()
        rest = np.flatnonzero(group & (scores * (1 - overlap) >= floor)) if soft else np.empty(0, dtype=np.int64)
        groups.append(
            (
                np.concatenate([merged, boxes[rest]]),
                np.concatenate([scores[:1], scores[rest] * (1 - overlap[rest])]),
            )
        )
        boxes, scores, area = boxes[~group], scores[~group], area[~group]
    return groups
