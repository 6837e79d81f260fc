"""Recipe for pretraining a backbone as an image classifier."""

from __future__ import annotations

import json
from dataclasses import field
from typing import Any, TypeAlias

from boxwright.backbones.build import BackboneConfig
from boxwright.config.config_tree import Describe, from_tree, to_tree
from boxwright.config.recipe import (
    CheckpointConfig,
    EMAConfig,
    OptimiserConfig,
    Recipe,
    ScheduleConfig,
    Stage,
    ValidationConfig,
)
from boxwright.data.transforms.crops import CropConfig
from boxwright.detectors.contract.pixels import IMAGENET, PixelConfig
from boxwright.fields import Count, CountOrZero, Fraction, Length, NotNegative, Positive, config
from boxwright.precision import Precision
from boxwright.structures import InputError


@config
class PretrainRecipe:
    """Training of a backbone as an image classifier."""

    name: str
    """Name of the recipe."""
    backbone: BackboneConfig
    """Network to train; a linear classifier is added on top."""
    crops: CropConfig = field(default_factory=CropConfig)
    """Crops and colour changes of an image."""
    pixels: PixelConfig = IMAGENET
    """Normalisation of pixels. A detector that starts from the backbone must have the same."""
    epochs: Length = 100
    """Length of the run."""
    batch_size: Count = 256
    """Images per step, over all processes."""
    workers: CountOrZero = 4
    """Loader processes per training process."""
    optimiser: OptimiserConfig
    """Optimiser of all parameters."""
    schedule: ScheduleConfig
    """Learning rate over the run."""
    label_smoothing: Fraction = 0.1
    """Share of the target that is spread evenly over all classes (Szegedy et al. 2016)."""
    mixup: NotNegative = 0.0
    """Parameter of the Beta distribution for the share of a blended second image (Zhang et al. 2018); 0 blends none.

    With both ``mixup`` and ``cutmix``, each batch takes one of them at random.
    """
    cutmix: NotNegative = 0.0
    """Parameter of the Beta distribution for the share of a pasted second image (Yun et al. 2019); 0 pastes none."""
    ema: EMAConfig | None = None
    """Exponential moving average of the weights, which is then validated and saved."""
    validate_every: Length = 1.0
    """Epochs between validations; another one follows the last step."""
    save_every: Length = 1.0
    """Epochs between checkpoints; others follow each validation, the last step and Ctrl-C."""
    precision: Precision = "fp32"
    """Number format; bf16 and fp16 run under autocast with weights in fp32."""
    clip_norm: Positive | None = None
    """Maximum norm of the gradient over all parameters."""
    sync_batch_norm: bool = False
    """Compute batch statistics over all processes (CUDA)."""
    compile: bool = False
    """Compile the network as one graph."""
    log_every: Count = 20
    """Steps between log rows."""
    seed: CountOrZero = 0
    """Seed of weights, order, crops and mixing."""

    def __post_init__(self) -> None:
        norm = getattr(self.backbone, "norm", "bn")
        if norm == "frozen_bn" or getattr(self.backbone, "freeze_at", 0):
            raise InputError(
                f"{self.name}: backbone.norm = {norm} and backbone.freeze_at = {getattr(self.backbone, 'freeze_at', 0)}"
                ": frozen parts cannot be pretrained; set norm to bn and freeze_at to 0"
            )

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The one stage of the run."""
        return (Stage(name="pretrain", length=self.epochs, optimiser=self.optimiser, schedule=self.schedule),)

    @property
    def validation(self) -> ValidationConfig:
        """When to validate."""
        return ValidationConfig(every=self.validate_every)

    @property
    def checkpoint(self) -> CheckpointConfig:
        """When to write checkpoints."""
        return CheckpointConfig(every=self.save_every)

    @property
    def accumulation(self) -> int:
        """Micro-batches per optimiser step and process."""
        return 1


TrainingRecipe: TypeAlias = Recipe | PretrainRecipe
"""A recipe that the training loop can run."""


def pretrain_from_tree(tree: Any, describe: Describe = lambda path: "") -> PretrainRecipe:
    """Read a recipe from a tree that ``to_tree`` made."""
    return from_tree(PretrainRecipe, tree, describe)


def dump_pretrain(recipe: PretrainRecipe) -> str:
    """Return the whole recipe, defaults included, as JSON."""
    return json.dumps(to_tree(recipe), indent=2, ensure_ascii=False, allow_nan=False)
