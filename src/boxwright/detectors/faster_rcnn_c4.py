"""Faster R-CNN as it was published: proposals and regions from one map.

Ren, He, Girshick, Sun: Faster R-CNN: Towards Real-Time Object Detection with Region Proposal Networks,
arXiv 1506.01497; He et al.: Deep Residual Learning for Image Recognition, arXiv 1512.03385, appendix A, for the head of
residual networks, whose last stage works on each region ("C4").

Symbols: B images, K classes, A anchors, R proposals an image, S sampled regions, P cells of a pooled side, C channels.

Trained jointly (§3.2, "approximate joint training"), or in four steps (§3.2, the paper's): the steps are stages of a
recipe, which freeze parts, want some of the losses and, in step 2, hand in the proposals of the network that step 1
left. Proposals are fixed boxes for the second stage.

Departures, each an option: boxes are half-open and anchors not rounded (``offset``, ``anchors``); one objectness logit
instead of a softmax over two (``objectness``); the best 12000 and 6000 anchors enter NMS in training and at test, as in
all code, where the paper took all (``pre_nms``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor, nn

from boxwright.anchors.generator import AnchorConfig
from boxwright.backbones.build import BackboneConfig, build_backbone
from boxwright.backbones.detnet import DetNetConfig, detnet_stages
from boxwright.backbones.layers.blocks import Stage, build_stage, initialise
from boxwright.backbones.layers.norm import stage_norm
from boxwright.backbones.resnet import ResNetConfig, resnet_stages
from boxwright.backbones.vgg import VGGConfig
from boxwright.detectors.contract.detector import Detector
from boxwright.detectors.contract.pixels import IMAGENET, PixelConfig
from boxwright.geometry.feature_table import FeatureTable
from boxwright.geometry.roi_pooling import RoIPoolingConfig, pool_regions
from boxwright.heads.postprocess import PostprocessConfig
from boxwright.heads.regions.box_head import BoxHead, BoxHeadConfig, RegionConfig, RegionHead, predictors
from boxwright.heads.regions.rpn import RPN, Proposals, RPNConfig
from boxwright.structures import Classes, DetectionBatch, Images, InputError, Targets

PAPER_RPN = RPNConfig(
    anchors=AnchorConfig(sizes=((128, 256, 512),), centre="cell"),
    channels=512,
    straddle=0.0,
    pre_nms=(12_000, 6_000),
    post_nms=(2_000, 300),
    min_size=16.0,
    filter_first=True,
)
"""§3.1, §3.3: nine anchors, those across the border left out of training; 2000 proposals in training, 300 at test."""


def _paper_post() -> PostprocessConfig:
    return PostprocessConfig(nms_iou=0.3)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayersHeadConfig(BoxHeadConfig):
    """fc6 and fc7 of VGG-16 or ZF with dropout on 7 x 7 cells (ZF: 6 x 6), 128 regions an image."""

    kind: Literal["layers"] = "layers"
    pooling: RoIPoolingConfig = field(default_factory=lambda: RoIPoolingConfig(method="pool", inclusive=True))
    hidden: tuple[int, ...] = (4096, 4096)
    dropout: float = 0.5
    samples: int = 128
    post: PostprocessConfig = field(default_factory=_paper_post)


@dataclass(frozen=True, slots=True, kw_only=True)
class StageHeadConfig(RegionConfig):
    """The stages of a ResNet or DetNet above the map, on each region, then the mean of their output.

    ``stride``: of the first of them; None is the backbone's own: 2 in a ResNet, on 14 x 14 cells; 1 with
    ``pooling.size`` 7 computes the same at a quarter of the cost of stride 1 on 14 x 14 (Mask R-CNN, appendix).
    """

    kind: Literal["stages"] = "stages"
    pooling: RoIPoolingConfig = field(default_factory=lambda: RoIPoolingConfig(size=14))
    stride: Literal[1, 2] | None = None
    samples: int = 128
    post: PostprocessConfig = field(default_factory=_paper_post)


@dataclass(frozen=True, kw_only=True)
class FasterRCNNC4Config:
    """One map of ``backbone``: conv5 of VGG-16 and ZF under ``layers``, C4 of residual networks under ``stages``.

    ``difficult``: whether boxes marked difficult are trained on.
    """

    kind: Literal["faster_rcnn_c4"] = "faster_rcnn_c4"
    backbone: BackboneConfig = field(default_factory=lambda: VGGConfig(freeze_at=2, out_levels=(5,)))
    rpn: RPNConfig = PAPER_RPN
    head: LayersHeadConfig | StageHeadConfig = field(default_factory=LayersHeadConfig)
    pixels: PixelConfig = IMAGENET
    difficult: bool = True


class StageHead(RegionHead):
    """Residual stages as the layers of a region (ResNet, appendix A). Their names are the backbone's."""

    def __init__(self, config: StageHeadConfig, backbone: BackboneConfig, channels: int, num_classes: int) -> None:
        super().__init__(config, num_classes)
        self.config = config
        self.stages = nn.ModuleDict()
        kept, stages = stages_above(backbone)
        if config.stride is not None:
            stages[0] = replace(stages[0], stride=config.stride)
        for stage in stages:
            norm = stage_norm(kept.norm, stage.number, kept.freeze_at)
            self.stages[f"layer{stage.number - 1}"] = build_stage(channels, stage, norm, kept.stride_in_1x1)
            channels = stage.out
        initialise(self.stages, kept.zero_init_residual)
        self.scores, self.deltas = predictors(channels, num_classes, config.class_agnostic)

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """``[B, R, P, P, C]`` to logits ``[B, R, K + 1]`` and deltas ``[B, R, K or 1, 4]``, both float32."""
        x = self.features(pooled)
        return self.scores(x).float(), self.deltas(x).float().unflatten(-1, (-1, 4))

    def features(self, pooled: Tensor) -> Tensor:
        """What the last two layers look at, ``[B, R, C]``."""
        x = pooled.flatten(0, 1).permute(0, 3, 1, 2)
        for stage in self.stages.values():
            x = stage(x)
        return x.mean((2, 3)).reshape(pooled.shape[0], pooled.shape[1], -1)


def stages_above(config: BackboneConfig) -> tuple[ResNetConfig | DetNetConfig, list[Stage]]:
    """The stages that ``config`` has above its last level, and itself. InputError where it has none."""
    top = max(config.out_levels)
    if isinstance(config, ResNetConfig | DetNetConfig):
        every = resnet_stages(config) if isinstance(config, ResNetConfig) else detnet_stages(config)
        if above := [stage for stage in every if stage.number > top]:
            return config, above
    raise InputError(
        f"detector.head.kind = stages needs a resnet or detnet with stages above its last level, but the backbone is "
        f"{config.kind} up to stage {top}; set detector.backbone.out_levels=[4], or detector.head.kind=layers"
    )


class FasterRCNNC4(Detector):
    """Backbone, proposals from its map, a head on regions of the same map."""

    def __init__(self, config: FasterRCNNC4Config, classes: Classes) -> None:
        super().__init__(config, classes, config.pixels)
        self.backbone = build_backbone(config.backbone)
        levels = self.backbone.levels
        if len(levels) != 1:
            names = ", ".join(level.name for level in levels)
            raise InputError(
                f"Faster R-CNN without a pyramid reads one map, but the backbone gives {names}; set "
                "detector.backbone.out_levels to one of them, or take a recipe with fpn in its name"
            )
        self.rpn = RPN(config.rpn, levels)
        self.channels, self.stride, count = levels[0].channels, levels[0].stride, len(classes)
        if isinstance(config.head, StageHeadConfig):
            self.head: BoxHead | StageHead = StageHead(config.head, config.backbone, self.channels, count)
        else:
            self.head = BoxHead(config.head, self.channels, count)

    def __call__(  # type: ignore[override]
        self, images: Images, targets: Targets | None = None, proposals: Proposals | None = None
    ) -> dict[str, Tensor] | DetectionBatch:
        """As every detector, and with ``proposals`` given the losses of the second stage on them."""
        return nn.Module.__call__(self, images, targets, proposals)

    def forward(
        self, images: Images, targets: Targets | None = None, proposals: Proposals | None = None
    ) -> dict[str, Tensor] | DetectionBatch:
        """Four losses with ``targets``, with ``proposals`` too only the last two; detections without."""
        fmap = self.backbone(self.normalise(images))[0]
        if targets is None:
            found = self.rpn.proposals([fmap], images.sizes, training=False)
            logits, deltas = self.head(self._pooled(fmap, found.boxes))
            return self.head.detections(logits, deltas, found, images.sizes)
        seeds = self.sample_seeds(images)
        usable = targets.usable(self.config.difficult)

        losses: dict[str, Tensor] = {}
        if proposals is None and self._wants("rpn_objectness", "rpn_box"):
            losses |= self.rpn.losses([fmap], images.sizes, targets, usable, seeds)
        if self._wants("classification", "box"):
            if proposals is None:
                proposals = self.rpn.proposals([fmap], images.sizes, training=True)
            sample = self.head.choose(proposals, targets, usable, seeds)
            logits, deltas = self.head(self._pooled(fmap, sample.boxes))
            losses |= self.head.loss(logits, deltas, sample)
        return losses

    @torch.no_grad()
    def propose(self, images: Images) -> Proposals:
        """The proposals that a training step of this network would take."""
        return self.rpn.proposals(self.backbone(self.normalise(images)), images.sizes, training=True)

    def anchor_shapes(self) -> list[tuple[float, float]]:
        """See :class:`Detector`."""
        return self.rpn.anchors.shapes

    def pretrained_parts(self) -> list[nn.Module]:
        """The backbone, and with it the stages that work on regions."""
        head = [self.head.stages] if isinstance(self.head, StageHead) else []
        return [*super().pretrained_parts(), *head]

    def take_classifier(self, state: Mapping[str, Tensor]) -> int:
        """fc6 and fc7, where the head has them."""
        return self.head.take_classifier(state) if isinstance(self.head, BoxHead) else 0

    def outputs(self, pixels: Tensor) -> list[Tensor]:
        """Objectness and deltas, then class logits and deltas of as many regions as are proposed."""
        fmap = self.backbone(pixels)[0]
        logits, deltas = self.rpn([fmap])
        side = self.config.head.pooling.size
        regions = fmap.new_zeros(len(pixels), self.config.rpn.post_nms[1], side, side, self.channels)
        return [*logits, *deltas, *self.head(regions)]

    def _pooled(self, fmap: Tensor, boxes: Tensor) -> Tensor:
        table = FeatureTable.from_maps([fmap], [self.stride])
        return pool_regions(table, boxes, self.config.head.pooling)  # [B, R, P, P, C]

    def _wants(self, *names: str) -> bool:
        return self.wanted_losses is None or any(name in self.wanted_losses for name in names)
