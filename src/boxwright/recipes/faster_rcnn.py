"""Faster R-CNN with FPN.

Ren et al., arXiv 1506.01497; Lin et al., arXiv 1612.03144; Li et al., arXiv 1804.06215 (DetNet).

``faster-rcnn-detnet59-fpn``, ``faster-rcnn-r50-fpn``
    DetNet's recipe for COCO (§4.1), to the constant: 16 images a step, SGD at 0.02, 180,000 steps, a tenth at 120,000
    and 160,000, warm-up of 500 steps from 0.3, sides of 800 and 1333, horizontal flips, stem and batch norms frozen.
    They need ImageNet weights: those of ``boxwright pretrain detnet59`` or ``resnet50-v1``, MSRA's with their pixels,
    or the DetNet_pytorch port's with its strides; 8 Titan XP in the paper.
    ``boxwright train faster-rcnn-detnet59-fpn --data coco --backbone-weights backbone.safetensors``
    ``boxwright train faster-rcnn-detnet59-fpn --data coco --backbone-weights detnet59.pth
    --set detector.backbone.stride_in_1x1=false``
    ``boxwright train faster-rcnn-r50-fpn --data coco --backbone-weights R-50.pkl
    --set 'detector.pixels={mean=[123.675,116.28,103.53],std=[1,1,1],bgr=true}'``
``...-modern``
    The same detectors from live, synchronised batch norm with large-scale jitter (Ghiasi et al., arXiv 2012.07177),
    an EMA of the weights and a longer cosine schedule, at the same cost of inference.
``faster-rcnn-detnet-small-fpn``, ``faster-rcnn-resnet-small-fpn``
    Two of one cost that train from scratch on a CPU, for small data sets and small images.
``faster-rcnn-fpn-small``, ``faster-rcnn-fpn-small-modern``
    The latter, trained as in the papers (flips alone, smooth L1, no EMA) and as the modern ones above.
"""

from __future__ import annotations

from dataclasses import replace

from boxwright.anchors.generator import AnchorConfig
from boxwright.backbones.detnet import DetNetConfig
from boxwright.backbones.resnet import ResNetConfig
from boxwright.config.recipe import (
    CheckpointConfig,
    MultiStepConfig,
    Recipe,
    SGDConfig,
    Source,
    Stage,
    ValidationConfig,
    WarmupConfig,
)
from boxwright.data.config import DataConfig
from boxwright.data.transforms.configs import (
    FlipConfig,
    LetterboxConfig,
    ResizeConfig,
)
from boxwright.detectors.faster_rcnn import FasterRCNNConfig
from boxwright.geometry.pooling.roi_pooling import RoIPoolingConfig
from boxwright.heads.regions.box_head import BoxHeadConfig
from boxwright.heads.regions.configs import RegionLossConfig
from boxwright.heads.regions.rpn import ProposalNMSConfig, RPNConfig, RPNLossConfig
from boxwright.necks.fpn import FPNConfig
from boxwright.recipes import small
from boxwright.recipes.common import MODERN_EMA, MODERN_STAGE, large_scale_jitter

# DetNet §4.1: 12000 proposals before and 2000 after NMS in training, 6000 and 1000 at test, taken over the image.
DETNET_PAPER_RPN = RPNConfig(pre_nms=(12_000, 6_000), post_nms=(2_000, 1_000), nms=ProposalNMSConfig(scope="image"))

DETNET59_PAPER = Recipe(
    name="faster-rcnn-detnet59-fpn",
    detector=FasterRCNNConfig(backbone=DetNetConfig(norm="frozen_bn", freeze_at=1), rpn=DETNET_PAPER_RPN),
    data=DataConfig(
        train=(ResizeConfig(short=(800,), long=1333), FlipConfig(p=0.5)),
        eval=(ResizeConfig(short=(800,), long=1333),),
        batch_size=16,
        eval_batch_size=8,
        group_by_aspect=True,
        drop_empty=True,
    ),
    stages=(
        Stage(
            length=180_000,
            unit="steps",
            optimiser=SGDConfig(lr=0.02, momentum=0.9, weight_decay=1e-4),
            schedule=MultiStepConfig(
                milestones=(120_000, 160_000), gamma=0.1, warmup=WarmupConfig(steps=500, factor=0.3)
            ),
        ),
    ),
    validation=ValidationConfig(every=10_000, unit="steps"),
    checkpoint=CheckpointConfig(every=2_000, unit="steps"),
    source=Source(
        paper="DetNet: A Backbone network for Object Detection, arXiv 1804.06215",
        section="§4.1, table 1",
        note="COCO minival, from ImageNet weights",
        expected={"AP": 0.402, "AP50": 0.617, "AP75": 0.437, "APs": 0.239, "APm": 0.432, "APl": 0.520},
    ),
)

R50_PAPER = replace(
    DETNET59_PAPER,
    name="faster-rcnn-r50-fpn",
    # The baselines of the paper are Detectron's, with v1 strides.
    detector=FasterRCNNConfig(
        backbone=ResNetConfig(depth=50, stride_in_1x1=True, norm="frozen_bn", freeze_at=1), rpn=DETNET_PAPER_RPN
    ),
    source=replace(
        DETNET59_PAPER.source,
        expected={"AP": 0.379, "AP50": 0.600, "AP75": 0.412, "APs": 0.229, "APm": 0.406, "APl": 0.492},
    ),
)

MODERN_DATA = DataConfig(
    train=large_scale_jitter(1024),
    eval=(ResizeConfig(short=(1024,), long=1024),),
    batch_size=16,
    eval_batch_size=8,
    group_by_aspect=False,
)

DETNET59_MODERN = Recipe(
    name="faster-rcnn-detnet59-fpn-modern",
    detector=FasterRCNNConfig(
        backbone=DetNetConfig(norm="bn"),
        neck=FPNConfig(norm="bn"),
        rpn=RPNConfig(loss=RPNLossConfig(box="giou")),
        head=BoxHeadConfig(loss=RegionLossConfig(box="giou")),
    ),
    data=MODERN_DATA,
    stages=(MODERN_STAGE,),
    ema=MODERN_EMA,
    validation=ValidationConfig(every=5, unit="epochs"),
    checkpoint=CheckpointConfig(every=1, unit="epochs"),
    sync_batch_norm=True,
    clip_norm=35.0,
    source=Source(
        paper="Simple Copy-Paste is a Strong Data Augmentation Method, arXiv 2012.07177",
        section="§3 (large-scale jitter, batch norm and long schedule)",
        note="our combination; no published figure for this detector",
    ),
)

R50_MODERN = replace(
    DETNET59_MODERN,
    name="faster-rcnn-r50-fpn-modern",
    detector=FasterRCNNConfig(
        backbone=ResNetConfig(depth=50, stride_in_1x1=True, norm="bn"),
        neck=FPNConfig(norm="bn"),
        rpn=RPNConfig(loss=RPNLossConfig(box="giou")),
        head=BoxHeadConfig(loss=RegionLossConfig(box="giou")),
    ),
)

SMALL_ANCHORS = AnchorConfig(sizes=((16,), (32,), (64,), (96,), (160,)))
SMALL_RPN = RPNConfig(anchors=SMALL_ANCHORS, pre_nms=(300, 200), post_nms=(150, 100), samples=128)
# Many positives a step, and one box for all classes: a small data set has few examples of each.
SMALL_HEAD = BoxHeadConfig(
    pooling=RoIPoolingConfig(canonical_size=96),
    hidden=(256, 256),
    class_agnostic=True,
    samples=64,
    positive_fraction=0.5,
)

DETNET_SMALL = Recipe(
    name="faster-rcnn-detnet-small-fpn",
    detector=FasterRCNNConfig(
        backbone=DetNetConfig(depths=(1, 1, 2, 1, 1), width=16, stride_in_1x1=False, norm="bn"),
        neck=FPNConfig(channels=64),
        rpn=SMALL_RPN,
        head=SMALL_HEAD,
    ),
    data=DataConfig(
        train=small.JITTER,
        eval=(LetterboxConfig(size=(256, 256)),),
        batch_size=8,
        eval_batch_size=8,
        workers=2,
        group_by_aspect=False,
    ),
    stages=(small.STAGE,),
    ema=small.EMA,
    validation=ValidationConfig(every=5, unit="epochs"),
    checkpoint=CheckpointConfig(every=1, unit="epochs"),
    clip_norm=10.0,
    channels_last=True,
    source=Source(note="ours, for the CPU"),
)

RESNET_SMALL = replace(
    DETNET_SMALL,
    name="faster-rcnn-resnet-small-fpn",
    detector=FasterRCNNConfig(
        backbone=ResNetConfig(depth=50, blocks=(1, 2, 3, 1), width=16, norm="bn"),
        neck=FPNConfig(channels=64),
        rpn=SMALL_RPN,
        head=SMALL_HEAD,
    ),
)

FPN_SMALL = replace(
    RESNET_SMALL,
    name="faster-rcnn-fpn-small",
    data=replace(RESNET_SMALL.data, train=(LetterboxConfig(size=(256, 256)), FlipConfig(p=0.5))),
    ema=None,
)
FPN_SMALL_MODERN = replace(
    RESNET_SMALL,
    name="faster-rcnn-fpn-small-modern",
    detector=replace(
        RESNET_SMALL.detector,
        rpn=replace(SMALL_RPN, loss=replace(SMALL_RPN.loss, box="giou")),
        head=replace(SMALL_HEAD, loss=replace(SMALL_HEAD.loss, box="giou")),
    ),
)

FASTER_RCNN_RECIPES = (
    DETNET59_PAPER,
    R50_PAPER,
    DETNET59_MODERN,
    R50_MODERN,
    DETNET_SMALL,
    RESNET_SMALL,
    FPN_SMALL,
    FPN_SMALL_MODERN,
)
