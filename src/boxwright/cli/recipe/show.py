"""The command ``boxwright recipe show``."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from boxwright.app.requests.fields import AnyRecipe, ConfigFile
from boxwright.cli.common import Json, examples, print_json, say

EXAMPLES = examples(
    "boxwright recipe show faster-rcnn-detnet-small-fpn",
    "boxwright recipe show retinanet-small --set data.batch_size=4 > my.toml",
    "boxwright recipe show runs/retinanet-small-1 --json",
)


def show(
    recipe: AnyRecipe,
    *,
    sets: Annotated[
        tuple[str, ...],
        Parameter(
            name="--set",
            help="Override a setting of the recipe, such as data.batch_size=8. May be repeated.",
            show_default=False,
        ),
    ] = (),
    config: ConfigFile = None,
    json: Json = False,
) -> int:
    """Print a recipe with all its settings as TOML.

    What is printed is itself a recipe: `boxwright train my.toml`, or `--config my.toml` with the recipe's name.
    """
    from boxwright.app.models.showing import read_recipe, recipe_toml
    from boxwright.config.config_tree import to_tree

    found = read_recipe(recipe, config, sets)
    return print_json(to_tree(found)) if json else say(recipe_toml(found).rstrip())
