"""RefineDet: a single-shot detector that refines its anchors before it classifies them.

Zhang, Wen, Bian, Lei, Li: Single-Shot Refinement Neural Network for Object Detection, arXiv 1711.06897 (CVPR 2018).

Symbols: B images, K classes (logits have background as column K), A anchors over the pyramid, a anchors in a cell,
C channels.

The anchor refinement module (ARM, §3) separates objects from background on the backbone's maps and adjusts the anchors.
Transfer connection blocks (TCB) turn those maps into an FPN-like pyramid. There the object detection module (ODM)
classifies the refined anchors and adjusts them again. The ODM's loss treats the refined anchors and the objectness as
constants: no gradient flows from it to the ARM.

Where the paper is silent or ambiguous, the defaults are those of its Caffe code: 2x2 transposed convolutions (figure 2
shows 4x4), a filter that removes negatives only, a match at an IoU of exactly the threshold.

Departures: boxes are clipped to the image before NMS (option ``post.clip``), and not to its last pixel after it.
ResNets have torchvision's stem (option ``backbone.stem_pool``; Caffe's first pool has no padding). New batch norms
average their statistics over 10 batches, not 1000.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from boxwright.anchors.coder import BoxCoder
from boxwright.anchors.generator import AnchorConfig, AnchorGenerator, with_sides_within
from boxwright.anchors.matching.atss import ATSSMatcher
from boxwright.anchors.matching.bipartite import BipartiteMatcher
from boxwright.anchors.matching.matcher import Matches
from boxwright.backbones.build import BackboneConfig, build_backbone
from boxwright.backbones.layers.norm import L2Norm, OptionalNorm
from boxwright.backbones.vgg import VGGConfig
from boxwright.detectors.contract.detector import Detector
from boxwright.detectors.contract.pixels import CAFFE_SSD, PixelConfig
from boxwright.detectors.contract.preparation import Preparation
from boxwright.fields import Count, CountOrZero, Fraction, NotNegative, Positive, Share, Width, config
from boxwright.heads.class_rows import under
from boxwright.heads.extra_maps import top_layers
from boxwright.heads.initialisation import initialise_convs
from boxwright.heads.losses import BoxLoss, box_regression_loss, mined_cross_entropy, softmax_cross_entropy
from boxwright.heads.map_heads import AnchorHeads
from boxwright.heads.postprocess import PostprocessConfig, multiclass_detections
from boxwright.necks.transfer import TransferBlocks
from boxwright.structures import Classes, DetectionBatch, Images, InputError, Level, Targets

# §3.1: four times the stride, and no second square as in SSD.
PAPER_ANCHORS = AnchorConfig(sizes=((32,), (64,), (128,), (256,)), ratios=(1.0, 2.0, 0.5), ratio="w/h", centre="cell")
# §3.3. The released scripts take 1000 boxes of each class and keep 500.
PAPER_POST = PostprocessConfig(score_threshold=0.01, nms_iou=0.45, candidates=400, detections=200)


@config
class RefineDetHeadConfig:
    """Layers above the backbone: transfer connection blocks and the prediction heads of ARM and ODM."""

    channels: Width = 256
    """Width of the transfer connection blocks."""
    norm: OptionalNorm = "none"
    """Norm after every new convolution except the predicting ones."""
    block: Count | None = None
    """Hidden width of a residual block before each head, four times as wide outside (ResNet: 256). None: no block."""
    start: Literal["caffe", "paper", "glorot"] = "caffe"
    """Initialisation. "caffe": Xavier by fan-in, and a Gaussian of 0.01 where a norm follows (released code). "paper":
    Xavier, and that Gaussian in a residual ``top`` only. "glorot": Xavier by fan-in and fan-out (PyTorch ports)."""


@config
class RefineDetAssignConfig:
    """Assignment of objects to anchors in the ARM and to refined anchors in the ODM (§3.3)."""

    arm: Literal["iou", "atss"] = "iou"
    """Method of the ARM: IoU thresholds, or ATSS. The ODM has IoU thresholds."""
    arm_iou: tuple[Share, Share] = (0.5, 0.5)
    """IoU of the ARM: positive from the first, negative below the second. The author later advised (0.7, 0.3)."""
    odm_iou: tuple[Share, Share] = (0.5, 0.5)
    """IoU of the ODM: positive from the first, negative below the second."""
    forced: Literal["greedy", "parallel"] = "greedy"
    """Rule of the bipartite matching that gives each object an anchor (:class:`BipartiteMatcher`)."""
    topk: Count = 9
    """Candidates of ATSS on each map for each object."""
    difficult: bool = True
    """Train on boxes marked difficult. The Caffe code does so on VOC, ports do not."""


@config
class RefineDetLossConfig:
    """Loss of eq. 1. Each module's terms are divided by its own number of positives in the batch."""

    negative_ratio: Positive = 3.0
    """Hard negatives for each positive of an image (§3.3)."""
    min_negatives: CountOrZero = 0
    """Minimum number of hard negatives in an image. Paper: 0, so that images without objects add no loss."""
    box: tuple[BoxLoss, BoxLoss] = ("smooth_l1", "smooth_l1")
    """Box loss of ARM and ODM: smooth L1 of the offsets, or an overlap loss of the decoded boxes."""
    box_weight: tuple[NotNegative, NotNegative] = (1.0, 1.0)
    """Weight of the box loss in ARM and ODM."""


@config
class RefineDetConfig:
    """Constants of the paper. The defaults are RefineDet with VGG-16 (§3.1 to §3.3, §4)."""

    kind: Literal["refinedet"] = "refinedet"
    """Name of the detector in recipes."""
    backbone: BackboneConfig = field(
        default_factory=lambda: VGGConfig(fc="reduced", fc6_dilation=3, pool5="2x2s2", out_levels=(4, 5, 6))
    )
    """Backbone with the three finest maps."""
    top: Literal["convs", "residual", "none"] = "convs"
    """Layers of one more map: two convolutions (VGG: conv6_1, conv6_2), a residual block (ResNet: res6) or none."""
    top_channels: tuple[Width, Width] = (256, 512)
    """Hidden and output width of ``top``."""
    l2_scales: tuple[Positive | None, ...] = (10.0, 8.0, None, None)
    """Initial scale of the L2 norm on each map. None: no norm."""
    l2_eps: Literal["sum", "root"] = "sum"
    """Term of the L2 norm that 1e-10 is added to: the sum of squares (Caffe) or its root (PyTorch ports)."""
    head: RefineDetHeadConfig = field(default_factory=RefineDetHeadConfig)
    """Transfer connection blocks and heads."""
    anchors: AnchorConfig = PAPER_ANCHORS
    """Anchors, one size on each map (§3.1)."""
    clip_sides: bool = False
    """Limit width and height of the anchors to those of the input, as luuuyi's port does."""
    two_step: bool = True
    """Let the ODM start from the ARM's refined anchors (table 3)."""
    tcb: bool = True
    """Use transfer connection blocks; the ODM reads the backbone's maps without them (table 3)."""
    floor: Fraction = 0.01
    """Minimum objectness of an anchor in negative anchor filtering, 1 - theta of the paper. 0: no filtering."""
    filtered: Literal["negatives", "positives"] = "negatives"
    """Anchors that the filter removes in training. "positives" (luuuyi's port) lets them become hard negatives. At
    inference all filtered anchors are dropped."""
    assign: RefineDetAssignConfig = field(default_factory=RefineDetAssignConfig)
    """Assignment of objects to anchors."""
    loss: RefineDetLossConfig = field(default_factory=RefineDetLossConfig)
    """Loss terms and their weights."""
    coder: BoxCoder = field(default_factory=lambda: BoxCoder(weights=(10.0, 10.0, 5.0, 5.0), clamp=None))
    """Box offsets of both modules."""
    pixels: PixelConfig = CAFFE_SSD
    """Pixel normalisation: BGR minus Caffe's mean."""
    post: PostprocessConfig = PAPER_POST
    """Thresholds and NMS at inference."""


class Outputs(NamedTuple):
    """Raw outputs. ``arm_deltas``, ``odm_deltas``: ``[B, A, 4]``. ``arm_logits``: ``[B, A, 2]``, object and background.
    ``odm_logits``: ``[B, A, K + 1]``."""

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
        levels, head = list(self.backbone.levels), config.head
        self.top = top_layers(config.top, levels[-1], config.top_channels, head.norm)
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
        self.arm = AnchorHeads(widths, per_cell, 2, head.block, head.norm)
        self.tcb = TransferBlocks(levels, head.channels, head.norm) if config.tcb else None
        widths = [head.channels] * len(levels) if config.tcb else widths
        self.odm = AnchorHeads(widths, per_cell, len(classes) + 1, head.block, head.norm)
        for part in (self.top, self.arm, self.tcb, self.odm):
            initialise_convs(part, head.start, gaussian=part is self.top)
        self.coder = config.coder
        self.arm_matcher, self.odm_matcher = (
            BipartiteMatcher(positive=positive, negative=negative, strategy=config.assign.forced)
            for positive, negative in (config.assign.arm_iou, config.assign.odm_iou)
        )
        self.atss = ATSSMatcher(topk=config.assign.topk)
        # Each map is the one above it, upsampled, so all strides must divide the input.
        self.input_multiple = max(level.stride for level in levels)
        self.preparation = Preparation(pad_multiple=self.input_multiple)

    def forward(self, images: Images, targets: Targets | None = None) -> dict[str, Tensor] | DetectionBatch:
        """Return four losses with ``targets``, detections without."""
        height, width = images.pixels.shape[-2:]
        self.check_input(height, width)
        sources = self.sources(self.normalise(images))
        out = self.heads(sources)
        shapes = [(source.shape[2], source.shape[3]) for source in sources]
        anchors = self.anchors(shapes, sources[0].device)
        if self.config.clip_sides:
            anchors = with_sides_within(anchors, height, width)
        if targets is None:
            return self.detections(images, out, anchors)
        counts = [h * w * a for (h, w), a in zip(shapes, self.anchors.per_cell, strict=True)]
        return self.losses(targets, out, anchors, counts)

    def anchor_shapes(self) -> list[tuple[float, float]]:
        """Return width and height in pixels of the anchors of a cell, for all maps."""
        return self.anchors.shapes

    def class_rows(self) -> dict[str, Tensor]:
        """Return the class of each row of the layers that distinguish classes."""
        return under("odm", self.odm.class_rows(len(self.classes) + 1))

    def outputs(self, pixels: Tensor) -> list[Tensor]:
        """Return offsets and logits of the ARM, then of the ODM, as in :class:`Outputs`."""
        return list(self.heads(self.sources(pixels)))

    def sources(self, pixels: Tensor) -> list[Tensor]:
        """Return the maps ``[B, C, h, w]`` that ARM and TCBs read. The backbone reads those without L2 norm (§3.1)."""
        maps = self.backbone(pixels)
        if self.top is not None:
            maps = [*maps, self.top(maps[-1])]
        return [norm(fmap) for norm, fmap in zip(self.l2, maps, strict=True)]

    def heads(self, sources: Sequence[Tensor]) -> Outputs:
        """Run the ARM on the sources, and the ODM on the pyramid that the TCBs make of them."""
        pyramid = sources if self.tcb is None else self.tcb(sources)
        return Outputs(*self.arm(sources), *self.odm(pyramid))

    def refined(self, anchors: Tensor, out: Outputs) -> Tensor:
        """Return the boxes ``[B, A, 4]`` that the ODM starts from, without a gradient to the ARM."""
        deltas = out.arm_deltas.detach()
        return self.coder.decode(anchors, deltas) if self.config.two_step else anchors.expand_as(deltas)

    def detections(self, images: Images, out: Outputs, anchors: Tensor) -> DetectionBatch:
        """Decode the refined anchors, drop those of low objectness, and run NMS per class (§3.3)."""
        boxes = self.coder.decode(self.refined(anchors, out), out.odm_deltas)
        kept = out.objectness.sigmoid() >= self.config.floor
        scores = out.odm_logits.softmax(-1)[..., :-1] * kept.unsqueeze(-1)
        return multiclass_detections(scores, boxes, images.sizes, self.config.post, images.scales)

    def losses(self, targets: Targets, out: Outputs, anchors: Tensor, counts: list[int]) -> dict[str, Tensor]:
        """Compute eq. 1. ``anchors`` ``[A, 4]``; ``counts``: anchors on each map."""
        assign = self.config.assign
        truth = targets.boxes, targets.usable(assign.difficult), targets.crowd & targets.valid
        with torch.no_grad():
            refined = self.refined(anchors, out)
            arm = self.atss(anchors, counts, *truth) if assign.arm == "atss" else self.arm_matcher(anchors, *truth)
            odm = self.odm_matcher(refined, *truth)
            labels = torch.where(odm.positive, odm.labels(targets), len(self.classes))  # [B, A]
            odm = self.filtered(odm, out.objectness.sigmoid())
        arm_ce = F.binary_cross_entropy_with_logits(out.objectness, arm.positive.float(), reduction="none")
        odm_ce = self.class_weights(softmax_cross_entropy(out.odm_logits, labels), labels)
        return {
            "arm_objectness": self._classification(arm_ce, arm),
            "arm_box": self._box(0, out.arm_deltas, anchors, targets, arm),
            "odm_classification": self._classification(odm_ce, odm),
            "odm_box": self._box(1, out.odm_deltas, refined, targets, odm),
        }

    def filtered(self, matches: Matches, objectness: Tensor) -> Matches:
        """Apply negative anchor filtering (§3.3): exclude anchors of low ``objectness`` ``[B, A]`` from mining."""
        kept = objectness >= self.config.floor
        if self.config.filtered == "negatives":
            return matches._replace(negative=matches.negative & kept)
        positive = matches.positive & kept
        return matches._replace(positive=positive, negative=~positive)

    def _classification(self, ce: Tensor, matches: Matches) -> Tensor:
        config = self.config.loss
        total = mined_cross_entropy(ce, matches, config.negative_ratio, config.min_negatives)
        return total / matches.positive.sum().clamp(min=1)

    def _box(self, module: int, deltas: Tensor, reference: Tensor, targets: Targets, matches: Matches) -> Tensor:
        kind, weight = self.config.loss.box[module], self.config.loss.box_weight[module]
        target = matches.boxes(targets)
        loss = box_regression_loss(deltas, reference, target, matches.positive, self.coder, kind, beta=1.0)
        return weight * loss / matches.positive.sum().clamp(min=1)
