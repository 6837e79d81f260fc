"""Extension of a finished run by more epochs.

The epochs that are added are a stage of their own at the end of the recipe: the recipe's optimiser and schedule again,
stretched to their length, from the full learning rate after the recipe's warm-up (a warm restart, Loshchilov and Hutter
2017). The momentum of the optimiser begins anew; weights, EMA, position in the data and the best validation continue.
So the recipe of an extended run says all that was done, and a new run by it gives the same weights. The exception is
``data.multi_scale.last``, which counts from the end of the run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from boxwright.config.lengths import stretched
from boxwright.config.recipe import Recipe, Stage
from boxwright.structures import InputError
from boxwright.training.plan import Plan, make_plan

_NAME = re.compile(r"extension \d+")


@dataclass(frozen=True)
class Extension:
    """Epochs by which a run is extended.

    ``epochs``: how many more, or with ``in_all`` the number that the run has at its end. ``lr``: the learning rate,
    whatever the batch size; None takes the recipe's.
    """

    epochs: float
    in_all: bool = False
    lr: float | None = None

    def __str__(self) -> str:
        return f"--epochs {'' if self.in_all else '+'}{self.epochs:g}"


def extended(recipe: Recipe, state: Mapping[str, Any], extension: Extension) -> Recipe:
    """Return ``recipe`` with a stage for ``extension``, of a run whose training state is ``state``.

    A stage that patience has ended keeps the steps that it took, and the schedule that it had. Raises InputError for a
    recipe whose stages depend on each other, for a run that is not at its end, and for epochs that it has already.
    """
    own = _own_stage(recipe, extension)
    images = state.get("stream", {}).get("epoch_size")
    if not isinstance(images, int) or images < 1:
        raise InputError(
            f"{extension}: the run is of an earlier version, whose state lacks the size of an epoch; start a new run "
            "with its checkpoint as --weights"
        )
    plan, step = make_plan(recipe, images), state["step"]
    patience = recipe.validation.patience
    stopped_early = patience is not None and state.get("validations_since_best", 0) >= patience
    stages = recipe.stages
    if step < plan.total and stopped_early:
        stages = _cut(recipe, plan, step)
    elif step < plan.total:
        _refuse_unfinished(recipe, plan, step, extension)
    more = extension.epochs
    if extension.in_all:
        done = _epochs(stages, plan)
        more -= done
        if more <= 0:
            raise InputError(f"{extension}: the run has {done:g} epochs already; give more, or +N for N more")
    added = replace(stretched(own, more), name=f"extension {len(stages)}", reset=(), cut=None)
    if extension.lr is not None:
        added = replace(added, optimiser=replace(added.optimiser, lr=extension.lr, base_batch=None))
    return replace(recipe, stages=(*stages, added))


def added_stages(recipe: Recipe) -> list[Stage]:
    """Return the stages that extensions have added."""
    return [stage for stage in recipe.stages if isinstance(stage, Stage) and _NAME.fullmatch(stage.name)]


def _own_stage(recipe: Recipe, extension: Extension) -> Stage:
    """Return the one stage that the recipe had before all extensions."""
    added = added_stages(recipe)
    own = [stage for stage in recipe.stages if stage not in added]
    if len(own) != 1 or not isinstance(own[0], Stage):
        names = ", ".join(stage.name for stage in own)
        raise InputError(
            f"{extension}: {recipe.name} has the stages {names}, which depend on each other, so that the run cannot be "
            "extended; start a new run with its checkpoint as --weights"
        )
    return own[0]


def _cut(recipe: Recipe, plan: Plan, step: int) -> tuple[Any, ...]:
    """Return the stages of a run that patience has ended after ``step``."""
    number = plan.stage_of(step)
    stage = recipe.stages[number]
    assert isinstance(stage, Stage)
    return (*recipe.stages[:number], replace(stage, cut=step - plan.stages[number].first))


def _refuse_unfinished(recipe: Recipe, plan: Plan, step: int, extension: Extension) -> None:
    """Raise InputError for a run before its end, unless more epochs can follow those of its recipe."""
    where = f"{extension}: the run has {step} of its {plan.total} steps; finish it with --resume, without --epochs"
    if added_stages(recipe):
        raise InputError(f"{where}: it has been extended already")
    if extension.in_all:
        raise InputError(f"{where}, or give +N for N epochs after those of its recipe")


def _epochs(stages: tuple[Any, ...], plan: Plan) -> float:
    """Return the epochs of ``stages``: their lengths as given, or those of their steps."""
    return sum(
        stage.length
        if stage.unit == "epochs" and stage.cut is None
        else (stage.cut or planned.steps) * planned.step_images / plan.images
        for stage, planned in zip(stages, plan.stages, strict=False)
    )
