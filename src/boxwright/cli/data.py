"""The commands ``boxwright data``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from boxwright.app.requests.data import AnchorRequest
from boxwright.app.requests.fields import WHERE, Data, VocZeroBased
from boxwright.cli.common import FLAT, NEGATIVES, OPTIONS, Json, examples, print_json, say
from boxwright.io.text import printable

if TYPE_CHECKING:
    from boxwright.data.formats.check import CheckReport

data_app = App(
    name="data",
    help="Check, show, convert, analyse and generate data sets.",
    help_epilogue=examples(
        "boxwright data check my_data",
        "boxwright data show my_data --output samples.html",
        "boxwright data convert my_data my_coco --format coco",
    ),
    default_parameter=NEGATIVES,
    group_parameters=OPTIONS,
    sort_key=2,
)

_COLOURS = {"error": "red", "warning": "yellow", "info": "cyan"}


@data_app.command(sort_key=1, help_epilogue=examples("boxwright data check my_data"))
def check(data: Data, *, voc_zero_based: VocZeroBased = False, json: Json = False) -> int:
    """Report every defect of a data set with its file and position.

    Reads all annotations and decodes all images. The exit code is 1 when there are errors.
    """
    from boxwright.data.formats.check import check_dataset

    report = check_dataset(data, voc_one_based=not voc_zero_based)
    if json:
        print_json(report.to_dict())
    else:
        print_check(report, Console(soft_wrap=True))
    return 0 if report.ok else 1


def print_check(report: CheckReport, console: Console) -> None:
    """Print the defects, a table of the splits, the classes, and the verdict."""
    from boxwright.data.formats.checks.lines import gathered

    for problem, more in gathered(report.problems):
        colour = _COLOURS[problem.severity]
        console.print(f"[{colour}]{problem.severity}[/{colour}]", end=" ")
        console.print(printable(f"[{problem.kind}] {problem}{more}"), markup=False, highlight=False)
    title = Text(printable(f"{report.path} ({report.format})"))
    table = Table(
        "split", title=title, title_justify="left", box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False
    )
    for heading in ("images", "empty", "boxes", "masks", "crowd", "difficult", "small", "medium", "large"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, split in report.splits.items():
        counts = (split.images, split.images_without_objects, split.boxes, split.masks, split.crowd, split.difficult)
        table.add_row(
            Text(printable(name)), *map(str, counts), *(str(split.sizes[size]) for size in ("small", "medium", "large"))
        )
    console.print(table)
    for name, split in report.splits.items():
        ranked = sorted(split.classes.items(), key=lambda item: -item[1])
        shown = ", ".join(f"{label} {count}" for label, count in ranked[:20])
        more = f" and {len(ranked) - 20} more" if len(ranked) > 20 else ""
        line = f"{name}: {len(ranked)} classes: {shown}{more}"
        console.print(printable(line), markup=False, highlight=False)
    counts = ", ".join(f"{report.count(severity)} {severity}s" for severity in ("error", "warning"))
    verdict = "usable" if report.ok else "not usable until the errors are corrected"
    console.print(f"{counts}, {report.count('info')} remarks: {verdict}")


@data_app.command(sort_key=2, help_epilogue=examples("boxwright data show my_data --output samples.html --count 12"))
def show(
    data: Data,
    *,
    output: Annotated[Path, Parameter(help="The page to write, .html or .png.")] = Path("samples.html"),
    count: Annotated[int, Parameter(help="Number of images per split.")] = 24,
    seed: Annotated[int, Parameter(help="Seed of the choice of images.")] = 0,
    split: Annotated[str | None, Parameter(help="Show only this split.")] = None,
    voc_zero_based: VocZeroBased = False,
    json: Json = False,
) -> int:
    """Draw sample images of a data set with their boxes and masks on one page."""
    from boxwright.data.formats.show import show_dataset

    page = show_dataset(data, output, count, seed, split, not voc_zero_based)
    return print_json({"output": str(page)}) if json else say(f"wrote {page}")


@data_app.command(sort_key=3, help_epilogue=examples("boxwright data convert my_data my_coco --format coco"))
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


@data_app.command(
    sort_key=4,
    help_epilogue=examples(
        "boxwright data anchors my_data --count 9 --size 416 416",
        "boxwright data anchors my_data --count 5 --size 416 416 --resize warp --json",
    ),
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


@data_app.command(sort_key=5, help_epilogue=examples("boxwright data scenes scenes --train 500 --val 100 --seed 1"))
def scenes(
    output: Annotated[Path, Parameter(help="A new folder.")],
    *,
    train: Annotated[int, Parameter(help="Number of training scenes.")] = 200,
    val: Annotated[int, Parameter(help="Number of validation scenes.")] = 50,
    test: Annotated[int, Parameter(help="Number of test scenes.")] = 0,
    size: Annotated[
        tuple[int, int], Parameter(help="Height and width in pixels. Default: 256 256.", show_default=False)
    ] = (256, 256),
    seed: Annotated[int, Parameter(help="Seed of the scenes.")] = 0,
    format: Annotated[Literal["coco", "voc", "yolo"], Parameter(help="Format of the annotations.")] = "coco",
    workers: Annotated[int, Parameter(help="Processes that draw. 0: draw in this process.", group=WHERE)] = 0,
    json: Json = False,
) -> int:
    """Generate a data set of synthetic scenes with objects, masks, clutter and occlusion."""
    from boxwright.data.scenes import write_scenes

    counts = {name: n for name, n in (("train", train), ("val", val), ("test", test)) if n}
    folder = write_scenes(output, counts, size, seed, format, workers=workers)
    return print_json({"output": str(folder), "images": counts}) if json else say(f"wrote {folder}")
