"""The command ``boxwright data convert``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from boxwright.app.requests.fields import Data, VocZeroBased
from boxwright.cli.common import Json, examples, print_json, say

EXAMPLES = examples("boxwright data convert my_data my_coco --format coco")


def convert(
    data: Data,
    output: Annotated[Path, Parameter(help="A new folder.")],
    *,
    format: Annotated[Literal["coco", "voc", "yolo"], Parameter(help="The format to write.")],
    images: Annotated[Literal["copy", "link"], Parameter(help="Copy the images, or hard-link them.")] = "copy",
    masks: Annotated[
        bool,
        Parameter(help="Keep masks if the format has them (the default).", show_default=False),
    ] = True,
    skip_bad_masks: Annotated[
        bool,
        Parameter(
            help="In COCO files: drop invalid polygons and run lengths instead of stopping. The objects keep their "
            "boxes, and every dropped mask is reported.",
            show_default=False,
        ),
    ] = False,
    cut: Annotated[
        bool,
        Parameter(help="Cut boxes to their image in YOLO and VOC (the default).", show_default=False),
    ] = True,
    voc_zero_based: VocZeroBased = False,
    voc_fractions: Annotated[
        bool,
        Parameter(
            help="Keep fractions of pixels in VOC files, where many programs expect whole numbers.",
            show_default=False,
        ),
    ] = False,
    outside_images: Annotated[
        bool,
        Parameter(help="Also take images outside the data set's folder.", show_default=False),
    ] = False,
    json: Json = False,
) -> int:
    """Write a data set in another format. Everything that the format cannot hold is reported."""
    from boxwright.data.formats.convert import convert_dataset

    report = convert_dataset(
        data,
        output,
        format,
        images=images,
        masks=masks,
        skip_bad_masks=skip_bad_masks,
        voc_one_based=not voc_zero_based,
        voc_fractions=voc_fractions,
        cut=cut,
        outside_images=outside_images,
    )
    if json:
        return print_json(report.to_dict())
    for announcement in report.announcements:
        say(f"note: {announcement}")
    for split, counts in report.splits.items():
        say(f"{split}: {counts['images']} images, {counts['boxes']} boxes")
    return say(f"wrote {report.output} as {report.format} (it was {report.source_format})")
