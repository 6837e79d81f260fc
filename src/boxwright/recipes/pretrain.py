"""Recipes for pretraining backbones on image classification.

``imagenet``
    The usual recipe for ImageNet from ResNet to today (He et al. 2016; Goyal et al. 2017 for the scaling of the rate;
    He et al. 2019, arXiv 1812.01187, for cosine, label smoothing and undecayed biases): 224 pixels, 100 epochs.
``small``
    For thousands of small images, such as Imagenette at 128 pixels, and for CPUs: crops that keep more of the
    image, a smaller batch, an EMA over fewer steps.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from boxwright.backbones.build import NAMED_BACKBONES, named_backbone
from boxwright.checkpoints.backbone_files import for_pretraining
from boxwright.config.pretrain_recipe import PretrainRecipe
from boxwright.config.recipe import AdamWConfig, CosineConfig, EMAConfig, SGDConfig, WarmupConfig
from boxwright.data.transforms.crops import CropConfig
from boxwright.fields import nearest
from boxwright.recipes import RECIPES
from boxwright.recipes.common import MODERN_EMA
from boxwright.structures import InputError

Preset = Literal["imagenet", "small"]

IMAGENET = PretrainRecipe(
    name="imagenet",
    backbone=NAMED_BACKBONES["resnet50"],
    epochs=100,
    batch_size=256,
    optimiser=SGDConfig(lr=0.1, base_batch=256, nesterov=True, weight_decay=1e-4, decay_biases=False),
    schedule=CosineConfig(final=0.0, warmup=WarmupConfig(steps=5_000, factor=0.01)),
    ema=MODERN_EMA,
)

SMALL = PretrainRecipe(
    name="small",
    backbone=NAMED_BACKBONES["detnet-small"],
    crops=CropConfig(size=128, eval_size=146, scale=(0.25, 1.0)),
    epochs=20,
    batch_size=64,
    optimiser=AdamWConfig(lr=2e-3, base_batch=64, weight_decay=0.05),
    schedule=CosineConfig(final=0.01, warmup=WarmupConfig(steps=300, factor=0.01)),
    ema=EMAConfig(decay=0.998, ramp=300),
    clip_norm=5.0,
)


def pretrain_recipe(name: str, preset: Preset = "imagenet") -> PretrainRecipe:
    """The preset for a named backbone, for ``timm:NAME``, or for what a detector's recipe starts from, with its pixels.

    InputError names the nearest name there is, or the command that lists all.
    """
    base = IMAGENET if preset == "imagenet" else SMALL
    if name in RECIPES:
        detector = RECIPES[name].detector
        config, pixels = for_pretraining(detector.backbone), detector.pixels
    elif name in NAMED_BACKBONES or name.startswith("timm:"):
        config, pixels = named_backbone(name), base.pixels
    else:
        near = nearest(name, [*NAMED_BACKBONES, *RECIPES]) or "; `boxwright models --all` lists them"
        raise InputError(f"there is no backbone and no recipe {name!r}{near}")
    return replace(base, name=f"{name}-{preset}", backbone=config, pixels=pixels)
