"""The choice that the options of ``boxwright train`` and ``boxwright recommend`` ask for."""

from __future__ import annotations

import os
from dataclasses import replace

import torch

from boxwright.app.choice.candidate import Choice, Task, Wishes
from boxwright.app.choice.choose import choose
from boxwright.app.choice.costs import Measured, measure
from boxwright.app.choice.facts import data_facts, machine_facts
from boxwright.app.choice.table import DETECTORS
from boxwright.app.requests.training import TrainRequest
from boxwright.app.training.request_recipe import change_recipe, parse_size
from boxwright.config.recipe import Recipe
from boxwright.data.index import DetectionIndex
from boxwright.io.durations import parse_duration
from boxwright.structures import InputError
from boxwright.training.distributed import choose_device
from boxwright.training.loop import check_data
from boxwright.weights.published.packages import PACKAGED, locate_packaged


def choose_for(
    request: TrainRequest, train_index: DetectionIndex, val_index: DetectionIndex | None, most: int = 1
) -> tuple[Choice, Task]:
    """Choose recipes for the data and the machine of ``request``; with ``most`` above 1 their times are measured.

    Raises InputError for data that cannot be trained on, and for limits that no candidate keeps.
    """
    wishes = wishes_of(request)
    check_data(train_index, val_index)
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes > 1 and (wishes.budget or wishes.latency):
        raise InputError(
            "--budget and --latency measure the speed of one process; with torchrun give --epochs and --size instead"
        )
    device = choose_device(request.device, int(os.environ.get("LOCAL_RANK", "0")))
    task = Task(
        index=train_index,
        val_images=0 if val_index is None else len(val_index),
        data=data_facts(train_index),
        machine=machine_facts(device, shared=processes > 1),
    )
    if wishes.start is None:
        check_start(DETECTORS[0].base)
    timer = _Timer(task, device)
    choice = choose(task, wishes, timer, most)
    if most > 1:
        timed = [replace(candidate, measured=timer(candidate.recipe)) for candidate in choice.candidates]
        choice = replace(choice, candidates=tuple(timed))
    return choice, task


class _Timer:
    """Measures each recipe once: runs of different lengths have steps of one speed."""

    def __init__(self, task: Task, device: torch.device) -> None:
        self.task, self.device = task, device
        self.known: list[tuple[Recipe, Measured]] = []

    def __call__(self, recipe: Recipe) -> Measured:
        """Return the times of ``recipe``."""
        for other, times in self.known:
            if (other.detector, other.data, other.precision) == (recipe.detector, recipe.data, recipe.precision):
                return times
        times = measure(recipe, self.task.index, self.device, self.task.machine.cores)
        self.known.append((recipe, times))
        return times


def wishes_of(request: TrainRequest) -> Wishes:
    """Read the options that limit the choice. Raises InputError for a time that is none."""
    size = None if request.size is None else parse_size(request.size)
    start = None
    if request.weights is not None:
        start = f"--weights {request.weights}"
    elif request.backbone_weights is not None:
        start = f"--backbone-weights {request.backbone_weights}"
    return Wishes(
        effort=request.effort or "standard",
        effort_given=request.effort is not None,
        budget=None if request.budget is None else parse_duration(request.budget, "--budget", "15m or 2h"),
        latency=None if request.latency is None else parse_duration(request.latency, "--latency", "50ms"),
        size=size,
        batch_size=request.batch_size,
        epochs=request.epochs,
        start=start,
        untrained=request.weights is None and request.backbone_weights == "none",
        changed=lambda recipe: change_recipe(recipe, (), request),
        given=" ".join(_settings(request)),
    )


def _settings(request: TrainRequest) -> list[str]:
    """Return the options of ``request`` that change settings of which the choice says nothing."""
    words = [] if request.config is None else ["--config", str(request.config)]
    words += [word for text in request.sets for word in ("--set", text)]
    for option in ("lr", "precision", "metric", "patience"):
        value = getattr(request, option)
        words += [] if value is None else [f"--{option}", str(value)]
    return words


def check_start(recipe: Recipe) -> None:
    """Raise InputError if the weights that ``recipe`` starts from are not installed, or are damaged."""
    if recipe.backbone_weights in PACKAGED:
        try:
            locate_packaged(recipe.backbone_weights)
        except InputError as error:
            raise InputError(f"{error}; or start from random weights with --backbone-weights none") from None


def given_options(request: TrainRequest) -> list[str]:
    """Return the options of ``request`` that say which data are trained on, and where."""
    words: list[str] = []
    for option, value in (("--train-split", request.train_split), ("--val-split", request.val_split)):
        words += [] if value is None else [option, value]
    words += [] if request.val else ["--no-val"]
    words += ["--voc-zero-based"] if request.voc_zero_based else []
    return words if request.device == "auto" else [*words, "--device", request.device]


def limits(request: TrainRequest) -> list[str]:
    """Return the options of ``request`` that limit the choice."""
    pairs = (("--effort", request.effort), ("--budget", request.budget), ("--latency", request.latency))
    return [word for option, value in pairs if value is not None for word in (option, value)]
