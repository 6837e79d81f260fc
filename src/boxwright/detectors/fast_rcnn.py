"""Fast R-CNN: one pass over the image, then a head on each given region.

Girshick: Fast R-CNN, arXiv 1504.08083.

Symbols: B images, K classes, P proposals of an image, C channels.

Proposals are an input, ``Images.proposals``, best first; the paper takes those of selective search. The loss samples 64
regions of each of two images. A quarter are objects; the others overlap an object a little (IoU in [0.1, 0.5)), which
works as hard negative mining (§2.3).

Departure, an option: box targets are divided by fixed deviations (0.1, 0.1, 0.2, 0.2), as in all later code. The paper
measured the mean and deviation of each class on the training set (``targets``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Literal

from torch import Tensor, nn

from boxwright.backbones.build import BackboneConfig, build_backbone
from boxwright.backbones.vgg import VGGConfig
from boxwright.data.index import DetectionIndex
from boxwright.data.proposals.files import ProposalsConfig, proposals_of_split
from boxwright.detectors.contract.detector import Detector
from boxwright.detectors.contract.pixels import IMAGENET, PixelConfig
from boxwright.fields import config
from boxwright.geometry.pooling.feature_table import FeatureTable
from boxwright.heads.class_rows import under
from boxwright.heads.regions.box_head import RegionAssignConfig
from boxwright.heads.regions.configs import RegionLossConfig
from boxwright.heads.regions.fits.target_statistics import TargetStatistics
from boxwright.heads.regions.levels import only_level
from boxwright.heads.regions.proposals import Proposals, given_proposals
from boxwright.heads.regions.region_heads import LayersHeadConfig, StageHeadConfig, build_region_head
from boxwright.structures import Classes, DetectionBatch, Images, Targets

PAPER_HEAD = LayersHeadConfig(
    samples=64, assign=RegionAssignConfig(negative_floor=0.1), loss=RegionLossConfig(normalizer="sampled")
)
"""Sampling of §2.3."""


@config
class FastRCNNConfig:
    """Parts of the detector. Defaults are the paper's, on VGG-16."""

    kind: Literal["fast_rcnn"] = "fast_rcnn"
    """Name of the detector in recipes."""
    backbone: BackboneConfig = field(default_factory=lambda: VGGConfig(freeze_at=2, out_levels=(5,)))
    """Backbone with one level: conv5 of VGG-16 for a head of ``layers``, C4 of a residual network for ``stages``."""
    head: LayersHeadConfig | StageHeadConfig = PAPER_HEAD
    """Layers on each region."""
    pixels: PixelConfig = IMAGENET
    """Pixel normalisation."""
    difficult: bool = True
    """Train on boxes marked difficult, as the paper's figures do (§5.4 compares)."""
    targets: Literal["fixed", "measured"] = "fixed"
    """"measured": normalise the box targets of each class to mean 0 and deviation 1 on the training set (§2.3).
    "fixed": multiply them by ``head.coder.weights`` alone."""


class FastRCNN(Detector):
    """Backbone, and a head on the given regions of its map."""

    def __init__(self, config: FastRCNNConfig, classes: Classes) -> None:
        super().__init__(config, classes, config.pixels)
        self.backbone = build_backbone(config.backbone)
        level, count = only_level("Fast R-CNN", self.backbone.levels), len(classes)
        self.channels, self.stride = level.channels, level.stride
        self.head = build_region_head(config.head, config.backbone, self.channels, count)
        if config.targets == "measured":
            self.head.statistics = TargetStatistics(1 if config.head.class_agnostic else count)

    def proposals_of(self, images: Images) -> Proposals:
        """Return the given proposals, clipped to the images."""
        return given_proposals(images)

    def measure(self, index: DetectionIndex, proposals: ProposalsConfig | None, trained: bool) -> str | None:
        """Means and deviations of the box targets, where ``targets`` is "measured"."""
        if self.head.statistics is None:
            return None
        before = {name: value.clone() for name, value in self.head.statistics.named_buffers()}
        given, config = proposals_of_split(proposals or ProposalsConfig(), "train", index), self.config.head
        count = self.head.statistics.measure(
            index, given, self.head.coder, config.assign.positive_iou, self.config.difficult, config.assign.add_truth
        )
        if trained:
            self.head.statistics.renormalise(self.head.deltas, before["mean"], before["std"])
        return f"box targets normalised by what {count} regions of the training set have"

    def forward(self, images: Images, targets: Targets | None = None) -> dict[str, Tensor] | DetectionBatch:
        """Return two losses if ``targets`` are given, else detections; both on ``images.proposals``."""
        proposals = self.proposals_of(images)
        fmap = self.backbone(self.normalise(images))[0]
        table = FeatureTable.from_maps([fmap], [self.stride])
        if targets is None:
            return self.head.detect(table, proposals, images.sizes, images.scales)
        usable = targets.usable(self.config.difficult)
        return self.head.losses(table, proposals, targets, usable, self.sample_seeds(images))

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
        """Return class logits and box deltas of ``most_proposals`` regions."""
        fmap = self.backbone(pixels)[0]
        side = self.config.head.pooling.size
        return list(self.head(fmap.new_zeros(len(pixels), self.preparation.most_proposals, side, side, self.channels)))
