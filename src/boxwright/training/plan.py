"""What a recipe comes to on a given training set: how many steps, which stage when, what happens after which step."""

from __future__ import annotations

from dataclasses import dataclass

from boxwright.training.recipe import Recipe, Stage, steps_of
from boxwright.training.schedule import Schedule, build_schedule


@dataclass(frozen=True)
class PlannedStage:
    """A stage covers the steps ``first + 1 ... first + steps`` of the run."""

    stage: Stage
    first: int
    steps: int
    schedule: Schedule


@dataclass(frozen=True)
class Plan:
    """The run in steps, counted from 1 through all stages. ``images``: of an epoch."""

    images: int
    batch_size: int
    stages: tuple[PlannedStage, ...]
    validate_every: int
    checkpoint_every: int

    @property
    def total(self) -> int:
        """Steps of all stages."""
        return sum(s.steps for s in self.stages)

    def epoch(self, step: int) -> float:
        """Epochs finished after ``step``."""
        return step * self.batch_size / self.images

    def stage_of(self, step: int) -> int:
        """The index of the stage that takes ``step`` (1 is the run's first)."""
        return next(i for i, s in enumerate(self.stages) if step <= s.first + s.steps)

    def validates(self, step: int) -> bool:
        """Whether a validation follows ``step``."""
        return step % self.validate_every == 0 or step == self.total

    def saves(self, step: int) -> bool:
        """Whether a checkpoint follows ``step`` even without a validation."""
        return step % self.checkpoint_every == 0 or step == self.total


def make_plan(recipe: Recipe, images: int) -> Plan:
    """The plan of ``recipe`` on a training set of ``images``."""
    batch = recipe.data.batch_size
    stages, first = [], 0
    for stage in recipe.stages:
        steps = steps_of(stage.length, stage.unit, images, batch)
        stages.append(PlannedStage(stage, first, steps, build_schedule(stage, images, batch)))
        first += steps
    return Plan(
        images,
        batch,
        tuple(stages),
        validate_every=steps_of(recipe.validation.every, recipe.validation.unit, images, batch),
        checkpoint_every=steps_of(recipe.checkpoint.every, recipe.checkpoint.unit, images, batch),
    )
