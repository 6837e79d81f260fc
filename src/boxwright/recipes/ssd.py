"""SSD.

Liu et al., arXiv 1512.02325; the light ones: Howard et al., arXiv 1704.04861 and Sandler et al., arXiv 1801.04381.

``ssd300-voc``, ``ssd512-voc``, ``ssd300-coco``, ``ssd512-coco``
    The published models with "zoom out" (§3.6; SSD300* and SSD512* in the tables), to the constant of the authors'
    code: 32 images a step, SGD at 0.001 with biases at twice that and without decay, 120,000 steps on VOC (07+12) and
    400,000 on COCO, a tenth at two of them, no warm-up, the whole chain of augmentation. They need the weights of the
    reduced VGG-16. The default boxes of SSD512 are fractions, as in the paper; ``detector.priors.truncate=true`` is
    what Caffe's layer made of them. ``boxwright train ssd300-voc --data voc --backbone-weights
    VGG_ILSVRC_16_layers_fc_reduced.caffemodel``; Titan X in the paper.
``ssd300-mobilenet``, ``ssdlite320-mobilenet-v2``
    On MobileNets: the first with SSD's own heads, the second with separable ones (SSDLite).
``ssd300-voc-modern``
    SSD300's network with live batch norm, which folds away: assignment by ATSS, quality focal loss,
    GIoU, EMA weights and a longer cosine schedule.
``ssd-small``, ``ssd-small-modern``
    For the CPU and small images, from scratch, two of one network. Scaled from SSD300's COCO model: input 224, VGG-11
    in place of VGG-16 and a quarter of all channels, default boxes at the same share of the input, maps halved down to
    a single cell as SSD512 does, an epoch count. Batch norm is new: the paper starts from ImageNet weights.
"""

from __future__ import annotations

from dataclasses import replace

from boxwright.anchors.priors import PriorConfig
from boxwright.backbones.mobilenet import MobileNetConfig
from boxwright.backbones.vgg import VGGConfig
from boxwright.config.recipe import (
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
from boxwright.data.transforms.configs import (
    FlipConfig,
    HSVJitterConfig,
    MinIoUCropConfig,
    WarpConfig,
)
from boxwright.detectors.contract.pixels import IMAGENET
from boxwright.detectors.ssd import SSDAssignConfig, SSDConfig, SSDHeadConfig, SSDLossConfig
from boxwright.heads.extra_maps import EXTRAS_512, ExtraConfig
from boxwright.recipes import small
from boxwright.recipes.common import MODERN_EMA
from boxwright.recipes.single_shot import paper_data, paper_stage

PAPER = "SSD: Single Shot MultiBox Detector, arXiv 1512.02325"


SSD300_VOC = Recipe(
    name="ssd300-voc",
    detector=SSDConfig(),
    data=paper_data(300),
    stages=(paper_stage(120_000, (80_000, 100_000)),),
    validation=ValidationConfig(every=5_000, unit="steps"),
    checkpoint=CheckpointConfig(every=2_000, unit="steps"),
    source=Source(
        paper=PAPER,
        section="§3.1, §3.6, table 6",
        note="VOC07 test, trained on VOC07+12, from the reduced VGG-16; AP50 by 11 points",
        expected={"AP50": 0.772},
    ),
)

RATIOS_512 = ((2.0,), (2.0, 3.0), (2.0, 3.0), (2.0, 3.0), (2.0, 3.0), (2.0,), (2.0,))
STEPS_512 = (8, 16, 32, 64, 128, 256, 512)

SSD512_VOC = replace(
    SSD300_VOC,
    name="ssd512-voc",
    detector=SSDConfig(
        size=(512, 512),
        extras=EXTRAS_512,
        priors=PriorConfig(
            sizes=(35.84, 76.8, 153.6, 230.4, 307.2, 384.0, 460.8, 537.6), ratios=RATIOS_512, steps=STEPS_512
        ),
    ),
    data=paper_data(512),
    source=replace(SSD300_VOC.source, expected={"AP50": 0.798}),
)

COCO_SOURCE = Source(
    paper=PAPER,
    section="§3.4, §3.6, table 6",
    note="COCO test-dev, trained on trainval35k, from the reduced VGG-16",
    expected={"AP": 0.251, "AP50": 0.431, "AP75": 0.258},
)

SSD300_COCO = replace(
    SSD300_VOC,
    name="ssd300-coco",
    detector=SSDConfig(priors=PriorConfig(sizes=(21, 45, 99, 153, 207, 261, 315))),
    stages=(paper_stage(400_000, (280_000, 360_000)),),
    source=COCO_SOURCE,
)

SSD512_COCO = replace(
    SSD512_VOC,
    name="ssd512-coco",
    detector=replace(
        SSD512_VOC.detector,
        priors=PriorConfig(
            sizes=(20.48, 51.2, 133.12, 215.04, 296.96, 378.88, 460.8, 542.72), ratios=RATIOS_512, steps=STEPS_512
        ),
    ),
    stages=SSD300_COCO.stages,
    source=replace(
        COCO_SOURCE,
        expected={"AP": 0.288, "AP50": 0.485, "AP75": 0.303, "APs": 0.109, "APm": 0.318, "APl": 0.435},
    ),
)

# Maps of 19, 10, 5, 3, 2 and 1 cells at 300, and of 20, 10, 5, 3, 2 and 1 at 320; sizes from 20 to 95 percent.
LIGHT_RATIOS = ((2.0, 3.0),) * 6
MOBILENET_EXTRAS = (
    ExtraConfig(hidden=256, out=512),
    ExtraConfig(hidden=128, out=256),
    ExtraConfig(hidden=128, out=256),
    ExtraConfig(hidden=64, out=128),
)

SSD300_MOBILENET = replace(
    SSD300_COCO,
    name="ssd300-mobilenet",
    detector=SSDConfig(
        backbone=MobileNetConfig(version=1, out_levels=(4, 5)),
        extras=MOBILENET_EXTRAS,
        head=SSDHeadConfig(norm="bn"),
        l2_scale=None,
        priors=PriorConfig(sizes=(60, 105, 150, 195, 240, 285, 300), ratios=LIGHT_RATIOS, steps=None),
        pixels=IMAGENET,
    ),
    stages=(
        Stage(
            length=400_000,
            unit="steps",
            optimiser=SGDConfig(lr=0.02, momentum=0.9, weight_decay=4e-5),
            schedule=CosineConfig(final=0.0, warmup=WarmupConfig(steps=2_000, factor=0.1)),
        ),
    ),
    source=Source(
        paper="MobileNets, arXiv 1704.04861",
        section="§4.6, table 13",
        note="COCO minival; the paper states neither schedule nor default boxes: ours",
        expected={"AP": 0.193},
    ),
)

SSDLITE320 = replace(
    SSD300_MOBILENET,
    name="ssdlite320-mobilenet-v2",
    detector=replace(
        SSD300_MOBILENET.detector,
        size=(320, 320),
        # The paper's first head reads the expansion within a block, ours the output of the last block of stride 16.
        backbone=MobileNetConfig(version=2, out_levels=(4, 6)),
        head=SSDHeadConfig(norm="bn", separable=True),
        priors=PriorConfig(sizes=(64, 112, 160, 208, 256, 304, 320), ratios=LIGHT_RATIOS, steps=None),
    ),
    data=paper_data(320),
    source=Source(
        paper="MobileNetV2, arXiv 1801.04381",
        section="§6.2, table 6",
        note="COCO test-dev; the paper states neither schedule nor default boxes: ours",
        expected={"AP": 0.221},
    ),
)

# Sigmoids need no background column, so the heads are a little smaller than the paper's.
MODERN = {
    "head": SSDHeadConfig(norm="bn"),
    "assign": SSDAssignConfig(method="atss", topk=54),  # the priors of nine cells
    "loss": SSDLossConfig(classification="quality_focal", box="giou", box_weight=2.0),
}

SSD300_MODERN = replace(
    SSD300_VOC,
    name="ssd300-voc-modern",
    detector=SSDConfig(
        backbone=VGGConfig(depth=16, norm="bn", fc="reduced", out_levels=(4, 6)),
        pixels=IMAGENET,
        **MODERN,
    ),
    stages=(
        Stage(
            length=240,
            unit="epochs",
            optimiser=SGDConfig(lr=0.01, base_batch=32, momentum=0.9, nesterov=True, weight_decay=5e-4),
            schedule=CosineConfig(final=0.01, warmup=WarmupConfig(steps=500, factor=0.001)),
        ),
    ),
    ema=MODERN_EMA,
    validation=ValidationConfig(every=10, unit="epochs"),
    checkpoint=CheckpointConfig(every=1, unit="epochs"),
    sync_batch_norm=True,
    clip_norm=35.0,
    source=Source(
        paper="ATSS, arXiv 1912.02424; Generalized Focal Loss, arXiv 2006.04388; GIoU, arXiv 1902.09630",
        note="our combination; no published figure for this detector",
    ),
)

SMALL = Recipe(
    name="ssd-small",
    detector=SSDConfig(
        size=(224, 224),
        backbone=VGGConfig(depth=11, width=16, norm="bn", fc="reduced", out_levels=(4, 6)),
        extras=(
            ExtraConfig(hidden=64, out=128),
            ExtraConfig(hidden=32, out=64),
            ExtraConfig(hidden=32, out=64),
            ExtraConfig(hidden=32, out=64),
        ),
        head=SSDHeadConfig(norm="bn"),
        priors=PriorConfig(sizes=(15.68, 33.6, 73.92, 114.24, 154.56, 194.88, 235.2), steps=(8, 16, 32, 56, 112, 224)),
    ),
    data=replace(paper_data(224, batch_size=8), workers=2),
    stages=(
        Stage(
            length=15,
            unit="epochs",
            # From random weights the paper's rate for a trained network is too low, and its 32 images are 8 here; of
            # 0.004, 0.01 and 0.02 this rate was the best on BCCD.
            optimiser=SGDConfig(
                lr=4e-3, base_batch=8, momentum=0.9, weight_decay=5e-4, bias_lr=2.0, decay_biases=False
            ),
            schedule=MultiStepConfig(milestones=(10, 12.5), gamma=0.1, warmup=WarmupConfig(steps=100, factor=0.01)),
        ),
    ),
    validation=ValidationConfig(every=5, unit="epochs"),
    checkpoint=CheckpointConfig(every=1, unit="epochs"),
    clip_norm=10.0,
    channels_last=True,
    source=Source(note="ours, for the CPU: the paper's losses, assignment, augmentation and schedule, smaller"),
)

SMALL_MODERN = replace(
    SMALL,
    name="ssd-small-modern",
    detector=replace(SMALL.detector, **MODERN),
    data=replace(
        SMALL.data,
        train=(
            MinIoUCropConfig(p=0.5, scale=(0.6, 1.0), aspect=(0.75, 1.33)),
            WarpConfig(size=(224, 224)),
            FlipConfig(p=0.5),
            HSVJitterConfig(p=0.5, hue=0.02, saturation=1.3, value=1.3),
        ),
        eval=(WarpConfig(size=(224, 224)),),
    ),
    stages=(small.STAGE,),
    ema=small.EMA,
    source=Source(note="ours, for the CPU"),
)

SSD_RECIPES = (
    SSD300_VOC,
    SSD512_VOC,
    SSD300_COCO,
    SSD512_COCO,
    SSD300_MOBILENET,
    SSDLITE320,
    SSD300_MODERN,
    SMALL,
    SMALL_MODERN,
)
