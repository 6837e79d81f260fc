"""Stage of gradient steps: forward, backward, clip, update, EMA. A step never waits for the device.

A step may be spread over micro-batches (accumulation) and processes. Losses are means over the images of a micro-batch,
and all micro-batches have the same size. Their mean is therefore the mean over the global batch, and the gradient is
that of one large batch. SSD, RetinaNet and RefineDet divide by a count over the batch, as their papers do; so does the
mask loss of Mask R-CNN, by the positives of the batch. For these a step over micro-batches or processes is the mean of
the steps of smaller batches, as in their references on several GPUs. Batch norms that are not frozen see one
micro-batch of one process, unless they are synchronised over processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from boxwright.config.pretrain_recipe import TrainingRecipe
from boxwright.config.recipe import Stage
from boxwright.precision import autocast
from boxwright.structures import InputError
from boxwright.training.distributed import Processes
from boxwright.training.optimisation.ema import EMA
from boxwright.training.optimisation.optimiser import build_optimiser, freeze, hold_frozen, set_lr
from boxwright.training.plan import PlannedStage
from boxwright.training.state_checks import load_optimiser
from boxwright.training.tasks.task import Stream, Task

B = TypeVar("B")


class GradientStage(Generic[B]):
    """Runs a `Stage`: batches of the stream through a `Stepper` at the scheduled learning rate."""

    summary: str | None = None

    def __init__(
        self,
        planned: PlannedStage,
        task: Task[B],
        stream: Stream[B],
        model: nn.Module,
        learnable: set[str],
        scaler: torch.amp.GradScaler,
        ema: EMA | None,
    ) -> None:
        """Set which of the ``learnable`` parameters of ``model`` learn in this stage, and make its optimiser."""
        stage = planned.stage
        assert isinstance(stage, Stage)
        self.planned, self.task, self.stream = planned, task, stream
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in learnable)
        freeze(model, stage.frozen)
        model.train()
        hold_frozen(model, stage.frozen)
        optimiser = build_optimiser(stage.optimiser, model, task.recipe.batch_size)
        wrapped = task.processes.wrap(model, some_unused=stage.losses is not None)
        self.stepper = Stepper(
            task.recipe,
            stage,
            wrapped,
            optimiser,
            scaler,
            task.processes,
            ema,
            losses=partial(task.losses, wrapped),
            clipped=task.clipped(model, optimiser),
        )
        self.optimiser = optimiser
        self.lr: float | None = max(group["base_lr"] for group in optimiser.param_groups)
        self.learning = sum(p.numel() for group in optimiser.param_groups for p in group["params"])
        self.description = f"{stage.optimiser.kind} at {self.lr:g}"

    @property
    def names(self) -> tuple[str, ...]:
        """The loss terms."""
        return self.stepper.names

    def take_step(self, step: int) -> tuple[Tensor, list[int]]:
        """Take one optimiser step; the values are the losses."""
        assert self.planned.schedule is not None
        batch = next(self.stream)
        set_lr(self.optimiser, self.planned.schedule(step - self.planned.first))
        try:
            losses = self.stepper(*self.task.inputs(batch, step))
        except RuntimeError as error:
            if self.task.recipe.compile and "InvalidCxxCompiler" in str(error):
                raise InputError(
                    "compile = true needs a C++ compiler on the CPU; install g++ or set it false"
                ) from None
            raise
        return losses, self.task.positions(batch)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the optimiser."""
        return {"optimiser": self.optimiser.state_dict(), "fit": None}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the optimiser from a training state."""
        load_optimiser(self.optimiser, state["optimiser"])

    def close(self) -> None:
        """Do nothing: the stream belongs to the run."""


class Stepper:
    """Takes optimiser steps on given batches. ``names`` are the loss terms, known after the first step."""

    def __init__(
        self,
        recipe: TrainingRecipe,
        stage: Stage,
        model: nn.Module,
        optimiser: Optimizer,
        scaler: torch.amp.GradScaler,
        processes: Processes,
        ema: EMA | None = None,
        losses: Callable[..., dict[str, Tensor]] | None = None,
        clipped: list[nn.Parameter] | None = None,
    ) -> None:
        """``losses`` maps inputs to losses by means of ``model``, and is ``model`` itself by default."""
        self.recipe = recipe
        self.stage = stage
        self.model = model
        self.optimiser = optimiser
        self.scaler = scaler
        self.processes = processes
        self.ema = ema
        self.losses = losses or model
        self.clipped = clipped or [p for group in optimiser.param_groups for p in group["params"]]
        self.names: tuple[str, ...] = ()

    def __call__(self, *inputs: Any) -> Tensor:
        """Take a step on this process's share of the global batch, already on the device.

        Returns the losses ``[T]`` in the order of ``names``, as means over the share, still on the device.
        """
        parts = list(_split(inputs, self.recipe.accumulation))
        sums: Tensor | None = None
        for i, part in enumerate(parts):
            values = self._accumulate(part, len(parts), last=i == len(parts) - 1)
            sums = values if sums is None else sums + values
        assert sums is not None
        if self.recipe.clip_norm is not None:
            self.scaler.unscale_(self.optimiser)
            nn.utils.clip_grad_norm_(self.clipped, self.recipe.clip_norm)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.optimiser.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.update()
        return sums / len(parts)

    def _accumulate(self, inputs: tuple[Any, ...], parts: int, last: bool) -> Tensor:
        """Add the gradient of a micro-batch and return its losses ``[T]``; processes exchange after the last one."""
        model = self.model
        local = isinstance(model, DistributedDataParallel) and not last
        with model.no_sync() if local else nullcontext():  # type: ignore[operator]
            with autocast(self.processes.device, self.recipe.precision):
                losses = self.losses(*inputs)
            total = torch.stack([losses[name].float() for name in self._minimised(losses)]).sum()
            self.scaler.scale(total / parts).backward()
        return torch.stack([losses[name].detach().float() for name in self.names])

    def _minimised(self, losses: dict[str, Tensor]) -> tuple[str, ...]:
        if not self.names:
            self.names = tuple(losses)
            absent = [name for name in self.stage.losses or () if name not in losses]
            if absent:
                raise InputError(
                    f"stage {self.stage.name!r}: losses names {absent[0]!r}; the detector's are {', '.join(losses)}"
                )
        return self.stage.losses or self.names


def _split(inputs: tuple[Any, ...], parts: int) -> Iterator[tuple[Any, ...]]:
    """Yield equal consecutive parts of the inputs of a batch; views, not copies."""
    if parts == 1:
        yield inputs
        return
    size = _batch_size(inputs[0]) // parts
    for start in range(0, size * parts, size):
        rows = slice(start, start + size)
        yield tuple(_rows(value, rows) for value in inputs)


def _batch_size(value: Any) -> int:
    return len(value if isinstance(value, Tensor) else value[0])


def _rows(value: Any, rows: slice) -> Any:
    """Take rows of a tensor, or of all tensors in a named tuple; other values stay as they are."""
    if isinstance(value, Tensor):
        return value[rows]
    return type(value)._make(_rows(v, rows) for v in value) if hasattr(value, "_make") else value
