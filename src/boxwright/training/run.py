"""The training loop, one for every task: steps, validations, checkpoints, and the record of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Generic, NoReturn, TypeVar

from boxwright.checkpoints.checkpoint import TRAIN_SUFFIX, load_train_state
from boxwright.config.config_tree import differences, to_tree
from boxwright.config.pretrain_recipe import TrainingRecipe
from boxwright.data.loading.workers import SampleError, WorkerError
from boxwright.io.environment import peak_memory, precision_note
from boxwright.io.files import write_atomically
from boxwright.structures import InputError
from boxwright.training.data_files import FILE, compare_data
from boxwright.training.distributed import Processes, processes
from boxwright.training.interrupt import StopRequest, TrainingInterrupted
from boxwright.training.logging.forecast import Forecast
from boxwright.training.logging.monitor import LossMonitor, LossRow
from boxwright.training.logging.plots import plot_losses
from boxwright.training.logging.progress import Clock, Log, Reporter, open_reporter
from boxwright.training.logging.run_folder import describe_run, finish_run, read_run, run_folder
from boxwright.training.logging.run_log import RunLog
from boxwright.training.session import Session
from boxwright.training.state_checks import StateError, check_outline
from boxwright.training.tasks.task import Task

PLOT_SECONDS = 30

B = TypeVar("B")
R = TypeVar("R", bound=TrainingRecipe)
State = dict[str, Any]


def run_task(
    open_task: Callable[[Processes, State | None], Task[Any]],
    output: Path,
    *,
    device: str,
    resume: bool,
    command: str,
    log: Log,
    tensorboard: bool = False,
    records: Mapping[str, str] | None = None,
    extended: bool = False,
) -> tuple[Session[Any], bool]:
    """Run a task into the folder ``output``. Returns its last state, and whether it stopped early.

    ``open_task`` gets the training state to ``resume``, else None. ``command`` is printed and noted as the way to
    resume. ``records``: texts to write into the folder of a new run, by file name. ``extended``: the task's recipe has
    more steps than that of the resumed run; the state is then saved at once, and patience counts anew. Raises
    InputError for bad input, NonFiniteLossError and TrainingInterrupted.
    """
    with processes(device) as joined, StopRequest() as stop, ExitStack() as holding:
        locks = holding.enter_context(run_folder(output, resume)) if joined.main else True
        joined.gather(None)  # no process reads or writes before the folder is checked
        session = open_session(open_task, joined, output / f"last{TRAIN_SUFFIX}" if resume else None)
        record = compare_files(session, output, resume)
        if not locks:
            session.notes.append(
                f"WARNING: the file system of {output} has no locks: let no second process train into this folder"
            )
        run = Run(session, output, stop, command, log, tensorboard, {} if resume else records or {})
        if joined.main:
            write_atomically(output / FILE, record)
        if extended:
            session.saved = None
            if session.recipe.validation.patience is not None:
                session.validations_since_best = 0
        return session, run.go()


def open_session(
    open_task: Callable[[Processes, State | None], Task[Any]], joined: Processes, path: Path | None
) -> Session[Any]:
    """Begin a run, or go to the training state in the file ``path``; errors about its entries name the file."""
    if path is None:
        return Session(open_task(joined, None), None)
    state = load_train_state(path)
    try:
        check_outline(state, str(path))
        return Session(open_task(joined, state), state)
    except StateError as error:
        raise InputError(f"{path}: {error}") from error


def compare_files(session: Session[Any], folder: Path, resume: bool) -> bytes:
    """Compare the files of the data with those at the start of the run; return the record of them.

    Raises InputError at all processes, although only the main one looks.
    """
    fault, record = None, b""
    if session.processes.main:
        try:
            ended = str(read_run(folder).get("status", "")) if resume else ""
            remarks, record = compare_data(folder, session.task.data_files(), resume, ended)
            session.notes += remarks
        except InputError as error:
            fault = str(error)
    if (fault := session.processes.broadcast(fault)) is not None:
        raise InputError(fault)
    return record


def agreed_recipe(given: R | None, stored: R | None, folder: Path, needed: str) -> R:
    """Return the recipe of a run: the one ``given`` for a new run, the ``stored`` one of a resumed run.

    Raises InputError if they differ, or if a new run has none; ``needed`` then says what is missing.
    """
    if stored is None:
        if given is None:
            raise InputError(f"a new run needs {needed}")
        return given
    if given is not None and given != stored:
        raise InputError(
            f"{folder}: the run has another recipe ({differences(to_tree(stored), to_tree(given))}); resume without "
            "changes to it, or start a new run in another folder"
        )
    return stored


class Run(Generic[B]):
    """A session, with everything that is said and written about it."""

    def __init__(
        self,
        session: Session[B],
        folder: Path,
        stop: StopRequest,
        command: str,
        log: Log,
        tensorboard: bool,
        records: Mapping[str, str],
    ) -> None:
        self.session, self.task, self.plan = session, session.task, session.plan
        self.recipe, self.processes = session.recipe, session.processes
        self.folder, self.stop, self.command = folder, stop, command
        self.monitor = LossMonitor(self.processes, self.recipe.log_every, self.task.image_name, last=self.plan.ends)
        if session.loaded_monitor is not None:
            self.monitor.load_state_dict(session.loaded_monitor)
        self.clock = Clock()
        self.forecast = Forecast()
        self.plotted = time.perf_counter()
        self.pace: float | None = None
        self.log: RunLog | None = None
        if self.processes.main:
            self.log = RunLog(folder, session.step, tensorboard, session.owes_validation)
            describe_run(folder, self.task, self.processes.device, command, records)
        self.reporter: Reporter = open_reporter(log, self.processes.main, self.plan.total, session.step)

    def go(self) -> bool:
        """Train to the end and note in the folder how it ended. Returns True if the run stopped early."""
        try:
            for line in announcement(self.session, self.folder):
                self.reporter.say(line)
            self.clock.seconds_per_step(self.session.step)
            stopped_early = self._steps()
            self._finish("stopped early" if stopped_early else "finished")
        except TrainingInterrupted as interrupted:
            self._finish("interrupted")
            self.reporter.say(str(interrupted))
            raise
        except BaseException as error:
            self._finish(f"failed: {type(error).__name__}: {error}")
            raise
        finally:
            self.session.close()
            self.reporter.close()
            if self.log is not None:
                self.log.close()
        return stopped_early

    def _steps(self) -> bool:
        """Take all remaining steps. Returns True if the patience of the validation ended them."""
        session, patience = self.session, self.recipe.validation.patience
        if session.step and session.saved is None:  # a stop before the next checkpoint must not lose the extension
            self._save()
        if session.owes_validation:
            self._validate_and_save()
        elif session.step and self.task.last_file and not (self.folder / self.task.last_file).is_file():
            self._save()  # a stopped run of an earlier version may lack the file
        while session.step < self.plan.total:
            if patience is not None and session.validations_since_best >= patience:
                metric = self.task.shown.get(self.task.metric, self.task.metric)
                self.reporter.say(f"stopped early: no better {metric} in {patience} validations")
                return True
            values, positions = self._take_step()
            step = session.step
            self.reporter.step(step)
            self._write(self.monitor.record(step, session.runner.names, values, positions, self.stop.requested))
            if session.runner.summary is not None:
                self._write(self.monitor.flush())
                self.reporter.say(f"after step {step}: {session.runner.summary}")
            if self.monitor.stop_seen or (self.stop.requested and self.processes.world == 1):
                self._save()
                raise TrainingInterrupted(step, self.folder, self.command)
            if session.owes_validation:
                self._validate_and_save()
            elif self.plan.saves(step):
                self._save()
        return False

    def _take_step(self) -> Any:
        try:
            return self.session.take_step()
        except (SampleError, WorkerError) as error:
            self._save_and_raise(error)

    def _validate_and_save(self) -> None:
        # A validation may fail or be killed; the steps before it are then not lost. A resumed run has saved them.
        if self.session.saved != self.session.step:
            self._save()
        self._write(self.monitor.flush())
        self.session.check_weights()
        try:
            self._validate()
        except (SampleError, WorkerError) as error:
            self._save_and_raise(error)
        self._save()

    def _save_and_raise(self, error: SampleError | WorkerError) -> NoReturn:
        """Save the state before the batch that could not be made, and say how to continue from it.

        Not saved are a step that other processes take part in, as they do not know of the error, and the beginning of a
        stage: its parts are reset already, and a resumed run would reset them again.
        """
        session = self.session
        if self.processes.world == 1 and not session.at_stage_start:
            self._save()
        fewer = "with fewer workers if memory ran out (--workers 1; 0 loads in the main process)"
        if session.saved is None:
            raise error if isinstance(error, SampleError) else WorkerError(f"{error}. Begin again, {fewer}") from error
        saved = f"The run is saved after step {session.saved}"
        if isinstance(error, WorkerError):
            raise WorkerError(f"{error}. {saved}. Resume, {fewer}: {self.command}") from error
        raise InputError(
            f"{error}. {saved}. Repair that file, or put another image under "
            "its name (without it the data set is another one and needs a new run), then resume with: "
            f"{self.command}"
        ) from error

    def _write(self, rows: list[LossRow]) -> None:
        for row in rows:
            pace = self.pace = self.clock.seconds_per_step(row.step) or self.pace
            stage = self.plan.stages[self.plan.stage_of(row.step)]
            learns = stage.schedule is not None
            terms = _loss_terms(row.losses) if len(row.losses) > 1 else {}  # one term is the loss itself
            line = {
                "step": row.step,
                "epoch": self.plan.epoch(row.step),
                "loss": sum(row.losses.values()) if learns else None,
                **(terms if learns else row.losses),
                "lr": self.session.lr_of(row.step),
                "images_per_second": None if pace is None else stage.step_images / pace,
                "memory": peak_memory(self.processes.device),
            }
            if self.log is not None:
                self.log.write("train", line)
            # The pace of one stage says nothing about one of another kind.
            left = (stage.last if self.plan.has_fit_stage else self.plan.total) - row.step
            text = {} if learns else {"stage": stage.stage.name, "figures": row.losses}
            self.reporter.row({**line, **text, "eta": None if pace is None else pace * left})
            if learns and pace is not None and self.forecast.due():
                self._tell_end(row.step, pace * left)

    def _tell_end(self, step: int, seconds: float) -> None:
        """Say when the run will end, or its stage if others are of another kind."""
        last = self.plan.stages[self.plan.stage_of(step)].last if self.plan.has_fit_stage else self.plan.total
        steps = range(step + 1, last + 1) if self.task.validated else ()
        text = self.forecast.text(seconds, sum(map(self.plan.validates, steps)))
        if text is not None:
            self.reporter.say(text)

    def _validate(self) -> None:
        started = time.perf_counter()
        session = self.session
        row, best, draw = session.validate()
        if self.log is not None:
            self.log.write("validation", row)
            if best:
                session.save_weights(self.folder / self.task.best_file)
            draw(self.folder)
            self._plot()
        shown = [f"{text} {row[name]:.3f}" for name, text in self.task.shown.items() if row.get(name) is not None]
        mark = "  (best)" if best else ""
        self.reporter.say(f"validation after step {session.step}: {'  '.join(shown)}{mark}")
        self.clock.pause(time.perf_counter() - started)
        self.forecast.validated(time.perf_counter() - started)

    def _save(self) -> None:
        started = time.perf_counter()
        self._write(self.monitor.flush())
        self.session.save(self.folder, self.monitor.state_dict())
        self.clock.pause(time.perf_counter() - started)

    def _plot(self, last: bool = False) -> None:
        """Draw the curves, but not at every validation: drawing is the largest cost of a small run."""
        if self.log is None or not (last or time.perf_counter() - self.plotted > PLOT_SECONDS):
            return
        self.plotted = time.perf_counter()
        plot_losses(self.folder / "loss.png", self.log.of("train"), self.log.of("validation"))
        if validation := self.log.of("validation"):
            self.task.plot(self.folder, validation)

    def _finish(self, status: str) -> None:
        if not self.processes.main:
            return
        best = self.session.best
        finish_run(self.folder, status, step=self.session.step, best=best, last_validation=self.session.last_validation)
        self._plot(last=True)


def announcement(session: Session[Any], folder: Path) -> list[str]:
    """Describe a run into ``folder`` in a few lines, before its next step."""
    recipe, plan, task, device = session.recipe, session.plan, session.task, session.processes.device
    total = sum(p.numel() for p in session.model.parameters())
    seen = sum(s.steps * s.step_images for s in plan.stages if s.schedule is not None)
    lines = [
        f"recipe {recipe.name}: {total:,} parameters, {session.runner.learning:,} of them learn",
        *task.description(),
        f"{plan.batches} steps of {plan.batch_size} images, {seen / plan.images:.1f} epochs, "
        f"{session.runner.description}, {recipe.precision} on {device}, {session.processes.world} process(es)",
        *([note] if (note := precision_note(device, recipe.precision)) else []),
        *(
            f"then {planned.steps} steps of one image to fit {planned.stage.name!r}"
            for planned in plan.stages
            if planned.schedule is None
        ),
        f"run folder {folder}",
        *([f"resuming after step {session.step}"] if session.step else []),
    ]
    return [*lines, *task.warnings(), *task.notes, *session.notes]


def _loss_terms(losses: dict[str, float]) -> dict[str, float]:
    return {name if name.startswith("loss_") else f"loss_{name}": value for name, value in losses.items()}
