"""RefineDet: anchors are refined once before they are classified.

Zhang, Wen, Bian, Lei, Li: Single-Shot Refinement Neural Network for Object Detection, arXiv 1711.06897 (CVPR 2018).

Symbols: B images, K classes (logits have background as column K), A anchors over the pyramid, a anchors in a cell,
C channels.

The anchor refinement module (ARM, §3) tells objects from background on the backbone's maps and moves the anchors;
transfer connection blocks (TCB) turn those maps into an FPN-like pyramid; the object detection module (ODM) classifies
the refined anchors there and moves them again. What the ODM takes from the ARM, refined anchors and objectness, is
constant to its loss: no gradient flows back through it.

Where the paper is silent or in doubt, the defaults are those of its own Caffe code: 2x2 transposed convolutions (figure
2 shows 4x4), a filter that takes negatives only, a match from an IoU of exactly the threshold on.

Departures: boxes are cut to the image before NMS (an option, ``post.clip``) and not to its last pixel after it; ResNets
have torchvision's stem (an option, ``backbone.stem_pool``: Caffe's first pool has no padding); new batch norms average
their statistics over 10 batches, not 1000.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from boxwright.anchors.atss import ATSSMatcher
from boxwright.anchors.bipartite import BipartiteMatcher
from boxwright.anchors.coder import BoxCoder
from boxwright.anchors.generator import AnchorConfig, AnchorGenerator
from boxwright.anchors.matcher import Matches
from boxwright.anchors.sampler import hard_negatives
from boxwright.backbones.build import BackboneConfig, build_backbone
from boxwright.backbones.layers.blocks import Bottleneck, ResidualStage
from boxwright.backbones.layers.norm import ConvNormAct, L2Norm, make_norm
from boxwright.backbones.vgg import VGGConfig
from boxwright.detectors.contract.detector import Detector
from boxwright.detectors.contract.pixels import CAFFE_SSD, PixelConfig
from boxwright.detectors.contract.preparation import Preparation
from boxwright.geometry.indexing import take_rows
from boxwright.heads.class_rows import tiled_rows
from boxwright.heads.dense import flatten_map
from boxwright.heads.losses import BoxLoss, box_regression_loss, softmax_cross_entropy
from boxwright.heads.postprocess import PostprocessConfig, multiclass_detections
from boxwright.structures import Classes, DetectionBatch, Images, InputError, Level, Targets

# §3.1: four times the stride, and no second square as in SSD.
PAPER_ANCHORS = AnchorConfig(sizes=((32,), (64,), (128,), (256,)), ratios=(1.0, 2.0, 0.5), ratio="w/h", centre="cell")
# §3.3; the released scripts take 1000 boxes of each class and keep 500.
PAPER_POST = PostprocessConfig(score_threshold=0.01, nms_iou=0.45, candidates=400, detections=200)


@dataclass(frozen=True, kw_only=True)
class RefineDetConfig:
    """The paper's constants; the defaults are RefineDet with VGG-16 (§3.1 to §3.3, §4).

    ``top``: what makes one more map from the backbone's last: two "convs" (VGG: conv6_1, conv6_2), a "residual" block
    (ResNet: res6) or "none"; ``top_channels``: its hidden and outer width. ``l2_scales``: start of the L2 norm on each
    map, None for no norm. ``channels``: width of the TCBs. ``norm``: after every new convolution except those of the
    heads. ``head_block``: hidden width of a residual block before every head, four times as wide outside (ResNet: 256).
    ``deconv``: kernel of the transposed convolutions. ``start``: what new layers are drawn from: "caffe", xavier by
    fan-in, and a Gaussian of 0.01 where a norm follows (the released code); "paper", xavier, and that Gaussian in a
    residual ``top`` alone; "glorot", xavier by fan-in and fan-out (PyTorch ports).
    ``anchors``: §3.1, one size a level; ``clip_sides``: no anchor wider or higher than the input (luuuyi's port).
    ``two_step``: whether the ODM starts from the ARM's boxes (table 3). ``tcb``: or its heads read the backbone's maps.
    ``floor``: anchors of less objectness are filtered, 0 filters nothing (the paper's theta is 1 - floor).
    ``filtered``: "negatives" leave the mining, positives never go; "positives" (luuuyi's port) drops those instead, and
    may then mine them as if they were hard negatives. At inference filtered anchors give no detection either way.
    ``arm_iou``, ``odm_iou``: positive at or above the first, negative below the second; the author later advised
    (0.7, 0.3) for the ARM. ``forced``: how every object gets its best anchor, see :class:`BipartiteMatcher`.
    ``arm_assigner``: "atss" with ``topk`` anchors of each map in place of IoU. ``negative_ratio``: hard negatives for
    each positive; ``min_negatives``: but at least so many, for images without objects (paper: 0).
    ``box_losses``, ``box_weights``: of ARM and ODM. ``weights``, ``clamp``: of the box offsets, see :class:`BoxCoder`.
    ``difficult``: whether boxes marked difficult are trained on (the Caffe code does on VOC, ports do not).
    """

    kind: Literal["refinedet"] = "refinedet"
    backbone: BackboneConfig = field(
        default_factory=lambda: VGGConfig(fc="reduced", fc6_dilation=3, pool5="2x2s2", out_levels=(4, 5, 6))
    )
    top: Literal["convs", "residual", "none"] = "convs"
    top_channels: tuple[int, int] = (256, 512)
    l2_scales: tuple[float | None, ...] = (10.0, 8.0, None, None)
    l2_eps: Literal["sum", "root"] = "sum"
    channels: int = 256
    norm: Literal["none", "bn", "frozen_bn", "gn"] = "none"
    head_block: int | None = None
    deconv: Literal[2, 4] = 2
    start: Literal["caffe", "paper", "glorot"] = "caffe"
    anchors: AnchorConfig = PAPER_ANCHORS
    clip_sides: bool = False
    two_step: bool = True
    tcb: bool = True
    floor: float = 0.01
    filtered: Literal["negatives", "positives"] = "negatives"
    arm_iou: tuple[float, float] = (0.5, 0.5)
    odm_iou: tuple[float, float] = (0.5, 0.5)
    forced: Literal["greedy", "parallel"] = "greedy"
    arm_assigner: Literal["iou", "atss"] = "iou"
    topk: int = 9
    negative_ratio: float = 3.0
    min_negatives: int = 0
    box_losses: tuple[BoxLoss, BoxLoss] = ("smooth_l1", "smooth_l1")
    box_weights: tuple[float, float] = (1.0, 1.0)
    weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)
    clamp: float | None = None
    difficult: bool = True
    pixels: PixelConfig = CAFFE_SSD
    post: PostprocessConfig = PAPER_POST

    def __post_init__(self) -> None:
        if not 0 <= self.floor < 1:
            raise InputError(f"floor = {self.floor}: an objectness in 0..1, below 1; 0 filters nothing")
        if self.negative_ratio <= 0 or self.min_negatives < 0:
            raise InputError(
                f"negative_ratio = {self.negative_ratio} must be above 0 and min_negatives = {self.min_negatives} not "
                "below it"
            )
        if self.channels < 8 or min(self.top_channels) < 8:
            raise InputError(f"channels = {self.channels} and top_channels = {self.top_channels}: at least 8 each")


class Outputs(NamedTuple):
    """Raw outputs: ``arm_deltas``, ``odm_deltas`` ``[B, A, 4]``; ``arm_logits`` ``[B, A, 2]`` for object, background;
    ``odm_logits`` ``[B, A, K + 1]``."""

    arm_deltas: Tensor
    arm_logits: Tensor
    odm_deltas: Tensor
    odm_logits: Tensor

    @property
    def objectness(self) -> Tensor:
        """The ARM's softmax over two as one logit, ``[B, A]``."""
        return self.arm_logits[..., 0] - self.arm_logits[..., 1]


class RefineDet(Detector):
    """Backbone, anchor refinement, transfer connection, object detection."""

    def __init__(self, config: RefineDetConfig, classes: Classes) -> None:
        super().__init__(config, classes, config.pixels)
        self.backbone = build_backbone(config.backbone)
        levels = list(self.backbone.levels)
        self.top = build_top(config, levels[-1])
        if self.top is not None:
            above = int(levels[-1].name.removeprefix("C")) + 1
            levels.append(Level(f"C{above}", levels[-1].stride * 2, config.top_channels[1]))
        if len(config.l2_scales) != len(levels):
            names = ", ".join(level.name for level in levels)
            raise InputError(f"l2_scales = {config.l2_scales}: give one, or none, for each of the maps {names}")
        self.l2 = nn.ModuleList(
            nn.Identity() if scale is None else L2Norm(level.channels, scale, config.l2_eps)
            for level, scale in zip(levels, config.l2_scales, strict=True)
        )
        self.anchors = AnchorGenerator(config.anchors, levels)
        per_cell, widths = self.anchors.per_cell, [level.channels for level in levels]
        self.arm = AnchorHeads(widths, per_cell, 2, config)
        self.tcb = TransferBlocks(levels, config) if config.tcb else None
        widths = [config.channels] * len(levels) if config.tcb else widths
        self.odm = AnchorHeads(widths, per_cell, len(classes) + 1, config)
        for part in (self.top, self.arm, self.tcb, self.odm):
            initialise(part, config.start, gaussian=part is self.top)
        self.coder = BoxCoder(weights=config.weights, clamp=config.clamp)
        self.arm_matcher, self.odm_matcher = (
            BipartiteMatcher(positive=positive, negative=negative, strategy=config.forced)
            for positive, negative in (config.arm_iou, config.odm_iou)
        )
        self.atss = ATSSMatcher(topk=config.topk)
        # Every map is the one above it, doubled, so all strides must divide the input.
        self.input_multiple = max(level.stride for level in levels)
        self.preparation = Preparation(pad_multiple=self.input_multiple)

    def forward(self, images: Images, targets: Targets | None = None) -> dict[str, Tensor] | DetectionBatch:
        """Four losses with ``targets``, detections without."""
        height, width = images.pixels.shape[-2:]
        self.check_input(height, width)
        sources = self.sources(self.normalise(images))
        out = self.heads(sources)
        shapes = [(source.shape[2], source.shape[3]) for source in sources]
        anchors = self.anchors(shapes, sources[0].device)
        if self.config.clip_sides:
            anchors = with_sides_within(anchors, height, width)
        if targets is None:
            return self._detections(images, out, anchors)
        counts = [h * w * a for (h, w), a in zip(shapes, self.anchors.per_cell, strict=True)]
        return self._losses(targets, out, anchors, counts)

    def anchor_shapes(self) -> list[tuple[float, float]]:
        """See :class:`Detector`."""
        return self.anchors.shapes

    def class_rows(self) -> dict[str, Tensor]:
        """Class of each row of the layers that tell classes apart."""
        classes, rows = torch.arange(len(self.classes) + 1), dict[str, Tensor]()
        for i in range(len(self.odm.convs)):
            rows |= tiled_rows(self, f"odm.convs.{i}", classes, shared=4)
        return rows

    def outputs(self, pixels: Tensor) -> list[Tensor]:
        """Offsets and logits of the ARM, then of the ODM, as in :class:`Outputs`."""
        return list(self.heads(self.sources(pixels)))

    def sources(self, pixels: Tensor) -> list[Tensor]:
        """The maps that ARM and TCB read, ``[B, C, h, w]`` a level: the backbone goes on from the plain ones (§3.1)."""
        maps = self.backbone(pixels)
        if self.top is not None:
            maps = [*maps, self.top(maps[-1])]
        return [norm(fmap) for norm, fmap in zip(self.l2, maps, strict=True)]

    def heads(self, sources: Sequence[Tensor]) -> Outputs:
        """ARM on the sources, ODM on what the TCBs make of them."""
        pyramid = sources if self.tcb is None else self.tcb(sources)
        return Outputs(*self.arm(sources), *self.odm(pyramid))

    def refined(self, anchors: Tensor, out: Outputs) -> Tensor:
        """The boxes ``[B, A, 4]`` from which the ODM starts; constant to its loss."""
        deltas = out.arm_deltas.detach()
        return self.coder.decode(anchors, deltas) if self.config.two_step else anchors.expand_as(deltas)

    def _detections(self, images: Images, out: Outputs, anchors: Tensor) -> DetectionBatch:
        boxes = self.coder.decode(self.refined(anchors, out), out.odm_deltas)
        kept = out.objectness.sigmoid() >= self.config.floor
        scores = out.odm_logits.softmax(-1)[..., :-1] * kept.unsqueeze(-1)
        return multiclass_detections(scores, boxes, images.sizes, self.config.post)

    def _losses(self, targets: Targets, out: Outputs, anchors: Tensor, counts: list[int]) -> dict[str, Tensor]:
        """Equation 1: each module's two terms are divided by its own number of positives in the batch."""
        config = self.config
        usable = targets.valid & ~targets.crowd
        if not config.difficult:
            usable = usable & ~targets.difficult
        truth = targets.boxes, usable, targets.crowd & targets.valid
        with torch.no_grad():
            refined = self.refined(anchors, out)
            if config.arm_assigner == "atss":
                arm = self.atss(anchors, counts, *truth)
            else:
                arm = self.arm_matcher(anchors, *truth)
            odm = self.odm_matcher(refined, *truth)
            own = take_rows(targets.labels.unsqueeze(-1), odm.truth).squeeze(-1)
            labels = torch.where(odm.positive, own, len(self.classes))  # [B, A]
            odm = self.filtered(odm, out.objectness.sigmoid())
        arm_ce = F.binary_cross_entropy_with_logits(out.objectness, arm.positive.float(), reduction="none")
        odm_ce = softmax_cross_entropy(out.odm_logits, labels)
        return {
            "arm_objectness": self._classification(arm_ce, arm),
            "arm_box": self._box(0, out.arm_deltas, anchors, targets.boxes, arm),
            "odm_classification": self._classification(odm_ce, odm),
            "odm_box": self._box(1, out.odm_deltas, refined, targets.boxes, odm),
        }

    def filtered(self, matches: Matches, objectness: Tensor) -> Matches:
        """Negative anchor filtering (§3.3): what the ARM is sure to be background is no candidate for mining."""
        kept = objectness >= self.config.floor
        if self.config.filtered == "negatives":
            return matches._replace(negative=matches.negative & kept)
        positive = matches.positive & kept
        return matches._replace(positive=positive, negative=~positive)

    def _classification(self, ce: Tensor, matches: Matches) -> Tensor:
        """Cross entropy ``[B, A]`` of positives and of the hardest negatives, over the number of positives."""
        config = self.config
        hard = hard_negatives(ce.detach(), matches, config.negative_ratio, minimum=config.min_negatives)
        return torch.where(matches.positive | hard, ce, 0.0).sum() / matches.positive.sum().clamp(min=1)

    def _box(self, module: int, deltas: Tensor, reference: Tensor, boxes: Tensor, matches: Matches) -> Tensor:
        config, target = self.config, take_rows(boxes, matches.truth)
        kind, weight = config.box_losses[module], config.box_weights[module]
        loss = box_regression_loss(deltas, reference, target, matches.positive, self.coder, kind, beta=1.0)
        return weight * loss / matches.positive.sum().clamp(min=1)


class AnchorHeads(nn.Module):
    """For each map one 3x3 convolution that gives the offsets and logits of every anchor in a cell."""

    def __init__(self, widths: Sequence[int], per_cell: Sequence[int], logits: int, config: RefineDetConfig) -> None:
        super().__init__()
        self.outputs = 4 + logits
        hidden = config.head_block
        self.blocks = nn.ModuleList(
            nn.Identity() if hidden is None else residual(width, hidden, 4 * hidden, 1, config.norm) for width in widths
        )
        inputs = widths if hidden is None else [4 * hidden] * len(widths)
        self.convs = nn.ModuleList(
            nn.Conv2d(width, cell * self.outputs, 3, padding=1) for width, cell in zip(inputs, per_cell, strict=True)
        )

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Maps ``[B, C, h, w]`` to offsets ``[B, A, 4]`` and logits ``[B, A, ...]``, in the order of the anchors."""
        rows = [
            flatten_map(conv(block(fmap)), self.outputs)
            for conv, block, fmap in zip(self.convs, self.blocks, maps, strict=True)
        ]
        out = torch.cat(rows, dim=1)
        return out[..., :4], out[..., 4:]


class TransferBlocks(nn.Module):
    """Transfer connection blocks (§3.2, figure 2): each map, plus the doubled one above it, to a common width."""

    def __init__(self, levels: Sequence[Level], config: RefineDetConfig) -> None:
        super().__init__()
        width, norm, kernel = config.channels, config.norm, config.deconv
        relu = nn.ReLU(inplace=True)
        self.lateral = nn.ModuleList(
            nn.Sequential(
                ConvNormAct(level.channels, width, 3, norm=norm, act=relu),
                ConvNormAct(width, width, 3, norm=norm, act=None),  # the ReLU follows the sum
            )
            for level in levels
        )
        self.up = nn.ModuleList()
        for here, above in pairwise(levels):
            if above.stride not in (here.stride, 2 * here.stride):
                raise InputError(
                    f"maps {here.name} and {above.name} have strides {here.stride} and {above.stride}; a transfer "
                    "block joins equal strides, or one that is twice the other"
                )
            if above.stride == here.stride:  # DetNet's later stages: maps of one size are added as they are
                self.up.append(nn.Identity())
                continue
            deconv = nn.ConvTranspose2d(width, width, kernel, 2, (kernel - 2) // 2, bias=norm == "none")
            self.up.append(nn.Sequential(deconv, make_norm(norm, width)))
        self.smooth = nn.ModuleList(ConvNormAct(width, width, 3, norm=norm, act=relu) for _ in levels)

    def forward(self, sources: Sequence[Tensor]) -> list[Tensor]:
        """``[B, C, h, w]`` of every level to ``[B, channels, h, w]``."""
        pyramid: list[Tensor] = []
        for i in reversed(range(len(sources))):
            fmap = self.lateral[i](sources[i])
            if pyramid:
                fmap = fmap.add_(self.up[i](pyramid[0]))  # in place: no convolution or norm keeps its output
            pyramid.insert(0, self.smooth[i](F.relu_(fmap)))
        return pyramid


def residual(inputs: int, hidden: int, outputs: int, stride: int, norm: str) -> Bottleneck:
    """A bottleneck whose shortcut has a projection."""
    stage = ResidualStage(number=6, block="bottleneck", blocks=1, mid=hidden, out=outputs)
    return Bottleneck(inputs, stage, stride, 1, True, norm, stride_in_1x1=True)


def build_top(config: RefineDetConfig, last: Level) -> nn.Module | None:
    """The layers that make one more map, of twice the stride, from the backbone's ``last``."""
    hidden, width = config.top_channels
    match config.top:
        case "none":
            return None
        case "residual":
            return residual(last.channels, hidden, width, 2, config.norm)
        case "convs":
            relu = nn.ReLU(inplace=True)
            return nn.Sequential(
                ConvNormAct(last.channels, hidden, 1, norm=config.norm, act=relu),
                ConvNormAct(hidden, width, 3, 2, norm=config.norm, act=relu),
            )


@torch.no_grad()
def initialise(part: nn.Module | None, start: str, gaussian: bool) -> None:
    """Fresh weights for layers that no pretrained file brings, as ``RefineDetConfig.start`` says; biases 0.

    ``gaussian``: where a norm follows, the paper starts this part from a Gaussian too.
    """
    for layer in part.modules() if part is not None else ():
        if not isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            continue
        if start == "glorot":
            nn.init.xavier_uniform_(layer.weight)
        elif layer.bias is None and (start == "caffe" or gaussian):
            nn.init.normal_(layer.weight, std=0.01)
        else:
            bound = (3 / layer.weight[0].numel()) ** 0.5  # Caffe's fan-in, of transposed convolutions their fan-out
            nn.init.uniform_(layer.weight, -bound, bound)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def with_sides_within(anchors: Tensor, height: int, width: int) -> Tensor:
    """Anchors ``[A, 4]`` about the same centres, none of them wider or higher than the input."""
    centre, size = (anchors[:, :2] + anchors[:, 2:]) / 2, anchors[:, 2:] - anchors[:, :2]
    half = torch.stack([size[:, 0].clamp(max=width), size[:, 1].clamp(max=height)], dim=1) / 2
    return torch.cat([centre - half, centre + half], dim=1)
