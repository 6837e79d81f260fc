"""Faster R-CNN on a feature pyramid.

Ren, He, Girshick, Sun: Faster R-CNN: Towards Real-Time Object Detection with Region Proposal Networks,
arXiv 1506.01497; Lin et al.: Feature Pyramid Networks for Object Detection, arXiv 1612.03144;
Li et al.: DetNet: A Backbone network for Object Detection, arXiv 1804.06215, for its backbone.

Symbols: B images, K classes, C channels of the pyramid, H W cells of a map.

The model is trained by approximate joint training (Faster R-CNN §3.2): one network, four losses, and proposals that
carry no gradient.

Departures, each an option of the configuration: boxes are half-open (no "+1"); anchors that cross the border are kept
(FPN §5.1; Faster R-CNN dropped them); one objectness logit instead of a softmax over two; RoIAlign instead of RoIPool.
"""

from __future__ import annotations

from dataclasses import field
from typing import Literal

import torch
from torch import Tensor

from boxwright.backbones.build import BackboneConfig
from boxwright.backbones.resnet import ResNetConfig
from boxwright.detectors.contract.detector import Detector
from boxwright.detectors.contract.pixels import IMAGENET, PixelConfig
from boxwright.fields import Count, config
from boxwright.heads.class_rows import under
from boxwright.heads.regions.box_head import BoxHeadConfig
from boxwright.heads.regions.proposals import Proposals
from boxwright.heads.regions.rpn import RPNConfig
from boxwright.heads.regions.two_stage import Supervision, first_stage, pyramid_parts, region_outputs
from boxwright.necks.fpn import FPNConfig
from boxwright.structures import Classes, DetectionBatch, Images, Targets


@config
class FasterRCNNConfig:
    """Parts of the detector. Defaults are those of FPN §5 where papers and code agree."""

    kind: Literal["faster_rcnn"] = "faster_rcnn"
    """Name of the detector in recipes."""
    backbone: BackboneConfig = field(default_factory=ResNetConfig)
    """Backbone with several levels."""
    neck: FPNConfig = field(default_factory=FPNConfig)
    """Feature pyramid."""
    rpn: RPNConfig = field(default_factory=RPNConfig)
    """Region proposal network, on all levels."""
    head: BoxHeadConfig = field(default_factory=BoxHeadConfig)
    """Second stage."""
    pixels: PixelConfig = IMAGENET
    """Pixel normalisation."""
    pooled_levels: Count = 4
    """Number of levels, from the finest, that the second stage reads; FPN §4.2 keeps P6 for proposals only."""
    region_scale: Literal["stride", "map"] = "stride"
    """Scale from the input to a map: its stride, or map height / input height on both axes (DetNet_pytorch). They
    differ if the stride does not divide the input."""
    difficult: bool = True
    """Train on boxes marked difficult."""


class FasterRCNN(Detector):
    """Backbone, feature pyramid, region proposal network, box head."""

    def __init__(self, config: FasterRCNNConfig, classes: Classes) -> None:
        super().__init__(config, classes, config.pixels)
        self.backbone, self.neck, self.rpn, self.head = pyramid_parts(config, len(classes))
        self.strides = [level.stride for level in self.neck.levels]

    def forward(self, images: Images, targets: Targets | None = None) -> dict[str, Tensor] | DetectionBatch:
        """Return four losses if ``targets`` are given, else detections."""
        maps, step = self.features(images), None
        if targets is not None:
            step = Supervision(targets, targets.usable(self.config.difficult), self.sample_seeds(images))
        strides, pooled = self._strides(images, maps), self.config.pooled_levels
        table, proposals, losses = first_stage(self.rpn, maps, strides, pooled, images.sizes, step)
        if step is None:
            return self.head.detect(table, proposals, images.sizes, images.scales)
        return losses | self.head.losses(table, proposals, *step)

    def features(self, images: Images) -> list[Tensor]:
        """Compute the maps of the pyramid, ``[B, C, H, W]`` each."""
        return self.neck(self.backbone(self.normalise(images)))

    @torch.no_grad()
    def propose(self, images: Images) -> Proposals:
        """Return the proposals that a training step would use."""
        return self.rpn.proposals(self.features(images), images.sizes, training=True)

    def anchor_shapes(self) -> list[tuple[float, float]]:
        """Return width and height in pixels of the RPN's anchors."""
        return self.rpn.anchors.shapes

    def class_rows(self) -> dict[str, Tensor]:
        """Class of each row of the layers that tell classes apart."""
        return under("head", self.head.class_rows())

    def outputs(self, pixels: Tensor) -> list[Tensor]:
        """Return objectness and deltas of each level, then class logits and deltas of as many regions as proposed."""
        return region_outputs(self.rpn, self.head, self.neck(self.backbone(pixels)))

    def _strides(self, images: Images, maps: list[Tensor]) -> list[float]:
        """Return the input pixels of a cell of each map, as ``region_scale`` counts them."""
        if self.config.region_scale == "stride":
            return [float(stride) for stride in self.strides]
        return [images.pixels.shape[2] / fmap.shape[2] for fmap in maps]
