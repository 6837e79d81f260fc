"""YOLOv3: anchors on three scales, with independent classes.

Redmon, Farhadi: YOLOv3: An Incremental Improvement, arXiv 1804.02767. Where the text and Darknet's code disagree, the
defaults follow the code, which the published figures were computed with.

Symbols: B images, K classes, L scales, a anchors of a cell, N predictors of an image (order scale from fine to coarse,
y, x, anchor), G padded ground truth, R rows of predictors with an object, M candidates.

A predictor at cell (c_x, c_y) with anchor (p_w, p_h) outputs 5 + K values t. The centre of its box is at
(sigma(t_x) + c_x, sigma(t_y) + c_y) cells, its size is (p_w exp t_w, p_h exp t_h) pixels. sigma(t_o) is the objectness,
and sigma(t_k) the probability of class k, independent of the others (§2.1, §2.2). The score of a class is the product.

The loss is a sum over predictors divided by the number of images (yolo_layer.c):
  L = sum_obj (2 - wh) [BCE(t_x, x) + BCE(t_y, y) + (t_w - w')^2 / 2 + (t_h - h')^2 / 2]
    + sum_obj [BCE(t_o, 1) + sum_k BCE(t_k, 1[k])] + sum_noobj BCE(t_o, 0)
An object belongs to one predictor: in the cell of its centre, with the anchor of all scales that fits its shape best.
A predictor without an object whose box overlaps one by more than ``assign.ignore_iou`` is in no sum.

Departures, without effect on published weights: t_w and t_h are clamped at 8 before the exponential, so that no box is
infinite, and predictors covered by a crowd region (COCO) have no objectness loss.
"""

from __future__ import annotations

from dataclasses import field
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from boxwright.anchors.cells import Reach
from boxwright.anchors.generator import AnchorConfig, AnchorGenerator
from boxwright.anchors.matching.shape_matcher import Pairs, ShapeMatcher
from boxwright.anchors.matching.task_aligned import TaskAlignedMatcher, pairs_of
from boxwright.backbones.build import BackboneConfig, build_backbone
from boxwright.backbones.darknet import DarknetConfig
from boxwright.backbones.layers.norm import set_norm_momentum
from boxwright.detectors.contract.detector import Detector
from boxwright.detectors.contract.pixels import DARKNET, PixelConfig
from boxwright.detectors.contract.preparation import Preparation
from boxwright.fields import Count, Fraction, NotNegative, Positive, PositiveShare, Share, config
from boxwright.geometry.boxes import box_iou, clip_boxes, pair_iou
from boxwright.geometry.indexing import take_entries, take_rows
from boxwright.heads.class_rows import under
from boxwright.heads.dense import flatten_map
from boxwright.heads.losses import OverlapLoss, decoded_box_loss
from boxwright.heads.postprocess import PostprocessConfig, multiclass_detections
from boxwright.heads.yolo_scales import YOLOScales, YOLOScalesConfig
from boxwright.structures import Classes, DetectionBatch, Images, InputError, Targets

# §2.1 and §2.3: nine clusters of COCO's boxes, in pixels of a 416 x 416 input.
COCO_ANCHORS = ((10.0, 13.0), (16.0, 30.0), (33.0, 23.0), (30.0, 61.0), (62.0, 45.0), (59.0, 119.0), (116.0, 90.0),
                (156.0, 198.0), (373.0, 326.0))  # fmt: skip


@config
class YOLOv3AssignConfig:
    """Assignment of objects to predictors (§2.1)."""

    method: Literal["best", "aligned"] = "best"
    """One anchor for each object by shape (§2.1), or the ``topk`` best predictions of each (TOOD, arXiv 2108.07755)."""
    topk: Count = 10
    """Predictors of each object, for "aligned"."""
    also_above: Share | None = None
    """IoU of shapes above which further anchors get the object too, for "best" (YOLOv4). None: the best one only."""
    ignore_iou: PositiveShare = 0.7
    """IoU with any object above which a predictor without one has no objectness loss. 0.7 in yolov3.cfg since May 2018,
    0.5 in the text and in yolov3-voc.cfg; 1 ignores none."""
    crowd_ignore: Share | None = 0.7
    """Share of a predicted box under a crowd region from which it has no objectness loss. None: 1."""
    difficult: bool = True
    """Train on boxes marked difficult."""

    def __post_init__(self) -> None:
        if self.method == "aligned" and self.also_above is not None:
            raise InputError('assign.method = "aligned" needs also_above = "none"')


@config
class YOLOv3LossConfig:
    """Loss that the head of this file states, and what text and later work do differently."""

    box: Literal["darknet", "squared"] | OverlapLoss = "darknet"
    """"darknet": binary cross-entropy of x and y. "squared": squared errors of sigma(t_x), sigma(t_y) (the text). Or an
    overlap loss of the decoded box."""
    small_weight: bool = True
    """Multiply the box loss by 2 - w h, sides as shares of the input."""
    object_target: Literal["one", "iou"] = "one"
    """Objectness target of a predictor with an object: 1, or the IoU of its box ("aligned": the alignment)."""
    box_weight: NotNegative = 1.0
    """Weight of the box loss."""
    class_weight: NotNegative = 1.0
    """Weight of the classification loss."""
    normaliser: Literal["images", "positives"] = "images"
    """Divisor of the losses: number of images, or of predictors with an object in the batch."""


@config
class YOLOv3Config:
    """Constants of yolov3.cfg."""

    kind: Literal["yolov3"] = "yolov3"
    backbone: BackboneConfig = field(default_factory=DarknetConfig)
    """Backbone, whose levels from fine to coarse are the scales."""
    scales: YOLOScalesConfig = field(default_factory=YOLOScalesConfig)
    """Convolutions on each scale."""
    anchors: tuple[tuple[Positive, Positive], ...] = COCO_ANCHORS
    """Widths and heights in pixels of the network's input."""
    masks: tuple[tuple[int, ...], ...] = ((0, 1, 2), (3, 4, 5), (6, 7, 8))
    """Indexes of the anchors of each scale."""
    reach: Reach = 1.0
    """Range of a predicted centre in cells: 1 keeps it in its cell, 2 lets it go half a cell beyond (YOLOv5)."""
    pixels: PixelConfig = DARKNET
    """Pixel normalisation: 0..1."""
    assign: YOLOv3AssignConfig = field(default_factory=YOLOv3AssignConfig)
    """Assignment of objects to predictors."""
    loss: YOLOv3LossConfig = field(default_factory=YOLOv3LossConfig)
    """Loss terms and their weights."""
    norm_momentum: PositiveShare | None = None
    """Momentum of all batch norms, the weight of a new batch. None: Darknet's 0.01, too slow for short training."""
    object_threshold: Fraction = 0.005
    """Maximum objectness of predictors that are dropped before their classes are scored (Darknet's evaluation)."""
    class_threshold: Fraction = 0.0
    """Maximum probability of classes that are dropped at any objectness (MMDetection)."""
    multi_label: bool = True
    """Let a predictor give detections of several classes, not of its best one only."""
    post: PostprocessConfig = PostprocessConfig(score_threshold=0.005, nms_iou=0.45, candidates=1000, clip=False)
    """Thresholds and NMS at inference."""


class Grid(NamedTuple):
    """Positions of the predictors: ``anchors`` ``[N, 4]`` around their cells' centres, ``cell`` ``[N, 1]`` side of a
    cell in pixels, ``shapes`` (height, width) of each scale's map, ``area`` of the input in pixels."""

    anchors: Tensor
    cell: Tensor
    shapes: list[tuple[int, int]]
    area: int


class Assigned(NamedTuple):
    """Predictors with an object. ``pairs``: their indexes and classes. ``boxes`` ``[B, R, 4]``: the objects' boxes.
    ``quality`` ``[B, R]``: IoU or alignment of their predictions, in 0..1."""

    pairs: Pairs
    boxes: Tensor
    quality: Tensor


class YOLOv3(Detector):
    """Darknet-53 or another backbone, and a head on each of its levels."""

    def __init__(self, config: YOLOv3Config, classes: Classes) -> None:
        super().__init__(config, classes, config.pixels)
        self.backbone = build_backbone(config.backbone)
        levels, assign = self.backbone.levels, config.assign
        if len(config.masks) != len(levels):
            raise InputError(
                f"detector.masks has {len(config.masks)} entries but the backbone gives {len(levels)} levels "
                f"({', '.join(level.name for level in levels)}); give one entry per level"
            )
        strides = tuple(level.stride for level in levels)
        self.matcher = ShapeMatcher(
            anchors=config.anchors, masks=config.masks, strides=strides, also_above=assign.also_above
        )
        self.aligned = TaskAlignedMatcher(topk=assign.topk)
        shapes = tuple(tuple(config.anchors[index] for index in mask) for mask in config.masks)
        self.anchors = AnchorGenerator(AnchorConfig(shapes=shapes, centre="cell"), levels)
        self.scales = YOLOScales(config.scales, levels, [len(mask) for mask in config.masks], 5 + len(classes))
        self.input_multiple = max(strides)
        self.preparation = Preparation(pad_multiple=self.input_multiple)
        set_norm_momentum(self, config.norm_momentum)

    def forward(self, images: Images, targets: Targets | None = None) -> dict[str, Tensor] | DetectionBatch:
        """Return losses of boxes, objectness and classes with ``targets``, detections without."""
        self.check_input(images.pixels.shape[2], images.pixels.shape[3])
        maps = self.outputs(self.normalise(images))
        grid = self.grid([(fmap.shape[2], fmap.shape[3]) for fmap in maps], maps[0].device)
        raw = torch.cat([flatten_map(fmap, 5 + len(self.classes)) for fmap in maps], 1)  # [B, N, 5 + K], float32
        if targets is None:
            return self.detections(raw, grid, images.sizes, images.scales)
        return self.losses(raw, grid, targets)

    def anchor_shapes(self) -> list[tuple[float, float]]:
        """Return width and height of the anchors in pixels, for all scales."""
        return self.anchors.shapes

    def class_rows(self) -> dict[str, Tensor]:
        """Return the class of each row of the layers that distinguish classes."""
        return under("scales", self.scales.class_rows(len(self.classes)))

    def outputs(self, pixels: Tensor) -> list[Tensor]:
        """Return maps ``[B, a * (5 + K), h, w]`` from fine to coarse: x y w h, objectness, classes of each anchor."""
        return self.scales(self.backbone(pixels))

    def grid(self, shapes: list[tuple[int, int]], device: torch.device) -> Grid:
        """Return the positions of the predictors for maps of ``shapes`` (height, width)."""
        counts = [h * w * per_cell for (h, w), per_cell in zip(shapes, self.anchors.per_cell, strict=True)]
        strides = self.anchors.strides
        cell = torch.cat([torch.full((n, 1), float(s), device=device) for n, s in zip(counts, strides, strict=True)])
        return Grid(self.anchors(shapes, device), cell, shapes, shapes[0][0] * shapes[0][1] * strides[0] ** 2)

    def decode(self, t: Tensor, anchors: Tensor, cell: Tensor) -> Tensor:
        """Decode x y w h ``t`` ``[..., 4]`` at ``anchors`` ``[..., 4]`` in cells of side ``cell`` ``[..., 1]``."""
        size = anchors[..., 2:] - anchors[..., :2]
        shift = (t[..., :2].sigmoid() - 0.5) * self.config.reach * cell
        centre = (anchors[..., :2] + anchors[..., 2:]) / 2 + shift
        half = size * t[..., 2:4].clamp(max=8).exp() / 2
        return torch.cat([centre - half, centre + half], dim=-1)

    def losses(self, raw: Tensor, grid: Grid, targets: Targets) -> dict[str, Tensor]:
        """Compute the loss that the head of this file states. ``raw`` ``[B, N, 5 + K]``."""
        config, usable = self.config.loss, targets.usable(self.config.assign.difficult)
        with torch.no_grad():
            boxes = self.decode(raw[..., :4], grid.anchors, grid.cell)
            assigned = self.assign(raw, boxes, grid, targets, usable)
            ignored = self.ignored(boxes, targets, usable)
        pairs = assigned.pairs
        positive = torch.zeros_like(raw[..., 4]).scatter_reduce(1, pairs.predictor, pairs.valid.float(), "amax")
        goal = positive
        if config.object_target == "iou":
            quality = assigned.quality * pairs.valid
            goal = torch.zeros_like(positive).scatter_reduce(1, pairs.predictor, quality, "amax")
        objectness = F.binary_cross_entropy_with_logits(raw[..., 4], goal, reduction="none")
        objectness = torch.where((positive > 0) | ~ignored, objectness, 0.0).sum()
        t = take_rows(raw, pairs.predictor)  # [B, R, 5 + K]
        box = self._box_loss(t, assigned, grid)
        classes = F.binary_cross_entropy_with_logits(t[..., 5:], pairs.labels, reduction="none").sum(-1)
        classes = self.class_weights(classes, pairs.labels)
        total = raw.shape[0] if config.normaliser == "images" else pairs.valid.sum().clamp(min=1)
        return {
            "box": config.box_weight * torch.where(pairs.valid, box, 0.0).sum() / total,
            "objectness": objectness / total,
            "classification": config.class_weight * torch.where(pairs.valid, classes, 0.0).sum() / total,
        }

    def assign(self, raw: Tensor, boxes: Tensor, grid: Grid, targets: Targets, usable: Tensor) -> Assigned:
        """Assign objects to predictors. ``boxes`` ``[B, N, 4]``: predicted boxes."""
        if self.config.assign.method == "best":
            pairs = self.matcher(grid.shapes, targets.boxes, targets.labels, usable, len(self.classes))
            truth = take_rows(targets.boxes, pairs.truth)
            return Assigned(pairs, truth, pair_iou(take_rows(boxes, pairs.predictor), truth))
        scores = raw[..., 4:5].sigmoid() * raw[..., 5:].sigmoid()
        centres = (grid.anchors[:, :2] + grid.anchors[:, 2:]) / 2
        crowd = targets.crowd & targets.valid
        matches, alignment = self.aligned(centres, scores, boxes, targets.boxes, targets.labels, usable, crowd)
        pairs = pairs_of(matches, targets, self.config.assign.topk, len(self.classes))
        return Assigned(pairs, take_rows(targets.boxes, pairs.truth), take_entries(alignment, pairs.predictor))

    def ignored(self, boxes: Tensor, targets: Targets, usable: Tensor) -> Tensor:
        """Return the predictors whose ``boxes`` ``[B, N, 4]`` overlap an object or crowd too much, bool ``[B, N]``."""
        config = self.config.assign
        crowd = targets.crowd & targets.valid
        ignored = torch.zeros(boxes.shape[:2], dtype=torch.bool, device=boxes.device)
        share = 1.0 if config.crowd_ignore is None else config.crowd_ignore
        # 16 objects at a time: the overlaps with all of them would be the largest tensors of the step.
        for part, use, shade in zip(*(x.split(16, 1) for x in (targets.boxes, usable, crowd)), strict=True):
            overlap = box_iou(part, boxes, over_b=shade.unsqueeze(-1))  # [B, <= 16, N]
            bound = torch.where(shade, share, config.ignore_iou).unsqueeze(-1)
            ignored = ignored | ((overlap > bound) & (use | shade).unsqueeze(-1)).any(1)
        return ignored

    def _box_loss(self, t: Tensor, assigned: Assigned, grid: Grid) -> Tensor:
        """Return the box loss ``[B, R]`` of the rows ``t`` ``[B, R, 5 + K]``."""
        config, pairs = self.config.loss, assigned.pairs
        anchors, cell = grid.anchors[pairs.predictor], grid.cell[pairs.predictor]
        # Rows without an object hold arbitrary boxes. The anchor in their place keeps infinities out of the gradient.
        truth = torch.where(pairs.valid.unsqueeze(-1), assigned.boxes, anchors)
        size = (truth[..., 2:] - truth[..., :2]).clamp(min=1e-3)
        if config.box in ("darknet", "squared"):
            shift = (truth[..., :2] + truth[..., 2:] - anchors[..., :2] - anchors[..., 2:]) / 2
            offset = (shift / (self.config.reach * cell) + 0.5).clamp(0, 1)
            if config.box == "darknet":
                centre = F.binary_cross_entropy_with_logits(t[..., :2], offset, reduction="none")
            else:
                centre = (t[..., :2].sigmoid() - offset).square() / 2
            log_ratio = torch.log(size / (anchors[..., 2:] - anchors[..., :2]))
            loss = centre.sum(-1) + (t[..., 2:4] - log_ratio).square().sum(-1) / 2
        else:
            loss = decoded_box_loss(self.decode(t[..., :4], anchors, cell), truth, pairs.valid, config.box)
        if config.small_weight:
            loss = loss * (2 - size.prod(-1) / grid.area)
        return loss * assigned.quality if self.config.assign.method == "aligned" else loss

    def detections(self, raw: Tensor, grid: Grid, sizes: Tensor, scales: Tensor | None = None) -> DetectionBatch:
        """Score the classes of predictors ``raw`` ``[B, N, 5 + K]`` of sufficient objectness, and run NMS per class."""
        config, post = self.config, self.config.post
        # No class of a predictor scores above its best, so the best pairs are all among these predictors.
        best = raw[..., 4].sigmoid() * raw[..., 5:].amax(-1).sigmoid()
        chosen = best.topk(min(post.candidates, best.shape[1]), dim=1).indices  # [B, M]
        raw = take_rows(raw, chosen)
        boxes = self.decode(raw[..., :4], grid.anchors[chosen], grid.cell[chosen])
        objectness, classes = raw[..., 4:5].sigmoid(), raw[..., 5:].sigmoid()
        allowed = (objectness > config.object_threshold) & (classes > config.class_threshold)
        scores = torch.where(allowed, objectness * classes, 0.0)  # [B, M, K]
        if not config.multi_label:
            scores = torch.where(classes == classes.amax(-1, keepdim=True), scores, 0.0)
        batch = multiclass_detections(scores, boxes, sizes, post, scales)
        return batch._replace(boxes=clip_boxes(batch.boxes, sizes))  # last, as in Darknet
