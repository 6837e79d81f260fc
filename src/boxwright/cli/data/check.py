"""The command ``boxwright data check``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from boxwright.app.requests.fields import Data, VocZeroBased
from boxwright.cli.common import Json, examples, print_json
from boxwright.io.text import printable

if TYPE_CHECKING:
    from boxwright.data.formats.check import CheckReport

EXAMPLES = examples("boxwright data check my_data")

_COLOURS = {"error": "red", "warning": "yellow", "info": "cyan"}


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
