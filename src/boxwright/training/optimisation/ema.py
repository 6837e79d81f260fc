"""Exponential moving average (EMA) of the weights of a model."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import nn

from boxwright.config.recipe import EMAConfig


class EMA:
    """EMA of the parameters and floating-point buffers of a model; other buffers are copied.

    ``module`` holds the EMA weights, in eval mode and without gradients. The decay of an update depends only on the
    number of updates before it, so ``updates`` and the tensors are the whole state.
    """

    def __init__(self, model: nn.Module, config: EMAConfig) -> None:
        """Start from the current weights of ``model``, which must keep its tensors from now on."""
        self.config = config
        self.updates = 0
        self.module = copy.deepcopy(model).eval().requires_grad_(False)
        averaged, current = self.module.state_dict(), model.state_dict()
        pairs = [(average, current[name]) for name, average in averaged.items()]
        self._floats = [p for p in pairs if p[0].is_floating_point()]
        self._others = [p for p in pairs if not p[0].is_floating_point()]

    def decay(self) -> float:
        """Return the decay of the next update: the weight of the old EMA value."""
        return self.config.decay * (1 - math.exp(-(self.updates + 1) / self.config.ramp))

    @torch.no_grad()
    def update(self) -> None:
        """Move the EMA towards the model, without waiting for the device."""
        averages, currents = [p[0] for p in self._floats], [p[1] for p in self._floats]
        # One kernel for all tensors; torch has no public name for it.
        torch._foreach_lerp_(averages, currents, 1 - self.decay())  # pyright: ignore[reportPrivateImportUsage]
        for average, current in self._others:
            average.copy_(current, non_blocking=True)
        self.updates += 1

    def state_dict(self) -> dict[str, Any]:
        """Return everything that resuming needs."""
        return {"updates": self.updates, "module": self.module.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state_dict()``."""
        self.updates = state["updates"]
        self.module.load_state_dict(state["module"])
