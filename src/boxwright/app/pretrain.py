"""Start a pretraining run from the options of ``boxwright pretrain``."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

from boxwright.app.requests.training import PretrainRequest
from boxwright.config.overlay import apply_overlays, parse_set, read_overlay
from boxwright.config.pretrain_recipe import PretrainRecipe
from boxwright.data.classification.folders import open_folders
from boxwright.recipes.pretrain import pretrain_recipe
from boxwright.structures import InputError
from boxwright.training.logging.run_folder import new_run_folder
from boxwright.training.pretrain import PretrainResult, pretrain


def start_pretraining(name: str | None, request: PretrainRequest) -> PretrainResult:
    """Resolve the recipe, open the images and train.

    ``name``: of a backbone or of a detector's recipe; None to continue a run with its stored recipe. Raises InputError
    for options that contradict each other and for everything that does not fit the recipe or the data.
    """
    if request.resume is not None and request.output is not None:
        raise InputError("--resume names the run's own folder; leave --output out")
    if name is None and request.resume is None:
        raise InputError("name a backbone; `boxwright models --kind backbone` lists them")
    changed = [
        option
        for option, given in (
            ("--preset", request.preset is not None),
            ("--set", bool(request.sets)),
            ("--config", request.config is not None),
            ("--epochs", request.epochs is not None),
            ("--seed", request.seed is not None),
        )
        if given
    ]
    if request.resume is not None and name is None and changed:
        raise InputError(f"{', '.join(changed)} with --resume would change nothing: the run keeps its recipe")
    recipe = None if name is None else requested_recipe(name, request)
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
        resume_command=resume_command(request, output),
        workers=request.workers if name is None else None,
    )


def resume_command(request: PretrainRequest, output: Path) -> str:
    """Return the command line that continues the run."""
    parts = ["boxwright", "pretrain", "--data", str(request.data), "--resume", str(output)]
    if request.device != "auto":
        parts += ["--device", request.device]
    return shlex.join(parts)


def requested_recipe(name: str, request: PretrainRequest) -> PretrainRecipe:
    """Return the preset with all requested overrides. The last of several for one setting counts."""
    overlays = [read_overlay(request.config)] if request.config is not None else []
    overlays += [parse_set(text) for text in request.sets]
    recipe = apply_overlays(pretrain_recipe(name, request.preset or "imagenet"), overlays)
    short = {"epochs": request.epochs, "seed": request.seed, "workers": request.workers}
    given = {name: value for name, value in short.items() if value is not None}
    if given.get("epochs", 1) <= 0:
        raise InputError(f"--epochs {given['epochs']:g}: give more than 0")
    return replace(recipe, **given) if given else recipe


def result_dict(result: PretrainResult) -> dict[str, Any]:
    """Return the result as plain values for JSON."""
    return {
        "folder": str(result.folder),
        "checkpoint": str(result.checkpoint),
        "steps": result.steps,
        "top1": result.top1,
        "top5": result.top5,
    }
