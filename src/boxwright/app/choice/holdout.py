"""Images that are held back from training for validation, where a data set has no split for it.

The choice does not depend on the seed of the run, so that all runs on a data set are validated on the same images. The
run folder keeps it in `FILE`: a resumed run and ``boxwright evaluate`` take the images from there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from boxwright.config.bounds import check_bounds
from boxwright.config.reading import parse_json
from boxwright.data.index import DetectionIndex
from boxwright.data.splitting import split_index
from boxwright.structures import InputError

FILE = "split.json"
"""Name of the record in the run folder."""
SHARE = 0.2
"""Share of the images that is held back, up to `MOST` images."""
MOST = 1_000
FEW = 50
"""Validation images below which the user is told that the metrics are rough."""


class HeldBack(NamedTuple):
    """A training split divided in two, with the ``record`` of the division and a ``note`` for the user."""

    train: DetectionIndex
    val: DetectionIndex | None
    record: str | None
    note: str


def hold_back(index: DetectionIndex) -> HeldBack:
    """Divide the images of ``index`` into those to train on and those to validate on, balanced by class.

    One image cannot be divided: it is trained on, and nothing is validated.
    """
    if len(index) < 2 or not index.num_boxes:
        return HeldBack(index, None, None, "there is one image only, so none is held back for validation")
    chosen, held = split_index(index, min(SHARE, MOST / len(index)))
    train, val = (index.subset(rows) for rows in (chosen, held))
    if not train.num_boxes:
        raise InputError(
            f"{index.root}: only {_number(index.num_boxes, 'box')} in all, which leaves none to train on beside "
            "validation; annotate more objects, or add --no-val"
        )
    record = {"split": index.name, "train": _paths(train), "val": _paths(val)}
    text = json.dumps(record, indent=1) + "\n"  # escapes, so that names of any encoding come back
    return HeldBack(train, _named(val, "val"), text, _note(index, val))


def stored_division(folder: Path) -> dict[str, Any] | None:
    """Read the record of a run; None if the run has held back no images. Raises InputError if it is damaged."""
    path = folder / FILE
    if not path.is_file():
        return None
    found = parse_json(path.read_bytes(), str(path))
    check_bounds(found, lambda _: str(path))
    lists = ("train", "val")
    if not isinstance(found, dict) or not isinstance(found.get("split"), str):
        raise InputError(f"{path}: not the record of a division, with split, train and val; restore it from a copy")
    for name in lists:
        values = found.get(name)
        if not isinstance(values, list) or not values or not all(isinstance(value, str) for value in values):
            raise InputError(f"{path}: {name} should be a list of image files; restore it from a copy")
    return found


def divide(index: DetectionIndex, record: Mapping[str, Any], folder: Path) -> HeldBack:
    """Divide ``index`` as the ``record`` of the run in ``folder`` says. Raises InputError for an image that is gone."""
    train, val = (index.subset(_rows(index, record[name], folder)) for name in ("train", "val"))
    note = f"validated on the {len(val)} images of {index.name} that the run has held back ({folder / FILE})"
    return HeldBack(train, _named(val, "val"), None, note)


def run_folder_of(checkpoint: Path | str) -> Path:
    """Return the folder of the run that a checkpoint is in, which may be the run folder itself."""
    path = Path(os.path.expanduser(checkpoint))
    return path if path.is_dir() else path.parent


def divided_split(folder: Path) -> str | None:
    """Return the name of the split that the run in ``folder`` has held images back of; None if it is no such run."""
    record = stored_division(folder)
    return None if record is None else record["split"]


def held_back_of(index: DetectionIndex, folder: Path) -> DetectionIndex:
    """Return the images of ``index`` that the run in ``folder``, which has divided it, has held back from training."""
    record = stored_division(folder)
    assert record is not None  # `divided_split` gave its name
    return _named(index.subset(_rows(index, record["val"], folder)), "val")


def _rows(index: DetectionIndex, names: list[str], folder: Path) -> np.ndarray:
    rows = {index.relative_path(i): i for i in range(len(index))}
    missing = [name for name in names if name not in rows]
    if missing:
        more = f", nor are {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(
            f"{index.root}: {missing[0]} is not in the split {index.name}{more}, but {folder / FILE} lists it; give "
            "the data that the run was started on, or restore the image"
        )
    return np.array([rows[name] for name in names], dtype=np.int64)


def _named(index: DetectionIndex, name: str) -> DetectionIndex:
    return replace(index, name=name)


def _paths(index: DetectionIndex) -> list[str]:
    return [index.relative_path(i) for i in range(len(index))]


def _note(index: DetectionIndex, val: DetectionIndex) -> str:
    """Say how many images are held back, and how far their metrics can be trusted."""
    note = (
        f"{index.root}: no split for validation, so {_number(len(val), 'image')} of the {len(index)} "
        f"({_number(val.num_boxes, 'box')}) {'are' if len(val) > 1 else 'is'} held back from training for it, balanced "
        f"by class; the run folder lists them in {FILE}"
    )
    absent = set(np.unique(index.labels).tolist()) - set(np.unique(val.labels).tolist())
    if absent:
        names = ", ".join(repr(index.classes.names[label]) for label in sorted(absent)[:4])
        note += f". Not among them: {names}{' and more' if len(absent) > 4 else ''} (too few images)"
    if len(val) < FEW:
        note += ". So few images make a rough AP: a change of several points may be chance"
    return note


def _number(count: int, what: str) -> str:
    plural = {"box": "boxes"}.get(what, f"{what}s")
    return f"{count:,} {what if count == 1 else plural}"
