"""The command ``boxwright pretrain``."""

from __future__ import annotations

import shlex
from typing import Annotated

from cyclopts import Parameter

from boxwright.app.requests.training import PretrainRequest
from boxwright.cli.common import FLAT, Json, examples, is_main_process, print_json, say

EXAMPLES = examples(
    "boxwright pretrain detnet59 --data imagenet --device cuda",
    "boxwright pretrain detnet-small --preset small --data imagenette",
    "boxwright pretrain ssd300-voc --data imagenet",
    "boxwright pretrain --resume runs/detnet59-imagenet-1 --data imagenet",
)


def pretrain(
    backbone: Annotated[
        str | None,
        Parameter(
            help="A backbone, or a recipe for the backbone of its detector. `boxwright models --all` lists both."
        ),
    ] = None,
    /,
    *,
    request: Annotated[PretrainRequest, FLAT],
    json: Json = False,
) -> int:
    """Pretrain a backbone on image classification.

    Writes backbone.safetensors, which `boxwright train RECIPE --backbone-weights` takes. It holds the network with the
    best top-1 accuracy on val, and a card with data, recipe, top-1, top-5 and licence.
    """
    from boxwright.app.pretrain import result_dict, start_pretraining
    from boxwright.recipes import RECIPES

    result = start_pretraining(backbone, request)
    if not is_main_process():
        return 0
    if json:
        return print_json(result_dict(result))
    say(f"trained {result.steps} steps")
    if result.top1 is not None and result.top5 is not None:
        say(f"top-1 {100 * result.top1:.1f} %, top-5 {100 * result.top5:.1f} %")
    recipe = backbone if backbone in RECIPES else "RECIPE"
    command = f"boxwright train {recipe} --backbone-weights {shlex.quote(str(result.checkpoint))} --data ..."
    return say(f"  train a detector from it:\n    {command}")
