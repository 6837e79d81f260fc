"""One ``boxwright train`` and the evaluation of its checkpoint, as a run of a comparison."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import shutil
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boxwright.app.training.request_recipe import parse_size
from boxwright.config.input_size import with_input_size
from boxwright.config.reading import dump_recipe
from boxwright.config.recipe import Recipe, Stage
from boxwright.recipes import get_recipe, resolve_recipe
from runner.pool import Place
from runner.rows import Values


@dataclass(frozen=True, kw_only=True)
class Training:
    """A run of a recipe for a number of epochs, validated once after its last step and then evaluated on ``splits``.

    So no checkpoint is selected by the metrics that a table reports, and the result does not depend on the load of the
    machine. The first stage takes ``epochs``, all others are scaled in proportion.
    """

    data: Path
    recipe: str
    """Name of a recipe, with changes after plus signs: ``retinanet-small+detector.loss.gamma=0``."""
    epochs: float
    seed: int
    keep: Path
    """Folder of all runs; this one has a folder of its own in it."""
    sets: tuple[str, ...] = ()
    """More settings, as for ``--set``."""
    files: tuple[str, ...] = ()
    """Settings that name files, such as proposals. They are no part of the key, because folders differ."""
    backbone_weights: str | None = None
    """ImageNet weights by name or file, or "none"; None leaves the choice to the recipe."""
    size: str | None = None
    """Size of the network's input, as for ``--size``; None is that of the recipe."""
    freeze_at: int | None = None
    """Stages of the backbone that are not trained; None leaves the choice to the recipe."""
    weights: Path | None = None
    """Checkpoint to start from."""
    splits: tuple[str, ...] = ("val",)
    arguments: tuple[str, ...] = ()
    """More arguments of ``boxwright train``."""
    workers: int = 0
    name: str = ""
    """Another name of the data in the key, such as of a part of it."""

    @property
    def settings(self) -> list[str]:
        """All settings but those that name files."""
        base, *changes = self.recipe.split("+")
        frozen = [] if self.freeze_at is None else [f"detector.backbone.freeze_at={self.freeze_at}"]
        return ["validation.loss=false", *length(get_recipe(base), self.epochs), *frozen, *self.sets, *changes]

    @property
    def resolved(self) -> Recipe:
        """The recipe with all settings but those that name files."""
        recipe = resolve_recipe(self.recipe.split("+")[0], sets=[*self.settings, f"seed={self.seed}"])
        return recipe if self.size is None else with_input_size(recipe, parse_size(self.size))

    @property
    def key(self) -> dict[str, Any]:
        """Everything that tells this run from others. The digest changes whenever a recipe in the package does."""
        recipe = dump_recipe(self.resolved)
        return {
            "data": self.name or self.data.name,
            "recipe": self.recipe,
            "epochs": self.epochs,
            "seed": self.seed,
            "sets": list(self.sets),
            "size": self.size,
            "freeze_at": self.freeze_at,
            "backbone_weights": None if self.backbone_weights is None else Path(self.backbone_weights).name,
            "weights": None if self.weights is None else self.weights.name,
            "splits": list(self.splits),
            "digest": hashlib.sha256(recipe.encode()).hexdigest()[:12],
        }

    @property
    def folder(self) -> Path:
        """The run's own folder."""
        key = self.key
        mark = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:8]
        return self.keep / f"{key['data']}-{self.recipe.split('+')[0]}-{self.seed}-{mark}"

    @property
    def checkpoint(self) -> Path:
        """The last weights."""
        return self.folder / "last.safetensors"

    def measure(self, place: Place) -> Values:
        """Train from the beginning and evaluate."""
        command = ["train", self.recipe.split("+")[0], "--data", str(self.data), "--output", str(self.folder)]
        command += ["--seed", str(self.seed), "--workers", str(self.workers), "--device", place.device]
        options = {"--backbone-weights": self.backbone_weights, "--weights": self.weights, "--size": self.size}
        for name, value in options.items():
            command += [name, str(value)] if value is not None else []
        command += [*self.arguments, *set_arguments([*self.settings, *self.files])]
        return trained(command, self.folder, place, self.data, self.splits, "last")


def trained(
    command: list[str], folder: Path, place: Place, data: Path, splits: tuple[str, ...], checkpoint: str
) -> Values:
    """Run ``boxwright`` with a command that trains into ``folder``, and evaluate its ``checkpoint`` on ``splits``.

    A run that was interrupted before starts again. Returns minutes, the median of training images a second, and the
    metrics by split.
    """
    shutil.rmtree(folder, ignore_errors=True)
    seconds = place.run([*BOXWRIGHT, *command], folder.with_name(f"{folder.name}.log"))
    with (folder / "train.csv").open() as file:
        speeds = [float(row["images_per_second"]) for row in csv.DictReader(file) if usable(row)]
    values: Values = {"minutes": seconds / 60, "speed": statistics.median(speeds) if speeds else None}
    for split in splits:
        found = evaluated([str(folder / f"{checkpoint}.safetensors")], folder, place, data, split)
        values[split] = found
    return values


BOXWRIGHT = (sys.executable, "-m", "boxwright")


def usable(row: dict[str, str]) -> bool:
    """Return True for a row of gradient descent with a speed; fits of R-CNN have no learning rate."""
    return bool(row.get("lr") and row.get("images_per_second"))


def evaluated(what: list[str], folder: Path, place: Place, data: Path, split: str) -> Values:
    """Return the metrics of a checkpoint, or of ``--detections FILE``, on a split, by ``boxwright evaluate``.

    Keys: the 12 COCO metrics, ``mask_AP`` and so on where there are masks, and ``by_iou`` for boxes.
    """
    log = folder.with_name(f"{folder.name}-{split}.log")
    command = ["evaluate", *what, "--data", str(data), "--split", split, "--json"]
    command += [] if what[0] == "--detections" else ["--device", place.device]
    place.run([*BOXWRIGHT, *command], log)
    told = json.loads(next(line for line in reversed(log.read_text().splitlines()) if line.startswith("{")))
    masks = {f"mask_{name}": value for name, value in told.get("masks", {}).get("stats", {}).items()}
    by_iou = {metric: told["by_iou"][metric] for metric in ("AP", "AR")}
    return {**told["stats"], **masks, "by_iou": by_iou}


def length(recipe: Recipe, epochs: float) -> list[str]:
    """Return settings for a first stage of ``epochs``, all others in proportion, and one validation after the last
    step.

    That validation always runs, and any other is set beyond the end. Fits of R-CNN use the training set once, whatever
    is set.
    """
    settings, total = [], 0.0
    first = recipe.stages[0]
    assert isinstance(first, Stage)
    for i, stage in enumerate(recipe.stages):
        if not isinstance(stage, Stage):
            total += 1
            continue
        own = round(stage.length / first.length * epochs, 3)
        settings += [f"stages.{i}.length={own}", f"stages.{i}.unit=epochs"]
        if milestones := getattr(stage.schedule, "milestones", ()):
            settings.append(f"stages.{i}.schedule.milestones={[m / stage.length * own for m in milestones]}")
        total += own
    return [*settings, f"validation.every={math.ceil(total) + 1}", "validation.unit=epochs"]


def set_arguments(settings: list[str]) -> list[str]:
    """Return settings as arguments of a command line."""
    return [part for setting in settings for part in ("--set", setting)]
