"""RetinaNet: a pyramid, two small subnets, and a loss that lets every anchor be trained on.

Lin, Goyal, Girshick, He, Dollar: Focal Loss for Dense Object Detection, arXiv 1708.02002. Better assignment: Zhang et
al., ATSS, arXiv 1912.02424; better scores: Li et al., Generalized Focal Loss, arXiv 2006.04388.

Symbols: B images, G padded ground truth, K classes, A anchors over the pyramid, n anchors of a level, M candidates.

Levels P3 to P7 of a ResNet have strides 8, 16, 32, 64 and 128. On DetNet they have 8, 16, 16, 16 and 32: P3 to P6 are
its stages 3 to 6, and P7 a convolution of stride 2 on stage 6. Strides are declared by backbone and neck, and anchor
sizes by ``anchors``; none follows from a level's number.

Where the paper is silent or its descendants disagree there is an option: low-quality matches, the divisor of the sums,
the bend of smooth L1, the order and rounding of anchors, the source of P6, the threshold on the top level.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from boxwright.anchors.atss import ATSSMatcher
from boxwright.anchors.coder import BoxCoder
from boxwright.anchors.generator import AnchorConfig, AnchorGenerator
from boxwright.anchors.matcher import Matcher, Matches
from boxwright.backbones.build import BackboneConfig, build_backbone
from boxwright.backbones.layers.winograd import use_winograd_in_training
from boxwright.backbones.resnet import ResNetConfig
from boxwright.detectors.contract.detector import Detector
from boxwright.detectors.contract.pixels import IMAGENET, PixelConfig
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
    """Anchors of ``bases`` pixels on each level, in ``scales`` equal steps to the next octave (§4, table 1c)."""
    sizes = tuple(tuple(base * 2 ** (step / scales) for step in range(scales)) for base in bases)
    return AnchorConfig(sizes=sizes, ratios=ratios)


@dataclass(frozen=True, kw_only=True)
class RetinaNetConfig:
    """The parts and the paper's constants (§3 to §5).

    ``assignment``: "iou" compares anchors with ``positive_iou`` and ``negative_iou`` (§4); "atss" takes ``atss_topk``
    anchors a level nearest to an object, and of these the ones above a threshold that their own overlaps set.
    ``low_quality``: what becomes of an object's best anchors below ``positive_iou``, of which the paper says nothing:
    "any" makes them positive (detectron2, torchvision), "gap" only those that would be ignored, at or above
    ``negative_iou`` (Detectron), "none" none (yhenon). Their target is always their own best object.
    ``crowd_ignore``: share of an anchor under a crowd region from which it is no background; None: never.
    ``focal_gamma``, ``focal_alpha``: of the focal loss; gamma 0 is cross-entropy, alpha None weighs nothing.
    ``classification``: "focal", or "quality_focal", whose target at a positive is the IoU of its predicted box; alpha
    has no part in it. ``box_loss``, ``beta``, ``box_weight``: beta 0.11 in Detectron, 0 in detectron2 and torchvision.
    ``normalizer`` of both sums: "batch": positives of the batch (the paper); "batch_plus_images": one more for each
    image (Detectron); "average": a moving average of the positives a batch, kept in the state dict as
    ``average_positives`` (detectron2); "image": each image by its own positives, then the mean (torchvision);
    "image_mean": the same, and a box loss that is a mean over coordinates (yhenon). Each process counts its own images.
    ``weights``: scale of the box targets; (10, 10, 5, 5) in yhenon. ``offset``: 1 for inclusive boxes (Detectron).
    ``post.candidates``: the most that each level gives to NMS (§4.1). ``top_threshold``: least score on the coarsest
    level, 0 in Detectron; None: that of all levels. ``difficult``: whether boxes marked difficult are trained on.
    """

    kind: Literal["retinanet"] = "retinanet"
    backbone: BackboneConfig = field(default_factory=lambda: ResNetConfig(out_levels=(3, 4, 5)))
    neck: FPNConfig = field(default_factory=lambda: FPNConfig(extra="conv_c"))
    anchors: AnchorConfig = field(default_factory=octave_anchors)
    head: DenseHeadConfig = field(default_factory=DenseHeadConfig)
    assignment: Literal["iou", "atss"] = "iou"
    positive_iou: float = 0.5
    negative_iou: float = 0.4
    low_quality: Literal["any", "gap", "none"] = "any"
    atss_topk: int = 9
    crowd_ignore: float | None = 0.7
    classification: Literal["focal", "quality_focal"] = "focal"
    focal_gamma: float = 2.0
    focal_alpha: float | None = 0.25
    box_loss: BoxLoss = "smooth_l1"
    beta: float = 1 / 9
    box_weight: float = 1.0
    normalizer: Literal["batch", "batch_plus_images", "average", "image", "image_mean"] = "batch"
    weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    clamp: float | None = math.log(1000.0 / 16)
    offset: float = 0.0
    post: PostprocessConfig = field(default_factory=lambda: PostprocessConfig(candidates=1000, min_size=0.0))
    top_threshold: float | None = None
    pixels: PixelConfig = IMAGENET
    difficult: bool = True

    def __post_init__(self) -> None:
        if self.focal_gamma < 0:
            raise InputError(f"focal_gamma = {self.focal_gamma}: at least 0, which is cross-entropy")
        if self.focal_alpha is not None and not 0 < self.focal_alpha < 1:
            raise InputError(f"focal_alpha = {self.focal_alpha}: between 0 and 1, or none")
        if self.post.per_class is not None:
            raise InputError(
                f"post.per_class = {self.post.per_class}: RetinaNet counts candidates by level, not by class; "
                "set post.candidates and leave per_class at none"
            )
        if self.top_threshold is not None and not 0 <= self.top_threshold < 1:
            raise InputError(f"top_threshold = {self.top_threshold}: must lie in 0..1, or none")


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
        self.coder = BoxCoder(weights=config.weights, clamp=config.clamp, offset=config.offset)
        self.atss = ATSSMatcher(topk=config.atss_topk)
        self.matcher = Matcher(
            positive=config.positive_iou,
            negative=config.negative_iou,
            low_quality=config.low_quality != "none",
            low_quality_floor=config.negative_iou if config.low_quality == "gap" else 0.0,
            crowd_ignore=config.crowd_ignore,
            offset=config.offset,
        )
        self.counter = replace(self.matcher, low_quality_floor=0.0)
        if config.normalizer == "average":
            self.register_buffer("average_positives", torch.tensor(100.0))  # detectron2's start
        use_winograd_in_training(self)  # four fifths of the multiplications are 3x3 convolutions of one width

    def forward(self, images: Images, targets: Targets | None = None) -> dict[str, Tensor] | DetectionBatch:
        """Two losses with ``targets``, detections without."""
        maps = self.neck(self.backbone(self.normalise(images)))
        anchors = self.anchors.by_level([(m.shape[2], m.shape[3]) for m in maps], maps[0].device)
        logits, deltas = self.head(maps)
        if targets is None:
            return self._detections(images, logits, deltas, anchors)
        return self._losses(targets, logits, torch.cat(deltas, 1), anchors)

    def anchor_shapes(self) -> list[tuple[float, float]]:
        """See :class:`Detector`."""
        return self.anchors.shapes

    def class_rows(self) -> dict[str, Tensor]:
        """Class of each row of the layers that tell classes apart."""
        return under("head", self.head.class_rows())

    def outputs(self, pixels: Tensor) -> list[Tensor]:
        """Class logits of each level ``[B, n, K]``, then its box offsets ``[B, n, 4]``."""
        logits, deltas = self.head(self.neck(self.backbone(pixels)))
        return [*logits, *deltas]

    def _losses(
        self, targets: Targets, logits: list[Tensor], deltas: Tensor, anchors: list[Tensor]
    ) -> dict[str, Tensor]:
        config, sizes, every = self.config, [len(level) for level in anchors], torch.cat(anchors)
        matches, counts = self._match(every, sizes, targets)
        truth = take_rows(targets.boxes, matches.truth)  # [B, A, 4]
        share = self._shares(counts)  # [B], what an image's sum is multiplied by
        box_share = share / 4 if config.normalizer == "image_mean" else share

        labels = take_rows(targets.labels.unsqueeze(-1), matches.truth).squeeze(-1)
        labels = torch.where(matches.positive, labels, torch.where(matches.negative, len(self.classes), -1))
        alpha, quality = config.focal_alpha, None
        if config.classification == "quality_focal":
            with torch.no_grad():
                alpha, quality = None, pair_iou(self.coder.decode(every, deltas), truth)
        focal = [
            dense_focal_loss(level, label, alpha, config.focal_gamma, value, share.unsqueeze(1).expand_as(label))
            for level, label, value in zip(
                logits,
                labels.split(sizes, 1),
                [None] * len(logits) if quality is None else quality.split(sizes, 1),
                strict=True,
            )
        ]
        box = box_regression_loss(
            deltas, every, truth, matches.positive, self.coder, config.box_loss, config.beta, box_share.unsqueeze(1)
        )
        return {"classification": torch.stack(focal).sum(), "box": config.box_weight * box}

    @torch.no_grad()
    def _match(self, anchors: Tensor, sizes: list[int], targets: Targets) -> tuple[Matches, Tensor]:
        """Assignment of anchors ``[A, 4]`` (§4.1), and the positives ``[B]`` that the losses are divided by."""
        config = self.config
        usable = targets.valid & ~targets.crowd
        if not config.difficult:
            usable = usable & ~targets.difficult
        crowd = targets.crowd & targets.valid
        if config.assignment == "atss":
            matches = self.atss(anchors, sizes, targets.boxes, usable, crowd)
            return matches, matches.positive.sum(1)
        matches = self.matcher(anchors, targets.boxes, usable, crowd)
        counted = matches
        if config.low_quality == "gap" and config.normalizer == "batch_plus_images":
            # Detectron counts before it takes back the best anchors that lie below the gap.
            counted = self.counter(anchors, targets.boxes, usable, crowd)
        return matches, counted.positive.sum(1)

    def _shares(self, positives: Tensor) -> Tensor:
        """Factors ``[B]`` of the images' sums, from their numbers of positives ``[B]``: see ``normalizer``."""
        match self.config.normalizer:
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
        """detectron2's divisor. It follows the batches in training only: a validation loss must not move it."""
        if not self.training:
            return self.average_positives.clone()
        present = positives.sum().clamp(min=1).float()
        self.average_positives.mul_(0.9).add_(present, alpha=0.1)
        return self.average_positives.clone()

    @torch.no_grad()
    def _detections(
        self, images: Images, logits: list[Tensor], deltas: list[Tensor], anchors: list[Tensor]
    ) -> DetectionBatch:
        """The best of each level, decoded; NMS over all (§4.1)."""
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
            boxes.append(self.coder.decode(reference[anchor], delta.gather(1, anchor.unsqueeze(-1).expand(-1, -1, 4))))
        return suppress(torch.cat(boxes, 1), torch.cat(scores, 1), torch.cat(labels, 1), images.sizes, config)
