"""Costs of a candidate: parameters, multiply-adds and memory by counting, time by a few measured steps.

Counting runs no arithmetic and gives the same everywhere. Times are measured with the candidate itself: training steps
on images of the data set, and ``detect`` on one of them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from boxwright.app.models.counting import Outputs, input_size
from boxwright.backbones.count import built_of_shapes, count_multiply_adds, count_parameters
from boxwright.config.recipe import AdamWConfig, CosineConfig, Recipe, Stage
from boxwright.data.images import read_image
from boxwright.data.index import DetectionIndex
from boxwright.detectors.build import build_detector
from boxwright.detectors.contract.detector import Detector
from boxwright.detectors.contract.preparation import preparation_of
from boxwright.precision import dtype_of
from boxwright.training.distributed import Processes
from boxwright.training.session import Session
from boxwright.training.tasks.detection import DetectionTask

FIRST, TIMED = 1, 2
"""Training steps before and during the measurement on a CPU; five times as many on a GPU."""


@dataclass(frozen=True, kw_only=True)
class Counted:
    """Costs that are counted, for the recipe's input and the classes of the data."""

    parameters: int
    multiply_adds: int
    """Of one image of the recipe's input."""
    state_bytes: int
    """Weights, gradients, the optimiser's means and the average of the weights in training."""
    image_bytes: int
    """Results of all layers for one image, which training keeps for the gradients."""

    def batch_bytes(self, batch_size: int) -> int:
        """Return the memory of a training step."""
        return self.state_bytes + batch_size * self.image_bytes


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Times in seconds."""

    train: float
    """Training, for each image."""
    evaluate: float
    """Validation, for each image: a quarter of a call of ``detect`` on four images."""
    detect: float
    """One image in a call of ``detect``, from its pixels to the boxes."""

    def training(self, images: int, epochs: float, val_images: int, validations: float) -> float:
        """Return the time of a run with its validations."""
        return images * epochs * self.train + val_images * validations * self.evaluate


def count(recipe: Recipe, index: DetectionIndex) -> Counted:
    """Count the costs of ``recipe`` on images of its input size."""
    size = input_size(recipe)
    detector = built_of_shapes(lambda: build_detector(recipe.detector, index.classes, preparation_of(recipe.data)))
    parameters = count_parameters(detector)
    outputs = Outputs(detector)
    with _Sizes() as sizes:
        multiply_adds = count_multiply_adds(outputs, size)
    width = 2 if recipe.precision in ("bf16", "fp16") else 4
    adam = any(isinstance(stage, Stage) and isinstance(stage.optimiser, AdamWConfig) for stage in recipe.stages)
    copies = 2 + (2 if adam else 1) + (recipe.ema is not None)
    return Counted(
        parameters=parameters,
        multiply_adds=multiply_adds,
        state_bytes=4 * copies * parameters,
        image_bytes=sizes.elements * width,
    )


class _Sizes(TorchDispatchMode):
    """Adds the elements of all new tensors of floating point."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if not func.is_view and str(func.overloadpacket)[-1] != "_":  # views and changes in place take no memory
            self.elements += sum(t.numel() for t in tree_leaves(out) if isinstance(t, Tensor) and t.is_floating_point())
        return out


def measure(recipe: Recipe, index: DetectionIndex, device: torch.device, cores: int) -> Measured:
    """Time training steps of ``recipe`` and calls of ``detect`` on ``device``, from random weights.

    Images are loaded in this process, as part of the step. In a run the workers load them beside it: on a CPU they
    share its cores.
    """
    first = next(stage for stage in recipe.stages if isinstance(stage, Stage))
    steps = replace(first, length=1000, unit="steps", schedule=CosineConfig())  # more than are taken
    alone = replace(recipe, data=replace(recipe.data, workers=0), stages=(steps,))
    task = DetectionTask(alone, index, None, Processes(0, 1, device), build_detector, None, "none")
    rounds = 5 if device.type == "cuda" else 1
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        session = Session(task, None)
        try:
            load = _seconds(lambda: next(session.stream), TIMED, torch.device("cpu"))
            _seconds(session.take_step, FIRST * rounds, device)
            step = _seconds(session.take_step, TIMED * rounds, device)
        finally:
            session.close()
        detector = cast(Detector, session.model)
    compute = max(step - load, step / 10)
    workers = max(1, min(recipe.data.workers, cores))
    beside = compute + load / cores if device.type == "cpu" else max(compute, load / workers)
    network = detector.optimised(dtype_of(recipe.precision)).to(device)
    images = [read_image(index.path(i)) for i in range(min(4, len(index)))]
    return Measured(
        train=beside / recipe.batch_size,
        evaluate=_detect_seconds(network, images, device) / len(images),
        detect=_detect_seconds(network, images[:1], device),
    )


def _detect_seconds(network: Detector, images: Sequence[np.ndarray], device: torch.device) -> float:
    _seconds(lambda: network.detect_arrays(images), 2, device)
    return statistics.median(_seconds(lambda: network.detect_arrays(images), 1, device) for _ in range(5))


def _seconds(action: Any, times: int, device: torch.device) -> float:
    """Return the mean time of ``action``, with all that it starts on the device."""
    _wait(device)
    start = time.perf_counter()
    for _ in range(times):
        action()
    _wait(device)
    return (time.perf_counter() - start) / times


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
