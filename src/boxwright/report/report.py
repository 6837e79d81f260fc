"""Report of an evaluated detector as one self-contained HTML page: examples, metrics, curves, errors, training.

Opening the page fetches nothing: images, figures and style are in the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from boxwright.evaluation.coco import CocoResult
from boxwright.evaluation.curves import ConfusionMatrix, ThresholdCurves
from boxwright.evaluation.voc import VocResult
from boxwright.io.files import atomic_text
from boxwright.io.text import printable_lines
from boxwright.report import sections
from boxwright.report.examples import Example
from boxwright.report.page import page, percent, tile_row
from boxwright.report.sections import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Content of the page. Sections without content are left out."""

    title: str
    lead: str
    """Sentence below the title."""
    result: CocoResult | VocResult
    curves: ThresholdCurves
    masks: CocoResult | None = None
    """Metrics of the masks."""
    facts: Sequence[tuple[str, str]] = ()
    """Further tiles beside the metrics: (value, meaning)."""
    examples: Sequence[Example] = ()
    threshold: float = 0.5
    """Minimum score of the detections in ``examples``."""
    confusion: ConfusionMatrix | None = None
    train: Sequence[Row] = ()
    """Rows of the training log."""
    validation: Sequence[Row] = ()
    """Rows of the validation log."""
    timings: Sequence[tuple[str, float]] = ()
    """(stage, seconds)."""
    commands: Sequence[tuple[str, str]] = ()
    """(purpose, command line) of the last section."""
    notes: dict[str, str] = field(default_factory=dict)
    """A sentence for the top of a section, by its anchor."""
    footer: str = ""


def write_report(path: Path, report: Report) -> Path:
    """Write the page and return its path. Raises InputError if it cannot be written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_text(path) as file:
        file.write(printable_lines(report_html(report)))
    return path


def report_html(report: Report) -> str:
    """Return the page as HTML."""
    parts = [
        ("examples", "Examples", sections.gallery(report.examples, report.threshold)),
        ("metrics", "Metrics", sections.metrics(report.result)),
        ("masks", "Metrics of the masks", "" if report.masks is None else sections.metrics(report.masks)),
        ("iou", "By IoU and object size", sections.by_iou(report.result)),
        ("curves", "Precision and recall", sections.precision_and_recall(report.result, report.curves)),
        ("confusion", "Confusion matrix", sections.confusion(report.confusion)),
        ("training", "Training", sections.training(report.train, report.validation)),
        ("timings", "Time by stage", sections.timings(report.timings)),
        ("next", "On your own data", sections.commands(report.commands)),
    ]
    parts = [(a, h, f"<p>{report.notes[a]}</p>{s}" if s and a in report.notes else s) for a, h, s in parts]
    tiles = tile_row([*_headline(report.result), *report.facts])
    return page(report.title, report.lead, tiles, parts, report.footer)


def _headline(result: CocoResult | VocResult) -> list[tuple[str, str]]:
    if isinstance(result, VocResult):
        return [(f"{percent(result.mean_ap)} %", f"mAP: mean average precision at IoU {result.rules.iou:.2f}")]
    return [
        (f"{percent(result.stats['AP50'])} %", "AP50: average precision at IoU 0.50"),
        (f"{percent(result.stats['AP'])} %", "AP: mean over IoU 0.50 to 0.95"),
    ]
