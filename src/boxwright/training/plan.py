"""Plan of a run: the steps of each stage on a given training set, and what follows which step."""

from __future__ import annotations

from dataclasses import dataclass

from boxwright.config.pretrain_recipe import TrainingRecipe
from boxwright.config.recipe import FitStage, Stage, steps_of
from boxwright.training.optimisation.schedule import Schedule, build_schedule


@dataclass(frozen=True)
class PlannedStage:
    """A stage that covers the steps ``first + 1 ... first + steps`` of the run, each of ``step_images`` images.

    ``schedule`` is that of the learning rate, None in a stage that fits.
    """

    stage: Stage | FitStage
    first: int
    steps: int
    step_images: int
    schedule: Schedule | None

    @property
    def last(self) -> int:
        """The last step of the stage."""
        return self.first + self.steps


@dataclass(frozen=True)
class Plan:
    """A run in steps, counted from 1 through all stages. An epoch has ``images`` images."""

    images: int
    batch_size: int
    stages: tuple[PlannedStage, ...]
    validate_every: int
    checkpoint_every: int

    @property
    def total(self) -> int:
        """Number of steps of all stages."""
        return sum(s.steps for s in self.stages)

    @property
    def batches(self) -> int:
        """Number of gradient steps, which is the number of batches that the run takes of the training data."""
        return sum(s.steps for s in self.stages if s.schedule is not None)

    def batches_after(self, step: int) -> int:
        """Return the number of batches that the run has taken of the training data after ``step``."""
        return sum(min(max(step - s.first, 0), s.steps) for s in self.stages if s.schedule is not None)

    @property
    def has_fit_stage(self) -> bool:
        """True if a stage fits a part of the network."""
        return any(s.schedule is None for s in self.stages)

    @property
    def ends(self) -> tuple[int, ...]:
        """The last step of the run, or of each stage if one of them is a fit."""
        return tuple(s.last for s in self.stages) if self.has_fit_stage else (self.total,)

    def epoch(self, step: int) -> float:
        """Return the epochs finished after ``step``; the passes of fits count too."""
        return sum(min(max(step - s.first, 0), s.steps) * s.step_images for s in self.stages) / self.images

    def stage_of(self, step: int) -> int:
        """Return the index of the stage that takes ``step``; the first step of the run is 1."""
        return next(i for i, s in enumerate(self.stages) if step <= s.first + s.steps)

    def validates(self, step: int) -> bool:
        """Return True if a validation follows ``step``. In a run with a fit it follows the end of every stage."""
        learns = self.stages[self.stage_of(step)].schedule is not None
        return step in self.ends or (learns and step % self.validate_every == 0)

    def saves(self, step: int) -> bool:
        """Return True if a checkpoint follows ``step``, with or without a validation."""
        return step % self.checkpoint_every == 0 or step in self.ends


def make_plan(recipe: TrainingRecipe, images: int, all_images: int | None = None) -> Plan:
    """Plan ``recipe`` on a training set whose epochs have ``images`` images.

    A pass of a fit sees ``all_images``, by default as many as an epoch.
    """
    batch, all_images = recipe.batch_size, images if all_images is None else all_images
    stages, first = [], 0
    for stage in recipe.stages:
        if isinstance(stage, FitStage):
            planned = PlannedStage(stage, first, stage.fit.passes * all_images, 1, None)
        else:
            whole = steps_of(stage.length, stage.unit, images, batch)
            steps = whole if stage.cut is None else min(whole, stage.cut)
            planned = PlannedStage(stage, first, steps, batch, build_schedule(stage, images, batch))
        stages.append(planned)
        first = planned.last
    return Plan(
        images,
        batch,
        tuple(stages),
        validate_every=steps_of(recipe.validation.every, recipe.validation.unit, images, batch),
        checkpoint_every=steps_of(recipe.checkpoint.every, recipe.checkpoint.unit, images, batch),
    )
