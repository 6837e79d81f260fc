"""Fast R-CNN. Each recipe needs files of proposals: ``data.proposals.train`` and ``data.proposals.val``.

``fast-rcnn-vgg16``
    The paper's detector L on VOC07: two images a step, 64 regions of each, SGD at 0.001 with biases at twice that, a
    tenth of it after 30,000 of 40,000 steps, sides of 600 and 1000. It needs ImageNet weights.
``fast-rcnn-vgg16-0712``
    On VOC07+12: 60,000 steps, and a tenth from 40,000.
``fast-rcnn-detnet59``
    The same on DetNet-59: its stages 5 and 6 on each region, batch norms frozen.
``fast-rcnn-vgg16-modern``, ``fast-rcnn-detnet59-modern``
    The same networks from live batch norm, with aligned bins, large-scale jitter, GIoU, an EMA, a long cosine schedule.
``fast-rcnn-small``, ``fast-rcnn-detnet-small``, and ``...-modern`` of both
    For the CPU and small images, from scratch: a quarter of the channels, 256 pixels, an epoch count, half of the
    regions positive and one box for all classes, because a small data set has few examples of each. Batch norm is new,
    the paper starts from ImageNet weights; the floor of background regions is 0, because proposals that miss every
    object are otherwise never seen, which only pretrained features can afford. The modern ones differ in bins, box
    loss, augmentation and EMA.
"""

from __future__ import annotations

from dataclasses import replace

from boxwright.backbones.detnet import DetNetConfig
from boxwright.backbones.vgg import VGGConfig
from boxwright.config.recipe import (
    CheckpointConfig,
    MultiStepConfig,
    Recipe,
    SGDConfig,
    Source,
    Stage,
    ValidationConfig,
)
from boxwright.data.config import DataConfig
from boxwright.data.proposals.files import ProposalsConfig
from boxwright.data.transforms.configs import (
    FlipConfig,
    LetterboxConfig,
    ResizeConfig,
)
from boxwright.detectors.fast_rcnn import FastRCNNConfig
from boxwright.geometry.pooling.roi_pooling import RoIPoolingConfig
from boxwright.heads.postprocess import PostprocessConfig
from boxwright.heads.regions.box_head import RegionAssignConfig
from boxwright.heads.regions.configs import RegionLossConfig
from boxwright.heads.regions.region_heads import LayersHeadConfig, StageHeadConfig
from boxwright.recipes import small
from boxwright.recipes.common import MODERN_EMA, MODERN_STAGE, large_scale_jitter

VOC_SIDES = ResizeConfig(short=(600,), long=1000)
VOC_STAGE = Stage(
    length=40_000,
    unit="steps",
    optimiser=SGDConfig(lr=1e-3, momentum=0.9, weight_decay=5e-4, decay_biases=False, bias_lr=2.0),
    schedule=MultiStepConfig(milestones=(30_000,), gamma=0.1),
)

VGG16_VOC = Recipe(
    name="fast-rcnn-vgg16",
    detector=FastRCNNConfig(targets="measured"),
    data=DataConfig(
        train=(VOC_SIDES, FlipConfig(p=0.5)),
        eval=(VOC_SIDES,),
        batch_size=2,
        eval_batch_size=1,
        proposals=ProposalsConfig(),
    ),
    stages=(VOC_STAGE,),
    validation=ValidationConfig(every=10_000, unit="steps"),
    checkpoint=CheckpointConfig(every=2_000, unit="steps"),
    source=Source(
        paper="Fast R-CNN, arXiv 1504.08083",
        section="§2.3, table 1",
        note="VOC07 test, trained on VOC07 from ImageNet weights; AP50 by 11 points",
        expected={"AP50": 0.669},
    ),
)
VGG16_0712 = replace(
    VGG16_VOC,
    name="fast-rcnn-vgg16-0712",
    stages=(replace(VOC_STAGE, length=60_000, schedule=MultiStepConfig(milestones=(40_000,), gamma=0.1)),),
    source=replace(VGG16_VOC.source, note="VOC07 test, trained on VOC07+12", expected={"AP50": 0.70}),
)

# On 7 x 7 cells DetNet's stages 5 and 6 cost what a ResNet's stage 5 does on 14 x 14.
DETNET59_HEAD = StageHeadConfig(
    pooling=RoIPoolingConfig(method="pool", size=7, inclusive=True),
    samples=64,
    assign=RegionAssignConfig(negative_floor=0.1),
    loss=RegionLossConfig(normalizer="sampled"),
)
DETNET59_VOC = replace(
    VGG16_VOC,
    name="fast-rcnn-detnet59",
    detector=FastRCNNConfig(
        backbone=DetNetConfig(norm="frozen_bn", freeze_at=2, out_levels=(4,)), head=DETNET59_HEAD, targets="measured"
    ),
    source=replace(VGG16_VOC.source, note="no published figure on DetNet-59", expected=None),
)

VGG16_MODERN = Recipe(
    name="fast-rcnn-vgg16-modern",
    detector=FastRCNNConfig(
        backbone=VGGConfig(norm="bn", out_levels=(5,)),
        head=LayersHeadConfig(
            pooling=RoIPoolingConfig(size=7),
            samples=128,
            loss=RegionLossConfig(normalizer="sampled", box="giou"),
            post=PostprocessConfig(nms_iou=0.5),
        ),
    ),
    data=DataConfig(
        train=large_scale_jitter(800),
        eval=(VOC_SIDES,),
        batch_size=16,
        eval_batch_size=4,
        group_by_aspect=False,
        proposals=ProposalsConfig(),
    ),
    stages=(MODERN_STAGE,),
    ema=MODERN_EMA,
    validation=ValidationConfig(every=5, unit="epochs"),
    sync_batch_norm=True,
    clip_norm=35.0,
    source=Source(note="our combination; no published figure for this detector"),
)
DETNET59_MODERN = replace(
    VGG16_MODERN,
    name="fast-rcnn-detnet59-modern",
    detector=FastRCNNConfig(
        backbone=DetNetConfig(norm="bn", out_levels=(4,)),
        head=StageHeadConfig(
            pooling=RoIPoolingConfig(size=7),
            loss=RegionLossConfig(normalizer="sampled", box="giou"),
            post=PostprocessConfig(nms_iou=0.5),
        ),
    ),
)

SMALL_DETECTOR = FastRCNNConfig(
    backbone=VGGConfig(depth=11, width=16, norm="bn", out_levels=(5,)),
    head=LayersHeadConfig(
        pooling=RoIPoolingConfig(method="pool", size=7, inclusive=True),
        hidden=(256, 256),
        class_agnostic=True,
        samples=64,
        positive_fraction=0.5,
        loss=RegionLossConfig(normalizer="sampled"),
    ),
)
DETNET_SMALL_DETECTOR = FastRCNNConfig(
    backbone=DetNetConfig(depths=(1, 1, 2, 1, 1), width=16, stride_in_1x1=False, norm="bn", out_levels=(4,)),
    head=StageHeadConfig(
        pooling=RoIPoolingConfig(size=7),
        class_agnostic=True,
        samples=32,
        positive_fraction=0.5,
        loss=RegionLossConfig(normalizer="sampled"),
    ),
)

SMALL = Recipe(
    name="fast-rcnn-small",
    detector=SMALL_DETECTOR,
    data=DataConfig(
        train=(LetterboxConfig(size=(256, 256)), FlipConfig(p=0.5)),
        eval=(LetterboxConfig(size=(256, 256)),),
        batch_size=8,
        eval_batch_size=8,
        workers=2,
        group_by_aspect=False,
        proposals=ProposalsConfig(),
    ),
    stages=(small.STAGE,),
    validation=ValidationConfig(every=5, unit="epochs"),
    clip_norm=10.0,
    channels_last=True,
    source=Source(note="ours, for the CPU"),
)
DETNET_SMALL = replace(SMALL, name="fast-rcnn-detnet-small", detector=DETNET_SMALL_DETECTOR)


def _modern(plain: Recipe, detector: FastRCNNConfig) -> Recipe:
    head = replace(
        detector.head,
        pooling=RoIPoolingConfig(size=7),
        loss=replace(detector.head.loss, box="giou"),
        post=PostprocessConfig(nms_iou=0.5),
    )
    return replace(
        plain,
        name=f"{plain.name}-modern",
        detector=replace(detector, head=head),
        data=replace(plain.data, train=small.JITTER),
        ema=small.EMA,
    )


FAST_RCNN_RECIPES = (
    VGG16_VOC,
    VGG16_0712,
    DETNET59_VOC,
    VGG16_MODERN,
    DETNET59_MODERN,
    SMALL,
    DETNET_SMALL,
    _modern(SMALL, SMALL_DETECTOR),
    _modern(DETNET_SMALL, DETNET_SMALL_DETECTOR),
)
