"""Faster R-CNN on one map for the CPU and small images; the paper's own are in
:mod:`boxwright.recipes.faster_rcnn_c4`.

``faster-rcnn-c4-small``, ``faster-rcnn-c4-detnet-small``, ``faster-rcnn-vgg-small``, and ``...-modern`` of each
    For the CPU and small images, from scratch: a quarter of the channels, 256 pixels, an epoch count. Batch norm is
    new, the paper starts from ImageNet weights. The modern ones differ in box loss, anchors trained on,
    augmentation and EMA, on VGG in bins too.
``faster-rcnn-c4-small-4step``
    The first of them in the paper's four steps: each half trains for as many epochs as in joint training, then 5 more.
"""

from __future__ import annotations

from dataclasses import replace

from boxwright.backbones.detnet import DetNetConfig
from boxwright.backbones.resnet import ResNetConfig
from boxwright.backbones.vgg import VGGConfig
from boxwright.config.recipe import Recipe, Source, ValidationConfig
from boxwright.data.config import DataConfig
from boxwright.data.transforms.configs import FlipConfig, LetterboxConfig
from boxwright.detectors.faster_rcnn_c4 import FasterRCNNC4Config
from boxwright.geometry.pooling.roi_pooling import RoIPoolingConfig
from boxwright.heads.regions.region_heads import LayersHeadConfig, StageHeadConfig
from boxwright.recipes import small
from boxwright.recipes.faster_rcnn_c4 import four_steps

SMALL_STAGE = small.STAGE
C4_SMALL_DETECTOR = FasterRCNNC4Config(
    backbone=ResNetConfig(depth=50, blocks=(1, 2, 3, 1), width=16, norm="bn", out_levels=(4,)),
    rpn=small.ONE_MAP_RPN,
    head=StageHeadConfig(
        pooling=RoIPoolingConfig(size=7), stride=1, class_agnostic=True, samples=32, positive_fraction=0.5
    ),
)

C4_SMALL = Recipe(
    name="faster-rcnn-c4-small",
    detector=C4_SMALL_DETECTOR,
    data=DataConfig(
        train=(LetterboxConfig(size=(256, 256)), FlipConfig(p=0.5)),
        eval=(LetterboxConfig(size=(256, 256)),),
        batch_size=8,
        eval_batch_size=8,
        workers=2,
        group_by_aspect=False,
    ),
    stages=(SMALL_STAGE,),
    validation=ValidationConfig(every=5, unit="epochs"),
    clip_norm=10.0,
    channels_last=True,
    source=Source(note="ours, for the CPU"),
)
# Each half sees every image as often as in joint training, then a third as often again.
C4_SMALL_4STEP = replace(
    C4_SMALL, name="faster-rcnn-c4-small-4step", stages=four_steps(SMALL_STAGE, SMALL_STAGE, again=(5, 5))
)
C4_DETNET_SMALL = replace(
    C4_SMALL,
    name="faster-rcnn-c4-detnet-small",
    detector=replace(
        C4_SMALL_DETECTOR,
        backbone=DetNetConfig(depths=(1, 1, 2, 1, 1), width=16, stride_in_1x1=False, norm="bn", out_levels=(4,)),
        head=replace(C4_SMALL_DETECTOR.head, stride=None),
    ),
)
VGG_SMALL = replace(
    C4_SMALL,
    name="faster-rcnn-vgg-small",
    detector=FasterRCNNC4Config(
        backbone=VGGConfig(depth=11, width=16, norm="bn", out_levels=(5,)),
        rpn=small.ONE_MAP_RPN,
        head=LayersHeadConfig(hidden=(256, 256), class_agnostic=True, samples=64, positive_fraction=0.5),
    ),
)


def _small_modern(plain: Recipe) -> Recipe:
    """Return the recipe with GIoU, all anchors, aligned bins, jitter and an EMA of the weights."""
    detector = plain.detector
    assert isinstance(detector, FasterRCNNC4Config)
    pooling = replace(detector.head.pooling, method="align", inclusive=False)
    return replace(
        plain,
        name=f"{plain.name}-modern",
        detector=replace(
            detector,
            rpn=replace(
                detector.rpn,
                assign=replace(detector.rpn.assign, straddle=None),
                loss=replace(detector.rpn.loss, box="giou"),
            ),
            head=replace(detector.head, pooling=pooling, loss=replace(detector.head.loss, box="giou")),
        ),
        data=replace(plain.data, train=small.JITTER),
        ema=small.EMA,
    )


FASTER_RCNN_C4_SMALL_RECIPES = (
    C4_SMALL,
    C4_SMALL_4STEP,
    _small_modern(C4_SMALL),
    C4_DETNET_SMALL,
    _small_modern(C4_DETNET_SMALL),
    VGG_SMALL,
    _small_modern(VGG_SMALL),
)
