"""Mask R-CNN on a feature pyramid.

He, Gkioxari, Dollár, Girshick: Mask R-CNN, arXiv 1703.06870; on the pyramid of Lin et al., arXiv 1612.03144.

Symbols: B images, K classes, S sampled regions, F of them that can be positive, D detections, P cells of a pooled side,
m = 2 P the side of a mask, G ground-truth boxes, H W pixels.

Mask R-CNN is Faster R-CNN with a third branch that predicts a mask for each region (§3). Training adds L_mask to the
four losses. L_mask counts positive regions and the map of their true class only, so that classes do not compete. At
inference the mask branch runs on the final detections, in their refined boxes.

Departures: those of Faster R-CNN in this library (no "+1", anchors across the border kept, one objectness logit). The
paper pools with four samples a cell in the first, unaligned form of RoIAlign; ``pooling.aligned`` is true here, as in
detectron2. Regions are scaled by the stride of their level, as RoIAlign is defined (§3), and in no other way.
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
from boxwright.geometry.pooling.feature_table import FeatureTable
from boxwright.geometry.pooling.roi_pooling import pool_regions
from boxwright.heads.class_rows import under
from boxwright.heads.regions.box_head import BoxHeadConfig, RegionSample
from boxwright.heads.regions.mask_head import MaskHead, MaskHeadConfig
from boxwright.heads.regions.proposals import Proposals
from boxwright.heads.regions.rpn import RPNConfig
from boxwright.heads.regions.two_stage import Supervision, first_stage, pyramid_parts, region_outputs
from boxwright.necks.fpn import FPNConfig
from boxwright.structures import Classes, DetectionBatch, Images, InputError, Targets


@config
class MaskRCNNConfig:
    """Parts of Faster R-CNN, and the mask branch."""

    kind: Literal["mask_rcnn"] = "mask_rcnn"
    """Name of the detector in recipes."""
    backbone: BackboneConfig = field(default_factory=ResNetConfig)
    """Backbone with several levels."""
    neck: FPNConfig = field(default_factory=FPNConfig)
    """Feature pyramid."""
    rpn: RPNConfig = field(default_factory=RPNConfig)
    """Region proposal network, on all levels."""
    head: BoxHeadConfig = field(default_factory=BoxHeadConfig)
    """Box branch."""
    mask: MaskHeadConfig = field(default_factory=MaskHeadConfig)
    """Mask branch."""
    pixels: PixelConfig = IMAGENET
    """Pixel normalisation."""
    pooled_levels: Count = 4
    """Number of levels, from the finest, that both branches read."""
    difficult: bool = True
    """Train on boxes marked difficult."""


class MaskRCNN(Detector):
    """Faster R-CNN and a mask head."""

    def __init__(self, config: MaskRCNNConfig, classes: Classes) -> None:
        super().__init__(config, classes, config.pixels)
        self.backbone, self.neck, self.rpn, self.head = pyramid_parts(config, len(classes))
        self.mask_head = MaskHead(config.mask, config.neck.channels, len(classes))
        self.strides = [level.stride for level in self.neck.levels]
        self.paste = config.mask.paste

    def forward(self, images: Images, targets: Targets | None = None) -> dict[str, Tensor] | DetectionBatch:
        """Return five losses if ``targets`` are given, which need masks, else detections with masks."""
        maps, step = self.features(images), None
        if targets is not None:
            step = Supervision(targets, targets.usable(self.config.difficult), self.sample_seeds(images))
        pooled = self.config.pooled_levels
        table, proposals, losses = first_stage(self.rpn, maps, self.strides, pooled, images.sizes, step)
        if step is None:
            found = self.head.detect(table, proposals, images.sizes, images.scales)
            regions = pool_regions(table, found.boxes, self.config.mask.pooling)  # [B, D, P, P, C]
            return found._replace(masks=self.mask_head.masks(regions, found.labels, found.valid))
        sample = self.head.choose(proposals, *step)
        losses |= self.head.loss(*self.head.predict(table, sample.boxes), sample)
        return losses | self._mask_loss(table, sample, step.targets.masks)

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
        rows = under("head", self.head.class_rows())
        return rows | under("mask_head", self.mask_head.class_rows())

    def outputs(self, pixels: Tensor) -> list[Tensor]:
        """Return the outputs of Faster R-CNN for as many regions as proposed, and masks for as many as detected."""
        maps = self.neck(self.backbone(pixels))
        side, shape = self.config.mask.pooling.size, (len(pixels), self.config.head.post.detections)
        regions = maps[0].new_zeros(*shape, side, side, maps[0].shape[1])
        labels = torch.zeros(shape, dtype=torch.int64, device=pixels.device)
        return [*region_outputs(self.rpn, self.head, maps), self.mask_head(regions, labels)]

    def _mask_loss(self, table: FeatureTable, sample: RegionSample, masks: Tensor | None) -> dict[str, Tensor]:
        """Compute L_mask on the first F regions of each image, which include all positives.

        Raises InputError if the targets have no ``masks`` ``[B, G, H, W]``.
        """
        if masks is None:
            raise InputError("Mask R-CNN learns from masks, but the targets have none; set data.masks = true")
        room = int(self.config.head.samples * self.config.head.positive_fraction)
        positive = sample.positive[:, :room]
        # A region without an object becomes a point: reading its features is cheap, and they are not used.
        boxes = torch.where(positive.unsqueeze(-1), sample.boxes[:, :room], 0.0)
        target = self.mask_head.targets(masks, boxes, sample.truth[:, :room], positive)  # [B, F, m, m]
        pooled = pool_regions(table, boxes, self.config.mask.pooling)  # [B, F, P, P, C]
        return self.mask_head.loss(pooled, sample.labels[:, :room], positive, target)
