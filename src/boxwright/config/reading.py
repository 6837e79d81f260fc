"""Recipes as JSON: written with all their values, read from checkpoints and run folders of any version."""

from __future__ import annotations

import json
from typing import Any

from boxwright.config.bounds import shortened
from boxwright.config.config_tree import Describe, from_tree, to_tree
from boxwright.config.recipe import Recipe
from boxwright.structures import InputError


def recipe_from_tree(tree: Any, describe: Describe = lambda path: "", trained: bool = False) -> Recipe:
    """Return the recipe in a tree that :func:`to_tree` made, in this or an earlier version.

    ``trained``: the recipe describes trained weights, so deleted options that acted in training alone are dropped.
    """
    return from_tree(Recipe, tree, describe, trained=trained)


def dump_recipe(recipe: Recipe) -> str:
    """Return the whole recipe, defaults included, as JSON."""
    return json.dumps(to_tree(recipe), indent=2, ensure_ascii=False, allow_nan=False)


def load_recipe(text: str | bytes, origin: str = "recipe") -> Recipe:
    """Return the recipe in the JSON ``text``; ``origin`` names the source of the text in errors."""
    return recipe_from_tree(parse_json(text, origin), lambda path: origin)


def parse_json(text: str | bytes, origin: str) -> Any:
    """Return the value of the JSON ``text``; raises InputError that begins with ``origin`` if it is none."""
    try:
        return json.loads(text)
    except RecursionError:
        raise InputError(f"{origin}: not valid JSON: too many tables or lists in one another") from None
    except ValueError as error:  # also of a number of thousands of digits, and of bytes that are not UTF-8
        raise InputError(f"{origin}: not valid JSON: {shortened(str(error))}") from None
