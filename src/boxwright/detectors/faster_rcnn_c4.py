"""Faster R-CNN as published: proposals and regions from one map.

Ren, He, Girshick, Sun: Faster R-CNN: Towards Real-Time Object Detection with Region Proposal Networks,
arXiv 1506.01497; He et al.: Deep Residual Learning for Image Recognition, arXiv 1512.03385, appendix A, for the head of
residual networks, whose last stage runs on each region ("C4").

Symbols: B images, K classes, C channels, H W cells of the map.

Training is joint (§3.2, "approximate joint training") or in four steps (§3.2). The steps are stages of a recipe: they
freeze parts, minimise some of the losses, and in step 2 pass in the proposals of the network from step 1. Proposals
carry no gradient.

Departures, each an option: boxes are half-open and anchors not rounded (``coder.offset``, ``anchors``); one objectness
logit instead of a softmax over two (``objectness``); the best 12000 anchors in training and 6000 at test enter NMS, as
in all code, where the paper took all (``pre_nms``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Literal

import torch
from torch import Tensor, nn

from boxwright.backbones.build import BackboneConfig, build_backbone
from boxwright.backbones.vgg import VGGConfig
from boxwright.detectors.contract.detector import Detector
from boxwright.detectors.contract.pixels import IMAGENET, PixelConfig
from boxwright.fields import config
from boxwright.geometry.pooling.feature_table import FeatureTable
from boxwright.heads.class_rows import under
from boxwright.heads.regions.levels import only_level
from boxwright.heads.regions.proposals import Proposals
from boxwright.heads.regions.region_heads import LayersHeadConfig, StageHeadConfig, build_region_head
from boxwright.heads.regions.rpn import PAPER_RPN, RPN, RPNConfig
from boxwright.heads.regions.two_stage import region_outputs
from boxwright.structures import Classes, DetectionBatch, Images, Targets


@config
class FasterRCNNC4Config:
    """Parts of the detector. Defaults are the paper's, on VGG-16."""

    kind: Literal["faster_rcnn_c4"] = "faster_rcnn_c4"
    """Name of the detector in recipes."""
    backbone: BackboneConfig = field(default_factory=lambda: VGGConfig(freeze_at=2, out_levels=(5,)))
    """Backbone with one level: conv5 of VGG-16 or ZF for a head of ``layers``, C4 of a residual network for
    ``stages``."""
    rpn: RPNConfig = PAPER_RPN
    """Region proposal network."""
    head: LayersHeadConfig | StageHeadConfig = field(default_factory=LayersHeadConfig)
    """Layers on each region."""
    pixels: PixelConfig = IMAGENET
    """Pixel normalisation."""
    difficult: bool = True
    """Train on boxes marked difficult."""


class FasterRCNNC4(Detector):
    """Backbone, region proposal network on its map, a head on regions of the same map."""

    def __init__(self, config: FasterRCNNC4Config, classes: Classes) -> None:
        super().__init__(config, classes, config.pixels)
        self.backbone = build_backbone(config.backbone)
        remedy = ", or take a recipe with fpn in its name"
        level = only_level("Faster R-CNN without a pyramid", self.backbone.levels, remedy)
        self.rpn = RPN(config.rpn, [level])
        self.stride = level.stride
        self.head = build_region_head(config.head, config.backbone, level.channels, len(classes))

    def __call__(  # type: ignore[override]
        self, images: Images, targets: Targets | None = None, proposals: Proposals | None = None
    ) -> dict[str, Tensor] | DetectionBatch:
        """Run as every detector; with ``proposals``, return the second stage's losses on them."""
        return nn.Module.__call__(self, images, targets, proposals)

    def forward(
        self, images: Images, targets: Targets | None = None, proposals: Proposals | None = None
    ) -> dict[str, Tensor] | DetectionBatch:
        """Return four losses if ``targets`` are given, only the last two if ``proposals`` are too, else detections."""
        fmap = self.backbone(self.normalise(images))[0]
        table = FeatureTable.from_maps([fmap], [self.stride])
        if targets is None:
            found = self.rpn.proposals([fmap], images.sizes, training=False)
            return self.head.detect(table, found, images.sizes, images.scales)
        usable, seeds = targets.usable(self.config.difficult), self.sample_seeds(images)
        losses: dict[str, Tensor] = {}
        if proposals is None and self._wants("rpn_objectness", "rpn_box"):
            losses |= self.rpn.losses([fmap], images.sizes, targets, usable, seeds, table)
        if self._wants("classification", "box"):
            if proposals is None:
                proposals = self.rpn.proposals([fmap], images.sizes, training=True)
            losses |= self.head.losses(table, proposals, targets, usable, seeds)
        return losses

    @torch.no_grad()
    def propose(self, images: Images) -> Proposals:
        """Return the proposals that a training step would use."""
        return self.rpn.proposals(self.backbone(self.normalise(images)), images.sizes, training=True)

    def anchor_shapes(self) -> list[tuple[float, float]]:
        """Return width and height in pixels of the RPN's anchors."""
        return self.rpn.anchors.shapes

    def pretrained_parts(self) -> list[nn.Module]:
        """Return the backbone, and the stages that run on regions if the head has them."""
        return [*super().pretrained_parts(), *self.head.pretrained_parts()]

    def take_classifier(self, state: Mapping[str, Tensor]) -> int:
        """Load fc6 and fc7 if the head has them; return the number of layers that fit."""
        return self.head.take_classifier(state)

    def class_rows(self) -> dict[str, Tensor]:
        """Class of each row of the layers that tell classes apart."""
        return under("head", self.head.class_rows())

    def outputs(self, pixels: Tensor) -> list[Tensor]:
        """Return objectness and deltas, then class logits and deltas of as many regions as proposed."""
        return region_outputs(self.rpn, self.head, self.backbone(pixels))

    def _wants(self, *names: str) -> bool:
        return self.wanted_losses is None or any(name in self.wanted_losses for name in names)
