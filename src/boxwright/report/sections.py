"""Sections of a report as HTML. A section without content is an empty string."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from boxwright.drawing import class_colour
from boxwright.evaluation.coco import DETNET_THRESHOLDS, CocoResult
from boxwright.evaluation.curves import Advice, ConfusionMatrix, ThresholdCurves
from boxwright.evaluation.plots import confusion_figure, precision_recall_figure, thresholds_figure
from boxwright.evaluation.voc import VocResult
from boxwright.report.examples import Example
from boxwright.report.figures import figure_card
from boxwright.report.page import card, duration, hex_colour, inline_image, percent, table
from boxwright.training.logging.plots import loss_figure, precision_figure

Row = dict[str, Any]


def gallery(examples: Sequence[Example], threshold: float) -> str:
    """Show each example with its annotations on the left and its detections on the right."""
    if not examples:
        return ""
    figures = []
    for example in examples:
        counts = f"{_count(example.objects, 'object')}, {_count(example.detections, 'detection')}"
        truth = inline_image(example.truth, f"{example.name} with its annotated objects")
        found = inline_image(example.found, f"{example.name} with the detections")
        figures.append(
            f'<figure><div class="two"><div>annotated{truth}</div><div>detected{found}</div></div>'
            f"<figcaption>{escape(example.name)} · {counts}</figcaption></figure>"
        )
    head = f"Left: the annotated objects. Right: the detections with a score of {threshold:.2f} or more."
    return f'<p class="note">{head}</p><div class="gallery">{"".join(figures)}</div>'


def metrics(result: CocoResult | VocResult) -> str:
    """Show the metrics over all classes and per class."""
    colours = [hex_colour(class_colour(k)) for k in range(len(result.per_class))]
    if isinstance(result, VocResult):
        rule = "area under the precision-recall curve" if result.rules.average == "area" else "11-point average"
        rows = [[c.name, c.objects, c.AP] for c in result.per_class]
        return (
            f'<p class="note">PASCAL VOC average precision over {result.images} images, in percent: {rule} at IoU '
            f"{result.rules.iou:.2f}. Objects marked difficult are ignored. A dash marks classes without objects.</p>"
            f"{table(['class', 'objects', 'AP'], rows, heat=True, colours=colours)}"
        )
    summary = table(["", *result.stats], [["all classes", *result.stats.values()]], heat=True)
    rows = [[r.name, r.objects, r.AP, r.AP50, r.AP75, r.APs, r.APm, r.APl, r.AR] for r in result.per_class]
    columns = ["class", "objects", "AP", "AP50", "AP75", "small", "medium", "large", f"AR{result.max_detections[-1]}"]
    return (
        f'<p class="note">COCO metrics over {result.images} images, in percent. Small, medium and large objects have '
        "areas below 32², up to 96² and above 96² pixels. A dash marks sizes and classes without objects.</p>"
        f"{summary}<h3>Per class</h3>{table(columns, rows, heat=True, colours=colours)}"
    )


def by_iou(result: CocoResult | VocResult) -> str:
    """Show AP and AR by IoU threshold and object size, as the DetNet paper does. COCO only."""
    if isinstance(result, VocResult):
        return ""
    rows: list[list[str | float]] = []
    for metric in ("AP", "AR"):
        for area in result.by_iou.areas:
            row = result.by_iou.row(metric, area)
            keys = [metric] + [f"{metric}{round(t * 100)}" for t in DETNET_THRESHOLDS]
            rows.append([metric, area, *(row[key] for key in keys)])
    heads = ["metric", "objects", "mean", *(f"IoU {t:.2f}" for t in DETNET_THRESHOLDS)]
    return (
        '<p class="note">Average precision and average recall by the IoU that a detection needs to be correct. The '
        f"mean is over IoU 0.50, 0.55 … 0.95.</p>{table(heads, rows, text_columns=2, heat=True)}"
    )


def precision_and_recall(result: CocoResult | VocResult, curves: ThresholdCurves) -> str:
    """Show the precision-recall curves, the metrics by score threshold, and the recommended thresholds."""
    cards = []
    if isinstance(result, CocoResult):
        cards.append(figure_card(precision_recall_figure(result), "Precision against recall"))
    cards.append(figure_card(thresholds_figure(curves), "F1, precision and recall against the score threshold"))
    return f'<div class="stack">{"".join(cards)}</div>{_recommended_thresholds(curves)}'


def _recommended_thresholds(curves: ThresholdCurves) -> str:
    def cells(advice: Advice | None) -> list[str]:
        if advice is None:
            return ["–"] * 3
        return [f"{advice.threshold:.2f}", percent(advice.precision), percent(advice.recall)]

    rows = [[c.name, c.objects, *cells(c.best_f1()), *cells(c.precise())] for c in (curves.overall, *curves.per_class)]
    heads = ["", "objects", "best F1 from", "precision", "recall", "90 % precision from", "precision", "recall"]
    best = curves.overall.best_f1()
    text = (
        f"Keep detections with a score of {best.threshold:.2f} or more for the best F1 ({best.f1:.2f}): "
        f"{percent(best.precision)} % of them are correct, and {percent(best.recall)} % of the objects are found."
        if best
        else "No detection is correct, so no threshold is recommended."
    )
    return f"<h3>Score thresholds</h3><p>{text}</p>{table(heads, rows)}"


def confusion(matrix: ConfusionMatrix | None) -> str:
    """Show the confusion matrix."""
    if matrix is None:
        return ""
    head = (
        f"Rows are the true classes, columns the detected ones, at a score of at least {matrix.score:.2f} and an IoU "
        f"of at least {matrix.iou:.2f}. The last row holds detections of no object, the last column missed objects."
    )
    narrow = ' style="max-width:760px"' if len(matrix.names) <= 20 else ""
    return f'<p class="note">{head}</p><div{narrow}>{figure_card(confusion_figure(matrix), "Confusion matrix")}</div>'


def training(train: Sequence[Row], validation: Sequence[Row]) -> str:
    """Show the losses and the validation AP over the steps, from the rows of a run's log."""
    cards = []
    if train:
        cards.append(figure_card(loss_figure(train, validation), "Losses and learning rate by step"))
    if validation:
        cards.append(figure_card(precision_figure(validation), "Validation AP by step"))
    return f'<div class="stack">{"".join(cards)}</div>' if cards else ""


def timings(stages: Sequence[tuple[str, float]]) -> str:
    """Show the seconds of each stage as bars."""
    if not stages:
        return ""
    longest = max(seconds for _, seconds in stages) or 1.0
    rows = "".join(
        f'<tr><th scope="row" class="text">{escape(stage)}</th><td>{duration(seconds)}</td>'
        f'<td style="width:60%"><div class="bar" style="width:{100 * seconds / longest:.1f}%"></div></td></tr>'
        for stage, seconds in stages
    )
    total = f"<tr><th class=text>total</th><td>{duration(sum(s for _, s in stages))}</td><td></td></tr>"
    return card(f"<table><tbody>{rows}{total}</tbody></table>", scroll=True)


def commands(lines: Sequence[tuple[str, str]]) -> str:
    """Show command lines, each with its purpose."""
    return "".join(f"<h3>{escape(purpose)}</h3><pre>{escape(command)}</pre>" for purpose, command in lines)


def _count(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"
