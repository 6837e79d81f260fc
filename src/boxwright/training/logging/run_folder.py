"""Folder of a run: its name, its description, and the numbered checkpoints in it."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from boxwright.checkpoints.checkpoint import SUFFIX, TRAIN_SUFFIX
from boxwright.config.bounds import check_bounds
from boxwright.config.reading import parse_json
from boxwright.io.environment import git_state, machine, versions
from boxwright.io.files import locked, write_atomically, write_error
from boxwright.io.leftovers import remove_leftovers
from boxwright.structures import InputError
from boxwright.training.tasks.task import Task

LOCK = ".lock"
"""File that the training process holds; it disappears at the end."""
FILES = {
    "last.train": "optimiser, random states and position in the data, for resuming",
    "recipe.json": "recipe with every default spelled out",
    "run.json": "command, versions, git state, machine, data with fingerprint, and how the run ended",
    "data.csv": "size, time and a hash of every image, to notice changes when the run is resumed",
    "metrics.jsonl": "one row a line: losses while training, metrics of each validation",
    "train.csv": "training rows as a table",
    "validation.csv": "validation rows as a table",
    "loss.png": "losses over the steps",
}
RECORDS = {
    "split.json": "images to train on and images held back for validation, of data without a split for it",
    "choice.json": "reasons for the choice of the recipe",
}
"""Files that only some runs have."""

README = """\
A training run of Boxwright {version}: recipe {name}.

{files}

Use:     {use}
Resume:  {resume}
"""


def new_run_folder(root: Path | str, name: str) -> Path:
    """Return the first free name of ``root/name-1``, ``root/name-2``, ... after all that exist; create nothing."""
    root = Path(root)
    pattern = re.compile(re.escape(name) + r"-(\d+)")
    matches = (pattern.fullmatch(p.name) for p in root.iterdir()) if root.is_dir() else ()
    return root / f"{name}-{max((int(m[1]) for m in matches if m), default=0) + 1}"


@contextmanager
def run_folder(folder: Path, resume: bool) -> Iterator[bool]:
    """Create the folder of a new run, or check that of a resumed one, and lock it for this process.

    Gives False where the file system has no locks. Raises InputError if the folder is in use or absent. A run that
    raises InputError before it has written anything leaves no folder.
    """
    remove_leftovers(folder, at_once=True)
    check_folder(folder, resume)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(folder, error) from error
    busy = f"{folder}: {{holder}} is training into this folder; wait for it or stop it, or choose another folder"
    try:
        with locked(folder / LOCK, busy) as held:
            check_folder(folder, resume, own_lock=True)
            yield held
    except InputError:
        with suppress(OSError):
            folder.rmdir()  # succeeds only on an empty folder
        raise


def check_folder(folder: Path, resume: bool, own_lock: bool = False) -> None:
    """Raise InputError if there is nothing to resume, or if a new run would mix with other files.

    A folder with a lock is looked at again once the lock is this process's own: it may be that of a living run.
    """
    state = folder / f"last{TRAIN_SUFFIX}"
    if resume:
        if not state.is_file():
            raise InputError(f"{folder}: nothing to resume: there is no {state.name}; start a new run without resume")
        return
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if names - {LOCK} and (own_lock or LOCK not in names):
        what = "holds a run already" if state.is_file() else "is not empty"
        remedy = "resume it, or choose another folder" if state.is_file() else "choose another folder"
        raise InputError(f"{folder}: {what}; {remedy}: a run never overwrites anything")


def describe_run(
    folder: Path, task: Task[Any], device: torch.device, resume_command: str, records: Mapping[str, str]
) -> None:
    """Write recipe.json, run.json, README.txt and the ``records``. A resumed run adds a session to run.json."""
    name = task.recipe.name
    session = {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": sys.argv,
        "versions": versions(),
        "git": git_state(),
        "machine": machine(device),
    }
    info = read_run(folder) | {"recipe": name} | task.summary()
    info |= {"resume_command": resume_command, "status": "running"}
    info["sessions"] = [*info.get("sessions", []), session]
    write_atomically(folder / "recipe.json", task.recipe_json().encode())
    for file, content in records.items():
        write_atomically(folder / file, content.encode())
    kept = {file: text for file, text in RECORDS.items() if (folder / file).is_file()}
    files = "\n".join(f"{file:<19} {text}" for file, text in (task.files() | FILES | kept).items())
    readme = README.format(
        version=versions()["boxwright"], name=name, files=files, use=task.use(folder), resume=resume_command
    )
    write_atomically(folder / "README.txt", readme.encode())
    write_run(folder, info)


def read_run(folder: Path) -> dict[str, Any]:
    """Read run.json; return an empty dict if it is absent. Raises InputError if it is damaged."""
    path = folder / "run.json"
    if not path.is_file():
        return {}
    info = parse_json(path.read_bytes(), str(path))
    if not isinstance(info, dict) or not isinstance(info.get("sessions", []), list):
        raise InputError(f"{path}: not the record of a run; delete it to go on with a new one")
    check_bounds(info, lambda _: str(path))
    return info


def write_run(folder: Path, info: dict[str, Any]) -> None:
    """Replace run.json."""
    write_atomically(folder / "run.json", json.dumps(info, indent=2, ensure_ascii=False).encode())


def finish_run(folder: Path, status: str, **results: Any) -> None:
    """Record in run.json how the run ended."""
    write_run(folder, read_run(folder) | {"status": status, "ended": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **results})


def prune_steps(folder: Path, keep: int) -> None:
    """Remove all but the last ``keep`` of the numbered checkpoints."""
    numbered = sorted(folder.glob(f"step_*{SUFFIX}"))
    for path in numbered[: len(numbered) - keep]:
        path.unlink(missing_ok=True)
