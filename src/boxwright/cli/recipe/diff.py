"""The command ``boxwright recipe diff``."""

from __future__ import annotations

from boxwright.app.requests.fields import AnyRecipe
from boxwright.cli.common import Json, examples, print_json, say

EXAMPLES = examples(
    "boxwright recipe diff retinanet-small retinanet-small-modern",
    "boxwright recipe diff faster-rcnn-r50-fpn runs/faster-rcnn-r50-fpn-1",
)


def diff(first: AnyRecipe, second: AnyRecipe, *, json: Json = False) -> int:
    """Print the settings in which two recipes differ, in the form of a diff."""
    from boxwright.app.models.showing import compare_recipes, diff_lines, read_recipe

    changes = compare_recipes(read_recipe(first), read_recipe(second))
    if json:
        return print_json([change._asdict() for change in changes])
    return say("\n".join(diff_lines((first, second), changes)) if changes else f"{first} and {second} are the same")
