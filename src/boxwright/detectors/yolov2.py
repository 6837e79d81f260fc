"""YOLOv2: anchors on one map, with box centres located relative to their cell.

Redmon, Farhadi: YOLO9000: Better, Faster, Stronger, arXiv 1612.08242.

Symbols: B images, K classes, a anchors, H W cells of the coarsest map (stride s, 32), N = H * W * a predictors in order
y, x, anchor, G padded ground truth. A predictor outputs t_x t_y t_w t_h t_o and K class logits (§2):

    b_x = (sigmoid(t_x) + column) s      b_w = p_w exp(t_w)      objectness = sigmoid(t_o) = Pr(object) * IoU

The loss is that of the authors' code, whose "deltas" are the gradient. Each squared term is half a squared error, and
sums over an image are divided by the number of images. Squared errors of x, y and objectness are taken after the
sigmoid. For every predictor, later rules replace earlier ones:

    1. without an object: objectness towards 0, unless the box overlaps some object by more than ``assign.quiet``;
    2. in the first 12,800 images: the box towards its anchor at the cell's centre, with a weight of 0.01;
    3. with an object: box, objectness and class towards it. Of two objects on one predictor the later counts.

Departures: none by default. ``reach``, the assignment "near", overlap losses and cross-entropy on the objectness belong
to the modern recipe, which trains the same network in another way.
"""

from __future__ import annotations

from dataclasses import field
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from boxwright.anchors.cells import Reach, cell_corners
from boxwright.anchors.matching.cell_matcher import CellMatcher, YOLOv2AssignConfig
from boxwright.backbones.build import BackboneConfig, build_backbone
from boxwright.backbones.darknet import DarknetConfig, conv_bn_leaky
from boxwright.backbones.layers.norm import set_norm_momentum
from boxwright.detectors.contract.detector import Detector
from boxwright.detectors.contract.pixels import DARKNET, PixelConfig
from boxwright.fields import Count, CountOrZero, NotNegative, Positive, PositiveShare, config
from boxwright.geometry.boxes import box_iou, clip_boxes, cxcywh_to_xyxy, pair_iou, xyxy_to_cxcywh
from boxwright.geometry.constants import constant
from boxwright.geometry.indexing import take_entries, take_rows
from boxwright.heads.class_rows import tiled_rows
from boxwright.heads.dense import flatten_map
from boxwright.heads.losses import OverlapLoss, decoded_box_loss, softmax_cross_entropy
from boxwright.heads.postprocess import PostprocessConfig, multiclass_detections
from boxwright.structures import Classes, DetectionBatch, Images, InputError, Targets

Anchors = tuple[tuple[Positive, Positive], ...]

# Widths and heights in cells, of the paper's network on VOC.
VOC_ANCHORS: Anchors = ((1.08, 1.19), (3.42, 4.41), (6.63, 11.38), (9.42, 5.11), (16.62, 10.52))

LOG_SIZE_LIMIT = 8.0  # of t_w and t_h, a box 2981 times its anchor; keeps the outputs of a diverging network finite
PRIOR_SCALE = 0.01  # weight of rule 2 of the loss


@config
class YOLOv2HeadConfig:
    """Layers above the backbone (§2, table 6), in the two generations of the network."""

    convs: tuple[Count, ...] = (1024, 1024)
    """Channels of 3x3 convolutions on the coarsest map."""
    passthrough: str | None = "C4"
    """Finer level whose cells are stacked and joined to the coarsest map. None: none, as in the tiny networks."""
    narrow: Count | None = None
    """Channels of a 1x1 convolution before the stacking; 64 in Darknet's files since 2017. None: none (paper)."""
    merged: Count = 1024
    """Channels of the 3x3 convolution after the join."""


@config
class RegionLossConfig:
    """Constants of Darknet's region layer, and the losses of the modern recipe."""

    coord_scale: NotNegative = 1.0
    """Weight of the box loss."""
    object_scale: NotNegative = 5.0
    """Weight of the objectness loss of predictors with an object."""
    noobject_scale: NotNegative = 1.0
    """Weight of the objectness loss of predictors without an object."""
    class_scale: NotNegative = 1.0
    """Weight of the classification loss."""
    rescore: bool = True
    """Objectness target of a predictor with an object: the IoU of its box (paper), or 1 if false."""
    favour_small: bool = False
    """Multiply box losses by 2 - w h, sides as shares of the input; in the code since March 2017, after the paper."""
    prior_images: CountOrZero = 12_800
    """Images for which rule 2 holds."""
    box: Literal["squared"] | OverlapLoss = "squared"
    """Squared errors, or an overlap loss of the boxes."""
    objectness: Literal["squared", "bce"] = "squared"
    """Squared error after the sigmoid, or binary cross-entropy of the logit, with the same target."""


@config
class YOLOv2Config:
    """Constants of the paper (§2, table 6)."""

    kind: Literal["yolov2"] = "yolov2"
    """Name of the detector in recipes."""
    backbone: BackboneConfig = field(default_factory=lambda: DarknetConfig(variant="darknet19", out_levels=(4, 5)))
    """Backbone with the coarsest level and that of the passthrough."""
    head: YOLOv2HeadConfig = field(default_factory=YOLOv2HeadConfig)
    """Layers above the backbone."""
    anchors: Anchors = VOC_ANCHORS
    """Widths and heights in cells."""
    reach: Reach = 1.0
    """Range of a predicted centre in cells: 1 keeps it in its cell, 2 lets it go half a cell beyond."""
    assign: YOLOv2AssignConfig = field(default_factory=YOLOv2AssignConfig)
    """Assignment of objects to predictors."""
    loss: RegionLossConfig = field(default_factory=RegionLossConfig)
    """Loss terms and their weights."""
    post: PostprocessConfig = PostprocessConfig(score_threshold=0.005, nms_iou=0.45, clip=False)
    """Thresholds and NMS at inference."""
    pixels: PixelConfig = DARKNET
    """Pixel normalisation: 0..1."""
    norm_momentum: PositiveShare | None = None
    """Momentum of all batch norms, the weight of a new batch. None: Darknet's 0.01, too slow for short training."""


class Predictions(NamedTuple):
    """Outputs of the N predictors: sigmoids ``xy`` and raw ``wh`` ``[B, N, 2]``, ``objectness`` logits ``[B, N]``,
    class ``logits`` ``[B, N, K]``, and decoded ``boxes`` ``[B, N, 4]`` in pixels."""

    xy: Tensor
    wh: Tensor
    objectness: Tensor
    logits: Tensor
    boxes: Tensor


def stack_cells(x: Tensor, factor: int) -> Tensor:
    """Stack the cells of each f x f block in the channels: ``[B, C, H, W] -> [B, C * f * f, H / f, W / f]``.

    Darknet's layer reads the memory of C x H x W as C / f^2 x fH x fW before it takes every f-th row and column. So its
    outputs mix channels and positions, and its published weights were trained on that.
    """
    batch, channels, height, width = x.shape
    blocks = x.reshape(batch, channels // factor**2, height, factor, width, factor)
    return blocks.permute(0, 3, 5, 1, 2, 4).reshape(batch, -1, height // factor, width // factor)


class YOLOv2(Detector):
    """Backbone, a passthrough from a finer level, and one map of predictors."""

    seen: Tensor

    def __init__(self, config: YOLOv2Config, classes: Classes) -> None:
        super().__init__(config, classes, config.pixels)
        self.backbone = build_backbone(config.backbone)
        head = config.head
        self.matcher = CellMatcher(anchors=config.anchors, config=config.assign)
        coarse = self.backbone.levels[-1]
        self.stride = self.input_multiple = coarse.stride
        channels = coarse.channels
        convs = []
        for out in head.convs:
            convs.append(conv_bn_leaky(channels, out, 3))
            channels = out
        self.convs = nn.Sequential(*convs)
        if head.passthrough is not None:
            channels += self._build_passthrough(head.passthrough, head.narrow)
        self.merged = conv_bn_leaky(channels, head.merged, 3)
        self.output = nn.Conv2d(head.merged, len(config.anchors) * (5 + len(classes)), 1)
        nn.init.normal_(self.output.weight, std=0.01)
        nn.init.zeros_(self.output.bias)  # type: ignore[arg-type]
        set_norm_momentum(self, config.norm_momentum)
        # Images trained on, as Darknet counts them. Rule 2 of the loss ends by this count, in resumed runs too.
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        grouped = torch.distributed.is_available() and torch.distributed.is_initialized()
        self.processes = torch.distributed.get_world_size() if grouped else 1

    def _build_passthrough(self, name: str, narrow: int | None) -> int:
        """Prepare the passthrough from the level ``name``, and return the number of channels that it adds."""
        levels = {level.name: level for level in self.backbone.levels}
        coarse = self.backbone.levels[-1]
        if name not in levels or name == coarse.name:
            raise InputError(
                f"head.passthrough = {name!r}: the backbone gives {', '.join(levels)}; name one before "
                f"the last ({coarse.name}), or leave it out"
            )
        fine = levels[name]
        self.factor = coarse.stride // fine.stride
        self.fine_index = self.backbone.levels.index(fine)
        channels = fine.channels if narrow is None else narrow
        if channels % self.factor**2:
            raise InputError(
                f"stacking cells needs a multiple of {self.factor**2} channels, but {fine.name} gives {channels}; "
                "change head.narrow"
            )
        if narrow is not None:
            self.narrow = conv_bn_leaky(fine.channels, narrow, 1)
        return channels * self.factor**2

    def forward(self, images: Images, targets: Targets | None = None) -> dict[str, Tensor] | DetectionBatch:
        """Return four losses with ``targets``, detections without."""
        self.check_input(images.pixels.shape[2], images.pixels.shape[3])
        (out,) = self.outputs(self.normalise(images))
        predictions = self.predictions(out)
        if targets is None:
            return self.detections(predictions, images)
        losses = self.losses(predictions, targets, (out.shape[2], out.shape[3]))
        if self.training:
            self.seen += len(images.pixels) * self.processes
        return losses

    def anchor_shapes(self) -> list[tuple[float, float]]:
        """Return width and height of the anchors in pixels."""
        return [(width * self.stride, height * self.stride) for width, height in self.config.anchors]

    def class_rows(self) -> dict[str, Tensor]:
        """Return the class of each row of the layers that distinguish classes."""
        return tiled_rows(self, "output", torch.arange(len(self.classes)), shared=5)

    def outputs(self, pixels: Tensor) -> list[Tensor]:
        """Return the output map ``[B, a * (5 + K), H, W]``: for each anchor t_x t_y t_w t_h t_o and class logits."""
        maps, head = self.backbone(pixels), self.config.head
        x = self.convs(maps[-1])
        if head.passthrough is not None:
            fine = maps[self.fine_index]
            if head.narrow is not None:
                fine = self.narrow(fine)
            x = torch.cat([stack_cells(fine, self.factor), x], dim=1)
        return [self.output(self.merged(x))]

    def predictions(self, out: Tensor) -> Predictions:
        """Decode the output map (§2, "direct location prediction"), in float32."""
        flat = flatten_map(out, 5 + len(self.classes))  # [B, N, 5 + K]
        corner, anchor = self._cells_and_anchors((out.shape[2], out.shape[3]), out.device)
        xy, wh = flat[..., :2].sigmoid(), flat[..., 2:4]
        centre = self.config.reach * (xy - 0.5) + 0.5 + corner
        boxes = cxcywh_to_xyxy(torch.cat([centre, anchor * wh.clamp(max=LOG_SIZE_LIMIT).exp()], -1) * self.stride)
        return Predictions(xy, wh, flat[..., 4], flat[..., 5:], boxes)

    def _cells_and_anchors(self, shape: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
        """Return each predictor's cell (column, row) and anchor (width, height), ``[N, 2]`` each, in cells."""
        corner, anchors = cell_corners(*shape, device), constant(self.config.anchors, device)
        pairs = torch.stack(
            [corner.unsqueeze(1).expand(-1, len(anchors), -1), anchors.expand(len(corner), -1, -1)]
        ).flatten(1, 2)
        return pairs[0], pairs[1]

    @torch.no_grad()
    def detections(self, predictions: Predictions, images: Images) -> DetectionBatch:
        """Score each box and class by objectness times class probability, and run NMS per class."""
        scores = predictions.objectness.sigmoid().unsqueeze(-1) * predictions.logits.softmax(-1)  # [B, N, K]
        batch = multiclass_detections(scores, predictions.boxes, images.sizes, self.config.post, images.scales)
        return batch._replace(boxes=clip_boxes(batch.boxes, images.sizes))  # last, as in Darknet

    def losses(self, predictions: Predictions, targets: Targets, shape: tuple[int, int]) -> dict[str, Tensor]:
        """Compute the loss that the head of this file states. ``shape``: H and W."""
        config, assign, batch = self.config.loss, self.config.assign, predictions.xy.shape[0]
        with torch.no_grad():
            usable = self._usable(targets, shape)
            boxes, truths = predictions.boxes, targets.boxes
            owner, positive = self.matcher(boxes / self.stride, truths / self.stride, usable, shape)
            truth = take_rows(truths, owner)  # [B, N, 4]
            label = take_entries(targets.labels, owner)
            overlap = box_iou(boxes, truths)  # [B, N, G]
            quiet = ((overlap > assign.quiet) & usable.unsqueeze(1)).any(-1)
            goal = torch.where(positive, pair_iou(boxes, truth) if config.rescore else 1.0, 0.0)
            weight = torch.where(positive, config.object_scale, config.noobject_scale * ~quiet)
        if config.objectness == "squared":
            objectness = 0.5 * weight * (predictions.objectness.sigmoid() - goal).square()
        else:
            objectness = weight * F.binary_cross_entropy_with_logits(predictions.objectness, goal, reduction="none")
        entropy = self.class_weights(softmax_cross_entropy(predictions.logits, label), label)
        prior = 0.5 * ((predictions.xy - 0.5).square() + predictions.wh.square()).sum(-1)
        early = (self.seen < config.prior_images) & ~positive
        return {
            "box": config.coord_scale * self._box_loss(predictions, truth, positive, shape) / batch,
            "objectness": objectness.sum() / batch,
            "classification": config.class_scale * torch.where(positive, entropy, 0.0).sum() / batch,
            "prior": PRIOR_SCALE * torch.where(early, prior, 0.0).sum() / batch,
        }

    def _box_loss(self, predictions: Predictions, truth: Tensor, positive: Tensor, shape: tuple[int, int]) -> Tensor:
        """Sum the box losses of ``positive`` predictors against their objects' boxes ``truth`` ``[B, N, 4]``."""
        config = self.config.loss
        boxes = xyxy_to_cxcywh(truth / self.stride)
        if config.box == "squared":
            corner, anchor = self._cells_and_anchors(shape, truth.device)
            offset = (boxes[..., :2] - corner - 0.5) / self.config.reach + 0.5
            log_size = torch.log(boxes[..., 2:].clamp(min=1e-6) / anchor)
            each = 0.5 * ((predictions.xy - offset).square() + (predictions.wh - log_size).square()).sum(-1)
        else:
            each = decoded_box_loss(predictions.boxes, truth, positive, config.box)
        if config.favour_small:
            each = each * (2 - boxes[..., 2:].prod(-1) / (shape[0] * shape[1]))
        return torch.where(positive, each, 0.0).sum()

    def _usable(self, targets: Targets, shape: tuple[int, int]) -> Tensor:
        """Return the objects to train on, bool ``[B, G]``: large enough, and the first ``most_objects`` of them."""
        assign, boxes, (height, width) = self.config.assign, targets.boxes, shape
        least = constant([assign.smallest * width * self.stride, assign.smallest * height * self.stride], boxes.device)
        usable = targets.usable(assign.difficult) & (boxes[..., 2:] - boxes[..., :2] >= least).all(-1)
        return usable if assign.most_objects is None else usable & (usable.cumsum(1) <= assign.most_objects)
