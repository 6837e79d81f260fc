"""Losses of a run: collected on the device, copied in blocks, checked for values that are not finite.

On the CPU every step is checked at once. On a GPU the losses of ``log_every`` steps are copied together, and checked
when the next block is ready, so the host never waits. A loss that is not finite is then reported one block late, but
with its exact step and images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from boxwright.structures import InputError
from boxwright.training.distributed import Processes

REMEDY = (
    "Look at the images (a detector's, with their boxes, by `boxwright data check`), lower the learning rate, lengthen "
    "the warm-up, or set clip_norm; with fp16 try bf16"
)


class NonFiniteLossError(InputError):
    """A loss or weight is NaN or infinite. The message names the step, and the terms and images of a loss."""


@dataclass(frozen=True)
class LossRow:
    """Mean losses over the steps since the last row, over all processes."""

    step: int
    losses: dict[str, float]


@dataclass
class _Block:
    """Losses of consecutive steps being copied to the host: sums over processes, and those of this process."""

    steps: list[int]
    images: list[list[int]]
    mean: Tensor
    own: Tensor
    ready: torch.cuda.Event | None


class LossMonitor:
    """Takes the losses of each step and returns a row every ``log_every`` steps and after the last one.

    Raises NonFiniteLossError for a loss that is not finite.
    """

    def __init__(
        self, processes: Processes, log_every: int, name_image: Callable[[int], str], last: Collection[int] = ()
    ) -> None:
        """``name_image`` maps a position in the training set to the name that an error shows. ``last``: last steps of
        the run or of its stages, which get a row even if it covers fewer steps than the others."""
        self.processes = processes
        self.log_every = log_every
        self.last = last
        self.name_image = name_image
        self.names: tuple[str, ...] = ()
        self.stop_seen = False
        self._each_step = processes.device.type == "cpu"
        self._steps: list[tuple[int, Tensor, list[int]]] = []
        self._under_way: list[_Block] = []
        self._since_row: list[list[float]] = []

    def record(self, step: int, names: tuple[str, ...], losses: Tensor, images: list[int], stop: bool) -> list[LossRow]:
        """Take the losses ``[T]`` of a finished step and return the rows that are complete.

        ``images``: positions in the training set. ``stop``: this process was asked to stop; ``stop_seen`` becomes true
        in all processes after the same step.
        """
        rows = []
        if self.names and names != self.names:  # another stage with other losses: no row may mix them
            rows = self.flush()
            rows += [self._row(step - 1)] if self._since_row else []
        self.names = names
        flag = torch.full((1,), float(stop), device=losses.device)
        self._steps.append((step, torch.cat([losses, flag]), images))
        if not self._each_step and step % self.log_every:
            return rows
        self._send()
        return rows + self._receive(len(self._under_way) - (0 if self._each_step else 1))

    def flush(self) -> list[LossRow]:
        """Wait for everything recorded so far and return its rows."""
        if self._steps:
            self._send()
        return self._receive(len(self._under_way))

    def state_dict(self) -> dict[str, Any]:
        """Return the losses that no row covers yet. Call ``flush`` first."""
        return {"names": list(self.names), "since_row": [list(values) for values in self._since_row]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state_dict()``."""
        self.names = tuple(state.get("names", ()))  # not in states of before they mattered
        self._since_row = [list(values) for values in state["since_row"]]

    def _send(self) -> None:
        own = torch.stack([values for _, values, _ in self._steps])  # [n, T + 1]
        mean = self.processes.sum(own.clone()) if self.processes.world > 1 else own
        ready = None
        if own.device.type == "cuda":
            mean, own = (_to_host(t) for t in (mean, own))
            ready = torch.cuda.Event()
            ready.record()
        steps, images = [s for s, _, _ in self._steps], [i for _, _, i in self._steps]
        self._under_way.append(_Block(steps, images, mean, own, ready))
        self._steps = []

    def _receive(self, count: int) -> list[LossRow]:
        rows = []
        for block in self._under_way[:count]:
            if block.ready is not None:
                block.ready.synchronize()
            means = block.mean.double().div(self.processes.world).tolist()
            for i, (step, (*losses, stop)) in enumerate(zip(block.steps, means, strict=True)):
                if not all(map(math.isfinite, losses)):
                    self._fail(step, block.images[i], block.own[i].tolist()[:-1])
                self.stop_seen |= stop > 0
                self._since_row.append(losses)
                if step % self.log_every == 0 or step in self.last:
                    rows.append(self._row(step))
        del self._under_way[:count]
        return rows

    def _row(self, step: int) -> LossRow:
        count = len(self._since_row)
        sums = [math.fsum(column) for column in zip(*self._since_row, strict=True)]
        self._since_row = []
        return LossRow(step, {name: value / count for name, value in zip(self.names, sums, strict=True)})

    def _fail(self, step: int, images: list[int], losses: list[float]) -> None:
        """Raise the error. All processes get here at the same step, because they see the same means."""
        bad = [f"{name} = {value}" for name, value in zip(self.names, losses, strict=True) if not math.isfinite(value)]
        seen = [found for found in self.processes.gather((bad, [self.name_image(i) for i in images])) if found[0]]
        terms = ", ".join(dict.fromkeys(term for found in seen for term in found[0]))
        names = "; ".join(name for found in seen for name in found[1])
        raise NonFiniteLossError(f"step {step}: the loss is not finite: {terms}. Images of the step: {names}. {REMEDY}")


@torch.no_grad()
def check_weights(model: nn.Module, step: int) -> None:
    """Raise NonFiniteLossError if a weight is not finite after ``step``: the loss was computed before its update."""
    tensors = {name: t for name, t in model.state_dict().items() if t.is_floating_point()}
    if not bool(torch.stack([t.isfinite().all() for t in tensors.values()]).all()):
        bad = next(name for name, t in tensors.items() if not t.isfinite().all())
        raise NonFiniteLossError(f"step {step}: the weights are no longer finite, first {bad}. {REMEDY}")


def _to_host(tensor: Tensor) -> Tensor:
    """Copy to pinned memory without waiting; the copy is complete when the device gets there."""
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)
