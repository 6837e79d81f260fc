"""Plot metrics as PNG files that are readable with one class and with eighty.

Up to ten classes each have a colour and a name. With more, the classes are thin grey lines, the mean or total is black,
and the five weakest classes are coloured and named. pyplot and its global state are not used, so plots may be drawn in
threads and without a display.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from boxwright.evaluation.coco import CocoResult, mean_of_defined
from boxwright.evaluation.curves import ConfusionMatrix, ThresholdCurves
from boxwright.io.images import save_figure
from boxwright.io.text import printable

COLOURS = [colormaps["tab10"](n) for n in range(10)]
NAMED_AT_MOST = 10
WEAKEST = 5


def plot_precision_recall(result: CocoResult, path: str | Path) -> Path:
    """Write the figure as PNG and return the path."""
    return save_figure(precision_recall_figure(result), path)


def precision_recall_figure(result: CocoResult) -> Figure:
    """Plot precision against recall: per class at IoU 0.50 with their mean, and the mean at each IoU threshold."""
    figure, (left, right) = _figure(2)
    recall = np.linspace(0, 1, result.precision.shape[1])
    at50 = result.precision[0, :, :, 0]  # [R, K]
    ap50 = np.array([row.AP50 for row in result.per_class])
    labels = [f"{_short(row.name)}  {_percent(row.AP50)}" for row in result.per_class]
    _class_lines(left, recall, at50.T, labels, ap50)
    summary = labels[0] if len(labels) == 1 else f"mean  {_percent(mean_of_defined(ap50))}"
    _line(left, recall, _mean_curve(at50.T), summary)
    _finish(left, "Precision and recall at IoU 0.50, AP50", "recall", "precision")
    shades = colormaps["viridis"](np.linspace(0, 0.85, len(result.by_iou.thresholds)))
    for t, threshold in enumerate(result.by_iou.thresholds):
        value = result.by_iou.ap[0, t]
        curve = _mean_curve(result.precision[t, :, :, 0].T)
        right.plot(recall, curve, color=shades[t], linewidth=1.4, label=f"{threshold:.2f}  {_percent(value)}")
    _finish(right, "Mean over classes by IoU, AP", "recall", "precision", legend="outside")
    return figure


def plot_thresholds(curves: ThresholdCurves, path: str | Path, precision: float = 0.9) -> Path:
    """Write the figure as PNG and return the path."""
    return save_figure(thresholds_figure(curves, precision), path)


def thresholds_figure(curves: ThresholdCurves, precision: float = 0.9) -> Figure:
    """Plot F1, precision and recall against the score threshold, with the recommended thresholds marked."""
    figure, panels = _figure(3)
    grid = _score_grid(curves)
    per_class = [curve.at(grid) for curve in curves.per_class]
    overall = curves.overall.at(grid)
    best, precise = curves.overall.best_f1(), curves.overall.precise(precision)
    bests = [curve.best_f1() for curve in curves.per_class]
    peaks = np.array(
        [b.f1 if b else (0.0 if c.objects else np.nan) for b, c in zip(bests, curves.per_class, strict=True)]
    )
    names = [
        f"{_short(curve.name)}  {f'{b.f1:.2f} at {b.threshold:.2f}' if b else '–'}"
        for curve, b in zip(curves.per_class, bests, strict=True)
    ]
    for panel, position, what in zip(panels, (2, 0, 1), ("F1", "precision", "recall"), strict=True):
        _class_lines(panel, grid, np.stack([values[position] for values in per_class]), names, peaks)
        best_text = f"{best.f1:.2f} at {best.threshold:.2f}" if best else ""
        _line(panel, grid, overall[position], names[0] if len(names) == 1 else f"all  {best_text}")
        for advice, style in ((best, "--"), (precise, ":")):
            if advice:
                panel.axvline(advice.threshold, color="black", linestyle=style, linewidth=1)
        _finish(
            panel,
            what,
            "score threshold",
            what,
            limits=(grid[0], grid[-1]),
            legend="inside" if panel is panels[0] else "none",
        )
    title = f"best F1 at score {best.threshold:.2f} (dashed)" if best else "no detection is correct"
    never = f"precision {precision:g} is never reached"
    title += f",  precision {precision:g} from {precise.threshold:.2f} (dotted)" if precise else f",  {never}"
    figure.suptitle(f"IoU ≥ {curves.iou:g}:  {title}", fontsize=11)
    return figure


def plot_confusion(matrix: ConfusionMatrix, path: str | Path) -> Path:
    """Write the figure as PNG and return the path."""
    return save_figure(confusion_figure(matrix), path)


def confusion_figure(matrix: ConfusionMatrix) -> Figure:
    """Plot the confusion matrix, coloured by the fraction of each row. Up to 20 classes show the counts."""
    count = len(matrix.counts)
    side = min(max(4.5, 0.45 * count + 2.5), 18)
    figure = Figure(figsize=(side + 1.5, side), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    totals = matrix.counts.sum(axis=1, keepdims=True)
    share = np.divide(matrix.counts, totals, out=np.zeros(matrix.counts.shape), where=totals > 0)
    # The square root of the fraction makes a confusion of one in a hundred visible. With equal aspect the layout
    # engine would cut off long names.
    norm = PowerNorm(0.5, vmin=0, vmax=1)
    image = axes.imshow(share, cmap="Blues", norm=norm, interpolation="nearest", aspect="auto")
    figure.colorbar(image, ax=axes, label="share of the row", aspect=40, pad=0.02)
    names = [*(_short(name) for name in matrix.names), "background"]
    size = min(9.0, 0.6 * 0.85 * 72 * side / count)  # points: some more than half of a row
    axes.set_xticks(range(count), names, rotation=90 if count > 5 else 0, fontsize=size)
    axes.set_yticks(range(count), names, fontsize=size)
    axes.set_xlabel("detected as")
    axes.set_ylabel("true class")
    axes.set_title(
        f"Objects and detections, IoU ≥ {matrix.iou:g}, score ≥ {matrix.score:.3g}", fontsize=10 if count <= 40 else 16
    )
    axes.axhline(count - 1.5, color="grey", linewidth=0.8)
    axes.axvline(count - 1.5, color="grey", linewidth=0.8)
    if count <= 21:
        for row, column in np.argwhere(matrix.counts > 0):
            colour = "white" if share[row, column] > 0.3 else "black"
            text = str(matrix.counts[row, column])
            axes.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)
    return figure


def _figure(panels: int) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(5.6 * panels, 4.6), dpi=110, layout="constrained")
    return figure, list(np.atleast_1d(figure.subplots(1, panels)))


def _class_lines(
    axes: Axes, x: NDArray[np.float64], curves: NDArray[np.float64], names: Sequence[str], quality: NDArray[np.float64]
) -> None:
    """Draw one line per class of ``curves`` ``[K, points]``, coloured and named as the number of classes allows."""
    if len(names) == 1:
        return  # a single class is the mean, which the caller draws
    order = np.argsort(np.where(np.isnan(quality), np.inf, quality), kind="stable")
    ranked = [int(k) for k in order if not math.isnan(quality[k])]
    named = sorted(ranked) if len(names) <= NAMED_AT_MOST else ranked[:WEAKEST]
    for k in ranked:
        if k not in named:
            axes.plot(x, curves[k], color="0.8", linewidth=0.6)
    for colour, k in zip(COLOURS, named, strict=False):
        axes.plot(x, curves[k], color=colour, linewidth=1.2, label=names[k])


def _line(axes: Axes, x: NDArray[np.float64], y: NDArray[np.float64], label: str) -> None:
    axes.plot(x, y, color="black", linewidth=2.2, label=label)


def _finish(
    axes: Axes, title: str, x: str, y: str, limits: tuple[float, float] = (0.0, 1.0), legend: str = "inside"
) -> None:
    axes.set(xlim=limits if limits[1] > limits[0] else None, ylim=(0, 1.02), xlabel=x, ylabel=y)
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3)
    if legend == "none" or not axes.get_legend_handles_labels()[0]:
        return
    if legend == "outside":
        axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1.0))
    else:
        axes.legend(fontsize=8, loc="lower left", framealpha=0.85)


def _score_grid(curves: ThresholdCurves) -> NDArray[np.float64]:
    """Return an axis from 0 to 1, or over the range of the scores if they are not probabilities."""
    scores = curves.overall.scores
    if not len(scores) or (scores[-1] >= 0 and scores[0] <= 1):
        return np.linspace(0, 1, 501)
    return np.linspace(scores[-1], scores[0], 501)


def _mean_curve(curves: NDArray[np.float64]) -> NDArray[np.float64]:
    defined = curves[~np.isnan(curves).any(axis=1)]
    return defined.mean(axis=0) if len(defined) else np.full(curves.shape[1], np.nan)


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.1f}"


def _short(name: str, limit: int = 24) -> str:
    """Shorten a class name, and escape dollar signs, which start formulas in matplotlib."""
    name = printable(name)
    cut = name if len(name) <= limit else name[: limit - 1] + "…"
    return cut.replace("$", r"\$")
