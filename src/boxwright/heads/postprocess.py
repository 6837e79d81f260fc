"""From scored boxes to a fixed number of detections.

Symbols: B images, N boxes an image, K classes, M candidates, D detections.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from boxwright.geometry.boxes import clip_boxes
from boxwright.geometry.constants import constant
from boxwright.geometry.indexing import take_rows
from boxwright.geometry.nms import class_offsets, nms
from boxwright.geometry.sequential_nms import sequential_nms
from boxwright.structures import DetectionBatch, InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class PostprocessConfig:
    """What becomes a detection.

    ``score_threshold``: scores at or below it are dropped. ``nms``: "greedy" drops boxes that overlap a better one of
    their class by an IoU above ``nms_iou``; "soft_linear" and "soft_gaussian" lower their scores (Soft-NMS, Bodla et
    al. 2017: nms_iou 0.3, sigma 0.5); "diou" drops by distance IoU (Zheng et al. 2020); "weighted" drops as greedy does
    and gives the box that stays the mean of those it dropped and itself, weighted by score.
    ``sigma``: of soft_gaussian, which knows no ``nms_iou``. ``soft_floor``: soft kinds drop scores that fall below it.
    ``detections``: the most an image can have. ``candidates``: best-scored boxes that enter NMS; the references take
    all above the threshold, which differs only where fewer than ``detections`` of the candidates survive.
    ``per_class``: the most of each class that enter NMS, in place of ``candidates`` (SSD, RefineDet: 400 or 1000).
    ``min_size``: shortest side in pixels. ``nms_inclusive``: suppress at IoU >= threshold (Caffe on CPU).
    ``offset``: 1 for inclusive boxes. ``clip``: whether boxes are cut to the image before NMS (Caffe's SSD does not).
    """

    score_threshold: float = 0.05
    nms: Literal["greedy", "soft_linear", "soft_gaussian", "diou", "weighted"] = "greedy"
    nms_iou: float = 0.5
    sigma: float = 0.5
    soft_floor: float = 1e-3
    detections: int = 100
    candidates: int = 2000
    per_class: int | None = None
    min_size: float = 1e-2
    nms_inclusive: bool = False
    offset: float = 0.0
    clip: bool = True

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
        if self.per_class is not None and self.per_class < 1:
            raise InputError(
                f"post.per_class = {self.per_class}: must be at least 1, or none to count over all classes"
            )
        if not self.sigma > 0 or not 0 < self.soft_floor < 1:
            raise InputError(
                f"post.sigma {self.sigma} must be above 0 and post.soft_floor {self.soft_floor} between 0 and 1"
            )

    @property
    def _threshold(self) -> float:
        return math.nextafter(self.nms_iou, 0.0) if self.nms_inclusive else self.nms_iou


def best_candidates(scores: Tensor, config: PostprocessConfig) -> tuple[Tensor, Tensor]:
    """Best-scored entries of ``[B, N]`` above the threshold: ``score`` (-inf where none) and ``index``, ``[B, M]``."""
    scores = torch.where(scores > config.score_threshold, scores, -torch.inf)
    return scores.topk(min(config.candidates, scores.shape[1]), dim=1)


def best_pairs(values: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The ``count`` highest of ``values`` ``[B, N, K]``, falling: value, row in N and column in K, each ``[B, M]``.

    The rows are chosen first, by their highest value: no other row can hold one of the best pairs, and ranking N rows
    costs much less than ranking N x K pairs.
    """
    classes = values.shape[2]
    row = values.amax(dim=2).topk(min(count, values.shape[1]), dim=1).indices
    chosen = take_rows(values, row).flatten(1)
    value, place = chosen.topk(min(count, chosen.shape[1]), dim=1)
    return value, row.gather(1, place // classes), place % classes


def suppress(boxes: Tensor, scores: Tensor, labels: Tensor, sizes: Tensor, config: PostprocessConfig) -> DetectionBatch:
    """NMS within each class and the final cut.

    ``boxes`` ``[B, M, 4]``; ``scores`` ``[B, M]``, minus infinity where there is none; ``labels`` ``[B, M]``.
    """
    boxes, scores = _within_image(boxes, scores, sizes, config)
    if config.nms != "greedy":
        index, scores, boxes = _in_turn(boxes, scores, labels, config, config.detections)
        valid = scores > -torch.inf
        return _batch(boxes, scores, labels.gather(1, index), valid)
    extended = boxes + constant([0, 0, config.offset, config.offset], boxes.device)
    index, valid = nms(class_offsets(extended, labels), scores, config._threshold, config.detections)
    return _batch(take_rows(boxes, index), scores.gather(1, index), labels.gather(1, index), valid)


def multiclass_detections(
    probabilities: Tensor, boxes: Tensor, sizes: Tensor, config: PostprocessConfig
) -> DetectionBatch:
    """Detections of a dense head whose boxes serve every class; a box may be found as several classes.

    ``probabilities`` ``[B, N, K]`` without background, ``boxes`` ``[B, N, 4]``, ``sizes`` ``[B, 2]``. Candidates are
    the best pairs of box and class, or with ``config.per_class`` the best boxes of each class (SSD, RefineDet).
    """
    if config.per_class is None:
        score, row, label = best_pairs(probabilities, config.candidates)
        score = torch.where(score > config.score_threshold, score, -torch.inf)
        return suppress(take_rows(boxes, row), score, label, sizes, config)

    # Every class of every image is a row of its own for NMS: few boxes each, and no two classes to keep apart.
    batch, total, classes = probabilities.shape
    score, row = probabilities.transpose(1, 2).contiguous().topk(min(config.per_class, total), dim=2)  # [B, K, M]
    score = torch.where(score > config.score_threshold, score, -torch.inf)
    candidates, score = _within_image(take_rows(boxes, row.flatten(1)), score.flatten(1), sizes, config)
    candidates, score = candidates.unflatten(1, (classes, -1)).flatten(0, 1), score.unflatten(1, (classes, -1))
    score = score.flatten(0, 1)  # [B * K, M]
    keep = min(config.detections, score.shape[1])
    if config.nms == "greedy":
        extended = candidates + constant([0, 0, config.offset, config.offset], boxes.device)
        index, valid = nms(extended, score, config._threshold, keep)
        score, candidates = torch.where(valid, score.gather(1, index), -torch.inf), take_rows(candidates, index)
    else:
        _, score, candidates = _in_turn(candidates, score, torch.zeros_like(score, dtype=torch.int64), config, keep)

    score, candidates = score.unflatten(0, (batch, classes)).flatten(1), candidates.unflatten(0, (batch, classes))
    best, place = score.topk(min(config.detections, score.shape[1]), dim=1)
    found = _batch(take_rows(candidates.flatten(1, 2), place), best, place // keep, best > -torch.inf)
    missing = config.detections - best.shape[1]
    if missing > 0:
        padded = [F.pad(part, (0, missing)) for part in (found.scores, found.labels, found.valid)]
        found = DetectionBatch(F.pad(found.boxes, (0, 0, 0, missing)), padded[0], padded[1], padded[2])
    return found


def _within_image(boxes: Tensor, scores: Tensor, sizes: Tensor, config: PostprocessConfig) -> tuple[Tensor, Tensor]:
    """Boxes clipped to their image, and scores, minus infinity where a box is too small."""
    if config.clip:
        boxes = clip_boxes(boxes, sizes, config.offset)
    sides = boxes[..., 2:] - boxes[..., :2] + config.offset
    return boxes, scores.masked_fill((sides < config.min_size).any(-1), -torch.inf)


def _in_turn(
    boxes: Tensor, scores: Tensor, labels: Tensor, config: PostprocessConfig, count: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The kinds of NMS that are no greedy one: index, changed scores and changed boxes."""
    offset = constant([0, 0, config.offset, config.offset], boxes.device)
    index, scores, boxes = sequential_nms(
        boxes + offset, scores, labels, config.nms, config._threshold, config.sigma, config.soft_floor, count
    )
    return index, scores, boxes - offset


def _batch(boxes: Tensor, scores: Tensor, labels: Tensor, valid: Tensor) -> DetectionBatch:
    """Detections with zeros where there is none."""
    return DetectionBatch(
        boxes * valid.unsqueeze(-1), torch.where(valid, scores, 0.0), torch.where(valid, labels, 0), valid
    )
