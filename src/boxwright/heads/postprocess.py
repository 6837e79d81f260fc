"""Post-processing: from scored boxes to a fixed number of detections.

Symbols: B images, N boxes an image, K classes, M candidates, D detections.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from boxwright.fields import Count, Finite, Fraction, InnerShare, Positive, PositiveShare, config
from boxwright.geometry.boxes import clip_boxes
from boxwright.geometry.constants import constant
from boxwright.geometry.indexing import take_rows
from boxwright.geometry.matrix_nms import matrix_nms
from boxwright.geometry.nms import class_offsets, nms
from boxwright.geometry.sequential_nms import sequential_nms
from boxwright.structures import DetectionBatch, InputError


@config
class PostprocessConfig:
    """Score threshold, NMS and limits on the number of detections."""

    score_threshold: Fraction = 0.05
    """Maximum score of boxes that are dropped."""
    nms: Literal["greedy", "soft_linear", "soft_gaussian", "diou", "weighted", "matrix"] = "greedy"
    """Kind of NMS. "greedy" drops boxes that overlap a better one of their class by more than ``nms_iou``.
    "soft_linear" and "soft_gaussian" lower their scores (Soft-NMS, Bodla et al. 2017: nms_iou 0.3, sigma 0.5). "diou"
    compares distance IoU (Zheng et al. 2020). "weighted" drops as "greedy" does, and replaces the box that stays by the
    mean of it and the dropped ones, weighted by score. "matrix" lowers all scores at once, nearly as "soft_gaussian"
    does box by box (Wang et al. 2020; sigma 0.5)."""
    nms_iou: PositiveShare = 0.5
    """IoU threshold of NMS."""
    sigma: Positive = 0.5
    """Sigma of "soft_gaussian" and "matrix", which do not use ``nms_iou``."""
    soft_floor: InnerShare = 1e-3
    """Lowered score below which the soft kinds and "matrix" drop a box."""
    detections: Count = 100
    """Maximum number of detections in an image."""
    candidates: Count = 2000
    """Best-scored boxes that enter NMS. References take all above the threshold; the result differs only where fewer
    than ``detections`` of the candidates survive."""
    per_class: Count | None = None
    """Best-scored boxes of each class that enter NMS (SSD, RefineDet: 400 or 1000). None: ``candidates`` count."""
    min_size: Finite = 1e-2
    """Minimum side of a box in pixels."""
    nms_inclusive: bool = False
    """Suppress at an IoU of exactly the threshold too (Caffe on CPU)."""
    offset: Finite = 0.0
    """Added to the far corner of boxes: 1 for inclusive boxes."""
    clip: bool = True
    """Clip boxes to the image before NMS. Caffe's SSD does not."""
    original_from: Literal["never", "nms", "clip", "decoding"] = "never"
    """Step from which boxes are in pixels of the original image, not of the resized one: NMS (DetNet_pytorch), clipping
    (Detectron's RetinaNet), or the decoding of regions (py-faster-rcnn, Detectron). ``offset`` and ``min_size`` count
    those pixels then, so that it matters where ``offset`` is not 0."""

    def __post_init__(self) -> None:
        if self.candidates < self.detections:
            raise InputError(f"post.candidates = {self.candidates}: at least post.detections, {self.detections}")

    @property
    def _threshold(self) -> float:
        return math.nextafter(self.nms_iou, 0.0) if self.nms_inclusive else self.nms_iou


def best_candidates(scores: Tensor, config: PostprocessConfig) -> tuple[Tensor, Tensor]:
    """Return score and index ``[B, M]`` of the best candidates of ``[B, N]``; -inf at or below the threshold."""
    scores = torch.where(scores > config.score_threshold, scores, -torch.inf)
    return scores.topk(min(config.candidates, scores.shape[1]), dim=1)


def best_pairs(values: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return value, row and column ``[B, M]`` of the ``count`` highest ``values`` ``[B, N, K]``, in descending order.

    Rows are selected first, by their highest value. No other row can hold one of the best pairs, and ranking N rows
    costs much less than ranking N x K pairs.
    """
    classes = values.shape[2]
    row = values.amax(dim=2).topk(min(count, values.shape[1]), dim=1).indices
    chosen = values.gather(1, row.unsqueeze(-1).expand(-1, -1, classes)).flatten(1)
    value, position = chosen.topk(min(count, chosen.shape[1]), dim=1)
    return value, row.gather(1, position // classes), position % classes


def suppress(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    sizes: Tensor,
    config: PostprocessConfig,
    scales: Tensor | None = None,
) -> DetectionBatch:
    """Run NMS per class on the batch and keep the best ``detections`` of each image.

    ``boxes`` ``[B, M, 4]``; ``scores`` ``[B, M]``, minus infinity for padding; ``labels`` ``[B, M]``; ``sizes``
    ``[B, 2]``, heights and widths of the images; ``scales``: see :class:`~boxwright.structures.Images`.
    """
    if scales is not None and config.original_from != "never":
        return _suppress_in_original(boxes, scores, labels, sizes, config, scales)
    boxes, scores = _within_image(boxes, scores, sizes, config)
    return _suppress(boxes, scores, labels, config)


def _suppress_in_original(
    boxes: Tensor, scores: Tensor, labels: Tensor, sizes: Tensor, config: PostprocessConfig, scales: Tensor
) -> DetectionBatch:
    """Run :func:`suppress` in pixels of the original images, and return the boxes in those of the input."""
    factor = box_factor(scales)
    if config.original_from == "nms":
        boxes, scores = _within_image(boxes, scores, sizes, config)
        boxes = boxes / factor
    else:
        boxes, scores = _within_image(boxes / factor, scores, (sizes / scales.flip(1)).round(), config)
    batch = _suppress(boxes, scores, labels, config)
    return batch._replace(boxes=batch.boxes * factor)


def box_factor(scales: Tensor) -> Tensor:
    """Return ``[B, 1, 4]`` by which boxes of the original images become boxes of the input. ``scales`` ``[B, 2]``."""
    return torch.where(scales.isfinite(), scales, 1.0).repeat(1, 2).unsqueeze(1)


def _suppress(boxes: Tensor, scores: Tensor, labels: Tensor, config: PostprocessConfig) -> DetectionBatch:
    """Run NMS per class on boxes that are clipped."""
    if config.nms != "greedy":
        index, scores, boxes = _changing(boxes, scores, labels, config, config.detections)
        valid = scores > -torch.inf
        return _batch(boxes, scores, labels.gather(1, index), valid)
    extended = boxes + constant([0, 0, config.offset, config.offset], boxes.device)
    index, valid = nms(class_offsets(extended, labels), scores, config._threshold, config.detections)
    return _batch(take_rows(boxes, index), scores.gather(1, index), labels.gather(1, index), valid)


def multiclass_detections(
    probabilities: Tensor, boxes: Tensor, sizes: Tensor, config: PostprocessConfig, scales: Tensor | None = None
) -> DetectionBatch:
    """Detect from class probabilities and boxes that all classes share. A box can be detected as several classes.

    ``probabilities`` ``[B, N, K]`` without background, ``boxes`` ``[B, N, 4]``, ``sizes`` ``[B, 2]``. Candidates are
    the best pairs of box and class, or with ``config.per_class`` the best boxes of each class (SSD, RefineDet).
    """
    if config.per_class is None:
        score, row, label = best_pairs(probabilities, config.candidates)
        score = torch.where(score > config.score_threshold, score, -torch.inf)
        return suppress(take_rows(boxes, row), score, label, sizes, config, scales)
    if scales is not None and config.original_from != "never":
        raise InputError(
            f"post.original_from = {config.original_from!r} together with post.per_class, which no detector needs; "
            "leave one of them out"
        )

    # For NMS each class of each image is a row of its own, with few boxes and one class.
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
        _, score, candidates = _changing(candidates, score, torch.zeros_like(score, dtype=torch.int64), config, keep)

    score, candidates = score.unflatten(0, (batch, classes)).flatten(1), candidates.unflatten(0, (batch, classes))
    best, position = score.topk(min(config.detections, score.shape[1]), dim=1)
    found = _batch(take_rows(candidates.flatten(1, 2), position), best, position // keep, best > -torch.inf)
    missing = config.detections - best.shape[1]
    if missing > 0:
        padded = [F.pad(part, (0, missing)) for part in (found.scores, found.labels, found.valid)]
        found = DetectionBatch(F.pad(found.boxes, (0, 0, 0, missing)), padded[0], padded[1], padded[2])
    return found


def _within_image(boxes: Tensor, scores: Tensor, sizes: Tensor, config: PostprocessConfig) -> tuple[Tensor, Tensor]:
    """Clip boxes to their image, and set the scores of boxes that are too small to minus infinity."""
    if config.clip:
        boxes = clip_boxes(boxes, sizes, config.offset)
    sides = boxes[..., 2:] - boxes[..., :2] + config.offset
    return boxes, scores.masked_fill((sides < config.min_size).any(-1), -torch.inf)


def _changing(
    boxes: Tensor, scores: Tensor, labels: Tensor, config: PostprocessConfig, count: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the kinds of NMS that are not greedy. Return index, changed scores and changed boxes."""
    offset = constant([0, 0, config.offset, config.offset], boxes.device)
    if config.nms == "matrix":
        index, scores = matrix_nms(boxes + offset, scores, labels, config.sigma, config.soft_floor, count)
        return index, scores, take_rows(boxes, index)
    index, scores, boxes = sequential_nms(
        boxes + offset, scores, labels, config.nms, config._threshold, config.sigma, config.soft_floor, count
    )
    return index, scores, boxes - offset


def _batch(boxes: Tensor, scores: Tensor, labels: Tensor, valid: Tensor) -> DetectionBatch:
    """Make a batch of detections with zeros where ``valid`` is false."""
    return DetectionBatch(
        boxes * valid.unsqueeze(-1), torch.where(valid, scores, 0.0), torch.where(valid, labels, 0), valid
    )
