"""One optimiser step: forward, backward, clip, update, average. Nothing in it waits for the device.

A step may be spread over micro-batches (accumulation) and processes. Losses are means over the images of a micro-batch,
and micro-batches are of one size, so the mean over all of them is the mean over the global batch: the gradient is that
of one big batch. SSD, RetinaNet and RefineDet divide by a count over the batch, as their papers do, and so does Mask
R-CNN's loss of masks by the batch's positives: such a step over micro-batches or processes is the mean of smaller
batches' steps, as that of their references on several GPUs.
Live batch norms see one micro-batch of one process, unless they are synchronised over processes.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterator
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from boxwright.config.recipe import Recipe, Stage
from boxwright.precision import autocast
from boxwright.structures import Images, InputError, Targets
from boxwright.training.distributed import Processes
from boxwright.training.ema import EMA


def image_seeds(seed: int, step: int, batch_size: int, first: int, count: int) -> Tensor:
    """Seeds int64 ``[count]`` for the images ``first, first + 1, ...`` of the global batch of a step.

    They depend on an image's place in the stream alone, not on processes or micro-batches.
    """
    places = range(step * batch_size + first, step * batch_size + first + count)
    digests = (hashlib.blake2b(struct.pack("<2q", seed, p), digest_size=8).digest() for p in places)
    return torch.tensor([int.from_bytes(d, "little") >> 2 for d in digests], dtype=torch.int64)


class Stepper:
    """Takes steps with one stage's optimiser. ``names`` are the loss terms, known after the first step."""

    def __init__(
        self,
        recipe: Recipe,
        stage: Stage,
        model: nn.Module,
        optimiser: Optimizer,
        scaler: torch.amp.GradScaler,
        where: Processes,
        ema: EMA | None = None,
        propose: Callable[[Images], tuple[Tensor, ...]] | None = None,
    ) -> None:
        """``model`` maps (images, targets) to losses; it may be wrapped for several processes. With ``propose`` it maps
        (images, targets, proposals)."""
        self.recipe = recipe
        self.stage = stage
        self.model = model
        self.optimiser = optimiser
        self.scaler = scaler
        self.where = where
        self.ema = ema
        self.propose = propose
        self.parameters = [p for group in optimiser.param_groups for p in group["params"]]
        self.names: tuple[str, ...] = ()

    def __call__(self, images: Images, targets: Targets) -> Tensor:
        """One step on this process's share of the global batch, already on the device.

        Returns the losses ``[T]`` in the order of ``names``, mean over the share, still on the device.
        """
        parts = list(_split(images, targets, self.recipe.accumulation))
        sums: Tensor | None = None
        for i, (part, wanted) in enumerate(parts):
            values = self._accumulate(part, wanted, len(parts), last=i == len(parts) - 1)
            sums = values if sums is None else sums + values
        assert sums is not None
        if self.recipe.clip_norm is not None:
            self.scaler.unscale_(self.optimiser)
            nn.utils.clip_grad_norm_(self.parameters, self.recipe.clip_norm)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.optimiser.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.update()
        return sums / len(parts)

    def _accumulate(self, images: Images, targets: Targets, parts: int, last: bool) -> Tensor:
        """Add one micro-batch's gradient; its losses ``[T]``. Processes exchange gradients after the last one."""
        model = self.model
        local = isinstance(model, DistributedDataParallel) and not last
        with model.no_sync() if local else nullcontext():  # type: ignore[operator]
            with autocast(self.where.device, self.recipe.precision):
                given = () if self.propose is None else (self.propose(images),)
                losses = model(images, targets, *given)
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


def _split(images: Images, targets: Targets, parts: int) -> Iterator[tuple[Images, Targets]]:
    """Equal consecutive parts of a batch; views, not copies."""
    size = images.pixels.shape[0] // parts
    for start in range(0, size * parts, size):
        rows = slice(start, start + size)
        yield (
            Images._make(t if t is None else t[rows] for t in images),
            Targets._make(t if t is None else t[rows] for t in targets),
        )
