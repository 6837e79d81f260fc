"""Capabilities that only some detectors have. Ask for one with ``isinstance(detector, TakesProposals)``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Protocol, runtime_checkable

from torch import Tensor

from boxwright.data.index import DetectionIndex
from boxwright.data.proposals.files import ProposalsConfig
from boxwright.detectors.contract.fitting import FitConfig, Fitting
from boxwright.heads.regions.proposals import Proposals
from boxwright.structures import Images


@runtime_checkable
class TakesProposals(Protocol):
    """A detector that classifies given proposals, ``Images.proposals``, and finds none itself."""

    def proposals_of(self, images: Images) -> Proposals:
        """Return the given proposals, clipped to the images. Raises InputError for a batch without proposals."""
        ...


@runtime_checkable
class ProposesRegions(Protocol):
    """A detector with a region proposal network."""

    def propose(self, images: Images) -> Proposals:
        """Return the proposals that a training step would use: as many as ``rpn`` keeps in training, no gradient."""
        ...


@runtime_checkable
class MeasuresData(Protocol):
    """A detector with statistics of the training set among its buffers."""

    def measure(self, index: DetectionIndex, proposals: ProposalsConfig | None, trained: bool) -> str | None:
        """Compute the statistics of ``index`` before a run begins, and return a line about them for the log.

        ``proposals``: files of proposals of the training set. ``trained``: the weights are trained, so adapt them to
        keep predictions as they are.
        """
        ...


@runtime_checkable
class Fits(Protocol):
    """A detector with parts that are fitted to features of the training set, not trained by gradients."""

    fit_state: ClassVar[frozenset[str]]
    """Names of buffers that describe the very weights they are saved with. They are never transferred."""

    def fitting(self, config: FitConfig, index: DetectionIndex, seed: int) -> Fitting:
        """Begin a fit to the training set ``index``. Raises InputError where the detector has no such part."""
        ...

    def unfitted(self) -> tuple[str, ...]:
        """Return the kinds of fits that the detector still needs."""
        ...


@runtime_checkable
class TakesClassifier(Protocol):
    """A detector whose head can start from the classifier of a pretrained network."""

    def take_classifier(self, state: Mapping[str, Tensor]) -> int:
        """Copy layers of the classifier with the state dict ``state`` into the head, and return their number."""
        ...
