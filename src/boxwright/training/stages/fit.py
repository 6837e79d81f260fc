"""Stage that fits a part of the detector: one image a step, and at its end the result for all networks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from boxwright.config.recipe import FitStage, Recipe
from boxwright.data.index import DetectionIndex
from boxwright.data.loading.loader import Batch, EvalLoader
from boxwright.detectors.contract.capabilities import Fits
from boxwright.detectors.contract.detector import Detector
from boxwright.detectors.contract.fitting import Fitting
from boxwright.precision import autocast
from boxwright.structures import InputError
from boxwright.training.distributed import Processes


class FitRunner:
    """Runs a `FitStage`. It sees each image of the training set once per pass."""

    lr: float | None = None
    learning = 0

    def __init__(
        self,
        stage: FitStage,
        first: int,
        networks: Sequence[Detector],
        index: DetectionIndex,
        recipe: Recipe,
        processes: Processes,
    ) -> None:
        """Fit to features of the last of ``networks``; all of them get the result. ``first``: last step before."""
        self.first, self.networks, self.index = first, networks, index
        self.recipe, self.processes = recipe, processes
        self.fitting = begin_fit(stage, networks[-1], index, recipe)
        self.names: tuple[str, ...] = self.fitting.figures
        self.steps = stage.fit.passes * len(index)
        self.summary: str | None = None
        self.description = f"now the fit {stage.name!r}"
        data = replace(recipe.data, eval_batch_size=1)
        self.loader = EvalLoader(index, data, split="train", pin_memory=processes.device.type == "cuda")
        self._batches: Iterator[Batch] | None = None

    @torch.no_grad()
    def take_step(self, step: int) -> tuple[Tensor, list[int]]:
        """Take one image into the fit; the values are counts of the fit."""
        done = step - self.first
        turn, position = divmod(done, len(self.index))
        if self._batches is None or position == 0:
            self._batches = self.loader.from_batch(position)
        batch = next(self._batches)
        device = self.processes.device
        images, targets = batch.images.to(device), batch.targets.to(device)
        self.networks[-1].eval()
        last = done + 1 == self.steps
        with autocast(device, self.recipe.precision):
            values = self.fitting.see(images, targets, position, turn, last)
        if last:
            self._finish()
        return torch.tensor(values, device=device), [position]

    def _finish(self) -> None:
        # All processes have computed the same, but perhaps on devices of different kinds.
        found = self.processes.broadcast(self.fitting.finish())
        self.summary = self.fitting.summary()
        for network in self.networks:
            own = network.state_dict()
            for name, value in found.items():
                own[name].copy_(value)

    def close(self) -> None:
        """Stop the loader's workers."""
        self._batches = None
        self.loader.close()

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the fit. A finished fit has none: its result is in the networks."""
        return {"optimiser": None, "fit": None if self.summary is not None else self.fitting.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue the fit from a training state."""
        if state["fit"] is None:
            self.summary = "done before"
        else:
            self.fitting.load_state_dict(state["fit"])


def begin_fit(stage: FitStage, detector: Detector, index: DetectionIndex, recipe: Recipe) -> Fitting:
    """Begin the fit of ``stage``. Raises InputError if the detector has no such part."""
    if not isinstance(detector, Fits):
        raise InputError(f"a stage fits {stage.fit.kind!r}, but a {detector.config.kind} has nothing to be fitted")
    return detector.fitting(stage.fit, index, recipe.seed)


def check_fits(recipe: Recipe, detector: Detector, index: DetectionIndex) -> None:
    """Raise InputError if a stage cannot fit what it names to this training set, or if a part remains unfitted."""
    stages = [stage for stage in recipe.stages if isinstance(stage, FitStage)]
    for stage in stages:
        begin_fit(stage, detector, index, recipe)
    kinds = {stage.fit.kind for stage in stages}
    unfitted = detector.unfitted() if isinstance(detector, Fits) else ()
    if missing := [kind for kind in unfitted if kind not in kinds]:
        raise InputError(
            f"no stage fits {' and '.join(repr(kind) for kind in missing)}, but this detector needs it; add a stage "
            f'{{kind = "fit", fit = {{kind = "{missing[0]}"}}}}, or set detector.score = "softmax" or '
            "detector.regress = false"
        )
