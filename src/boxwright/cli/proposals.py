"""The command ``boxwright proposals``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from boxwright.cli.data import OUTPUT, WHERE, Data, Device, Json, print_json, say


def proposals(
    *,
    data: Data,
    split: Annotated[str | None, Parameter(help="Which split; may be left out where there is only one.")] = None,
    method: Annotated[
        str,
        Parameter(help="selective-search, or the checkpoint of a detector with a proposal network, by path or name."),
    ] = "selective-search",
    output: Annotated[Path, Parameter(help="The file to write, .safetensors.", group=OUTPUT)],
    most: Annotated[int, Parameter(help="Proposals kept of each image.")] = 2000,
    quality: Annotated[
        Literal["fast", "quality"], Parameter(help="Of selective search: quality finds more and takes longer.")
    ] = "fast",
    workers: Annotated[int, Parameter(help="Processes for selective search.", group=WHERE)] = 1,
    device: Device = "auto",
    json: Json = False,
) -> int:
    """Find boxes where objects may be, for detectors that are given them, such as Fast R-CNN.

    Writes one file for a split and prints how many objects its best boxes find.
    """
    from boxwright.app.proposals import make_proposals

    made = make_proposals(data, split, method, output, most, quality, workers, device)
    if json:
        return print_json(made.to_dict())
    say(f"wrote {len(made.proposals.boxes)} proposals of {len(made.proposals)} images to {made.path}")
    say("  best   recall .5   recall .7   average recall")
    for row in made.recall:
        say(f"  {row.count:4d}   {row.recall_50:9.3f}   {row.recall_70:9.3f}   {row.average:14.3f}")
    return 0
