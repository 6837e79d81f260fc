"""The steps of a stage that fits a part of the detector: an image each, and at its end the result for all networks."""

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
from boxwright.precision import Precision, autocast
from boxwright.structures import InputError
from boxwright.training.distributed import Processes


class FitRun:
    """A fit under way. ``names``: of the numbers that a step gives; ``summary``: None until the last step is done."""

    def __init__(
        self, stage: FitStage, networks: Sequence[Detector], index: DetectionIndex, recipe: Recipe, where: Processes
    ) -> None:
        """``networks``: all that get the result; features are those of the last."""
        self.networks, self.index, self.where = networks, index, where
        self.precision: Precision = recipe.precision
        self.fitting = begin_fit(stage, networks[-1], index, recipe)
        self.names = self.fitting.figures
        self.steps = stage.fit.passes * len(index)
        self.summary: str | None = None
        data = replace(recipe.data, eval_batch_size=1)
        self.loader = EvalLoader(index, data, split="train", pin_memory=where.device.type == "cuda")
        self._batches: Iterator[Batch] | None = None

    @torch.no_grad()
    def take_step(self, done: int) -> tuple[Tensor, list[int]]:
        """The step after ``done`` ones of the stage: its numbers, and the image's place in the training set."""
        turn, place = divmod(done, len(self.index))
        if self._batches is None or place == 0:
            self._batches = self.loader.from_batch(place)
        batch = next(self._batches)
        images, targets = batch.images.to(self.where.device), batch.targets.to(self.where.device)
        self.networks[-1].eval()
        last = done + 1 == self.steps
        with autocast(self.where.device, self.precision):
            numbers = self.fitting.see(images, targets, place, turn, last)
        if last:
            self._finish()
        return torch.tensor(numbers, device=self.where.device), [place]

    def _finish(self) -> None:
        # Processes have computed the same, but perhaps not on the same kind of device.
        found = self.where.broadcast(self.fitting.finish())
        self.summary = self.fitting.summary()
        for network in self.networks:
            own = network.state_dict()
            for name, value in found.items():
                own[name].copy_(value)

    def close(self) -> None:
        """Stop the loader's workers."""
        self._batches = None
        self.loader.close()

    def state_dict(self) -> dict[str, Any] | None:
        """Everything that resuming needs; None where all is done and in the networks."""
        return None if self.summary is not None else self.fitting.state_dict()

    def load_state_dict(self, state: dict[str, Any] | None) -> None:
        """Continue from ``state_dict()``."""
        if state is None:
            self.summary = "done before"
        else:
            self.fitting.load_state_dict(state)


def begin_fit(stage: FitStage, detector: Detector, index: DetectionIndex, recipe: Recipe) -> Fitting:
    """Begin the fit of ``stage``. Raises InputError where the detector has no such part."""
    if not isinstance(detector, Fits):
        raise InputError(f"a stage fits {stage.fit.kind!r}, but a {detector.config.kind} has nothing to be fitted")
    return detector.fitting(stage.fit, index, recipe.seed)


def check_fits(recipe: Recipe, detector: Detector, index: DetectionIndex) -> None:
    """InputError where a stage cannot fit what it says to this training set, or where something is left unfitted."""
    stages = [stage for stage in recipe.stages if isinstance(stage, FitStage)]
    for stage in stages:
        begin_fit(stage, detector, index, recipe)
    kinds = {stage.fit.kind for stage in stages}
    if missing := [kind for kind in (detector.unfitted() if isinstance(detector, Fits) else ()) if kind not in kinds]:
        raise InputError(
            f"no stage fits {' and '.join(repr(kind) for kind in missing)}, but this detector needs it; add a stage "
            f'{{kind = "fit", fit = {{kind = "{missing[0]}"}}}}, or set detector.score = "softmax" or '
            "detector.regress = false"
        )
