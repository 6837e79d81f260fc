"""The pictures of a run: what they show is there, and nothing is cut off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from boxwright.data.index import DetectionIndex, ImageRecord
from boxwright.data.masks.masks import encode
from boxwright.evaluation.columns import DetectionColumns
from boxwright.structures import Classes
from boxwright.training.logging.plots import draw_samples, plot_losses, plot_precision

HEIGHT, WIDTH = 120, 320


def one_white_picture(folder: Path, with_masks: bool) -> DetectionIndex:
    path = folder / "white.png"
    Image.new("RGB", (WIDTH, HEIGHT), "white").save(path)
    triangle = [[100.0, 20.0, 200.0, 20.0, 100.0, 100.0]]
    record = ImageRecord(
        path=path, image_id=1, height=HEIGHT, width=WIDTH, boxes=[[100, 20, 200, 100]], labels=[0],
        segmentations=[triangle] if with_masks else None,
    )  # fmt: skip
    return DetectionIndex.build(Classes.from_names(["thing"]), [record], root=folder)


def detections(with_masks: bool) -> DetectionColumns:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[40:90, 60:200] = True
    return DetectionColumns(
        np.array([1, 1]), np.array([[50.0, 30, 200, 70], [10, 5, 20, 20]]), np.array([0.9, 0.2]), np.array([0, 0]),
        [encode(mask), encode(~mask)] if with_masks else None,
    )  # fmt: skip


@pytest.mark.parametrize("with_masks", [True, False])
def test_samples_show_boxes_masks_and_no_empty_space(with_masks: bool, tmp_path: Path) -> None:
    index = one_white_picture(tmp_path, with_masks)
    draw_samples(tmp_path / "samples.jpg", index, detections(with_masks), side=WIDTH)
    with Image.open(tmp_path / "samples.jpg") as sheet:
        assert HEIGHT < sheet.height < HEIGHT + 40
        pixels = np.asarray(sheet.convert("L")).astype(int)
    top, right = 16, WIDTH + 4  # below the caption; the second picture
    assert pixels[:top, :WIDTH].min() < 100, "the caption"
    truth, found = pixels[top : top + HEIGHT, :WIDTH], pixels[top : top + HEIGHT, right : right + WIDTH]
    inside_both = truth[60, 120], found[60, 180]
    assert all((value < 230) == with_masks for value in inside_both)
    assert truth[85, 185] > 240, "the corner that the triangle leaves out"
    assert found[38, 150] > 240, "in the box, outside its mask"
    assert found[110, 20] > 240, "the detection below the threshold is left out"
    assert found[30:100, 50:53].min() < 200, "the box"


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    made: list[Figure] = []
    save = Figure.savefig

    def keep(self: Figure, *args: Any, **options: Any) -> None:
        made.append(self)
        save(self, *args, **options)

    monkeypatch.setattr(Figure, "savefig", keep)
    return made


@pytest.mark.parametrize("rate", [0.02, 0.00075, 3e-7])
def test_no_label_is_off_the_picture(rate: float, figures: list[Figure], tmp_path: Path) -> None:
    rows = [{"step": step, "loss": 2 / step, "loss_box": 1 / step, "lr": rate * step} for step in range(1, 9)]
    plot_losses(tmp_path / "loss.png", rows, [])
    (figure,) = figures
    for axes in figure.axes:
        assert axes.yaxis.label.get_text()
        assert axes.yaxis.label.get_window_extent().x0 >= 0


def test_the_legend_covers_no_curve_and_is_on_the_picture(figures: list[Figure], tmp_path: Path) -> None:
    terms = ("rpn_objectness", "rpn_box", "refined_classification", "refined_box", "classification", "box", "mask")
    rows = [{"step": step, "lr": 1.0, "loss": 7.0} | {f"loss_{term}": 1.0 for term in terms} for step in (1, 2)]
    plot_losses(tmp_path / "loss.png", rows, rows[:1])
    (figure,) = figures
    legend = figure.axes[0].get_legend()
    assert legend is not None
    place, (width, height) = legend.get_window_extent(), figure.canvas.get_width_height()
    assert place.y0 >= figure.axes[0].get_window_extent().y1
    assert 0 <= place.x0 < place.x1 <= width
    assert place.y1 <= height


def test_precision_of_masks_is_drawn_where_there_is_some(figures: list[Figure], tmp_path: Path) -> None:
    row = {"step": 1, "AP": 0.2, "AP50": 0.4}
    plot_precision(tmp_path / "ap.png", [row, row | {"step": 2}])
    plot_precision(tmp_path / "ap.png", [row | {"mask_AP": 0.1, "mask_AP50": 0.3}])
    plot_precision(tmp_path / "ap.png", [row | {"AP of cat": 0.1}], "AP of cat")
    plot_precision(tmp_path / "ap.png", [row], "AP50")
    labels = [[line.get_label() for line in figure.axes[0].lines] for figure in figures]
    assert labels == [
        ["AP", "AP50"],
        ["AP", "AP50", "mask AP", "mask AP50"],
        ["AP", "AP50", "AP of cat"],
        ["AP", "AP50"],
    ]
