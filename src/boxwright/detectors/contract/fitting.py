"""Parts of a detector that are fitted to features of the training set instead of learnt by gradients."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, TypeAlias

from torch import Tensor

from boxwright.heads.regions.ridge import RidgeFitConfig
from boxwright.heads.regions.svm import SVMFitConfig
from boxwright.structures import Images, Targets

FitConfig: TypeAlias = SVMFitConfig | RidgeFitConfig
"""What can be fitted: each has a ``kind`` and says in how many ``passes`` over the training set."""


class Fitting(ABC):
    """A fit under way. It reads the detector and never changes it; whoever runs it puts the result there.

    It is shown the images of the training set one at a time, in the order of the data set, for as many passes as its
    configuration says. ``figures``: names of what :meth:`see` counts.
    """

    figures: tuple[str, ...] = ()

    @abstractmethod
    def see(self, images: Images, targets: Targets, place: int, turn: int, last: bool) -> tuple[float, ...]:
        """Take a batch of one image, number ``place`` of the training set, in pass ``turn``; ``last``: of the last.

        Returns a number for each of ``figures``.
        """

    @abstractmethod
    def finish(self) -> dict[str, Tensor]:
        """The fitted tensors by their names in the detector's state dict. InputError where a class cannot be fitted."""

    @abstractmethod
    def summary(self) -> str:
        """What came of it, in a line."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Everything that resuming needs: tensors, numbers, text, and dicts and lists of them."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state_dict()``."""
