"""YOLOv3.

Redmon, Farhadi: YOLOv3: An Incremental Improvement, arXiv 1804.02767. Where the text and Darknet's code disagree, the
default is the code, with which the published numbers were made.

Symbols: B images, K classes, L scales, a anchors of a cell, N predictors of an image (order scale from fine to coarse,
y, x, anchor), G padded ground truth, R rows of predictors that learn an object, M candidates.

A predictor at cell (c_x, c_y) with anchor (p_w, p_h) answers 5 + K numbers t: its box has its centre at
(sigma(t_x) + c_x, sigma(t_y) + c_y) cells and the size (p_w exp t_w, p_h exp t_h) pixels; sigma(t_o) says whether
there is an object, sigma(t_k), each class by itself, what it is (§2.1, §2.2). The score of a class is their product.

The loss, summed over predictors and divided by the number of images (yolo_layer.c):
  L = sum_obj (2 - wh) [BCE(t_x, x) + BCE(t_y, y) + (t_w - w')^2 / 2 + (t_h - h')^2 / 2]
    + sum_obj [BCE(t_o, 1) + sum_k BCE(t_k, 1[k])] + sum_noobj BCE(t_o, 0)
where an object belongs to one predictor: in the cell of its centre, with the anchor out of all scales that fits its
shape best. A predictor without object whose box still overlaps one by more than ``ignore_iou`` is in no sum.

Departures, each without effect on published weights: t_w and t_h are cut at 8 before the exponential, so that no box
is infinite, and predictors covered by a crowd region (COCO) are not told that there is nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from boxwright.anchors.generator import AnchorConfig, AnchorGenerator
from boxwright.anchors.shape_matcher import Pairs, ShapeMatcher
from boxwright.anchors.task_aligned import TaskAlignedMatcher
from boxwright.backbones.build import BackboneConfig, build_backbone
from boxwright.backbones.darknet import DarknetConfig
from boxwright.detectors.contract.detector import Detector
from boxwright.detectors.contract.pixels import DARKNET, PixelConfig
from boxwright.detectors.contract.preparation import Preparation
from boxwright.geometry.boxes import box_iou, clip_boxes, pair_iou
from boxwright.geometry.indexing import take_rows
from boxwright.heads.class_rows import under
from boxwright.heads.dense import flatten_map
from boxwright.heads.losses import decoded_box_loss
from boxwright.heads.postprocess import PostprocessConfig, multiclass_detections
from boxwright.heads.yolo_scales import YOLOScales, YOLOScalesConfig
from boxwright.structures import Classes, DetectionBatch, Images, InputError, Targets

# §2.1 and §2.3: nine clusters of COCO's boxes, in pixels of a 416 x 416 input.
COCO_ANCHORS = (
    (10.0, 13.0), (16.0, 30.0), (33.0, 23.0), (30.0, 61.0), (62.0, 45.0), (59.0, 119.0), (116.0, 90.0),
    (156.0, 198.0), (373.0, 326.0),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class YOLOv3Config:
    """Constants of yolov3.cfg; what text, code and later work dispute has a name.

    ``backbone``: its levels, from fine to coarse, are the scales. ``scales``: the convolutions on each.
    ``anchors``: (width, height) in pixels of the network's input; ``masks``: which of them stand on each scale.
    ``reach``: range of a predicted centre in cells; 1 keeps it in its own, 2 lets it go half a cell beyond (YOLOv5).
    ``pixels``: Darknet feeds RGB in 0..1.
    ``assignment``: "best", one anchor an object by shape (§2.1); "aligned", the predictors that answer it best already
    (TOOD, arXiv 2108.07755), ``topk`` of them. ``also_above``: with "best", every anchor whose shape overlaps the
    object's by more than this learns it too (YOLOv4).
    ``ignore_iou``: 0.7 in yolov3.cfg since May 2018, 0.5 in the text and in yolov3-voc.cfg; 1 ignores none.
    ``box_loss``: "darknet" as above; "squared", squares of sigma(t_x), sigma(t_y) in place of BCE (the text); an IoU
    loss of the decoded box. ``small_weight``: the factor (2 - wh) on it, w and h as shares of the input.
    ``object_target``: what t_o learns where there is an object: "one", or "iou" of its box. With the assignment
    "aligned", "iou" is the alignment, which also weights the box loss.
    ``box_weight``, ``object_weight``, ``class_weight``: factors on the three losses. ``normaliser``: divide by the
    number of "images", or of "positives" in the batch.
    ``prior``: sigma(t_o) of a new network, whose boxes are then its anchors; None starts at random around 0.5, as
    Darknet does. ``norm_momentum``: what a new batch
    weighs in the running statistics of all batch norms; None leaves them as built (0.01 in Darknet's layers, too slow
    for trainings of a few hundred steps).
    ``difficult``: whether boxes marked difficult are trained on. ``crowd_ignore``: share of a predictor's box that a
    crowd region must cover to keep it out of the sums; None ignores crowd regions.
    ``object_threshold``: predictors with an objectness at or below it are dropped before the classes are looked at
    (0.005 in Darknet's COCO evaluation, as its score threshold). ``class_threshold``: classes with a probability at or
    below it are dropped, whatever the objectness (MMDetection). ``multi_label``: a predictor may answer several
    classes; false keeps its best.
    """

    kind: Literal["yolov3"] = "yolov3"
    backbone: BackboneConfig = field(default_factory=DarknetConfig)
    scales: YOLOScalesConfig = field(default_factory=YOLOScalesConfig)
    anchors: tuple[tuple[float, float], ...] = COCO_ANCHORS
    masks: tuple[tuple[int, ...], ...] = ((0, 1, 2), (3, 4, 5), (6, 7, 8))
    reach: float = 1.0
    pixels: PixelConfig = DARKNET
    assignment: Literal["best", "aligned"] = "best"
    topk: int = 10
    also_above: float | None = None
    ignore_iou: float = 0.7
    box_loss: Literal["darknet", "squared", "iou", "giou", "diou", "ciou"] = "darknet"
    small_weight: bool = True
    object_target: Literal["one", "iou"] = "one"
    box_weight: float = 1.0
    object_weight: float = 1.0
    class_weight: float = 1.0
    normaliser: Literal["images", "positives"] = "images"
    prior: float | None = None
    norm_momentum: float | None = None
    difficult: bool = True
    crowd_ignore: float | None = 0.7
    object_threshold: float = 0.005
    class_threshold: float = 0.0
    multi_label: bool = True
    post: PostprocessConfig = field(
        default_factory=lambda: PostprocessConfig(score_threshold=0.005, nms_iou=0.45, candidates=1000, clip=False)
    )

    def __post_init__(self) -> None:
        if not 0 < self.ignore_iou <= 1:
            raise InputError(f"detector.ignore_iou = {self.ignore_iou}: above 0 and at most 1")
        if not 1 <= self.reach <= 3:
            raise InputError(f"detector.reach = {self.reach}: must lie in 1..3; 1 keeps centres in their cell")
        if self.prior is not None and not 0 < self.prior < 1:
            raise InputError(f'detector.prior = {self.prior}: a probability between 0 and 1, or "none" for 0.5')
        if self.norm_momentum is not None and not 0 < self.norm_momentum <= 1:
            raise InputError(f"detector.norm_momentum = {self.norm_momentum}: above 0 and at most 1")
        for name in ("object_threshold", "class_threshold"):
            if not 0 <= (value := getattr(self, name)) < 1:
                raise InputError(f"detector.{name} = {value}: must lie in 0..1, below 1")
        if self.assignment == "aligned" and (self.topk < 1 or self.also_above is not None):
            raise InputError('detector.assignment = "aligned" needs topk of at least 1 and also_above = "none"')


class Grid(NamedTuple):
    """Where the predictors stand: ``anchors`` ``[N, 4]`` around their cells' centres, ``cell`` ``[N, 1]`` pixels of a
    cell's side, ``shapes`` (height, width) of each scale's map, ``area`` of the input in pixels."""

    anchors: Tensor
    cell: Tensor
    shapes: list[tuple[int, int]]
    area: int


class Learners(NamedTuple):
    """The predictors that learn an object. ``pairs``: which, and their classes; ``boxes`` ``[B, R, 4]`` the objects';
    ``quality`` ``[B, R]``: how well they fit already (their IoU or alignment), in 0..1."""

    pairs: Pairs
    boxes: Tensor
    quality: Tensor


class YOLOv3(Detector):
    """Darknet-53 or another backbone, a head on each of its levels, and what it learns."""

    def __init__(self, config: YOLOv3Config, classes: Classes) -> None:
        super().__init__(config, classes, config.pixels)
        self.backbone = build_backbone(config.backbone)
        levels = self.backbone.levels
        if len(config.masks) != len(levels):
            raise InputError(
                f"detector.masks has {len(config.masks)} entries but the backbone gives {len(levels)} levels "
                f"({', '.join(level.name for level in levels)}); give one entry per level"
            )
        strides = tuple(level.stride for level in levels)
        self.matcher = ShapeMatcher(
            anchors=config.anchors, masks=config.masks, strides=strides, also_above=config.also_above
        )
        self.aligned = TaskAlignedMatcher(topk=config.topk)
        shapes = tuple(tuple(config.anchors[index] for index in mask) for mask in config.masks)
        self.anchors = AnchorGenerator(AnchorConfig(shapes=shapes, centre="cell"), levels)
        outputs = [len(mask) * (5 + len(classes)) for mask in config.masks]
        self.scales = YOLOScales(config.scales, levels, outputs)
        self.input_multiple = max(strides)
        self.preparation = Preparation(pad_multiple=self.input_multiple)
        if config.prior is not None:
            self.scales.start_at(config.prior, 5 + len(classes))
        if config.norm_momentum is not None:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.momentum = config.norm_momentum

    def forward(self, images: Images, targets: Targets | None = None) -> dict[str, Tensor] | DetectionBatch:
        """Losses of boxes, objectness and classes with ``targets``, detections without."""
        height, width = images.pixels.shape[-2:]
        self.check_input(height, width)
        maps = self.outputs(self.normalise(images))
        grid = self.grid([(fmap.shape[2], fmap.shape[3]) for fmap in maps], maps[0].device)
        raw = torch.cat([flatten_map(fmap, 5 + len(self.classes)) for fmap in maps], 1)  # [B, N, 5 + K], float32
        if targets is None:
            return self.detections(raw, grid, images.sizes)
        return self.losses(raw, grid, targets)

    def anchor_shapes(self) -> list[tuple[float, float]]:
        """See :class:`Detector`."""
        return self.anchors.shapes

    def class_rows(self) -> dict[str, Tensor]:
        """Class of each row of the layers that tell classes apart."""
        return under("scales", self.scales.class_rows(len(self.classes)))

    def outputs(self, pixels: Tensor) -> list[Tensor]:
        """Maps ``[B, a * (5 + K), h, w]`` of the scales from fine to coarse, x y w h object classes for each anchor."""
        return self.scales(self.backbone(pixels))

    def grid(self, shapes: list[tuple[int, int]], device: torch.device) -> Grid:
        """The predictors of maps with ``shapes`` (height, width)."""
        counts = [h * w * per_cell for (h, w), per_cell in zip(shapes, self.anchors.per_cell, strict=True)]
        strides = self.anchors.strides
        cell = torch.cat([torch.full((n, 1), float(s), device=device) for n, s in zip(counts, strides, strict=True)])
        return Grid(self.anchors(shapes, device), cell, shapes, shapes[0][0] * shapes[0][1] * strides[0] ** 2)

    def decode(self, t: Tensor, anchors: Tensor, cell: Tensor) -> Tensor:
        """Boxes of ``t`` ``[..., 4]``: x y w h as the network gives them, at ``anchors`` ``[..., 4]`` in cells of side
        ``cell`` ``[..., 1]``."""
        size = anchors[..., 2:] - anchors[..., :2]
        shift = (t[..., :2].sigmoid() - 0.5) * self.config.reach * cell
        centre = (anchors[..., :2] + anchors[..., 2:]) / 2 + shift
        half = size * t[..., 2:4].clamp(max=8).exp() / 2
        return torch.cat([centre - half, centre + half], dim=-1)

    def losses(self, raw: Tensor, grid: Grid, targets: Targets) -> dict[str, Tensor]:
        """The equation at the head of this file. ``raw`` ``[B, N, 5 + K]``."""
        config = self.config
        usable = targets.valid & ~targets.crowd
        if not config.difficult:
            usable = usable & ~targets.difficult
        with torch.no_grad():
            boxes = self.decode(raw[..., :4], grid.anchors, grid.cell)
            learners = self._learners(raw, boxes, grid, targets, usable)
            ignored = self._ignored(boxes, targets, usable)
        pairs = learners.pairs
        taught = torch.zeros_like(raw[..., 4]).scatter_reduce(1, pairs.predictor, pairs.valid.float(), "amax")
        object_target = taught
        if config.object_target == "iou":
            object_target = torch.zeros_like(taught).scatter_reduce(
                1, pairs.predictor, learners.quality * pairs.valid, "amax"
            )
        objectness = F.binary_cross_entropy_with_logits(raw[..., 4], object_target, reduction="none")
        objectness = torch.where((taught > 0) | ~ignored, objectness, 0.0).sum()

        t = take_rows(raw, pairs.predictor)  # [B, R, 5 + K]
        box = self._box_loss(t, learners, grid)
        classes = F.binary_cross_entropy_with_logits(t[..., 5:], pairs.labels, reduction="none").sum(-1)
        total = raw.shape[0] if config.normaliser == "images" else pairs.valid.sum().clamp(min=1)
        return {
            "box": config.box_weight * torch.where(pairs.valid, box, 0.0).sum() / total,
            "objectness": config.object_weight * objectness / total,
            "classification": config.class_weight * torch.where(pairs.valid, classes, 0.0).sum() / total,
        }

    def _learners(self, raw: Tensor, boxes: Tensor, grid: Grid, targets: Targets, usable: Tensor) -> Learners:
        """Who learns what. ``boxes`` ``[B, N, 4]``: where the predictors see an object now."""
        if self.config.assignment == "best":
            pairs = self.matcher(grid.shapes, targets.boxes, targets.labels, usable, len(self.classes))
            truth = take_rows(targets.boxes, pairs.truth)
            return Learners(pairs, truth, pair_iou(take_rows(boxes, pairs.predictor), truth))
        scores = raw[..., 4:5].sigmoid() * raw[..., 5:].sigmoid()
        centres = (grid.anchors[:, :2] + grid.anchors[:, 2:]) / 2
        crowd = targets.crowd & targets.valid
        matches, alignment = self.aligned(centres, scores, boxes, targets.boxes, targets.labels, usable, crowd)
        # At most topk predictors an object: a fixed number of rows holds all of them.
        rows = min(raw.shape[1], self.config.topk * targets.boxes.shape[1])
        valid, predictor = matches.positive.float().topk(rows, dim=1)
        index = matches.truth.gather(1, predictor)
        label = take_rows(targets.labels.unsqueeze(-1), index)
        classes = (label == torch.arange(len(self.classes), device=label.device)).float()
        return Learners(
            Pairs(predictor, index, classes, valid > 0),
            take_rows(targets.boxes, index),
            alignment.gather(1, predictor),
        )

    def _ignored(self, boxes: Tensor, targets: Targets, usable: Tensor) -> Tensor:
        """Predictors of ``boxes`` ``[B, N, 4]`` that see an object or a crowd well enough, bool ``[B, N]``."""
        crowd = targets.crowd & targets.valid
        ignored = torch.zeros(boxes.shape[:2], dtype=torch.bool, device=boxes.device)
        share = 1.0 if self.config.crowd_ignore is None else self.config.crowd_ignore
        # A few objects at a time: with all of them at once the overlaps would be the largest tensors of the step.
        for part, use, shade in zip(*(x.split(16, 1) for x in (targets.boxes, usable, crowd)), strict=True):
            overlap = box_iou(part, boxes, over_b=shade.unsqueeze(-1))  # [B, <= 16, N]
            bound = torch.where(shade, share, self.config.ignore_iou).unsqueeze(-1)
            ignored = ignored | ((overlap > bound) & (use | shade).unsqueeze(-1)).any(1)
        return ignored

    def _box_loss(self, t: Tensor, learners: Learners, grid: Grid) -> Tensor:
        """Loss ``[B, R]`` of the rows ``t`` ``[B, R, 5 + K]``."""
        kind, pairs = self.config.box_loss, learners.pairs
        anchors, cell = grid.anchors[pairs.predictor], grid.cell[pairs.predictor]
        # Rows that learn nothing hold arbitrary boxes; their anchor in place of them keeps infinities out of the graph.
        truth = torch.where(pairs.valid.unsqueeze(-1), learners.boxes, anchors)
        size = (truth[..., 2:] - truth[..., :2]).clamp(min=1e-3)
        if kind in ("darknet", "squared"):
            shift = (truth[..., :2] + truth[..., 2:] - anchors[..., :2] - anchors[..., 2:]) / 2
            place = (shift / (self.config.reach * cell) + 0.5).clamp(0, 1)
            if kind == "darknet":
                centre = F.binary_cross_entropy_with_logits(t[..., :2], place, reduction="none")
            else:
                centre = (t[..., :2].sigmoid() - place).square() / 2
            log_ratio = torch.log(size / (anchors[..., 2:] - anchors[..., :2]))
            loss = centre.sum(-1) + (t[..., 2:4] - log_ratio).square().sum(-1) / 2
        else:
            loss = decoded_box_loss(self.decode(t[..., :4], anchors, cell), truth, pairs.valid, kind)
        if self.config.small_weight:
            loss = loss * (2 - size.prod(-1) / grid.area)
        return loss * learners.quality if self.config.assignment == "aligned" else loss

    def detections(self, raw: Tensor, grid: Grid, sizes: Tensor) -> DetectionBatch:
        """Detections of ``raw`` ``[B, N, 5 + K]``: the objectness first, then every class that the product allows."""
        post = self.config.post
        # No class of a predictor scores above its best, so the best candidates are all among the predictors taken here.
        best = raw[..., 4].sigmoid() * raw[..., 5:].amax(-1).sigmoid()
        taken = best.topk(min(post.candidates, best.shape[1]), dim=1).indices  # [B, M]
        raw = take_rows(raw, taken)
        boxes = self.decode(raw[..., :4], grid.anchors[taken], grid.cell[taken])
        objectness, classes = raw[..., 4:5].sigmoid(), raw[..., 5:].sigmoid()
        allowed = (objectness > self.config.object_threshold) & (classes > self.config.class_threshold)
        scores = torch.where(allowed, objectness * classes, 0.0)  # [B, M, K]
        if not self.config.multi_label:
            scores = torch.where(classes == classes.amax(-1, keepdim=True), scores, 0.0)
        found = multiclass_detections(scores, boxes, sizes, post)
        return found._replace(boxes=clip_boxes(found.boxes, sizes))  # last, as Darknet does
