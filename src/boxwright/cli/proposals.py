"""The command ``boxwright proposals``."""

from __future__ import annotations

from typing import Annotated

from boxwright.app.requests.inference import ProposalsRequest
from boxwright.cli.common import FLAT, Json, examples, print_json, say

EXAMPLES = examples(
    "boxwright proposals --data voc --split train --output train.safetensors --workers 4",
    "boxwright proposals --data voc --split train --method runs/faster-rcnn-r50-fpn-1 --output train.safetensors",
)


def proposals(*, request: Annotated[ProposalsRequest, FLAT], json: Json = False) -> int:
    """Compute object proposals for a split, for detectors that take precomputed ones, such as Fast R-CNN.

    Writes one file per split and prints the recall of its best proposals.
    """
    from boxwright.app.proposals import make_proposals

    made = make_proposals(request)
    if json:
        return print_json(made.to_dict())
    say(f"wrote {len(made.proposals.boxes)} proposals of {len(made.proposals)} images to {made.path}")
    say("  best   recall .5   recall .7   average recall")
    for row in made.recall:
        say(f"  {row.count:4d}   {row.recall_50:9.3f}   {row.recall_70:9.3f}   {row.average:14.3f}")
    return 0
