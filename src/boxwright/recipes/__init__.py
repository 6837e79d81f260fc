"""Named recipes: one literal table a family, and the way to find and change them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from boxwright.config.overlay import Overlay, apply_overlays, parse_set, read_overlay
from boxwright.config.recipe import Recipe
from boxwright.fields import nearest
from boxwright.recipes.fast_rcnn import FAST_RCNN_RECIPES
from boxwright.recipes.faster_rcnn import FASTER_RCNN_RECIPES
from boxwright.recipes.faster_rcnn_c4 import FASTER_RCNN_C4_RECIPES
from boxwright.recipes.faster_rcnn_c4_small import FASTER_RCNN_C4_SMALL_RECIPES
from boxwright.recipes.lite import LITE_RECIPES
from boxwright.recipes.mask_rcnn import MASK_RCNN_RECIPES
from boxwright.recipes.rcnn import RCNN_RECIPES
from boxwright.recipes.refinedet import REFINEDET_RECIPES
from boxwright.recipes.retinanet import RETINANET_RECIPES
from boxwright.recipes.rfcn import RFCN_RECIPES
from boxwright.recipes.ssd import SSD_RECIPES
from boxwright.recipes.yolov1 import YOLOV1_RECIPES
from boxwright.recipes.yolov2 import YOLOV2_RECIPES
from boxwright.recipes.yolov3 import YOLOV3_RECIPES
from boxwright.structures import InputError


def by_name(recipes: Iterable[Recipe]) -> dict[str, Recipe]:
    """The recipes by name. Raises InputError where two have one name."""
    table: dict[str, Recipe] = {}
    for recipe in recipes:
        if recipe.name in table:
            raise InputError(f"two recipes are called {recipe.name!r}; each needs its own name")
        table[recipe.name] = recipe
    return table


RECIPES: dict[str, Recipe] = by_name(
    (
        *FAST_RCNN_RECIPES,
        *FASTER_RCNN_RECIPES,
        *FASTER_RCNN_C4_RECIPES,
        *FASTER_RCNN_C4_SMALL_RECIPES,
        *MASK_RCNN_RECIPES,
        *RCNN_RECIPES,
        *REFINEDET_RECIPES,
        *RETINANET_RECIPES,
        *RFCN_RECIPES,
        *SSD_RECIPES,
        *YOLOV1_RECIPES,
        *YOLOV2_RECIPES,
        *YOLOV3_RECIPES,
        *LITE_RECIPES,
    )
)


def get_recipe(name: str) -> Recipe:
    """The shipped recipe called ``name``. InputError names the nearest, or the command that lists all."""
    if name in RECIPES:
        return RECIPES[name]
    near = nearest(name, list(RECIPES)) or "; `boxwright models --kind detector` lists the recipes"
    raise InputError(f"there is no recipe {name!r}{near}")


def resolve_recipe(name: str, overlay: Path | str | None = None, sets: Sequence[str] = ()) -> Recipe:
    """The recipe that a command line means: a shipped one, then the TOML file ``overlay``, then each ``--set a.b=c``.

    ``name`` may itself be a TOML file, whose key ``base`` names the shipped recipe that it changes.
    """
    recipe, overlays = named_recipe(name)
    return apply_changes(recipe, overlays, overlay, sets)


def named_recipe(name: str) -> tuple[Recipe, list[Overlay]]:
    """The shipped recipe that ``name`` means or is based on, and the changes to it if ``name`` is a TOML file."""
    if not name.endswith(".toml"):
        return get_recipe(name), []
    changes = read_overlay(name)
    base = changes.tree.get("base")
    if not isinstance(base, str):
        raise InputError(f'{name}: lacks the recipe that it changes; add a line such as base = "{next(iter(RECIPES))}"')
    recipe = get_recipe(base)
    return recipe, [_without_base(changes, recipe)]


def apply_changes(
    recipe: Recipe,
    overlays: Sequence[Overlay],
    overlay: Path | str | None = None,
    sets: Sequence[str] = (),
    last: Sequence[Overlay] = (),
) -> Recipe:
    """``recipe`` with ``overlays``, then the TOML file ``overlay``, then each ``--set a.b=c``, then ``last``."""
    file = [] if overlay is None else [_without_base(read_overlay(overlay), recipe)]
    return apply_overlays(recipe, [*overlays, *file, *map(parse_set, sets), *last])


def _without_base(changes: Overlay, recipe: Recipe) -> Overlay:
    """``changes`` of a file that may name ``recipe`` as the one that it changes. Raises InputError for another name."""
    base = changes.tree.get("base", recipe.name)
    if base != recipe.name:
        raise InputError(
            f"{changes.origin}: changes the recipe {base!r}, not {recipe.name!r}; give the file in place of the "
            "recipe's name, or remove its key base"
        )
    return Overlay(changes.origin, {key: value for key, value in changes.tree.items() if key != "base"})
