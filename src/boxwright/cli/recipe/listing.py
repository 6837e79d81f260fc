"""The command ``boxwright recipe list``."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from boxwright.cli.common import Json, examples, print_json, say
from boxwright.structures import InputError

EXAMPLES = examples("boxwright recipe list", "boxwright recipe list retinanet small")


def list_recipes(
    *words: Annotated[str, Parameter(help="List only the names that contain all of these.")], json: Json = False
) -> int:
    """List the names of the recipes, one a line. `boxwright models` shows them with their cost and published AP."""
    from boxwright.app.models.table import model_rows

    names = [row["name"] for row in model_rows("detector")]
    found = [name for name in names if all(word.casefold() in name for word in words)]
    if not found:
        raise InputError(f"no recipe has {' and '.join(map(repr, words))} in its name; `boxwright recipe list` has all")
    return print_json(found) if json else say("\n".join(found))
