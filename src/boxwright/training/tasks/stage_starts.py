"""Initialisation of stages: reset submodules, and freeze the previous network as a source of proposals.

Only Faster R-CNN's 4-step training needs it (arXiv 1506.01497, §3.2).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from boxwright.config.recipe import FitStage, Recipe, Stage
from boxwright.detectors.build import DetectorConfig
from boxwright.detectors.contract.adoption import not_finite
from boxwright.detectors.contract.detector import Detector
from boxwright.detectors.faster_rcnn_c4 import FasterRCNNC4
from boxwright.structures import Classes, InputError
from boxwright.training.optimisation.optimiser import check_prefixes, has_prefix


class StageStarts:
    """Initialises stages.

    ``proposer``: network that proposes regions in the current stage, None if the detector does so itself.
    ``initial``: tensors that a stage may reset, as at the start of the run.
    """

    def __init__(
        self, recipe: Recipe, detector: Detector, build: Callable[[DetectorConfig, Classes], Detector]
    ) -> None:
        """Keep the first weights of ``detector``. Raises InputError if it cannot do what the stages ask for."""
        self.recipe, self.detector, self.build = recipe, detector, build
        self.proposer: Any = None
        names = [name for name, _ in detector.named_parameters()]
        for i, stage in enumerate(recipe.stages):
            if isinstance(stage, FitStage):
                continue
            check_prefixes(stage.reset, names, f"stages.{i}.reset")
            if stage.proposals == "before" and not isinstance(detector, FasterRCNNC4):
                raise InputError(
                    f"stages.{i}.proposals = 'before': a {recipe.detector.kind} takes no proposals from outside; only "
                    "a faster_rcnn_c4 does"
                )
        prefixes = [prefix for stage in recipe.stages if isinstance(stage, Stage) for prefix in stage.reset]
        self.initial = {
            name: tensor.detach().clone()
            for name, tensor in detector.state_dict().items()
            if any(has_prefix(name, prefix) for prefix in prefixes)
        }

    @torch.no_grad()
    def begin(self, stage: Stage, before: Detector, networks: Sequence[Detector]) -> None:
        """Begin ``stage``: copy ``before`` as its source of proposals, then reset parts of ``networks``."""
        self.proposer = self._twin(before.state_dict()) if stage.proposals == "before" else None
        for network in networks:
            for name, tensor in network.state_dict().items():
                if any(has_prefix(name, prefix) for prefix in stage.reset):
                    tensor.copy_(self.initial[name])

    def state_dict(self) -> dict[str, Any]:
        """Return everything that resuming needs."""
        return {"proposer": None if self.proposer is None else self.proposer.state_dict(), "initial": self.initial}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state_dict()``."""
        for name, tensor in self.initial.items():
            given = state["initial"][name]
            if given.shape != tensor.shape or not_finite({name: given}):
                raise InputError(f"starts.initial: {name} has another shape, or values that are NaN or infinite")
            tensor.copy_(given)
        self.proposer = None if state["proposer"] is None else self._twin(state["proposer"])

    def _twin(self, state: dict[str, Tensor]) -> Detector:
        """Build another detector with these weights, without changing the random state."""
        with torch.random.fork_rng(devices=[]):
            twin = self.build(self.recipe.detector, self.detector.classes)
        device = self.detector.get_buffer("pixel_mean").device
        twin = twin.to(device).eval().requires_grad_(False)
        twin.load_state_dict(state)
        return twin
