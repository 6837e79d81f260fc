"""Mask R-CNN with FPN.

He et al., arXiv 1703.06870; Lin et al., arXiv 1612.03144; Li et al., arXiv 1804.06215 (DetNet). All need a data set
with masks.

``mask-rcnn-r50-fpn``
    The paper's recipe for COCO (§3.1), to the constant: 16 images a step, SGD at 0.02, 160,000 steps, a tenth at
    120,000, weight decay 1e-4, 512 regions an image, one in four positive, sides of 800; sides up to 1333, 2,000
    proposals in training, frozen norms and the warm-up are Detectron's. Needs ImageNet weights.
``mask-rcnn-detnet59-fpn``
    The same detector as DetNet trained it (§4.1): 180,000 steps, a tenth at 120,000 and 160,000, its proposals.
``...-modern``
    The same detectors with live, synchronised batch norm, large-scale jitter (Ghiasi et al., arXiv 2012.07177), GIoU
    for boxes, an EMA of the weights and a longer cosine schedule, at the same cost of inference.
``mask-rcnn-detnet-small-fpn``
    One that trains from scratch on a CPU, for small data sets and small images.
``mask-rcnn-small``, ``mask-rcnn-small-modern``
    The same on a ResNet of equal cost, trained as in the papers (flips alone, smooth L1, no EMA) and as the modern ones
    above.
"""

from __future__ import annotations

from dataclasses import replace

from boxwright.backbones.detnet import DetNetConfig
from boxwright.backbones.resnet import ResNetConfig
from boxwright.config.recipe import MultiStepConfig, SGDConfig, Source, Stage, WarmupConfig
from boxwright.detectors.mask_rcnn import MaskRCNNConfig
from boxwright.geometry.pooling.roi_pooling import RoIPoolingConfig
from boxwright.heads.regions.box_head import BoxHeadConfig
from boxwright.heads.regions.configs import RegionLossConfig
from boxwright.heads.regions.mask_head import MaskHeadConfig
from boxwright.heads.regions.rpn import RPNConfig, RPNLossConfig
from boxwright.necks.fpn import FPNConfig
from boxwright.recipes import faster_rcnn as boxes

PAPER_DATA = replace(boxes.DETNET59_PAPER.data, masks=True)

R50_PAPER = replace(
    boxes.DETNET59_PAPER,
    name="mask-rcnn-r50-fpn",
    detector=MaskRCNNConfig(
        backbone=ResNetConfig(depth=50, stride_in_1x1=True, norm="frozen_bn", freeze_at=2),
        rpn=RPNConfig(pre_nms=(2000, 1000), post_nms=(2000, 1000)),
    ),
    data=PAPER_DATA,
    stages=(
        Stage(
            length=160_000,
            unit="steps",
            optimiser=SGDConfig(lr=0.02, momentum=0.9, weight_decay=1e-4),
            schedule=MultiStepConfig(milestones=(120_000,), gamma=0.1, warmup=WarmupConfig(steps=500, factor=1 / 3)),
        ),
    ),
    source=Source(
        paper="Mask R-CNN, arXiv 1703.06870",
        section="§3.1, §4.2, table 2",
        note="COCO minival, masks, from ImageNet weights",
        expected={"mask_AP": 0.336, "mask_AP50": 0.552, "mask_AP75": 0.353},
    ),
)

DETNET59_PAPER = replace(
    boxes.DETNET59_PAPER,
    name="mask-rcnn-detnet59-fpn",
    detector=MaskRCNNConfig(backbone=DetNetConfig(norm="frozen_bn", freeze_at=1), rpn=boxes.DETNET_PAPER_RPN),
    data=PAPER_DATA,
    source=Source(
        paper="DetNet: A Backbone network for Object Detection, arXiv 1804.06215",
        section="§4.1, table 8",
        note="COCO test-dev, masks, from ImageNet weights",
        expected={
            "mask_AP": 0.371,
            "mask_AP50": 0.600,
            "mask_AP75": 0.396,
            "mask_APs": 0.186,
            "mask_APm": 0.390,
            "mask_APl": 0.513,
        },
    ),
)

DETNET59_MODERN = replace(
    boxes.DETNET59_MODERN,
    name="mask-rcnn-detnet59-fpn-modern",
    detector=MaskRCNNConfig(
        backbone=DetNetConfig(norm="bn"),
        neck=FPNConfig(norm="bn"),
        rpn=RPNConfig(loss=RPNLossConfig(box="giou")),
        head=BoxHeadConfig(loss=RegionLossConfig(box="giou")),
    ),
    data=replace(boxes.DETNET59_MODERN.data, masks=True),
)

R50_MODERN = replace(
    DETNET59_MODERN,
    name="mask-rcnn-r50-fpn-modern",
    detector=MaskRCNNConfig(
        backbone=ResNetConfig(depth=50, stride_in_1x1=True, norm="bn"),
        neck=FPNConfig(norm="bn"),
        rpn=RPNConfig(loss=RPNLossConfig(box="giou")),
        head=BoxHeadConfig(loss=RegionLossConfig(box="giou")),
    ),
)

SMALL_DETECTOR = MaskRCNNConfig(
    backbone=ResNetConfig(depth=50, blocks=(1, 2, 3, 1), width=16, norm="bn"),
    neck=FPNConfig(channels=64),
    rpn=boxes.SMALL_RPN,
    head=boxes.SMALL_HEAD,
    # One map for all classes, as the box head has one box: few examples of each class.
    mask=MaskHeadConfig(
        pooling=RoIPoolingConfig(size=14, canonical_size=96), convs=2, channels=64, class_agnostic=True
    ),
)
DETNET_SMALL = replace(
    boxes.DETNET_SMALL,
    name="mask-rcnn-detnet-small-fpn",
    detector=replace(
        SMALL_DETECTOR, backbone=DetNetConfig(depths=(1, 1, 2, 1, 1), width=16, stride_in_1x1=False, norm="bn")
    ),
    data=replace(boxes.DETNET_SMALL.data, masks=True),
)
SMALL = replace(
    boxes.FPN_SMALL,
    name="mask-rcnn-small",
    detector=SMALL_DETECTOR,
    data=replace(boxes.FPN_SMALL.data, masks=True),
)
SMALL_MODERN = replace(
    boxes.FPN_SMALL_MODERN,
    name="mask-rcnn-small-modern",
    detector=replace(
        SMALL_DETECTOR,
        rpn=replace(boxes.SMALL_RPN, loss=replace(boxes.SMALL_RPN.loss, box="giou")),
        head=replace(boxes.SMALL_HEAD, loss=replace(boxes.SMALL_HEAD.loss, box="giou")),
    ),
    data=replace(boxes.FPN_SMALL_MODERN.data, masks=True),
)

MASK_RCNN_RECIPES = (DETNET59_PAPER, R50_PAPER, DETNET59_MODERN, R50_MODERN, DETNET_SMALL, SMALL, SMALL_MODERN)
