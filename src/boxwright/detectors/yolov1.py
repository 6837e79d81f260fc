"""YOLOv1: one network that predicts all boxes and classes of an image as one vector.

Redmon, Divvala, Girshick, Farhadi: You Only Look Once: Unified, Real-Time Object Detection, arXiv 1506.02640.

Symbols: B images, K classes, S x S cells over the input, n boxes a cell (the paper's B), G padded ground truth. Each
cell has K class values. Each of its boxes has x y (the centre, from the cell's corner in cells), sqrt w, sqrt h (sides
as shares of the input) and a confidence. All are linear outputs of the last layer.

The loss (§2.2) is that of the authors' code, whose gradient is scale * (target - output). It is half of every squared
error, summed over an image and divided by the number of images:

    5 * boxes of responsible predictors + their (confidence - IoU)^2 + 0.5 * confidence^2 of all the others
      + (class values - one-hot)^2 of the cells that have an object

A cell has one object, drawn at random from those with their centre in it. The predictor of the cell with the highest
IoU is responsible for it, or that of the least error if no box overlaps it.

Departures: none by default. ``head.start_size``, the loss "entropy" and the assignment "near" belong to the modern
recipe, which trains the same network in another way.
"""

from __future__ import annotations

from dataclasses import field
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from boxwright.anchors.cells import cell_corners
from boxwright.anchors.matching.cell_assignment import CellAssignConfig, CellAssignment, assign_to_cells
from boxwright.backbones.build import BackboneConfig, build_backbone
from boxwright.backbones.darknet import DarknetConfig, conv_bn_leaky
from boxwright.backbones.darknet_layers import DarknetLayers
from boxwright.backbones.layers.local import LocalLayer
from boxwright.backbones.layers.norm import set_norm_momentum
from boxwright.detectors.contract.detector import Detector
from boxwright.detectors.contract.pixels import DARKNET, PixelConfig
from boxwright.fields import Count, Fraction, NotNegative, PositiveShare, Share, config
from boxwright.geometry.boxes import clip_boxes, cxcywh_to_xyxy, xyxy_to_cxcywh
from boxwright.heads.class_rows import SHARED, of_layer
from boxwright.heads.losses import OverlapLoss, decoded_box_loss
from boxwright.heads.postprocess import PostprocessConfig, multiclass_detections
from boxwright.structures import Classes, DetectionBatch, Images, InputError, Targets


@config
class YOLOv1HeadConfig:
    """Layers above the backbone (figure 3), and the forms of them that weights exist for."""

    convs: tuple[Count, ...] = ()
    """Channels of 3x3 convolutions with batch norm, for backbones that are no trunk of YOLOv1."""
    local: Count | None = None
    """Channels of a locally connected 3x3 layer (Darknet's yolov1.cfg of 2016). None: no such layer."""
    hidden: tuple[Count, ...] = (4096,)
    """Widths of the hidden fully connected layers."""
    hidden_norm: bool = False
    """Batch norm after the hidden layers."""
    dropout: Fraction = 0.5
    """Dropout before the last layer."""
    layout: Literal["flat", "cells"] = "flat"
    """Order of the outputs. "flat": class values of all cells, all confidences, all boxes (Darknet). "cells": for each
    cell x y w h and confidence of each box, then the class values (§2)."""
    sides: Literal["roots", "shares"] = "roots"
    """Outputs of a box's width and height: the square roots of its shares of the input (§2.2), or the shares
    themselves (Darknet's sqrt=0)."""
    start: Literal["normal", "cells"] = "normal"
    """Initial weights of the last layer. "cells": a 1x1 convolution, so that all cells share them at first. It needs a
    map of S x S positions and no hidden layer."""
    start_size: Share = 0.0
    """Side of the initial boxes, centred in their cells, as a share of the input. 0: biases of 0 (Darknet)."""


@config
class DetectionLossConfig:
    """Constants of §2.2 and of Darknet's detection layer, and the losses of the modern recipe."""

    coord_scale: NotNegative = 5.0
    """Weight of the box loss."""
    object_scale: NotNegative = 1.0
    """Weight of the confidence loss of responsible predictors."""
    noobject_scale: NotNegative = 0.5
    """Weight of the confidence loss of all other predictors."""
    class_scale: NotNegative = 1.0
    """Weight of the classification loss."""
    rescore: bool = True
    """Confidence target of a responsible predictor: the IoU of its box, or 1 if false."""
    kind: Literal["squared", "softmax", "entropy"] = "squared"
    """"squared": linear outputs. "softmax": a softmax for the classes, trained with cross-entropy (Darknet's
    softmax=1). "entropy": that, and a sigmoid for the confidence, trained alike."""
    overlap: OverlapLoss | None = None
    """Overlap loss of the boxes, added to the squared errors. Alone it would shrink a box to a point, where the square
    of a root has no gradient."""
    overlap_scale: NotNegative = 1.0
    """Weight of ``overlap``."""


@config
class YOLOv1Config:
    """Constants of the paper (figure 3, §2)."""

    kind: Literal["yolov1"] = "yolov1"
    """Name of the detector in recipes."""
    backbone: BackboneConfig = field(
        default_factory=lambda: DarknetConfig(variant="yolov1", norm="none", out_levels=(6,))
    )
    """Backbone, whose last map the head reads (figure 3)."""
    head: YOLOv1HeadConfig = field(default_factory=YOLOv1HeadConfig)
    """Layers above the backbone."""
    grid: Count = 7
    """Cells in a row, S."""
    cell: Count = 64
    """Side of a cell in pixels; the input has S * cell pixels a side."""
    boxes: Count = 2
    """Boxes of a cell, n."""
    assign: CellAssignConfig = field(default_factory=CellAssignConfig)
    """Assignment of objects to cells and predictors (§2)."""
    loss: DetectionLossConfig = field(default_factory=DetectionLossConfig)
    """Loss (§2.2)."""
    post: PostprocessConfig = field(
        default_factory=lambda: PostprocessConfig(score_threshold=0.001, nms_iou=0.5, clip=False)
    )
    """Post-processing, as in Darknet."""
    clip_scores: bool = True
    """Cut scores at 1, which linear outputs may exceed. Darknet does not, so that detections of its files may."""
    pixels: PixelConfig = DARKNET
    """Normalisation of the pixels, that of Darknet."""
    norm_momentum: PositiveShare | None = None
    """Momentum of all batch norms, the weight of a new batch. None: Darknet's 0.01, too slow for short training."""


class Predictions(NamedTuple):
    """``classes`` ``[B, S * S, K]``, ``confidence`` ``[B, S * S, n]`` and ``coded`` ``[B, S * S, n, 4]`` (x y sqrt w
    sqrt h) as the network outputs them, and the decoded ``boxes`` ``[B, S * S, n, 4]`` in pixels."""

    classes: Tensor
    confidence: Tensor
    coded: Tensor
    boxes: Tensor


class YOLOv1(Detector):
    """Convolutions, then one fully connected vector for the whole image."""

    def __init__(self, config: YOLOv1Config, classes: Classes) -> None:
        super().__init__(config, classes, config.pixels)
        self.side = config.grid * config.cell
        self.input_size = (self.side, self.side)
        self.backbone = build_backbone(config.backbone)
        level = self.backbone.levels[-1]
        channels, side = level.channels, -(-self.side // level.stride)
        rows, columns = self.backbone.map_size if isinstance(self.backbone, DarknetLayers) else (side, side)
        convs = []
        for out in config.head.convs:
            convs.append(conv_bn_leaky(channels, out, 3))
            channels = out
        self.convs = nn.Sequential(*convs)
        head: list[nn.Module] = []
        if config.head.local is not None:
            head += [LocalLayer(channels, config.head.local, rows, columns), nn.LeakyReLU(0.1)]
            channels = config.head.local
        head.append(nn.Flatten())
        widths = [channels * rows * columns, *config.head.hidden]
        for inputs, out in pairwise(widths):
            norm = [nn.BatchNorm1d(out, momentum=0.01)] if config.head.hidden_norm else []
            head += [nn.Linear(inputs, out, bias=not norm), *norm, nn.LeakyReLU(0.1)]
        self.hidden = nn.Sequential(*head, nn.Dropout(config.head.dropout))
        self.output = nn.Linear(widths[-1], config.grid**2 * (len(classes) + 5 * config.boxes))
        self._initialise((rows, columns))
        set_norm_momentum(self, config.norm_momentum)

    def forward(self, images: Images, targets: Targets | None = None) -> dict[str, Tensor] | DetectionBatch:
        """Return three losses with ``targets``, detections without."""
        self.check_input(images.pixels.shape[2], images.pixels.shape[3])
        (out,) = self.outputs(self.normalise(images))
        predictions = self.predictions(out.float())
        if targets is None:
            return self.detections(predictions, images)
        return self.losses(predictions, self.assign(predictions.boxes, targets, self.sample_seeds(images)))

    def class_rows(self) -> dict[str, Tensor]:
        """Return the class of each row of the layers that distinguish classes."""
        length, foreground = self.output.out_features, torch.arange(len(self.classes))
        of_cells = self.predictions(torch.arange(length).unsqueeze(0)).classes[0]  # positions in the output
        rows = torch.full((length,), SHARED)
        rows[of_cells.flatten()] = foreground.repeat(len(of_cells))
        return of_layer("output", rows)

    def outputs(self, pixels: Tensor) -> list[Tensor]:
        """Return the vector ``[B, S * S * (K + 5n)]``."""
        return [self.output(self.hidden(self.convs(self.backbone(pixels)[-1])))]

    def predictions(self, out: Tensor) -> Predictions:
        """Split the vector ``[B, S * S * (K + 5n)]`` and decode the boxes."""
        config, classes = self.config, len(self.classes)
        cells, each = config.grid**2, config.boxes
        if config.head.layout == "flat":
            ends = [cells * classes, cells * each, cells * each * 4]
            first, second, third = out.split(ends, dim=1)
            parts = (first.unflatten(1, (cells, -1)), second.unflatten(1, (cells, -1)))
            coded = third.unflatten(1, (cells, -1, 4))
        else:
            boxes, last = out.unflatten(1, (cells, -1)).split([5 * each, classes], dim=2)
            boxes = boxes.unflatten(2, (each, 5))
            parts, coded = (last, boxes[..., 4]), boxes[..., :4]
        corner = cell_corners(config.grid, config.grid, out.device).unsqueeze(1)  # [S * S, 1, 2]
        sides = coded[..., 2:].square() if config.head.sides == "roots" else coded[..., 2:]
        boxes = torch.cat([(coded[..., :2] + corner) * config.cell, sides * self.side], dim=-1)
        return Predictions(*parts, coded, cxcywh_to_xyxy(boxes))

    @torch.no_grad()
    def detections(self, predictions: Predictions, images: Images) -> DetectionBatch:
        """Score each box and class by confidence times class value (eq. 1), and run NMS per class."""
        classes, confidence = predictions.classes, predictions.confidence
        if self.config.loss.kind != "squared":
            classes = classes.softmax(-1)
        if self.config.loss.kind == "entropy":
            confidence = confidence.sigmoid()
        scores = (classes.unsqueeze(2) * confidence.unsqueeze(-1)).flatten(1, 2)  # [B, S * S * n, K]
        boxes = predictions.boxes.flatten(1, 2)
        batch = multiclass_detections(scores, boxes, images.sizes, self.config.post, images.scales)
        # Boxes are clipped last, as in Darknet.
        limited = batch.scores.clamp(max=1) if self.config.clip_scores else batch.scores
        return batch._replace(boxes=clip_boxes(batch.boxes, images.sizes), scores=limited)

    def assign(self, boxes: Tensor, targets: Targets, seeds: Tensor) -> CellAssignment:
        """Assign objects to the predictors of ``boxes`` ``[B, S * S, n, 4]``."""
        return assign_to_cells(self.config.assign, boxes, targets, seeds, self.config.cell, len(self.classes))

    def losses(self, predictions: Predictions, assigned: CellAssignment) -> dict[str, Tensor]:
        """Compute the loss of §2.2, as the head of this file states it."""
        config, batch = self.config.loss, len(predictions.classes)
        weight = config.object_scale * assigned.positive + config.noobject_scale * assigned.background
        goal = torch.where(assigned.positive, assigned.iou if config.rescore else 1.0, 0.0)
        if config.kind == "entropy":
            confidence = F.binary_cross_entropy_with_logits(predictions.confidence, goal, reduction="none")
        else:
            confidence = 0.5 * (predictions.confidence - goal).square()
        if config.kind == "squared":
            classes = 0.5 * (predictions.classes - assigned.classes).square().sum(-1)
        else:
            classes = -(assigned.classes * predictions.classes.log_softmax(-1)).sum(-1)
        classes = self.class_weights(classes, assigned.classes)
        box = 0.5 * config.coord_scale * (predictions.coded - self.encode(assigned.truth)).square().sum(-1)
        if config.overlap is not None:
            overlap = decoded_box_loss(predictions.boxes, assigned.truth, assigned.positive, config.overlap)
            box = box + config.overlap_scale * overlap
        return {
            "box": torch.where(assigned.positive, box, 0.0).sum() / batch,
            "confidence": (weight * confidence).sum() / batch,
            "classification": config.class_scale * torch.where(assigned.occupied, classes, 0.0).sum() / batch,
        }

    def encode(self, truth: Tensor) -> Tensor:
        """Encode boxes ``[B, S * S, n, 4]`` in pixels as the x y sqrt w sqrt h of their cells, see ``head.sides``."""
        boxes = xyxy_to_cxcywh(truth)
        corner = cell_corners(self.config.grid, self.config.grid, truth.device).unsqueeze(1)
        sides = boxes[..., 2:] / self.side
        sides = sides.sqrt() if self.config.head.sides == "roots" else sides
        return torch.cat([boxes[..., :2] / self.config.cell - corner, sides], dim=-1)

    def _initialise(self, shape: tuple[int, int]) -> None:
        """Initialise the fully connected layers. ``shape``: rows and columns of the map before them."""
        head, grid = self.config.head, self.config.grid
        for layer in self.hidden:
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight, a=0.1)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        nn.init.normal_(self.output.weight, std=0.01)
        nn.init.zeros_(self.output.bias)  # type: ignore[arg-type]
        if head.start == "cells":
            if head.hidden or shape != (grid, grid):
                raise InputError(
                    f"head.start = 'cells' needs no hidden layer, not {head.hidden}, and a map of "
                    f"{grid} x {grid} positions before the last layer, not {shape[0]} x {shape[1]}"
                )
            self._share_cells()
        if head.start_size > 0:
            with torch.no_grad():
                coded = self.predictions(self.output.bias.unsqueeze(0)).coded  # views of the bias, unless meta
                coded[..., :2] = 0.5
                coded[..., 2:] = head.start_size**0.5 if head.sides == "roots" else head.start_size

    @torch.no_grad()
    def _share_cells(self) -> None:
        """Initialise the last layer as a 1x1 convolution."""
        cells = self.config.grid**2
        channels = self.output.in_features // cells
        shared = torch.randn(self.output.out_features // cells, channels) * channels**-0.5
        index = self.predictions(torch.arange(self.output.out_features).unsqueeze(0))  # position of each output
        rows = torch.cat([part[0].flatten(1) for part in index[:3]], dim=1)  # [S * S, K + 5n]
        weight = self.output.weight.zero_().view(-1, channels, cells)
        weight[rows, :, torch.arange(cells).unsqueeze(1)] = shared
