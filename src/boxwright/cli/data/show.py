"""The command ``boxwright data show``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from boxwright.app.requests.fields import Data, VocZeroBased
from boxwright.cli.common import Json, examples, print_json, say

EXAMPLES = examples("boxwright data show my_data --output samples.html --count 12")


def show(
    data: Data,
    *,
    output: Annotated[Path, Parameter(help="The page to write, .html or .png.")] = Path("samples.html"),
    count: Annotated[int, Parameter(help="Number of images per split.")] = 24,
    seed: Annotated[int, Parameter(help="Seed of the choice of images.")] = 0,
    split: Annotated[str | None, Parameter(help="Show only this split.")] = None,
    voc_zero_based: VocZeroBased = False,
    json: Json = False,
) -> int:
    """Draw sample images of a data set with their boxes and masks on one page."""
    from boxwright.data.formats.show import show_dataset

    page = show_dataset(data, output, count, seed, split, not voc_zero_based)
    return print_json({"output": str(page)}) if json else say(f"wrote {page}")
