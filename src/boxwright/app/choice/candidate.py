"""Values of the choice: what is asked for, a candidate with its reasons, the choice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from boxwright.app.choice.anchors import AnchorFit
from boxwright.app.choice.costs import Counted, Measured
from boxwright.app.choice.facts import DataFacts, MachineFacts
from boxwright.app.choice.table import EffortName, Known
from boxwright.config.recipe import Recipe, Stage
from boxwright.data.index import DetectionIndex
from boxwright.structures import InputError


class NoRoomError(InputError):
    """A recipe needs more memory than there is."""


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """Limits and settings that the user gives. Times in seconds; None leaves the choice open."""

    effort: EffortName = "standard"
    effort_given: bool = False
    budget: float | None = None
    latency: float | None = None
    size: int | tuple[int, int] | None = None
    batch_size: int | None = None
    epochs: float | None = None
    start: str | None = None
    """Option that replaces the recipe's weights to start from."""
    untrained: bool = False
    """The backbone starts from random weights."""
    changed: Callable[[Recipe], Recipe] = lambda recipe: recipe
    """Applies the settings that the user gives to a chosen recipe, such as those of ``--set``."""
    given: str = ""
    """These settings, as they are given."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """Data to train on and machine to train with. ``val_images``: number of images that validation looks at."""

    index: DetectionIndex
    val_images: int
    data: DataFacts
    machine: MachineFacts


class Decision(NamedTuple):
    """One decision, with a plain sentence on its reason."""

    what: str
    value: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A resolved recipe with its costs and the reasons for each of its settings."""

    recipe: Recipe
    known: Known
    size: tuple[int, int]
    """Height and width of the network's input."""
    decisions: tuple[Decision, ...]
    counted: Counted
    anchors: AnchorFit
    measured: Measured | None = None


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Candidates in order of preference, the choice first, and remarks on the data."""

    candidates: tuple[Candidate, ...]
    remarks: tuple[str, ...]

    def first(self, count: int) -> Choice:
        """Return the choice with its first ``count`` candidates only."""
        return replace(self, candidates=self.candidates[:count])

    @property
    def recipe(self) -> Recipe:
        """The recipe of the choice."""
        return self.candidates[0].recipe


def epochs_of(candidate: Candidate) -> float:
    """Return the epochs of the candidate's run."""
    return next(stage.length for stage in candidate.recipe.stages if isinstance(stage, Stage))
