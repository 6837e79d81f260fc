"""Interface between the training loop and a task: a network, its data, its loss and its metric."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

from torch import Tensor, nn
from torch.optim import Optimizer

from boxwright.config.pretrain_recipe import TrainingRecipe
from boxwright.config.recipe import FitStage, Stage
from boxwright.training.data_files import DataFile
from boxwright.training.distributed import Processes
from boxwright.training.stages.runner import StageRunner

Row = dict[str, Any]
B = TypeVar("B")


class Stream(Protocol[B]):
    """Endless training batches with an exact position."""

    @property
    def epoch_size(self) -> int:
        """Images in an epoch, over all processes."""
        ...

    def __next__(self) -> B: ...
    def ends_after(self, batches: int) -> None: ...
    def state_dict(self) -> dict[str, int]: ...
    def load_state_dict(self, state: dict[str, int]) -> None: ...
    def close(self) -> None: ...


class Outcome(NamedTuple):
    """Result of a validation. ``row``: its metrics; ``draw``: writes images of it into a run folder."""

    row: Row
    draw: Callable[[Path], None] = lambda folder: None


class Moment(NamedTuple):
    """Point of a run at which weights are saved, with the metrics of these weights if they were validated."""

    step: int
    epoch: float
    metrics: Row | None


class Task(Protocol[B]):
    """All that the training loop does not know itself.

    ``images``: size of the training set. ``validated``: True if there is a validation set. ``metric``: entry of a
    validation's row that decides which weights are best, the higher the better; ``shown``: entries that a
    user sees, with their names. ``best_file`` and ``last_file``: names of the files for the best and the last weights;
    the latter may be None. ``notes``: what to tell the user before the first step.
    """

    processes: Processes
    images: int
    validated: bool
    metric: str
    shown: Mapping[str, str]
    best_file: str
    last_file: str | None
    notes: list[str]

    @property
    def recipe(self) -> TrainingRecipe:
        """Settings of the run."""
        ...

    # Before the first step
    def open_stream(self) -> Stream[B]:
        """Open the training data."""
        ...

    def build(self, resumed: bool) -> nn.Module:
        """Build the network on its device, with its first weights unless the run is ``resumed``."""
        ...

    def data_files(self) -> list[DataFile]:
        """Return the files that the run reads while it trains: a resumed run must find them unchanged."""
        ...

    def description(self) -> list[str]:
        """Return lines about the data, for the user."""
        ...

    def warnings(self) -> list[str]:
        """Return lines about what in the data may be wrong, for the user."""
        ...

    # Steps
    def begin_stage(self, stage: Stage, first: bool, model: nn.Module, eval_model: nn.Module) -> None:
        """Prepare the networks for ``stage``; ``first``: its first step comes next, not one after a resume."""
        ...

    def fit(self, stage: FitStage, first: int, model: nn.Module, eval_model: nn.Module) -> StageRunner:
        """Start a stage that fits a part of the network, after step ``first``."""
        ...

    def inputs(self, batch: B, step: int) -> tuple[Any, ...]:
        """Return what ``losses`` takes of a batch, on the device; ``step`` steps of the run are finished."""
        ...

    def losses(self, model: nn.Module, *inputs: Any) -> dict[str, Tensor]:
        """Compute the loss terms by name, each a mean over the images; ``model`` may be wrapped for processes."""
        ...

    def clipped(self, model: nn.Module, optimiser: Optimizer) -> list[nn.Parameter]:
        """Return the parameters of the gradient norm. Their order decides its last bits and must never change."""
        ...

    def positions(self, batch: B) -> list[int]:
        """Return the positions of the batch's images in the training set."""
        ...

    def image_name(self, position: int) -> str:
        """Name an image of the training set, for errors."""
        ...

    # Results
    def validate(self, model: nn.Module) -> Outcome:
        """Compute the metrics of ``model``; the processes share the work and all get the result."""
        ...

    def save_weights(self, path: Path, model: nn.Module, moment: Moment) -> None:
        """Write the weights of ``model`` with everything that a user of them needs."""
        ...

    def plot(self, folder: Path, validation: Sequence[Row]) -> None:
        """Draw the metrics over the steps into ``folder``."""
        ...

    # Records
    def recipe_json(self) -> str:
        """Return the whole recipe as JSON."""
        ...

    def summary(self) -> dict[str, Any]:
        """Return the identity of the data, for run.json: ``data`` and ``classes``."""
        ...

    def files(self) -> dict[str, str]:
        """Return the files of a run that only this task writes, each with a line that says what it holds."""
        ...

    def use(self, folder: Path) -> str:
        """Return a command that uses the result of the run."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return the task's part of a training state: recipe, identity of the data, and what its stages need."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a training state. Raises InputError if the data are not those of the run."""
        ...
