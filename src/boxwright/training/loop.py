"""Training of a detector."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from boxwright.checkpoints.checkpoint import SUFFIX, TRAIN_SUFFIX, check_classes
from boxwright.config.reading import load_recipe
from boxwright.config.recipe import Recipe
from boxwright.data.index import DetectionIndex
from boxwright.data.proposals.files import proposals_of_split
from boxwright.detectors.build import build_detector
from boxwright.structures import InputError
from boxwright.training.distributed import Processes
from boxwright.training.extension import Extension, added_stages, extended
from boxwright.training.logging.progress import Log
from boxwright.training.run import agreed_recipe, run_task
from boxwright.training.tasks.detection import Build, DetectionTask, Start


@dataclass(frozen=True)
class TrainResult:
    """Result of a run. ``metrics``: COCO metrics of the last validation; ``best``: of the best one, with its step.

    ``best_checkpoint`` is None in a run without validation set.
    """

    folder: Path
    steps: int
    stopped_early: bool
    metrics: dict[str, Any] | None
    best: dict[str, Any] | None
    best_checkpoint: Path | None
    last_checkpoint: Path

    @property
    def checkpoint(self) -> Path:
        """The checkpoint to use: the best, or else the last."""
        return self.best_checkpoint or self.last_checkpoint


def train(
    recipe: Recipe | None,
    train_index: DetectionIndex,
    val_index: DetectionIndex | None,
    output: Path | str,
    *,
    device: str = "auto",
    resume: bool = False,
    weights: Start | None = None,
    backbone_weights: Path | str | None = None,
    carry_classes: bool = True,
    tensorboard: bool = False,
    log: Log = "auto",
    resume_command: str | None = None,
    build: Build = build_detector,
    workers: int | None = None,
    records: Mapping[str, str] | None = None,
    notes: Sequence[str] = (),
    extension: Extension | None = None,
) -> TrainResult:
    """Train a detector by ``recipe`` on ``train_index`` into the folder ``output``, validated on ``val_index``.

    ``output`` must be empty or absent, or hold the run to ``resume``, whose recipe is used (``recipe`` may be None).
    ``weights``: a checkpoint, run folder, state dict or import to start from. Tensors are copied by name and shape.
    With ``carry_classes``, rows of classes are copied by class name if the lists of classes differ.
    ``backbone_weights``: an ImageNet network of any publisher that fits the recipe's backbone, see
    :func:`~boxwright.checkpoints.backbone_files.load_pretrained`; None takes the recipe's unless ``weights`` are given,
    and "none" starts from random weights. ``log``: "auto" (a bar on a terminal, else lines),
    "bar", "lines", "quiet", or a function that takes lines. ``resume_command``: the command that is printed and noted
    for resuming. ``workers``: their number in place of the recipe's; no result depends on it. ``records``: texts to
    write into the folder of a new run, by file name. ``notes``: lines to show before the first step. ``extension``:
    epochs to add to the run to ``resume``, see :mod:`~boxwright.training.extension`. Under ``torchrun`` every process
    calls this function.

    Raises InputError for bad input, NonFiniteLossError, and TrainingInterrupted (a KeyboardInterrupt) after Ctrl-C or
    SIGTERM, with a checkpoint to resume from.
    """
    output = Path(output)
    open_task = opener(
        recipe,
        train_index,
        val_index,
        output,
        build=build,
        resume=resume,
        weights=weights,
        backbone_weights=backbone_weights,
        carry_classes=carry_classes,
        workers=workers,
        notes=notes,
        extension=extension,
    )
    own = ["boxwright", "train", "--data", str(train_index.root), "--resume", str(output)]
    command = resume_command or shlex.join(own)
    session, stopped_early = run_task(
        open_task,
        output,
        device=device,
        resume=resume,
        command=command,
        log=log,
        tensorboard=tensorboard,
        records=records,
        extended=extension is not None,
    )
    return TrainResult(
        folder=output,
        steps=session.step,
        stopped_early=stopped_early,
        metrics=session.last_validation,
        best=session.best,
        best_checkpoint=output / f"best{SUFFIX}" if session.best is not None else None,
        last_checkpoint=output / f"last{SUFFIX}",
    )


def opener(
    recipe: Recipe | None,
    train_index: DetectionIndex,
    val_index: DetectionIndex | None,
    output: Path,
    *,
    resume: bool,
    build: Build,
    weights: Start | None = None,
    backbone_weights: Path | str | None = None,
    carry_classes: bool = True,
    workers: int | None = None,
    notes: Sequence[str] = (),
    extension: Extension | None = None,
) -> Callable[[Processes, dict[str, Any] | None], DetectionTask]:
    """Return a function that opens the task of :func:`train`, of a new run or of one with a training state."""
    if extension is not None and not resume:
        raise InputError("an extension adds epochs to a run; resume it")

    def open_task(processes: Processes, state: dict[str, Any] | None) -> DetectionTask:
        stored = None if state is None else _stored_recipe(state, output)
        agreed = agreed_recipe(recipe, stored, output, "a recipe")
        lines = [*notes]
        if extension is not None and state is not None:
            agreed = extended(agreed, state, extension)
            lines += [f"extended by {s.length:g} epochs, the stage {s.name!r}" for s in added_stages(agreed)[-1:]]
        if workers is not None:
            agreed = replace(agreed, data=replace(agreed.data, workers=workers))
        check_data(train_index, val_index)
        if agreed.data.proposals is not None and val_index is not None:
            proposals_of_split(agreed.data.proposals, "val", val_index)  # fail now, not after an epoch
        start = (None, None) if resume else (weights, backbone_weights)
        task = DetectionTask(agreed, train_index, val_index, processes, build, *start, carry_classes)
        task.notes += lines
        return task

    return open_task


def check_data(train_index: DetectionIndex, val_index: DetectionIndex | None) -> None:
    """Raise InputError for data that cannot be trained on: no images, no boxes, or splits whose classes differ."""
    for index, what in ((train_index, "training"), (val_index, "validation")):
        if index is not None and len(index) == 0:
            raise InputError(f"{index.root}: the {what} set has no image; check the path and the split")
    if train_index.num_boxes == 0:
        raise InputError(
            f"{train_index.root}: the training set has {len(train_index)} images and no box; annotate some"
        )
    if val_index is not None:
        names = f"the validation set {val_index.root}", f"the training set {train_index.root}"
        check_classes(val_index.classes, train_index.classes, *names, "the training set")


def _stored_recipe(state: dict[str, Any], folder: Path) -> Recipe:
    if "recipe" not in state:
        raise InputError(f"{folder}: the run of a classifier; resume it with boxwright pretrain")
    return load_recipe(state["recipe"], f"{folder / f'last{TRAIN_SUFFIX}'}")
