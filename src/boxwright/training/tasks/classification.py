"""Image classification as a task of the training loop: pretraining of a backbone."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from boxwright.backbones.build import build_backbone
from boxwright.backbones.classifier import Classifier
from boxwright.checkpoints.backbone_files import read_card, save_pretrained
from boxwright.checkpoints.checkpoint import SUFFIX, TRAIN_SUFFIX
from boxwright.config.config_tree import to_tree
from boxwright.config.pretrain_recipe import PretrainRecipe, dump_pretrain, pretrain_from_tree
from boxwright.config.reading import parse_json
from boxwright.config.recipe import FitStage, Stage
from boxwright.data.classification.folders import ClassFolders
from boxwright.data.transforms.crops import ClassBatch, CropPass, CropStream
from boxwright.io.environment import git_state, machine, versions
from boxwright.precision import autocast
from boxwright.structures import InputError
from boxwright.training.data_files import DataFile
from boxwright.training.distributed import Processes, micro_batch_size, synchronise_batch_norm
from boxwright.training.logging.plots import plot_accuracy
from boxwright.training.stages.runner import StageRunner
from boxwright.training.tasks.task import Moment, Outcome, Row
from boxwright.training.validation import validation_mode

BACKBONE = f"backbone{SUFFIX}"
"""File of a run that detectors start from."""


class PixelClassifier(nn.Module):
    """A classifier that takes pixels in 0..255 and normalises them itself, as detectors do."""

    def __init__(self, recipe: PretrainRecipe, classes: int) -> None:
        super().__init__()
        self.network = Classifier(build_backbone(recipe.backbone), classes)
        self.bgr = recipe.pixels.bgr
        self.register_buffer("mean", torch.tensor(recipe.pixels.mean).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(recipe.pixels.std).reshape(1, 3, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Compute logits ``[B, K]`` of RGB ``[B, 3, H, W]`` in 0..255."""
        x = (pixels.float() - self.get_buffer("mean")) / self.get_buffer("std")
        return self.network((x.flip(1) if self.bgr else x).contiguous(memory_format=torch.channels_last))


class ClassificationTask:
    """A backbone with a linear classifier on folders of images, with top-1 accuracy as metric."""

    metric = "top1"
    shown: Mapping[str, str] = {"top1": "top-1", "top5": "top-5"}
    best_file = BACKBONE

    def __init__(
        self,
        recipe: PretrainRecipe,
        train: ClassFolders,
        val: ClassFolders | None,
        processes: Processes,
        folder: Path,
        licence: str,
    ) -> None:
        """``licence``: of the images, for the card of the file in ``folder``."""
        if len(train.classes) < 2:
            raise InputError(f"{train.root}: has one class; a classifier needs at least two class folders")
        self.recipe, self.train, self.val, self.processes = recipe, train, val, processes
        self.folder, self.licence = folder, licence
        self.images = len(train)
        self.validated = val is not None
        self.last_file: str | None = None if self.validated else BACKBONE
        self.notes: list[str] = []
        self.share = micro_batch_size(recipe.batch_size, processes.world, 1, "batch_size")
        self.loading = {
            "rank": processes.rank,
            "world": processes.world,
            "workers": recipe.workers,
            "pin_memory": processes.device.type == "cuda",
        }

    def open_stream(self) -> CropStream:
        """Open the stream of training crops of this process."""
        return CropStream(self.train, self.recipe.crops, self.share, seed=self.recipe.seed, **self.loading)

    def build(self, resumed: bool) -> PixelClassifier:
        """Build the backbone with its classifier on the device."""
        model = PixelClassifier(self.recipe, len(self.train.classes))
        if self.recipe.sync_batch_norm:
            model = cast(PixelClassifier, synchronise_batch_norm(model, self.processes))
        return model.to(self.processes.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def data_files(self) -> list[DataFile]:
        """Return the images of both sets."""
        sets = [("train", self.train)] + ([] if self.val is None else [("val", self.val)])
        return [
            DataFile(split, os.fsdecode(bytes(folders.names[i])), folders.path(i))
            for split, folders in sets
            for i in range(len(folders))
        ]

    def description(self) -> list[str]:
        """Describe the data set in a line."""
        size, val = self.recipe.crops.size, "none" if self.val is None else f"{len(self.val)} images"
        return [
            f"data {self.train.root}: {len(self.train)} images in crops of {size} x {size} pixels, "
            f"{len(self.train.classes)} classes, validation {val}"
        ]

    def warnings(self) -> list[str]:
        """Return no warnings."""
        return []

    def begin_stage(self, stage: Stage, first: bool, model: nn.Module, eval_model: nn.Module) -> None:
        """Do nothing: the only stage needs no preparation."""

    def fit(self, stage: FitStage, first: int, model: nn.Module, eval_model: nn.Module) -> StageRunner:
        """Refuse: a classifier has nothing to fit."""
        raise AssertionError("a recipe of classification has no stage that fits")

    def inputs(self, batch: ClassBatch, step: int) -> tuple[Any, ...]:
        """Return pixels, labels, whether a second image is mixed in, and the share of the first."""
        moved = batch.to(self.processes.device)
        pixels, second, share = mixed(moved.pixels, self.recipe, step)
        return pixels, moved.labels, second, share

    def losses(self, model: nn.Module, *inputs: Any) -> dict[str, Tensor]:
        """Compute the cross-entropy with label smoothing, shared between the two labels of a mixed image."""
        pixels, labels, second, share = inputs
        logits = model(pixels).float()
        smoothing = self.recipe.label_smoothing
        loss = F.cross_entropy(logits, labels, label_smoothing=smoothing)
        if second:
            other = F.cross_entropy(logits, labels.roll(1), label_smoothing=smoothing)
            loss = share * loss + (1 - share) * other
        return {"classification": loss}

    def clipped(self, model: nn.Module, optimiser: Optimizer) -> list[nn.Parameter]:
        """Return the parameters in the order of the network."""
        return list(model.parameters())

    def positions(self, batch: ClassBatch) -> list[int]:
        """Return the positions of the batch's images in the training set."""
        return batch.indexes.tolist()

    def image_name(self, position: int) -> str:
        """Name an image by its path."""
        return str(self.train.path(position))

    @torch.no_grad()
    def validate(self, model: nn.Module) -> Outcome:
        """Compute the top-1 and top-5 accuracy, in 0..1."""
        assert self.val is not None
        device = self.processes.device
        hits = torch.zeros(3, dtype=torch.float64, device=device)
        loader = CropPass(self.val, self.recipe.crops, self.share, **self.loading)
        try:
            with validation_mode(model):
                for batch in loader:
                    labels = batch.labels.to(device)
                    with autocast(device, self.recipe.precision):
                        logits = model(batch.pixels.to(device)).float()
                    top = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels.unsqueeze(1)
                    hits += torch.stack([top[:, 0].sum(), top.sum(), torch.full_like(top[:, 0].sum(), len(labels))])
        finally:
            loader.close()
        first, among_five, count = self.processes.sum(hits).tolist()
        return Outcome({"top1": first / count, "top5": among_five / count})

    def save_weights(self, path: Path, model: nn.Module, moment: Moment) -> None:
        """Write the backbone with its classifier, and a card."""
        metrics = moment.metrics or {"top1": None, "top5": None}
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
            "top1": metrics["top1"],
            "top5": metrics["top5"],
            "validation_images": None if self.val is None else len(self.val),
            "step": moment.step,
            "epoch": moment.epoch,
            "recipe": to_tree(self.recipe),
            "versions": versions(),
            "git": git_state(),
            "machine": machine(self.processes.device),
        }
        save_pretrained(path, cast(PixelClassifier, model).network.state_dict(), card)

    def plot(self, folder: Path, validation: Sequence[Row]) -> None:
        """Draw the accuracy over the steps."""
        plot_accuracy(folder / "accuracy.png", validation)

    def recipe_json(self) -> str:
        """Return the resolved recipe as JSON."""
        return dump_pretrain(self.recipe)

    def summary(self) -> dict[str, Any]:
        """Identify the training and the validation set, and list the classes."""
        val = None if self.val is None else _summary(self.val)
        return {"data": {"train": _summary(self.train), "validation": val}, "classes": list(self.train.classes)}

    def files(self) -> dict[str, str]:
        """Describe the file of the backbone and the curve of accuracy."""
        return {
            BACKBONE: "weights with the best top-1 on the validation set (the last without one): detectors start here",
            "accuracy.png": "top-1 and top-5 over the steps",
        }

    def use(self, folder: Path) -> str:
        """Return a command that uses the weights of the run."""
        return f"boxwright train RECIPE --data DATA --backbone-weights {folder / BACKBONE}"

    def state_dict(self) -> dict[str, Any]:
        """Return the recipe and the identity of the data."""
        return {
            "pretrain": dump_pretrain(self.recipe),
            "classes": list(self.train.classes),
            "fingerprint": self.train.fingerprint(),
            "val_fingerprint": None if self.val is None else self.val.fingerprint(),
            "licence": self.licence,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a training state. States of earlier versions do not identify the validation set."""
        if state["fingerprint"] != self.train.fingerprint():
            raise InputError(f"{self.train.root}: not the images that the run was started on; give those")
        own = None if self.val is None else self.val.fingerprint()
        if state.get("val_fingerprint", own) != own:
            raise InputError(
                f"{self.train.data}: the validation images are not those that the run had, so that its metrics could "
                "not be compared; give those"
            )
        before = state.get("licence", "")
        self.licence = self.licence or before
        if self.licence != before and self.processes.main and (self.folder / BACKBONE).is_file():
            self._write_licence()

    def _write_licence(self) -> None:
        """Add the licence to the existing file; the rest of the run may never replace it."""
        path = self.folder / BACKBONE
        card = read_card(path)
        card["data"]["licence"] = self.licence
        save_pretrained(path, safetensors.torch.load_file(path), card)


def stored_recipe(state: dict[str, Any], folder: Path) -> PretrainRecipe:
    """Return the recipe of a training state. Raises InputError if the run is not one of classification."""
    if "pretrain" not in state:
        raise InputError(f"{folder}: the run of a detector; resume it with boxwright train")
    origin = str(folder / f"last{TRAIN_SUFFIX}")
    return pretrain_from_tree(parse_json(state["pretrain"], origin), lambda path: origin)


def mixed(pixels: Tensor, recipe: PretrainRecipe, step: int) -> tuple[Tensor, bool, float]:
    """Mix each image of a batch ``[B, 3, H, W]`` with the next one, by blending or by pasting a patch.

    Returns the pixels, whether images are mixed, and the share of the first image. Random draws depend on seed and step
    alone. A pasted patch lies wholly inside the image and so has the drawn area; Yun et al. (2019) draw its centre and
    clip it at the borders.
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


def _summary(folders: ClassFolders) -> dict[str, Any]:
    return {"root": str(folders.root), "images": len(folders), "fingerprint": folders.fingerprint()}
