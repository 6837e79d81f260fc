"""The state of a run: everything that a step changes, that a checkpoint holds and that a resumed run restores."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor

from boxwright.backbones.layers.norm import FrozenBatchNorm
from boxwright.backbones.layers.winograd import use_winograd_in_training
from boxwright.checkpoints.backbone_files import start_backbone
from boxwright.checkpoints.checkpoint import (
    SUFFIX,
    TRAIN_SUFFIX,
    check_classes,
    save_checkpoint,
    save_train_state,
)
from boxwright.checkpoints.opening import open_checkpoint
from boxwright.checkpoints.transfer import take_weights
from boxwright.config.input_check import check_anchors, check_inputs
from boxwright.config.reading import dump_recipe
from boxwright.config.recipe import FitStage, Recipe
from boxwright.data.index import DetectionIndex
from boxwright.data.loading.loader import TrainStream
from boxwright.data.masks.mask_gaps import mask_gap
from boxwright.detectors.build import DetectorConfig, build_detector
from boxwright.detectors.contract.capabilities import MeasuresData
from boxwright.detectors.contract.detector import Detector
from boxwright.detectors.contract.preparation import preparation_of
from boxwright.io.environment import git_state, precision_note, versions
from boxwright.structures import Classes, InputError
from boxwright.training.distributed import Processes, micro_batch_size, synchronise_batch_norm
from boxwright.training.ema import EMA
from boxwright.training.fit_run import FitRun, check_fits
from boxwright.training.logging.monitor import check_weights
from boxwright.training.logging.run_folder import data_summary, prune_steps
from boxwright.training.optimiser import build_optimiser, freeze, hold_frozen, set_lr
from boxwright.training.plan import make_plan
from boxwright.training.random_state import random_state, restore_random_state, seed_everything
from boxwright.training.stage_starts import StageStarts
from boxwright.training.step import Stepper, image_seeds
from boxwright.weights.common.imported import Imported

Start: TypeAlias = Path | str | Mapping[str, Tensor] | Imported
"""Weights to begin with: a checkpoint or run folder, tensors, or what an importer gives."""


class Session:
    """Detector, optimiser, average, random states and place in the data, moved on one step at a time.

    ``step`` counts finished steps. ``best`` and ``last_validation`` are rows of validations. ``fit``: the present stage
    where that fits something, else None.
    """

    def __init__(
        self,
        recipe: Recipe,
        index: DetectionIndex,
        where: Processes,
        build: Callable[[DetectorConfig, Classes], Detector],
        weights: Start | None,
        backbone_weights: Path | str | None,
        state: dict[str, Any] | None,
        carry_classes: bool = True,
    ) -> None:
        """A new run from ``weights`` and ``backbone_weights`` (None: from random ones), or the one that ``state`` of a
        checkpoint describes."""
        self.recipe, self.index, self.where = recipe, index, where
        self.step = 0
        self.best: dict[str, Any] | None = None
        self.last_validation: dict[str, Any] | None = None
        self.validations_since_best = 0
        self.loaded_monitor: dict[str, Any] | None = None
        self.data = data_summary(index)
        self.notes: list[str] = []
        self.full_lr: dict[int, float] = {}
        seed_everything(recipe.seed)
        self.share = micro_batch_size(recipe.data.batch_size, where.world, recipe.accumulation) * recipe.accumulation
        self.stream = self._open_stream()
        self.plan = make_plan(recipe, self.stream.epoch_size, len(index))
        self.stream.ends_after(self.plan.batches)
        self.fit: FitRun | None = None
        for planned in self.plan.stages:
            warmup = None if isinstance(planned.stage, FitStage) else planned.stage.schedule.warmup
            if warmup is not None and warmup.steps > planned.steps // 3:
                self.notes.append(f"warm-up cut from {warmup.steps} to {planned.steps // 3} steps: the stage is short")
        self.detector = self._build_detector(build, weights, backbone_weights, carry_classes)
        if state is None and isinstance(self.detector, MeasuresData):
            line = self.detector.measure(index, recipe.data.proposals, weights is not None)
            self.notes += [line] if line else []
        self.starts = StageStarts(recipe, self.detector, build)
        self.learnable = {name for name, p in self.detector.named_parameters() if p.requires_grad}
        self.ema = EMA(self.detector, recipe.ema) if recipe.ema is not None else None
        self.scaler = torch.amp.GradScaler(where.device.type, enabled=recipe.precision == "fp16")
        if recipe.compile:
            self.detector.compile(fullgraph=True)
        # Ranks draw different numbers from here on, the first one the numbers of a lone process.
        if where.world > 1:
            seed_everything(recipe.seed + where.rank)
        if state is not None:
            self._restore(state)
        # Resumed at the end of a stage, a run is in that stage, as when it was stopped: the next begins with its first
        # step, because it may change the weights that a validation still has to see.
        self._enter_stage(max(self.step, 1))
        if state is not None and state["stage"] == self.stage:
            if self.fit is None:
                self.stepper.optimiser.load_state_dict(state["optimiser"])
            else:
                self.fit.load_state_dict(state["fit"])

    @property
    def names(self) -> tuple[str, ...]:
        """The loss terms, or of a fit what it counts."""
        return self.stepper.names if self.fit is None else self.fit.names

    @property
    def weights_to_use(self) -> Detector:
        """The averaged detector where there is one, else the detector."""
        return cast(Detector, self.ema.module) if self.ema is not None else self.detector

    @property
    def unvalidated(self) -> bool:
        """Whether the validation that belongs to the last step is still to come: a stop in that step put it off."""
        seen = 0 if self.last_validation is None else self.last_validation["step"]
        return self.step > seen and self.plan.validates(self.step)

    def take_step(self) -> tuple[Tensor, list[int]]:
        """The next step: its losses ``[T]`` on the device, and its images' places in the training set."""
        step = self.step + 1
        if self.plan.stage_of(step) != self.stage:
            self._enter_stage(step)
        planned = self.plan.stages[self.stage]
        if self.fit is not None:
            numbers, images = self.fit.take_step(self.step - planned.first)
            self.step = step
            return numbers, images
        assert planned.schedule is not None
        batch = next(self.stream)
        set_lr(self.stepper.optimiser, planned.schedule(self.step - planned.first))
        first = self.where.rank * self.share
        seeds = image_seeds(self.recipe.seed, self.step, self.recipe.data.batch_size, first, self.share)
        images = batch.images._replace(seeds=seeds).to(self.where.device, non_blocking=True)
        try:
            losses = self.stepper(images, batch.targets.to(self.where.device, non_blocking=True))
        except RuntimeError as error:
            if self.recipe.compile and "InvalidCxxCompiler" in str(error):
                raise InputError(
                    "compile = true needs a C++ compiler on the CPU; install g++ or set it false"
                ) from None
            raise
        self.step = step
        return losses, batch.info.indexes.tolist()

    def lr_of(self, step: int) -> float | None:
        """The learning rate that ``step`` was taken with: of the group that learns fastest; None in a fit."""
        planned = self.plan.stages[self.plan.stage_of(step)]
        if planned.schedule is None:
            return None
        return self.full_lr[self.plan.stage_of(step)] * planned.schedule(step - 1 - planned.first)

    def note_validation(self, row: dict[str, Any]) -> bool:
        """Take a validation's row; whether its AP is the best so far.

        In a run that fits something, of its present stage: the detector of an earlier one is not whole yet.
        """
        self.last_validation = row
        if self.best is not None and self.plan.fits and self.plan.stage_of(self.best["step"]) != self.stage:
            self.best = None
        ap = -1.0 if row["AP"] is None else row["AP"]
        better = self.best is None or ap > (-1.0 if self.best["AP"] is None else self.best["AP"])
        self.validations_since_best = 0 if better else self.validations_since_best + 1
        if better:
            self.best = row
        return better

    def save(self, folder: Path, monitor: dict[str, Any]) -> None:
        """Write ``last`` (and a numbered checkpoint where wanted). All processes take part; the main one writes."""
        self.check_weights()
        randomness = self.where.gather(random_state(self.where.device))
        if not self.where.main:
            return
        state = {
            "recipe": dump_recipe(self.recipe),
            "classes": list(self.detector.classes.names),
            "fingerprint": self.data["fingerprint"],
            "world": self.where.world,
            "step": self.step,
            "stage": self.stage,
            "starts": self.starts.state_dict(),
            "model": self.detector.state_dict(),
            "ema": self.ema.state_dict() if self.ema is not None else None,
            "optimiser": self.stepper.optimiser.state_dict() if self.fit is None else None,
            "fit": None if self.fit is None else self.fit.state_dict(),
            "scaler": self.scaler.state_dict(),
            "stream": self.stream.state_dict(),
            "random": randomness,
            "monitor": monitor,
            "best": self.best,
            "last_validation": self.last_validation,
            "validations_since_best": self.validations_since_best,
        }
        self.save_weights(folder / f"last{SUFFIX}")
        save_train_state(folder / f"last{TRAIN_SUFFIX}", state)
        if self.recipe.checkpoint.keep:
            target = folder / f"step_{self.step:07d}{SUFFIX}"
            target.unlink(missing_ok=True)
            os.link(folder / f"last{SUFFIX}", target) if hasattr(os, "link") else self.save_weights(target)
            prune_steps(folder, self.recipe.checkpoint.keep)

    def save_weights(self, path: Path) -> None:
        """Write the weights to use, with all that a user of them needs."""
        metrics = self.last_validation if self.last_validation and self.last_validation["step"] == self.step else None
        meta = {
            "step": self.step,
            "epoch": self.plan.epoch(self.step),
            "metrics": metrics,
            "weights": "ema" if self.ema is not None else "model",
            "versions": versions(),
            "git": git_state(),
            "data": self.data,
        }
        save_checkpoint(path, self.weights_to_use.state_dict(), self.recipe, self.detector.classes, meta)

    def announcement(self, val_index: DetectionIndex | None, folder: Path) -> list[str]:
        """What will happen, in a few lines."""
        classes, plan, recipe = self.detector.classes, self.plan, self.recipe
        total = sum(p.numel() for p in self.detector.parameters())
        learning = 0 if self.fit is not None else sum(p.numel() for p in self.stepper.parameters)
        names = ", ".join(classes.names[:8]) + (", ..." if len(classes) > 8 else "")
        val = "none" if val_index is None else f"{len(val_index)} images"
        stage = plan.stages[self.stage].stage
        if isinstance(stage, FitStage):
            how = f"now the fit {stage.name!r}"
        else:
            how = f"{stage.optimiser.kind} at {self.full_lr[self.stage]:g}"
        learnt = sum(s.steps * s.step_images for s in plan.stages if s.schedule is not None)
        lines = [
            f"recipe {recipe.name}: {total:,} parameters, {learning:,} of them learn",
            f"data {self.index.root}: {len(self.index)} images with {self.index.num_boxes} boxes, validation {val}; "
            f"{len(classes)} classes: {names}",
            f"{plan.batches} steps of {plan.batch_size} images, {learnt / plan.images:.1f} epochs, {how}, "
            f"{recipe.precision} on {self.where.device}, {self.where.world} process(es)",
            *([note] if (note := precision_note(self.where.device, recipe.precision)) else []),
            *(
                f"then {planned.steps} steps of one image to fit {planned.stage.name!r}"
                for planned in plan.stages
                if planned.schedule is None
            ),
            f"run folder {folder}",
        ]
        if self.step:
            lines.append(f"resuming after step {self.step}")
        if recipe.data.masks:
            gaps = [(self.index, "they are learnt as filling their boxes"), (val_index, "masks are not scored")]
            lines += [f"WARNING: {gap}; {so}" for i, so in gaps if i is not None and (gap := mask_gap(i))]
        return lines + self.notes

    def close(self) -> None:
        """Stop the loader's workers."""
        self.stream.close()
        if self.fit is not None:
            self.fit.close()

    def _open_stream(self) -> TrainStream:
        return TrainStream(
            self.index,
            self.recipe.data,
            seed=self.recipe.seed,
            rank=self.where.rank,
            world=self.where.world,
            pin_memory=self.where.device.type == "cuda",
        )

    def _build_detector(
        self,
        build: Callable[[DetectorConfig, Classes], Detector],
        weights: Start | None,
        backbone_weights: Path | str | None,
        carry_classes: bool,
    ) -> Detector:
        preparation = preparation_of(self.recipe.data)
        detector = build_detector(self.recipe.detector, self.index.classes, preparation, build)
        check_inputs(detector, self.recipe.data)
        if warning := check_anchors(detector, self.index, self.recipe.data):
            self.notes.append(warning)
        if weights is not None:
            self.notes.append(start_from(detector, weights, carry_classes))
        if backbone_weights is not None:
            self.notes.append(start_backbone(detector, backbone_weights))
        elif weights is None and any(isinstance(m, FrozenBatchNorm) for m in detector.modules()):
            self.notes.append(
                "WARNING: batch norms are frozen, but no weights are given to start from: this network will hardly "
                "learn. Give weights, or set detector.backbone.norm=bn"
            )
        check_fits(self.recipe, detector, self.index)
        if self.recipe.sync_batch_norm:
            detector = cast(Detector, synchronise_batch_norm(detector, self.where))
        detector = detector.to(self.where.device)
        if self.recipe.channels_last:
            detector = detector.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return use_winograd_in_training(detector)  # changes nothing but time, and on a GPU nothing at all

    def _enter_stage(self, step: int) -> None:
        """Get ready for the stage that takes ``step``: where it begins, what learns, and a fresh optimiser."""
        self.stage = self.plan.stage_of(step)
        stage = self.plan.stages[self.stage].stage
        if self.fit is not None:
            self.fit.close()
            self.fit = None
        if isinstance(stage, FitStage):
            self.stream.close()  # its workers would wait for the whole stage
            self.where.align(self.weights_to_use)
            networks = dict.fromkeys((self.detector, self.weights_to_use))
            self.fit = FitRun(stage, list(networks), self.index, self.recipe, self.where)
            return
        if self.step == self.plan.stages[self.stage].first:
            self.starts.begin(stage, self.weights_to_use, [self.detector, self.weights_to_use])
        self.detector.wanted_losses = stage.losses
        for name, parameter in self.detector.named_parameters():
            parameter.requires_grad_(name in self.learnable)
        freeze(self.detector, stage.frozen)
        self.detector.train()
        hold_frozen(self.detector, stage.frozen)
        optimiser = build_optimiser(stage.optimiser, self.detector, self.recipe.data.batch_size)
        self.full_lr[self.stage] = max(group["base_lr"] for group in optimiser.param_groups)
        model = self.where.wrap(self.detector, some_unused=stage.losses is not None)
        self.stepper = Stepper(self.recipe, stage, model, optimiser, self.scaler, self.where, self.ema)
        if self.starts.proposer is not None:
            self.stepper.propose = self.starts.proposer.propose

    def _restore(self, state: dict[str, Any]) -> None:
        """Go to where ``state`` was saved. InputError where the data are others."""
        found, wanted = Classes.from_names(state["classes"]), self.index.classes
        check_classes(wanted, found, f"{self.index.root}", "the run to resume")
        if state["fingerprint"] != self.data["fingerprint"]:
            raise InputError(
                f"{self.index.root}: not the data that the run was started on (images, boxes or classes differ); give "
                "that data, or start a new run with the old checkpoint as weights"
            )
        self.detector.load_state_dict(state["model"])
        state.setdefault("fit", None)  # not in runs of before anything was fitted
        if "starts" in state:  # nor these
            self.starts.load_state_dict(state["starts"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        self.scaler.load_state_dict(state["scaler"])
        self.stream.load_state_dict(state["stream"])
        if state["world"] == self.where.world:
            restore_random_state(state["random"][self.where.rank], self.where.device)
        else:
            self.notes.append(
                f"the run had {state['world']} process(es) and now has {self.where.world}: it goes on, not bit for bit"
            )
        self.step = state["step"]
        self.best, self.last_validation = state["best"], state["last_validation"]
        self.validations_since_best = state["validations_since_best"]
        self.loaded_monitor = state["monitor"]

    def check_weights(self) -> None:
        """NonFiniteLossError where the network is lost: it is neither validated nor saved."""
        check_weights(self.detector, self.step)


def start_from(detector: Detector, weights: Start, carry_classes: bool = True) -> str:
    """Take from ``weights`` what fits, see :func:`take_weights`; a line that says how much. InputError where nothing
    does."""
    if isinstance(weights, Mapping):
        return take_weights(detector, weights, "the given weights")
    if isinstance(weights, Imported):
        source = (weights.config, weights.classes)
        return take_weights(detector, weights.state, weights.source, source, carry_classes)
    found = open_checkpoint(weights).checkpoint
    return take_weights(detector, found.state, str(weights), (found.detector, found.classes), carry_classes)
