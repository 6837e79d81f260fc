"""What a recipe comes to on a given training set: how many steps, which stage when, what happens after which step."""

from __future__ import annotations

from dataclasses import dataclass

from boxwright.config.recipe import FitStage, Recipe, Stage, steps_of
from boxwright.training.schedule import Schedule, build_schedule


@dataclass(frozen=True)
class PlannedStage:
    """A stage covers the steps ``first + 1 ... first + steps`` of the run, each of ``step_images``.

    ``schedule``: of the learning rate; None in a stage that fits.
    """

    stage: Stage | FitStage
    first: int
    steps: int
    step_images: int
    schedule: Schedule | None

    @property
    def last(self) -> int:
        """Its last step."""
        return self.first + self.steps


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

    @property
    def batches(self) -> int:
        """Steps that learn by gradients: batches that the run takes of the training data."""
        return sum(s.steps for s in self.stages if s.schedule is not None)

    @property
    def fits(self) -> bool:
        """Whether a stage fits something."""
        return any(s.schedule is None for s in self.stages)

    @property
    def ends(self) -> tuple[int, ...]:
        """The last step of the run, or of each of its stages where one fits something."""
        return tuple(s.last for s in self.stages) if self.fits else (self.total,)

    def epoch(self, step: int) -> float:
        """Epochs finished after ``step``, passes of fits among them."""
        return sum(min(max(step - s.first, 0), s.steps) * s.step_images for s in self.stages) / self.images

    def stage_of(self, step: int) -> int:
        """The index of the stage that takes ``step`` (1 is the run's first)."""
        return next(i for i, s in enumerate(self.stages) if step <= s.first + s.steps)

    def validates(self, step: int) -> bool:
        """Whether a validation follows ``step``. A fit shows at its end only; where there is one, so do all stages."""
        learns = self.stages[self.stage_of(step)].schedule is not None
        return step in self.ends or (learns and step % self.validate_every == 0)

    def saves(self, step: int) -> bool:
        """Whether a checkpoint follows ``step`` even without a validation."""
        return step % self.checkpoint_every == 0 or step in self.ends


def make_plan(recipe: Recipe, images: int, all_images: int | None = None) -> Plan:
    """The plan of ``recipe`` on a training set whose epochs have ``images``; fits see ``all_images`` once a pass,
    which are as many where None."""
    batch, all_images = recipe.data.batch_size, images if all_images is None else all_images
    stages, first = [], 0
    for stage in recipe.stages:
        if isinstance(stage, FitStage):
            planned = PlannedStage(stage, first, stage.fit.passes * all_images, 1, None)
        else:
            steps = steps_of(stage.length, stage.unit, images, batch)
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
