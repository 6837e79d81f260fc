"""Stages of another length, with the schedule of the learning rate in proportion."""

from __future__ import annotations

from dataclasses import replace

from boxwright.config.recipe import MultiStepConfig, Stage


def stretched(stage: Stage, epochs: float) -> Stage:
    """Return ``stage`` with a length of ``epochs``; milestones keep their share of it, a cosine ends with it.

    A warm-up keeps its steps, up to a third of the stage.
    """
    schedule = stage.schedule
    if isinstance(schedule, MultiStepConfig):
        schedule = replace(schedule, milestones=tuple(m / stage.length * epochs for m in schedule.milestones))
    return replace(stage, length=epochs, unit="epochs", schedule=schedule)
