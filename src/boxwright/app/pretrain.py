"""From what a person typed after ``boxwright pretrain`` to a run."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from boxwright.config.overlay import apply_overlays, parse_set, read_overlay
from boxwright.config.pretrain_recipe import PretrainRecipe
from boxwright.data.classification.folders import open_folders
from boxwright.recipes.pretrain import Preset, pretrain_recipe
from boxwright.structures import InputError
from boxwright.training.logging.progress import Log
from boxwright.training.logging.run_folder import new_run_folder
from boxwright.training.pretrain import PretrainResult, pretrain


@dataclass(frozen=True, kw_only=True)
class PretrainRequest:
    """A run as it was asked for; ``backbone`` may be None when one is resumed. ``preset`` None: ``imagenet``."""

    backbone: str | None
    data: Path
    preset: Preset | None = None
    output: Path | None = None
    resume: Path | None = None
    sets: Sequence[str] = ()
    config: Path | None = None
    epochs: float | None = None
    seed: int | None = None
    workers: int | None = None
    device: str = "auto"
    licence: str = ""
    log: Log = "auto"


def start_pretraining(request: PretrainRequest) -> PretrainResult:
    """Resolve the recipe, open the pictures, train. Raises ``InputError`` for all that does not fit."""
    if request.resume is not None and request.output is not None:
        raise InputError("--resume names the run's own folder; leave --output out")
    if request.backbone is None and request.resume is None:
        raise InputError("name a backbone; `boxwright models --kind backbone` lists them")
    changed = [
        option
        for option, given in (
            ("--preset", request.preset is not None),
            ("--set", bool(request.sets)),
            ("--config", request.config is not None),
            ("--epochs", request.epochs is not None),
            ("--seed", request.seed is not None),
            ("--workers", request.workers is not None),
        )
        if given
    ]
    if request.resume is not None and request.backbone is None and changed:
        raise InputError(f"{', '.join(changed)} with --resume would change nothing: the run keeps its recipe")
    recipe = None if request.backbone is None else requested_recipe(request)
    splits = open_folders(request.data)
    val = splits.get("val", splits.get("test"))
    output = request.resume or request.output or new_run_folder("runs", recipe.name if recipe else "pretrain")
    return pretrain(
        recipe,
        splits["train"],
        val,
        output,
        device=request.device,
        resume=request.resume is not None,
        licence=request.licence,
        log=request.log,
        resume_command=resume_command(request, output),
    )


def resume_command(request: PretrainRequest, output: Path) -> str:
    """The command line that goes on with the run."""
    parts = ["boxwright", "pretrain", "--data", str(request.data), "--resume", str(output)]
    if request.device != "auto":
        parts += ["--device", request.device]
    return shlex.join(parts)


def requested_recipe(request: PretrainRequest) -> PretrainRecipe:
    """The preset with every change that was asked for; the last of several changes to one value counts."""
    assert request.backbone is not None
    overlays = [read_overlay(request.config)] if request.config is not None else []
    overlays += [parse_set(text) for text in request.sets]
    recipe = apply_overlays(pretrain_recipe(request.backbone, request.preset or "imagenet"), overlays)
    short = {"epochs": request.epochs, "seed": request.seed, "workers": request.workers}
    given = {name: value for name, value in short.items() if value is not None}
    if given.get("epochs", 1) <= 0:
        raise InputError(f"--epochs {given['epochs']:g}: give more than 0")
    return replace(recipe, **given) if given else recipe


def result_dict(result: PretrainResult) -> dict[str, Any]:
    """The outcome, ready for JSON."""
    return {
        "folder": str(result.folder),
        "checkpoint": str(result.checkpoint),
        "steps": result.steps,
        "top1": result.top1,
        "top5": result.top5,
    }
