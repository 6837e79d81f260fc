"""R-FCN: a region-based detector without layers that run on each region.

Dai, Li, He, Sun: R-FCN: Object Detection via Region-based Fully Convolutional Networks, arXiv 1605.06409;
Shrivastava, Gupta, Girshick: Training Region-based Object Detectors with Online Hard Example Mining, arXiv 1604.03540.

Symbols: B images, K classes, R regions an image (N in the paper), k bins along a region's side, S regions in the loss
(B in the paper), C channels, H W cells of a map.

The last map is turned into k x k groups of score maps, one for each position within an object ("top left of a
person"), once for the whole image. In each of its bins a region averages the maps of that bin, and votes by the mean of
its bins. Nothing is computed per region, so hundreds of regions cost almost nothing, and training can use the hardest
of all regions (§2.2, §2.3).

Departures, each an option: boxes are half-open and anchors not rounded (``coder.offset``, ``anchors``); one objectness
logit instead of a softmax over two. One that is no option: the 1x1 convolution before the score maps starts from
Kaiming's Gaussian, because from the authors' 0.01 it learns nothing in a short run without ImageNet weights.
"""

from __future__ import annotations

from dataclasses import field, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from boxwright.anchors.sampler import OHEMSampler
from boxwright.backbones.build import BackboneConfig, build_backbone
from boxwright.backbones.resnet import ResNetConfig
from boxwright.detectors.contract.detector import Detector
from boxwright.detectors.contract.pixels import IMAGENET, PixelConfig
from boxwright.fields import Count, PositiveShare, config
from boxwright.geometry.pooling.position_sensitive import PositionSensitiveConfig, pool_position_sensitive
from boxwright.heads.class_rows import under
from boxwright.heads.postprocess import PostprocessConfig
from boxwright.heads.regions.box_head import RegionConfig, RegionHead
from boxwright.heads.regions.levels import at_most
from boxwright.heads.regions.proposals import Proposals
from boxwright.heads.regions.rpn import PAPER_RPN, RPN, RPNConfig
from boxwright.structures import Classes, DetectionBatch, Images, Level, Targets

RFCN_RPN = replace(PAPER_RPN, pre_nms=(6000, 6000), post_nms=(300, 300))
"""Faster R-CNN's RPN; 300 proposals in training as at test (§3)."""


@config
class RFCNHeadConfig(RegionConfig):
    """Constants of §2.2 to §2.4 and §3."""

    pooling: PositionSensitiveConfig = field(default_factory=PositionSensitiveConfig)
    """Position-sensitive RoI pooling, k = 7."""
    channels: Count | None = 1024
    """Width of the 1x1 convolution before the score maps; None for no such layer."""
    ohem: bool = True
    """Train on the ``samples`` regions of each image with the highest loss instead of a random sample;
    ``positive_fraction`` is then unused."""
    ohem_nms_iou: PositiveShare | None = None
    """Of regions that overlap by a higher IoU only the hardest is trained on: 0.7 in the paper on OHEM, None (no NMS)
    in the authors' code of R-FCN."""
    class_agnostic: bool = True
    """Predict one box for all classes instead of one per class."""
    samples: Count = 128
    """Regions of each image in the loss."""
    post: PostprocessConfig = PostprocessConfig(nms_iou=0.3)
    """Score threshold, NMS and number of detections."""


@config
class RFCNConfig:
    """Constants of §2.1 and §3: ResNet-101 whose stage 5 keeps stride 16 and is dilated."""

    kind: Literal["rfcn"] = "rfcn"
    """Name of the detector in recipes."""
    backbone: BackboneConfig = field(
        default_factory=lambda: ResNetConfig(depth=101, stride_in_1x1=True, output_stride=16, out_levels=(4, 5))
    )
    """Backbone. The RPN reads its first level and the score maps its last: conv4 and conv5; one level serves both."""
    rpn: RPNConfig = RFCN_RPN
    """Region proposal network."""
    head: RFCNHeadConfig = field(default_factory=RFCNHeadConfig)
    """Score maps and votes."""
    pixels: PixelConfig = IMAGENET
    """Pixel normalisation."""
    difficult: bool = True
    """Train on boxes marked difficult."""


class ScoreMaps(RegionHead[RFCNHeadConfig, Tensor]):
    """k x k (K + 1) score maps and 4 k x k maps of box deltas, and the votes of regions on them (§2.2)."""

    def __init__(self, config: RFCNHeadConfig, level: Level, num_classes: int) -> None:
        super().__init__(config, num_classes)
        self.stride = level.stride
        width, bins = config.channels or level.channels, config.pooling.size**2
        self.reduce = None if config.channels is None else nn.Conv2d(level.channels, width, 1)
        self.scores = nn.Conv2d(width, bins * (num_classes + 1), 1)
        self.deltas = nn.Conv2d(width, bins * 4 * (1 if config.class_agnostic else num_classes), 1)
        if self.reduce is not None:
            nn.init.kaiming_normal_(self.reduce.weight, nonlinearity="relu")
        for layer in (self.scores, self.deltas):
            nn.init.normal_(layer.weight, std=0.01)
        for layer in (self.reduce, self.scores, self.deltas):
            if layer is not None and layer.bias is not None:
                nn.init.zeros_(layer.bias)
        self.hard = OHEMSampler(count=config.samples, nms_iou=config.ohem_nms_iou) if config.ohem else None

    def forward(self, fmap: Tensor) -> Tensor:
        """Compute the maps of the whole image, ``[B, C, H, W] -> [B, k k (K + 1 + 4), H, W]``, scores first."""
        if self.reduce is not None:
            fmap = F.relu(self.reduce(fmap), inplace=True)
        return torch.cat([self.scores(fmap), self.deltas(fmap)], dim=1)

    def predict(self, features: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Vote: average each region's bins over the score maps ``features`` (§2.2, eq. 1)."""
        pooled = pool_position_sensitive(features, boxes, self.stride, self.config.pooling).mean((2, 3))
        return pooled[..., : self.num_classes + 1], pooled[..., self.num_classes + 1 :].unflatten(-1, (-1, 4))

    def losses(
        self, features: Tensor, proposals: Proposals, targets: Targets, usable: Tensor, seeds: Tensor
    ) -> dict[str, Tensor]:
        """Compute the losses of sampled regions, or with OHEM of the hardest of all regions (§2.3)."""
        if self.hard is None:
            return super().losses(features, proposals, targets, usable, seeds)
        sample, matches = self.candidates(proposals, targets, usable)
        entropy, box = self.losses_of_each(*self.predict(features, sample.boxes), sample)
        choice = self.hard(entropy + self.config.loss.box_weight * box, matches, sample.boxes)
        entropy, box = (
            torch.where(choice.valid, loss.gather(1, choice.chosen), 0.0) for loss in (entropy, box)
        )  # [B, S]
        return self.total(entropy, box, choice.valid)


class RFCN(Detector):
    """Backbone, region proposal network on its first map, score maps from its last, votes."""

    def __init__(self, config: RFCNConfig, classes: Classes) -> None:
        super().__init__(config, classes, config.pixels)
        self.backbone = build_backbone(config.backbone)
        levels = at_most(2, "R-FCN", self.backbone.levels, ", such as [4, 5]")  # of the RPN and of the score maps
        self.rpn = RPN(config.rpn, levels[:1])
        self.head = ScoreMaps(config.head, levels[-1], len(classes))

    def forward(self, images: Images, targets: Targets | None = None) -> dict[str, Tensor] | DetectionBatch:
        """Return four losses if ``targets`` are given, else detections."""
        features = self.backbone(self.normalise(images))
        proposals = self.rpn.proposals(features[:1], images.sizes, training=targets is not None)
        maps = self.head(features[-1])
        if targets is None:
            return self.head.detect(maps, proposals, images.sizes, images.scales)
        usable, seeds = targets.usable(self.config.difficult), self.sample_seeds(images)
        losses = self.rpn.losses(features[:1], images.sizes, targets, usable, seeds)
        return losses | self.head.losses(maps, proposals, targets, usable, seeds)

    @torch.no_grad()
    def propose(self, images: Images) -> Proposals:
        """Return the proposals that a training step would use."""
        features = self.backbone(self.normalise(images))
        return self.rpn.proposals(features[:1], images.sizes, training=True)

    def anchor_shapes(self) -> list[tuple[float, float]]:
        """Return width and height in pixels of the RPN's anchors."""
        return self.rpn.anchors.shapes

    def class_rows(self) -> dict[str, Tensor]:
        """Class of each row of the layers that tell classes apart."""
        return under("head", self.head.class_rows())

    def outputs(self, pixels: Tensor) -> list[Tensor]:
        """Return objectness, deltas of anchors, and score maps; regions cost no multiply-adds."""
        features = self.backbone(pixels)
        logits, deltas = self.rpn(features[:1])
        return [*logits, *deltas, self.head(features[-1])]
