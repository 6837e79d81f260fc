"""A real detector that is small enough to be trained and saved in milliseconds."""

from dataclasses import replace
from typing import Any

from boxwright.anchors.generator import AnchorConfig
from boxwright.backbones.detnet import DetNetConfig
from boxwright.config.recipe import Recipe
from boxwright.detectors.faster_rcnn import FasterRCNNConfig
from boxwright.heads.regions.box_head import BoxHeadConfig
from boxwright.heads.regions.rpn import RPNConfig
from boxwright.necks.fpn import FPNConfig
from tests.support.toys import toy_recipe

TINY = FasterRCNNConfig(
    backbone=DetNetConfig(depths=(1, 1, 1, 1, 1), width=8),
    neck=FPNConfig(channels=16),
    rpn=RPNConfig(
        anchors=AnchorConfig(sizes=((8,), (12,), (16,), (24,), (32,))), pre_nms=(40, 40), post_nms=(20, 20), samples=16
    ),
    head=BoxHeadConfig(hidden=(16,), samples=8),
)


def tiny_recipe(steps: int, **changes: Any) -> Recipe:
    """Return the toys' recipe with the tiny detector."""
    return replace(toy_recipe(steps, **changes), detector=TINY)
