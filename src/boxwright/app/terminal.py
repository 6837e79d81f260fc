"""Results and errors as a person reads them on a terminal."""

from __future__ import annotations

from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from boxwright.app.demo import DemoResult
from boxwright.app.detection.predict import PredictSummary
from boxwright.app.evaluate import Scored
from boxwright.data.formats.check import CheckReport
from boxwright.io.files import write_error
from boxwright.report.demo import duration
from boxwright.report.page import percent
from boxwright.structures import InputError

_COLOURS = {"error": "red", "warning": "yellow", "info": "cyan"}


def message_of(error: Exception) -> str | None:
    """What to tell about an error that is no fault of the program's: bad input, a full disk; None for others."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, OSError) and error.filename is not None:
        return str(write_error(Path(error.filename), error))
    if isinstance(error, OSError) and error.errno is not None:
        return str(error.strerror or error)
    return None


def print_check(report: CheckReport, console: Console) -> None:
    """The findings, then the splits, then the verdict."""
    for problem in report.problems:
        colour = _COLOURS[problem.severity]
        console.print(f"[{colour}]{problem.severity}[/{colour}]", end=" ")
        console.print(f"[{problem.kind}] {problem}", markup=False, highlight=False)
    title = f"{report.path} ({report.format})"
    table = Table(
        "split", title=title, title_justify="left", box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False
    )
    for heading in ("images", "empty", "boxes", "masks", "crowd", "difficult", "small", "medium", "large"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, split in report.splits.items():
        counts = (split.images, split.images_without_objects, split.boxes, split.masks, split.crowd, split.difficult)
        table.add_row(name, *map(str, counts), *(str(split.sizes[size]) for size in ("small", "medium", "large")))
    console.print(table)
    for name, split in report.splits.items():
        ranked = sorted(split.classes.items(), key=lambda item: -item[1])
        shown = ", ".join(f"{label} {count}" for label, count in ranked[:20])
        more = f" and {len(ranked) - 20} more" if len(ranked) > 20 else ""
        console.print(f"{name}: {len(ranked)} classes: {shown}{more}", markup=False, highlight=False)
    counts = ", ".join(f"{report.count(severity)} {severity}s" for severity in ("error", "warning"))
    console.print(f"{counts}, {report.count('info')} remarks: {'usable' if report.ok else 'not usable as it is'}")


def print_scored(scored: Scored, console: Console) -> None:
    """The metric's tables and the advice on thresholds."""
    console.print(scored.result.table())
    if scored.masks is not None:
        console.print(scored.masks.table())
    if scored.unscored is not None:
        console.print(f"Masks are not scored: {scored.unscored}.", markup=False, highlight=False)
    best = scored.curves.overall.best_f1()
    if best is None:
        console.print("No detection is right: there is no threshold to advise.")
        return
    console.print(
        f"Keep detections with a score of {best.threshold:.2f} or more for the best F1 ({best.f1:.3f}): "
        f"precision {best.precision:.3f}, recall {best.recall:.3f} at IoU {scored.curves.iou:g}."
    )


def print_predicted(summary: PredictSummary, console: Console) -> None:
    """What was done, and what could not be."""
    looked = [f"{n} {what}" for n, what in ((summary.images, "images"), (summary.frames, "frames")) if n]
    done = " and ".join(looked) or "nothing new"
    console.print(f"looked at {done} in {duration(summary.seconds)}", highlight=False)
    console.print(f"{summary.output}: {summary.detections} detections in {summary.pictures} pictures", highlight=False)
    if summary.failed:
        console.print(f"{len(summary.failed)} could not be read:", style="red")
        for failure in summary.failed:
            console.print(f"  {failure.message}", markup=False, highlight=False)


def print_demo(result: DemoResult, console: Console) -> None:
    """The figures, the page, and the three commands for data of one's own."""
    total = duration(sum(result.timings.values()))
    stats = result.stats
    figures = f"AP50 {percent(stats['AP50'])} %, AP {percent(stats['AP'])} %"
    console.print(f"{figures} on scenes it never saw, after {total}.", highlight=False)
    console.print(f"The report: {result.report}", highlight=False)
    console.print("\nNow on your own data, in COCO, VOC or YOLO format:")
    for what, command in result.commands.items():
        console.print(f"  {what}\n     {command}", markup=False, highlight=False)
