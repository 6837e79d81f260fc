"""The command ``boxwright train``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from boxwright.app.requests.training import TrainRequest
from boxwright.cli.common import FLAT, Json, examples, is_main_process, print_json, say
from boxwright.io.text import printable_lines

if TYPE_CHECKING:
    from boxwright.app.training.preview import Preview

EXAMPLES = examples(
    "boxwright train --data my_data",
    "boxwright train --data my_data --budget 15m",
    "boxwright train faster-rcnn-detnet-small-fpn --data my_data",
    "boxwright train faster-rcnn-r50-fpn --data coco --epochs 12 --batch-size 8 --size 640",
    "boxwright train faster-rcnn-r50-fpn --data my_data --weights torchvision:fasterrcnn_resnet50_fpn",
    "boxwright train faster-rcnn-detnet-small-fpn --data my_data --dry-run",
    "boxwright train --data my_data --resume runs/faster-rcnn-detnet-small-fpn-1",
    "torchrun --nproc-per-node 8 -m boxwright train faster-rcnn-detnet59-fpn --data coco",
)


def train(
    recipe: Annotated[
        str | None,
        Parameter(
            help="The name of a recipe, or a TOML file with the key `base`. Default: the best known for the data and "
            "this machine."
        ),
    ] = None,
    /,
    *,
    request: Annotated[TrainRequest, FLAT],
    json: Json = False,
) -> int:
    """Train a detector on your own images.

    Without a recipe it chooses one for your images and this machine, and prints the choice with its reasons; `boxwright
    recommend` shows it without training. `boxwright models --kind detector` lists the recipes. Ctrl-C stops after the
    current step, saves a checkpoint and prints the command that continues the run. A resumed run keeps its recipe, so
    do not override settings then.
    """
    from boxwright.app.train import next_commands, preview_training, result_dict, start_training

    if request.dry_run:
        found = preview_training(recipe, request, _tell)
        return _show(found, json) if is_main_process() else 0
    result = start_training(recipe, request, _tell)
    if not is_main_process():
        return 0
    if json:
        return print_json(result_dict(result, request.data))
    say(f"trained {result.steps} steps; the checkpoint to use is {result.checkpoint}")
    for purpose, command in next_commands(result, request.data):
        say(f"  {purpose}:\n    {command}")
    return 0


def _tell(line: str) -> None:
    """Print a line on stderr, in one process of several."""
    if is_main_process():
        print(printable_lines(line), file=sys.stderr, flush=True)


def _show(found: Preview, json: bool) -> int:
    """Print what a run would do."""
    from boxwright.app.models.showing import recipe_toml

    if json:
        return print_json(found.values())
    say("\n".join(found.text()))
    say("nothing is trained or written; without --dry-run the run starts, with this recipe:\n")
    return say(recipe_toml(found.recipe).rstrip())
