"""The command ``boxwright data merge``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from boxwright.app.requests.copying import PLAIN_COPY, CopyRequest, FormatName
from boxwright.cli.common import FLAT, Json, examples, print_json, say
from boxwright.io.text import printable

if TYPE_CHECKING:
    from boxwright.data.editing.merge import MergeReport

EXAMPLES = examples(
    "boxwright data merge harbour street --output both",
    "boxwright data merge harbour street more.json --output all --rename cars=car --format coco --dry-run",
)

_WIDE = 10_000
"""Characters of a line of the table: numbers are not cut where a terminal is narrow."""


def merge(
    *data: Annotated[Path, Parameter(help="The data sets, two or more, in any of the formats.")],
    output: Annotated[Path, Parameter(help="A new folder.")],
    format: Annotated[
        FormatName | None,
        Parameter(help="The format to write. Default: that of the data sets, or coco if they have several."),
    ] = None,
    rename: Annotated[
        tuple[str, ...],
        Parameter(
            help="Rename a class in all data sets, as OLD=NEW. May be repeated. Classes of one name are merged.",
            show_default=False,
        ),
    ] = (),
    copying: Annotated[CopyRequest, FLAT] = PLAIN_COPY,
    dry_run: Annotated[
        bool, Parameter(help="Print what would be written and write nothing.", show_default=False)
    ] = False,
    json: Json = False,
) -> int:
    """Merge data sets into a new one: splits of one name are put together, classes of one name become one.

    Names that seem to mean the same, classes that a data set lacks, and images that several data sets have are told.
    """
    from boxwright.data.editing.merge import merge_datasets

    report = merge_datasets(data, output, rename, copying.options(format), dry_run=dry_run)
    if json:
        return print_json(report.to_dict())
    for announcement in report.announcements:
        say(f"note: {announcement}")
    print_report(report, Console(width=_WIDE))
    if report.output is None:
        return say("nothing was written (--dry-run)")
    return say(f"wrote {report.output} as {report.format}")


def print_report(report: MergeReport, console: Console) -> None:
    """Print the boxes of each class and the images of each split, by data set and in all."""
    classes = _table("class: boxes", *report.sources, "all")
    for row in report.classes:
        classes.add_row(Text(printable(row.name)), *map(str, row.boxes), str(sum(row.boxes)))
    console.print(classes)
    splits = _table("split: images", *report.sources, "written", "boxes")
    for name, row in report.splits.items():
        splits.add_row(Text(printable(name)), *map(str, row.sources), str(row.images), str(row.boxes))
    console.print(splits)


def _table(*headings: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    for number, heading in enumerate(headings):
        table.add_column(Text(printable(heading)), justify="right" if number else "left", no_wrap=True)
    return table
