"""Classification: how a backbone gets its start."""

from __future__ import annotations

import json
import shlex
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from boxwright.checkpoints.checkpoint import TRAIN_SUFFIX, load_train_state
from boxwright.config.config_tree import differences, to_tree
from boxwright.config.pretrain_recipe import PretrainRecipe, dump_pretrain, pretrain_from_tree
from boxwright.data.classification.folders import ClassFolders
from boxwright.data.loading.workers import SampleError
from boxwright.data.transforms.crops import CropPass
from boxwright.io.environment import peak_memory, precision_note
from boxwright.io.files import write_atomically
from boxwright.precision import autocast
from boxwright.structures import InputError
from boxwright.training.distributed import processes
from boxwright.training.interrupt import StopRequest, TrainingInterrupted
from boxwright.training.logging.monitor import LossMonitor, LossRow
from boxwright.training.logging.progress import Clock, Log, open_reporter
from boxwright.training.logging.run_folder import prepare_folder
from boxwright.training.logging.run_log import RunLog
from boxwright.training.pretrain_session import PretrainSession

TERM = ("classification",)


@dataclass(frozen=True)
class PretrainResult:
    """What a run left. ``top1`` and ``top5`` in 0..1 on the validation pictures, None without any."""

    folder: Path
    checkpoint: Path
    steps: int
    top1: float | None
    top5: float | None


def pretrain(
    recipe: PretrainRecipe | None,
    train: ClassFolders,
    val: ClassFolders | None,
    output: Path | str,
    *,
    device: str = "auto",
    resume: bool = False,
    licence: str = "",
    log: Log = "auto",
    resume_command: str | None = None,
) -> PretrainResult:
    """Train the recipe's backbone as a classifier of ``train`` into the folder ``output``.

    ``output`` must be empty or absent, or hold the run to ``resume``, whose recipe counts (``recipe`` may be None).
    ``licence``: of the pictures, for the card; a run that is resumed keeps its own where none is given.
    ``resume_command``: what is printed as the way to resume. Writes ``backbone.safetensors``, which ``boxwright train
    --backbone-weights`` takes, after each measurement that is better than all before; without ``val``, where they would
    be. Raises InputError, NonFiniteLossError, and TrainingInterrupted (a KeyboardInterrupt) after Ctrl-C or SIGTERM,
    with a state to resume from.
    """
    output = Path(output)
    with processes(device) as where, StopRequest() as stop:
        if where.main:
            prepare_folder(output, resume)
        where.gather(None)
        state = load_train_state(output / f"last{TRAIN_SUFFIX}") if resume else None
        try:
            agreed = _agreed_recipe(recipe, state, output)
            session = PretrainSession(agreed, train, val, where, output, licence, state)
        except InputError:
            if where.main and not resume:
                with suppress(OSError):
                    output.rmdir()  # only where it is empty
            raise
        own = ["boxwright", "pretrain", "--data", str(train.data), "--resume", str(output)]
        return _Run(session, stop, resume_command or shlex.join(own), log).go()


def _agreed_recipe(recipe: PretrainRecipe | None, state: dict[str, Any] | None, folder: Path) -> PretrainRecipe:
    if state is None:
        if recipe is None:
            raise InputError("a new run needs a backbone")
        return pretrain_from_tree(to_tree(recipe))
    if "pretrain" not in state:
        raise InputError(f"{folder}: the run of a detector; resume it with boxwright train")
    stored = pretrain_from_tree(json.loads(state["pretrain"]))
    if recipe is not None and recipe != stored:
        raise InputError(
            f"{folder}: the run has another recipe ({differences(to_tree(stored), to_tree(recipe))}); resume without "
            "changes to it, or start a new run in another folder"
        )
    return stored


class _Run:
    """A session, and all that is told and written about it."""

    def __init__(self, session: PretrainSession, stop: StopRequest, command: str, log: Log) -> None:
        self.session, self.stop, self.command = session, stop, command
        self.recipe, self.where, self.folder = session.recipe, session.where, session.folder
        train, val = session.train, session.val
        self.val_pass = None if val is None else CropPass(val, self.recipe.crops, session.share, **session.place)
        self.monitor = LossMonitor(
            self.where, self.recipe.log_every, lambda i: str(train.path(i)), last=(session.steps,)
        )
        if session.loaded_monitor is not None:
            self.monitor.load_state_dict(session.loaded_monitor)
        self.clock = Clock()
        self.log: RunLog | None = None
        if self.where.main:
            self.log = RunLog(self.folder, session.step, unvalidated=session.unmeasured)
            write_atomically(self.folder / "recipe.json", dump_pretrain(self.recipe).encode())
        self.reporter = open_reporter(log, self.where.main, session.steps, session.step)

    def go(self) -> PretrainResult:
        """Train to the end; the folder holds the last whole state where something ends it before."""
        session = self.session
        try:
            for line in self._announcement():
                self.reporter.say(line)
            self.clock.seconds_per_step(session.step)
            self._steps()
        except TrainingInterrupted as interrupted:
            self.reporter.say(str(interrupted))
            raise
        except SampleError as error:
            if not (self.folder / f"last{TRAIN_SUFFIX}").is_file():
                raise
            raise InputError(
                f"{error}. This run can go on with that file repaired, or another picture under its name (without it, "
                f"the data are others and need a new run): {self.command}"
            ) from error
        finally:
            session.stream.close()
            if self.val_pass is not None:
                self.val_pass.close()
            self.reporter.close()
            if self.log is not None:
                self.log.close()
        best = session.best or {"top1": None, "top5": None}
        return PretrainResult(self.folder, session.checkpoint, session.step, best["top1"], best["top5"])

    def _steps(self) -> None:
        """All steps that are left, and first the measurement that a stop may have put off."""
        session = self.session
        if session.unmeasured:
            self._measure_and_save()
        while session.step < session.steps:
            try:
                loss, indexes = session.take_step()
            except SampleError:
                if self.where.world == 1:  # other processes know nothing of it
                    self._save()
                raise
            step = session.step
            self.reporter.step(step)
            self._write(self.monitor.record(step, TERM, loss, indexes, self.stop.requested))
            if self.monitor.stop_seen or (self.stop.requested and self.where.world == 1):
                self._save()
                raise TrainingInterrupted(step, self.folder, self.command)
            if session.unmeasured or step % session.save_every == 0:
                self._save()  # first: the measurement may meet a picture that cannot be read
            if session.unmeasured:
                self._measure_and_save()

    def _write(self, found: list[LossRow]) -> None:
        session = self.session
        for row in found:
            pace = self.clock.seconds_per_step(row.step)
            line = {
                "step": row.step,
                "epoch": session.epoch(row.step),
                "loss": row.losses[TERM[0]],
                "lr": session.lr_of(row.step),
                "images_per_second": None if pace is None else self.recipe.batch_size / pace,
                "memory": peak_memory(self.where.device),
            }
            if self.log is not None:
                self.log.write("train", line)
            self.reporter.row({**line, "eta": None if pace is None else pace * (session.steps - row.step)})

    def _save(self) -> None:
        started = time.perf_counter()
        self._write(self.monitor.flush())
        self.session.save(self.monitor.state_dict())
        self.clock.pause(time.perf_counter() - started)

    def _measure_and_save(self) -> None:
        started = time.perf_counter()
        self._measure()
        self.session.measured = self.session.step
        self.clock.pause(time.perf_counter() - started)
        self._save()

    @torch.no_grad()
    def _measure(self) -> None:
        """Top-1 and top-5 of the weights to use; the file of the best, or the last without validation pictures."""
        session = self.session
        network = session.network
        self.where.align(network)
        if self.val_pass is None:
            session.write_backbone(None)
            return
        network.eval()
        hits = torch.zeros(3, dtype=torch.float64, device=self.where.device)
        for batch in self.val_pass:
            labels = batch.labels.to(self.where.device)
            with autocast(self.where.device, self.recipe.precision):
                logits = network(batch.pixels.to(self.where.device)).float()
            top = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels.unsqueeze(1)
            hits += torch.stack([top[:, 0].sum(), top.sum(), torch.full_like(top[:, 0].sum(), len(labels))])
        right, near, count = self.where.sum(hits).tolist()
        epoch = session.epoch(session.step)
        row = {"step": session.step, "epoch": epoch, "top1": right / count, "top5": near / count}
        better = session.best is None or row["top1"] > session.best["top1"]
        if better:
            session.best = row
            session.write_backbone(row)
        if self.log is not None:
            self.log.write("validation", row)
        mark = "  (best)" if better else ""
        self.reporter.say(
            f"validation after step {session.step}: top-1 {row['top1']:.3f}  top-5 {row['top5']:.3f}{mark}"
        )

    def _announcement(self) -> list[str]:
        session, recipe = self.session, self.recipe
        size = recipe.crops.size
        total = sum(p.numel() for p in session.model.parameters())
        val = "none" if session.val is None else f"{len(session.val)} pictures"
        train = session.train
        lines = [
            f"{recipe.name}: {total:,} parameters, crops of {size} x {size} pixels",
            f"data {train.root}: {len(train)} pictures, {len(train.classes)} classes, validation {val}",
            f"{session.steps} steps of {recipe.batch_size}, {session.epoch(session.steps):.1f} epochs, "
            f"{recipe.precision} on {self.where.device}, {self.where.world} process(es)",
            *([note] if (note := precision_note(self.where.device, recipe.precision)) else []),
            f"run folder {self.folder}",
        ]
        if session.step:
            lines.append(f"resuming after step {session.step}")
        return lines + session.notes
