"""What decides a classification run that gives a backbone its start."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeAlias

from pydantic import Field

from boxwright.backbones.build import BackboneConfig
from boxwright.config.config_tree import Describe, from_tree, to_tree
from boxwright.config.recipe import (
    CheckpointConfig,
    Count,
    CountOrZero,
    EMAConfig,
    NotNegative,
    OptimiserConfig,
    Positive,
    Recipe,
    ScheduleConfig,
    Stage,
    ValidationConfig,
)
from boxwright.data.transforms.crops import CropConfig
from boxwright.detectors.contract.pixels import IMAGENET, PixelConfig
from boxwright.precision import Precision
from boxwright.structures import InputError


@dataclass(frozen=True, kw_only=True)
class PretrainRecipe:
    """A backbone, and how it learns to tell pictures apart.

    ``epochs``: length of the run. ``batch_size``: pictures a step over all processes. ``label_smoothing``: share of the
    target that goes to all classes alike (Szegedy et al. 2016). ``mixup``, ``cutmix``: the parameter of the Beta
    distribution from which a batch's share of a second picture is drawn, blended (Zhang et al. 2018) or pasted (Yun et
    al. 2019); 0 leaves it out, with both each batch takes one of them at random. ``pixels``: must be the detector's
    later. ``validate_every``: epochs between two measurements of top-1 and top-5. ``save_every``: epochs between two
    checkpoints to resume from; they are also written with each measurement, at the end and on Ctrl-C.
    """

    name: str
    backbone: BackboneConfig
    crops: CropConfig = field(default_factory=CropConfig)
    pixels: PixelConfig = IMAGENET
    epochs: Positive = 100.0
    batch_size: Count = 256
    workers: CountOrZero = 4
    optimiser: OptimiserConfig
    schedule: ScheduleConfig
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    mixup: NotNegative = 0.0
    cutmix: NotNegative = 0.0
    ema: EMAConfig | None = None
    validate_every: Positive = 1.0
    save_every: Positive = 1.0
    precision: Precision = "fp32"
    clip_norm: Positive | None = None
    sync_batch_norm: bool = False
    compile: bool = False
    log_every: Count = 20
    seed: CountOrZero = 0

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
    """The recipe in a tree that ``to_tree`` made."""
    return from_tree(PretrainRecipe, tree, describe)


def dump_pretrain(recipe: PretrainRecipe) -> str:
    """The whole recipe, defaults included, as JSON."""
    return json.dumps(to_tree(recipe), indent=2, ensure_ascii=False, allow_nan=False)
