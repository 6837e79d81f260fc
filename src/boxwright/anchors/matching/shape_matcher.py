"""Assignment of ground truth to predictors: the anchor of the best width and height in the cell of the centre.

YOLOv3 (arXiv 1804.02767 §2.1) assigns one anchor of all scales to each object. The rule for several objects on one
predictor is that of Darknet's code. YOLOv4 (arXiv 2004.10934, ``iou_thresh``) also takes other anchors that fit.

Symbols: B images, G padded ground truth, E predictors of a cell over all levels, R = E * G rows, N predictors of an
image in order level, y, x, anchor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from boxwright.fields import Count, CountOrZero, Positive, Share, config
from boxwright.geometry.constants import constant
from boxwright.structures import InputError


class Pairs(NamedTuple):
    """Pairs of a predictor and its ground truth; a predictor has at most one row.

    ``predictor`` int64 ``[B, R]`` into N; ``truth`` int64 ``[B, R]`` into G; ``labels`` float32 ``[B, R, K]``, 1 for
    each target class; ``valid`` bool ``[B, R]``: rows that are pairs.
    """

    predictor: Tensor
    truth: Tensor
    labels: Tensor
    valid: Tensor


@config
class ShapeMatcher:
    """Match by the IoU of widths and heights alone, as if both boxes had the same centre.

    If several objects match one predictor, it has the box of the last, as in a loop that overwrites, and the classes of
    all.
    """

    anchors: Annotated[tuple[tuple[Positive, Positive], ...], Field(min_length=1)]
    """(width, height) in pixels."""
    masks: tuple[Annotated[tuple[CountOrZero, ...], Field(min_length=1)], ...]
    """Indexes of the anchors in the cells of each level. An anchor on several levels is assigned on each of them. An
    object whose best anchor is on no level is not assigned (YOLOv3-tiny)."""
    strides: tuple[Count, ...]
    """Pixels between the cells of each level."""
    also_above: Share | None = None
    """IoU above which further anchors are assigned to an object. None: its best one only."""

    def __post_init__(self) -> None:
        if len(self.masks) != len(self.strides):
            raise InputError(f"masks = {self.masks}: give anchor indexes for each of the {len(self.strides)} levels")
        if any(index >= len(self.anchors) for mask in self.masks for index in mask):
            raise InputError(f"masks = {self.masks}: name anchors outside 0..{len(self.anchors) - 1}")

    def __call__(
        self, shapes: Sequence[tuple[int, int]], boxes: Tensor, labels: Tensor, usable: Tensor, num_classes: int
    ) -> Pairs:
        """Match ``boxes`` ``[B, G, 4]`` with ``labels`` ``[B, G]`` where ``usable``, on maps of ``shapes`` (h, w)."""
        count = boxes.shape[1]
        chosen = self._chosen(boxes) & usable.unsqueeze(1)  # [B, E, G]
        predictor = self._predictors(shapes, boxes)  # [B, E, G]
        # Entries differ in their predictors, so that only objects of one entry can share one.
        meet = (predictor.unsqueeze(-1) == predictor.unsqueeze(-2)) & chosen.unsqueeze(-2)  # [B, E, G, G]
        later = torch.ones((count, count), dtype=torch.bool, device=boxes.device).triu(1)
        valid = chosen & ~(meet & later).any(-1)
        classes = (labels.unsqueeze(-1) == torch.arange(num_classes, device=boxes.device)).float()  # [B, G, K]
        union = (meet.float() @ classes.unsqueeze(1)).clamp(max=1)  # [B, E, G, K]
        truth = torch.arange(count, device=boxes.device).expand(predictor.shape)
        return Pairs(predictor.flatten(1), truth.flatten(1), union.flatten(1, 2), valid.flatten(1))

    def shape_iou(self, boxes: Tensor) -> Tensor:
        """Compute the IoU of the shapes of ``boxes`` ``[B, G, 4]`` with every anchor, ``[B, G, anchors]``."""
        size = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).unsqueeze(-2)  # [B, G, 1, 2]
        anchors = constant(self.anchors, boxes.device)  # [anchors, 2]
        shared = torch.minimum(size, anchors).prod(-1)
        return shared / (size.prod(-1) + anchors.prod(-1) - shared)

    def _chosen(self, boxes: Tensor) -> Tensor:
        """Return True where the anchor of an entry is assigned to an object, bool ``[B, E, G]``."""
        iou = self.shape_iou(boxes)
        entries = constant([index for mask in self.masks for index in mask], boxes.device, torch.int64)
        chosen = iou.argmax(-1).unsqueeze(1) == entries[:, None]
        if self.also_above is not None:
            chosen = chosen | (iou[..., entries] > self.also_above).transpose(1, 2)
        return chosen

    def _predictors(self, shapes: Sequence[tuple[int, int]], boxes: Tensor) -> Tensor:
        """Return the index into N of each entry's predictor in the cell of each object's centre, ``[B, E, G]``."""
        rows = []  # of each entry: stride, height and width of its map, predictors of a cell, index of its first
        start = 0
        for stride, mask, (height, width) in zip(self.strides, self.masks, shapes, strict=True):
            rows += [[stride, height, width, len(mask), start + slot] for slot in range(len(mask))]
            start += height * width * len(mask)
        stride, height, width, per_cell, first = constant(rows, boxes.device, torch.int64).unsqueeze(-1).unbind(1)
        centre = (boxes[..., :2] + boxes[..., 2:]).unsqueeze(1) / 2  # [B, 1, G, 2]
        column = (centre[..., 0] / stride).floor().long().clamp(min=0).minimum(width - 1)
        row = (centre[..., 1] / stride).floor().long().clamp(min=0).minimum(height - 1)
        return first + (row * width + column) * per_cell
