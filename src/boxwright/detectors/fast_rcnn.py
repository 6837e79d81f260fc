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

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from boxwright.backbones.build import BackboneConfig, build_backbone
from boxwright.backbones.vgg import VGGConfig
from boxwright.data.index import DetectionIndex
from boxwright.data.proposals.files import ProposalsConfig, proposals_of_split
from boxwright.detectors.contract.detector import Detector
from boxwright.detectors.contract.pixels import IMAGENET, PixelConfig
from boxwright.detectors.faster_rcnn_c4 import LayersHeadConfig, StageHead, StageHeadConfig
from boxwright.geometry.boxes import clip_boxes
from boxwright.geometry.feature_table import FeatureTable
from boxwright.geometry.roi_pooling import pool_regions
from boxwright.heads.regions.box_head import BoxHead, linear_of
from boxwright.heads.regions.rpn import Proposals
from boxwright.heads.regions.target_statistics import TargetStatistics
from boxwright.structures import Classes, DetectionBatch, Images, InputError, Targets

T = TypeVar("T", bound=Detector)


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

    needs_proposals = True

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
        if isinstance(config.head, StageHeadConfig):
            self.head: BoxHead | StageHead = StageHead(config.head, config.backbone, self.channels, count)
        else:
            self.head = BoxHead(config.head, self.channels, count)
        if config.targets == "measured":
            self.head.statistics = TargetStatistics(1 if config.head.class_agnostic else count)

    def measure(self, index: DetectionIndex, proposals: ProposalsConfig | None, learnt: bool) -> str | None:
        """Means and deviations of the box targets, where ``targets`` is "measured"."""
        if self.head.statistics is None:
            return None
        before = {name: value.clone() for name, value in self.head.statistics.named_buffers()}
        given, config = proposals_of_split(proposals or ProposalsConfig(), "train", index), self.config.head
        count = self.head.statistics.measure(
            index, given, self.head.coder, config.positive_iou, self.config.difficult, config.add_truth
        )
        if learnt:
            self.head.statistics.renormalise(self.head.deltas, before["mean"], before["std"])
        return f"box targets normalised by what {count} regions of the training set have"

    def forward(self, images: Images, targets: Targets | None = None) -> dict[str, Tensor] | DetectionBatch:
        """Two losses with ``targets``, detections without, both on ``images.proposals``."""
        proposals = given_proposals(images)
        fmap = self.backbone(self.normalise(images))[0]
        if targets is None:
            logits, deltas = self.head(self._pooled(fmap, proposals.boxes))
            return self.head.detections(logits, deltas, proposals, images.sizes)
        usable = targets.usable(self.config.difficult)
        sample = self.head.choose(proposals, targets, usable, self.sample_seeds(images))
        logits, deltas = self.head(self._pooled(fmap, sample.boxes))
        return self.head.loss(logits, deltas, sample)

    def pretrained_parts(self) -> list[nn.Module]:
        """The backbone, and with it the stages that work on regions."""
        head = [self.head.stages] if isinstance(self.head, StageHead) else []
        return [*super().pretrained_parts(), *head]

    def take_classifier(self, state: Mapping[str, Tensor]) -> int:
        """fc6 and fc7, where the head has them."""
        return self.head.take_classifier(state) if isinstance(self.head, BoxHead) else 0

    def outputs(self, pixels: Tensor) -> list[Tensor]:
        """Class logits and box offsets of ``most_proposals``."""
        fmap = self.backbone(pixels)[0]
        side = self.config.head.pooling.size
        return list(self.head(fmap.new_zeros(len(pixels), self.most_proposals, side, side, self.channels)))

    def _pooled(self, fmap: Tensor, boxes: Tensor) -> Tensor:
        table = FeatureTable.from_maps([fmap], [self.stride])
        return pool_regions(table, boxes, self.config.head.pooling)  # [B, R, P, P, C]


def given_proposals(images: Images) -> Proposals:
    """``images.proposals``, cut at the images' edges; those without area are no proposals. InputError without any."""
    if images.proposals is None:
        raise InputError(
            "this detector finds no proposals of its own and the images came without; make them with `boxwright "
            "proposals` and name the file (data.proposals), or set Images.proposals"
        )
    given = images.proposals.float()
    boxes = clip_boxes(given if given.shape[1] else given.new_zeros(len(given), 1, 4), images.sizes)
    return Proposals(boxes, boxes.new_zeros(boxes.shape[:2]), (boxes[..., 2:] > boxes[..., :2]).all(-1))


@torch.no_grad()
def truncate_fc(detector: T, ranks: Sequence[int]) -> T:
    """A copy whose head's fully connected layers have the given ranks (§3.1, truncated SVD); its ``config`` says so.

    Each layer ``W`` becomes two, ``Sigma_t V_t^T`` without bias and ``U_t`` with the old one, and nothing between; 0
    leaves a layer whole. The paper: (1024, 256) for fc6 and fc7, a third less time, 0.3 points of mAP. Works for every
    detector whose head is a `BoxHead`. Raises InputError for ranks that do not fit.
    """
    head, config = getattr(detector, "head", None), detector.config
    if not isinstance(head, BoxHead):
        raise InputError("truncated SVD is for fully connected layers, and the head of this detector has none")
    if any(head.config.ranks):
        raise InputError(f"the head has ranks {head.config.ranks} already; begin with the detector that was trained")
    thin_config = replace(head.config, ranks=tuple(ranks))
    widths = [head.layers[0].in_features, *head.config.hidden]
    layers = nn.ModuleList(linear_of(a, b, rank) for (a, b), rank in zip(pairwise(widths), ranks, strict=True))
    for old, new, rank in zip(head.layers, layers, ranks, strict=True):
        state = old.state_dict()
        if rank > 0:
            u, sigma, vh = torch.linalg.svd(state["weight"].float(), full_matrices=False)
            state = {"0.weight": sigma[:rank, None] * vh[:rank], "1.weight": u[:, :rank], "1.bias": state["bias"]}
        new.load_state_dict(state)
    twin = copy.deepcopy(detector)
    thin = twin.get_submodule("head")
    assert isinstance(thin, BoxHead)
    like = next(head.layers.parameters())
    thin.layers, thin.config, thin.settings = layers.to(like.device, like.dtype), thin_config, thin_config
    twin.config = replace(config, head=thin_config)
    return twin.train(detector.training)
