"""The command ``boxwright pretrain``."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from boxwright.cli.data import OUTPUT, WHERE, Device, Json, print_json, say


def pretrain(
    backbone: Annotated[
        str | None,
        Parameter(help="A backbone, or a recipe for what its detector starts from; `boxwright models` lists both."),
    ] = None,
    /,
    *,
    data: Annotated[Path, Parameter(help="A folder with train/CLASS/ and, to measure on, val/CLASS/ below it.")],
    preset: Annotated[
        Literal["imagenet", "small"] | None,
        Parameter(help="The recipe: imagenet (the default) for ImageNet, small for thousands of small pictures."),
    ] = None,
    output: Annotated[
        Path | None, Parameter(help="The run's folder, new. Default: runs/BACKBONE-PRESET-N.", group=OUTPUT)
    ] = None,
    set: Annotated[
        tuple[str, ...],
        Parameter(name="--set", help="Change a setting, as crops.size=160. May be repeated.", show_default=False),
    ] = (),
    config: Annotated[Path | None, Parameter(help="A TOML file with changes to the recipe.")] = None,
    epochs: Annotated[float | None, Parameter(help="Length of the training; its schedule is stretched to it.")] = None,
    resume: Annotated[Path | None, Parameter(help="Go on with the run in this folder.")] = None,
    seed: Annotated[int | None, Parameter(help="Seed of everything random.")] = None,
    licence: Annotated[str, Parameter(help="Of the pictures, for the card in the file.")] = "",
    device: Device = "auto",
    workers: Annotated[int | None, Parameter(help="Processes that load pictures.", group=WHERE)] = None,
    json: Json = False,
) -> int:
    """Train a backbone to tell pictures apart, so that detectors can start from it.

    Writes backbone.safetensors, which `boxwright train RECIPE --backbone-weights` takes: the network with the best
    top-1 on val, and a card with data, recipe, top-1, top-5 and licence.
    """
    from boxwright.app.pretrain import PretrainRequest, result_dict, start_pretraining
    from boxwright.recipes import RECIPES

    result = start_pretraining(
        PretrainRequest(
            backbone=backbone,
            data=data,
            preset=preset,
            output=output,
            resume=resume,
            sets=set,
            config=config,
            epochs=epochs,
            seed=seed,
            workers=workers,
            device=device,
            licence=licence,
        )
    )
    if os.environ.get("RANK", "0") != "0":
        return 0  # under torchrun one process talks
    if json:
        return print_json(result_dict(result))
    say(f"trained {result.steps} steps")
    if result.top1 is not None and result.top5 is not None:
        say(f"top-1 {100 * result.top1:.1f} %, top-5 {100 * result.top5:.1f} %")
    recipe = backbone if backbone in RECIPES else "RECIPE"
    command = f"boxwright train {recipe} --backbone-weights {shlex.quote(str(result.checkpoint))} --data ..."
    return say(f"  start a detector from it:\n    {command}")
