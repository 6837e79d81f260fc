"""R-CNN. Each recipe needs files of proposals: ``data.proposals.train`` and ``data.proposals.val``.

Three stages: fine-tuning, SVMs, box regression; after each of them the detector is validated. Fitting SVMs needs the
extra ``rcnn`` (scikit-learn).

``rcnn-vgg16``
    The paper's on VOC07 with VGG-16 ("O-Net"): SGD at 0.001, ten times that for the new layer and twice for biases, a
    tenth of it every 20,000 of 70,000 steps, 128 windows a step: 8 of each of 16 images. It needs ImageNet weights.
    The paper's own batches of VGG-16 had 24 windows, for want of memory: ``--set detector.windows.count=4 --set
    data.batch_size=6``. Departure: at most 5000 pairs of a class for its regression, 10 GB on VOC, and as much again
    while they are saved.
``rcnn-zf``, ``rcnn-r50``, ``rcnn-detnet59``
    The same on a network of AlexNet's size, with the same 9216 features of pool5, and on residual networks.
``...-modern`` of these four
    The same network and cost, with four times as many windows a step, a cosine schedule, colour jitter and an EMA of
    the weights.
``rcnn-small``, ``rcnn-detnet-small``, and ``...-modern`` of both
    For the CPU, from scratch: crops of 64 pixels, a quarter of the channels, batch norm, 300 proposals. The modern ones
    take twice the windows a step, with a cosine schedule, colour jitter and an EMA.
``...-softmax``, ``...-svm-overlap``, ``...-tune-truth``
    Ablations of the labels of windows, which differ between network and SVMs (appendix B): no SVMs at all; SVMs on
    the labels of fine-tuning; fine-tuning on the labels of the SVMs.
"""

from __future__ import annotations

from dataclasses import replace

from boxwright.backbones.detnet import DetNetConfig
from boxwright.backbones.resnet import ResNetConfig
from boxwright.backbones.vgg import VGGConfig
from boxwright.backbones.zf import ZFConfig
from boxwright.config.recipe import (
    AdamWConfig,
    CheckpointConfig,
    CosineConfig,
    EMAConfig,
    FitStage,
    GroupConfig,
    MultiStepConfig,
    Recipe,
    SGDConfig,
    Source,
    Stage,
    ValidationConfig,
    WarmupConfig,
)
from boxwright.data.config import DataConfig
from boxwright.data.proposals.files import ProposalsConfig
from boxwright.data.transforms.configs import FlipConfig, HSVJitterConfig, PhotometricConfig, ResizeConfig
from boxwright.detectors.rcnn import RCNNConfig, WindowConfig
from boxwright.geometry.pooling.region_warp import RegionWarpConfig
from boxwright.heads.postprocess import PostprocessConfig
from boxwright.heads.regions.crop_layers import LayersConfig, MeanConfig
from boxwright.heads.regions.fits.ridge import RidgeFitConfig
from boxwright.heads.regions.fits.svm import SVMFitConfig

VOC_SIDES = ResizeConfig(short=(500,), long=500)  # VOC's images have that size already
SVMS = FitStage(name="svms", fit=SVMFitConfig())
BOXES = FitStage(name="boxes", fit=RidgeFitConfig())
VOC_BOXES = FitStage(name="boxes", fit=RidgeFitConfig(most=5000))
VOC_TUNING = Stage(
    name="fine-tuning",
    length=70_000,
    unit="steps",
    optimiser=SGDConfig(
        lr=1e-3,
        momentum=0.9,
        weight_decay=5e-4,
        decay_biases=False,
        bias_lr=2.0,
        groups=(GroupConfig(prefix="scores", lr=10.0),),
    ),
    schedule=MultiStepConfig(milestones=(20_000, 40_000, 60_000), gamma=0.1),
)


def _overlapping(stage: Stage | FitStage) -> Stage | FitStage:
    """Return the stage, with the labels of fine-tuning if it fits SVMs."""
    if not isinstance(stage, FitStage) or not isinstance(stage.fit, SVMFitConfig):
        return stage
    return replace(stage, fit=replace(stage.fit, positives="overlap", positive_iou=0.5, negative_iou=0.5))


def relabelled(recipe: Recipe, answer: str) -> Recipe:
    """Return the ablation ``answer`` of the labels of windows: "softmax", "svm-overlap" or "tune-truth"."""
    detector = recipe.detector
    assert isinstance(detector, RCNNConfig)
    stages = recipe.stages
    match answer:
        case "softmax":
            detector = replace(detector, score="softmax")
            stages = tuple(s for s in stages if not (isinstance(s, FitStage) and s.fit.kind == "svm"))
        case "svm-overlap":
            stages = tuple(_overlapping(stage) for stage in stages)
        case "tune-truth":
            windows = replace(detector.windows, positives="truth", negative_iou=0.3)
            detector = replace(detector, windows=windows)
    return replace(recipe, name=f"{recipe.name}-{answer}", detector=detector, stages=stages)


VGG16 = Recipe(
    name="rcnn-vgg16",
    detector=RCNNConfig(),
    data=DataConfig(
        train=(VOC_SIDES, FlipConfig(p=0.5)),
        eval=(VOC_SIDES,),
        batch_size=16,
        eval_batch_size=1,
        proposals=ProposalsConfig(),
    ),
    stages=(VOC_TUNING, SVMS, VOC_BOXES),
    validation=ValidationConfig(every=20_000, unit="steps"),
    checkpoint=CheckpointConfig(every=2_000, unit="steps"),
    source=Source(
        paper="Rich feature hierarchies for accurate object detection and semantic segmentation, arXiv 1311.2524",
        section="§2.3, appendices A to C, table 3",
        note="VOC07 test, trained on VOC07 from ImageNet weights; AP50 by 11 points",
        expected={"AP50": 0.66},
    ),
)
ZF = replace(
    VGG16,
    name="rcnn-zf",
    detector=RCNNConfig(backbone=ZFConfig(), layers=LayersConfig(pool=3)),
    source=replace(VGG16.source, note="the paper's AlexNet in a network of its size", expected=None),
)
R50 = replace(
    VGG16,
    name="rcnn-r50",
    detector=RCNNConfig(backbone=ResNetConfig(depth=50, norm="frozen_bn", out_levels=(5,)), layers=MeanConfig(cells=2)),
    source=Source(note="ours, on the paper's schedule"),
)
DETNET59 = replace(
    R50,
    name="rcnn-detnet59",
    detector=RCNNConfig(backbone=DetNetConfig(norm="frozen_bn", out_levels=(6,)), layers=MeanConfig(cells=3)),
)


def _modern(recipe: Recipe) -> Recipe:
    assert isinstance(recipe.detector, RCNNConfig)
    tuning = replace(
        VOC_TUNING,
        optimiser=SGDConfig(
            lr=2e-3, momentum=0.9, weight_decay=5e-4, bias_lr=2.0, groups=(GroupConfig(prefix="scores", lr=10.0),)
        ),
        schedule=CosineConfig(final=0.01, warmup=WarmupConfig(steps=1000, factor=0.01)),
    )
    return replace(
        recipe,
        name=f"{recipe.name}-modern",
        detector=replace(recipe.detector, windows=replace(recipe.detector.windows, count=32)),
        data=replace(recipe.data, train=(VOC_SIDES, PhotometricConfig(), FlipConfig(p=0.5))),
        stages=(tuning, *recipe.stages[1:]),
        ema=EMAConfig(),
        source=Source(note="ours; the same network and cost as the paper's recipe"),
    )


SIDES = ResizeConfig(short=(480,), long=640)
SMALL_SVMS = replace(SVMS, fit=SVMFitConfig(norm_images=40))  # the mean length is no finer for more, and takes longer
SMALL = Recipe(
    name="rcnn-small",
    detector=RCNNConfig(
        backbone=VGGConfig(depth=11, width=16, norm="bn", out_levels=(5,)),
        warp=RegionWarpConfig(size=64, context=4),
        layers=LayersConfig(hidden=(256, 256)),
        windows=WindowConfig(count=16),
        post=PostprocessConfig(score_threshold=0.0, nms_iou=0.3, per_class=100),  # 100 an image, as of all others
    ),
    data=DataConfig(
        train=(SIDES, FlipConfig(p=0.5)),
        eval=(SIDES,),
        batch_size=8,
        eval_batch_size=1,
        workers=2,
        group_by_aspect=False,
        proposals=ProposalsConfig(most=300),
    ),
    stages=(
        Stage(
            name="fine-tuning",
            length=15,
            optimiser=AdamWConfig(lr=1e-3, base_batch=8, weight_decay=0.05),
            schedule=MultiStepConfig(milestones=(10, 13), gamma=0.1, warmup=WarmupConfig(steps=50, factor=0.01)),
        ),
        SMALL_SVMS,
        BOXES,
    ),
    validation=ValidationConfig(every=15, unit="epochs", loss=False),
    checkpoint=CheckpointConfig(every=2, unit="epochs"),
    clip_norm=10.0,
    channels_last=True,
    source=Source(note="ours, for the CPU"),
)
DETNET_SMALL = replace(
    SMALL,
    name="rcnn-detnet-small",
    detector=replace(
        SMALL.detector,
        backbone=DetNetConfig(depths=(1, 1, 2, 1, 1), width=16, stride_in_1x1=False, norm="bn", out_levels=(6,)),
        layers=MeanConfig(cells=2),
    ),
)


def _modern_small(recipe: Recipe) -> Recipe:
    assert isinstance(recipe.detector, RCNNConfig)
    tuning = Stage(
        name="fine-tuning",
        length=15,
        optimiser=AdamWConfig(lr=2e-3, base_batch=8, weight_decay=0.05),
        schedule=CosineConfig(final=0.01, warmup=WarmupConfig(steps=50, factor=0.01)),
    )
    return replace(
        recipe,
        name=f"{recipe.name}-modern",
        detector=replace(recipe.detector, windows=WindowConfig(count=32)),
        data=replace(recipe.data, train=(SIDES, HSVJitterConfig(), FlipConfig(p=0.5))),
        stages=(tuning, *recipe.stages[1:]),
        ema=EMAConfig(decay=0.995, ramp=100),
    )


ANSWERS = ("softmax", "svm-overlap", "tune-truth")

RCNN_RECIPES = (
    *(pair for paper in (VGG16, ZF, R50, DETNET59) for pair in (paper, _modern(paper))),
    *(pair for small in (SMALL, DETNET_SMALL) for pair in (small, _modern_small(small))),
    *(relabelled(recipe, answer) for recipe in (VGG16, SMALL) for answer in ANSWERS),
)
