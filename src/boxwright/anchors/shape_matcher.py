"""Ground truth to predictors by shape: the anchor whose width and height fit best, in the cell of the centre.

YOLOv3 (arXiv 1804.02767 §2.1) gives each object one prior out of all scales; Darknet's code says what happens to
objects that meet in one predictor, and YOLOv4 (arXiv 2004.10934, ``iou_thresh``) lets every fitting prior learn.

Symbols: B images, G padded ground truth, E predictors of a cell over all levels, R = E * G rows, N predictors of an
image in order level, y, x, anchor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from boxwright.geometry.constants import constant
from boxwright.structures import InputError


class Pairs(NamedTuple):
    """Predictors that learn a ground truth, at most one row each.

    ``predictor`` int64 ``[B, R]`` into N; ``truth`` int64 ``[B, R]`` into G; ``labels`` float32 ``[B, R, K]``, 1 for
    each class it stands for; ``valid`` bool ``[B, R]``: the other rows mean nothing.
    """

    predictor: Tensor
    truth: Tensor
    labels: Tensor
    valid: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeMatcher:
    """Match by the IoU of widths and heights alone, as if both boxes shared a centre.

    ``anchors``: (width, height) in pixels. ``masks``: for each level the anchors that its cells hold; an anchor may
    stand on several levels (each then learns) or on none (what fits it best is not learnt: YOLOv3-tiny).
    ``strides``: pixels between the cells of each level. ``also_above``: anchors that fit better than this learn the
    object too; None takes the best one only.

    Where objects meet in one predictor the last has the box, as in a loop that overwrites, and all have their class.
    """

    anchors: tuple[tuple[float, float], ...]
    masks: tuple[tuple[int, ...], ...]
    strides: tuple[int, ...]
    also_above: float | None = None

    def __post_init__(self) -> None:
        if not self.anchors or min(min(pair) for pair in self.anchors) <= 0:
            raise InputError(f"anchors = {self.anchors}: give at least one (width, height) above 0")
        if not all(self.masks) or len(self.masks) != len(self.strides):
            raise InputError(
                f"masks = {self.masks}: give each of the {len(self.strides)} levels at least one anchor index"
            )
        if any(not 0 <= index < len(self.anchors) for mask in self.masks for index in mask):
            raise InputError(f"masks = {self.masks} name anchors outside 0..{len(self.anchors) - 1}")

    def __call__(
        self, shapes: Sequence[tuple[int, int]], boxes: Tensor, labels: Tensor, usable: Tensor, num_classes: int
    ) -> Pairs:
        """Match ``boxes`` ``[B, G, 4]`` with ``labels`` ``[B, G]`` where ``usable``, on maps of ``shapes`` (h, w)."""
        count = boxes.shape[1]
        chosen = self._chosen(boxes) & usable.unsqueeze(1)  # [B, E, G]
        predictor = self._predictors(shapes, boxes)  # [B, E, G]
        # Different entries are different predictors: only objects of one entry can meet.
        meet = (predictor.unsqueeze(-1) == predictor.unsqueeze(-2)) & chosen.unsqueeze(-2)  # [B, E, G, G]
        later = torch.ones((count, count), dtype=torch.bool, device=boxes.device).triu(1)
        valid = chosen & ~(meet & later).any(-1)
        classes = (labels.unsqueeze(-1) == torch.arange(num_classes, device=boxes.device)).float()  # [B, G, K]
        union = (meet.float() @ classes.unsqueeze(1)).clamp(max=1)  # [B, E, G, K]
        truth = torch.arange(count, device=boxes.device).expand(predictor.shape)
        return Pairs(predictor.flatten(1), truth.flatten(1), union.flatten(1, 2), valid.flatten(1))

    def shape_iou(self, boxes: Tensor) -> Tensor:
        """IoU of the shape of ``boxes`` ``[B, G, 4]`` with every anchor, ``[B, G, anchors]``."""
        size = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).unsqueeze(-2)  # [B, G, 1, 2]
        anchors = constant(self.anchors, boxes.device)  # [anchors, 2]
        shared = torch.minimum(size, anchors).prod(-1)
        return shared / (size.prod(-1) + anchors.prod(-1) - shared)

    def _chosen(self, boxes: Tensor) -> Tensor:
        """Whether the anchor of each entry is to learn each object, bool ``[B, E, G]``."""
        iou = self.shape_iou(boxes)
        entries = constant([index for mask in self.masks for index in mask], boxes.device, torch.int64)
        chosen = iou.argmax(-1).unsqueeze(1) == entries[:, None]
        if self.also_above is not None:
            chosen = chosen | (iou[..., entries] > self.also_above).transpose(1, 2)
        return chosen

    def _predictors(self, shapes: Sequence[tuple[int, int]], boxes: Tensor) -> Tensor:
        """Index into N of each entry's predictor in the cell of each object's centre, ``[B, E, G]``."""
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
