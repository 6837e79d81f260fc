"""Parts and first stage of two-stage detectors on a feature pyramid (Faster R-CNN §3; FPN §4).

Symbols: B images, G ground-truth boxes, C channels and H W cells of a map.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from torch import Tensor

from boxwright.backbones.build import Backbone, BackboneConfig, build_backbone
from boxwright.geometry.pooling.feature_table import FeatureTable
from boxwright.heads.regions.box_head import BoxHead, BoxHeadConfig
from boxwright.heads.regions.proposals import Proposals
from boxwright.heads.regions.region_heads import StageHead
from boxwright.heads.regions.rpn import RPN, RPNConfig
from boxwright.necks.fpn import FPN, FPNConfig
from boxwright.structures import Targets


class PyramidConfig(Protocol):
    """Configuration of a two-stage detector on a pyramid."""

    @property
    def backbone(self) -> BackboneConfig: ...
    @property
    def neck(self) -> FPNConfig: ...
    @property
    def rpn(self) -> RPNConfig: ...
    @property
    def head(self) -> BoxHeadConfig: ...


def pyramid_parts(config: PyramidConfig, num_classes: int) -> tuple[Backbone, FPN, RPN, BoxHead]:
    """Build the backbone, the pyramid on its levels, the RPN on those of the pyramid, and the box head."""
    backbone = build_backbone(config.backbone)
    neck = FPN(backbone.levels, config.neck)
    return backbone, neck, RPN(config.rpn, neck.levels), BoxHead(config.head, neck.levels[0].channels, num_classes)


class Supervision(NamedTuple):
    """Objects of a training step: the padded ``targets``, those to train on, ``usable`` bool ``[B, G]``, and the
    ``seeds`` int64 ``[B]`` of its random choices."""

    targets: Targets
    usable: Tensor
    seeds: Tensor


class FirstStage(NamedTuple):
    """``table`` of the levels that regions are pooled from, the ``proposals``, and the RPN's ``losses`` (none at
    inference)."""

    table: FeatureTable
    proposals: Proposals
    losses: dict[str, Tensor]


def first_stage(
    rpn: RPN, maps: Sequence[Tensor], strides: Sequence[float], pooled: int, sizes: Tensor, step: Supervision | None
) -> FirstStage:
    """Propose regions from the pyramid ``maps``, ``[B, C, H, W]`` each, and compute the RPN's losses in training.

    ``strides``: input pixels of a cell of each map. ``pooled``: number of levels, from the finest, that the second
    stage reads. ``sizes`` ``[B, 2]``: true sizes of the images. ``step``: None at inference.
    """
    table = FeatureTable.from_maps(maps, strides)  # one copy of the maps serves both stages
    proposals = rpn.proposals(maps, sizes, training=step is not None)
    losses = {} if step is None else rpn.losses(maps, sizes, *step, table)
    return FirstStage(table.first(pooled), proposals, losses)


def region_outputs(rpn: RPN, head: BoxHead | StageHead, maps: Sequence[Tensor]) -> list[Tensor]:
    """Run both stages' layers: objectness and deltas of each map, then class logits and deltas of the regions.

    The regions are zeros, as many as the RPN proposes at inference.
    """
    logits, deltas = rpn(maps)
    side, channels = head.config.pooling.size, maps[0].shape[1]
    regions = maps[0].new_zeros(len(maps[0]), rpn.config.post_nms[1], side, side, channels)
    return [*logits, *deltas, *head(regions)]
