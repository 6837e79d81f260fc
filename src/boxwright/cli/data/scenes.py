"""The command ``boxwright data scenes``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from boxwright.app.requests.fields import WHERE
from boxwright.cli.common import Json, examples, print_json, say

EXAMPLES = examples("boxwright data scenes scenes --train 500 --val 100 --seed 1")


def scenes(
    output: Annotated[Path, Parameter(help="A new folder.")],
    *,
    train: Annotated[int, Parameter(help="Number of training scenes.")] = 200,
    val: Annotated[int, Parameter(help="Number of validation scenes.")] = 50,
    test: Annotated[int, Parameter(help="Number of test scenes.")] = 0,
    size: Annotated[
        tuple[int, int], Parameter(help="Height and width in pixels. Default: 256 256.", show_default=False)
    ] = (256, 256),
    seed: Annotated[int, Parameter(help="Seed of the scenes.")] = 0,
    format: Annotated[Literal["coco", "voc", "yolo"], Parameter(help="Format of the annotations.")] = "coco",
    workers: Annotated[int, Parameter(help="Processes that draw. 0: draw in this process.", group=WHERE)] = 0,
    json: Json = False,
) -> int:
    """Generate a data set of synthetic scenes with objects, masks, clutter and occlusion."""
    from boxwright.data.scenes import write_scenes

    counts = {name: n for name, n in (("train", train), ("val", val), ("test", test)) if n}
    folder = write_scenes(output, counts, size, seed, format, workers=workers)
    return print_json({"output": str(folder), "images": counts}) if json else say(f"wrote {folder}")
