"""State of a run: everything that a step changes, that a checkpoint holds and that a resumed run restores."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import torch
from torch import Tensor, nn

from boxwright.checkpoints.checkpoint import SUFFIX, TRAIN_SUFFIX, save_train_state
from boxwright.config.recipe import FitStage
from boxwright.training.logging.monitor import check_weights
from boxwright.training.logging.run_folder import prune_steps
from boxwright.training.optimisation.ema import EMA
from boxwright.training.plan import make_plan
from boxwright.training.random_state import random_state, restore_random_state, seed_everything
from boxwright.training.stages.gradient import GradientStage
from boxwright.training.stages.runner import StageRunner
from boxwright.training.state_checks import (
    check_count,
    check_monitor,
    check_random,
    check_row,
    check_tensors,
    entry,
    fault,
)
from boxwright.training.tasks.task import Moment, Row, Task

B = TypeVar("B")


class Session(Generic[B]):
    """Training state of a task: network, optimiser, EMA weights, random states and data position, advanced by steps.

    ``step`` counts finished steps, ``validated`` is the last step that was validated. ``best`` and ``last_validation``
    are rows of validations. ``runner`` takes the steps of the current stage.
    """

    def __init__(self, task: Task[B], state: dict[str, Any] | None) -> None:
        """Start a new run, or continue from the training state ``state``."""
        self.task, self.recipe, self.processes = task, task.recipe, task.processes
        self.step = self.validated = self.validations_since_best = 0
        self.best: Row | None = None
        self.last_validation: Row | None = None
        self.loaded_monitor: dict[str, Any] | None = None
        self.notes: list[str] = []
        self.saved: int | None = None  # the step of the last checkpoint
        self.full_lr: dict[int, float | None] = {}
        seed_everything(self.recipe.seed)
        self.stream = task.open_stream()
        self.plan = make_plan(self.recipe, self.stream.epoch_size, task.images)
        self.stream.ends_after(self.plan.batches)
        self._note_short_warmups()
        self.model = task.build(resumed=state is not None)
        self.learnable = {name for name, p in self.model.named_parameters() if p.requires_grad}
        self.ema = EMA(self.model, self.recipe.ema) if self.recipe.ema is not None else None
        self.scaler = torch.amp.GradScaler(self.processes.device.type, enabled=self.recipe.precision == "fp16")
        if self.recipe.compile:
            self.model.compile(fullgraph=True)
        # Ranks draw different random numbers from here on; the first rank draws those of a lone process.
        if self.processes.world > 1:
            seed_everything(self.recipe.seed + self.processes.rank)
        if state is not None:
            self._restore(state)
        # A run that is resumed at the end of a stage is still in that stage. The next stage begins with its first step,
        # because it may change weights that a validation still has to see.
        self._enter_stage(max(self.step, 1))
        if state is not None:
            if state.get("stage", self.stage) != self.stage:
                raise fault("stage", f"{state['stage']} after step {self.step}, which is of stage {self.stage}")
            if state.get("stage", 0) == self.stage:
                with entry("the stage"):
                    self.runner.load_state_dict(state)

    @property
    def eval_model(self) -> nn.Module:
        """The network to evaluate and to save: the EMA of the weights if the run keeps one, else the network itself."""
        return cast(nn.Module, self.ema.module) if self.ema is not None else self.model

    @property
    def at_stage_start(self) -> bool:
        """True if a stage other than the first has been entered but has no finished step yet."""
        return self.stage > 0 and self.plan.stage_of(max(self.step, 1)) != self.stage

    @property
    def owes_validation(self) -> bool:
        """True if the last step is to be validated and was not yet; a stop in that step puts its validation off."""
        return self.task.validated and self.step > self.validated and self.plan.validates(self.step)

    def take_step(self) -> tuple[Tensor, list[int]]:
        """Take the next step; see `StageRunner.take_step`."""
        if self.plan.stage_of(self.step + 1) != self.stage:
            self._enter_stage(self.step + 1)
        values, positions = self.runner.take_step(self.step)
        self.step += 1
        return values, positions

    def lr_of(self, step: int) -> float | None:
        """Return the learning rate of ``step``, of the parameter group with the highest; None in a fit."""
        stage = self.plan.stage_of(step)
        planned, full = self.plan.stages[stage], self.full_lr[stage]
        return None if planned.schedule is None or full is None else full * planned.schedule(step - 1 - planned.first)

    def validate(self) -> tuple[Row, bool, Any]:
        """Validate the weights after the last step. Returns the row, whether it is the best, and the drawing of it."""
        self.processes.align(self.eval_model)
        outcome = self.task.validate(self.eval_model)
        row = {"step": self.step, "epoch": self.plan.epoch(self.step), **outcome.row}
        return row, self._note_validation(row), outcome.draw

    def _note_validation(self, row: Row) -> bool:
        """Take the row of a validation. Returns True if its metric is the best so far.

        In a run with fits, the best is that of the current stage: detectors of earlier stages are incomplete.
        """
        self.last_validation, self.validated = row, self.step
        if self.best is not None and self.plan.has_fit_stage and self.plan.stage_of(self.best["step"]) != self.stage:
            self.best = None
        value, best = (_value(r, self.task.metric) for r in (row, self.best))
        better = self.best is None or value > best
        self.validations_since_best = 0 if better else self.validations_since_best + 1
        if better:
            self.best = row
        return better

    def check_weights(self) -> None:
        """Raise NonFiniteLossError if a weight is not finite; such a network is neither validated nor saved."""
        check_weights(self.model, self.step)

    def save(self, folder: Path, monitor: dict[str, Any]) -> None:
        """Write a checkpoint. All processes take part; the main one writes."""
        self.check_weights()
        randomness = self.processes.gather(random_state(self.processes.device))
        if not self.processes.main:
            self.saved = self.step
            return
        state = {
            **self.task.state_dict(),
            **self.runner.state_dict(),
            "world": self.processes.world,
            "step": self.step,
            "stage": self.stage,
            "validated": self.validated,
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict() if self.ema is not None else None,
            "scaler": self.scaler.state_dict(),
            "stream": self.stream.state_dict(),
            "random": randomness,
            "monitor": monitor,
            "best": self.best,
            "last_validation": self.last_validation,
            "validations_since_best": self.validations_since_best,
        }
        if self.task.last_file is not None:
            self.save_weights(folder / self.task.last_file)
        save_train_state(folder / f"last{TRAIN_SUFFIX}", state)
        self.saved = self.step
        if self.task.last_file is not None and self.recipe.checkpoint.keep:
            target = folder / f"step_{self.step:07d}{SUFFIX}"
            target.unlink(missing_ok=True)
            os.link(folder / self.task.last_file, target) if hasattr(os, "link") else self.save_weights(target)
            prune_steps(folder, self.recipe.checkpoint.keep)

    def save_weights(self, path: Path) -> None:
        """Write the weights to evaluate, with everything that a user of them needs."""
        metrics = self.last_validation if self.last_validation and self.last_validation["step"] == self.step else None
        self.task.save_weights(path, self.eval_model, Moment(self.step, self.plan.epoch(self.step), metrics))

    def close(self) -> None:
        """Stop the workers of all loaders."""
        self.stream.close()
        self.runner.close()

    def _note_short_warmups(self) -> None:
        for planned in self.plan.stages:
            warmup = None if isinstance(planned.stage, FitStage) else planned.stage.schedule.warmup
            if warmup is not None and warmup.steps > planned.steps // 3:
                self.notes.append(f"warm-up cut from {warmup.steps} to {planned.steps // 3} steps: the stage is short")

    def _enter_stage(self, step: int) -> None:
        """Begin the stage that takes ``step``."""
        if step > 1 and hasattr(self, "runner"):
            self.runner.close()
        self.stage = self.plan.stage_of(step)
        planned = self.plan.stages[self.stage]
        if isinstance(planned.stage, FitStage):
            self.stream.close()  # its workers would idle during the whole stage
            self.processes.align(self.eval_model)
            self.runner: StageRunner = self.task.fit(planned.stage, planned.first, self.model, self.eval_model)
        else:
            self.task.begin_stage(planned.stage, self.step == planned.first, self.model, self.eval_model)
            self.runner = GradientStage(
                planned, self.task, self.stream, self.model, self.learnable, self.scaler, self.ema
            )
        self.full_lr[self.stage] = self.runner.lr

    def _restore(self, state: dict[str, Any]) -> None:
        """Go to the point at which ``state`` was saved. Raises InputError if the data are others.

        States of earlier versions lack some entries: the stage and the data position of classification runs, the last
        validated step (there it is ``measured``), and the losses since the last row.
        """
        with entry("the data"):
            self.task.load_state_dict(state)
        step = check_count(state["step"], "step", self.plan.total)
        check_tensors(self.model, state["model"], "model")
        self.model.load_state_dict(state["model"])
        if self.ema is not None:
            with entry("ema"):
                check_count(state["ema"]["updates"], "ema.updates")
                check_tensors(self.ema.module, state["ema"]["module"], "ema.module")
                self.ema.load_state_dict(state["ema"])
        with entry("scaler"):
            self.scaler.load_state_dict(state["scaler"])
        with entry("stream"):
            stream = state.get("stream", {"batches": step})
            if check_count(stream["batches"], "stream.batches") != self.plan.batches_after(step):
                raise fault("stream.batches", f"{stream['batches']} batches after {step} steps")
            self.stream.load_state_dict(stream)
        if state["world"] == self.processes.world:
            check_random(state["random"], state["world"])
            with entry("random"):
                restore_random_state(state["random"][self.processes.rank], self.processes.device)
        else:
            self.notes.append(
                f"the run had {state['world']} process(es) and now has {self.processes.world}: it continues, but not "
                "bit for bit"
            )
        for key in ("best", "last_validation"):
            with entry(key):
                check_row(state.get(key), key, self.task.metric, step)
        if "monitor" in state:
            with entry("monitor"):
                check_monitor(state["monitor"])
        self.step, self.best, self.last_validation = step, state["best"], state.get("last_validation")
        self.saved = self.step
        last = 0 if self.last_validation is None else self.last_validation["step"]
        self.validated = state.get("validated", state.get("measured", last))
        self.validations_since_best = state.get("validations_since_best", 0)
        self.loaded_monitor = state.get("monitor")


def _value(row: Row | None, metric: str) -> float:
    """Return the metric of a row, below all values if the row has none."""
    return -1.0 if row is None or row[metric] is None else row[metric]
