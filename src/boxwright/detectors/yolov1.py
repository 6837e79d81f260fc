"""YOLO, the first: one look, one vector.

Redmon, Divvala, Girshick, Farhadi: You Only Look Once: Unified, Real-Time Object Detection, arXiv 1506.02640.

Symbols: B images, K classes, S x S cells over the input, n boxes a cell (the paper's B), G padded ground truth. Each
cell has K class values; each of its boxes x y (the centre, from the cell's corner in cells), sqrt w, sqrt h (sides as
shares of the input) and a confidence. All are linear outputs of the last layer.

The loss (§2.2) is that of the authors' code, whose gradient is scale * (target - output): half of every squared error,
summed over an image and divided by the images of the batch alone.

    5 * boxes of responsible predictors + their (confidence - IoU)^2 + 0.5 * confidence^2 of all the others
      + (class values - one-hot)^2 of the cells that have an object

A cell has one object, drawn at random from those whose centres lie in it. Responsible for it is the predictor of the
cell that overlaps it most or, while none does, the one that differs least.

Departures: none by default. ``start_size`` and what :class:`DetectionLossConfig` says of "entropy" and "near" are ours,
for the modern recipe: the same network, trained otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from boxwright.anchors.cells import cell_corners, one_hot, pair_up
from boxwright.anchors.sampler import hashed_noise
from boxwright.backbones.build import BackboneConfig, build_backbone
from boxwright.backbones.darknet import DarknetConfig, conv_bn_leaky
from boxwright.backbones.layers.norm import set_norm_momentum
from boxwright.detectors.contract.detector import Detector
from boxwright.detectors.contract.pixels import DARKNET, PixelConfig
from boxwright.geometry.boxes import box_iou, clip_boxes, cxcywh_to_xyxy, distance_iou, pair_iou, xyxy_to_cxcywh
from boxwright.geometry.indexing import take_rows
from boxwright.heads.class_rows import SHARED, of_layer
from boxwright.heads.losses import OverlapLoss, decoded_box_loss
from boxwright.heads.postprocess import PostprocessConfig, multiclass_detections
from boxwright.structures import Classes, DetectionBatch, Images, InputError, Targets


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionLossConfig:
    """The constants of §2.2 and of Darknet's detection layer, and what may replace its rules.

    ``rescore``: the confidence of a responsible predictor learns the IoU of its box, not 1. ``smallest``: objects with
    a side below this share of the input are left out.
    ``kind``: "squared" errors on linear outputs, or "entropy": a sigmoid on the confidence and a softmax over the
    classes, in training and at test. ``overlap``, ``overlap_scale``: 1 - this overlap of the boxes beside the squared
    errors, not in their place: on its own it shrinks a box to a point, where the square of a root has no gradient.
    ``assignment``: an object is learnt in the "cell" of its centre only, or in every cell "near" it too, whose centre
    is less than ``radius`` cells away in x and in y; then the predictors of a cell can have objects of their own,
    those of its own cell first. ``quiet``: predictors that overlap any object by more are not taught that there is
    none; None teaches all, as the paper does.
    """

    coord_scale: float = 5.0
    object_scale: float = 1.0
    noobject_scale: float = 0.5
    class_scale: float = 1.0
    rescore: bool = True
    smallest: float = 0.005
    kind: Literal["squared", "entropy"] = "squared"
    overlap: OverlapLoss | None = None
    overlap_scale: float = 1.0
    assignment: Literal["cell", "near"] = "cell"
    radius: float = 1.0
    quiet: float | None = None

    def __post_init__(self) -> None:
        if self.radius < 0.5:
            raise InputError(f"loss.radius = {self.radius}: at least 0.5 cells, or an object has no cell near it")


@dataclass(frozen=True, kw_only=True)
class YOLOv1Config:
    """Figure 3, and the forms of it that weights exist for.

    ``convs``: channels of 3x3 convolutions with batch norm on the backbone's last map; ours, for backbones that are not
    a YOLOv1 trunk. ``local``: channels of a 3x3 layer with weights of its own at each place
    (Darknet's yolov1.cfg of 2016, in place of a hidden layer). ``hidden``: widths of fully connected layers, with
    batch norm if ``hidden_norm``. ``dropout``: before the last layer.
    ``grid``: S. ``cell``: pixels of a cell; the input has S * cell pixels a side. ``boxes``: n.
    ``layout``: of the last layer: "flat" has the class values of all cells, then all confidences, then all boxes, as
    Darknet; "cells" has for each cell x y w h and confidence of each box, then the class values (§2, S x S x (5n + K)).
    ``start_size``: boxes begin at the middle of their cell with this share of the input as side; 0, as in Darknet,
    begins with biases of zero.
    ``start``: "cells" lets the last layer begin as a 1x1 convolution, so that a cell's outputs see its place on the
    map alone, through weights that all cells share at first: what the convolutions before it learn from one cell then
    serves all. It needs a map of S x S places and no hidden layer.
    ``norm_momentum``: what a new batch weighs in the running statistics of all batch norms; None leaves them as built
    (0.01 in Darknet's layers, too slow for trainings of a few hundred steps).
    """

    kind: Literal["yolov1"] = "yolov1"
    backbone: BackboneConfig = field(
        default_factory=lambda: DarknetConfig(variant="yolov1", norm="none", out_levels=(6,))
    )
    convs: tuple[int, ...] = ()
    local: int | None = None
    hidden: tuple[int, ...] = (4096,)
    hidden_norm: bool = False
    dropout: float = 0.5
    grid: int = 7
    cell: int = 64
    boxes: int = 2
    layout: Literal["flat", "cells"] = "flat"
    start_size: float = 0.0
    start: Literal["normal", "cells"] = "normal"
    loss: DetectionLossConfig = field(default_factory=DetectionLossConfig)
    post: PostprocessConfig = field(
        default_factory=lambda: PostprocessConfig(score_threshold=0.001, nms_iou=0.5, clip=False)
    )
    pixels: PixelConfig = DARKNET
    difficult: bool = True
    norm_momentum: float | None = None

    def __post_init__(self) -> None:
        if self.norm_momentum is not None and not 0 < self.norm_momentum <= 1:
            raise InputError(f"norm_momentum = {self.norm_momentum}: above 0 and at most 1")
        if min(self.grid, self.cell, self.boxes) < 1:
            raise InputError(f"grid {self.grid}, cell {self.cell} and boxes {self.boxes} must each be at least 1")
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout = {self.dropout}: must lie in 0..1, 1 excluded")


class LocalLayer(nn.Module):
    """A convolution with weights of its own at each place (Darknet's ``[local]``): 3x3, padded by 1."""

    def __init__(self, inputs: int, outputs: int, height: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(height * width, outputs, inputs * 9))
        self.bias = nn.Parameter(torch.zeros(outputs, height, width))
        nn.init.normal_(self.weight, std=(2 / (inputs * 9)) ** 0.5)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, inputs, H, W] -> [B, outputs, H, W]``."""
        patches = F.unfold(x, 3, padding=1).permute(2, 1, 0)  # [H * W, inputs * 9, B]
        return torch.bmm(self.weight, patches).permute(2, 1, 0).reshape(-1, *self.bias.shape) + self.bias


class Predictions(NamedTuple):
    """``classes`` ``[B, S * S, K]``, ``confidence`` ``[B, S * S, n]``, ``coded`` ``[B, S * S, n, 4]`` (x y sqrt w sqrt
    h) as the network gives them, and the ``boxes`` ``[B, S * S, n, 4]`` that they mean, in pixels."""

    classes: Tensor
    confidence: Tensor
    coded: Tensor
    boxes: Tensor


class Assignment(NamedTuple):
    """For every predictor the ``truth`` box ``[B, S * S, n, 4]`` that it learns where ``positive``, and how far it
    overlaps it, ``iou``; ``background``: where it learns that there is none; ``classes`` ``[B, S * S, K]``: what cells
    learn where ``occupied``."""

    truth: Tensor
    positive: Tensor
    iou: Tensor
    background: Tensor
    classes: Tensor
    occupied: Tensor


class YOLOv1(Detector):
    """Convolutions, then one fully connected vector for the whole image."""

    def __init__(self, config: YOLOv1Config, classes: Classes) -> None:
        super().__init__(config, classes, config.pixels)
        self.side = config.grid * config.cell
        self.input_size = (self.side, self.side)
        self.backbone = build_backbone(config.backbone)
        level = self.backbone.levels[-1]
        channels, places = level.channels, -(-self.side // level.stride)
        convs = []
        for out in config.convs:
            convs.append(conv_bn_leaky(channels, out, 3))
            channels = out
        self.convs = nn.Sequential(*convs)
        head: list[nn.Module] = []
        if config.local is not None:
            head += [LocalLayer(channels, config.local, places, places), nn.LeakyReLU(0.1)]
            channels = config.local
        head.append(nn.Flatten())
        widths = [channels * places * places, *config.hidden]
        for inputs, out in pairwise(widths):
            norm = [nn.BatchNorm1d(out, momentum=0.01)] if config.hidden_norm else []
            head += [nn.Linear(inputs, out, bias=not norm), *norm, nn.LeakyReLU(0.1)]
        self.hidden = nn.Sequential(*head, nn.Dropout(config.dropout))
        self.output = nn.Linear(widths[-1], config.grid**2 * (len(classes) + 5 * config.boxes))
        self._initialise(places)
        set_norm_momentum(self, config.norm_momentum)

    def _initialise(self, places: int) -> None:
        for layer in self.hidden:
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight, a=0.1)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        nn.init.normal_(self.output.weight, std=0.01)
        nn.init.zeros_(self.output.bias)  # type: ignore[arg-type]
        if self.config.start == "cells":
            if self.config.hidden or places != self.config.grid:
                raise InputError(
                    f"start = 'cells' needs no hidden layer, not {self.config.hidden}, and a map of "
                    f"{self.config.grid} x {self.config.grid} places before the last layer, not {places} x {places}"
                )
            self._start_as_cells()
        if self.config.start_size > 0:
            with torch.no_grad():
                coded = self.predictions(self.output.bias.unsqueeze(0)).coded  # views of the bias, unless meta
                coded[..., :2] = 0.5
                coded[..., 2:] = self.config.start_size**0.5

    @torch.no_grad()
    def _start_as_cells(self) -> None:
        cells = self.config.grid**2
        channels = self.output.in_features // cells
        shared = torch.randn(self.output.out_features // cells, channels) * channels**-0.5
        numbers = self.predictions(torch.arange(self.output.out_features).unsqueeze(0))  # where each output stands
        rows = torch.cat([part[0].flatten(1) for part in numbers[:3]], dim=1)  # [S * S, K + 5n]
        weight = self.output.weight.zero_().view(-1, channels, cells)
        weight[rows, :, torch.arange(cells).unsqueeze(1)] = shared

    def forward(self, images: Images, targets: Targets | None = None) -> dict[str, Tensor] | DetectionBatch:
        """Losses with ``targets``, detections without."""
        self.check_input(images.pixels.shape[2], images.pixels.shape[3])
        (out,) = self.outputs(self.normalise(images))
        found = self.predictions(out.float())
        if targets is None:
            return self._detections(found, images)
        usable = targets.valid & ~targets.crowd
        if not self.config.difficult:
            usable = usable & ~targets.difficult
        return self._losses(found, self._assign(found, targets, usable, self.sample_seeds(images)))

    def class_rows(self) -> dict[str, Tensor]:
        """Class of each row of the layers that tell classes apart."""
        length, foreground = self.output.out_features, torch.arange(len(self.classes))
        of_cells = self.predictions(torch.arange(length).unsqueeze(0)).classes[0]  # positions in the output
        rows = torch.full((length,), SHARED)
        rows[of_cells.flatten()] = foreground.repeat(len(of_cells))
        return of_layer("output", rows)

    def outputs(self, pixels: Tensor) -> list[Tensor]:
        """The vector ``[B, S * S * (K + 5n)]``."""
        return [self.output(self.hidden(self.convs(self.backbone(pixels)[-1])))]

    def predictions(self, out: Tensor) -> Predictions:
        """The parts of the vector ``[B, S * S * (K + 5n)]``, and the boxes in pixels."""
        config, classes = self.config, len(self.classes)
        cells, each = config.grid**2, config.boxes
        if config.layout == "flat":
            ends = [cells * classes, cells * each, cells * each * 4]
            first, second, third = out.split(ends, dim=1)
            parts = (first.unflatten(1, (cells, -1)), second.unflatten(1, (cells, -1)))
            coded = third.unflatten(1, (cells, -1, 4))
        else:
            boxes, last = out.unflatten(1, (cells, -1)).split([5 * each, classes], dim=2)
            boxes = boxes.unflatten(2, (each, 5))
            parts, coded = (last, boxes[..., 4]), boxes[..., :4]
        corner = cell_corners(config.grid, config.grid, out.device).unsqueeze(1)  # [S * S, 1, 2]
        boxes = torch.cat([(coded[..., :2] + corner) * config.cell, coded[..., 2:].square() * self.side], dim=-1)
        return Predictions(*parts, coded, cxcywh_to_xyxy(boxes))

    @torch.no_grad()
    def _detections(self, found: Predictions, images: Images) -> DetectionBatch:
        """Class value times confidence (eq. 1): any class of a box may be a detection; NMS within each class."""
        classes, confidence = found.classes, found.confidence
        if self.config.loss.kind == "entropy":
            classes, confidence = classes.softmax(-1), confidence.sigmoid()
        scores = classes.unsqueeze(2) * confidence.unsqueeze(-1)  # [B, S * S, n, K]
        batch = multiclass_detections(scores.flatten(1, 2), found.boxes.flatten(1, 2), images.sizes, self.config.post)
        # Boxes are cut last, as in Darknet; nothing bounds the scores of linear outputs.
        return batch._replace(boxes=clip_boxes(batch.boxes, images.sizes), scores=batch.scores.clamp(max=1))

    def _losses(self, found: Predictions, wanted: Assignment) -> dict[str, Tensor]:
        """The sums over cells, divided by the images."""
        config, batch = self.config.loss, len(found.classes)
        weight = config.object_scale * wanted.positive + config.noobject_scale * wanted.background
        goal = torch.where(wanted.positive, wanted.iou if config.rescore else 1.0, 0.0)
        if config.kind == "squared":
            confidence = 0.5 * (found.confidence - goal).square()
            classes = 0.5 * (found.classes - wanted.classes).square().sum(-1)
        else:
            confidence = F.binary_cross_entropy_with_logits(found.confidence, goal, reduction="none")
            classes = -(wanted.classes * found.classes.log_softmax(-1)).sum(-1)
        box = 0.5 * config.coord_scale * (found.coded - self._coded(wanted.truth)).square().sum(-1)
        if config.overlap is not None:
            apart = decoded_box_loss(found.boxes, wanted.truth, wanted.positive, config.overlap)
            box = box + config.overlap_scale * apart
        return {
            "box": torch.where(wanted.positive, box, 0.0).sum() / batch,
            "confidence": (weight * confidence).sum() / batch,
            "classification": config.class_scale * torch.where(wanted.occupied, classes, 0.0).sum() / batch,
        }

    def _coded(self, truth: Tensor) -> Tensor:
        """Boxes ``[B, S * S, n, 4]`` in pixels as their cell's predictors state them."""
        boxes = xyxy_to_cxcywh(truth)
        corner = cell_corners(self.config.grid, self.config.grid, truth.device).unsqueeze(1)
        return torch.cat([boxes[..., :2] / self.config.cell - corner, (boxes[..., 2:] / self.side).sqrt()], dim=-1)

    @torch.no_grad()
    def _assign(self, found: Predictions, targets: Targets, usable: Tensor, seeds: Tensor) -> Assignment:
        """Who learns what."""
        config, grid = self.config.loss, self.config.grid
        batch, cells, each = found.confidence.shape
        boxes, labels = targets.boxes, targets.labels
        if boxes.shape[1] == 0:  # one row of padding in place of none: then every maximum below exists
            boxes, labels, usable = boxes.new_zeros(batch, 1, 4), labels.new_zeros(batch, 1), usable.new_zeros(batch, 1)
        usable = usable & ((boxes[..., 2:] - boxes[..., :2]) >= config.smallest * self.side).all(-1)
        centre = (boxes[..., :2] + boxes[..., 2:]) / 2 / self.config.cell  # [B, G, 2], in cells
        corner = cell_corners(grid, grid, boxes.device)
        own = (centre.unsqueeze(2).floor().clamp(0, grid - 1) == corner).all(-1) & usable.unsqueeze(-1)  # [B, G, S * S]
        if config.assignment == "cell":
            lot = hashed_noise(seeds, boxes.shape[1], salt=3).unsqueeze(-1) + 1
            owner = torch.where(own, lot, 0.0).argmax(1)  # [B, S * S]
            truth = take_rows(boxes, owner).unsqueeze(2).expand(-1, -1, each, -1)
            responsible = self._responsible(found, truth)
            positive = responsible & own.any(1).unsqueeze(-1)
            owner = owner.unsqueeze(-1).expand(-1, -1, each)
        else:
            near = ((corner + 0.5 - centre.unsqueeze(2)).abs() < config.radius).all(-1) & usable.unsqueeze(-1)
            # Distance IoU also tells apart, of boxes that do not touch the object, the nearer one.
            fit = distance_iou(found.boxes.unsqueeze(1), boxes[:, :, None, None])  # [B, G, S * S, n]
            key = torch.where((own | near).unsqueeze(-1), fit + 2 * own.unsqueeze(-1), -torch.inf)
            owner, positive = pair_up(key.transpose(1, 2))
            truth = take_rows(boxes, owner.flatten(1)).unflatten(1, (cells, each))
        label = take_rows(labels.unsqueeze(-1), owner.flatten(1)).reshape(batch, cells, each)
        votes = (one_hot(label, len(self.classes)) & positive.unsqueeze(-1)).sum(2).float()  # [B, S * S, K]
        background = ~positive
        if config.quiet is not None:
            overlap = box_iou(boxes, found.boxes.flatten(1, 2)).unflatten(2, (cells, each))  # [B, G, S * S, n]
            background = background & ~((overlap > config.quiet) & usable[..., None, None]).any(1)
        return Assignment(
            truth,
            positive,
            pair_iou(found.boxes, truth),
            background,
            votes / votes.sum(-1, keepdim=True).clamp(min=1),
            positive.any(-1),
        )

    def _responsible(self, found: Predictions, truth: Tensor) -> Tensor:
        """One predictor of each cell, bool ``[B, S * S, n]``: the best overlap, or the least error where none is."""
        iou = pair_iou(found.boxes, truth)
        error = (xyxy_to_cxcywh(found.boxes) - xyxy_to_cxcywh(truth)).square().sum(-1)
        chosen = torch.where(iou.amax(-1) > 0, iou.argmax(-1), error.argmin(-1))
        return one_hot(chosen, self.config.boxes)
