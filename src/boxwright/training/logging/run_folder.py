"""The folder of a run, which explains itself."""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path
from typing import Any

import torch

from boxwright.checkpoints.checkpoint import SUFFIX, TRAIN_SUFFIX
from boxwright.config.reading import dump_recipe
from boxwright.config.recipe import Recipe
from boxwright.data.index import DetectionIndex
from boxwright.io.environment import git_state, machine, versions
from boxwright.io.files import write_atomically, write_error
from boxwright.structures import InputError

README = """\
A training run of Boxwright {version}: recipe {name}.

best.safetensors    the weights with the best AP on the validation set, with recipe and classes: what you use and ship
last.safetensors    the weights of the last checkpoint
last.train          optimiser, random states and position in the data: what resuming needs
recipe.json         the recipe with every default spelled out
run.json            command, versions, git state, machine, data and its fingerprint, and how the run ended
metrics.jsonl       one line a row: losses while training, AP at each validation
train.csv           the training rows as a table
validation.csv      the validation rows as a table
loss.png, ap.png    curves of both
samples.jpg         validation images: annotations left, detections right

Use:     boxwright detect {folder}/best.safetensors IMAGES
Resume:  {resume}
"""


def new_run_folder(root: Path | str, name: str) -> Path:
    """The first of ``root/name-1``, ``root/name-2`` ... after all that exist; it is not made yet."""
    root = Path(root)
    pattern = re.compile(re.escape(name) + r"-(\d+)")
    matches = (pattern.fullmatch(p.name) for p in root.iterdir()) if root.is_dir() else ()
    return root / f"{name}-{max((int(m[1]) for m in matches if m), default=0) + 1}"


def prepare_folder(folder: Path, resume: bool) -> None:
    """Make the folder of a new run; InputError where it holds something. Of a resumed run: check that it is there."""
    state = folder / f"last{TRAIN_SUFFIX}"
    if resume:
        if not state.is_file():
            raise InputError(f"{folder}: nothing to resume: there is no {state.name}; start a new run without resume")
        return
    if folder.is_dir() and any(folder.iterdir()):
        what = "holds a run already" if state.is_file() else "is not empty"
        remedy = "resume it, or choose another folder" if state.is_file() else "choose another folder"
        raise InputError(f"{folder}: {what}; {remedy}: a run never overwrites anything")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(folder, error) from error


def data_summary(index: DetectionIndex) -> dict[str, Any]:
    """What identifies a data set."""
    return {
        "root": str(index.root),
        "split": index.name,
        "images": len(index),
        "boxes": index.num_boxes,
        "fingerprint": index.fingerprint(),
    }


def describe_run(
    folder: Path,
    recipe: Recipe,
    train: dict[str, Any],
    validation: dict[str, Any] | None,
    classes: tuple[str, ...],
    device: torch.device,
    resume_command: str,
) -> None:
    """Write recipe.json, run.json and README.txt. A resumed run adds a session to run.json."""
    info = read_run(folder)
    session = {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": sys.argv,
        "versions": versions(),
        "git": git_state(),
        "machine": machine(device),
    }
    info |= {"recipe": recipe.name, "data": {"train": train, "validation": validation}, "classes": list(classes)}
    info |= {"resume_command": resume_command, "status": "running"}
    info["sessions"] = [*info.get("sessions", []), session]
    write_atomically(folder / "recipe.json", dump_recipe(recipe).encode())
    readme = README.format(version=versions()["boxwright"], name=recipe.name, folder=folder, resume=resume_command)
    write_atomically(folder / "README.txt", readme.encode())
    write_run(folder, info)


def read_run(folder: Path) -> dict[str, Any]:
    """run.json, or nothing where it is absent."""
    path = folder / "run.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def write_run(folder: Path, info: dict[str, Any]) -> None:
    """Replace run.json."""
    write_atomically(folder / "run.json", json.dumps(info, indent=2, ensure_ascii=False).encode())


def finish_run(folder: Path, status: str, **results: Any) -> None:
    """Note in run.json how the run ended."""
    write_run(folder, read_run(folder) | {"status": status, "ended": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **results})


def prune_steps(folder: Path, keep: int) -> None:
    """Remove all but the last ``keep`` of the numbered checkpoints."""
    numbered = sorted(folder.glob(f"step_*{SUFFIX}"))
    for path in numbered[: len(numbered) - keep]:
        path.unlink(missing_ok=True)
