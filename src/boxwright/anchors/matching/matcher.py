"""Matching of anchors or proposals with ground truth by IoU (Faster R-CNN §3.1.2, Fast R-CNN §2.3).

Symbols: B images, G padded ground truth, N candidates (anchors or proposals).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from boxwright.fields import Finite, Share, config
from boxwright.geometry.boxes import box_iou
from boxwright.geometry.indexing import take_entries, take_rows
from boxwright.structures import InputError, Targets


class Matches(NamedTuple):
    """Matched ground truth and state of each candidate.

    ``truth``: index into G, int64 ``[B, N]``, 0 where nothing matches. ``positive`` and ``negative``: bool ``[B, N]``.
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


@config
class Matcher:
    """Match candidates with ground truth by IoU thresholds."""

    positive: Share
    """Minimum IoU of a positive candidate."""
    negative: Share
    """IoU below which a candidate is negative. Candidates between this and ``positive`` are ignored."""
    negative_floor: Share = 0.0
    """Minimum IoU of a negative candidate; those below are ignored."""
    low_quality: bool = False
    """Make the best candidates of every ground truth positive, ties included, whatever their IoU.

    Their target is still their own best ground truth, as in Caffe, torchvision and detectron2. A ground truth that
    overlaps no candidate has no best one. py-faster-rcnn, torchvision and detectron2 would take every candidate for it.
    """
    low_quality_floor: Share = 0.0
    """Minimum IoU of a candidate that ``low_quality`` makes positive. At ``negative``, only candidates that would
    be ignored become positive (RetinaNet in Detectron)."""
    crowd_ignore: Share | None = 0.7
    """Share of a candidate's area above which a crowd region makes it ignored instead of negative (Detectron: 0.7).
    None: crowd regions are background."""
    offset: Finite = 0.0
    """1 for boxes with inclusive corners, else 0."""

    def __post_init__(self) -> None:
        if not self.negative_floor <= self.negative <= self.positive:
            raise InputError(
                f"IoU thresholds floor {self.negative_floor}, negative {self.negative}, positive {self.positive}: "
                "they must not fall in this order"
            )

    def __call__(
        self, candidates: Tensor, boxes: Tensor, usable: Tensor, crowd: Tensor, allowed: Tensor | None = None
    ) -> Matches:
        """Match ``candidates`` ``[N, 4]`` or ``[B, N, 4]`` to ``boxes`` ``[B, G, 4]``.

        ``usable`` and ``crowd`` bool ``[B, G]``: objects that can be matched, and crowd regions.
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
    """Compute the IoU of every ground truth with every candidate, ``[B, G, N]``; -1 where either is left out.

    Also returns the candidates that a crowd region covers by more than ``crowd_share`` of their area, bool ``[B, N]``,
    or None if ``crowd_share`` is None. G must be above 0. The longer axis N is last, so that it is contiguous.
    """
    if candidates.dim() == 2:
        candidates = candidates.unsqueeze(0)
    region = crowd.unsqueeze(-1)
    iou = box_iou(boxes, candidates, offset, over_b=None if crowd_share is None else region)
    shaded = None if crowd_share is None else ((iou > crowd_share) & region).any(dim=1)
    barred = ~usable.unsqueeze(-1) if allowed is None else ~(usable.unsqueeze(-1) & allowed.unsqueeze(1))
    return iou.masked_fill_(barred, -1.0), shaded
