"""Losses on boxes, summed over what a mask selects."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from boxwright.anchors.coder import BoxCoder
from boxwright.geometry.boxes import generalized_iou

BoxLoss = Literal["smooth_l1", "giou"]


def smooth_l1(x: Tensor, beta: float) -> Tensor:
    """Huber's loss over ``beta``: ``x^2 / (2 beta)`` within ``beta``, ``|x| - beta / 2`` outside; L1 for beta 0.

    ``beta = 1 / sigma^2`` of the Caffe code (Fast R-CNN eq. 3 has beta 1).
    """
    size = x.abs()
    if beta == 0:
        return size
    return torch.where(size < beta, 0.5 * size * size / beta, size - 0.5 * beta)


def box_regression_loss(
    deltas: Tensor, reference: Tensor, target: Tensor, mask: Tensor, coder: BoxCoder, kind: BoxLoss, beta: float
) -> Tensor:
    """Summed loss of predicted ``deltas`` ``[..., 4]`` at ``reference`` boxes against ``target`` boxes where ``mask``.

    "smooth_l1" on coded offsets, "giou" as 1 - GIoU of the decoded boxes. Exactly 0, with a gradient of 0, where
    nothing is selected.
    """
    # Rows outside the mask hold arbitrary boxes; swap them for the reference so that no infinity meets the zero below.
    target = torch.where(mask.unsqueeze(-1), target, reference)
    if kind == "giou":
        loss = 1 - generalized_iou(coder.decode(reference, deltas), target)
    else:
        loss = smooth_l1(deltas - coder.encode(reference, target), beta).sum(-1)
    return torch.where(mask, loss, 0.0).sum()
