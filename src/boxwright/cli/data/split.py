"""The command ``boxwright data split``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from boxwright.app.requests.copying import PLAIN_COPY, CopyRequest, FormatName
from boxwright.app.requests.fields import Data
from boxwright.app.requests.splitting import SplitRequest
from boxwright.cli.common import FLAT, Json, examples, print_json, say
from boxwright.io.text import printable

if TYPE_CHECKING:
    from boxwright.data.editing.split import SplitReport

EXAMPLES = examples(
    "boxwright data split my_data --output divided --val 0.2 --test 0.1",
    "boxwright data split my_data --output divided --fractions 0.7 0.2 0.1 --group-by '(.+)_frame' --images link",
    "boxwright data split my_data --output divided --near-duplicates --dry-run",
)

_PLAIN = SplitRequest()
_WIDE = 10_000
"""Characters of a line of the table: numbers are not cut where a terminal is narrow."""


def split(
    data: Data,
    *,
    output: Annotated[Path, Parameter(help="A new folder.")],
    format: Annotated[FormatName | None, Parameter(help="The format to write. Default: that of the data set.")] = None,
    request: Annotated[SplitRequest, FLAT] = _PLAIN,
    copying: Annotated[CopyRequest, FLAT] = PLAIN_COPY,
    dry_run: Annotated[
        bool, Parameter(help="Print what would be written and write nothing.", show_default=False)
    ] = False,
    json: Json = False,
) -> int:
    """Divide a data set into train, val and test, balanced by class, in a new data set.

    All images are divided anew, whatever splits they are in, and the class balance of each split is printed. Groups of
    images, such as the frames of a video, stay in one split with `--group-by` or `--near-duplicates`.
    """
    from boxwright.data.editing.split import split_dataset

    report = split_dataset(data, output, request.rules(), copying.options(format), dry_run=dry_run)
    if json:
        return print_json(report.to_dict())
    for announcement in report.announcements:
        say(f"note: {announcement}")
    print_report(report, Console(width=_WIDE))
    if report.output is None:
        return say("nothing was written (--dry-run)")
    return say(f"wrote {report.output} as {report.format}")


def print_report(report: SplitReport, console: Console) -> None:
    """Print the images and objects of each class in each split, with the share of the split in all."""
    table = Table(box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    table.add_column("class", no_wrap=True)
    for name in report.splits:
        for heading in (f"{printable(name)}: images", "objects"):
            table.add_column(Text(heading), justify="right", no_wrap=True)
    for row in report.classes:
        table.add_row(Text(printable(row.name)), *_cells(row.images, row.objects))
    if any(count.empty for count in report.splits.values()):
        empty = {name: count.empty for name, count in report.splits.items()}
        table.add_row(Text("(without objects)"), *_cells(empty, dict.fromkeys(empty, 0)))
    table.add_section()
    images = {name: count.images for name, count in report.splits.items()}
    objects = {name: count.objects for name, count in report.splits.items()}
    table.add_row("all", *_cells(images, objects))
    console.print(table)


def _cells(images: dict[str, int], objects: dict[str, int]) -> list[str]:
    """Return numbers and shares of images and of objects, split by split."""
    return [
        f"{counts[name]} ({counts[name] / total:.0%})" if (total := sum(counts.values())) else "0"
        for name in images
        for counts in (images, objects)
    ]
