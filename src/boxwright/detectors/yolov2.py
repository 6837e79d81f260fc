"""YOLOv2: anchors, located within their cell.

Redmon, Farhadi: YOLO9000: Better, Faster, Stronger, arXiv 1612.08242.

Symbols: B images, K classes, a anchors, H W cells of the coarsest map (stride s, 32), N = H * W * a predictors in order
y, x, anchor, G padded ground truth. A predictor has five numbers and K class logits: t_x t_y t_w t_h t_o (§2).

    b_x = (sigmoid(t_x) + column) s      b_w = p_w exp(t_w)      objectness = sigmoid(t_o) = Pr(object) * IoU

The loss is that of the authors' code, whose "deltas" are the gradient: each squared term is half a squared error, and
sums over an image are divided by the images of the batch alone. Squared errors of x, y and objectness are taken after
the sigmoid. For every predictor, later rules replace earlier ones:

    1. without an object: objectness towards 0, unless the box overlaps some object by more than ``quiet``;
    2. in the first 12,800 images: the box towards its anchor at the cell's centre, so that training starts calmly;
    3. that owns an object: box, objectness and class towards it. Of two objects on one predictor the later counts.

Departures: none by default. The options after ``box_loss`` are ours, for the modern recipe: the same network, trained
otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from boxwright.anchors.cell_matcher import CellMatcher
from boxwright.anchors.cells import cell_corners
from boxwright.backbones.build import BackboneConfig, build_backbone
from boxwright.backbones.darknet import DarknetConfig, conv_bn_leaky
from boxwright.backbones.layers.norm import set_norm_momentum
from boxwright.detectors.contract.detector import Detector
from boxwright.detectors.contract.pixels import DARKNET, PixelConfig
from boxwright.geometry.boxes import box_iou, clip_boxes, cxcywh_to_xyxy, pair_iou, xyxy_to_cxcywh
from boxwright.geometry.constants import constant
from boxwright.geometry.indexing import take_rows
from boxwright.heads.class_rows import tiled_rows
from boxwright.heads.dense import flatten_map
from boxwright.heads.losses import OverlapLoss, decoded_box_loss, softmax_cross_entropy
from boxwright.heads.postprocess import PostprocessConfig, multiclass_detections
from boxwright.structures import Classes, DetectionBatch, Images, InputError, Targets

Anchors = tuple[tuple[float, float], ...]

# Widths and heights in cells. The paper's network and the one that replaced it in 2017, on VOC and on COCO.
VOC_ANCHORS: Anchors = ((1.08, 1.19), (3.42, 4.41), (6.63, 11.38), (9.42, 5.11), (16.62, 10.52))
COCO_ANCHORS: Anchors = (
    (0.738768, 0.874946), (2.42204, 2.65704), (4.30971, 7.04493), (10.246, 4.59428), (12.6868, 11.8741),
)  # fmt: skip
VOC_ANCHORS_2017: Anchors = (
    (1.3221, 1.73145), (3.19275, 4.00944), (5.05587, 8.09892), (9.47112, 4.84053), (11.2364, 10.0071),
)  # fmt: skip
COCO_ANCHORS_2017: Anchors = (
    (0.57273, 0.677385), (1.87446, 2.06253), (3.33843, 5.47434), (7.88282, 3.52778), (9.77052, 9.16828),
)  # fmt: skip

LOG_SIZE_LIMIT = 8.0  # of t_w and t_h: a box 2981 times its anchor; keeps networks finite that go astray


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionLossConfig:
    """The constants of Darknet's region layer, and what may replace its rules.

    ``quiet``: overlap with any object above which a predictor is not taught that there is none.
    ``rescore``: the objectness of an owner learns the IoU of its box (the paper's Pr * IoU), not 1.
    ``match``: an object goes to the anchor of its cell that overlaps it best in size: the "anchor" itself, or the
    "prediction" made from it (``bias_match=0``).
    ``favour_small``: box terms times 2 - w h, sizes relative to the input; in the code since March 2017, after the
    paper's runs. ``prior_images``, ``prior_scale``: rule 2 above. ``most_objects``: more than these are not looked at
    (None: all). ``smallest``: objects with a side below this share of the input's are left out.
    ``box_loss``: "squared", or an overlap of boxes, in place of the squared errors. ``objectness_loss``: "squared"
    after the sigmoid, or "bce" on the logit with the same target.
    ``assignment``, ``fit``: see :class:`CellMatcher`; "near" needs a ``reach`` of 2 to get there.
    """

    coord_scale: float = 1.0
    object_scale: float = 5.0
    noobject_scale: float = 1.0
    class_scale: float = 1.0
    quiet: float = 0.6
    rescore: bool = True
    match: Literal["anchor", "prediction"] = "anchor"
    favour_small: bool = False
    prior_images: int = 12_800
    prior_scale: float = 0.01
    most_objects: int | None = 30
    smallest: float = 0.001
    box_loss: Literal["squared"] | OverlapLoss = "squared"
    objectness_loss: Literal["squared", "bce"] = "squared"
    assignment: Literal["cell", "near"] = "cell"
    fit: float = 4.0

    def __post_init__(self) -> None:
        if not 0 <= self.quiet <= 1:
            raise InputError(f"loss.quiet = {self.quiet}: an overlap in 0..1; Darknet's is 0.6")
        if self.most_objects is not None and self.most_objects < 1:
            raise InputError(f"loss.most_objects = {self.most_objects}: at least 1, or none for all")


@dataclass(frozen=True, kw_only=True)
class YOLOv2Config:
    """Table 6 with the head of §2, and the two generations of that head.

    ``convs``: 3x3 convolutions on the coarsest map. ``passthrough``: the finer level that joins it, its cells stacked
    (None: none, as in the tiny networks). ``narrow``: channels of a 1x1 convolution before the stacking (None, the
    paper's 512 * 4; 64 in Darknet's cfgs of 2017 and later). ``merged``: the 3x3 convolution after the join.
    ``reorg``: how cells are stacked: in the order of Darknet's layer, which released weights need, or as a true
    "space_to_depth". ``anchors``: widths and heights in cells.
    ``reach``: how far a centre may leave its cell: at 1 it stays inside, at 2 it gets half a cell beyond.
    ``norm_momentum``: what a new batch weighs in the running statistics of all batch norms; None leaves them as built
    (0.01 in Darknet's layers, too slow for trainings of a few hundred steps).
    """

    kind: Literal["yolov2"] = "yolov2"
    backbone: BackboneConfig = field(default_factory=lambda: DarknetConfig(variant="darknet19", out_levels=(4, 5)))
    convs: tuple[int, ...] = (1024, 1024)
    passthrough: str | None = "C4"
    narrow: int | None = None
    reorg: Literal["darknet", "space_to_depth"] = "darknet"
    merged: int = 1024
    anchors: Anchors = VOC_ANCHORS
    reach: float = 1.0
    loss: RegionLossConfig = field(default_factory=RegionLossConfig)
    post: PostprocessConfig = field(
        default_factory=lambda: PostprocessConfig(score_threshold=0.005, nms_iou=0.45, clip=False)
    )
    pixels: PixelConfig = DARKNET
    difficult: bool = True
    norm_momentum: float | None = None

    def __post_init__(self) -> None:
        if self.norm_momentum is not None and not 0 < self.norm_momentum <= 1:
            raise InputError(f"norm_momentum = {self.norm_momentum}: above 0 and at most 1")
        if not 1 <= self.reach <= 3:
            raise InputError(f"reach = {self.reach}: must lie in 1..3; 1 keeps centres in their cell")


class Predictions(NamedTuple):
    """What the N predictors say: sigmoids ``xy`` and raw ``wh`` ``[B, N, 2]``, ``objectness`` logits ``[B, N]``,
    class ``logits`` ``[B, N, K]``, and decoded ``boxes`` ``[B, N, 4]`` in pixels."""

    xy: Tensor
    wh: Tensor
    objectness: Tensor
    logits: Tensor
    boxes: Tensor


def stack_cells(x: Tensor, factor: int, order: Literal["darknet", "space_to_depth"]) -> Tensor:
    """``[B, C, H, W] -> [B, C * f * f, H / f, W / f]``: the cells of each f x f block side by side in the channels.

    Darknet's layer reads the memory of C x H x W as C / f^2 x fH x fW before it takes every f-th row and column, so
    that its outputs mix channels and places; its weights were trained on that.
    """
    batch, channels, height, width = x.shape
    if order == "space_to_depth":
        blocks = x.reshape(batch, channels, height // factor, factor, width // factor, factor)
    else:
        blocks = x.reshape(batch, channels // factor**2, height, factor, width, factor)
    return blocks.permute(0, 3, 5, 1, 2, 4).reshape(batch, -1, height // factor, width // factor)


class YOLOv2(Detector):
    """Backbone, a passthrough from a finer level, and one map of predictors."""

    seen: Tensor

    def __init__(self, config: YOLOv2Config, classes: Classes) -> None:
        super().__init__(config, classes, config.pixels)
        self.backbone = build_backbone(config.backbone)
        loss = config.loss
        self.matcher = CellMatcher(anchors=config.anchors, match=loss.match, reach=loss.assignment, fit=loss.fit)
        levels = {level.name: level for level in self.backbone.levels}
        coarse = self.backbone.levels[-1]
        self.stride = self.input_multiple = coarse.stride
        channels = coarse.channels
        convs = []
        for out in config.convs:
            convs.append(conv_bn_leaky(channels, out, 3))
            channels = out
        self.convs = nn.Sequential(*convs)
        if config.passthrough is not None:
            if config.passthrough not in levels or config.passthrough == coarse.name:
                raise InputError(
                    f"passthrough = {config.passthrough!r}: the backbone gives {', '.join(levels)}; name one before "
                    f"the last ({coarse.name}), or leave it out"
                )
            fine = levels[config.passthrough]
            self.factor = coarse.stride // fine.stride
            self.fine_index = self.backbone.levels.index(fine)
            wide = fine.channels if config.narrow is None else config.narrow
            if config.reorg == "darknet" and wide % self.factor**2:
                raise InputError(
                    f"reorg = 'darknet' needs a multiple of {self.factor**2} channels to stack, but {fine.name} gives "
                    f"{wide}; change narrow, or use reorg = 'space_to_depth'"
                )
            if config.narrow is not None:
                self.narrow = conv_bn_leaky(fine.channels, config.narrow, 1)
            channels += wide * self.factor**2
        self.merged = conv_bn_leaky(channels, config.merged, 3)
        self.output = nn.Conv2d(config.merged, len(config.anchors) * (5 + len(classes)), 1)
        nn.init.normal_(self.output.weight, std=0.01)
        nn.init.zeros_(self.output.bias)  # type: ignore[arg-type]
        set_norm_momentum(self, config.norm_momentum)
        # Images trained on, as Darknet counts them: rule 2 of the loss ends by it, resumed runs included.
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        grouped = torch.distributed.is_available() and torch.distributed.is_initialized()
        self.processes = torch.distributed.get_world_size() if grouped else 1

    def forward(self, images: Images, targets: Targets | None = None) -> dict[str, Tensor] | DetectionBatch:
        """Losses with ``targets``, detections without."""
        self.check_input(images.pixels.shape[2], images.pixels.shape[3])
        (out,) = self.outputs(self.normalise(images))
        found = self.predictions(out)
        if targets is None:
            return self._detections(found, images)
        usable = targets.valid & ~targets.crowd
        if not self.config.difficult:
            usable = usable & ~targets.difficult
        losses = self._losses(found, targets, usable, (out.shape[2], out.shape[3]))
        if self.training:
            self.seen += len(images.pixels) * self.processes
        return losses

    def anchor_shapes(self) -> list[tuple[float, float]]:
        """See :class:`Detector`."""
        return [(width * self.stride, height * self.stride) for width, height in self.config.anchors]

    def class_rows(self) -> dict[str, Tensor]:
        """Class of each row of the layers that tell classes apart."""
        return tiled_rows(self, "output", torch.arange(len(self.classes)), shared=5)

    def outputs(self, pixels: Tensor) -> list[Tensor]:
        """The output map ``[B, a * (5 + K), H, W]``: for each anchor t_x t_y t_w t_h t_o and class logits."""
        maps = self.backbone(pixels)
        x = self.convs(maps[-1])
        if self.config.passthrough is not None:
            fine = maps[self.fine_index]
            if self.config.narrow is not None:
                fine = self.narrow(fine)
            x = torch.cat([stack_cells(fine, self.factor, self.config.reorg), x], dim=1)
        return [self.output(self.merged(x))]

    def predictions(self, out: Tensor) -> Predictions:
        """Decode the output map (§2, "direct location prediction"), in float32."""
        flat = flatten_map(out, 5 + len(self.classes))  # [B, N, 5 + K]
        corner, anchor = self._places((out.shape[2], out.shape[3]), out.device)
        xy, wh = flat[..., :2].sigmoid(), flat[..., 2:4]
        centre = self.config.reach * (xy - 0.5) + 0.5 + corner
        boxes = cxcywh_to_xyxy(torch.cat([centre, anchor * wh.clamp(max=LOG_SIZE_LIMIT).exp()], -1) * self.stride)
        return Predictions(xy, wh, flat[..., 4], flat[..., 5:], boxes)

    def _places(self, shape: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
        """Every predictor's cell (column, row) and anchor (width, height), ``[N, 2]`` each, in cells."""
        corner, anchors = cell_corners(*shape, device), constant(self.config.anchors, device)
        places = torch.stack(
            [corner.unsqueeze(1).expand(-1, len(anchors), -1), anchors.expand(len(corner), -1, -1)]
        ).flatten(1, 2)
        return places[0], places[1]

    @torch.no_grad()
    def _detections(self, found: Predictions, images: Images) -> DetectionBatch:
        """Class probability times objectness; any class of a box may be a detection; NMS within each class."""
        scores = found.objectness.sigmoid().unsqueeze(-1) * found.logits.softmax(-1)  # [B, N, K]
        batch = multiclass_detections(scores, found.boxes, images.sizes, self.config.post)
        return batch._replace(boxes=clip_boxes(batch.boxes, images.sizes))  # last, as in Darknet

    def _losses(
        self, found: Predictions, targets: Targets, usable: Tensor, shape: tuple[int, int]
    ) -> dict[str, Tensor]:
        """The sums over predictors, divided by the images."""
        config, batch = self.config.loss, found.xy.shape[0]
        with torch.no_grad():
            usable = self._looked_at(targets.boxes, usable, shape)
            owner, positive = self.matcher(found.boxes / self.stride, targets.boxes / self.stride, usable, shape)
            truth = take_rows(targets.boxes, owner)  # [B, N, 4]
            label = take_rows(targets.labels.unsqueeze(-1), owner).squeeze(-1)
            overlap = box_iou(found.boxes, targets.boxes)  # [B, N, G]
            quiet = ((overlap > config.quiet) & usable.unsqueeze(1)).any(-1)
            wanted = torch.where(positive, pair_iou(found.boxes, truth) if config.rescore else 1.0, 0.0)
            weight = torch.where(positive, config.object_scale, config.noobject_scale * ~quiet)
        if config.objectness_loss == "squared":
            objectness = 0.5 * weight * (found.objectness.sigmoid() - wanted).square()
        else:
            objectness = weight * F.binary_cross_entropy_with_logits(found.objectness, wanted, reduction="none")
        entropy = softmax_cross_entropy(found.logits, label)
        prior = 0.5 * ((found.xy - 0.5).square() + found.wh.square()).sum(-1)
        young = (self.seen < config.prior_images) & ~positive
        return {
            "box": config.coord_scale * self._box_loss(found, truth, positive, shape) / batch,
            "objectness": objectness.sum() / batch,
            "classification": config.class_scale * torch.where(positive, entropy, 0.0).sum() / batch,
            "prior": config.prior_scale * torch.where(young, prior, 0.0).sum() / batch,
        }

    def _box_loss(self, found: Predictions, truth: Tensor, positive: Tensor, shape: tuple[int, int]) -> Tensor:
        """Owners' boxes against their objects' ``truth`` ``[B, N, 4]``, summed."""
        config = self.config
        boxes = xyxy_to_cxcywh(truth / self.stride)
        if config.loss.box_loss == "squared":
            corner, anchor = self._places(shape, truth.device)
            offset = (boxes[..., :2] - corner - 0.5) / config.reach + 0.5
            log_size = torch.log(boxes[..., 2:].clamp(min=1e-6) / anchor)
            each = 0.5 * ((found.xy - offset).square() + (found.wh - log_size).square()).sum(-1)
        else:
            each = decoded_box_loss(found.boxes, truth, positive, config.loss.box_loss)
        if config.loss.favour_small:
            each = each * (2 - boxes[..., 2:].prod(-1) / (shape[0] * shape[1]))
        return torch.where(positive, each, 0.0).sum()

    def _looked_at(self, boxes: Tensor, usable: Tensor, shape: tuple[int, int]) -> Tensor:
        """The objects that take part, bool ``[B, G]``: large enough, and the first so many."""
        config, (height, width) = self.config.loss, shape
        least = constant([config.smallest * width * self.stride, config.smallest * height * self.stride], boxes.device)
        usable = usable & (boxes[..., 2:] - boxes[..., :2] >= least).all(-1)
        return usable if config.most_objects is None else usable & (usable.cumsum(1) <= config.most_objects)
