"""SSD: a single-shot detector that predicts offsets and classes of default boxes on maps of decreasing size.

Liu, Anguelov, Erhan, Szegedy, Reed, Fu, Berg: SSD: Single Shot MultiBox Detector, arXiv 1512.02325. SSDLite, on
MobileNets with separable layers: Sandler et al., arXiv 1801.04381 §6.2.

Symbols: B images, K classes, C columns of logits (K + 1 with background last, or K), A default boxes (priors) on all
maps, a priors in a cell, n priors on one map.

Where paper and the authors' Caffe code differ, the defaults follow the code, which the published figures were computed
with. A prior matches at an IoU of exactly 0.5 (paper: above 0.5). Objects take their own prior in descending order of
overlap. Centres are a fixed step apart (paper: 1 / f_k). Options cover what the ports do differently.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import field
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from boxwright.anchors.coder import BoxCoder
from boxwright.anchors.matching.atss import ATSSMatcher
from boxwright.anchors.matching.bipartite import BipartiteMatcher
from boxwright.anchors.matching.matcher import Matches
from boxwright.anchors.priors import PriorConfig, default_boxes
from boxwright.backbones.build import BackboneConfig, build_backbone
from boxwright.backbones.layers.norm import L2Norm, OptionalNorm, set_norm_eps
from boxwright.backbones.vgg import VGGConfig
from boxwright.detectors.contract.detector import Detector
from boxwright.detectors.contract.pixels import CAFFE_SSD, PixelConfig
from boxwright.detectors.contract.preparation import Preparation
from boxwright.fields import Count, CountOrZero, InnerShare, NotNegative, Positive, Share, config
from boxwright.geometry.boxes import pair_iou
from boxwright.heads.class_rows import under
from boxwright.heads.extra_maps import EXTRAS_300, ExtraConfig, check_extra_sizes, extra_layers
from boxwright.heads.initialisation import XavierFan, xavier_
from boxwright.heads.losses import (
    BoxLoss,
    box_regression_loss,
    dense_focal_loss,
    mined_cross_entropy,
    softmax_cross_entropy,
)
from boxwright.heads.map_heads import MapHead
from boxwright.heads.postprocess import PostprocessConfig, multiclass_detections
from boxwright.structures import Classes, DetectionBatch, Images, InputError, Targets

SSD_POST = PostprocessConfig(score_threshold=0.01, nms_iou=0.45, per_class=400, detections=200, clip=False)


@config
class SSDHeadConfig:
    """Layers above the backbone: the extra maps and the prediction heads."""

    separable: bool = False
    """Use depthwise convolutions for all but the 1x1 convolutions, with ReLU6 (SSDLite)."""
    norm: OptionalNorm = "none"
    """Norm in the extra maps, and between the halves of separable heads."""
    norm_eps: Positive = 1e-5
    """Epsilon of these batch norms. Torchvision's SSDLite has 1e-3."""
    start: XavierFan = "caffe"
    """Fan of the Xavier initialisation: "caffe", or "glorot" as in PyTorch ports."""


@config
class SSDAssignConfig:
    """Assignment of objects to priors (§2.2)."""

    method: Literal["ssd", "atss"] = "ssd"
    """"ssd": one prior for each object, then all above an IoU. "atss": an IoU threshold for each object."""
    forced: Literal["greedy", "parallel"] = "greedy"
    """Rule of the bipartite matching that gives each object a prior (:class:`BipartiteMatcher`)."""
    positive_iou: InnerShare = 0.5
    """Minimum IoU of a match."""
    inclusive: bool = True
    """Match at an IoU of exactly ``positive_iou`` too, as Caffe does."""
    negative_iou: Share | None = None
    """Maximum IoU of a negative; priors between the two are ignored. None: ``positive_iou``."""
    topk: Count = 9
    """Candidates of ATSS on each map for each object."""
    difficult: bool = True
    """Train on boxes marked difficult. Caffe does so on VOC, amdegroot's port does not."""


@config
class SSDLossConfig:
    """Loss of eq. 1, summed over the batch and divided by its number of matches, or by 1 if there are none."""

    classification: Literal["softmax", "focal", "quality_focal"] = "softmax"
    """"softmax" over positives and hard negatives (§2.2). "focal": sigmoids over all priors. "quality_focal": the same
    with the IoU of the predicted box as target."""
    negative_ratio: Positive = 3.0
    """Hard negatives for each positive of an image (§2.2)."""
    min_negatives: CountOrZero = 0
    """Minimum number of hard negatives in an image. Paper: 0, so that images without objects add no loss."""
    alpha: Share | None = 0.25
    """Weight of positives in the focal loss, 1 - alpha of negatives. None: 1 for both."""
    gamma: NotNegative = 2.0
    """Exponent of the focal losses."""
    box: BoxLoss = "smooth_l1"
    """Smooth L1 of the offsets, or an overlap loss of the decoded boxes."""
    beta: NotNegative = 1.0
    """Transition point of smooth L1."""
    box_weight: NotNegative = 1.0
    """Weight of the box loss, alpha of eq. 1."""


@config
class SSDConfig:
    """Constants of the paper. The defaults are SSD300 with VGG-16 on VOC (§2.2, §3.1)."""

    kind: Literal["ssd"] = "ssd"
    """Name of the detector in recipes."""
    size: tuple[Count, Count] = (300, 300)
    """Height and width of the input in pixels."""
    backbone: BackboneConfig = field(default_factory=lambda: VGGConfig(depth=16, fc="reduced", out_levels=(4, 6)))
    """Backbone, whose levels are the first maps."""
    extras: tuple[ExtraConfig, ...] = EXTRAS_300
    """Maps above the backbone's (§3, figure 2)."""
    l2_scale: Positive | None = 20.0
    """Initial scale of the L2 norm on the first map (§3.1). None: no norm."""
    l2_eps: Literal["sum", "root"] = "sum"
    """Term of the L2 norm that 1e-10 is added to: the sum of squares (Caffe) or its root (PyTorch ports)."""
    head: SSDHeadConfig = field(default_factory=SSDHeadConfig)
    """Extra maps and prediction heads."""
    priors: PriorConfig = field(default_factory=PriorConfig)
    """Default boxes (§2.2)."""
    assign: SSDAssignConfig = field(default_factory=SSDAssignConfig)
    """Assignment of objects to priors (§2.2)."""
    loss: SSDLossConfig = field(default_factory=SSDLossConfig)
    """Loss (eq. 1)."""
    coder: BoxCoder = field(default_factory=lambda: BoxCoder(weights=(10.0, 10.0, 5.0, 5.0), clamp=None))
    """Box offsets; the variances of 0.1 and 0.2 are weights of 10 and 5. Torchvision clamps the log of a side."""
    pixels: PixelConfig = CAFFE_SSD
    """Normalisation of the pixels, that of Caffe's VGG-16."""
    post: PostprocessConfig = SSD_POST
    """Post-processing (§3.7)."""


class SSD(Detector):
    """Backbone, extra maps, and on each map one convolution that predicts offsets and logits."""

    def __init__(self, config: SSDConfig, classes: Classes) -> None:
        super().__init__(config, classes, config.pixels)
        self.backbone = build_backbone(config.backbone)
        levels, head = self.backbone.levels, config.head
        scale = config.l2_scale
        self.l2 = nn.Identity() if scale is None else L2Norm(levels[0].channels, scale, config.l2_eps)
        self.extras = nn.ModuleList()
        channels = [level.channels for level in levels]
        for extra in config.extras:
            self.extras.append(extra_layers(channels[-1], extra, head.norm, head.separable))
            channels.append(extra.out)
        self._check_maps(config, len(channels))
        self.columns = len(classes) + (config.loss.classification == "softmax")
        self.heads = nn.ModuleList(
            MapHead(width, cell, self.columns, head.separable, head.norm)
            for width, cell in zip(channels, config.priors.per_cell, strict=True)
        )
        set_norm_eps(self.extras, head.norm_eps)
        set_norm_eps(self.heads, head.norm_eps)
        self._initialise()
        self.coder = config.coder
        self.matcher = build_matcher(config.assign)
        self.input_size, self.preparation = config.size, Preparation(pad_multiple=1)

    def forward(self, images: Images, targets: Targets | None = None) -> dict[str, Tensor] | DetectionBatch:
        """Return two losses with ``targets``, detections without."""
        height, width = images.pixels.shape[-2:]
        self.check_input(height, width)
        maps = self.maps(self.normalise(images))
        deltas, logits = self.predict(maps)
        shapes = [(fmap.shape[2], fmap.shape[3]) for fmap in maps]
        priors = default_boxes(self.config.priors, shapes, self.config.size, deltas.device)
        if targets is None:
            probabilities = logits.softmax(-1)[..., :-1] if self.columns > len(self.classes) else logits.sigmoid()
            boxes = self.coder.decode(priors, deltas)
            return multiclass_detections(probabilities, boxes, images.sizes, self.config.post, images.scales)
        counts = [h * w * cell for (h, w), cell in zip(shapes, self.config.priors.per_cell, strict=True)]
        return self.losses(targets, deltas, logits, priors, counts)

    def anchor_shapes(self) -> list[tuple[float, float]]:
        """Return width and height in pixels of the priors of a cell, for all maps."""
        return [shape for cell in self.config.priors.shapes for shape in cell]

    def class_rows(self) -> dict[str, Tensor]:
        """Return the class of each row of the layers that distinguish classes."""
        rows: dict[str, Tensor] = {}
        for i, head in enumerate(self.heads):
            assert isinstance(head, MapHead)
            rows |= under(f"heads.{i}", head.class_rows())
        return rows

    def outputs(self, pixels: Tensor) -> list[Tensor]:
        """Return offsets ``[B, A, 4]`` and logits ``[B, A, C]``."""
        return list(self.predict(self.maps(pixels)))

    def maps(self, pixels: Tensor) -> list[Tensor]:
        """Return the maps that the heads read: the backbone's levels, the first one normed, and the extra maps."""
        maps = list(self.backbone(pixels))
        fmap = maps[-1]
        maps[0] = self.l2(maps[0])  # the layers of the network read the map without the norm
        for extra in self.extras:
            fmap = extra(fmap)
            maps.append(fmap)
        return maps

    def predict(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return offsets ``[B, A, 4]`` and logits ``[B, A, C]`` of all maps, in float32."""
        pairs = [head(fmap) for head, fmap in zip(self.heads, maps, strict=True)]
        return torch.cat([deltas for deltas, _ in pairs], dim=1), torch.cat([logits for _, logits in pairs], dim=1)

    def losses(
        self, targets: Targets, deltas: Tensor, logits: Tensor, priors: Tensor, counts: list[int]
    ) -> dict[str, Tensor]:
        """Compute eq. 1: both sums are divided by the number of matched priors."""
        config = self.config.loss
        with torch.no_grad():
            matches = self.match(targets, priors, counts)
            labels = torch.where(matches.positive, matches.labels(targets), len(self.classes))  # [B, A]
            target = matches.boxes(targets)
        if config.classification == "softmax":
            ce = self.class_weights(softmax_cross_entropy(logits, labels), labels)
            classification = mined_cross_entropy(ce, matches, config.negative_ratio, config.min_negatives)
        else:
            labels = torch.where(matches.positive | matches.negative, labels, -1)
            quality = None
            if config.classification == "quality_focal":
                quality = pair_iou(self.coder.decode(priors, deltas.detach()), target)
            weight = self.class_weights.of(labels)
            classification = dense_focal_loss(logits, labels, config.alpha, config.gamma, quality, weight)
        box = box_regression_loss(deltas, priors, target, matches.positive, self.coder, config.box, config.beta)
        total = matches.positive.sum().clamp(min=1)
        return {"classification": classification / total, "box": config.box_weight * box / total}

    def match(self, targets: Targets, priors: Tensor, counts: list[int]) -> Matches:
        """Assign an object to each prior ``[A, 4]``. ``counts``: priors on each map."""
        truth = targets.boxes, targets.usable(self.config.assign.difficult), targets.crowd & targets.valid
        if isinstance(self.matcher, ATSSMatcher):
            return self.matcher(priors, counts, *truth)
        return self.matcher(priors, *truth)

    def _check_maps(self, config: SSDConfig, maps: int) -> None:
        if maps != len(config.priors.ratios):
            levels = ", ".join(level.name for level in self.backbone.levels)
            raise InputError(
                f"priors.ratios has {len(config.priors.ratios)} entries but there are {maps} maps, the backbone's "
                f"levels ({levels}) and {len(config.extras)} extras; give ratios, a size and a step for each"
            )
        check_extra_sizes(config.extras, config.size, self.backbone.levels[-1].stride)

    @torch.no_grad()
    def _initialise(self) -> None:
        """Initialise extras and heads. Sigmoids start at a probability of 0.01 (RetinaNet §4.1)."""
        start = self.config.head.start
        for layer in (*self.extras.modules(), *self.heads.modules()):
            if isinstance(layer, nn.Conv2d):
                xavier_(layer.weight, start)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        for head in self.heads:
            assert isinstance(head, MapHead)
            head.draw_joined(start)
            if self.config.loss.classification != "softmax":
                head.logit_bias.fill_(-math.log(99))


def build_matcher(config: SSDAssignConfig) -> BipartiteMatcher | ATSSMatcher:
    """Build the matcher that ``config`` describes."""
    if config.method == "atss":
        return ATSSMatcher(topk=config.topk)
    least = np.float32(config.positive_iou)
    if not config.inclusive:
        least = np.nextafter(least, np.float32(1))  # above the threshold: at least the next float32
    return BipartiteMatcher(positive=float(least), negative=config.negative_iou, strategy=config.forced)
