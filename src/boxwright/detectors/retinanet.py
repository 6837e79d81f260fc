"""RetinaNet: a feature pyramid, two small subnets, and a focal loss on all anchors.

Lin, Goyal, Girshick, He, Dollar: Focal Loss for Dense Object Detection, arXiv 1708.02002. Assignment by ATSS: Zhang et
al., arXiv 1912.02424. Quality focal loss: Li et al., Generalized Focal Loss, arXiv 2006.04388.

Symbols: B images, G padded ground truth, K classes, A anchors over the pyramid, n anchors of a level, M candidates.

Levels P3 to P7 of a ResNet have strides 8, 16, 32, 64 and 128. On DetNet the strides are 8, 16, 16, 16 and 32: P3 to P6
are its stages 3 to 6, and P7 a convolution of stride 2 on stage 6. Backbone and neck declare the strides, and
``anchors`` the anchor sizes. Neither follows from a level's number.

Options cover what the paper does not say or its descendants do differently: low-quality matches, the divisor of the
losses, beta of smooth L1, order and rounding of anchors, the source of P6, the score threshold of the top level.
"""

from __future__ import annotations

from dataclasses import field, replace
from typing import Literal

import torch
from torch import Tensor

from boxwright.anchors.coder import BoxCoder
from boxwright.anchors.generator import AnchorConfig, AnchorGenerator
from boxwright.anchors.matching.atss import ATSSMatcher
from boxwright.anchors.matching.matcher import Matcher, Matches
from boxwright.backbones.build import BackboneConfig, build_backbone
from boxwright.backbones.layers.winograd import use_winograd_in_training
from boxwright.backbones.resnet import ResNetConfig
from boxwright.detectors.contract.detector import Detector
from boxwright.detectors.contract.pixels import PixelConfig
from boxwright.fields import Count, Fraction, InnerShare, NotNegative, Share, config
from boxwright.geometry.boxes import pair_iou
from boxwright.geometry.indexing import take_rows
from boxwright.heads.class_rows import under
from boxwright.heads.dense import DenseHead, DenseHeadConfig
from boxwright.heads.losses import BoxLoss, box_regression_loss, dense_focal_loss
from boxwright.heads.postprocess import PostprocessConfig, best_pairs, suppress
from boxwright.necks.fpn import FPN, FPNConfig
from boxwright.structures import Classes, DetectionBatch, Images, InputError, Targets


def octave_anchors(
    bases: tuple[float, ...] = (32, 64, 128, 256, 512),
    scales: int = 3,
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0),
) -> AnchorConfig:
    """Return anchors of ``bases`` pixels, one base for each level, at ``scales`` sizes an octave (§4, table 1c)."""
    sizes = tuple(tuple(base * 2 ** (step / scales) for step in range(scales)) for base in bases)
    return AnchorConfig(sizes=sizes, ratios=ratios)


@config
class RetinaNetAssignConfig:
    """Assignment of objects to anchors (§4)."""

    method: Literal["iou", "atss"] = "iou"
    """"iou": fixed thresholds. "atss": a threshold for each object, from the overlaps of its nearest anchors."""
    positive_iou: Share = 0.5
    """Minimum IoU of a positive anchor."""
    negative_iou: Share = 0.4
    """Maximum IoU of a negative anchor; anchors between the two are ignored."""
    low_quality: Literal["any", "gap", "none"] = "any"
    """Best anchors of an object below ``positive_iou`` that become positive, each for its own best object. The paper
    does not say. "any": all (detectron2, torchvision). "gap": those from ``negative_iou`` on (Detectron). "none":
    none (yhenon)."""
    topk: Count = 9
    """Candidates of ATSS on each level for each object."""
    crowd_ignore: Share | None = 0.7
    """Share of an anchor's area under a crowd region from which it is no negative. None: never."""
    difficult: bool = True
    """Train on boxes marked difficult."""


@config
class RetinaNetLossConfig:
    """Losses (§3, §4.1)."""

    classification: Literal["focal", "quality_focal"] = "focal"
    """"focal": eq. 5. "quality_focal": the target of a positive is the IoU of its predicted box; alpha is not used."""
    gamma: NotNegative = 2.0
    """Exponent of the focal loss. 0: cross-entropy."""
    alpha: InnerShare | None = 0.25
    """Weight of positives, 1 - alpha of negatives. None: 1 for both."""
    box: BoxLoss = "smooth_l1"
    """Smooth L1 of the offsets, or an overlap loss of the decoded boxes."""
    beta: NotNegative = 1 / 9
    """Transition point of smooth L1; 0.11 in Detectron, 0 in detectron2 and torchvision."""
    box_weight: NotNegative = 1.0
    """Weight of the box loss."""
    normalizer: Literal["batch", "batch_plus_images", "average", "image", "image_mean"] = "batch"
    """Divisor of both losses. "batch": positives of the batch (paper). "batch_plus_images": one more for each image
    (Detectron). "average": a moving average of the positives in a batch, kept in the state dict as
    ``average_positives`` (detectron2). "image": each image by its own positives, then the mean (torchvision).
    "image_mean": as "image", with a box loss that is a mean over coordinates (yhenon). Each process counts its own
    images."""


@config
class RetinaNetConfig:
    """Parts and constants of the paper (§3 to §5)."""

    kind: Literal["retinanet"] = "retinanet"
    """Name of the detector in recipes."""
    backbone: BackboneConfig = field(default_factory=lambda: ResNetConfig(out_levels=(3, 4, 5)))
    """Bottom-up network of the pyramid (§4)."""
    neck: FPNConfig = field(default_factory=lambda: FPNConfig(extra="conv_c"))
    """Feature pyramid P3 to P7 (§4)."""
    anchors: AnchorConfig = field(default_factory=octave_anchors)
    """Anchors: three sizes an octave and three ratios (§4)."""
    head: DenseHeadConfig = field(default_factory=DenseHeadConfig)
    """Subnets of classes and boxes (§4)."""
    assign: RetinaNetAssignConfig = field(default_factory=RetinaNetAssignConfig)
    """Assignment of objects to anchors (§4)."""
    loss: RetinaNetLossConfig = field(default_factory=RetinaNetLossConfig)
    """Losses (§3, §4.1)."""
    coder: BoxCoder = field(default_factory=BoxCoder)
    """Box offsets. Weights are (10, 10, 5, 5) in yhenon; an offset of 1 means inclusive boxes (Detectron)."""
    post: PostprocessConfig = field(default_factory=lambda: PostprocessConfig(candidates=1000, min_size=0.0))
    """Post-processing. ``candidates`` is the maximum that each level passes to NMS (§4.1)."""
    top_threshold: Fraction | None = None
    """Minimum score on the coarsest level, 0 in Detectron. None: that of all levels."""
    pixels: PixelConfig = field(default_factory=PixelConfig)
    """Normalisation of the pixels."""

    def __post_init__(self) -> None:
        if self.post.per_class is not None:
            raise InputError(
                f"post.per_class = {self.post.per_class}: RetinaNet counts candidates by level, not by class; "
                "set post.candidates and leave per_class at none"
            )


class RetinaNet(Detector):
    """Backbone, pyramid, and two subnets on every level."""

    average_positives: Tensor

    def __init__(self, config: RetinaNetConfig, classes: Classes) -> None:
        super().__init__(config, classes, config.pixels)
        self.config: RetinaNetConfig = config
        self.backbone = build_backbone(config.backbone)
        self.neck = FPN(self.backbone.levels, config.neck)
        self.anchors = AnchorGenerator(config.anchors, self.neck.levels)
        per_cell = self.anchors.per_cell
        if len(set(per_cell)) != 1:
            raise InputError(
                f"the head is shared, so all levels need as many anchors a cell; here they have {per_cell}"
            )
        self.head = DenseHead(config.head, config.neck.channels, per_cell[0], len(classes))
        self.coder = config.coder
        assign = config.assign
        self.atss = ATSSMatcher(topk=assign.topk)
        self.matcher = Matcher(
            positive=assign.positive_iou,
            negative=assign.negative_iou,
            low_quality=assign.low_quality != "none",
            low_quality_floor=assign.negative_iou if assign.low_quality == "gap" else 0.0,
            crowd_ignore=assign.crowd_ignore,
            offset=config.coder.offset,
        )
        self.counter = replace(self.matcher, low_quality_floor=0.0)
        if config.loss.normalizer == "average":
            self.register_buffer("average_positives", torch.tensor(100.0))  # initial value of detectron2
        use_winograd_in_training(self)  # four fifths of the multiplications are 3x3 convolutions of one width

    def forward(self, images: Images, targets: Targets | None = None) -> dict[str, Tensor] | DetectionBatch:
        """Return two losses with ``targets``, detections without."""
        maps = self.neck(self.backbone(self.normalise(images)))
        anchors = self.anchors.by_level([(m.shape[2], m.shape[3]) for m in maps], maps[0].device)
        logits, deltas = self.head(maps)
        if targets is None:
            return self.detections(images, logits, deltas, anchors)
        return self.losses(targets, logits, torch.cat(deltas, 1), anchors)

    def anchor_shapes(self) -> list[tuple[float, float]]:
        """Return width and height in pixels of the anchors of a cell, for all levels."""
        return self.anchors.shapes

    def class_rows(self) -> dict[str, Tensor]:
        """Return the class of each row of the layers that distinguish classes."""
        return under("head", self.head.class_rows())

    def outputs(self, pixels: Tensor) -> list[Tensor]:
        """Return the class logits ``[B, n, K]`` of all levels, then their box offsets ``[B, n, 4]``."""
        logits, deltas = self.head(self.neck(self.backbone(pixels)))
        return [*logits, *deltas]

    def losses(
        self, targets: Targets, logits: list[Tensor], deltas: Tensor, anchors: list[Tensor]
    ) -> dict[str, Tensor]:
        """Compute focal loss (eq. 5) and box loss. ``logits`` ``[B, n, K]`` by level; ``deltas`` ``[B, A, 4]``."""
        config, sizes, every = self.config.loss, [len(level) for level in anchors], torch.cat(anchors)
        matches, counts = self.match(every, sizes, targets)
        truth = matches.boxes(targets)  # [B, A, 4]
        factor = self.image_factors(counts)  # [B]
        box_factor = factor / 4 if config.normalizer == "image_mean" else factor

        background = torch.where(matches.negative, len(self.classes), -1)
        labels = torch.where(matches.positive, matches.labels(targets), background)  # [B, A]
        alpha, quality = config.alpha, None
        if config.classification == "quality_focal":
            with torch.no_grad():
                alpha, quality = None, pair_iou(self.coder.decode(every, deltas), truth)
        weight = self.class_weights(factor.unsqueeze(1).expand_as(labels), labels)
        focal = [
            dense_focal_loss(level, label, alpha, config.gamma, value, each)
            for level, label, value, each in zip(
                logits,
                labels.split(sizes, 1),
                [None] * len(logits) if quality is None else quality.split(sizes, 1),
                weight.split(sizes, 1),
                strict=True,
            )
        ]
        box = box_regression_loss(
            deltas, every, truth, matches.positive, self.coder, config.box, config.beta, box_factor.unsqueeze(1)
        )
        return {"classification": torch.stack(focal).sum(), "box": config.box_weight * box}

    @torch.no_grad()
    def match(self, anchors: Tensor, sizes: list[int], targets: Targets) -> tuple[Matches, Tensor]:
        """Assign objects to ``anchors`` ``[A, 4]`` (§4.1).

        ``sizes``: anchors on each level. Also returns the positives ``[B]`` that divide the losses.
        """
        assign = self.config.assign
        truth = targets.boxes, targets.usable(assign.difficult), targets.crowd & targets.valid
        if assign.method == "atss":
            matches = self.atss(anchors, sizes, *truth)
            return matches, matches.positive.sum(1)
        matches = self.matcher(anchors, *truth)
        counted = matches
        if assign.low_quality == "gap" and self.config.loss.normalizer == "batch_plus_images":
            # Detectron counts before it removes the best anchors below the gap.
            counted = self.counter(anchors, *truth)
        return matches, counted.positive.sum(1)

    def image_factors(self, positives: Tensor) -> Tensor:
        """Return the factor of each image's losses ``[B]``, from its number of ``positives`` ``[B]``."""
        match self.config.loss.normalizer:
            case "batch":
                total = positives.sum().clamp(min=1).float()
            case "batch_plus_images":
                total = (positives + 1).sum().float()
            case "average":
                total = self._average(positives)
            case "image" | "image_mean":
                return 1 / (positives.clamp(min=1) * len(positives)).float()
        return (1 / total).expand(len(positives))

    @torch.no_grad()
    def _average(self, positives: Tensor) -> Tensor:
        """Return detectron2's divisor. Only training updates it, so that a validation loss does not change it."""
        if not self.training:
            return self.average_positives.clone()
        present = positives.sum().clamp(min=1).float()
        self.average_positives.mul_(0.9).add_(present, alpha=0.1)
        return self.average_positives.clone()

    @torch.no_grad()
    def detections(
        self, images: Images, logits: list[Tensor], deltas: list[Tensor], anchors: list[Tensor]
    ) -> DetectionBatch:
        """Decode the best pairs of anchor and class of each level, and run NMS over all levels (§4.1)."""
        config = self.config.post
        scores, labels, boxes = [], [], []
        for i, (level, delta, reference) in enumerate(zip(logits, deltas, anchors, strict=True)):
            least = config.score_threshold
            if i == len(logits) - 1 and self.config.top_threshold is not None:
                least = self.config.top_threshold
            score, anchor, label = best_pairs(level, config.candidates)
            score = score.sigmoid()
            scores.append(torch.where(score > least, score, -torch.inf))
            labels.append(label)
            boxes.append(self.coder.decode(reference[anchor], take_rows(delta, anchor)))
        best = [torch.cat(parts, 1) for parts in (boxes, scores, labels)]
        return suppress(best[0], best[1], best[2], images.sizes, config, images.scales)
