"""Pretraining of a backbone as an image classifier."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from boxwright.config.pretrain_recipe import PretrainRecipe
from boxwright.data.classification.folders import ClassFolders
from boxwright.training.distributed import Processes
from boxwright.training.logging.progress import Log
from boxwright.training.run import agreed_recipe, run_task
from boxwright.training.tasks.classification import BACKBONE, ClassificationTask, stored_recipe


@dataclass(frozen=True)
class PretrainResult:
    """Result of a run. ``top1`` and ``top5``: accuracies in 0..1 on the validation images, None without any."""

    folder: Path
    checkpoint: Path
    steps: int
    top1: float | None
    top5: float | None


def pretrain(
    recipe: PretrainRecipe | None,
    train: ClassFolders,
    val: ClassFolders | None,
    output: Path | str,
    *,
    device: str = "auto",
    resume: bool = False,
    licence: str = "",
    log: Log = "auto",
    resume_command: str | None = None,
    workers: int | None = None,
) -> PretrainResult:
    """Train the recipe's backbone as a classifier of ``train`` into the folder ``output``.

    ``output`` must be empty or absent, or hold the run to ``resume``, whose recipe is used (``recipe`` may be None).
    ``licence``: of the images, for the card; a resumed run keeps its own if none is given. ``resume_command``: the
    command that is printed for resuming. ``workers``: their number in place of the recipe's. Writes
    ``backbone.safetensors``, which ``boxwright train --backbone-weights`` takes, after each validation that is better
    than all before, or with each checkpoint if there is no ``val``.

    Raises InputError, NonFiniteLossError, and TrainingInterrupted (a KeyboardInterrupt) after Ctrl-C or SIGTERM, with
    a checkpoint to resume from.
    """
    output = Path(output)

    def open_task(processes: Processes, state: dict[str, Any] | None) -> ClassificationTask:
        stored = None if state is None else stored_recipe(state, output)
        agreed = agreed_recipe(recipe, stored, output, "a backbone")
        if workers is not None:
            agreed = replace(agreed, workers=workers)
        return ClassificationTask(agreed, train, val, processes, output, licence)

    own = ["boxwright", "pretrain", "--data", str(train.data), "--resume", str(output)]
    command = resume_command or shlex.join(own)
    session, _ = run_task(open_task, output, device=device, resume=resume, command=command, log=log)
    best = session.best or {"top1": None, "top5": None}
    return PretrainResult(output, output / BACKBONE, session.step, best["top1"], best["top5"])
