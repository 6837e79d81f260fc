"""Runs of the contestants of ``benchmarks/peers.py``: how long each may be, how it is started, and its scores."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import time
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

from boxwright.config.reading import dump_recipe, load_recipe
from boxwright.config.recipe import Recipe, Stage
from boxwright.data.formats.opening import open_splits
from boxwright.recipes import resolve_recipe
from boxwright.structures import InputError
from runner.pace import Pace, pace_of
from runner.pool import Place
from runner.rows import Rows, Values
from runner.subsets import subset
from runner.training import BOXWRIGHT, evaluated, trained

OURS = ("default", "scratch")
PROGRAMS = Path(__file__).resolve().parent
PROBE = {"train": 48, "val": 16}
"""Images of the short run that measures the pace of another project's trainer."""
PROBE_EPOCHS = 2
PROBE_IMAGES = 192
"""Images that the short run of ours is trained on."""
YOLO_BATCH, YOLO_SIZE = 16, 640
"""Ultralytics' defaults."""


@dataclass(frozen=True)
class Contest:
    """Setting of all runs on one data set."""

    data: Path
    minutes: float
    keep: Path
    rows: Rows
    recipe: str | None
    ours: tuple[str, ...]
    own_length: bool
    ultralytics: Path | None
    lock: Any = field(default_factory=Lock)
    """Held while a pace is measured, so that all seeds have one."""

    @cached_property
    def images(self) -> dict[str, int]:
        """Number of images of each split that is used."""
        found = {name: len(index) for name, index in open_splits(self.data).items()}
        return {name: found[name] for name in ("train", "val", "test") if name in found}

    @property
    def choice(self) -> dict[str, Any]:
        """Everything that the user of this program decides about our runs."""
        recipe = None if self.recipe is None else resolve_recipe(self.recipe)
        digest = {} if recipe is None else {"digest": hashlib.sha256(dump_recipe(recipe).encode()).hexdigest()[:12]}
        return {"recipe": self.recipe, "arguments": list(self.ours), "own_length": self.own_length, **digest}

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits that are scored."""
        return tuple(name for name in ("val", "test") if name in self.images)


@dataclass(frozen=True)
class Entry:
    """A run of one contestant."""

    contest: Contest
    name: str
    seed: int

    @property
    def key(self) -> dict[str, Any]:
        """Everything that tells the run from the others."""
        contest = self.contest
        key = {"data": contest.data.name, "contestant": self.name, "minutes": contest.minutes, "seed": self.seed}
        return {**key, **(contest.choice if self.name in OURS else {})}

    @property
    def folder(self) -> Path:
        """The run's own folder."""
        return self.contest.keep / f"{self.contest.data.name}-{self.name}-{self.seed}"

    def measure(self, place: Place) -> Values:
        """Find the length, train, and score."""
        if self.name in OURS:
            return self._ours(place)
        return self._peer(place)

    def _ours(self, place: Place) -> Values:
        contest = self.contest
        epochs = [] if contest.own_length else ["--epochs", str(ours_epochs(contest, place))]
        start = ["--backbone-weights", "none"] if self.name == "scratch" else []
        command = [*ours_command(contest, place), "--seed", str(self.seed), *epochs, *start]
        values = trained(
            [*command, "--output", str(self.folder)], self.folder, place, contest.data, contest.splits, "best"
        )
        recipe = load_recipe((self.folder / "recipe.json").read_text())
        return {**values, "epochs": recipe_epochs(recipe, contest.images["train"]), "recipe": recipe.name}

    def _peer(self, place: Place) -> Values:
        contest = self.contest
        epochs = peer_epochs(self, place)
        result = run_peer(self, self.folder, contest.data, contest.splits, epochs, place)
        values: Values = {"minutes": result["seconds"] / 60, "epochs": epochs}
        values |= {name: result[name] for name in ("ultralytics", "torch", "size", "batch") if name in result}
        for split in contest.splits:
            what = ["--detections", str(self.folder / f"{split}.json")]
            values[split] = evaluated(what, self.folder, place, contest.data, split)
        return values


def recipe_epochs(recipe: Recipe, images: int) -> float:
    """Return the length of all stages of gradient descent in epochs."""
    stages = [stage for stage in recipe.stages if isinstance(stage, Stage)]
    scales = {"epochs": 1.0, "steps": recipe.batch_size / images}
    return sum(stage.length * scales[stage.unit] for stage in stages)


def ours_command(contest: Contest, place: Place) -> list[str]:
    """Return the command of a run of ours without its length, seed and folder."""
    recipe = [] if contest.recipe is None else [contest.recipe]
    command = ["train", *recipe, "--data", str(contest.data), "--device", place.device, "--workers", "0"]
    return [*command, *contest.ours]


def ours_epochs(contest: Contest, place: Place) -> int:
    """Return the epochs of the default run by its pace, which is kept for all seeds and the twin."""
    key = {"pace": "default", "data": contest.data.name, **contest.choice}
    with contest.lock:
        if (known := contest.rows.find(key)) is None:
            known = ours_pace(contest, place)
            contest.rows.add(key, known)
    pace = Pace(known["start"], known["train"], known["val"])
    return pace.epochs(contest.minutes, contest.images["train"], contest.images["val"], known["per_epoch"], final=1)


def ours_pace(contest: Contest, place: Place) -> Values:
    """Return the pace of the default run, and its validations for each epoch, from a short run of it."""
    folder = contest.keep / f"{contest.data.name}-default-pace"
    images = contest.images["train"]
    command = [*ours_command(contest, place), "--epochs", f"{PROBE_IMAGES / images:.3f}", "--set", "log_every=2"]
    values = trained([*command, "--output", str(folder)], folder, place, contest.data, (), "last")
    recipe = load_recipe((folder / "recipe.json").read_text())
    pace = pace_of(values, PROBE_IMAGES, contest.images["val"])
    every = recipe.validation.every * (1 if recipe.validation.unit == "epochs" else recipe.batch_size / images)
    return {**asdict(pace), "per_epoch": 1 / every}


def peer_epochs(entry: Entry, place: Place) -> int:
    """Return the epochs of another project's trainer by its pace, which is kept for all seeds."""
    contest = entry.contest
    key = {"pace": entry.name, "data": contest.data.name}
    with contest.lock:
        if (known := contest.rows.find(key)) is None:
            known = peer_pace(entry, place)
            contest.rows.add(key, known)
    # Ultralytics validates after each epoch, and its best checkpoint once more.
    each = 1 if entry.name.startswith("yolo") else 0
    images = contest.images
    return Pace(**known).epochs(contest.minutes, images["train"], images["val"], each, final=1)


def peer_pace(entry: Entry, place: Place) -> Values:
    """Return the pace of another project's trainer from a short run on a few of the images."""
    contest = entry.contest
    counts = {split: min(count, contest.images[split]) for split, count in PROBE.items()}
    folder = contest.keep / f"{contest.data.name}-{entry.name}-pace"
    shutil.rmtree(folder, ignore_errors=True)
    data = subset(contest.data, folder / "data", counts)
    told = run_peer(entry, folder / "run", data, ("val",), PROBE_EPOCHS, place)
    return {
        "start": told["seconds"] - told["train_seconds"] - told["val_seconds"],
        "train": told["train_seconds"] / (PROBE_EPOCHS * counts["train"]),
        "val": told["val_seconds"] / (told["validations"] * counts["val"]),
    }


def run_peer(
    entry: Entry, folder: Path, data: Path, splits: tuple[str, ...], epochs: int, place: Place
) -> dict[str, Any]:
    """Run the program of another project's trainer by a plan in ``folder``, and return its result."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    plan: dict[str, Any] = {"data": str(data.resolve()), "epochs": epochs, "seed": entry.seed}
    plan["detections"] = {split: str(folder / f"{split}.json") for split in splits}
    python, program = sys.executable, "ssdlite320.py"
    if entry.name.startswith("yolo"):
        if entry.contest.ultralytics is None:
            raise InputError("yolo11n: give the Python that has ultralytics as --ultralytics-python")
        python, program = str(entry.contest.ultralytics), "yolo11n.py"
        size = int(entry.name.partition("@")[2] or YOLO_SIZE)
        plan |= {"data": str(converted(data, folder, place)), "size": size, "batch": YOLO_BATCH, "ids": {}}
        for split in splits:
            file = folder / f"ids-{split}.json"
            file.write_text(json.dumps(ids(data, split)))
            plan["ids"][split] = str(file)
    plan["started"] = time.time()  # so that importing torch counts, as it does for a run of ours
    (folder / "plan.json").write_text(json.dumps(plan, indent=1))
    place.run([python, str(PROGRAMS / program), str(folder)], folder / "log.txt")
    own = {name: plan[name] for name in ("size", "batch") if name in plan}
    return {**json.loads((folder / "result.json").read_text()), **own}


def converted(data: Path, folder: Path, place: Place) -> Path:
    """Write the data set as YOLO boxes below ``folder``, and return its data.yaml."""
    target = folder / "yolo"
    command = ["data", "convert", str(data), str(target), "--format", "yolo", "--no-masks", "--outside-images"]
    command += ["--images", "link"]
    place.run([*BOXWRIGHT, *command], folder / "convert.txt")
    return next(target.glob("*.yaml"))


def ids(data: Path, split: str) -> dict[str, Any]:
    """Return the image ids by the stems of the files, and the category ids in the order of the classes."""
    index = open_splits(data)[split]
    images = {index.path(i).stem: index.image_id(i) for i in range(len(index))}
    if len(images) < len(index):
        raise InputError(f"{data}: two images of {split} have one name in different folders; rename one")
    return {"images": images, "categories": list(index.classes.ids)}
