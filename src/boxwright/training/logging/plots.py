"""Plots of a run: losses, average precision, example detections."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

from boxwright.data.formats.show import draw_sample
from boxwright.data.images import read_image
from boxwright.data.index import DetectionIndex
from boxwright.data.masks.masks import rasterise
from boxwright.drawing import draw_boxes
from boxwright.evaluation.columns import DetectionColumns
from boxwright.io.images import save_figure, save_image

Row = dict[str, Any]


def plot_losses(path: Path, train: Sequence[Row], validation: Sequence[Row]) -> None:
    """Write :func:`loss_figure` as PNG."""
    save_figure(loss_figure(train, validation), path)


def loss_figure(train: Sequence[Row], validation: Sequence[Row]) -> Figure:
    """Plot the total loss and each term over the steps, with the learning rate below."""
    figure, (losses, rates) = _axes(2, ratios=(3, 1))
    names = list(dict.fromkeys(key for row in train for key in row if key.startswith("loss")))
    for name in names:
        _line(losses, train, name, label=name.removeprefix("loss_"), linewidth=2 if name == "loss" else 1)
    _line(losses, validation, "loss", label="validation", marker="o", linestyle="--")
    positive = [row[name] for row in train for name in names if (row.get(name) or 0) > 0]
    if positive and max(positive) > 20 * min(positive):
        losses.set_yscale("log")
    losses.set_ylabel("loss")
    _line(rates, train, "lr", label="lr")
    rates.set_ylabel("learning rate")
    # Long numbers would push the label out of the figure.
    rates.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    return _finish(figure, (losses,), rates)


def plot_precision(path: Path, validation: Sequence[Row], metric: str = "AP") -> None:
    """Write :func:`precision_figure` as PNG."""
    save_figure(precision_figure(validation, metric), path)


def precision_figure(validation: Sequence[Row], metric: str = "AP") -> Figure:
    """Plot AP, AP50, AP75 and AP by object size over the steps, and the AP and AP50 of masks if evaluated.

    ``metric``: the entry of the rows that decides which weights are best; it is plotted too.
    """
    boxes, masks = ("AP", "AP50", "AP75", "APs", "APm", "APl"), ("mask_AP", "mask_AP50")
    more = () if metric in boxes + masks else (metric,)
    return _metric_figure(validation, boxes + more, masks, "average precision" if metric != "AR100" else "AP and AR")


def plot_accuracy(path: Path, validation: Sequence[Row]) -> None:
    """Plot the top-1 and top-5 accuracy of a classifier over the steps, as PNG."""
    save_figure(_metric_figure(validation, ("top1", "top5"), (), "accuracy"), path)


def _metric_figure(validation: Sequence[Row], solid: Sequence[str], dashed: Sequence[str], label: str) -> Figure:
    """Plot metrics in 0..1 over the steps; the first of each group gets a thick line."""
    figure, (axes,) = _axes(1)
    for name in solid:
        _line(axes, validation, name, label=name, marker="o", linewidth=2 if name == solid[0] else 1)
    for name in dashed:
        style = {"marker": "s", "linestyle": "--", "linewidth": 2 if name == dashed[0] else 1}
        _line(axes, validation, name, label=name.replace("_", " "), **style)
    axes.set_ylim(0, 1)
    axes.set_ylabel(label)
    return _finish(figure, (axes,), axes)


def draw_samples(
    path: Path, index: DetectionIndex, found: DetectionColumns, count: int = 8, threshold: float = 0.5, side: int = 320
) -> None:
    """Draw ``count`` images spread over ``index``: annotations left, detections scored at least ``threshold`` right."""
    places = sorted({round(i) for i in np.linspace(0, len(index) - 1, min(count, len(index)))})
    rows = found.rows_by_image([index.image_id(i) for i in places])
    tiles = []
    for i, chosen in zip(places, rows, strict=True):
        truth = draw_sample(index, i, side)
        chosen = chosen[found.scores[chosen] >= threshold]
        tiles.append(_side_by_side(truth, _draw_found(index, i, found, chosen, truth.size), side, threshold))
    columns = 1 if len(tiles) < 3 else 2
    lines = [tiles[start : start + columns] for start in range(0, len(tiles), columns)]
    heights = [max(tile.height for tile in line) for line in lines]
    sheet = Image.new("RGB", (columns * (2 * side + 16), sum(heights) + 8 * len(lines)), "white")
    top = 0
    for line, height in zip(lines, heights, strict=True):
        for column, tile in enumerate(line):
            sheet.paste(tile, (column * (2 * side + 16), top))
        top += height + 8
    save_image(sheet, path, quality=88)


def _draw_found(
    index: DetectionIndex, i: int, found: DetectionColumns, rows: np.ndarray, size: tuple[int, int]
) -> Image.Image:
    """Draw the detections in ``rows`` on image ``i``, resized to (width, height) ``size``."""
    picture = Image.fromarray(read_image(index.path(i)))
    masks = None
    if found.masks is not None and len(rows):
        whole = (Image.fromarray(rasterise(found.masks[row], picture.height, picture.width)) for row in rows)
        masks = np.stack([np.asarray(mask.resize(size, Image.Resampling.NEAREST)) for mask in whole])
    factors = np.array([size[0] / picture.width, size[1] / picture.height] * 2)
    return draw_boxes(
        picture.resize(size, Image.Resampling.LANCZOS),
        found.corners[rows] * factors,
        found.labels[rows],
        index.classes.names,
        found.scores[rows],
        masks,
    )


def _side_by_side(left: Image.Image, right: Image.Image, side: int, threshold: float) -> Image.Image:
    caption = 16
    tile = Image.new("RGB", (2 * side + 4, left.height + caption), "white")
    words = ImageDraw.Draw(tile)
    for x, picture, text in ((0, left, "annotations"), (side + 4, right, f"detections, score at least {threshold:g}")):
        words.text((x + 2, 2), text, fill="black")
        tile.paste(picture, (x, caption))
    return tile


def _axes(count: int, ratios: tuple[int, ...] = (1,)) -> tuple[Figure, list[Axes]]:
    # Figures of their own, not pyplot's: nothing global, no display.
    figure = Figure(figsize=(9, 5))
    FigureCanvasAgg(figure)
    figure.subplots_adjust(left=0.08, right=0.98, top=0.9, bottom=0.1, hspace=0.14)
    grid = figure.subplots(count, 1, sharex=True, squeeze=False, height_ratios=list(ratios))
    return figure, [axes for row in grid for axes in row]


def _line(axes: Axes, rows: Sequence[Row], name: str, label: str, **style: Any) -> None:
    points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
    if points:
        axes.plot(*zip(*points, strict=True), label=label, **style)


def _finish(figure: Figure, legends: Sequence[Axes], bottom: Axes) -> Figure:
    bottom.set_xlabel("step")
    for axes in figure.axes:
        axes.grid(alpha=0.3)
    for axes in legends:
        if axes.lines:
            # Above the axes: losses fall at any pace, so no corner inside is free in all runs.
            axes.legend(fontsize="small", ncols=6, loc="lower left", bbox_to_anchor=(0, 1), frameon=False)
    return figure
