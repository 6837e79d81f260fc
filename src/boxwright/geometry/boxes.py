"""Boxes as tensors: areas, overlaps, clipping, other formats.

Boxes are ``[..., 4]`` as ``x1 y1 x2 y2`` in pixels, ``x2 y2`` exclusive. Old Caffe code counts the last pixel as part
of the box; ``offset=1`` gives its widths, ``x2 - x1 + 1``, wherever a published checkpoint needs them.

The overlaps of boxes in pairs are meant to be trained through. They stay finite, and so do their gradients, where a
box is a line, a point, or inside out.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_EMPTY = 1e-7  # an area, or a squared length, in square pixels below which nothing is divided by it


def box_area(boxes: Tensor, offset: float = 0.0) -> Tensor:
    """Area in square pixels, ``[..., 4] -> [...]``; never negative."""
    return (boxes[..., 2] - boxes[..., 0] + offset).clamp(min=0) * (boxes[..., 3] - boxes[..., 1] + offset).clamp(min=0)


def _intersection(a: Tensor, b: Tensor, offset: float) -> Tensor:
    # In place on its own fresh tensors: with every pair of 8 x 32 objects and 25,000 anchors each holds 25 MB.
    width = torch.minimum(a[..., 2], b[..., 2]).sub_(torch.maximum(a[..., 0], b[..., 0]))
    height = torch.minimum(a[..., 3], b[..., 3]).sub_(torch.maximum(a[..., 1], b[..., 1]))
    if offset:
        width, height = width.add_(offset), height.add_(offset)
    return width.clamp_(min=0).mul_(height.clamp_(min=0))


def box_iou(a: Tensor, b: Tensor, offset: float = 0.0, over_b: Tensor | None = None) -> Tensor:
    """Intersection over union of every pair, ``[..., N, 4], [..., M, 4] -> [..., N, M]`` in 0..1; 0 for empty boxes.

    ``over_b`` bool, broadcast to the result: where true, intersection over the area of ``b`` instead, which is how far
    a crowd region ``a`` covers ``b``.
    """
    a, b = a.unsqueeze(-2), b.unsqueeze(-3)
    shared = _intersection(a, b, offset)
    whole = (box_area(a, offset) + box_area(b, offset)).sub_(shared)
    if over_b is not None:
        whole = torch.where(over_b, box_area(b, offset), whole)
    return shared.div_(whole.clamp_(min=torch.finfo(shared.dtype).tiny))


def pair_iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of boxes in pairs, ``[..., 4], [..., 4] -> [...]`` in 0..1; 0 where both are empty."""
    return _overlap(a, b)[0]


def generalized_iou(a: Tensor, b: Tensor) -> Tensor:
    """Generalised IoU of boxes in pairs, ``[..., 4], [..., 4] -> [...]`` in -1..1 (Rezatofighi et al. 2019)."""
    iou, union = _overlap(a, b)
    width, height = _hull(a, b)
    hull = width * height
    return iou - _share(hull - union, hull)


def distance_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU less the squared distance of the centres over the squared diagonal of the smallest box around both.

    ``[..., 4], [..., 4] -> [...]`` in -1..1 (Zheng et al. 2020, eq. 7).
    """
    return _overlap(a, b)[0] - _apartness(a, b)


def complete_iou(a: Tensor, b: Tensor) -> Tensor:
    """Distance IoU less a penalty for another aspect, ``[..., 4], [..., 4] -> [...]`` (Zheng et al. 2020, eq. 10).

    The penalty's weight is a constant for the gradient, as in the paper.
    """
    iou = _overlap(a, b)[0]
    angle = _slope(a) - _slope(b)
    ratio = 4 / math.pi**2 * angle * angle
    with torch.no_grad():
        weight = ratio / (1 - iou + ratio).clamp(min=_EMPTY)
    return iou - _apartness(a, b) - weight * ratio


def _share(part: Tensor, whole: Tensor) -> Tensor:
    """``part / whole``, and ``part``, which is then nearly 0, where there is no whole to speak of."""
    return part / torch.where(whole > _EMPTY, whole, 1.0)


def _overlap(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and union of boxes in pairs."""
    width = torch.minimum(a[..., 2], b[..., 2]) - torch.maximum(a[..., 0], b[..., 0])
    height = torch.minimum(a[..., 3], b[..., 3]) - torch.maximum(a[..., 1], b[..., 1])
    shared = width.clamp(min=0) * height.clamp(min=0)
    union = box_area(a) + box_area(b) - shared
    return _share(shared, union), union


def _hull(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Width and height of the smallest box around both."""
    width = torch.maximum(a[..., 2], b[..., 2]) - torch.minimum(a[..., 0], b[..., 0])
    height = torch.maximum(a[..., 3], b[..., 3]) - torch.minimum(a[..., 1], b[..., 1])
    return width.clamp(min=0), height.clamp(min=0)


def _apartness(a: Tensor, b: Tensor) -> Tensor:
    """Squared distance of the centres over the squared diagonal of the hull, 0..1."""
    width, height = _hull(a, b)
    across = (a[..., 0] + a[..., 2] - b[..., 0] - b[..., 2]) / 2
    down = (a[..., 1] + a[..., 3] - b[..., 1] - b[..., 3]) / 2
    return _share(across * across + down * down, width * width + height * height)


def _slope(boxes: Tensor) -> Tensor:
    """Angle whose tangent is width over height."""
    width = (boxes[..., 2] - boxes[..., 0]).clamp(min=1e-3)  # the angle of a point has no gradient
    height = (boxes[..., 3] - boxes[..., 1]).clamp(min=1e-3)
    return torch.atan2(width, height)


def points_in_boxes(points: Tensor, boxes: Tensor) -> Tensor:
    """Which of ``points`` ``[A, 2]`` lie strictly within each of ``boxes`` ``[..., G, 4]``: bool ``[..., G, A]``."""
    x, y = points.unbind(-1)
    box = boxes.unsqueeze(-2)  # [..., G, 1, 4]
    inside = (x > box[..., 0]).logical_and_(x < box[..., 2])
    return inside.logical_and_(y > box[..., 1]).logical_and_(y < box[..., 3])


def clip_boxes(boxes: Tensor, sizes: Tensor, offset: float = 0.0) -> Tensor:
    """Clip ``[B, N, 4]`` to images of ``sizes`` ``[B, 2]`` (height, width); to ``[0, W - offset]`` in x."""
    limit = (sizes.flip(-1).to(boxes.dtype) - offset).repeat(1, 2).unsqueeze(1)  # [B, 1, 4] as w h w h
    return torch.minimum(boxes.clamp(min=0), limit)


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """Corners to centre and size."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat([(low + high) / 2, high - low], dim=-1)


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """Centre and size to corners."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], dim=-1)
