"""The recipe that the options of ``boxwright train`` ask for.

Short options stand for settings of the recipe. They come after the TOML file and each ``--set``, so they count.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

from boxwright.app.requests.fields import MoreEpochs
from boxwright.app.requests.training import TrainRequest
from boxwright.config.input_size import with_input_size
from boxwright.config.lengths import stretched
from boxwright.config.overlay import Overlay
from boxwright.config.recipe import Recipe, Stage
from boxwright.recipes import apply_changes, named_recipe
from boxwright.structures import InputError
from boxwright.training.extension import Extension

SMALLEST, LARGEST = 32, 8192
"""Sides of an input in pixels that can be meant."""

SHORT_FOR = {
    "seed": "seed",
    "workers": "data.workers",
    "precision": "precision",
    "metric": "validation.metric",
    "patience": "validation.patience",
}
"""Options that are short for one setting of the recipe."""

SHORT_OPTIONS = ("size", "batch_size", "epochs", "lr", "precision", "metric", "patience", "seed")
"""Options that change the recipe, and so nothing in a resumed run. The number of workers changes no result."""


def requested_recipe(name: str, request: TrainRequest) -> Recipe:
    """Return the named recipe with all requested overrides. The last of several for one setting counts."""
    return change_recipe(*named_recipe(name), request)


def change_recipe(recipe: Recipe, overlays: Sequence[Overlay], request: TrainRequest) -> Recipe:
    """Apply ``overlays``, then what ``request`` changes: ``--config``, each ``--set``, and last the short options.

    With ``--backbone-weights none`` the recipe is first made one that learns from random weights.
    """
    if request.backbone_weights == "none":
        recipe = from_random_weights(recipe)
    short = [
        _overlay(f"--{option} {value}", setting, value)
        for option, setting in SHORT_FOR.items()
        if (value := getattr(request, option)) is not None
    ]
    recipe = apply_changes(recipe, overlays, request.config, request.sets, short)
    if request.size is not None:
        recipe = with_input_size(recipe, parse_size(request.size))
    if request.batch_size is not None:
        kept = any(text.partition("=")[0].strip() == "accumulation" for text in request.sets)
        recipe = with_batch_size(recipe, request.batch_size, keep_accumulation=kept)
    if request.lr is not None:
        recipe = with_lr(recipe, request.lr)
    return recipe if request.epochs is None else with_epochs(recipe, request.epochs)


def from_random_weights(recipe: Recipe) -> Recipe:
    """Return ``recipe`` without what spares pretrained layers of the backbone.

    No stage is frozen, frozen batch norms are batch norms, and the backbone learns as fast as the layers behind it.
    """
    changes: dict[str, Any] = {"backbone_weights": None}
    backbone = getattr(recipe.detector, "backbone", None)
    if backbone is not None:
        settings = {field.name: getattr(backbone, field.name) for field in fields(backbone)}
        trained = {"freeze_at": 0} if "freeze_at" in settings else {}
        trained |= {"norm": "bn"} if settings.get("norm") == "frozen_bn" else {}
        changes["detector"] = replace(recipe.detector, backbone=replace(backbone, **trained))
    changes["stages"] = tuple(_without_spared(stage) if isinstance(stage, Stage) else stage for stage in recipe.stages)
    return replace(recipe, **changes)


def _without_spared(stage: Stage) -> Stage:
    groups = getattr(stage.optimiser, "groups", ())
    kept = tuple(group for group in groups if group.prefix != "backbone" or group.lr >= 1)
    return stage if kept == groups else replace(stage, optimiser=replace(stage.optimiser, groups=kept))


def _overlay(origin: str, setting: str, value: Any) -> Overlay:
    for key in reversed(setting.split(".")):
        value = {key: value}
    return Overlay(origin, value)


def parse_size(text: str) -> int | tuple[int, int]:
    """Read ``--size``: ``320``, or height and width as ``480x640``."""
    match = re.fullmatch(r"(\d{1,9})(?:\s*[xX×]\s*(\d{1,9}))?", text.strip())
    if match is None:
        raise InputError(f"--size {text}: give a side in pixels, such as 320, or height and width, such as 480x640")
    sides = [int(side) for side in match.groups() if side is not None]
    for side in sides:
        if not SMALLEST <= side <= LARGEST:
            raise InputError(f"--size {text}: {side} pixels; give a side from {SMALLEST} to {LARGEST}")
    return sides[0] if len(sides) == 1 else (sides[0], sides[1])


def with_batch_size(recipe: Recipe, batch_size: int, keep_accumulation: bool = False) -> Recipe:
    """Set the images of a step. Micro-batches become fewer if they do not divide it, unless that is excluded."""
    if batch_size < 1:
        raise InputError(f"--batch-size {batch_size}: give at least 1")
    accumulation = recipe.accumulation if keep_accumulation else math.gcd(batch_size, recipe.accumulation)
    try:
        return replace(recipe, data=replace(recipe.data, batch_size=batch_size), accumulation=accumulation)
    except InputError as error:
        raise InputError(f"--batch-size {batch_size}: {error}") from None


def with_lr(recipe: Recipe, lr: float) -> Recipe:
    """Set the learning rate of the one gradient-descent stage to ``lr``, whatever the batch size."""
    check_positive("--lr", lr)
    stage = gradient_stage(recipe, "--lr", "stages.0.optimiser.lr")
    return _with_stage(recipe, stage, replace(stage, optimiser=replace(stage.optimiser, lr=lr, base_batch=None)))


def with_epochs(recipe: Recipe, epochs: float) -> Recipe:
    """Set the length of the one gradient-descent stage to ``epochs``, and scale the milestones of its schedule."""
    check_positive("--epochs", epochs)
    refuse_more_epochs(epochs)
    stage = gradient_stage(recipe, "--epochs", "stages.0.length")
    return _with_stage(recipe, stage, stretched(stage, epochs))


def refuse_more_epochs(epochs: float | None) -> None:
    """Raise InputError for epochs with a plus sign, where no run is extended."""
    if isinstance(epochs, MoreEpochs):
        raise InputError(f"--epochs +{epochs:g}: extends a run; name it with --resume, or give --epochs {epochs:g}")


def check_positive(option: str, value: float) -> None:
    """Raise InputError unless ``value`` of ``option`` is a number above 0."""
    if not 0 < value < math.inf:
        raise InputError(f"{option} {value:g}: give a number above 0")


def requested_extension(request: TrainRequest) -> Extension | None:
    """Return the extension of the resumed run that ``--epochs`` asks for, if it does."""
    if request.resume is None or request.epochs is None:
        return None
    check_positive("--epochs", request.epochs)
    if request.lr is not None:
        check_positive("--lr", request.lr)
    return Extension(float(request.epochs), not isinstance(request.epochs, MoreEpochs), request.lr)


def gradient_stage(recipe: Recipe, option: str, setting: str) -> Stage:
    """Return the one gradient-descent stage. Raises InputError about ``option``, with a ``setting``, for several."""
    steps = [stage for stage in recipe.stages if isinstance(stage, Stage)]
    if len(steps) != 1:
        names = ", ".join(stage.name for stage in recipe.stages)
        raise InputError(f"{option}: {recipe.name} has the stages {names}; use --set {setting}=... for each")
    return steps[0]


def _with_stage(recipe: Recipe, stage: Stage, changed: Stage) -> Recipe:
    return replace(recipe, stages=tuple(changed if other is stage else other for other in recipe.stages))
