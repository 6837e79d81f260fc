"""Start a training run from the options of ``boxwright train``."""

from __future__ import annotations

import json
import os
import shlex
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from boxwright.app.choice.holdout import FILE as DIVISION
from boxwright.app.choice.holdout import HeldBack, divide, hold_back, stored_division
from boxwright.app.choice.request import choose_for, given_options, limits
from boxwright.app.choice.words import CHOICE, choice_dict, choice_report
from boxwright.app.requests.fields import MoreEpochs
from boxwright.app.requests.training import TrainRequest
from boxwright.app.splits import choose_split
from boxwright.app.training.preview import Preview, preview
from boxwright.app.training.request_recipe import (
    SHORT_OPTIONS,
    refuse_more_epochs,
    requested_extension,
    requested_recipe,
)
from boxwright.config.recipe import Recipe
from boxwright.data.formats.entries.image_uses import identity
from boxwright.data.formats.opening import Source, find_source, read_source, same_classes
from boxwright.data.formats.problems import DatasetWarning, ProblemLog
from boxwright.data.formats.splits import is_held_back
from boxwright.data.index import DetectionIndex
from boxwright.structures import InputError
from boxwright.training.logging.run_folder import new_run_folder
from boxwright.training.loop import TrainResult, train

R = TypeVar("R")


def start_training(
    name: str | None, request: TrainRequest, tell: Callable[[str], None] = lambda line: None
) -> TrainResult:
    """Resolve or choose the recipe, open the data and train.

    ``name``: of a recipe, or a TOML file; None to continue a run with its stored recipe, or in a new run to choose one.
    ``tell`` gets the lines about the choice. Raises InputError for options that contradict each other and for
    everything that does not fit the recipe or the data.
    """
    return _call(train, name, request, tell)


def preview_training(
    name: str | None, request: TrainRequest, tell: Callable[[str], None] = lambda line: None
) -> Preview:
    """Resolve the recipe and open the data as :func:`start_training`, and say what it would do. Nothing is written."""
    return _call(preview, name, request, tell)


def _call(run: Callable[..., R], name: str | None, request: TrainRequest, tell: Callable[[str], None]) -> R:
    """Call ``run``, which takes the arguments of :func:`~boxwright.training.loop.train`, with what is requested."""
    if request.resume is not None and request.output is not None:
        raise InputError("--resume names the run's own folder; leave --output out")
    if name is not None and (given := limits(request)):
        raise InputError(
            f"{', '.join(given[::2])}: for the choice of a recipe; leave out {name}, or give --epochs and --size"
        )
    if request.resume is None:
        refuse_more_epochs(request.epochs)
    else:
        check_resume(name, request)
    recipe = None if name is None else requested_recipe(name, request)
    train_index, val_index, held = validated_splits(request, recipe)
    if val_index is None:
        refuse_unvalidated(request)
    records = {} if held is None or held.record is None else {DIVISION: held.record}
    if name is None and request.resume is None:
        choice, task = choose_for(request, train_index, val_index)
        recipe = choice.recipe
        for line in choice_report(choice, task):
            tell(line)
        records[CHOICE] = json.dumps(choice_dict(choice, task), indent=1) + "\n"
    output = request.resume or request.output or new_run_folder("runs", recipe.name if recipe else "run")
    return run(
        recipe,
        train_index,
        val_index,
        output,
        device=request.device,
        resume=request.resume is not None,
        weights=request.weights,
        backbone_weights=request.backbone_weights,
        carry_classes=request.carry_classes,
        tensorboard=request.tensorboard,
        resume_command=resume_command(request, output),
        workers=request.workers if name is None else None,
        records=records,
        notes=[] if held is None else [held.note],
        extension=requested_extension(request) if name is None else None,
    )


def validated_splits(
    request: TrainRequest, recipe: Recipe | None
) -> tuple[DetectionIndex, DetectionIndex | None, HeldBack | None]:
    """Open the training and the validation split as `training_splits`, and hold images back where there is no second.

    A resumed run takes those that it has held back before, if it has. Files of proposals are made for whole splits, so
    a recipe that takes them is not validated without a split. The third is how images were held back.
    """
    if not request.val and request.val_split is not None:
        raise InputError("--no-val validates nothing, and --val-split names a split for it; leave one of them out")
    division = None if request.resume is None else stored_division(request.resume)
    train_index, val_index = training_splits(
        request.data, request.train_split, request.val_split, not request.voc_zero_based
    )
    if not request.val:
        return train_index, None, None
    if division is not None and request.resume is not None:
        held = divide(train_index, division, request.resume)
    elif val_index is None and request.resume is None and (recipe is None or recipe.data.proposals is None):
        held = hold_back(train_index)
    else:
        return train_index, val_index, None
    return held.train, held.val, held


def refuse_unvalidated(request: TrainRequest) -> None:
    """Raise InputError for options that decide by validations, of a run that has none."""
    given = [f"--{name} {value}" for name in ("metric", "patience") if (value := getattr(request, name)) is not None]
    if given:
        remedy = "leave out --no-val" if not request.val else "name a split with --val-split"
        raise InputError(f"{', '.join(given)}: nothing is validated in this run; leave it out, or {remedy}")


def check_resume(name: str | None, request: TrainRequest) -> None:
    """Raise InputError for options that have no effect on a resumed run, which has its recipe and weights already.

    If the recipe is named, its overrides may be repeated. They are then compared with those of the run. If it is not,
    ``--epochs`` extends the run, with ``--lr`` as learning rate.
    """
    if name is not None and isinstance(request.epochs, MoreEpochs):
        raise InputError(f"--epochs +{request.epochs:g} extends the run by its own recipe; leave {name} out")
    extends = () if request.epochs is None else ("epochs", "lr")
    changes = (
        ("--set", bool(request.sets)),
        ("--config", request.config is not None),
        ("--effort, --budget, --latency", bool(limits(request))),
        *((f"--{o.replace('_', '-')}", getattr(request, o) is not None) for o in SHORT_OPTIONS if o not in extends),
    )
    given = [option for option, present in changes if present and name is None]
    given += ["--weights"] if request.weights is not None else []
    given += ["--backbone-weights"] if request.backbone_weights is not None else []
    if given:
        raise InputError(
            f"{', '.join(given)} with --resume would change nothing: the run keeps its recipe and weights; leave it "
            "out, or start a new run with the old checkpoint as --weights"
        )


def training_splits(
    data: Path, train_split: str | None = None, val_split: str | None = None, voc_one_based: bool = True
) -> tuple[DetectionIndex, DetectionIndex | None]:
    """Open the training and the validation split: those named, else ``train`` (or the only one) and ``val``.

    Without ``val``, ``test`` is used for validation. Without either the second is None. A split called val or test is
    trained on only if it is named. Other splits are not read. Warns of images that are in both. Raises InputError for a
    split that is not there, and for images that are missing.
    """
    log = ProblemLog()
    source = find_source(data, log)
    train_name = choose_split(data, source.splits, train_split, ("train",), "--train-split", source.absent)
    val_name = _validation_split(data, source, train_name, val_split)
    names = [train_name] if val_name in (None, train_name) else [train_name, val_name]
    splits = read_source(source, names, log, voc_one_based)
    same_classes(data, splits)
    for index in splits.values():
        refuse_missing_images(index)
    log.announce()
    if val_name is None:
        return splits[train_name], None
    _warn_of_shared_images(data, splits[train_name], splits[val_name])
    return splits[train_name], splits[val_name]


def _validation_split(data: Path, source: Source, train_name: str, named: str | None) -> str | None:
    """Return the name of the split for validation, or None if the data set has none."""
    if named is not None:
        return choose_split(data, source.splits, named, (), "--val-split", source.absent)
    others = [name for name in source.splits if name != train_name]
    for name in ("val", "test"):
        if name in others:
            return name
        if name == "val" and name in source.absent:
            raise InputError(source.absent[name])
    held_back = [name for name in others if is_held_back(name)]
    if held_back:
        names = ", ".join(held_back)
        message = f"{data}: has no split `val`; {names} is not read; validate on it with --val-split {held_back[0]}"
        warnings.warn(message, DatasetWarning, stacklevel=2)
    return None


def refuse_missing_images(index: DetectionIndex) -> None:
    """Raise InputError that counts the images of a split that do not exist, before training comes to the first."""
    missing = [path for path in map(index.path, range(len(index))) if not os.path.exists(path)]
    if missing:
        more = f", nor do {len(missing) - 1} more images of the split {index.name}" if len(missing) > 1 else ""
        raise InputError(
            f"{missing[0]}: the image does not exist{more}; restore it, or remove it from the annotations; "
            "`boxwright data check` lists all"
        )


def _warn_of_shared_images(data: Path, train_index: DetectionIndex, val_index: DetectionIndex) -> None:
    """Warn of images that are in both splits, which makes the metrics meaningless."""
    files = {identity(train_index.path(i)) for i in range(len(train_index))}
    shared = sum(identity(val_index.path(i)) in files for i in range(len(val_index)))
    if shared:
        message = (
            f"{data}: {shared} of the {len(val_index)} images of {val_index.name} are in {train_index.name} too, which "
            "makes validation meaningless; name another split with --val-split"
        )
        warnings.warn(message, DatasetWarning, stacklevel=2)


def resume_command(request: TrainRequest, output: Path) -> str:
    """Return the command line that continues the run."""
    parts = ["boxwright", "train", "--data", str(request.data), "--resume", str(output), *given_options(request)]
    return shlex.join(parts)


def next_commands(result: TrainResult, data: Path) -> list[tuple[str, str]]:
    """Return commands that use the new checkpoint, as (purpose, command line)."""
    checkpoint = str(result.checkpoint)
    evaluate = ["boxwright", "evaluate", checkpoint, "--data", str(data)]
    return [
        ("evaluate it", shlex.join(evaluate)),
        ("detect objects with it", shlex.join(["boxwright", "detect", checkpoint]) + " IMAGES... --output detections"),
    ]


def result_dict(result: TrainResult, data: Path) -> dict[str, Any]:
    """Return the result as plain values for JSON."""
    evaluate, detect = (command for _, command in next_commands(result, data))
    return {
        "folder": str(result.folder),
        "checkpoint": str(result.checkpoint),
        "steps": result.steps,
        "stopped_early": result.stopped_early,
        "metrics": result.metrics,
        "best": result.best,
        "next": {"evaluate it": evaluate, "look at images with it": detect},  # keys that scripts may read
    }
