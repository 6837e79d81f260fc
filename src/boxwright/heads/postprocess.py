"""From scored boxes to a fixed number of detections."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from boxwright.geometry.boxes import clip_boxes
from boxwright.geometry.nms import class_offsets, nms
from boxwright.structures import DetectionBatch, InputError, constant


@dataclass(frozen=True, slots=True, kw_only=True)
class PostprocessConfig:
    """What becomes a detection.

    ``score_threshold``: scores at or below it are dropped. ``nms_iou``: greedy NMS within a class.
    ``detections``: the most an image can have. ``candidates``: best-scored boxes that enter NMS; the references take
    all above the threshold, which differs only where fewer than ``detections`` of the candidates survive.
    ``min_size``: shortest side in pixels. ``nms_inclusive``: suppress at IoU >= threshold (Caffe on CPU).
    ``offset``: 1 for inclusive boxes.
    """

    score_threshold: float = 0.05
    nms_iou: float = 0.5
    detections: int = 100
    candidates: int = 2000
    min_size: float = 1e-2
    nms_inclusive: bool = False
    offset: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.score_threshold < 1 or not 0 < self.nms_iou <= 1:
            raise InputError(
                f"post.score_threshold {self.score_threshold} must lie in 0..1 and post.nms_iou {self.nms_iou} above 0 "
                "and at most 1"
            )
        if self.detections < 1 or self.candidates < self.detections:
            raise InputError(
                f"post.detections {self.detections} must be at least 1 and post.candidates {self.candidates} no fewer"
            )


def best_candidates(scores: Tensor, config: PostprocessConfig) -> tuple[Tensor, Tensor]:
    """Best-scored entries of ``[B, N]`` above the threshold: ``score`` (-inf where none) and ``index``, ``[B, M]``."""
    scores = torch.where(scores > config.score_threshold, scores, -torch.inf)
    return scores.topk(min(config.candidates, scores.shape[1]), dim=1)


def suppress(boxes: Tensor, scores: Tensor, labels: Tensor, sizes: Tensor, config: PostprocessConfig) -> DetectionBatch:
    """NMS within each class and the final cut.

    ``boxes`` ``[B, M, 4]``; ``scores`` ``[B, M]``, minus infinity where there is none; ``labels`` ``[B, M]``.
    """
    boxes = clip_boxes(boxes, sizes, config.offset)
    sides = boxes[..., 2:] - boxes[..., :2] + config.offset
    scores = scores.masked_fill((sides < config.min_size).any(-1), -torch.inf)
    threshold = math.nextafter(config.nms_iou, 0.0) if config.nms_inclusive else config.nms_iou
    extended = boxes + constant([0, 0, config.offset, config.offset], boxes.device)
    index, valid = nms(class_offsets(extended, labels), scores, threshold, config.detections)
    return DetectionBatch(
        boxes.gather(1, index.unsqueeze(-1).expand(-1, -1, 4)) * valid.unsqueeze(-1),
        torch.where(valid, scores.gather(1, index), 0.0),
        torch.where(valid, labels.gather(1, index), 0),
        valid,
    )
