"""Classification: how a backbone gets its start."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from boxwright.backbones.build import build_backbone
from boxwright.backbones.classifier import Classifier
from boxwright.data.crops import CropPass, CropStream
from boxwright.data.folders import ClassFolders
from boxwright.structures import InputError
from boxwright.training.checkpoint import SUFFIX, TRAIN_SUFFIX, load_train_state, save_train_state
from boxwright.training.config_tree import to_tree
from boxwright.training.distributed import Processes, micro_batch_size, processes, synchronise_batch_norm
from boxwright.training.ema import EMA
from boxwright.training.environment import git_state, machine, peak_memory, versions
from boxwright.training.files import write_atomically
from boxwright.training.interrupt import StopRequest, TrainingInterrupted
from boxwright.training.monitor import LossMonitor, LossRow
from boxwright.training.optimiser import build_optimiser, set_lr
from boxwright.training.pretrain_recipe import PretrainRecipe, dump_pretrain, pretrain_from_tree
from boxwright.training.pretrained import read_card, save_pretrained
from boxwright.training.progress import Clock, Log, open_reporter
from boxwright.training.random_state import random_state, restore_random_state, seed_everything
from boxwright.training.recipe import steps_of
from boxwright.training.run_folder import prepare_folder
from boxwright.training.run_log import RunLog
from boxwright.training.schedule import build_schedule
from boxwright.training.step import autocast

TERM = ("classification",)


class PixelClassifier(nn.Module):
    """A classifier that takes pixels in 0..255 and normalises them itself, as detectors do."""

    def __init__(self, recipe: PretrainRecipe, classes: int) -> None:
        super().__init__()
        self.network = Classifier(build_backbone(recipe.backbone), classes)
        self.bgr = recipe.pixels.bgr
        self.register_buffer("mean", torch.tensor(recipe.pixels.mean).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(recipe.pixels.std).reshape(1, 3, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits ``[B, K]`` of RGB ``[B, 3, H, W]`` in 0..255."""
        x = (pixels.float() - self.get_buffer("mean")) / self.get_buffer("std")
        return self.network((x.flip(1) if self.bgr else x).contiguous(memory_format=torch.channels_last))


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
) -> PretrainResult:
    """Train the recipe's backbone as a classifier of ``train`` into the folder ``output``.

    ``output`` must be empty or absent, or hold the run to ``resume``, whose recipe counts (``recipe`` may be None).
    ``licence``: of the pictures, for the card; a run that is resumed keeps its own where none is given. Writes
    ``backbone.safetensors``, which ``boxwright train --backbone-weights`` takes, after each measurement. Raises
    InputError, and TrainingInterrupted after Ctrl-C.
    """
    output = Path(output)
    with processes(device) as where, StopRequest() as stop:
        if where.main:
            prepare_folder(output, resume)
        where.gather(None)
        state = load_train_state(output / f"last{TRAIN_SUFFIX}") if resume else None
        try:
            if state is not None and "pretrain" not in state:
                raise InputError(f"{output}: the run of a detector; resume it with boxwright train")
            stored = None if state is None else pretrain_from_tree(json.loads(state["pretrain"]))
            if stored is not None and recipe is not None and recipe != stored:
                raise InputError(f"{output}: the run has another recipe; resume without changes, or start a new run")
            agreed = stored or recipe
            if agreed is None:
                raise InputError("a new run needs a backbone")
            run = _Run(pretrain_from_tree(to_tree(agreed)), train, val, where, output, licence, state)
        except InputError:
            if where.main and not resume:
                with suppress(OSError):
                    output.rmdir()  # only where it is empty
            raise
        return run.go(stop, log)


class _Run:
    """Everything that a step changes, and what is written about it."""

    def __init__(
        self,
        recipe: PretrainRecipe,
        train: ClassFolders,
        val: ClassFolders | None,
        where: Processes,
        folder: Path,
        licence: str,
        state: dict[str, Any] | None,
    ) -> None:
        if len(train.classes) < 2:
            raise InputError(f"{train.root}: has one class; a classifier needs at least two class folders")
        self.recipe, self.train, self.val, self.where = recipe, train, val, where
        self.folder, self.licence = folder, licence
        self.step = 0
        self.best: dict[str, Any] | None = None
        seed_everything(recipe.seed)
        share = micro_batch_size(recipe.batch_size, where.world, 1)
        pin = where.device.type == "cuda"
        place = {"rank": where.rank, "world": where.world, "workers": recipe.workers, "pin_memory": pin}
        self.stream = CropStream(train, recipe.crops, share, seed=recipe.seed, **place)
        self.val_pass = None if val is None else CropPass(val, recipe.crops, share, **place)
        self.steps = steps_of(recipe.epochs, "epochs", len(train), recipe.batch_size)
        self.every = steps_of(recipe.validate_every, "epochs", len(train), recipe.batch_size)
        self.schedule = build_schedule(recipe.stage, len(train), recipe.batch_size)
        model = PixelClassifier(recipe, len(train.classes))
        if recipe.sync_batch_norm:
            model = cast(PixelClassifier, synchronise_batch_norm(model, where))
        self.model = model.to(where.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.ema = EMA(self.model, recipe.ema) if recipe.ema is not None else None
        self.optimiser = build_optimiser(recipe.optimiser, self.model, recipe.batch_size)
        self.scaler = torch.amp.GradScaler(where.device.type, enabled=recipe.precision == "fp16")
        if recipe.compile:
            self.model.compile(fullgraph=True)
        self.wrapped = where.wrap(self.model)
        if where.world > 1:
            seed_everything(recipe.seed + where.rank)
        if state is not None:
            self._restore(state)

    def go(self, stop: StopRequest, log: Log) -> PretrainResult:
        """Train to the end; whatever happens, the folder holds the last whole state."""
        monitor = LossMonitor(self.where, self.recipe.log_every, lambda i: str(self.train.path(i)), last=(self.steps,))
        rows = RunLog(self.folder, self.step) if self.where.main else None
        reporter = open_reporter(log, self.where.main, self.steps, self.step)
        clock = Clock()
        if self.where.main:
            write_atomically(self.folder / "recipe.json", dump_pretrain(self.recipe).encode())
            for line in self._announcement():
                reporter.say(line)
        clock.seconds_per_step(self.step)

        def write(found: list[LossRow]) -> None:
            for row in found:
                line = self._row(row, clock)
                if rows is not None:
                    rows.write("train", {k: v for k, v in line.items() if k != "eta"})
                reporter.row(line)

        try:
            while self.step < self.steps:
                loss, indexes = self._take_step()
                reporter.step(self.step)
                write(monitor.record(self.step, TERM, loss, indexes, stop.requested))
                if monitor.stop_seen or (stop.requested and self.where.world == 1):
                    write(monitor.flush())
                    self._save()
                    raise TrainingInterrupted(self.step, self.folder, f"boxwright pretrain --resume {self.folder}")
                if self.step % self.every == 0 or self.step == self.steps:
                    write(monitor.flush())
                    started = time.perf_counter()
                    self._measure(rows, reporter.say)
                    self._save()
                    clock.pause(time.perf_counter() - started)
        finally:
            self.stream.close()
            if self.val_pass is not None:
                self.val_pass.close()
            reporter.close()
            if rows is not None:
                rows.close()
        best = self.best or {"top1": None, "top5": None}
        return PretrainResult(self.folder, self.checkpoint, self.step, best["top1"], best["top5"])

    @property
    def checkpoint(self) -> Path:
        """The file that detectors start from."""
        return self.folder / f"backbone{SUFFIX}"

    def _take_step(self) -> tuple[Tensor, list[int]]:
        batch = next(self.stream)
        device = self.where.device
        pixels, labels = batch.pixels.to(device, non_blocking=True), batch.labels.to(device, non_blocking=True)
        pixels, second, share = mixed(pixels, self.recipe, self.step)
        self.model.train()
        with autocast(device, self.recipe.precision):
            logits = self.wrapped(pixels).float()
            smoothing = self.recipe.label_smoothing
            loss = F.cross_entropy(logits, labels, label_smoothing=smoothing)
            if second:
                other = F.cross_entropy(logits, labels.roll(1), label_smoothing=smoothing)
                loss = share * loss + (1 - share) * other
        set_lr(self.optimiser, self.schedule(self.step))
        self.scaler.scale(loss).backward()
        if self.recipe.clip_norm is not None:
            self.scaler.unscale_(self.optimiser)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.optimiser.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.update()
        self.step += 1
        return loss.detach().reshape(1), batch.indexes.tolist()

    @torch.no_grad()
    def _measure(self, rows: RunLog | None, say: Callable[[str], None]) -> None:
        """Top-1 and top-5 of the weights to use; the file of the best, or the last without validation pictures."""
        network = self._network()
        self.where.align(network)
        if self.val_pass is None:
            self._write_backbone(None)
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
        row = {"step": self.step, "epoch": self._epoch(), "top1": right / count, "top5": near / count}
        better = self.best is None or row["top1"] > self.best["top1"]
        if better:
            self.best = row
            self._write_backbone(row)
        if rows is not None:
            rows.write("validation", row)
        mark = "  (best)" if better else ""
        say(f"validation after step {self.step}: top-1 {row['top1']:.3f}  top-5 {row['top5']:.3f}{mark}")

    def _network(self) -> PixelClassifier:
        """The averaged network where there is one, else the network."""
        return cast(PixelClassifier, self.ema.module) if self.ema is not None else self.model

    def _write_backbone(self, row: dict[str, Any] | None) -> None:
        if not self.where.main:
            return
        card = {
            "backbone": to_tree(self.recipe.backbone),
            "pixels": to_tree(self.recipe.pixels),
            "classes": list(self.train.classes),
            "data": {
                "name": self.train.root.parent.name,
                "images": len(self.train),
                "fingerprint": self.train.fingerprint(),
                "licence": self.licence,
            },
            "top1": None if row is None else row["top1"],
            "top5": None if row is None else row["top5"],
            "validation_images": None if self.val is None else len(self.val),
            "step": self.step,
            "epoch": self._epoch(),
            "recipe": to_tree(self.recipe),
            "versions": versions(),
            "git": git_state(),
            "machine": machine(self.where.device),
        }
        save_pretrained(self.checkpoint, self._network().network.state_dict(), card)

    def _save(self) -> None:
        randomness = self.where.gather(random_state(self.where.device))
        if not self.where.main:
            return
        state = {
            "pretrain": dump_pretrain(self.recipe),
            "classes": list(self.train.classes),
            "fingerprint": self.train.fingerprint(),
            "licence": self.licence,
            "world": self.where.world,
            "step": self.step,
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict() if self.ema is not None else None,
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "random": randomness,
            "best": self.best,
        }
        save_train_state(self.folder / f"last{TRAIN_SUFFIX}", state)

    def _restore(self, state: dict[str, Any]) -> None:
        if state["fingerprint"] != self.train.fingerprint():
            raise InputError(f"{self.train.root}: not the pictures that the run was started on; give those")
        self.model.load_state_dict(state["model"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.scaler.load_state_dict(state["scaler"])
        if state["world"] == self.where.world:
            restore_random_state(state["random"][self.where.rank], self.where.device)
        self.step, self.best = state["step"], state["best"]
        self.stream.seek(self.step)
        before = state.get("licence", "")
        self.licence = self.licence or before
        if self.licence != before and self.where.main and self.checkpoint.is_file():
            self._write_licence()

    def _write_licence(self) -> None:
        """Into the file that is there: the rest of the run may never better it."""
        card = read_card(self.checkpoint)
        card["data"]["licence"] = self.licence
        save_pretrained(self.checkpoint, safetensors.torch.load_file(self.checkpoint), card)

    def _epoch(self) -> float:
        return self.step * self.recipe.batch_size / len(self.train)

    def _row(self, row: LossRow, clock: Clock) -> dict[str, Any]:
        pace = clock.seconds_per_step(row.step)
        return {
            "step": row.step,
            "epoch": row.step * self.recipe.batch_size / len(self.train),
            "loss": row.losses[TERM[0]],
            "lr": max(g["base_lr"] for g in self.optimiser.param_groups) * self.schedule(row.step - 1),
            "images_per_second": None if pace is None else self.recipe.batch_size / pace,
            "memory": peak_memory(self.where.device),
            "eta": None if pace is None else pace * (self.steps - row.step),
        }

    def _announcement(self) -> list[str]:
        size = self.recipe.crops.size
        total = sum(p.numel() for p in self.model.parameters())
        val = "none" if self.val is None else f"{len(self.val)} pictures"
        epochs = self.steps * self.recipe.batch_size / len(self.train)
        lines = [
            f"{self.recipe.name}: {total:,} parameters, crops of {size} x {size} pixels",
            f"data {self.train.root}: {len(self.train)} pictures, {len(self.train.classes)} classes, validation {val}",
            f"{self.steps} steps of {self.recipe.batch_size}, {epochs:.1f} epochs, on {self.where.device}, "
            f"{self.where.world} process(es)",
            f"run folder {self.folder}",
        ]
        return [*lines, f"resuming after step {self.step}"] if self.step else lines


def mixed(pixels: Tensor, recipe: PretrainRecipe, step: int) -> tuple[Tensor, bool, float]:
    """Pixels blended with, or pasted from, the next picture of the batch; whether so, and the first picture's share.

    What is drawn depends on seed and step alone. ``pixels`` ``[B, 3, H, W]``.
    """
    kinds = [kind for kind, value in (("mixup", recipe.mixup), ("cutmix", recipe.cutmix)) if value > 0]
    if not kinds:
        return pixels, False, 1.0
    rng = np.random.Generator(np.random.PCG64([recipe.seed, step]))
    kind = kinds[int(rng.integers(len(kinds)))]
    alpha = recipe.mixup if kind == "mixup" else recipe.cutmix
    share = float(rng.beta(alpha, alpha))
    other = pixels.roll(1, dims=0)
    if kind == "mixup":
        return pixels.float() * share + other.float() * (1 - share), True, share
    height, width = pixels.shape[-2:]
    rows, columns = (round(side * (1 - share) ** 0.5) for side in (height, width))
    top, left = int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1))
    pasted = pixels.clone()
    pasted[..., top : top + rows, left : left + columns] = other[..., top : top + rows, left : left + columns]
    return pasted, True, 1 - rows * columns / (height * width)
