"""Faster R-CNN on one map, without a pyramid.

Ren et al., arXiv 1506.01497; He et al., arXiv 1512.03385, for the residual form ("C4").

``faster-rcnn-vgg16``, ``faster-rcnn-zf``
    The paper's detectors on VOC07 by approximate joint training, with the constants of the authors' Python code: one
    image a pass and two a step, SGD at 0.001 with biases at twice that, 70,000 steps, a tenth from 50,000, sides of 600
    and 1000, objects marked difficult left out. They need ImageNet weights. ``rpn.min_size`` is 16 pixels of the
    network's input, the authors' of the original image.
    ``boxwright train faster-rcnn-vgg16 --data voc --backbone-weights torchvision:vgg16``; a K40 in the paper.
``faster-rcnn-vgg16-4step``, ``faster-rcnn-zf-4step``
    The paper's 4-step alternating training (§3.2): 80,000, 40,000, 80,000 and 40,000 steps of one image; the authors'
    steps 2 and 4 took two. The second step's proposals are made as it goes, by the network that the first step left;
    the paper stored them.
``faster-rcnn-vgg16-anchors-...``
    Table 8: one or three scales, one or three ratios, on VOC07; the full nine are ``...-anchors-3x3``.
``faster-rcnn-vgg16-coco``
    §4.2: eight images a step, 0.003 for 240,000 steps and a tenth for 80,000, with anchors of 64 pixels.
``faster-rcnn-r50-c4``, ``faster-rcnn-r101-c4``, ``faster-rcnn-detnet59-c4``
    Detectron's 1x schedule on COCO: 16 images a step, 0.02, 90,000 steps; the last stage (DetNet: two) on each region.
    From MSRA's weights, as there: ``boxwright train faster-rcnn-r50-c4 --data coco --backbone-weights R-50.pkl
    --set 'detector.pixels={mean=[123.675,116.28,103.53],std=[1,1,1],bgr=true}'``
``faster-rcnn-r50-c4-modern``, ``faster-rcnn-detnet59-c4-modern``
    The same networks from live batch norm, with large-scale jitter, GIoU, an EMA and a long cosine schedule.
``faster-rcnn-vgg16-modern``, ``faster-rcnn-zf-modern``
    The same on VGG-16 and ZF, at the paper's image size at inference, with aligned bins and anchors over the edge; 16
    images a step. VGG-16 has batch norm, which costs nothing once folded (``--backbone-weights`` takes torchvision's
    vgg16_bn), ZF its own normalisation and the paper's rate for each image.

The forms for a CPU are in :mod:`boxwright.recipes.faster_rcnn_c4_small`.
"""

from __future__ import annotations

from dataclasses import replace

from boxwright.anchors.generator import AnchorConfig
from boxwright.backbones.detnet import DetNetConfig
from boxwright.backbones.resnet import ResNetConfig
from boxwright.backbones.vgg import VGGConfig
from boxwright.backbones.zf import ZFConfig
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
from boxwright.data.transforms.configs import FlipConfig, ResizeConfig
from boxwright.detectors.faster_rcnn_c4 import FasterRCNNC4Config
from boxwright.geometry.pooling.roi_pooling import RoIPoolingConfig
from boxwright.heads.postprocess import PostprocessConfig
from boxwright.heads.regions.configs import RegionLossConfig
from boxwright.heads.regions.region_heads import LayersHeadConfig, StageHeadConfig
from boxwright.heads.regions.rpn import PAPER_RPN, RPNAssignConfig, RPNConfig
from boxwright.recipes.common import MODERN_EMA, MODERN_STAGE, large_scale_jitter

PAPER = "Faster R-CNN: Towards Real-Time Object Detection with Region Proposal Networks, arXiv 1506.01497"
RPN_LOSSES = ("rpn_objectness", "rpn_box")
HEAD_LOSSES = ("classification", "box")

VOC_SIDES = ResizeConfig(short=(600,), long=1000)
VOC_SGD = SGDConfig(lr=1e-3, momentum=0.9, weight_decay=5e-4, bias_lr=2.0)

VGG16_VOC = Recipe(
    name="faster-rcnn-vgg16",
    detector=FasterRCNNC4Config(difficult=False),
    data=DataConfig(train=(VOC_SIDES, FlipConfig(p=0.5)), eval=(VOC_SIDES,), batch_size=2, eval_batch_size=1),
    accumulation=2,
    stages=(
        Stage(
            length=70_000, unit="steps", optimiser=VOC_SGD, schedule=MultiStepConfig(milestones=(50_000,), gamma=0.1)
        ),
    ),
    validation=ValidationConfig(every=10_000, unit="steps"),
    checkpoint=CheckpointConfig(every=2_000, unit="steps"),
    source=Source(
        paper=PAPER,
        section="§3.2, table 3",
        note="VOC07 test, trained on VOC07 from ImageNet weights, by four steps in the paper; AP50 by 11 points",
        expected={"AP50": 0.699},
    ),
)

ZF_VOC = replace(
    VGG16_VOC,
    name="faster-rcnn-zf",
    detector=FasterRCNNC4Config(
        backbone=ZFConfig(),
        rpn=replace(PAPER_RPN, channels=256),
        head=LayersHeadConfig(pooling=RoIPoolingConfig(method="pool", size=6, inclusive=True)),
        difficult=False,
    ),
    source=replace(
        VGG16_VOC.source, section="table 2", note="VOC07 test, trained on VOC07 in four steps", expected={"AP50": 0.599}
    ),
)


def four_steps(rpn: Stage, head: Stage, again: tuple[float, float] | None = None) -> tuple[Stage, ...]:
    """Return the stages of §3.2: RPN, a fresh detector on its proposals, then both again on the latter's convolutions.

    ``rpn`` and ``head``: length and optimisation of steps 1 and 2. ``again``: lengths of steps 3 and 4; None for those
    of 1 and 2.
    """
    third, fourth = again or (rpn.length, head.length)
    return (
        replace(rpn, name="1 proposals", losses=RPN_LOSSES),
        replace(head, name="2 detector", losses=HEAD_LOSSES, reset=("backbone",), proposals="before"),
        replace(rpn, name="3 proposals", length=third, losses=RPN_LOSSES, frozen=("backbone",), reset=("rpn",)),
        replace(head, name="4 detector", length=fourth, losses=HEAD_LOSSES, frozen=("backbone", "rpn")),
    )


VOC_FOUR_STEPS = four_steps(
    Stage(length=80_000, unit="steps", optimiser=VOC_SGD, schedule=MultiStepConfig(milestones=(60_000,), gamma=0.1)),
    Stage(length=40_000, unit="steps", optimiser=VOC_SGD, schedule=MultiStepConfig(milestones=(30_000,), gamma=0.1)),
)
ONE_IMAGE = replace(VGG16_VOC.data, batch_size=1)

VGG16_4STEP = replace(
    VGG16_VOC,
    name="faster-rcnn-vgg16-4step",
    data=ONE_IMAGE,
    accumulation=1,
    stages=VOC_FOUR_STEPS,
    source=replace(VGG16_VOC.source, section="§3.2, table 3, four steps"),
)
ZF_4STEP = replace(ZF_VOC, name="faster-rcnn-zf-4step", data=ONE_IMAGE, accumulation=1, stages=VOC_FOUR_STEPS)


def _anchors(name: str, sizes: tuple[float, ...], ratios: tuple[float, ...], expected: float) -> Recipe:
    """Return a row of table 8: VOC07, four steps."""
    anchors = AnchorConfig(sizes=(sizes,), ratios=ratios, centre="cell")
    return replace(
        VGG16_4STEP,
        name=f"faster-rcnn-vgg16-anchors-{name}",
        detector=replace(VGG16_4STEP.detector, rpn=replace(PAPER_RPN, anchors=anchors)),
        source=Source(
            paper=PAPER,
            section="table 8",
            note="VOC07 test, trained on VOC07; steps 2 and 4 of one image, the paper's of two",
            expected={"AP50": expected},
        ),
    )


THREE_SIZES, THREE_RATIOS = (128.0, 256.0, 512.0), (0.5, 1.0, 2.0)
ANCHOR_RECIPES = (
    _anchors("1x1-128", (128.0,), (1.0,), 0.658),
    _anchors("1x1-256", (256.0,), (1.0,), 0.667),
    _anchors("1x3-128", (128.0,), THREE_RATIOS, 0.688),
    _anchors("1x3-256", (256.0,), THREE_RATIOS, 0.679),
    _anchors("3x1", THREE_SIZES, (1.0,), 0.698),
    _anchors("3x3", THREE_SIZES, THREE_RATIOS, 0.699),
)

COCO_ANCHORS = AnchorConfig(sizes=((64, 128, 256, 512),), centre="cell")
VGG16_COCO = replace(
    VGG16_VOC,
    name="faster-rcnn-vgg16-coco",
    detector=FasterRCNNC4Config(rpn=replace(PAPER_RPN, anchors=COCO_ANCHORS)),
    data=replace(VGG16_VOC.data, batch_size=8, drop_empty=True),
    accumulation=1,
    stages=(
        Stage(
            length=320_000,
            unit="steps",
            optimiser=replace(VOC_SGD, lr=3e-3),
            schedule=MultiStepConfig(milestones=(240_000,), gamma=0.1),
        ),
    ),
    source=Source(
        paper=PAPER, section="§4.2, table 11", note="COCO val, trained on train", expected={"AP": 0.212, "AP50": 0.415}
    ),
)

# Detectron's C4 models: five scales, all conventions of its own heads, v1 strides, 1000 proposals at test.
C4_RPN = RPNConfig(
    anchors=AnchorConfig(sizes=((32, 64, 128, 256, 512),)),
    assign=RPNAssignConfig(straddle=0.0),
    pre_nms=(12_000, 6_000),
    post_nms=(2_000, 1_000),
)
C4_HEAD = StageHeadConfig(samples=512, post=PostprocessConfig(nms_iou=0.5))
COCO_SIDES = ResizeConfig(short=(800,), long=1333)

R50_C4 = Recipe(
    name="faster-rcnn-r50-c4",
    detector=FasterRCNNC4Config(
        backbone=ResNetConfig(depth=50, stride_in_1x1=True, norm="frozen_bn", freeze_at=2, out_levels=(4,)),
        rpn=C4_RPN,
        head=C4_HEAD,
    ),
    data=DataConfig(
        train=(COCO_SIDES, FlipConfig(p=0.5)), eval=(COCO_SIDES,), batch_size=16, eval_batch_size=4, drop_empty=True
    ),
    stages=(
        Stage(
            length=90_000,
            unit="steps",
            optimiser=SGDConfig(lr=0.02, momentum=0.9, weight_decay=1e-4),
            schedule=MultiStepConfig(
                milestones=(60_000, 80_000), gamma=0.1, warmup=WarmupConfig(steps=500, factor=1 / 3)
            ),
        ),
    ),
    validation=ValidationConfig(every=10_000, unit="steps"),
    checkpoint=CheckpointConfig(every=2_000, unit="steps"),
    source=Source(
        paper="Deep Residual Learning for Image Recognition, arXiv 1512.03385",
        section="appendix A, with Detectron's 1x schedule",
        note="COCO minival, from ImageNet weights",
        expected={"AP": 0.348},
    ),
)
R101_C4 = replace(
    R50_C4,
    name="faster-rcnn-r101-c4",
    detector=replace(
        R50_C4.detector,
        backbone=ResNetConfig(depth=101, stride_in_1x1=True, norm="frozen_bn", freeze_at=2, out_levels=(4,)),
    ),
    source=replace(R50_C4.source, expected=None),
)
# DetNet's stages 5 and 6 keep the size of a region; on 7 x 7 cells they cost what a ResNet's stage 5 does on 14 x 14.
DETNET_HEAD = replace(C4_HEAD, pooling=RoIPoolingConfig(size=7))
DETNET59_C4 = replace(
    R50_C4,
    name="faster-rcnn-detnet59-c4",
    detector=replace(
        R50_C4.detector, backbone=DetNetConfig(norm="frozen_bn", freeze_at=2, out_levels=(4,)), head=DETNET_HEAD
    ),
    source=replace(R50_C4.source, note="no published figure: DetNet was measured with a pyramid", expected=None),
)

R50_C4_MODERN = Recipe(
    name="faster-rcnn-r50-c4-modern",
    detector=FasterRCNNC4Config(
        backbone=ResNetConfig(depth=50, stride_in_1x1=True, norm="bn", out_levels=(4,)),
        rpn=replace(C4_RPN, assign=replace(C4_RPN.assign, straddle=None), loss=replace(C4_RPN.loss, box="giou")),
        head=replace(C4_HEAD, loss=replace(C4_HEAD.loss, box="giou")),
    ),
    data=DataConfig(
        train=large_scale_jitter(1024),
        eval=(ResizeConfig(short=(1024,), long=1024),),
        batch_size=16,
        eval_batch_size=4,
        group_by_aspect=False,
    ),
    stages=(MODERN_STAGE,),
    ema=MODERN_EMA,
    validation=ValidationConfig(every=5, unit="epochs"),
    sync_batch_norm=True,
    clip_norm=35.0,
    source=Source(
        paper="Simple Copy-Paste is a Strong Data Augmentation Method, arXiv 2012.07177",
        section="§3 (large-scale jitter, batch norm and long schedule)",
        note="our combination; no published figure for this detector",
    ),
)
DETNET59_C4_MODERN = replace(
    R50_C4_MODERN,
    name="faster-rcnn-detnet59-c4-modern",
    detector=replace(
        R50_C4_MODERN.detector,
        backbone=DetNetConfig(norm="bn", out_levels=(4,)),
        head=replace(DETNET_HEAD, loss=replace(DETNET_HEAD.loss, box="giou")),
    ),
)

VOC_MODERN_DATA = replace(
    R50_C4_MODERN.data,
    train=large_scale_jitter(800),
    eval=(VOC_SIDES,),
)
MODERN_RPN = replace(
    PAPER_RPN, assign=replace(PAPER_RPN.assign, straddle=None), loss=replace(PAPER_RPN.loss, box="giou")
)
VGG16_MODERN = replace(
    R50_C4_MODERN,
    name="faster-rcnn-vgg16-modern",
    detector=FasterRCNNC4Config(
        backbone=VGGConfig(norm="bn", out_levels=(5,)),
        rpn=MODERN_RPN,
        head=LayersHeadConfig(
            pooling=RoIPoolingConfig(size=7), loss=RegionLossConfig(box="giou"), post=PostprocessConfig(nms_iou=0.5)
        ),
    ),
    data=VOC_MODERN_DATA,
)
# Batch norm would take the place of the published network's normalisation, and its weights would not fit: it stays,
# and trains at the paper's learning rate for each image.
ZF_MODERN = replace(
    VGG16_MODERN,
    name="faster-rcnn-zf-modern",
    detector=FasterRCNNC4Config(
        backbone=ZFConfig(),
        rpn=replace(MODERN_RPN, channels=256),
        head=LayersHeadConfig(
            pooling=RoIPoolingConfig(size=6), loss=RegionLossConfig(box="giou"), post=PostprocessConfig(nms_iou=0.5)
        ),
    ),
    stages=(
        replace(
            R50_C4_MODERN.stages[0],
            optimiser=SGDConfig(lr=8e-3, base_batch=16, momentum=0.9, nesterov=True, weight_decay=5e-4, bias_lr=2.0),
        ),
    ),
    sync_batch_norm=False,
)

FASTER_RCNN_C4_RECIPES = (
    VGG16_VOC,
    VGG16_4STEP,
    ZF_VOC,
    ZF_4STEP,
    *ANCHOR_RECIPES,
    VGG16_COCO,
    R50_C4,
    R101_C4,
    DETNET59_C4,
    R50_C4_MODERN,
    DETNET59_C4_MODERN,
    VGG16_MODERN,
    ZF_MODERN,
)
