"""Learning-rate schedules as pure functions of the step, so that resuming needs no state of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from boxwright.config.recipe import CosineConfig, MultiStepConfig, Stage, WarmupConfig, steps_of

Schedule = Callable[[int], float]
"""Maps the number of finished steps of a stage to the factor on the learning rate of the next step."""


def build_schedule(stage: Stage, images: int, batch_size: int) -> Schedule:
    """Build the schedule of ``stage`` for a training set of ``images`` images."""
    total = steps_of(stage.length, stage.unit, images, batch_size)
    config = stage.schedule
    warmup = fitting_warmup(config.warmup, total)
    match config:
        case MultiStepConfig():
            steps = tuple(steps_of(m, stage.unit, images, batch_size) for m in config.milestones)
            return lambda step: warmup_factor(warmup, step) * config.gamma ** sum(step >= m for m in steps)
        case CosineConfig():
            return lambda step: warmup_factor(warmup, step) * cosine_factor(config, step, total)


def fitting_warmup(config: WarmupConfig | None, total: int) -> WarmupConfig | None:
    """Cut a warm-up to a third of the ``total`` steps of the stage if it is longer."""
    return config and replace(config, steps=min(config.steps, total // 3))


def warmup_factor(config: WarmupConfig | None, step: int) -> float:
    """Return the warm-up factor: from ``factor`` at step 0 to 1 at step ``steps``, rising by the given ``power``."""
    if config is None or step >= config.steps:
        return 1.0
    return config.factor + (1 - config.factor) * (step / config.steps) ** config.power


def cosine_factor(config: CosineConfig, step: int, total: int) -> float:
    """Return the factor of half a cosine, which falls from 1 at step 0 to ``final`` at step ``total``."""
    progress = min(1.0, step / total)
    return config.final + (1 - config.final) * 0.5 * (1 + math.cos(math.pi * progress))
