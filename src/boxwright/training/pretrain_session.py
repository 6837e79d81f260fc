"""The state of a classification run: everything that a step changes, what is saved of it, and the file it is for."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from boxwright.backbones.build import build_backbone
from boxwright.backbones.classifier import Classifier
from boxwright.checkpoints.backbone_files import read_card, save_pretrained
from boxwright.checkpoints.checkpoint import SUFFIX, TRAIN_SUFFIX, save_train_state
from boxwright.config.config_tree import to_tree
from boxwright.config.pretrain_recipe import PretrainRecipe, dump_pretrain
from boxwright.config.recipe import steps_of
from boxwright.data.classification.folders import ClassFolders
from boxwright.data.transforms.crops import CropStream
from boxwright.io.environment import git_state, machine, versions
from boxwright.precision import autocast
from boxwright.structures import InputError
from boxwright.training.distributed import Processes, micro_batch_size, synchronise_batch_norm
from boxwright.training.ema import EMA
from boxwright.training.logging.monitor import check_weights
from boxwright.training.optimiser import build_optimiser, set_lr
from boxwright.training.random_state import random_state, restore_random_state, seed_everything
from boxwright.training.schedule import build_schedule


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


class PretrainSession:
    """Network, optimiser, average, random states and place in the data, moved on one step at a time.

    ``step`` counts finished steps of ``steps``; ``measured`` is the last one that was measured after. ``best``: the row
    of the best measurement. ``place``: what loaders need to know of this process.
    """

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
        """A new run, or the one that ``state`` of a checkpoint describes. InputError where the data do not fit it."""
        if len(train.classes) < 2:
            raise InputError(f"{train.root}: has one class; a classifier needs at least two class folders")
        self.recipe, self.train, self.val, self.where = recipe, train, val, where
        self.folder, self.licence = folder, licence
        self.step = self.measured = 0
        self.best: dict[str, Any] | None = None
        self.loaded_monitor: dict[str, Any] | None = None
        self.notes: list[str] = []
        seed_everything(recipe.seed)
        self.share = micro_batch_size(recipe.batch_size, where.world, 1, "batch_size")
        pin = where.device.type == "cuda"
        self.place = {"rank": where.rank, "world": where.world, "workers": recipe.workers, "pin_memory": pin}
        self.stream = CropStream(train, recipe.crops, self.share, seed=recipe.seed, **self.place)
        lengths = (recipe.epochs, recipe.validate_every, recipe.save_every)
        self.steps, self.measure_every, self.save_every = (
            steps_of(length, "epochs", len(train), recipe.batch_size) for length in lengths
        )
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

    @property
    def network(self) -> PixelClassifier:
        """The averaged network where there is one, else the network."""
        return cast(PixelClassifier, self.ema.module) if self.ema is not None else self.model

    @property
    def checkpoint(self) -> Path:
        """The file that detectors start from."""
        return self.folder / f"backbone{SUFFIX}"

    @property
    def unmeasured(self) -> bool:
        """Whether the last step is one to measure after, and that is still to come: now, or put off by a stop."""
        due = self.step % self.measure_every == 0 or self.step == self.steps
        return due and self.step > self.measured

    def epoch(self, step: int) -> float:
        """Epochs finished after ``step``."""
        return step * self.recipe.batch_size / len(self.train)

    def lr_of(self, step: int) -> float:
        """The learning rate that ``step`` was taken with: of the group that learns fastest."""
        return max(g["base_lr"] for g in self.optimiser.param_groups) * self.schedule(step - 1)

    def take_step(self) -> tuple[Tensor, list[int]]:
        """The next step: its loss ``[1]`` on the device, and its pictures' places in the training set.

        PictureError where one cannot be read; nothing has changed then.
        """
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

    def write_backbone(self, row: dict[str, Any] | None) -> None:
        """The file that detectors start from, with a card; ``row``: the measurement of these weights."""
        if not self.where.main:
            return
        card = {
            "backbone": to_tree(self.recipe.backbone),
            "pixels": to_tree(self.recipe.pixels),
            "classes": list(self.train.classes),
            "data": {
                "name": self.train.name,
                "images": len(self.train),
                "fingerprint": self.train.fingerprint(),
                "licence": self.licence,
            },
            "top1": None if row is None else row["top1"],
            "top5": None if row is None else row["top5"],
            "validation_images": None if self.val is None else len(self.val),
            "step": self.step,
            "epoch": self.epoch(self.step),
            "recipe": to_tree(self.recipe),
            "versions": versions(),
            "git": git_state(),
            "machine": machine(self.where.device),
        }
        save_pretrained(self.checkpoint, self.network.network.state_dict(), card)

    def save(self, monitor: dict[str, Any]) -> None:
        """Write ``last.train``. All processes take part; the main one writes. NonFiniteLossError instead where the
        network is lost."""
        check_weights(self.model, self.step)
        randomness = self.where.gather(random_state(self.where.device))
        if not self.where.main:
            return
        state = {
            "pretrain": dump_pretrain(self.recipe),
            "classes": list(self.train.classes),
            "fingerprint": self.train.fingerprint(),
            "val_fingerprint": None if self.val is None else self.val.fingerprint(),
            "licence": self.licence,
            "world": self.where.world,
            "step": self.step,
            "measured": self.measured,
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict() if self.ema is not None else None,
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "random": randomness,
            "monitor": monitor,
            "best": self.best,
        }
        save_train_state(self.folder / f"last{TRAIN_SUFFIX}", state)

    def _restore(self, state: dict[str, Any]) -> None:
        """Go to where ``state`` was saved. Those of earlier versions lack the validation set, the losses since the last
        row, and which step was measured: they are measured anew, with the same result."""
        if state["fingerprint"] != self.train.fingerprint():
            raise InputError(f"{self.train.root}: not the pictures that the run was started on; give those")
        measures_on = None if self.val is None else self.val.fingerprint()
        if state.get("val_fingerprint", measures_on) != measures_on:
            raise InputError(
                f"{self.train.data}: the pictures to measure on are not those that the run had, so that its best could "
                "not be told; give those"
            )
        self.model.load_state_dict(state["model"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.scaler.load_state_dict(state["scaler"])
        if state["world"] == self.where.world:
            restore_random_state(state["random"][self.where.rank], self.where.device)
        else:
            self.notes.append(
                f"the run had {state['world']} process(es) and now has {self.where.world}: it goes on, not bit for bit"
            )
        self.step, self.best, self.measured = state["step"], state["best"], state.get("measured", 0)
        self.loaded_monitor = state.get("monitor")
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


def mixed(pixels: Tensor, recipe: PretrainRecipe, step: int) -> tuple[Tensor, bool, float]:
    """Pixels blended with, or pasted from, the next picture of the batch; whether so, and the first picture's share.

    What is drawn depends on seed and step alone. ``pixels`` ``[B, 3, H, W]``. A pasted patch lies wholly inside the
    picture and so has the size that the drawn share asks for; Yun et al. (2019) draw its centre, and clip it at the
    borders.
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
