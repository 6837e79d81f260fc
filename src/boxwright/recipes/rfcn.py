"""R-FCN.

Dai et al., arXiv 1605.06409; Shrivastava et al., arXiv 1604.03540 (OHEM).

``rfcn-r101-voc``, ``rfcn-r50-voc``, ``rfcn-detnet59-voc``
    §3, VOC 07+12: eight images a step, SGD at 0.001 for 20,000 steps and a tenth for 10,000, 128 of 300 regions by
    their loss, sides of 600 and 1000. They need ImageNet weights; those on ResNets have the pixels and the
    stem of MSRA's. ``boxwright train rfcn-r101-voc --data voc --backbone-weights ResNet-101-model.caffemodel``; eight
    K40 in the paper.
``rfcn-r101-voc-no-ohem``, ``-k3``, ``-conv4``, ``-conv5-s32``, ``-multi-scale``
    §4.1: random regions, 3 x 3 bins, score maps on conv4, an undilated conv5, five training sizes.
``rfcn-r101-coco``, ``rfcn-detnet59-coco``
    §4.2: 90,000 steps at 0.001 and 30,000 at a tenth, with anchors of 64 pixels.
``rfcn-r101-coco-modern``, ``rfcn-detnet59-coco-modern``
    The same networks from live batch norm, with aligned bins, large-scale jitter, GIoU, an EMA, a long cosine schedule.
``rfcn-detnet-small``, ``rfcn-resnet-small``, and ``...-modern`` of both
    For the CPU and small images, from scratch: a quarter of the channels, 3 x 3 bins, 256 pixels, an epoch count. Batch
    norm is new, the paper starts from ImageNet weights. The modern ones differ in bins, box loss, anchors
    trained on, augmentation and EMA.
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
)
from boxwright.data.config import DataConfig
from boxwright.data.transforms.configs import (
    FlipConfig,
    LetterboxConfig,
    ResizeConfig,
)
from boxwright.detectors.contract.pixels import IMAGENET, MSRA
from boxwright.detectors.rfcn import RFCN_RPN, RFCNConfig, RFCNHeadConfig
from boxwright.geometry.pooling.position_sensitive import PositionSensitiveConfig
from boxwright.heads.postprocess import PostprocessConfig
from boxwright.heads.regions.configs import RegionLossConfig
from boxwright.recipes import small
from boxwright.recipes.common import MODERN_EMA, MODERN_STAGE, large_scale_jitter

PAPER = "R-FCN: Object Detection via Region-based Fully Convolutional Networks, arXiv 1605.06409"
VOC_SIDES = ResizeConfig(short=(600,), long=1000)
# The authors' code keeps up to 400 boxes whatever their score.
VOC_HEAD = RFCNHeadConfig(post=PostprocessConfig(score_threshold=0.0, nms_iou=0.3, detections=400, candidates=4000))
R101 = ResNetConfig(
    depth=101,
    stride_in_1x1=True,
    stem_pool="ceil",
    norm="frozen_bn",
    freeze_at=1,
    output_stride=16,
    out_levels=(4, 5),
)
DETNET59 = DetNetConfig(norm="frozen_bn", freeze_at=1, out_levels=(4, 6))


def _schedule(first: int, second: int) -> Stage:
    return Stage(
        length=first + second,
        unit="steps",
        optimiser=SGDConfig(lr=1e-3, momentum=0.9, weight_decay=5e-4, bias_lr=2.0),
        schedule=MultiStepConfig(milestones=(first,), gamma=0.1),
    )


R101_VOC = Recipe(
    name="rfcn-r101-voc",
    detector=RFCNConfig(backbone=R101, head=VOC_HEAD, pixels=MSRA, difficult=False),
    data=DataConfig(train=(VOC_SIDES, FlipConfig(p=0.5)), eval=(VOC_SIDES,), batch_size=8, eval_batch_size=1),
    stages=(_schedule(20_000, 10_000),),
    validation=ValidationConfig(every=5_000, unit="steps"),
    checkpoint=CheckpointConfig(every=1_000, unit="steps"),
    source=Source(
        paper=PAPER,
        section="§3, §4.1",
        note="VOC07 test, trained on VOC07+12, single scale, 300 regions; AP50 by 11 points",
        expected={"AP50": 0.795},
    ),
)


def _variant(name: str, expected: float | None, section: str, **changes: object) -> Recipe:
    """Return a row of the paper's VOC tables."""
    figures = None if expected is None else {"AP50": expected}
    return replace(
        R101_VOC,
        name=name,
        detector=replace(R101_VOC.detector, **changes),  # type: ignore[arg-type]
        source=replace(R101_VOC.source, section=section, expected=figures),
    )


R50_VOC = _variant("rfcn-r50-voc", 0.774, "the authors' MATLAB code", backbone=replace(R101, depth=50))
DETNET59_VOC = _variant("rfcn-detnet59-voc", None, "§3, on DetNet-59", backbone=DETNET59, pixels=IMAGENET)
NO_OHEM = _variant("rfcn-r101-voc-no-ohem", 0.766, "§4.1", head=replace(VOC_HEAD, ohem=False))
K3 = _variant(
    "rfcn-r101-voc-k3",
    0.755,
    "§4.1, without OHEM",
    head=replace(VOC_HEAD, ohem=False, pooling=PositionSensitiveConfig(size=3)),
)
CONV4 = _variant(
    "rfcn-r101-voc-conv4",
    0.725,
    "§4.1, without OHEM",
    backbone=replace(R101, output_stride=32, out_levels=(4,)),
    head=replace(VOC_HEAD, ohem=False),
)
CONV5_S32 = _variant(
    "rfcn-r101-voc-conv5-s32",
    0.740,
    "§4.1, without OHEM",
    backbone=replace(R101, output_stride=32),
    head=replace(VOC_HEAD, ohem=False),
)
MULTI_SCALE = replace(
    _variant("rfcn-r101-voc-multi-scale", 0.805, "§4.1"),
    data=replace(R101_VOC.data, train=(ResizeConfig(short=(400, 500, 600, 700, 800), long=1333), FlipConfig(p=0.5))),
)

COCO_RPN = replace(RFCN_RPN, anchors=AnchorConfig(sizes=((64, 128, 256, 512),), centre="cell"))
R101_COCO = replace(
    R101_VOC,
    name="rfcn-r101-coco",
    detector=RFCNConfig(
        backbone=R101,
        rpn=COCO_RPN,
        head=replace(VOC_HEAD, post=PostprocessConfig(nms_iou=0.3)),
        pixels=MSRA,
    ),
    data=replace(R101_VOC.data, drop_empty=True),
    stages=(_schedule(90_000, 30_000),),
    validation=ValidationConfig(every=10_000, unit="steps"),
    source=Source(
        paper=PAPER, section="§4.2", note="COCO val, trained on train", expected={"AP": 0.276, "AP50": 0.489}
    ),
)
DETNET59_COCO = replace(
    R101_COCO,
    name="rfcn-detnet59-coco",
    detector=replace(R101_COCO.detector, backbone=DETNET59, pixels=IMAGENET),
    source=replace(R101_COCO.source, note="no published figure on DetNet-59", expected=None),
)

R101_MODERN = Recipe(
    name="rfcn-r101-coco-modern",
    detector=RFCNConfig(
        backbone=replace(R101, stem_pool="padded", norm="bn", freeze_at=0),
        rpn=replace(COCO_RPN, assign=replace(COCO_RPN.assign, straddle=None), loss=replace(COCO_RPN.loss, box="giou")),
        head=RFCNHeadConfig(
            loss=RegionLossConfig(box="giou", box_weight=5.0),
            pooling=PositionSensitiveConfig(method="align"),
            post=PostprocessConfig(nms_iou=0.5),
        ),
    ),
    data=DataConfig(
        train=large_scale_jitter(1024),
        eval=(ResizeConfig(short=(600,), long=1000),),
        batch_size=16,
        eval_batch_size=4,
        group_by_aspect=False,
    ),
    stages=(MODERN_STAGE,),
    ema=MODERN_EMA,
    validation=ValidationConfig(every=5, unit="epochs"),
    sync_batch_norm=True,
    clip_norm=35.0,
    source=Source(note="our combination; no published figure for this detector"),
)
DETNET59_MODERN = replace(
    R101_MODERN,
    name="rfcn-detnet59-coco-modern",
    detector=replace(R101_MODERN.detector, backbone=replace(DETNET59, norm="bn", freeze_at=0)),
)

DETNET_SMALL_DETECTOR = RFCNConfig(
    backbone=DetNetConfig(depths=(1, 1, 2, 1, 1), width=16, stride_in_1x1=False, norm="bn", out_levels=(4, 6)),
    rpn=small.ONE_MAP_RPN,
    head=RFCNHeadConfig(channels=128, samples=64, pooling=PositionSensitiveConfig(size=3)),
)

DETNET_SMALL = Recipe(
    name="rfcn-detnet-small",
    detector=DETNET_SMALL_DETECTOR,
    data=DataConfig(
        train=(LetterboxConfig(size=(256, 256)), FlipConfig(p=0.5)),
        eval=(LetterboxConfig(size=(256, 256)),),
        batch_size=8,
        eval_batch_size=8,
        workers=2,
        group_by_aspect=False,
    ),
    stages=(small.STAGE,),
    validation=ValidationConfig(every=5, unit="epochs"),
    clip_norm=10.0,
    channels_last=True,
    source=Source(note="ours, for the CPU"),
)
RESNET_SMALL = replace(
    DETNET_SMALL,
    name="rfcn-resnet-small",
    detector=replace(
        DETNET_SMALL_DETECTOR,
        backbone=ResNetConfig(depth=50, blocks=(1, 2, 3, 1), width=16, norm="bn", output_stride=16, out_levels=(4, 5)),
    ),
)


def _modern_small(recipe: Recipe) -> Recipe:
    detector = recipe.detector
    assert isinstance(detector, RFCNConfig)
    head = replace(
        detector.head,
        loss=replace(detector.head.loss, box="giou", box_weight=5.0),
        pooling=PositionSensitiveConfig(size=3, method="align"),
        post=PostprocessConfig(nms_iou=0.5),
    )
    return replace(
        recipe,
        name=f"{recipe.name}-modern",
        detector=replace(
            detector,
            rpn=replace(
                detector.rpn,
                assign=replace(detector.rpn.assign, straddle=None),
                loss=replace(detector.rpn.loss, box="giou"),
            ),
            head=head,
        ),
        data=replace(recipe.data, train=small.JITTER),
        ema=small.EMA,
    )


RFCN_RECIPES = (
    R101_VOC,
    R50_VOC,
    DETNET59_VOC,
    NO_OHEM,
    K3,
    CONV4,
    CONV5_S32,
    MULTI_SCALE,
    R101_COCO,
    DETNET59_COCO,
    R101_MODERN,
    DETNET59_MODERN,
    *(pair for plain in (DETNET_SMALL, RESNET_SMALL) for pair in (plain, _modern_small(plain))),
)
