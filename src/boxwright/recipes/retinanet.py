"""RetinaNet.

Lin et al., arXiv 1708.02002; Li et al., arXiv 1804.06215 (DetNet).

``retinanet-r50-fpn``, ``retinanet-r101-fpn``, ``retinanet-detnet59-fpn``
    The paper's recipe for COCO (§4.1, §5), to the constant: 16 images a step, SGD at 0.01, 90,000 steps, a tenth at
    60,000 and 80,000, sides of 800 and 1333, horizontal flips, stem, stage 2 and batch norms frozen. Warm-up and the
    longest side are Detectron's. They need ImageNet weights: those of ``boxwright pretrain resnet50-v1`` and
    so on, or MSRA's with their pixels. ``boxwright train retinanet-r50-fpn --data coco --backbone-weights R-50.pkl
    --set 'detector.pixels={mean=[123.675,116.28,103.53],std=[1,1,1],bgr=true}'``
``retinanet-r50-600-gamma-...``, ``-alpha-...``, ``-anchors-...``
    The paper's ablations (table 1a to 1c), at short sides of 600: focal loss of each gamma with the alpha that suits
    it; cross-entropy (gamma 0) of each alpha; anchors as scales x ratios.
``...-modern``
    Assignment by ATSS, quality focal loss, GIoU, live batch norm, large-scale jitter, EMA weights and a longer cosine
    schedule. The network and the cost of inference are the paper's.
``retinanet-small``, ``retinanet-small-modern``, ``retinanet-detnet-small``
    For the CPU and small images, from scratch. The ablations run on them as well, for example
    ``--set detector.loss.gamma=0 --set detector.loss.alpha=0.75``, or with one scale a level
    ``--set "detector.anchors.sizes=[[12], [24], [48], [96], [192]]"``.
"""

from __future__ import annotations

from dataclasses import replace

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
from boxwright.detectors.retinanet import (
    RetinaNetAssignConfig,
    RetinaNetConfig,
    RetinaNetLossConfig,
    octave_anchors,
)
from boxwright.heads.dense import DenseHeadConfig
from boxwright.necks.fpn import FPNConfig
from boxwright.recipes import small
from boxwright.recipes.common import MODERN_EMA, MODERN_STAGE, large_scale_jitter

PAPER = "Focal Loss for Dense Object Detection, arXiv 1708.02002"

R50_PAPER = Recipe(
    name="retinanet-r50-fpn",
    detector=RetinaNetConfig(
        # The weights that the paper started from have v1 strides.
        backbone=ResNetConfig(depth=50, stride_in_1x1=True, norm="frozen_bn", freeze_at=2, out_levels=(3, 4, 5)),
        neck=FPNConfig(extra="conv_c", extra_strides=(2, 2)),
    ),
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
            length=90_000,
            unit="steps",
            optimiser=SGDConfig(lr=0.01, momentum=0.9, weight_decay=1e-4),
            schedule=MultiStepConfig(
                milestones=(60_000, 80_000), gamma=0.1, warmup=WarmupConfig(steps=500, factor=1 / 3)
            ),
        ),
    ),
    validation=ValidationConfig(every=10_000, unit="steps"),
    checkpoint=CheckpointConfig(every=2_000, unit="steps"),
    source=Source(
        paper=PAPER,
        section="§4.1, §5, table 1e",
        note="COCO test-dev, from ImageNet weights",
        expected={"AP": 0.357, "AP50": 0.550, "AP75": 0.385, "APs": 0.189, "APm": 0.389, "APl": 0.463},
    ),
)

R101_PAPER = replace(
    R50_PAPER,
    name="retinanet-r101-fpn",
    detector=replace(R50_PAPER.detector, backbone=replace(R50_PAPER.detector.backbone, depth=101)),
    source=replace(
        R50_PAPER.source,
        expected={"AP": 0.378, "AP50": 0.575, "AP75": 0.408, "APs": 0.202, "APm": 0.411, "APl": 0.492},
    ),
)

DETNET59_PAPER = replace(
    R50_PAPER,
    name="retinanet-detnet59-fpn",
    detector=replace(
        R50_PAPER.detector,
        backbone=DetNetConfig(norm="frozen_bn", freeze_at=2, out_levels=(3, 4, 5, 6)),
        # P3 to P6 at strides 8, 16, 16, 16 are DetNet's own stages; P7 at stride 32 is added.
        neck=FPNConfig(extra="conv_c", extra_strides=(2,)),
    ),
    source=Source(paper=PAPER, section="§4.1, §5", note="ours: the paper's recipe on DetNet-59; no published figure"),
)

R50_600 = replace(
    R50_PAPER,
    name="retinanet-r50-600",
    data=replace(
        R50_PAPER.data,
        train=(ResizeConfig(short=(600,), long=1000), FlipConfig(p=0.5)),
        eval=(ResizeConfig(short=(600,), long=1000),),
    ),
    source=replace(
        R50_PAPER.source,
        note="COCO minival, from ImageNet weights",
        expected={"AP": 0.340, "AP50": 0.525, "AP75": 0.365},
    ),
)


def _ablation(name: str, section: str, expected: tuple[float, ...], **changes: object) -> Recipe:
    figures = dict(zip(("AP", "AP50", "AP75"), expected, strict=False))
    return replace(
        R50_600,
        name=f"retinanet-r50-600-{name}",
        detector=replace(R50_600.detector, **changes),
        source=replace(R50_600.source, section=section, expected=figures),
    )


# Table 1b: gamma, the best alpha for it, AP, AP50, AP75.
GAMMA_TABLE = (
    (0.0, 0.75, (0.311, 0.494, 0.330)),
    (0.1, 0.75, (0.314, 0.499, 0.331)),
    (0.2, 0.75, (0.319, 0.507, 0.334)),
    (0.5, 0.50, (0.329, 0.517, 0.352)),
    (1.0, 0.25, (0.337, 0.520, 0.362)),
    (2.0, 0.25, (0.340, 0.525, 0.365)),
    (5.0, 0.25, (0.322, 0.496, 0.348)),
)
# Table 1a: alpha of cross-entropy (gamma 0), AP.
ALPHA_TABLE = ((0.10, 0.0), (0.25, 0.108), (0.50, 0.302), (0.75, 0.311), (0.90, 0.308), (0.99, 0.287), (0.999, 0.251))
# Table 1c: scales to the octave, ratios, AP.
RATIOS = {1: (1.0,), 3: (0.5, 1.0, 2.0)}
ANCHOR_TABLE = ((1, 1, 0.303), (2, 1, 0.319), (3, 1, 0.318), (1, 3, 0.324), (2, 3, 0.342), (3, 3, 0.340), (4, 3, 0.338))

GAMMA_RECIPES = tuple(
    _ablation(f"gamma-{gamma:g}", "table 1b", figures, loss=RetinaNetLossConfig(gamma=gamma, alpha=alpha))
    for gamma, alpha, figures in GAMMA_TABLE
)
ALPHA_RECIPES = tuple(
    _ablation(f"alpha-{alpha:g}", "table 1a", (ap,), loss=RetinaNetLossConfig(gamma=0.0, alpha=alpha))
    for alpha, ap in ALPHA_TABLE
)
ANCHOR_RECIPES = tuple(
    _ablation(
        f"anchors-{scales}x{ratios}", "table 1c", (ap,), anchors=octave_anchors(scales=scales, ratios=RATIOS[ratios])
    )
    for scales, ratios, ap in ANCHOR_TABLE
)

MODERN_LOSSES = {
    "assign": RetinaNetAssignConfig(method="atss", topk=81),  # nine cells of nine anchors
    "loss": RetinaNetLossConfig(classification="quality_focal", box="giou", box_weight=2.0),
}

R50_MODERN = Recipe(
    name="retinanet-r50-fpn-modern",
    detector=RetinaNetConfig(
        backbone=ResNetConfig(depth=50, stride_in_1x1=True, norm="bn", out_levels=(3, 4, 5)),
        neck=FPNConfig(extra="conv_c", extra_strides=(2, 2), norm="bn"),
        head=DenseHeadConfig(norm="bn"),
        **MODERN_LOSSES,
    ),
    data=DataConfig(
        train=large_scale_jitter(1024),
        eval=(ResizeConfig(short=(800,), long=1333),),
        batch_size=16,
        eval_batch_size=8,
        group_by_aspect=False,
    ),
    stages=(MODERN_STAGE,),
    ema=MODERN_EMA,
    validation=ValidationConfig(every=5, unit="epochs"),
    checkpoint=CheckpointConfig(every=1, unit="epochs"),
    sync_batch_norm=True,
    clip_norm=35.0,
    source=Source(
        paper="ATSS, arXiv 1912.02424; Generalized Focal Loss, arXiv 2006.04388; large-scale jitter, arXiv 2012.07177",
        note="our combination; no published figure for this detector",
    ),
)

DETNET59_MODERN = replace(
    R50_MODERN,
    name="retinanet-detnet59-fpn-modern",
    detector=replace(
        R50_MODERN.detector,
        backbone=DetNetConfig(norm="bn", out_levels=(3, 4, 5, 6)),
        neck=FPNConfig(extra="conv_c", extra_strides=(2,), norm="bn"),
    ),
)

SMALL = Recipe(
    name="retinanet-small",
    detector=RetinaNetConfig(
        backbone=ResNetConfig(depth=50, blocks=(1, 2, 3, 1), width=16, norm="bn", out_levels=(3, 4, 5)),
        neck=FPNConfig(channels=48, extra="conv_c", extra_strides=(2, 2)),
        # The paper has no norm here: it starts from ImageNet weights, this from random ones.
        head=DenseHeadConfig(norm="bn"),
        anchors=octave_anchors(bases=(12, 24, 48, 96, 192)),
    ),
    data=DataConfig(
        train=(LetterboxConfig(size=(256, 256)), FlipConfig(p=0.5)),
        eval=(LetterboxConfig(size=(256, 256)),),
        batch_size=8,
        eval_batch_size=8,
        workers=2,
        group_by_aspect=False,
    ),
    stages=(
        Stage(
            length=15,
            unit="epochs",
            optimiser=SGDConfig(lr=0.02, base_batch=8, momentum=0.9, weight_decay=1e-4),
            schedule=MultiStepConfig(milestones=(10, 13), gamma=0.1, warmup=WarmupConfig(steps=100, factor=1 / 3)),
        ),
    ),
    validation=ValidationConfig(every=5, unit="epochs"),
    checkpoint=CheckpointConfig(every=1, unit="epochs"),
    clip_norm=10.0,
    channels_last=True,
    source=Source(note="ours, for the CPU: the paper's losses, assignment and schedule, smaller"),
)

SMALL_MODERN = replace(
    SMALL,
    name="retinanet-small-modern",
    detector=replace(SMALL.detector, **MODERN_LOSSES),
    data=replace(SMALL.data, train=small.JITTER),
    stages=(small.STAGE,),
    ema=small.EMA,
    source=Source(note="ours, for the CPU"),
)

DETNET_SMALL = replace(
    SMALL,
    name="retinanet-detnet-small",
    detector=replace(
        SMALL.detector,
        backbone=DetNetConfig(
            depths=(1, 1, 2, 1, 1), width=16, stride_in_1x1=False, norm="bn", out_levels=(3, 4, 5, 6)
        ),
        neck=FPNConfig(channels=48, extra="conv_c", extra_strides=(2,)),
    ),
)

RETINANET_RECIPES = (
    R50_PAPER,
    R101_PAPER,
    DETNET59_PAPER,
    *GAMMA_RECIPES,
    *ALPHA_RECIPES,
    *ANCHOR_RECIPES,
    R50_MODERN,
    DETNET59_MODERN,
    SMALL,
    SMALL_MODERN,
    DETNET_SMALL,
)
