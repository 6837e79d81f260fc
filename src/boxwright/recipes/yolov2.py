"""YOLOv2.

Redmon, Farhadi: YOLO9000: Better, Faster, Stronger, arXiv 1612.08242, and the cfg files of Darknet.

``yolov2``, ``yolov2-544``
    The paper's (§3) on VOC 2007 + 2012, to the constant: 64 images a step, 160 epochs, SGD at 0.001, a tenth after 60
    and 90, another input size of 320 to 608 every 10 steps. They differ in the size at inference. They start from an
    ImageNet classifier (darknet19_448.conv.23). ``boxwright train yolov2 --data voc --backbone-weights
    darknet:darknet19_448.conv.23``
``yolov2-voc``, ``yolov2-coco``, ``yolov2-tiny``
    The cfg files of 2017 to the constant, whose network narrows the passthrough and whose loss favours small boxes.
``yolov2-modern``
    The network of 2017, trained in another way: predictors around an object have it too, CIoU, cross-entropy of the
    objectness with the IoU, mosaic, EMA weights, a cosine schedule. The cost of inference is the same.
``yolov2-small``, ``yolov2-small-modern``
    For the CPU and small images, from scratch.

``boxwright data anchors`` finds anchors for other data.
"""

from __future__ import annotations

from dataclasses import replace

from boxwright.anchors.matching.cell_matcher import YOLOv2AssignConfig
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
from boxwright.data.transforms.configs import (
    DarknetJitterConfig,
    FlipConfig,
    HSVJitterConfig,
    LetterboxConfig,
    MosaicConfig,
    WarpConfig,
)
from boxwright.data.transforms.multi_scale import MultiScaleConfig
from boxwright.detectors.yolov2 import (
    VOC_ANCHORS,
    RegionLossConfig,
    YOLOv2Config,
    YOLOv2HeadConfig,
)
from boxwright.recipes import small
from boxwright.recipes.common import MODERN_EMA

PAPER = "YOLO9000: Better, Faster, Stronger, arXiv 1612.08242"
# Anchors in cells of the network that replaced the paper's in 2017, on VOC and on COCO.
VOC_ANCHORS_2017 = (
    (1.3221, 1.73145), (3.19275, 4.00944), (5.05587, 8.09892), (9.47112, 4.84053), (11.2364, 10.0071),
)  # fmt: skip
COCO_ANCHORS_2017 = (
    (0.57273, 0.677385), (1.87446, 2.06253), (3.33843, 5.47434), (7.88282, 3.52778), (9.77052, 9.16828),
)  # fmt: skip
DARKNET_COLOUR = HSVJitterConfig(hue=0.1, saturation=1.5, value=1.5)
PAPER_SGD = SGDConfig(lr=1e-3, base_batch=64, momentum=0.9, weight_decay=5e-4, decay_biases=False)
VOC_NOTE = "AP50 by the 11-point rule on VOC 2007 test, trained on VOC 2007 + 2012, from ImageNet weights"

YOLOV2 = Recipe(
    name="yolov2",
    detector=YOLOv2Config(),
    data=DataConfig(
        # Crops and a stretched input: the code of the paper's time. Letterboxes came in 2017.
        train=(DarknetJitterConfig(size=(416, 416), method="crop", jitter=0.2), DARKNET_COLOUR, FlipConfig(p=0.5)),
        eval=(WarpConfig(size=(416, 416)),),
        multi_scale=MultiScaleConfig(low=320, high=608, step=32, every=10),
        batch_size=64,
        eval_batch_size=8,
        group_by_aspect=False,
    ),
    stages=(
        Stage(
            length=160,
            unit="epochs",
            optimiser=PAPER_SGD,
            schedule=MultiStepConfig(milestones=(60, 90), gamma=0.1),
        ),
    ),
    validation=ValidationConfig(every=5, unit="epochs"),
    checkpoint=CheckpointConfig(every=1, unit="epochs"),
    source=Source(paper=PAPER, section="§2, §3, table 3", note=VOC_NOTE, expected={"AP50": 0.768}),
)

YOLOV2_544 = replace(
    YOLOV2,
    name="yolov2-544",
    data=replace(YOLOV2.data, eval=(WarpConfig(size=(544, 544)),)),
    source=replace(YOLOV2.source, expected={"AP50": 0.786}),
)

CFG_LOSS = RegionLossConfig(favour_small=True)
CFG_DATA = replace(
    YOLOV2.data,
    train=(DarknetJitterConfig(size=(416, 416), jitter=0.3), DARKNET_COLOUR, FlipConfig(p=0.5)),
    eval=(LetterboxConfig(size=(416, 416)),),
    multi_scale=MultiScaleConfig(low=320, high=608, step=32, every=10, last=200, last_size=608),
)
BURN_IN = WarmupConfig(steps=1000, factor=0.0, power=4.0)

VOC_DETECTOR = YOLOv2Config(head=YOLOv2HeadConfig(narrow=64), anchors=VOC_ANCHORS_2017, loss=CFG_LOSS)
YOLOV2_VOC = replace(
    YOLOV2,
    name="yolov2-voc",
    detector=VOC_DETECTOR,
    data=CFG_DATA,
    stages=(
        Stage(
            length=80_200,
            unit="steps",
            optimiser=PAPER_SGD,
            schedule=MultiStepConfig(milestones=(40_000, 60_000), gamma=0.1, warmup=BURN_IN),
        ),
    ),
    source=Source(paper=PAPER, section="yolov2-voc.cfg", note="no figure was published for this network"),
)

YOLOV2_COCO = replace(
    YOLOV2_VOC,
    name="yolov2-coco",
    detector=YOLOv2Config(head=YOLOv2HeadConfig(narrow=64), anchors=COCO_ANCHORS_2017, loss=CFG_LOSS),
    stages=(
        Stage(
            length=500_200,
            unit="steps",
            optimiser=PAPER_SGD,
            schedule=MultiStepConfig(milestones=(400_000, 450_000), gamma=0.1, warmup=BURN_IN),
        ),
    ),
    validation=ValidationConfig(every=10_000, unit="steps"),
    checkpoint=CheckpointConfig(every=2_000, unit="steps"),
    source=Source(
        paper=PAPER,
        section="yolov2.cfg; table 5",
        note="COCO test-dev; the figures are those of the paper's network, which does not narrow the passthrough",
        expected={"AP": 0.216, "AP50": 0.440, "AP75": 0.192, "APs": 0.050, "APm": 0.224, "APl": 0.355},
    ),
)

YOLOV2_TINY = replace(
    YOLOV2_VOC,
    name="yolov2-tiny",
    detector=YOLOv2Config(
        backbone=DarknetConfig(variant="tiny_v2", out_levels=(5,)),
        head=YOLOv2HeadConfig(convs=(), passthrough=None),
        anchors=VOC_ANCHORS,
        loss=CFG_LOSS,
    ),
    data=replace(
        CFG_DATA,
        train=(DarknetJitterConfig(size=(416, 416), jitter=0.2), DARKNET_COLOUR, FlipConfig(p=0.5)),
    ),
    stages=(
        Stage(
            length=40_200,
            unit="steps",
            optimiser=PAPER_SGD,
            # A tenth of the rate for 100 steps, then all of it: so high a power is a step.
            schedule=MultiStepConfig(
                milestones=(20_000, 30_000), gamma=0.1, warmup=WarmupConfig(steps=100, factor=0.1, power=1000.0)
            ),
        ),
    ),
    source=Source(paper=PAPER, section="yolov2-tiny-voc.cfg"),
)


def modern(config: YOLOv2Config) -> YOLOv2Config:
    """Return the same network with the modern assignment and losses."""
    return replace(
        config,
        reach=2.0,
        assign=YOLOv2AssignConfig(method="near", most_objects=None),
        loss=RegionLossConfig(box="ciou", coord_scale=2.0, object_scale=1.0, objectness="bce", prior_images=0),
    )


YOLOV2_MODERN = replace(
    YOLOV2_VOC,
    name="yolov2-modern",
    detector=modern(VOC_DETECTOR),
    data=replace(
        CFG_DATA,
        train=(
            MosaicConfig(size=(416, 416), p=0.5, scale=(0.5, 1.5)),
            DarknetJitterConfig(size=(416, 416), jitter=0.3),
            HSVJitterConfig(hue=0.015, saturation=1.7, value=1.4),
            FlipConfig(p=0.5),
        ),
    ),
    stages=(
        Stage(
            length=160,
            unit="epochs",
            optimiser=AdamWConfig(lr=1e-3, base_batch=64, weight_decay=0.05),
            schedule=CosineConfig(final=0.01, warmup=WarmupConfig(steps=1000, factor=0.01)),
        ),
    ),
    ema=MODERN_EMA,
    clip_norm=10.0,
    source=Source(
        paper="Distance-IoU Loss, arXiv 1911.08287; YOLOv4, arXiv 2004.10934",
        section="DIoU §4; YOLOv4 §3.3",
        note="our combination; no published figure for this detector",
    ),
)

SMALL_DETECTOR = YOLOv2Config(
    backbone=DarknetConfig(variant="darknet19", width=0.25, out_levels=(4, 5)),
    head=YOLOv2HeadConfig(convs=(256, 256), narrow=16, merged=256),
    anchors=tuple((round(w * 256 / 416, 3), round(h * 256 / 416, 3)) for w, h in VOC_ANCHORS_2017),
    # 12,800 images are three quarters of an epoch of VOC; so are these of 205 images.
    loss=replace(CFG_LOSS, prior_images=160),
    norm_momentum=0.1,  # statistics that keep up with some hundred steps
)
SMALL = replace(
    YOLOV2_VOC,
    name="yolov2-small",
    detector=SMALL_DETECTOR,
    data=replace(
        CFG_DATA,
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
            # The published rate is that of a batch of 64 from pretrained weights; this is 8 from scratch.
            optimiser=replace(PAPER_SGD, lr=1e-3, base_batch=8),
            schedule=MultiStepConfig(
                milestones=(7.5, 11.25), gamma=0.1, warmup=replace(BURN_IN, steps=100)
            ),  # 40,000 and 60,000 of 80,200
        ),
    ),
    channels_last=True,
    source=Source(note="ours, for the CPU"),
)

SMALL_MODERN = replace(
    SMALL,
    name="yolov2-small-modern",
    detector=modern(SMALL_DETECTOR),
    data=replace(
        SMALL.data,
        train=(
            DarknetJitterConfig(size=(256, 256), jitter=0.2),
            HSVJitterConfig(hue=0.015, saturation=1.5, value=1.4),
            FlipConfig(p=0.5),
        ),
        multi_scale=None,
    ),
    stages=(small.STAGE,),
    ema=small.EMA,
    clip_norm=10.0,
)

YOLOV2_RECIPES = (
    YOLOV2,
    YOLOV2_544,
    YOLOV2_VOC,
    YOLOV2_COCO,
    YOLOV2_TINY,
    YOLOV2_MODERN,
    SMALL,
    SMALL_MODERN,
)
