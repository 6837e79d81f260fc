"""The command ``boxwright recommend``."""

from __future__ import annotations

from typing import Annotated

from boxwright.app.requests.training import RecommendRequest
from boxwright.cli.common import FLAT, Json, examples, print_json, say

EXAMPLES = examples(
    "boxwright recommend --data my_data",
    "boxwright recommend --data my_data --budget 15m --latency 50ms",
    "boxwright recommend --data my_data --effort best --json",
)


def recommend(*, request: Annotated[RecommendRequest, FLAT], json: Json = False) -> int:
    """Recommend a detector for your images and this machine, with reasons, without training.

    It is what `boxwright train --data DATA` trains. The runners-up follow, each with the command that trains it. Times
    are measured with a few training steps and detections of each.
    """
    from boxwright.app.recommend import recommend

    found = recommend(request)
    return print_json(found.values) if json else say("\n".join(found.lines))
