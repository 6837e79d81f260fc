"""Command lines that train a candidate: its named recipe, with an option for every setting that differs."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from boxwright.app.choice.candidate import Candidate
from boxwright.app.choice.sides import on_canvas, shape
from boxwright.app.training.request_recipe import with_batch_size, with_epochs
from boxwright.config.config_tree import to_tree
from boxwright.config.recipe import Stage


def exact_command(candidate: Candidate, data: Path, more: list[str]) -> str:
    """Return the command that trains ``candidate`` on ``data``. ``more``: further options, such as the device."""
    return shlex.join(["boxwright", "train", candidate.known.recipe, "--data", str(data), *options(candidate), *more])


def options(candidate: Candidate) -> list[str]:
    """Return the options that make the candidate's recipe of the named one."""
    shipped, wanted = candidate.known.base, candidate.recipe
    recipe = on_canvas(shipped, candidate.size)
    short = ["--size", shape(candidate.size)] if recipe != shipped else []
    if shipped.data.multi_scale is not None and recipe.data.multi_scale is None:
        short += ["--set", "data.multi_scale=none"]  # read before --size
    if wanted.batch_size != recipe.batch_size:
        recipe = with_batch_size(recipe, wanted.batch_size)
        short += ["--batch-size", str(wanted.batch_size)]
    length = next(stage.length for stage in wanted.stages if isinstance(stage, Stage))
    if (longer := with_epochs(recipe, length)) != recipe:
        recipe = longer
        short += ["--epochs", f"{length:g}"]
    sets = [f"{key}={_toml(value)}" for key, value in _differences(to_tree(recipe), to_tree(wanted), "")]
    return [*short, *(word for text in sets for word in ("--set", text))]


def _differences(old: Any, new: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Return the settings in which ``new`` differs, each with its path as ``--set`` takes it."""
    if isinstance(old, dict) and isinstance(new, dict) and old.keys() == new.keys():
        pairs = [(name, old[name], new[name]) for name in new]
    elif _tables(old) and _tables(new) and len(old) == len(new):
        pairs = [(str(i), old[i], new[i]) for i in range(len(new))]
    else:
        if old != new:
            yield key, new
        return
    for name, before, after in pairs:
        yield from _differences(before, after, f"{key}.{name}" if key else name)


def _tables(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(item, dict) for item in value)


def _toml(value: Any) -> str:
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
