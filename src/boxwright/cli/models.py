"""The command ``boxwright models``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from cyclopts import Parameter
from rich import box
from rich.console import Console
from rich.table import Table

from boxwright.cli.common import Json, examples, print_json

EXAMPLES = examples(
    "boxwright models --kind detector",
    "boxwright models my_recipe.toml",
    "boxwright models --json",
)


def models(
    *recipes: Annotated[str, Parameter(help="Count only these recipes: names, or TOML files of your own.")],
    kind: Annotated[Literal["backbone", "detector"] | None, Parameter(help="List only backbones or detectors.")] = None,
    json: Json = False,
) -> int:
    """List backbones and recipes with their parameters and multiply-adds.

    A backbone is counted as a classifier of 1000 classes at 224 pixels, a detector with 80 classes at the size at which
    its recipe evaluates. The names of detectors are the recipes that `boxwright train` takes.
    """
    from boxwright.app.models.table import model_rows

    rows = model_rows(kind)
    if recipes:
        stored = {row["name"]: row for row in model_rows()}
        rows = [row for name in recipes if kind in (None, (row := stored.get(name) or _counted(name))["kind"])]
    if json:
        return print_json(rows)
    print_models(rows, Console())
    return 0


def _counted(recipe: str) -> dict[str, Any]:
    from boxwright.app.models.counting import recipe_row

    return recipe_row(recipe)


def print_models(rows: list[dict[str, Any]], console: Console) -> None:
    """Print the table. It is narrow, so that names can be copied from a terminal of 80 columns."""
    table = Table(box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    table.add_column("name", no_wrap=True)
    table.add_column("kind", no_wrap=True)
    for heading in ("parameters", "mult-adds", "input"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        size = row["input"] if isinstance(row["input"], int) else "x".join(map(str, row["input"]))
        cost = (f"{row['parameters']:,}", f"{row['multiply_adds'] / 1e9:.2f} G")
        table.add_row(row["name"], row["kind"], *cost, str(size))
    console.print(table)
