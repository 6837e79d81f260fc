"""Fast R-CNN: one pass over the image, then a head on each region that is given.

Girshick: Fast R-CNN, arXiv 1504.08083.

Symbols: B images, K classes, P proposals of an image, S sampled regions, C channels.

The proposals are an input, ``Images.proposals``, best first; selective search's in the paper. Of each of two images 64
regions are learnt from, a quarter of them objects, the others from those that overlap an object a little
(IoU in [0.1, 0.5)), which serves as a search for hard negatives (§2.3).

Departure, an option: box targets are divided by fixed deviations (0.1, 0.1, 0.2, 0.2), as in all later code, where the
paper measured means and deviations of each class on the training set (``targets``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor, nn

from boxwright.backbones.build import BackboneConfig, build_backbone
from boxwright.backbones.vgg import VGGConfig
from boxwright.data.index import DetectionIndex
from boxwright.data.proposals.files import ProposalsConfig, proposals_of_split
from boxwright.detectors.contract.detector import Detector
from boxwright.detectors.contract.pixels import IMAGENET, PixelConfig
from boxwright.geometry.feature_table import FeatureTable
from boxwright.heads.class_rows import under
from boxwright.heads.regions.box_head import BoxHead
from boxwright.heads.regions.proposals import Proposals, given_proposals
from boxwright.heads.regions.region_heads import LayersHeadConfig, StageHead, StageHeadConfig, build_region_head
from boxwright.heads.regions.target_statistics import TargetStatistics
from boxwright.structures import Classes, DetectionBatch, Images, InputError, Targets


def _paper_head() -> LayersHeadConfig:
    return LayersHeadConfig(samples=64, negative_floor=0.1, normalizer="sampled")


@dataclass(frozen=True, kw_only=True)
class FastRCNNConfig:
    """One map of ``backbone``: conv5 of VGG-16 under ``layers``, C4 of residual networks under ``stages``.

    ``difficult``: whether boxes marked difficult are trained on (§5.4 compares; the paper's figures have them).
    ``targets``: "measured" brings the box targets of each class to mean 0 and deviation 1 on the training set (§2.3);
    "fixed" divides by the deviations 1 / ``head.weights`` alone.
    """

    kind: Literal["fast_rcnn"] = "fast_rcnn"
    backbone: BackboneConfig = field(default_factory=lambda: VGGConfig(freeze_at=2, out_levels=(5,)))
    head: LayersHeadConfig | StageHeadConfig = field(default_factory=_paper_head)
    pixels: PixelConfig = IMAGENET
    difficult: bool = True
    targets: Literal["fixed", "measured"] = "fixed"


class FastRCNN(Detector):
    """Backbone, and a head on the given regions of its map."""

    def __init__(self, config: FastRCNNConfig, classes: Classes) -> None:
        super().__init__(config, classes, config.pixels)
        self.backbone = build_backbone(config.backbone)
        levels = self.backbone.levels
        if len(levels) != 1:
            names = ", ".join(level.name for level in levels)
            raise InputError(
                f"Fast R-CNN reads one map, but the backbone gives {names}; set detector.backbone.out_levels to one"
            )
        self.channels, self.stride, count = levels[0].channels, levels[0].stride, len(classes)
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
            index, given, self.head.coder, config.positive_iou, self.config.difficult, config.add_truth
        )
        if trained:
            self.head.statistics.renormalise(self.head.deltas, before["mean"], before["std"])
        return f"box targets normalised by what {count} regions of the training set have"

    def forward(self, images: Images, targets: Targets | None = None) -> dict[str, Tensor] | DetectionBatch:
        """Two losses with ``targets``, detections without, both on ``images.proposals``."""
        proposals = self.proposals_of(images)
        fmap = self.backbone(self.normalise(images))[0]
        table = FeatureTable.from_maps([fmap], [self.stride])
        if targets is None:
            return self.head.detect(table, proposals, images.sizes)
        usable = targets.usable(self.config.difficult)
        return self.head.losses(table, proposals, targets, usable, self.sample_seeds(images))

    def pretrained_parts(self) -> list[nn.Module]:
        """The backbone, and with it the stages that work on regions."""
        head = [self.head.stages] if isinstance(self.head, StageHead) else []
        return [*super().pretrained_parts(), *head]

    def take_classifier(self, state: Mapping[str, Tensor]) -> int:
        """fc6 and fc7, where the head has them."""
        return self.head.take_classifier(state) if isinstance(self.head, BoxHead) else 0

    def class_rows(self) -> dict[str, Tensor]:
        """Class of each row of the layers that tell classes apart."""
        return under("head", self.head.class_rows())

    def outputs(self, pixels: Tensor) -> list[Tensor]:
        """Class logits and box offsets of ``most_proposals``."""
        fmap = self.backbone(pixels)[0]
        side = self.config.head.pooling.size
        return list(self.head(fmap.new_zeros(len(pixels), self.preparation.most_proposals, side, side, self.channels)))
