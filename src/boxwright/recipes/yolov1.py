"""YOLOv1.

Redmon et al.: You Only Look Once: Unified, Real-Time Object Detection, arXiv 1506.02640.

``yolov1``, ``yolov1-fast``
    The paper's (§2.2) on VOC 2007 + 2012, to the constant: 64 images a step, SGD at 0.01 for 75 epochs after a rise
    from 0.001, then 30 at a tenth and 30 at a hundredth, momentum 0.9, weight decay 0.0005, each edge moved by up to a
    fifth, saturation and exposure by up to 1.5. 24 convolutions, or the 9 of Fast YOLO. They start from an ImageNet
    classifier of their first 20 convolutions. Darknet's has batch norm in it: ``boxwright train yolov1 --data voc
    --backbone-weights extraction.conv.weights --set detector.backbone.norm=bn``
``yolov1-modern``
    The same network with batch norm (which folds into the convolutions), trained in another way: all cells near an
    object predict it, a cell can have an object for each of its boxes, GIoU, cross-entropy, mosaic, EMA weights. The
    cost of inference is the same.
``yolov1-small``, ``yolov1-small-modern``
    For the CPU and small images, from scratch. The grid stays 7 x 7, on half the input: cells of 32 pixels.
"""

from __future__ import annotations

from dataclasses import replace

from boxwright.anchors.matching.cell_assignment import CellAssignConfig
from boxwright.backbones.darknet import DarknetConfig
from boxwright.config.recipe import (
    AdamWConfig,
    CheckpointConfig,
    CosineConfig,
    MultiStepConfig,
    Recipe,
    SGDConfig,
    Source,
    Stage,
    ValidationConfig,
    WarmupConfig,
)
from boxwright.data.config import DataConfig
from boxwright.data.transforms.configs import DarknetJitterConfig, FlipConfig, HSVJitterConfig, MosaicConfig, WarpConfig
from boxwright.detectors.yolov1 import DetectionLossConfig, YOLOv1Config, YOLOv1HeadConfig
from boxwright.recipes import small
from boxwright.recipes.common import MODERN_EMA

PAPER = "You Only Look Once: Unified, Real-Time Object Detection, arXiv 1506.02640"
DARKNET_COLOUR = HSVJitterConfig(hue=0.1, saturation=1.5, value=1.5)  # hue and flips: Darknet's, the paper has none

YOLOV1 = Recipe(
    name="yolov1",
    detector=YOLOv1Config(),
    data=DataConfig(
        train=(
            DarknetJitterConfig(size=(448, 448), method="crop", jitter=0.2, min_share=0.005),
            DARKNET_COLOUR,
            FlipConfig(p=0.5),
        ),
        eval=(WarpConfig(size=(448, 448)),),
        batch_size=64,
        eval_batch_size=8,
        group_by_aspect=False,
    ),
    stages=(
        Stage(
            length=135,
            unit="epochs",
            optimiser=SGDConfig(lr=1e-2, base_batch=64, momentum=0.9, weight_decay=5e-4, decay_biases=False),
            # "For the first epochs we slowly raise the learning rate": four of them on VOC, the number is ours.
            schedule=MultiStepConfig(milestones=(75, 105), gamma=0.1, warmup=WarmupConfig(steps=1000, factor=0.1)),
        ),
    ),
    validation=ValidationConfig(every=5, unit="epochs"),
    checkpoint=CheckpointConfig(every=1, unit="epochs"),
    source=Source(
        paper=PAPER,
        section="§2.2, table 1",
        note="AP50 by the 11-point rule on VOC 2007 test, trained on VOC 2007 + 2012, from ImageNet weights",
        expected={"AP50": 0.634},
    ),
)

YOLOV1_FAST = replace(
    YOLOV1,
    name="yolov1-fast",
    detector=YOLOv1Config(
        backbone=DarknetConfig(variant="yolov1_fast", norm="none", out_levels=(6,)),
        # Widths of the published weights; the text says only that there are fewer filters.
        head=YOLOv1HeadConfig(hidden=(256, 4096)),
    ),
    source=replace(YOLOV1.source, expected={"AP50": 0.527}),
)

MODERN_LOSS = DetectionLossConfig(kind="entropy", overlap="giou", overlap_scale=2.0, noobject_scale=1.0)


def modern(config: YOLOv1Config) -> YOLOv1Config:
    """Return the same network with the modern assignment and losses."""
    head = replace(config.head, start_size=0.2)
    return replace(config, head=head, assign=CellAssignConfig(method="near", quiet=0.6), loss=MODERN_LOSS)


YOLOV1_MODERN = replace(
    YOLOV1,
    name="yolov1-modern",
    detector=modern(YOLOv1Config(backbone=DarknetConfig(variant="yolov1", out_levels=(6,)))),
    data=replace(
        YOLOV1.data,
        train=(
            MosaicConfig(size=(448, 448), p=0.5, scale=(0.5, 1.5)),
            DarknetJitterConfig(size=(448, 448), method="crop", jitter=0.2, min_share=0.005),
            HSVJitterConfig(hue=0.015, saturation=1.7, value=1.4),
            FlipConfig(p=0.5),
        ),
    ),
    stages=(
        Stage(
            length=135,
            unit="epochs",
            optimiser=AdamWConfig(lr=1e-3, base_batch=64, weight_decay=0.05),
            schedule=CosineConfig(final=0.01, warmup=WarmupConfig(steps=1000, factor=0.01)),
        ),
    ),
    ema=MODERN_EMA,
    clip_norm=10.0,
    source=Source(
        paper="Generalized Intersection over Union, arXiv 1902.09630; YOLOv4, arXiv 2004.10934",
        section="GIoU §4; YOLOv4 §3.3",
        note="our combination; no published figure for this detector",
    ),
)

# The backbone of Fast YOLO, with batch norm, which the paper's network lacks. The deep one does not train from scratch
# in a few hundred steps. The last convolutions keep the stride of 32, so that half the input has the same grid.
SMALL_DETECTOR = YOLOv1Config(
    backbone=DarknetConfig(variant="yolov1_fast", out_levels=(5,)),
    # No hidden layer, as in tiny-yolo(v1).cfg: a few hundred images are too few to train it.
    head=YOLOv1HeadConfig(convs=(256, 64), hidden=(), dropout=0.0),
    cell=32,
    norm_momentum=0.1,  # statistics that keep up with some hundred steps
)

SMALL = replace(
    YOLOV1,
    name="yolov1-small",
    detector=SMALL_DETECTOR,
    data=replace(
        YOLOV1.data,
        train=(
            DarknetJitterConfig(size=(224, 224), method="crop", jitter=0.2, min_share=0.005),
            DARKNET_COLOUR,
            FlipConfig(p=0.5),
        ),
        eval=(WarpConfig(size=(224, 224)),),
        batch_size=8,
        workers=2,
    ),
    stages=(
        Stage(
            length=15,
            unit="epochs",
            optimiser=SGDConfig(lr=1e-2, base_batch=64, momentum=0.9, weight_decay=5e-4, decay_biases=False),
            schedule=MultiStepConfig(
                milestones=(8.33, 11.67), gamma=0.1, warmup=WarmupConfig(steps=100, factor=0.1)
            ),  # 75 and 105 of 135
        ),
    ),
    channels_last=True,
    source=Source(note="ours, for the CPU"),
)

SMALL_MODERN = replace(
    SMALL,
    name="yolov1-small-modern",
    detector=modern(replace(SMALL_DETECTOR, head=replace(SMALL_DETECTOR.head, start="cells"))),
    data=replace(
        SMALL.data,
        train=(SMALL.data.train[0], HSVJitterConfig(hue=0.015, saturation=1.5, value=1.4), FlipConfig(p=0.5)),
    ),
    stages=(small.STAGE,),
    ema=small.EMA,
    clip_norm=10.0,
)

YOLOV1_RECIPES = (YOLOV1, YOLOV1_FAST, YOLOV1_MODERN, SMALL, SMALL_MODERN)
