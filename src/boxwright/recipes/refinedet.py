"""RefineDet.

Zhang et al., arXiv 1711.06897; on DetNet-59: Li et al., arXiv 1804.06215.

``refinedet320-vgg16``, ``refinedet512-vgg16``
    The paper's recipe for VOC (§4.1, §4.2), to the constant: 32 images a step, SGD at 0.001, 120,000 steps, a tenth at
    80,000 and 100,000, biases at twice the rate and without decay, SSD's augmentation. They need VGG-16 reduced
    weights. Trained on 07+12; on 07++12 everything takes twice as long: ``--set stages.0.length=240000
    --set "stages.0.schedule.milestones=[160000, 200000]"``.
``refinedet320-vgg16-no-filtering``, ``...-no-two-step``, ``...-no-tcb``
    The paper's ablation (table 3): each takes away one thing more than the one before it.
``refinedet320-vgg16-coco``, ``refinedet512-vgg16-coco``, ``refinedet320-r101-coco``, ``refinedet512-r101-coco``
    The paper's for COCO (§4.3). Live batch norms, and Soft-NMS at test, as in the released code.
``refinedet320-detnet59-coco``, ``refinedet512-detnet59-coco``
    Ours: the ResNet's recipe on DetNet-59, whose last three maps all have stride 16: no map is upsampled between them,
    no layer is added on top, and the anchors' sizes are the paper's although strides no longer tell them.
``...-modern``
    The same networks: ATSS for the first module, GIoU on the refined boxes, negatives from images without objects,
    gentler zoom, AdamW on a cosine schedule and EMA weights. They see as many images and cost the same at inference.
``refinedet-small``, ``refinedet-small-modern``, ``refinedet-small-no-...``, ``refinedet-detnet-small``
    For the CPU, from scratch: narrow backbones with batch norms, sides of 256, anchors smaller in proportion.

The paper's results marked "+" come from testing at many scales: ``boxwright evaluate ... --augment refinedet-320``, or
``refinedet-512``, or either with ``-coco``, whose detections are merged by soft voting.
"""

from __future__ import annotations

from dataclasses import replace

from boxwright.anchors.coder import BoxCoder
from boxwright.anchors.generator import AnchorConfig
from boxwright.backbones.detnet import DetNetConfig
from boxwright.backbones.resnet import ResNetConfig
from boxwright.backbones.vgg import VGGConfig
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
    ExpandConfig,
    FlipConfig,
    HSVJitterConfig,
    MinIoUCropConfig,
    TransformConfig,
    WarpConfig,
)
from boxwright.detectors.contract.pixels import IMAGENET
from boxwright.detectors.refinedet import (
    RefineDetAssignConfig,
    RefineDetConfig,
    RefineDetHeadConfig,
    RefineDetLossConfig,
)
from boxwright.heads.postprocess import PostprocessConfig
from boxwright.recipes import small
from boxwright.recipes.common import MODERN_EMA
from boxwright.recipes.single_shot import paper_data, paper_stage

PAPER = "Single-Shot Refinement Neural Network for Object Detection, arXiv 1711.06897"

# The counts of the released scripts, which gave the published figures; the paper's text says 400 in all and 200.
VOC_POST = PostprocessConfig(score_threshold=0.01, nms_iou=0.45, per_class=1000, detections=500)
COCO_POST = replace(VOC_POST, nms="soft_linear", nms_iou=0.3)


def gentle_chain(side: int) -> tuple[TransformConfig, ...]:
    """Return the same geometric transforms with less zoom either way, which wastes fewer pixels of the images."""
    return (
        HSVJitterConfig(p=0.5, hue=0.02, saturation=1.3, value=1.3),
        ExpandConfig(p=0.3, ratio=(1.0, 2.0)),
        MinIoUCropConfig(p=0.7, scale=(0.5, 1.0), keep="visible", min_visible=0.3),
        WarpConfig(size=(side, side)),
        FlipConfig(p=0.5),
    )


def gentle_data(data: DataConfig, side: int) -> DataConfig:
    """Return ``data`` with gentler augmentation and antialiased resizing, in training and at test."""
    return replace(data, train=gentle_chain(side), eval=(WarpConfig(size=(side, side)),))


VGG320 = Recipe(
    name="refinedet320-vgg16",
    detector=RefineDetConfig(post=VOC_POST),
    data=paper_data(320),
    stages=(paper_stage(120_000, (80_000, 100_000)),),
    validation=ValidationConfig(every=10_000, unit="steps"),
    checkpoint=CheckpointConfig(every=2_000, unit="steps"),
    channels_last=True,
    source=Source(
        paper=PAPER,
        section="§4.2, table 1",
        note="VOC 2007 test, 11-point AP at IoU 0.5, from VGG-16 reduced weights",
        expected={"AP50": 0.800},
    ),
)

VGG512 = replace(
    VGG320, name="refinedet512-vgg16", data=paper_data(512), source=replace(VGG320.source, expected={"AP50": 0.818})
)

# Table 3. The first module always has its loss; the second uses less and less of its results.
NO_FILTERING = {"floor": 0.0}
NO_TWO_STEP = {**NO_FILTERING, "two_step": False}
NO_TCB = {**NO_TWO_STEP, "tcb": False}
ABLATIONS = (("no-filtering", NO_FILTERING, 0.795), ("no-two-step", NO_TWO_STEP, 0.773), ("no-tcb", NO_TCB, 0.762))

VGG320_ABLATIONS = tuple(
    replace(
        VGG320,
        name=f"{VGG320.name}-{name}",
        detector=replace(VGG320.detector, **changes),
        source=replace(VGG320.source, section="§4.1, table 3", expected={"AP50": expected}),
    )
    for name, changes, expected in ABLATIONS
)

VGG320_COCO = replace(
    VGG320,
    name="refinedet320-vgg16-coco",
    detector=replace(VGG320.detector, post=COCO_POST),
    stages=(paper_stage(400_000, (280_000, 360_000)),),
    source=Source(
        paper=PAPER,
        section="§4.3, table 4",
        note="COCO test-dev; S, M and L are not certain",
        expected={"AP": 0.294, "AP50": 0.492, "AP75": 0.313, "APs": 0.100, "APm": 0.320, "APl": 0.444},
    ),
)

VGG512_COCO = replace(
    VGG320_COCO,
    name="refinedet512-vgg16-coco",
    data=paper_data(512),
    source=replace(
        VGG320_COCO.source,
        note="COCO test-dev",
        expected={"AP": 0.330, "AP50": 0.545, "AP75": 0.355, "APs": 0.163, "APm": 0.363, "APl": 0.443},
    ),
)

R101_COCO = replace(
    VGG320_COCO,
    name="refinedet320-r101-coco",
    detector=RefineDetConfig(
        backbone=ResNetConfig(depth=101, stride_in_1x1=True, norm="bn", out_levels=(3, 4, 5)),
        top="residual",
        top_channels=(128, 512),
        l2_scales=(None, None, None, None),
        head=RefineDetHeadConfig(block=256, norm="bn"),
        post=COCO_POST,
    ),
    # Batch norms are live and decay with the rest, each on its own GPU's images.
    stages=(paper_stage(400_000, (280_000, 360_000), decay_norms=True),),
    source=replace(
        VGG320_COCO.source,
        expected={"AP": 0.320, "AP50": 0.514, "AP75": 0.342, "APs": 0.105, "APm": 0.347, "APl": 0.504},
    ),
)

R101_512_COCO = replace(
    R101_COCO,
    name="refinedet512-r101-coco",
    data=paper_data(512, batch_size=20),
    stages=(paper_stage(540_000, (400_000, 480_000), decay_norms=True),),
    source=replace(
        VGG512_COCO.source,
        expected={"AP": 0.364, "AP50": 0.575, "AP75": 0.395, "APs": 0.166, "APm": 0.399, "APl": 0.514},
    ),
)

DETNET59_COCO = replace(
    R101_COCO,
    name="refinedet320-detnet59-coco",
    detector=replace(
        R101_COCO.detector,
        backbone=DetNetConfig(norm="bn", out_levels=(3, 4, 5, 6)),
        top="none",
        pixels=IMAGENET,
    ),
    source=Source(paper=PAPER, section="§4.3", note="ours: the ResNet's recipe on DetNet-59; no published figure"),
)

DETNET59_512_COCO = replace(
    DETNET59_COCO, name="refinedet512-detnet59-coco", data=R101_512_COCO.data, stages=R101_512_COCO.stages
)

MODERN_LOSSES = {
    "assign": RefineDetAssignConfig(arm="atss", topk=27),  # nine cells of three anchors
    "loss": RefineDetLossConfig(box=("smooth_l1", "giou"), box_weight=(1.0, 2.0), min_negatives=16),
    # GIoU is computed on decoded boxes, which must be finite.
    "coder": BoxCoder(weights=(10.0, 10.0, 5.0, 5.0), clamp=4.0),
}
MODERN_SOURCE = Source(
    paper="ATSS, arXiv 1912.02424; GIoU, arXiv 1902.09630; AdamW, arXiv 1711.05101",
    note="our combination; no published figure for this detector",
)


def modern(recipe: Recipe, side: int) -> Recipe:
    """Return the recipe of the same network with modern assignment, losses and optimiser, for as many images."""
    (stage,) = recipe.stages
    modern_stage = replace(
        stage,
        optimiser=AdamWConfig(lr=2e-4, base_batch=32, weight_decay=0.05),
        schedule=CosineConfig(final=0.01, warmup=WarmupConfig(steps=1_000, factor=0.001)),
    )
    return replace(
        recipe,
        name=f"{recipe.name}-modern",
        detector=replace(recipe.detector, **MODERN_LOSSES),
        data=gentle_data(recipe.data, side),
        stages=(modern_stage,),
        ema=MODERN_EMA,
        clip_norm=10.0,
        source=MODERN_SOURCE,
    )


SMALL = Recipe(
    name="refinedet-small",
    detector=RefineDetConfig(
        # The paper has no norms in VGG and around it: it starts from ImageNet weights, this from random ones.
        backbone=VGGConfig(
            depth=11, width=16, norm="bn", fc="reduced", fc6_dilation=3, pool5="2x2s2", out_levels=(4, 5, 6)
        ),
        top_channels=(64, 128),
        head=RefineDetHeadConfig(channels=48, norm="bn"),
        anchors=AnchorConfig(sizes=((24,), (48,), (96,), (192,)), ratios=(1.0, 2.0, 0.5), ratio="w/h", centre="cell"),
    ),
    data=replace(paper_data(256, batch_size=8), workers=2),
    stages=(
        Stage(
            length=15,
            unit="epochs",
            optimiser=SGDConfig(
                lr=0.01, base_batch=8, momentum=0.9, weight_decay=5e-4, decay_biases=False, bias_lr=2.0
            ),
            schedule=MultiStepConfig(milestones=(10, 12.5), gamma=0.1, warmup=WarmupConfig(steps=100, factor=0.1)),
        ),
    ),
    validation=ValidationConfig(every=5, unit="epochs"),
    checkpoint=CheckpointConfig(every=1, unit="epochs"),
    clip_norm=10.0,
    channels_last=True,
    source=Source(note="ours, for the CPU: the paper's losses, assignment, augmentation and schedule, smaller"),
)

SMALL_ABLATIONS = tuple(
    replace(SMALL, name=f"{SMALL.name}-{name}", detector=replace(SMALL.detector, **changes))
    for name, changes, _ in ABLATIONS
)

SMALL_MODERN = replace(
    SMALL,
    name="refinedet-small-modern",
    detector=replace(SMALL.detector, **MODERN_LOSSES),
    data=gentle_data(SMALL.data, 256),
    stages=(small.STAGE,),
    ema=small.EMA,
    source=Source(note="ours, for the CPU"),
)

DETNET_SMALL = replace(
    SMALL,
    name="refinedet-detnet-small",
    detector=replace(
        SMALL.detector,
        backbone=DetNetConfig(
            depths=(1, 1, 2, 1, 1), width=16, stride_in_1x1=False, norm="bn", out_levels=(3, 4, 5, 6)
        ),
        top="none",
        l2_scales=(None, None, None, None),
        pixels=IMAGENET,
    ),
)

REFINEDET_RECIPES = (
    VGG320,
    VGG512,
    *VGG320_ABLATIONS,
    VGG320_COCO,
    VGG512_COCO,
    R101_COCO,
    R101_512_COCO,
    DETNET59_COCO,
    DETNET59_512_COCO,
    modern(VGG320, 320),
    modern(VGG512, 512),
    modern(R101_512_COCO, 512),
    modern(DETNET59_512_COCO, 512),
    SMALL,
    *SMALL_ABLATIONS,
    SMALL_MODERN,
    DETNET_SMALL,
)
