"""Boxes as tensors: areas, overlaps, clipping, other formats.

Boxes are ``[..., 4]`` as ``x1 y1 x2 y2`` in pixels, ``x2 y2`` exclusive. Old Caffe code counts the last pixel as part
of the box; ``offset=1`` gives its widths, ``x2 - x1 + 1``, wherever a published checkpoint needs them.
"""

from __future__ import annotations

import torch
from torch import Tensor


def box_area(boxes: Tensor, offset: float = 0.0) -> Tensor:
    """Area in square pixels, ``[..., 4] -> [...]``; never negative."""
    return (boxes[..., 2] - boxes[..., 0] + offset).clamp(min=0) * (boxes[..., 3] - boxes[..., 1] + offset).clamp(min=0)


def _intersection(a: Tensor, b: Tensor, offset: float) -> Tensor:
    width = torch.minimum(a[..., 2], b[..., 2]) - torch.maximum(a[..., 0], b[..., 0])
    height = torch.minimum(a[..., 3], b[..., 3]) - torch.maximum(a[..., 1], b[..., 1])
    return (width + offset).clamp(min=0) * (height + offset).clamp(min=0)


def box_iou(a: Tensor, b: Tensor, offset: float = 0.0, over_b: Tensor | None = None) -> Tensor:
    """Intersection over union of every pair, ``[..., N, 4], [..., M, 4] -> [..., N, M]`` in 0..1; 0 for empty boxes.

    ``over_b`` bool, broadcast to the result: where true, intersection over the area of ``b`` instead, which is how far
    a crowd region ``a`` covers ``b``.
    """
    a, b = a.unsqueeze(-2), b.unsqueeze(-3)
    shared = _intersection(a, b, offset)
    whole = box_area(a, offset) + box_area(b, offset) - shared
    if over_b is not None:
        whole = torch.where(over_b, box_area(b, offset), whole)
    return shared / whole.clamp(min=torch.finfo(shared.dtype).tiny)


def generalized_iou(a: Tensor, b: Tensor) -> Tensor:
    """Generalised IoU of boxes in pairs, ``[..., 4], [..., 4] -> [...]`` in -1..1 (Rezatofighi et al. 2019)."""
    tiny = 1e-7
    shared = _intersection(a, b, 0.0)
    union = box_area(a) + box_area(b) - shared
    hull_width = torch.maximum(a[..., 2], b[..., 2]) - torch.minimum(a[..., 0], b[..., 0])
    hull_height = torch.maximum(a[..., 3], b[..., 3]) - torch.minimum(a[..., 1], b[..., 1])
    hull = hull_width * hull_height
    return shared / (union + tiny) - (hull - union) / (hull + tiny)


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
