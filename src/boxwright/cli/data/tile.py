"""The command ``boxwright data tile``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from boxwright.app.requests.copying import PLAIN_COPY, CopyRequest, FormatName
from boxwright.app.requests.editing import TileRequest
from boxwright.app.requests.fields import Data
from boxwright.cli.common import FLAT, Json, examples, print_json, say

EXAMPLES = examples(
    "boxwright data tile aerial --output tiles --size 640",
    "boxwright data tile aerial --output tiles --size 1024 --overlap 0.3 --quality 95",
)

_PLAIN = TileRequest()


def tile(
    data: Data,
    *,
    output: Annotated[Path, Parameter(help="A new folder.")],
    format: Annotated[FormatName | None, Parameter(help="The format to write. Default: that of the data set.")] = None,
    request: Annotated[TileRequest, FLAT] = _PLAIN,
    copying: Annotated[CopyRequest, FLAT] = PLAIN_COPY,
    dry_run: Annotated[
        bool, Parameter(help="Print what would be written and write nothing.", show_default=False)
    ] = False,
    json: Json = False,
) -> int:
    """Cut large images into overlapping tiles, with their boxes and masks, in a new data set.

    A tile is named as its image with the place of its corner, such as `a_x512_y0.png`, and listed with its image and
    place in `tiles.csv`. Split a data set before it is tiled, or keep the tiles of an image
    together with `data split --group-by`.
    """
    from boxwright.data.editing.tile import tile_dataset

    report = tile_dataset(data, output, request.rules(), copying.options(format), dry_run=dry_run)
    if json:
        return print_json(report.to_dict())
    for announcement in report.announcements:
        say(f"note: {announcement}")
    for split, counts in report.splits.items():
        small = f" ({counts.passed} no larger than a tile)" if counts.passed else ""
        say(
            f"{split}: {counts.images} images{small} become {counts.tiles}, {counts.boxes_before} boxes become "
            f"{counts.boxes}, {counts.cut} of them cut"
        )
    say(f"names of tiles follow the pattern '{report.pattern}', where the brackets hold the name of the origin")
    if report.output is None:
        return say("nothing was written (--dry-run)")
    return say(f"wrote {report.output} as {report.format}")
