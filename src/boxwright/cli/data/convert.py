"""The command ``boxwright data convert``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from boxwright.app.requests.copying import PLAIN_COPY, CopyRequest, FormatName
from boxwright.app.requests.fields import Data
from boxwright.cli.common import FLAT, Json, examples, print_json, say

EXAMPLES = examples("boxwright data convert my_data my_coco --format coco")


def convert(
    data: Data,
    output: Annotated[Path, Parameter(help="A new folder.")],
    *,
    format: Annotated[FormatName, Parameter(help="The format to write.")],
    request: Annotated[CopyRequest, FLAT] = PLAIN_COPY,
    json: Json = False,
) -> int:
    """Write a data set in another format. Everything that the format cannot hold is reported."""
    from boxwright.data.formats.convert import convert_dataset

    report = convert_dataset(
        data,
        output,
        format,
        images=request.images,
        masks=request.masks,
        skip_bad_masks=request.skip_bad_masks,
        voc_one_based=not request.voc_zero_based,
        voc_fractions=request.voc_fractions,
        cut=request.cut,
        outside_images=request.outside_images,
    )
    if json:
        return print_json(report.to_dict())
    for announcement in report.announcements:
        say(f"note: {announcement}")
    for split, counts in report.splits.items():
        say(f"{split}: {counts['images']} images, {counts['boxes']} boxes")
    return say(f"wrote {report.output} as {report.format} (it was {report.source_format})")
