"""The group of commands ``boxwright recipe``."""

from __future__ import annotations

from cyclopts import App

from boxwright.cli.common import NEGATIVES, OPTIONS, examples
from boxwright.cli.recipe import diff, listing, show

recipe_app = App(
    name="recipe",
    help="List recipes, show them with all their settings, and compare them.",
    help_epilogue=examples(
        "boxwright recipe show retinanet-small > my.toml",
        "boxwright recipe diff retinanet-small retinanet-small-modern",
    ),
    default_parameter=NEGATIVES,
    group_parameters=OPTIONS,
    sort_key=3,
)
recipe_app.command(listing.list_recipes, name="list", sort_key=1, help_epilogue=listing.EXAMPLES)
recipe_app.command(show.show, sort_key=2, help_epilogue=show.EXAMPLES)
recipe_app.command(diff.diff, sort_key=3, help_epilogue=diff.EXAMPLES)
