"""Recipes as text: one whole, and the differences of two."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, NamedTuple

from boxwright.checkpoints.opening import open_checkpoint
from boxwright.config.config_tree import to_tree
from boxwright.config.reading import load_recipe
from boxwright.config.recipe import Recipe
from boxwright.config.toml import to_toml, toml_value
from boxwright.recipes import RECIPES, apply_changes, named_recipe
from boxwright.structures import InputError


class Change(NamedTuple):
    """A setting with its values in two recipes, as TOML; None in a recipe that does not have it."""

    setting: str
    first: str | None
    second: str | None


def read_recipe(source: str, config: Path | None = None, sets: Sequence[str] = ()) -> Recipe:
    """Return the recipe of ``source``, with the changes of a TOML file ``config`` and of each ``--set``.

    ``source``: a name, a TOML file, a run's folder or its ``recipe.json``, or any checkpoint. A path that exists comes
    before a name. Raises InputError for anything else.
    """
    path = Path(source)
    if source.endswith(".toml") or not path.exists():
        return apply_changes(*named_recipe(source), config, sets)
    file = path / "recipe.json" if path.is_dir() else path
    if file.suffix == ".json" and file.is_file():
        stored = load_recipe(_bytes_of(file), str(file))
    else:
        stored = open_checkpoint(source).checkpoint.recipe
    return apply_changes(stored, (), config, sets)


def _bytes_of(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from None


def recipe_toml(recipe: Recipe) -> str:
    """Return all settings of ``recipe`` as a TOML file that can be given as recipe, or with ``--config``.

    A recipe of a name that is not shipped changes the first one that has the same kind of detector.
    """
    like = (name for name, shipped in RECIPES.items() if shipped.detector.kind == recipe.detector.kind)
    base = recipe.name if recipe.name in RECIPES else next(like)
    return to_toml({"base": base, **to_tree(recipe)})


def compare_recipes(first: Recipe, second: Recipe) -> list[Change]:
    """Return the settings in which two recipes differ, in their order in the recipes."""
    one, other = dict(_settings(to_tree(first))), dict(_settings(to_tree(second)))
    return [
        Change(key, _shown(one, key), _shown(other, key))
        for key in _merged(list(one), list(other))
        if key not in one or key not in other or one[key] != other[key]
    ]


def _merged(first: list[str], second: list[str]) -> list[str]:
    """Return the keys of both lists, each once; a key of one list follows those that it follows there."""
    merged: list[str] = []
    for _, i1, i2, j1, j2 in SequenceMatcher(None, first, second, autojunk=False).get_opcodes():
        merged += [*first[i1:i2], *second[j1:j2]]
    return list(dict.fromkeys(merged))


def diff_lines(names: tuple[str, str], changes: Sequence[Change]) -> list[str]:
    """Return the differences in the form of a diff."""
    lines = [f"--- {names[0]}", f"+++ {names[1]}"]
    for setting, *values in changes:
        lines += [f"{sign}{setting} = {value}" for sign, value in zip("-+", values, strict=True) if value is not None]
    return lines


def _settings(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield path and value of every setting; a list is one value unless there are tables in it."""
    if isinstance(value, dict) and value:
        entries = [(str(key), inner) for key, inner in value.items()]
    elif isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
        entries = [(str(number), inner) for number, inner in enumerate(value)]
    else:
        yield path, value
        return
    for key, inner in entries:
        yield from _settings(inner, f"{path}.{key}" if path else key)


def _shown(leaves: dict[str, Any], key: str) -> str | None:
    return toml_value(leaves[key]) if key in leaves else None
