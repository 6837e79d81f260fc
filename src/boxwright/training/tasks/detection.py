"""Object detection as a task of the training loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from boxwright.backbones.layers.norm import FrozenBatchNorm
from boxwright.backbones.layers.winograd import use_winograd_in_training
from boxwright.checkpoints.backbone_files import start_backbone
from boxwright.checkpoints.checkpoint import SUFFIX, check_classes, save_checkpoint
from boxwright.checkpoints.opening import open_checkpoint
from boxwright.checkpoints.transfer import take_weights
from boxwright.config.input_check import check_anchors, check_inputs
from boxwright.config.reading import dump_recipe
from boxwright.config.recipe import FitStage, Recipe, Stage
from boxwright.data.index import DetectionIndex
from boxwright.data.loading.loader import Batch, TrainStream
from boxwright.data.masks.mask_gaps import mask_gap
from boxwright.detectors.build import DetectorConfig, build_detector
from boxwright.detectors.contract.capabilities import MeasuresData
from boxwright.detectors.contract.detector import Detector
from boxwright.detectors.contract.preparation import preparation_of
from boxwright.evaluation.coco import json_safe
from boxwright.io.environment import git_state, versions
from boxwright.structures import Classes, InputError
from boxwright.training.data_files import DataFile
from boxwright.training.distributed import Processes, micro_batch_size, synchronise_batch_norm
from boxwright.training.logging.plots import draw_samples, plot_precision
from boxwright.training.random_state import image_seeds
from boxwright.training.stages.fit import FitRunner, check_fits
from boxwright.training.tasks.best_metric import check_masks, chosen_metric
from boxwright.training.tasks.class_weights import weights_note, weights_of_classes
from boxwright.training.tasks.stage_starts import StageStarts
from boxwright.training.tasks.task import Moment, Outcome, Row
from boxwright.training.validation import validate
from boxwright.weights.common.imported import Imported

Build: TypeAlias = Callable[[DetectorConfig, Classes], Detector]
Start: TypeAlias = Path | str | Mapping[str, Tensor] | Imported
"""Weights to start from: a checkpoint or run folder, tensors by name, or what an importer gives."""


class DetectionTask:
    """A detector on a data set of boxes, with COCO's metrics, of which ``validation.metric`` names the decisive one."""

    best_file = f"best{SUFFIX}"
    last_file: str | None = f"last{SUFFIX}"

    def __init__(
        self,
        recipe: Recipe,
        index: DetectionIndex,
        val_index: DetectionIndex | None,
        processes: Processes,
        build: Build,
        weights: Start | None = None,
        backbone_weights: Path | str | None = None,
        carry_classes: bool = True,
    ) -> None:
        """Train from ``weights``, or else from an ImageNet network, or else from random weights.

        ``backbone_weights``: the ImageNet network; None takes the recipe's, and "none" takes random weights.
        """
        self.recipe, self.index, self.val_index, self.processes = recipe, index, val_index, processes
        self.make_detector, self.carry_classes = build, carry_classes
        if backbone_weights is None and weights is None:
            backbone_weights = recipe.backbone_weights
        self.weights = weights
        self.backbone_weights = None if backbone_weights == "none" else backbone_weights
        self.class_weights = weights_of_classes(recipe.class_weights, index)
        self.chosen = chosen_metric(recipe.validation.metric, index, val_index)
        self.metric = self.chosen.key
        shown = {"AP": "AP", "AP50": "AP50", "AP75": "AP75", "mask_AP": "mask AP"}
        self.shown: Mapping[str, str] = shown | {self.chosen.key: self.chosen.name}
        self.images = len(index)
        self.validated = val_index is not None
        self.data = data_summary(index)
        self.notes: list[str] = []

    def open_stream(self) -> TrainStream:
        """Open the training batches of this process."""
        recipe, world = self.recipe, self.processes.world
        self.share = micro_batch_size(recipe.data.batch_size, world, recipe.accumulation) * recipe.accumulation
        stream = TrainStream(
            self.index,
            recipe.data,
            seed=recipe.seed,
            rank=self.processes.rank,
            world=world,
            pin_memory=self.processes.device.type == "cuda",
        )
        self.notes += [stream.note] if stream.note else []
        return stream

    def build(self, resumed: bool) -> Detector:
        """Build the detector on the device. Raises InputError if data, weights or stages do not suit it."""
        recipe = self.recipe
        preparation = preparation_of(recipe.data)
        detector = build_detector(recipe.detector, self.index.classes, preparation, self.make_detector)
        check_masks(self.chosen, detector.gives_masks, self.val_index)
        check_inputs(detector, recipe.data)
        if warning := check_anchors(detector, self.index, recipe.data):
            self.notes.append(warning)
        if self.class_weights is not None:
            detector.weigh_classes(torch.tensor(self.class_weights))
            self.notes.append(weights_note(self.index.classes.names, self.class_weights))
        if not resumed:
            self._start(detector)
        check_fits(recipe, detector, self.index)
        if recipe.sync_batch_norm:
            detector = cast(Detector, synchronise_batch_norm(detector, self.processes))
        detector = detector.to(self.processes.device)
        if recipe.channels_last:
            detector = detector.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        detector = use_winograd_in_training(detector)  # the same result in less time; without effect on a GPU
        if not resumed and isinstance(detector, MeasuresData):
            line = detector.measure(self.index, recipe.data.proposals, self.weights is not None)
            self.notes += [line] if line else []
        self.starts = StageStarts(recipe, detector, self.make_detector)
        return detector

    def _start(self, detector: Detector) -> None:
        """Take the weights to start from."""
        if self.weights is not None:
            self.notes.append(start_from(detector, self.weights, self.carry_classes))
        if self.backbone_weights is not None:
            self.notes.append(start_backbone(detector, self.backbone_weights))
        elif self.weights is None and any(isinstance(m, FrozenBatchNorm) for m in detector.modules()):
            self.notes.append(
                "WARNING: batch norms are frozen, but no weights are given to start from: this network will hardly "
                "learn. Give weights, or set detector.backbone.norm=bn"
            )

    def data_files(self) -> list[DataFile]:
        """Return the images of both sets, and the files of proposals."""
        files = [
            DataFile(split, index.relative_path(i), index.path(i))
            for split, index in (("train", self.index), ("val", self.val_index))
            for i in range(0 if index is None else len(index))
            if index is not None
        ]
        given = self.recipe.data.proposals
        named = () if given is None else (("train", given.train), ("val", given.val))
        return files + [DataFile("proposals", split, Path(path)) for split, path in named if path is not None]

    def description(self) -> list[str]:
        """Describe the data set in a line."""
        names, val = self.index.classes.names, self.val_index
        shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
        return [
            f"data {self.index.root}: {len(self.index)} images with {self.index.num_boxes} boxes, validation "
            f"{'none' if val is None else f'{len(val)} images'}; {len(names)} classes: {shown}"
        ]

    def warnings(self) -> list[str]:
        """Warn of objects without masks, in a recipe that trains masks."""
        if not self.recipe.data.masks:
            return []
        effects = [(self.index, "they are learned as filling their boxes"), (self.val_index, "masks are not scored")]
        return [f"WARNING: {gap}; {so}" for i, so in effects if i is not None and (gap := mask_gap(i))]

    def begin_stage(self, stage: Stage, first: bool, model: nn.Module, eval_model: nn.Module) -> None:
        """Reset parts and choose the source of proposals as the stage asks (`StageStarts`)."""
        model, eval_model = cast(Detector, model), cast(Detector, eval_model)
        if first:
            self.starts.begin(stage, eval_model, [model, eval_model])
        model.wanted_losses = stage.losses

    def fit(self, stage: FitStage, first: int, model: nn.Module, eval_model: nn.Module) -> FitRunner:
        """Start a fit of R-CNN's SVMs or box regression."""
        networks = [cast(Detector, network) for network in dict.fromkeys((model, eval_model))]
        return FitRunner(stage, first, networks, self.index, self.recipe, self.processes)

    def inputs(self, batch: Batch, step: int) -> tuple[Any, ...]:
        """Return images, with seeds that depend only on their positions in the stream, and targets."""
        first, device = self.processes.rank * self.share, self.processes.device
        seeds = image_seeds(self.recipe.seed, step, self.recipe.data.batch_size, first, self.share)
        images = batch.images._replace(seeds=seeds).to(device, non_blocking=True)
        return images, batch.targets.to(device, non_blocking=True)

    def losses(self, model: nn.Module, *inputs: Any) -> dict[str, Tensor]:
        """Compute the detector's losses, on proposals of the stage's proposal network if it has one."""
        proposer = self.starts.proposer
        return model(*inputs) if proposer is None else model(*inputs, proposer.propose(inputs[0]))

    def clipped(self, model: nn.Module, optimiser: Optimizer) -> list[nn.Parameter]:
        """Return the parameters in the order of the optimiser's groups."""
        return [p for group in optimiser.param_groups for p in group["params"]]

    def positions(self, batch: Batch) -> list[int]:
        """Return the positions of the batch's images in the training set."""
        return batch.info.indexes.tolist()

    def image_name(self, position: int) -> str:
        """Name an image by its path and its id in the data set."""
        return f"{self.index.path(position)} (image id {self.index.image_id(position)})"

    def validate(self, model: nn.Module) -> Outcome:
        """Compute COCO's metrics on the validation set, and the losses if the recipe asks for them."""
        index, recipe = self.val_index, self.recipe
        assert index is not None
        found = validate(
            cast(Detector, model), index, recipe.data, self.processes, recipe.precision, losses=recipe.validation.loss
        )
        stats = self.processes.broadcast(found.stats(self.chosen) if self.processes.main else None)
        terms = {name if name.startswith("loss_") else f"loss_{name}": value for name, value in found.losses.items()}
        shown = (found.masks or found.evaluation).detections
        return Outcome(
            json_safe({"loss": found.loss, **terms, **stats}),
            lambda folder: draw_samples(folder / "samples.jpg", index, shown()),
        )

    def save_weights(self, path: Path, model: nn.Module, moment: Moment) -> None:
        """Write a checkpoint: weights, recipe, classes, and the origin of the weights."""
        meta = {
            **moment._asdict(),
            "weights": "ema" if self.recipe.ema is not None else "model",
            "versions": versions(),
            "git": git_state(),
            "data": self.data,
        }
        save_checkpoint(path, model.state_dict(), self.recipe, self.index.classes, meta)

    def plot(self, folder: Path, validation: Sequence[Row]) -> None:
        """Draw AP and the chosen metric over the steps."""
        plot_precision(folder / "ap.png", validation, self.metric)

    def recipe_json(self) -> str:
        """Return the resolved recipe as JSON."""
        return dump_recipe(self.recipe)

    def summary(self) -> dict[str, Any]:
        """Identify the training and the validation set, and list the classes."""
        val = None if self.val_index is None else data_summary(self.val_index)
        return {"data": {"train": self.data, "validation": val}, "classes": list(self.index.classes.names)}

    def files(self) -> dict[str, str]:
        """Describe the checkpoints, the curve of AP and the samples."""
        best = f"weights with the best {self.chosen.name} on the validation set"
        return {
            "best.safetensors": f"{best}, with recipe and classes: use these",
            "last.safetensors": "weights of the last checkpoint",
            "ap.png": "average precision over the steps",
            "samples.jpg": "validation images: annotations left, detections right",
        }

    def use(self, folder: Path) -> str:
        """Return a command that uses the weights of the run."""
        return f"boxwright detect {folder}/best.safetensors IMAGES"

    def state_dict(self) -> dict[str, Any]:
        """Return the recipe, the identity of the data, and the state of the stages."""
        return {
            "recipe": dump_recipe(self.recipe),
            "classes": list(self.index.classes.names),
            "fingerprint": self.data["fingerprint"],
            "starts": self.starts.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a training state. Raises InputError if classes or data are not those of the run."""
        found, wanted = Classes.from_names(state["classes"]), self.index.classes
        check_classes(wanted, found, f"{self.index.root}", "the run to resume")
        if state["fingerprint"] != self.data["fingerprint"]:
            raise InputError(
                f"{self.index.root}: not the data that the run was started on (images, boxes or classes differ); give "
                "that data, or start a new run with the old checkpoint as weights"
            )
        if "starts" in state:  # absent in states of earlier versions
            self.starts.load_state_dict(state["starts"])


def data_summary(index: DetectionIndex) -> dict[str, Any]:
    """Return what identifies a data set."""
    return {
        "root": str(index.root),
        "split": index.name,
        "images": len(index),
        "boxes": index.num_boxes,
        "fingerprint": index.fingerprint(),
    }


def start_from(detector: Detector, weights: Start, carry_classes: bool = True) -> str:
    """Copy what fits of ``weights`` into ``detector``, see :func:`take_weights`; return a line that says how much.

    Raises InputError if nothing fits.
    """
    if isinstance(weights, Mapping):
        return take_weights(detector, weights, "the given weights")
    if isinstance(weights, Imported):
        source = (weights.config, weights.classes)
        return take_weights(detector, weights.state, weights.source, source, carry_classes)
    found = open_checkpoint(weights, any_size=True).checkpoint
    return take_weights(detector, found.state, str(weights), (found.detector, found.classes), carry_classes)
