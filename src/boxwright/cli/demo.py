"""The command ``boxwright demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from boxwright.cli.data import Device, Json, print_json


def demo(
    *,
    output: Annotated[Path, Parameter(help="Folder of scenes, run and report.")] = Path("demo"),
    images: Annotated[int, Parameter(help="Scenes to train on.")] = 1000,
    val_images: Annotated[int, Parameter(help="Scenes to choose the best checkpoint by.")] = 40,
    test_images: Annotated[int, Parameter(help="Scenes for the figures alone.")] = 80,
    size: Annotated[int, Parameter(help="Side of a scene in pixels.")] = 256,
    steps: Annotated[int | None, Parameter(help="Steps of training. Default: the recipe's length.")] = None,
    seed: Annotated[int, Parameter(help="Seed of scenes and training.")] = 0,
    set: Annotated[
        tuple[str, ...], Parameter(name="--set", help="Change a setting of the recipe.", show_default=False)
    ] = (),
    device: Device = "auto",
    json: Json = False,
) -> int:
    """Draw scenes, train a small detector on them, and write a report: ten minutes on two cores, no download."""
    from boxwright.app.demo import DemoOptions, run_demo
    from boxwright.app.terminal import print_demo

    options = DemoOptions(
        images=images,
        val_images=val_images,
        test_images=test_images,
        size=size,
        steps=steps,
        seed=seed,
        device=device,
        sets=set,
    )
    result = run_demo(output, options)
    if json:
        return print_json(result.to_dict())
    print_demo(result, Console(soft_wrap=True))
    return 0
