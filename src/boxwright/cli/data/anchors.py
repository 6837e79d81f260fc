"""The command ``boxwright data anchors``."""

from __future__ import annotations

from typing import Annotated

from boxwright.app.requests.data import AnchorRequest
from boxwright.app.requests.fields import Data
from boxwright.cli.common import FLAT, Json, examples, print_json, say

EXAMPLES = examples(
    "boxwright data anchors my_data --count 9 --size 416 416",
    "boxwright data anchors my_data --count 5 --size 416 416 --resize warp --json",
)


def anchors(
    data: Data,
    *,
    request: Annotated[AnchorRequest, FLAT],
    json: Json = False,
) -> int:
    """Find anchor shapes for a data set by k-means, in pixels of the network's input.

    Reports how well they fit, as the mean IoU of each box with its best anchor, and the `--set` option for
    `boxwright train`. Crowd regions and boxes with a side below one pixel are left out.
    """
    from boxwright.app.anchors import find_anchors

    report = find_anchors(data, request)
    return print_json(report.to_dict()) if json else say("\n".join(report.lines()))
