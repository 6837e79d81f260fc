"""One self-contained HTML page about a trained detector: what it finds, how well, where it fails, how it learned.

Nothing is fetched when the page is opened: pictures, charts and style are in the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from boxwright.data.images import read_image
from boxwright.data.index import DetectionIndex
from boxwright.detections import Detections
from boxwright.drawing import class_colour, draw_boxes
from boxwright.evaluation.coco import DETNET_THRESHOLDS, CocoResult
from boxwright.evaluation.curves import Advice, ConfusionMatrix, ThresholdCurves
from boxwright.io.files import atomic_text
from boxwright.report.charts import Axis, Series, line_chart, smooth
from boxwright.report.page import duration, hex_colour, page, percent, picture, table, tile_row

_INK = "var(--ink)"
_PALETTE = ("#2b8cbe", "#d9822b", "#7a52b3", "#2f9e6e", "#c2416b", "#8a7a2b", "#5b6670")
_MOST_LINES = 10  # classes drawn as lines of their own; of more, the weakest
_SHORT_SIDE = 512  # smaller pictures are enlarged before drawing, so that their labels can be read
_LABEL_SCALE = 1.7  # the page shows pictures at about half their size


@dataclass(frozen=True, slots=True)
class Example:
    """A picture with what is in it and what was found."""

    name: str
    truth: Image.Image
    found: Image.Image
    objects: int
    detections: int


@dataclass(frozen=True, slots=True)
class Curve:
    """A quantity over training steps."""

    name: str
    steps: Sequence[float]
    values: Sequence[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything that the page shows. What is empty or None is left out.

    ``facts`` (value, meaning) join AP in the tiles on top; ``timings`` are (stage, seconds); ``commands`` (what it
    does, command line) close the page; ``threshold`` is the score from which on ``examples`` show detections.
    """

    title: str
    lead: str
    result: CocoResult
    facts: Sequence[tuple[str, str]] = ()
    examples: Sequence[Example] = ()
    threshold: float = 0.5
    curves: ThresholdCurves | None = None
    confusion: ConfusionMatrix | None = None
    losses: Sequence[Curve] = ()
    validation: Sequence[Curve] = ()
    timings: Sequence[tuple[str, float]] = ()
    commands: Sequence[tuple[str, str]] = ()
    footer: str = ""
    notes: dict[str, str] = field(default_factory=dict)
    """A sentence for the head of a section, by its anchor."""


def write_report(path: Path, report: Report) -> Path:
    """Write the page, in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_text(path) as file:
        file.write(report_html(report))
    return path


def report_html(report: Report) -> str:
    """The page as text."""
    stats = report.result.stats
    tiles = [(f"{percent(stats['AP50'])} %", "AP50: average precision at IoU 0.50")]
    tiles.append((f"{percent(stats['AP'])} %", "AP: mean over IoU 0.50 to 0.95"))
    sections = [
        ("pictures", "What it sees", _gallery(report)),
        ("precision", "How good it is", _precision_tables(report.result)),
        ("overlap", "By overlap and size", _overlap_section(report.result)),
        ("curves", "Precision and recall", _curves_section(report)),
        ("confusion", "What it mistakes for what", _confusion_section(report.confusion)),
        ("training", "How it learned", _training_section(report)),
        ("timings", "Where the time went", _timings_section(report.timings)),
        ("next", "On your own data", _commands_section(report.commands)),
    ]
    sections = [(a, h, f"<p>{report.notes[a]}</p>{s}" if s and a in report.notes else s) for a, h, s in sections]
    return page(report.title, report.lead, tile_row([*tiles, *report.facts]), sections, report.footer)


def make_example(index: DetectionIndex, position: int, found: Detections) -> Example:
    """Image ``position`` of a data set drawn twice: with its annotations and with what was found."""
    image = Image.fromarray(read_image(index.path(position)))
    scale = max(1.0, _SHORT_SIDE / min(image.size))
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
    truth, names = index.annotations(position), index.classes.names
    return Example(
        name=index.path(position).name,
        truth=draw_boxes(
            image,
            truth.boxes * scale,
            truth.labels,
            names,
            crowd=truth.crowd,
            difficult=truth.difficult,
            scale=_LABEL_SCALE,
        ),
        found=draw_boxes(image, found.boxes * scale, found.labels, names, scores=found.scores, scale=_LABEL_SCALE),
        objects=int((~truth.crowd).sum()),
        detections=len(found),
    )


def _gallery(report: Report) -> str:
    if not report.examples:
        return ""
    figures = []
    for example in report.examples:
        counts = f"{_count(example.objects, 'object')}, {_count(example.detections, 'detection')}"
        truth = picture(example.truth, f"{example.name} with its annotated objects")
        found = picture(example.found, f"{example.name} with the detections")
        figures.append(
            f'<figure><div class="two"><div>annotated{truth}</div><div>detected{found}</div></div>'
            f"<figcaption>{escape(example.name)} · {counts}</figcaption></figure>"
        )
    head = f"Left what is in the picture, right what the detector found with a score of {report.threshold:.2f} or more."
    return f'<p class="note">{head}</p><div class="gallery">{"".join(figures)}</div>'


def _precision_tables(result: CocoResult) -> str:
    names = list(result.stats)
    summary = table(["", *names], [["all classes", *result.stats.values()]], heat=True)
    rows = [[r.name, r.objects, r.AP, r.AP50, r.AP75, r.APs, r.APm, r.APl, r.AR] for r in result.per_class]
    columns = ["class", "objects", "AP", "AP50", "AP75", "small", "medium", "large", f"AR{result.max_detections[-1]}"]
    colours = [hex_colour(class_colour(k)) for k in range(len(rows))]
    return (
        f'<p class="note">COCO\'s measures over {result.images} images, in percent. Small, medium and large are '
        "objects below 32², up to 96² and above, in pixels; a dash stands where there are none.</p>"
        f"{summary}<h3>By class</h3>{table(columns, rows, heat=True, colours=colours)}"
    )


def _overlap_section(result: CocoResult) -> str:
    rows: list[list[str | float]] = []
    for metric, name in (("AP", "AP"), ("AR", "AR")):
        for area in result.by_iou.areas:
            row = result.by_iou.row(metric, area)
            keys = [metric] + [f"{metric}{round(t * 100)}" for t in DETNET_THRESHOLDS]
            rows.append([name, area, *(row[key] for key in keys)])
    heads = ["measure", "objects", "mean", *(f"IoU {t:.2f}" for t in DETNET_THRESHOLDS)]
    charts = _overlap_chart(result, "AP") + _overlap_chart(result, "AR")
    return (
        '<p class="note">How tightly the boxes must fit before they count, as the DetNet paper tabulates it. '
        "The mean is over IoU 0.50, 0.55 … 0.95.</p>"
        f'{table(heads, rows, text_columns=2, heat=True)}<div class="pair" style="margin-top:18px">{charts}</div>'
    )


def _overlap_chart(result: CocoResult, metric: Literal["AP", "AR"]) -> str:
    values = result.by_iou.ap if metric == "AP" else result.by_iou.ar
    lines = [
        Series(area, result.by_iou.thresholds, list(values[a]), colour, 2.6 if a == 0 else 1.8)
        for a, (area, colour) in enumerate(zip(result.by_iou.areas, (_INK, *_PALETTE), strict=False))
        if np.isfinite(values[a]).any()
    ]
    label = f"{metric} against the overlap, by object size"
    return _card(label, line_chart(lines, Axis("IoU needed", 0.5, 0.95), Axis(metric, 0, 1), label))


def _curves_section(report: Report) -> str:
    result = report.result
    recall = np.linspace(0, 1, result.precision.shape[1])
    at50 = result.precision[0, :, :, 0]  # [R, K]
    quality = np.array([row.AP50 for row in result.per_class])
    ranked = [int(k) for k in np.argsort(quality) if np.isfinite(quality[k])][:_MOST_LINES]
    lines = [
        Series(f"{result.per_class[k].name} {percent(quality[k])}", list(recall), list(at50[:, k]), _colour(k))
        for k in sorted(ranked)
    ]
    if ranked:
        mean = np.nanmean(at50[:, np.isfinite(quality)], axis=1)
        title = f"mean {percent(float(np.nanmean(quality)))}"
        lines.append(Series(title, list(recall), list(mean), _INK, 2.8))
    precision = line_chart(lines, Axis("recall", 0, 1), Axis("precision", 0, 1), "Precision against recall at IoU 0.50")
    cards = _card("Precision against recall, IoU 0.50", precision)
    if report.curves is None:
        return f'<div class="pair">{cards}</div>'
    cards += _card("Choosing a threshold", _threshold_chart(report.curves))
    return f'<div class="pair">{cards}</div>{_advice(report.curves)}'


def _threshold_chart(curves: ThresholdCurves) -> str:
    grid = np.linspace(0, 1, 201)
    values = curves.overall.at(grid)
    colours = (_PALETTE[0], _PALETTE[1], _INK)
    lines = [
        Series(name, list(grid), list(value), colour, 2.4 if name == "F1" else 1.8)
        for name, value, colour in zip(("precision", "recall", "F1"), values, colours, strict=True)
    ]
    marks = [a.threshold for a in (curves.overall.best_f1(), curves.overall.precise()) if a]
    return line_chart(
        lines, Axis("score threshold", 0, 1), Axis("", 0, 1), "Precision, recall and F1 against the threshold", marks
    )


def _advice(curves: ThresholdCurves) -> str:
    def cells(advice: Advice | None) -> list[str]:
        if advice is None:
            return ["–"] * 3
        return [f"{advice.threshold:.2f}", percent(advice.precision), percent(advice.recall)]

    rows = [[c.name, c.objects, *cells(c.best_f1()), *cells(c.precise())] for c in (curves.overall, *curves.per_class)]
    heads = ["", "objects", "best F1 from", "precision", "recall", "90 % precise from", "precision", "recall"]
    overall = curves.overall.best_f1()
    told = (
        f"Keep detections with a score of {overall.threshold:.2f} or more for the best balance (F1 {overall.f1:.2f}): "
        f"{percent(overall.precision)} % of them are right and {percent(overall.recall)} % of the objects are found."
        if overall
        else "No detection is right: there is no threshold to advise."
    )
    return f"<h3>Which detections to keep</h3><p>{told}</p>{table(heads, rows)}"


def _confusion_section(matrix: ConfusionMatrix | None) -> str:
    if matrix is None or len(matrix.names) > 40:
        return ""
    names = [*matrix.names, "nothing"]
    totals = np.maximum(matrix.counts.sum(axis=1, keepdims=True), 1)
    shares = matrix.counts / totals
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    lines = []
    for row, name in enumerate(names):
        cells = "".join(
            f'<td style="background:rgba(var(--heat),{0.55 * shares[row, column]:.3f})">{count if count else "·"}</td>'
            for column, count in enumerate(matrix.counts[row])
        )
        lines.append(f'<tr><th scope="row" class="text">{escape(name)}</th>{cells}</tr>')
    return (
        f'<p class="note">Rows are what is in the picture, columns what it was taken for, at a score of at least '
        f"{matrix.score:.2f} and an overlap of at least {matrix.iou:.2f}. The last row holds detections of nothing, "
        "the last column objects that were missed.</p>"
        f'<div class="card scroll"><table><thead><tr><th></th>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _training_section(report: Report) -> str:
    cards = ""
    if report.losses:
        lines = [
            Series(
                curve.name,
                list(curve.steps),
                smooth(list(curve.values), 0.9 if len(curve.values) > 40 else 0.5),
                _INK if curve.name in ("loss", "total") else _PALETTE[number % len(_PALETTE)],
                2.6 if curve.name in ("loss", "total") else 1.6,
            )
            for number, curve in enumerate(report.losses)
        ]
        chart = line_chart(lines, Axis("step", 0), Axis("loss", 0), "Training losses by step, smoothed")
        cards += _card("Losses, smoothed", chart)
    if report.validation:
        lines = [
            Series(
                curve.name, list(curve.steps), list(curve.values), _PALETTE[number % len(_PALETTE)], 2.2, markers=True
            )
            for number, curve in enumerate(report.validation)
        ]
        chart = line_chart(lines, Axis("step", 0), Axis("AP", 0, 1), "Average precision on unseen pictures by step")
        cards += _card("On unseen pictures", chart)
    return f'<div class="pair">{cards}</div>' if cards else ""


def _card(title: str, html: str) -> str:
    return f'<div class="card"><h3 style="margin-top:0">{escape(title)}</h3>{html}</div>'


def _timings_section(timings: Sequence[tuple[str, float]]) -> str:
    if not timings:
        return ""
    longest = max(seconds for _, seconds in timings) or 1.0
    rows = "".join(
        f'<tr><th scope="row" class="text">{escape(stage)}</th><td>{duration(seconds)}</td>'
        f'<td style="width:60%"><div class="bar" style="width:{100 * seconds / longest:.1f}%"></div></td></tr>'
        for stage, seconds in timings
    )
    total = f"<tr><th class=text>together</th><td>{duration(sum(s for _, s in timings))}</td><td></td></tr>"
    return f'<div class="card scroll"><table><tbody>{rows}{total}</tbody></table></div>'


def _commands_section(commands: Sequence[tuple[str, str]]) -> str:
    return "".join(f"<h3>{escape(what)}</h3><pre>{escape(command)}</pre>" for what, command in commands)


def _count(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"


def _colour(label: int) -> str:
    return hex_colour(class_colour(label))
