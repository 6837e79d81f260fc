"""The training loop, one for every detector."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boxwright.checkpoints.checkpoint import SUFFIX, TRAIN_SUFFIX, check_classes, load_train_state
from boxwright.config.config_tree import differences, to_tree
from boxwright.config.reading import check_recipe, load_recipe
from boxwright.config.recipe import Recipe
from boxwright.data.index import DetectionIndex
from boxwright.data.proposals.files import proposals_of_split
from boxwright.detectors.build import DetectorConfig, build_detector
from boxwright.detectors.contract.detector import Detector
from boxwright.evaluation.coco import json_safe
from boxwright.io.environment import peak_memory
from boxwright.structures import Classes, InputError
from boxwright.training.distributed import Processes, processes
from boxwright.training.interrupt import StopRequest, TrainingInterrupted
from boxwright.training.logging.monitor import LossMonitor, LossRow
from boxwright.training.logging.plots import draw_samples, plot_losses, plot_precision
from boxwright.training.logging.progress import Clock, Log, Reporter, open_reporter
from boxwright.training.logging.run_folder import data_summary, describe_run, finish_run, prepare_folder
from boxwright.training.logging.run_log import RunLog
from boxwright.training.session import Session, Start
from boxwright.training.validation import validate

PLOT_SECONDS = 30

Build = Callable[[DetectorConfig, Classes], Detector]


@dataclass(frozen=True)
class TrainResult:
    """What a run left. ``metrics``: COCO's numbers of the last validation; ``best``: of the best one, with its step.

    ``best_checkpoint`` is None in a run without validation set.
    """

    folder: Path
    steps: int
    stopped_early: bool
    metrics: dict[str, Any] | None
    best: dict[str, Any] | None
    best_checkpoint: Path | None
    last_checkpoint: Path

    @property
    def checkpoint(self) -> Path:
        """The one to use: the best, or else the last."""
        return self.best_checkpoint or self.last_checkpoint


def train(
    recipe: Recipe | None,
    train_index: DetectionIndex,
    val_index: DetectionIndex | None,
    output: Path | str,
    *,
    device: str = "auto",
    resume: bool = False,
    weights: Start | None = None,
    backbone_weights: Path | str | None = None,
    carry_classes: bool = True,
    tensorboard: bool = False,
    log: Log = "auto",
    resume_command: str | None = None,
    build: Build = build_detector,
) -> TrainResult:
    """Train what ``recipe`` says on ``train_index`` into the folder ``output``, validating on ``val_index``.

    ``output`` must be empty or absent, or hold the run to ``resume``; its recipe counts, and ``recipe`` may be None.
    ``weights``: a checkpoint, run folder, state dict or import to start from; tensors are taken where name and shape
    agree, and of classes that differ, with ``carry_classes``, those of the same name. ``backbone_weights``: an
    ImageNet network of any publisher, see :func:`~boxwright.checkpoints.backbone_files.load_pretrained`, which must fit
    the recipe's backbone. ``log``: "auto" (a bar on a terminal, else lines), "bar", "lines", "quiet", or a function
    that takes lines. ``resume_command``: what is printed and noted as the way to resume. Under ``torchrun`` every
    process calls this.

    Raises InputError for bad input, NonFiniteLossError, and TrainingInterrupted (a KeyboardInterrupt) after Ctrl-C or
    SIGTERM, with a checkpoint to resume from.
    """
    output = Path(output)
    with processes(device) as where, StopRequest() as stop:
        if where.main:
            prepare_folder(output, resume)
        where.gather(None)  # nobody reads or writes before the folder is checked
        state = load_train_state(output / f"last{TRAIN_SUFFIX}") if resume else None
        try:
            agreed = _agreed_recipe(recipe, state, output)
            check_data(train_index, val_index)
            if agreed.data.proposals is not None and val_index is not None:
                proposals_of_split(agreed.data.proposals, "val", val_index)  # now, not after an epoch
            start = (None, None) if state else (weights, backbone_weights)
            session = Session(agreed, train_index, where, build, *start, state, carry_classes)
        except InputError:
            if where.main:
                with suppress(OSError):
                    output.rmdir()  # only where it is empty: a run that never began leaves nothing
            raise
        command = resume_command or f"boxwright train {agreed.name} --data {train_index.root} --resume {output}"
        return _Run(session, val_index, output, stop, command, log, tensorboard).go()


def check_data(train_index: DetectionIndex, val_index: DetectionIndex | None) -> None:
    """InputError for what cannot be trained on: no images, no boxes, classes that differ between the splits."""
    for index, what in ((train_index, "training"), (val_index, "validation")):
        if index is not None and len(index) == 0:
            raise InputError(f"{index.root}: the {what} set has no image; check the path and the split")
    if train_index.num_boxes == 0:
        raise InputError(
            f"{train_index.root}: the training set has {len(train_index)} images and no box; annotate some"
        )
    if val_index is not None:
        names = f"the validation set {val_index.root}", f"the training set {train_index.root}"
        check_classes(val_index.classes, train_index.classes, *names, "the training set")


def _agreed_recipe(recipe: Recipe | None, state: dict[str, Any] | None, folder: Path) -> Recipe:
    if state is None:
        if recipe is None:
            raise InputError("a new run needs a recipe")
        return check_recipe(recipe)
    stored = load_recipe(state["recipe"], f"{folder / f'last{TRAIN_SUFFIX}'}")
    if recipe is not None and recipe != stored:
        raise InputError(
            f"{folder}: the run has another recipe ({differences(to_tree(stored), to_tree(recipe))}); resume without "
            "changes to it, or start a new run in another folder, with the old checkpoint as weights"
        )
    return stored


class _Run:
    """A session, and all that is told and written about it."""

    def __init__(
        self,
        session: Session,
        val_index: DetectionIndex | None,
        folder: Path,
        stop: StopRequest,
        command: str,
        log: Log,
        tensorboard: bool,
    ) -> None:
        self.session = session
        self.recipe = session.recipe
        self.plan = session.plan
        self.where: Processes = session.where
        self.val_index = val_index
        self.folder = folder
        self.stop = stop
        self.command = command
        index = session.index
        self.monitor = LossMonitor(
            self.where,
            self.recipe.log_every,
            lambda i: f"{index.path(i)} (image id {index.image_id(i)})",
            last=self.plan.ends,
        )
        if session.loaded_monitor is not None:
            self.monitor.load_state_dict(session.loaded_monitor)
        self.clock = Clock()
        self.plotted = time.perf_counter()
        self.pace: float | None = None
        self.log: RunLog | None = None
        if self.where.main:
            val = data_summary(val_index) if val_index is not None else None
            names = index.classes.names
            self.log = RunLog(folder, session.step, tensorboard, self._owes_validation)
            describe_run(folder, self.recipe, session.data, val, names, self.where.device, command)
        self.reporter: Reporter = open_reporter(log, self.where.main, self.plan.total, session.step)

    def go(self) -> TrainResult:
        """Train to the end; whatever happens, the folder says so."""
        try:
            for line in self.session.announcement(self.val_index, self.folder):
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
        return self._result(stopped_early)

    def _steps(self) -> bool:
        """All steps that are left; true where the validation's patience ended them."""
        session, patience = self.session, self.recipe.validation.patience
        if self._owes_validation:
            self._validate_and_save()
        while session.step < self.plan.total:
            if patience is not None and session.validations_since_best >= patience:
                self.reporter.say(f"stopped early: no better AP in {patience} validations")
                return True
            losses, images = session.take_step()
            step = session.step
            self.reporter.step(step)
            self._write(self.monitor.record(step, session.names, losses, images, self.stop.requested))
            if session.fit is not None and session.fit.summary is not None:
                self._write(self.monitor.flush())
                self.reporter.say(f"after step {step}: {session.fit.summary}")
            if self.monitor.stop_seen or (self.stop.requested and self.where.world == 1):
                self._save()
                raise TrainingInterrupted(step, self.folder, self.command)
            if self.val_index is not None and self.plan.validates(step):
                self._validate_and_save()
            elif self.plan.saves(step):
                self._save()
        return False

    @property
    def _owes_validation(self) -> bool:
        """Whether a stop put off the validation of the last step: the run that never stopped has it."""
        return self.val_index is not None and self.session.unvalidated

    def _write(self, rows: list[LossRow]) -> None:
        for row in rows:
            pace = self.clock.seconds_per_step(row.step) or self.pace
            self.pace = pace
            stage = self.plan.stages[self.plan.stage_of(row.step)]
            learns = stage.schedule is not None
            terms = {name if name.startswith("loss_") else f"loss_{name}": v for name, v in row.losses.items()}
            line = {
                "step": row.step,
                "epoch": self.plan.epoch(row.step),
                "loss": sum(row.losses.values()) if learns else None,
                **(terms if learns else row.losses),
                "lr": self.session.lr_of(row.step),
                "images_per_second": None if pace is None else stage.step_images / pace,
                "memory": peak_memory(self.where.device),
            }
            if self.log is not None:
                self.log.write("train", line)
            # The pace of one stage says nothing about one of another kind.
            left = (stage.last if self.plan.fits else self.plan.total) - row.step
            text = {} if learns else {"stage": stage.stage.name, "figures": row.losses}
            self.reporter.row({**line, **text, "eta": None if pace is None else pace * left})

    def _validate_and_save(self) -> None:
        self._write(self.monitor.flush())
        self._validate()
        self._save()

    def _validate(self) -> None:
        assert self.val_index is not None
        self.session.check_weights()
        started = time.perf_counter()
        session = self.session
        self.where.align(session.weights_to_use)
        found = validate(
            session.weights_to_use,
            self.val_index,
            self.recipe.data,
            self.where,
            self.recipe.precision,
            losses=self.recipe.validation.loss,
        )
        stats = self.where.broadcast(found.stats() if self.where.main else None)
        terms = {name if name.startswith("loss_") else f"loss_{name}": v for name, v in found.losses.items()}
        row = json_safe(
            {"step": session.step, "epoch": self.plan.epoch(session.step), "loss": found.loss, **terms, **stats}
        )
        best = session.note_validation(row)
        if self.log is not None:
            self.log.write("validation", row)
            drawn = (found.masks or found.evaluation).detections()
            draw_samples(self.folder / "samples.jpg", self.val_index, drawn)
            if best:
                session.save_weights(self.folder / f"best{SUFFIX}")
            self._plot()
        shown = ("AP", "AP50", "AP75", "mask_AP")
        values = "  ".join(f"{k.replace('_', ' ')} {row[k]:.3f}" for k in shown if row.get(k) is not None)
        self.reporter.say(f"validation after step {session.step}: {values}{'  (best)' if best else ''}")
        self.clock.pause(time.perf_counter() - started)

    def _save(self) -> None:
        started = time.perf_counter()
        self._write(self.monitor.flush())
        self.session.save(self.folder, self.monitor.state_dict())
        self.clock.pause(time.perf_counter() - started)

    def _plot(self, last: bool = False) -> None:
        """The curves, now and then; matplotlib would else be the largest cost of a small run."""
        if self.log is None or not (last or time.perf_counter() - self.plotted > PLOT_SECONDS):
            return
        self.plotted = time.perf_counter()
        plot_losses(self.folder / "loss.png", self.log.of("train"), self.log.of("validation"))
        if self.log.of("validation"):
            plot_precision(self.folder / "ap.png", self.log.of("validation"))

    def _finish(self, status: str) -> None:
        if not self.where.main:
            return
        best = self.session.best
        finish_run(self.folder, status, step=self.session.step, best=best, last_validation=self.session.last_validation)
        self._plot(last=True)

    def _result(self, stopped_early: bool) -> TrainResult:
        best = self.folder / f"best{SUFFIX}"
        return TrainResult(
            folder=self.folder,
            steps=self.session.step,
            stopped_early=stopped_early,
            metrics=self.session.last_validation,
            best=self.session.best,
            best_checkpoint=best if self.session.best is not None else None,
            last_checkpoint=self.folder / f"last{SUFFIX}",
        )
