"""R-FCN: a region-based detector without layers of its own for each region.

Dai, Li, He, Sun: R-FCN: Object Detection via Region-based Fully Convolutional Networks, arXiv 1605.06409;
Shrivastava, Gupta, Girshick: Training Region-based Object Detectors with Online Hard Example Mining, arXiv 1604.03540.

Symbols: B images, K classes, A anchors, R regions an image (N in the paper), k bins along a region's side, S regions
that are learnt from (B in the paper), C channels, H W cells of a map.

The last map is turned into k x k groups of score maps, one for each place within an object ("top left of a person"),
once for the whole image. A region averages in each of its bins the maps of that bin and takes the mean of the bins:
nothing is left to compute for a region, so hundreds of regions cost next to nothing, and the hardest of all of them
can be learnt from (§2.2, §2.3).

Departures, each an option: boxes are half-open and anchors not rounded (``offset``, ``anchors``); one objectness logit
instead of a softmax over two. One that is none: the 1x1 convolution before the score maps starts from Kaiming's
Gaussian, because from the authors' 0.01 it learns nothing in a short run without ImageNet weights behind it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from boxwright.anchors.generator import AnchorConfig
from boxwright.anchors.sampler import OHEMSampler
from boxwright.backbones.build import BackboneConfig, build_backbone
from boxwright.backbones.resnet import ResNetConfig
from boxwright.detectors.contract.detector import Detector
from boxwright.detectors.contract.pixels import IMAGENET, PixelConfig
from boxwright.geometry.position_sensitive import PositionSensitiveConfig, pool_position_sensitive
from boxwright.heads.class_rows import under
from boxwright.heads.postprocess import PostprocessConfig
from boxwright.heads.regions.box_head import RegionConfig, RegionHead
from boxwright.heads.regions.proposals import Proposals
from boxwright.heads.regions.rpn import RPN, RPNConfig
from boxwright.structures import Classes, DetectionBatch, Images, InputError, Level, Targets

RFCN_RPN = RPNConfig(
    anchors=AnchorConfig(sizes=((128, 256, 512),), centre="cell"),
    channels=512,
    straddle=0.0,
    pre_nms=(6000, 6000),
    post_nms=(300, 300),
    min_size=16.0,
    filter_first=True,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RFCNHeadConfig(RegionConfig):
    """§2.2 to §2.4; the other constants are those of :class:`RegionConfig`.

    ``channels``: of the 1x1 convolution before the score maps; None for no such layer.
    ``ohem``: learn from the ``samples`` regions of each image with the highest loss instead of from random ones, for
    which ``positive_fraction`` then says nothing. ``ohem_nms_iou``: of regions that overlap by more only the hardest
    counts: 0.7 in the paper on hard examples; None in the authors' code of R-FCN.
    """

    pooling: PositionSensitiveConfig = field(default_factory=PositionSensitiveConfig)
    channels: int | None = 1024
    ohem: bool = True
    ohem_nms_iou: float | None = None
    class_agnostic: bool = True
    samples: int = 128
    post: PostprocessConfig = field(default_factory=lambda: PostprocessConfig(nms_iou=0.3))

    def __post_init__(self) -> None:
        if self.channels is not None and self.channels < 1:
            raise InputError(f"head.channels = {self.channels}: at least 1, or none for no layer before the score maps")


@dataclass(frozen=True, kw_only=True)
class RFCNConfig:
    """§2.1, §3: ResNet-101 whose stage 5 keeps stride 16 and is dilated.

    The first level of ``backbone`` makes the proposals and the last one the score maps: conv4 and conv5 in the paper; a
    single level serves both. ``difficult``: whether boxes marked difficult are trained on.
    """

    kind: Literal["rfcn"] = "rfcn"
    backbone: BackboneConfig = field(
        default_factory=lambda: ResNetConfig(depth=101, stride_in_1x1=True, output_stride=16, out_levels=(4, 5))
    )
    rpn: RPNConfig = RFCN_RPN
    head: RFCNHeadConfig = field(default_factory=RFCNHeadConfig)
    pixels: PixelConfig = IMAGENET
    difficult: bool = True


class ScoreMaps(RegionHead[RFCNHeadConfig, Tensor]):
    """k x k (K + 1) maps of scores and 4 k x k maps of box offsets, and their votes over regions (§2.2)."""

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
        """The maps of the whole image, ``[B, C, H, W] -> [B, k k (K + 1 + 4), H, W]``, scores first."""
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
        choice = self.hard(entropy + self.config.box_weight * box, matches, sample.boxes)
        entropy, box = (
            torch.where(choice.valid, loss.gather(1, choice.chosen), 0.0) for loss in (entropy, box)
        )  # [B, S]
        return self.total(entropy, box, choice.valid)


class RFCN(Detector):
    """Backbone, region proposals from one map, score maps from the last, votes."""

    def __init__(self, config: RFCNConfig, classes: Classes) -> None:
        super().__init__(config, classes, config.pixels)
        self.backbone = build_backbone(config.backbone)
        levels = list(self.backbone.levels)
        if len(levels) > 2:
            names = ", ".join(level.name for level in levels)
            raise InputError(
                f"R-FCN reads one level for proposals and one for score maps, but the backbone gives {names}; "
                "set detector.backbone.out_levels to two of them, such as [4, 5]"
            )
        self.rpn = RPN(config.rpn, levels[:1])
        self.head = ScoreMaps(config.head, levels[-1], len(classes))

    def forward(self, images: Images, targets: Targets | None = None) -> dict[str, Tensor] | DetectionBatch:
        """Four losses with ``targets``, detections without."""
        features = self.backbone(self.normalise(images))
        proposals = self.rpn.proposals(features[:1], images.sizes, training=targets is not None)
        maps = self.head(features[-1])
        if targets is None:
            return self.head.detect(maps, proposals, images.sizes)
        seeds = self.sample_seeds(images)
        usable = targets.usable(self.config.difficult)
        losses = self.rpn.losses(features[:1], images.sizes, targets, usable, seeds)
        return losses | self.head.losses(maps, proposals, targets, usable, seeds)

    @torch.no_grad()
    def propose(self, images: Images) -> Proposals:
        """Return the proposals that a training step would use."""
        features = self.backbone(self.normalise(images))
        return self.rpn.proposals(features[:1], images.sizes, training=True)

    def anchor_shapes(self) -> list[tuple[float, float]]:
        """See :class:`Detector`."""
        return self.rpn.anchors.shapes

    def class_rows(self) -> dict[str, Tensor]:
        """Class of each row of the layers that tell classes apart."""
        return under("head", self.head.class_rows())

    def outputs(self, pixels: Tensor) -> list[Tensor]:
        """Objectness, deltas of anchors, and the score maps; regions cost no multiply-adds."""
        features = self.backbone(pixels)
        logits, deltas = self.rpn(features[:1])
        return [*logits, *deltas, self.head(features[-1])]
