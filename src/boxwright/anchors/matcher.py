"""Matching of anchors or proposals with ground truth by IoU (Faster R-CNN §3.1.2, Fast R-CNN §2.3).

Symbols: B images, G padded ground truth, N candidates (anchors or proposals).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from boxwright.geometry.boxes import box_iou
from boxwright.geometry.indexing import take_entries, take_rows
from boxwright.structures import InputError, Targets


class Matches(NamedTuple):
    """``truth`` int64 ``[B, N]`` into G (0 where there is nothing); ``positive`` and ``negative`` bool ``[B, N]``.

    A candidate that is neither is ignored.
    """

    truth: Tensor
    positive: Tensor
    negative: Tensor

    def labels(self, targets: Targets) -> Tensor:
        """Gather the label of each candidate's ground truth, int64 ``[B, N]``; 0 if there is no ground truth."""
        return take_entries(targets.labels, self.truth)

    def boxes(self, targets: Targets) -> Tensor:
        """Gather the box of each candidate's ground truth, ``[B, N, 4]``; zeros if there is no ground truth."""
        return take_rows(targets.boxes, self.truth)


@dataclass(frozen=True, slots=True, kw_only=True)
class Matcher:
    """Match by IoU.

    ``positive``: a candidate with IoU at or above it is positive. ``negative``: below it, and at or above
    ``negative_floor``, it is negative; what lies between is ignored.
    ``low_quality``: the best candidates of every ground truth, ties included, are positive whatever their IoU. Their
    target stays their own best ground truth (Caffe, torchvision and detectron2 alike). A ground truth that touches no
    candidate has no best one; py-faster-rcnn would then take every candidate, torchvision and detectron2 as well.
    ``low_quality_floor``: the least IoU that such a candidate needs (Detectron's RetinaNet: that of ``negative``, so
    that only what would be ignored is rescued).
    ``crowd_ignore``: candidates covered by a crowd region by more than this share of their area are not negatives
    (Detectron: 0.7); None treats crowd regions as background.
    ``offset``: 1 for inclusive boxes.
    """

    positive: float
    negative: float
    negative_floor: float = 0.0
    low_quality: bool = False
    low_quality_floor: float = 0.0
    crowd_ignore: float | None = 0.7
    offset: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.negative_floor <= self.negative <= self.positive <= 1:
            raise InputError(
                f"IoU thresholds floor {self.negative_floor}, negative {self.negative}, positive {self.positive}: "
                "they must rise in this order within 0..1"
            )

    def __call__(
        self, candidates: Tensor, boxes: Tensor, usable: Tensor, crowd: Tensor, allowed: Tensor | None = None
    ) -> Matches:
        """Match ``candidates`` ``[N, 4]`` or ``[B, N, 4]`` to ``boxes`` ``[B, G, 4]``.

        ``usable`` and ``crowd`` bool ``[B, G]``: rows that can be matched, and rows that only shade negatives.
        ``allowed`` bool ``[B, N]``: candidates that take part; the others are ignored.
        """
        if boxes.shape[1] == 0:
            truth, none, all_of_them = nothing_to_match(candidates, boxes, allowed)
            return Matches(truth, none, all_of_them if self.negative_floor == 0 else none)
        iou, shaded = overlaps(candidates, boxes, usable, crowd, allowed, self.crowd_ignore, self.offset)  # [B, G, N]
        best, index = iou.max(dim=1)  # [B, N]
        positive = best >= self.positive
        negative = (best < self.negative) & (best.clamp(min=0) >= self.negative_floor)
        if self.low_quality:
            peak = iou.amax(dim=2, keepdim=True)  # [B, G, 1]
            rescued = ((iou == peak) & (peak > 0)).any(dim=1) & (best >= self.low_quality_floor)
            positive = positive | rescued
        if shaded is not None:
            negative = negative & ~shaded
        if allowed is not None:
            negative = negative & allowed
        return Matches(index, positive, negative & ~positive)


def nothing_to_match(candidates: Tensor, boxes: Tensor, allowed: Tensor | None) -> Matches:
    """Return matches for targets without rows: all candidates that take part are negative."""
    index = torch.zeros((boxes.shape[0], candidates.shape[-2]), dtype=torch.int64, device=boxes.device)
    positive = torch.zeros_like(index, dtype=torch.bool)
    return Matches(index, positive, torch.ones_like(positive) if allowed is None else allowed)


def overlaps(
    candidates: Tensor,
    boxes: Tensor,
    usable: Tensor,
    crowd: Tensor,
    allowed: Tensor | None,
    crowd_share: float | None,
    offset: float = 0.0,
) -> tuple[Tensor, Tensor | None]:
    """IoU of every ground truth with every candidate, ``[B, G, N]`` for G above 0, -1 where one takes no part; and the
    candidates of which a crowd region covers more than ``crowd_share``, bool ``[B, N]``, None if that is None.

    Ground truth outside, candidates inside: the long axis stays contiguous.
    """
    if candidates.dim() == 2:
        candidates = candidates.unsqueeze(0)
    region = crowd.unsqueeze(-1)
    iou = box_iou(boxes, candidates, offset, over_b=None if crowd_share is None else region)
    shaded = None if crowd_share is None else ((iou > crowd_share) & region).any(dim=1)
    barred = ~usable.unsqueeze(-1) if allowed is None else ~(usable.unsqueeze(-1) & allowed.unsqueeze(1))
    return iou.masked_fill_(barred, -1.0), shaded
