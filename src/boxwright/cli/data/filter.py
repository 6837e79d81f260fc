"""The command ``boxwright data filter``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from boxwright.app.requests.copying import PLAIN_COPY, CopyRequest, FormatName
from boxwright.app.requests.editing import FilterRequest
from boxwright.app.requests.fields import Data
from boxwright.cli.common import FLAT, Json, examples, print_json, say
from boxwright.io.text import printable

if TYPE_CHECKING:
    from boxwright.data.editing.filter import FilterReport

EXAMPLES = examples(
    "boxwright data filter my_data --output vehicles --rename cars=car --rename van=car --keep car --keep bus",
    "boxwright data filter my_data --output clean --min-size 6 --empty-share 0.1 --dry-run",
)

_PLAIN = FilterRequest()


def filter(
    data: Data,
    *,
    output: Annotated[Path, Parameter(help="A new folder.")],
    format: Annotated[FormatName | None, Parameter(help="The format to write. Default: that of the data set.")] = None,
    request: Annotated[FilterRequest, FLAT] = _PLAIN,
    copying: Annotated[CopyRequest, FLAT] = PLAIN_COPY,
    dry_run: Annotated[
        bool, Parameter(help="Print what would be written and write nothing.", show_default=False)
    ] = False,
    json: Json = False,
) -> int:
    """Rename, merge and leave out classes, tiny boxes, images without objects and images by name, in a new data set.

    Prints the numbers before and after. Images stay in their splits.
    """
    from boxwright.data.editing.filter import filter_dataset

    report = filter_dataset(data, output, request.rules(), copying.options(format), dry_run=dry_run)
    if json:
        return print_json(report.to_dict())
    for announcement in report.announcements:
        say(f"note: {announcement}")
    print_report(report, Console(soft_wrap=True))
    if report.output is None:
        return say("nothing was written (--dry-run)")
    return say(f"wrote {report.output} as {report.format}")


def print_report(report: FilterReport, console: Console) -> None:
    """Print a table of the classes and one of the splits, each before and after."""
    classes = _table("class", "becomes", "boxes", "kept")
    for row in report.classes:
        becomes = Text("left out", style="dim") if row.name is None else Text(printable(row.name))
        classes.add_row(Text(printable(row.old)), becomes, str(row.before), str(row.after))
    console.print(classes)
    splits = _table("split", "", "images", "kept", "boxes", "kept", "without objects", "kept")
    for name, row in report.splits.items():
        splits.add_row(Text(printable(name)), "", *map(str, (*row.images, *row.boxes, *row.empty)))
    console.print(splits)


def _table(*headings: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="left" if number < 2 else "right", no_wrap=True)
    return table
