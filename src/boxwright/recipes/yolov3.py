"""YOLOv3.

Redmon, Farhadi, arXiv 1804.02767, and the cfg files of Darknet that its figures were computed with.

``yolov3``, ``yolov3-608``, ``yolov3-spp``, ``yolov3-tiny``
    The cfg files to the constant: 64 images a step, SGD at 0.001 after a burn-in of 1000 steps with the fourth power,
    500,200 steps, a tenth at 400,000 and 450,000; jitter of 0.3 in a square, colour jitter, flips, and every 10 steps
    another input size of 320 to 608. They differ in the size at inference (416 or 608) and in the network. They start
    from an ImageNet classifier (darknet53.conv.74). ``boxwright train yolov3 --data coco --backbone-weights
    darknet:darknet53.conv.74``
``yolov3-detnet59``
    The same training on DetNet-59, whose levels have strides 8, 16 and 16; from its ImageNet weights.
``yolov3-modern``, ``yolov3-tiny-modern``
    The same networks with task-aligned assignment, CIoU, the alignment as objectness target, mosaic, EMA weights and a
    cosine schedule. The cost of inference is the same.
``yolov3-small``, ``yolov3-small-modern``
    For the CPU and small images, from scratch: YOLOv3 at a quarter of its width.
"""

from __future__ import annotations

from dataclasses import replace

from boxwright.backbones.darknet import DarknetConfig
from boxwright.backbones.detnet import DetNetConfig
from boxwright.config.recipe import (
    CheckpointConfig,
    CosineConfig,
    EMAConfig,
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
    DarknetJitterConfig,
    FlipConfig,
    HSVJitterConfig,
    LetterboxConfig,
    MosaicConfig,
)
from boxwright.data.transforms.multi_scale import MultiScaleConfig
from boxwright.detectors.contract.pixels import IMAGENET
from boxwright.detectors.yolov3 import COCO_ANCHORS, YOLOv3AssignConfig, YOLOv3Config, YOLOv3LossConfig
from boxwright.heads.yolo_scales import YOLOScalesConfig
from boxwright.recipes import small

PAPER = "YOLOv3: An Incremental Improvement, arXiv 1804.02767"
DARKNET53 = YOLOv3Config()
DARKNET_COLOUR = HSVJitterConfig(hue=0.1, saturation=1.5, value=1.5)

YOLOV3 = Recipe(
    name="yolov3",
    detector=DARKNET53,
    data=DataConfig(
        train=(DarknetJitterConfig(size=(416, 416), jitter=0.3), DARKNET_COLOUR, FlipConfig(p=0.5)),
        eval=(LetterboxConfig(size=(416, 416)),),
        multi_scale=MultiScaleConfig(low=320, high=608, step=32, every=10, last=200, last_size=608),
        batch_size=64,
        eval_batch_size=8,
        group_by_aspect=False,
    ),
    stages=(
        Stage(
            length=500_200,
            unit="steps",
            optimiser=SGDConfig(lr=1e-3, base_batch=64, momentum=0.9, weight_decay=5e-4, decay_biases=False),
            schedule=MultiStepConfig(
                milestones=(400_000, 450_000), gamma=0.1, warmup=WarmupConfig(steps=1000, factor=0.0, power=4.0)
            ),
        ),
    ),
    validation=ValidationConfig(every=10_000, unit="steps"),
    checkpoint=CheckpointConfig(every=2_000, unit="steps"),
    source=Source(
        paper=PAPER,
        section="§2, table 3; yolov3.cfg",
        note="COCO test-dev at 416, from ImageNet weights",
        expected={"AP": 0.310, "AP50": 0.553},
    ),
)

YOLOV3_608 = replace(
    YOLOV3,
    name="yolov3-608",
    data=replace(YOLOV3.data, eval=(LetterboxConfig(size=(608, 608)),)),
    source=replace(
        YOLOV3.source,
        note="COCO test-dev at 608, from ImageNet weights",
        expected={"AP": 0.330, "AP50": 0.579, "AP75": 0.344, "APs": 0.183, "APm": 0.354, "APl": 0.419},
    ),
)

YOLOV3_SPP = replace(
    YOLOV3_608,
    name="yolov3-spp",
    detector=YOLOv3Config(scales=YOLOScalesConfig(spp=True)),
    source=Source(paper=PAPER, section="yolov3-spp.cfg", note="COCO test-dev at 608", expected={"AP50": 0.606}),
)

TINY = YOLOv3Config(
    backbone=DarknetConfig(variant="tiny_v3", out_levels=(4, 5)),
    scales=YOLOScalesConfig(channels=(128, 256), style="tiny"),
    anchors=((10.0, 14.0), (23.0, 27.0), (37.0, 58.0), (81.0, 82.0), (135.0, 169.0), (344.0, 319.0)),
    masks=((1, 2, 3), (3, 4, 5)),  # what the published weights were trained with; today's cfg says 0,1,2
)
YOLOV3_TINY = replace(
    YOLOV3,
    name="yolov3-tiny",
    detector=TINY,
    source=Source(paper=PAPER, section="yolov3-tiny.cfg", note="COCO test-dev at 416", expected={"AP50": 0.331}),
)


YOLOV3_DETNET59 = replace(
    YOLOV3,
    name="yolov3-detnet59",
    detector=replace(DARKNET53, backbone=DetNetConfig(norm="bn", out_levels=(3, 4, 6)), pixels=IMAGENET),
    source=Source(paper=PAPER, section="§2; yolov3.cfg", note="ours: on DetNet-59; no published figure"),
)


def modern(config: YOLOv3Config) -> YOLOv3Config:
    """Return the same network with the modern assignment and losses."""
    return replace(
        config,
        scales=replace(config.scales, prior=0.01),
        reach=2.0,  # so that the predictors around an object's centre can reach it
        assign=YOLOv3AssignConfig(method="aligned", topk=10, ignore_iou=1.0),
        loss=YOLOv3LossConfig(
            box="ciou", small_weight=False, object_target="iou", normaliser="positives", box_weight=2.5
        ),
    )


YOLOV3_MODERN = replace(
    YOLOV3,
    name="yolov3-modern",
    detector=modern(DARKNET53),
    data=replace(
        YOLOV3.data,
        train=(
            MosaicConfig(size=(416, 416), scale=(0.5, 1.5)),
            HSVJitterConfig(hue=0.015, saturation=1.7, value=1.4),
            FlipConfig(p=0.5),
        ),
    ),
    stages=(
        Stage(
            length=300,
            unit="epochs",
            optimiser=SGDConfig(
                lr=0.01, base_batch=64, momentum=0.937, nesterov=True, weight_decay=5e-4, decay_biases=False
            ),
            schedule=CosineConfig(final=0.01, warmup=WarmupConfig(steps=3000, factor=0.001)),
        ),
    ),
    ema=EMAConfig(decay=0.9999, ramp=2_000),
    validation=ValidationConfig(every=10, unit="epochs"),
    checkpoint=CheckpointConfig(every=1, unit="epochs"),
    clip_norm=10.0,
    source=Source(
        paper="TOOD: Task-aligned One-stage Object Detection, arXiv 2108.07755; YOLOv4, arXiv 2004.10934",
        section="TOOD §3.2; YOLOv4 §3.3",
        note="our combination; no published figure for this detector",
    ),
)

YOLOV3_TINY_MODERN = replace(YOLOV3_MODERN, name="yolov3-tiny-modern", detector=modern(TINY))

# YOLOv3 at a quarter of its width, for 256 pixels where the published anchors are for 416.
NARROW = YOLOv3Config(
    backbone=DarknetConfig(width=0.25),
    scales=YOLOScalesConfig(channels=(32, 64, 128)),
    anchors=tuple((round(w * 256 / 416, 1), round(h * 256 / 416, 1)) for w, h in COCO_ANCHORS),
    assign=YOLOv3AssignConfig(ignore_iou=0.5),  # the paper and yolov3-voc.cfg
    norm_momentum=0.1,  # statistics that keep up with some hundred steps
)

SMALL = replace(
    YOLOV3,
    name="yolov3-small",
    detector=NARROW,
    data=replace(
        YOLOV3.data,
        train=(DarknetJitterConfig(size=(256, 256), jitter=0.3), DARKNET_COLOUR, FlipConfig(p=0.5)),
        eval=(LetterboxConfig(size=(256, 256)),),
        multi_scale=MultiScaleConfig(low=192, high=320, step=32, every=10, last=20, last_size=256),
        batch_size=8,
        workers=2,
    ),
    stages=(
        Stage(
            length=15,
            unit="epochs",
            # The published rate is that of a batch of 64; three times this one of 8 diverges on BCCD.
            optimiser=SGDConfig(lr=1e-3, base_batch=8, momentum=0.9, weight_decay=5e-4, decay_biases=False),
            schedule=MultiStepConfig(
                milestones=(12, 13.5), gamma=0.1, warmup=WarmupConfig(steps=100, factor=0.0, power=4.0)
            ),
        ),
    ),
    validation=ValidationConfig(every=5, unit="epochs"),
    checkpoint=CheckpointConfig(every=1, unit="epochs"),
    clip_norm=35.0,  # squares of raw sizes, from random weights
    channels_last=True,
    source=Source(note="ours, for the CPU"),
)

SMALL_MODERN = replace(
    SMALL,
    name="yolov3-small-modern",
    detector=modern(NARROW),
    data=replace(
        SMALL.data,
        train=(
            MosaicConfig(size=(256, 256), p=0.5, scale=(0.75, 1.25)),
            LetterboxConfig(size=(256, 256)),
            HSVJitterConfig(hue=0.015, saturation=1.5, value=1.4),
            FlipConfig(p=0.5),
        ),
        multi_scale=None,
    ),
    stages=(small.STAGE,),
    ema=small.EMA,
    clip_norm=10.0,
)

YOLOV3_RECIPES = (
    YOLOV3,
    YOLOV3_608,
    YOLOV3_SPP,
    YOLOV3_TINY,
    YOLOV3_DETNET59,
    YOLOV3_MODERN,
    YOLOV3_TINY_MODERN,
    SMALL,
    SMALL_MODERN,
)
