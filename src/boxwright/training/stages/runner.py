"""Interface of a stage under way."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor


class StageRunner(Protocol):
    """Takes the steps of one stage of a run."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the values that a step returns; known after the first step."""
        ...

    @property
    def lr(self) -> float | None:
        """Full learning rate, of the parameter group with the highest; None without gradients."""
        ...

    @property
    def learning(self) -> int:
        """Number of values that learn by gradients."""
        ...

    @property
    def description(self) -> str:
        """The stage in a few words."""
        ...

    @property
    def summary(self) -> str | None:
        """The result in a sentence, after the last step of a stage that has one to tell; else None."""
        ...

    def take_step(self, step: int) -> tuple[Tensor, list[int]]:
        """Take the step after ``step`` finished ones of the run.

        Returns its values ``[T]`` on the device and the positions of its images in the training set. Raises SampleError
        if an image cannot be read; nothing has changed then.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return the entries ``optimiser`` and ``fit`` of a training state."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a training state."""
        ...

    def close(self) -> None:
        """Stop the loader's workers, if the stage has its own."""
        ...
