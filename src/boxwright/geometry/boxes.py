"""Boxes as tensors: areas, overlaps, clipping, other formats.

Boxes are ``[..., 4]`` as ``x1 y1 x2 y2`` in pixels, ``x2 y2`` exclusive. Old Caffe code counts the last pixel as part
of the box; ``offset=1`` gives its widths, ``x2 - x1 + 1``, wherever a published checkpoint needs them.

The overlaps of boxes in pairs are meant to be trained through. They stay finite, and so do their gradients, where a
box is a line, a point, or inside out.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

_EMPTY = 1e-7  # an area, or a squared length, in square pixels below which nothing is divided by it


def box_area(boxes: Tensor, offset: float = 0.0) -> Tensor:
    """Area in square pixels, ``[..., 4] -> [...]``; never negative."""
    return (boxes[..., 2] - boxes[..., 0] + offset).clamp(min=0) * (boxes[..., 3] - boxes[..., 1] + offset).clamp(min=0)


def have_area(boxes: Tensor) -> Tensor:
    """True for each box ``[..., 4]`` with a width and height above 0, bool ``[...]``."""
    return (boxes[..., 2:] > boxes[..., :2]).all(-1)


def box_iou(a: Tensor, b: Tensor, offset: float = 0.0, over_b: Tensor | None = None) -> Tensor:
    """Intersection over union of every pair, ``[..., N, 4], [..., M, 4] -> [..., N, M]`` in 0..1; 0 for empty boxes.

    ``over_b`` bool, broadcast to the result: where true, intersection over the area of ``b`` instead, which is how far
    a crowd region ``a`` covers ``b``. The fast direction has the longer list as ``b``.
    """
    lead = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    rows, columns = _sides(a, offset), _sides(b, offset)
    whole_graph = torch.compiler.is_compiling() or a.device.type != "cpu"
    if whole_graph or a.requires_grad or b.requires_grad or math.prod(lead) * a.shape[-2] * b.shape[-2] < _PIECE:
        return _table([r.unsqueeze(-1) for r in rows], [c.unsqueeze(-2) for c in columns], offset, over_b)

    # The dozen steps below each pass over a table of pairs: 25 MB for 8 x 32 objects and SSD512's boxes. In pieces of
    # 1 MB they find it in the cache, four times as fast, and nothing but the result is ever that large.
    found = a.new_empty((*lead, a.shape[-2], b.shape[-2]))
    if over_b is not None:
        over_b = over_b.expand_as(found)
    count = max(1, _PIECE // b.shape[-2])
    for image in itertools.product(*map(range, lead)):
        mine = [r.expand(*lead, -1)[image].unsqueeze(-1) for r in rows]
        theirs = [c.expand(*lead, -1)[image] for c in columns]
        for start in range(0, a.shape[-2], count):
            part = (*image, slice(start, start + count))
            piece = [r[start : start + count] for r in mine]
            _table(piece, theirs, offset, None if over_b is None else over_b[part], out=found[part])
    return found


_PIECE = 2**18  # pairs


def _sides(boxes: Tensor, offset: float) -> list[Tensor]:
    """x1, y1, x2, y2 and area, each ``[...]`` and contiguous, because strided access to every fourth value is slow."""
    return [*(side.contiguous() for side in boxes.unbind(-1)), box_area(boxes, offset)]


def _table(a: list[Tensor], b: list[Tensor], offset: float, over_b: Tensor | None, out: Tensor | None = None) -> Tensor:
    """IoU from the sides of boxes that broadcast to the result."""
    width = torch.minimum(a[2], b[2]).sub_(torch.maximum(a[0], b[0]))
    height = torch.minimum(a[3], b[3]).sub_(torch.maximum(a[1], b[1]))
    if offset:
        width, height = width.add_(offset), height.add_(offset)
    shared = width.clamp_(min=0).mul_(height.clamp_(min=0))
    whole = (a[4] + b[4]).sub_(shared)
    if over_b is not None:
        whole = torch.where(over_b, b[4], whole)
    whole = whole.clamp_(min=torch.finfo(shared.dtype).tiny)
    return shared.div_(whole) if out is None else torch.div(shared, whole, out=out)


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
    """True for ``points`` ``[A, 2]`` strictly inside ``boxes`` ``[..., G, 4]``: bool ``[..., G, A]``."""
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
