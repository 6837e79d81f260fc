"""Fitting of detector parts to features of the training set, in place of training by gradients."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Protocol, TypeAlias

from torch import Tensor

from boxwright.anchors.coder import BoxCoder
from boxwright.heads.regions.fits.ridge import RidgeFitConfig
from boxwright.heads.regions.fits.svm import SVMFitConfig
from boxwright.heads.regions.proposals import Proposals
from boxwright.structures import Classes, Images, Targets

FitConfig: TypeAlias = SVMFitConfig | RidgeFitConfig
"""Configurations of fits. Each has a ``kind`` and the number of its ``passes`` over the training set."""


class WindowFeatures(Protocol):
    """A detector as a fit sees it: windows of an image, and their features.

    Symbols: B images, G objects and N windows of an image, D7 and D5 lengths of the two features.
    """

    classes: Classes
    coder: BoxCoder

    @property
    def crowd_ignore(self) -> float | None:
        """Share of a window in a crowd region above which it is no negative; None keeps all."""
        ...

    @property
    def difficult(self) -> bool:
        """True if objects marked difficult are trained on."""
        ...

    @property
    def box_features(self) -> int:
        """Length D5 of the features that boxes are regressed from."""
        ...

    def proposals_of(self, images: Images) -> Proposals:
        """Return the proposals of a batch."""
        ...

    def usable(self, targets: Targets) -> Tensor:
        """Mark the objects to train on, bool ``[B, G]``."""
        ...

    def describe(self, images: Images, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the features for classes ``[N, D7]`` and for boxes ``[N, D5]`` of windows ``[N, 4]`` of one image."""
        ...


class Fitting(ABC):
    """A fit in progress. It reads the detector and never changes it; the caller copies the result into it.

    The caller passes the images of the training set one at a time, in the order of the data set, for as many passes as
    the configuration says. ``figures``: names of the values that :meth:`see` returns.
    """

    figures: tuple[str, ...] = ()

    @abstractmethod
    def see(self, images: Images, targets: Targets, place: int, turn: int, last: bool) -> tuple[float, ...]:
        """Process a batch of one image, the one at index ``place`` of the training set, in pass ``turn``.

        ``last``: this is the last image of the last pass. Returns a value for each of ``figures``.
        """

    @abstractmethod
    def finish(self) -> dict[str, Tensor]:
        """Return the fitted tensors by their names in the detector's state dict.

        Raises InputError for a class that cannot be fitted.
        """

    @abstractmethod
    def summary(self) -> str:
        """Describe the result in one line."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Return the state for resuming: tensors, numbers, text, and dicts and lists of them."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state_dict()``."""
