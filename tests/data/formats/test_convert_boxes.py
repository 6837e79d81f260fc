"""Boxes that a format cannot hold as they are: over the edge, with fractions, too thin; each change is said."""

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boxwright.cli.app import main
from boxwright.data.formats.convert import convert_dataset
from boxwright.data.formats.opening import DatasetFormat, open_splits
from tests.support.dataset_files import voc_xml, write_coco_files, write_image, write_voc_files


def one_image(folder: Path, boxes: list[Any], size: tuple[int, int] = (96, 64), **more: Any) -> Path:
    """Write a COCO set of one image, ``size`` is width and height, with boxes of the classes red and blue in turn."""
    write_image(folder / "images/b.png", size[1], size[0])
    rows = [
        {"id": n, "image_id": 1, "category_id": 1 + (n - 1) % 2, "bbox": box, **more}
        for n, box in enumerate(boxes, start=1)
    ]
    content = {
        "images": [{"id": 1, "file_name": "b.png", "width": size[0], "height": size[1]}],
        "annotations": rows,
        "categories": [{"id": 1, "name": "red"}, {"id": 2, "name": "blue"}],
    }
    return write_coco_files(folder, content).parent


def corners(xml: Path) -> list[list[str]]:
    """Return the texts of xmin ymin xmax ymax of each object."""
    text = xml.read_text()
    return [re.findall(r"<[xy]m\w\w>(.*?)</", part) for part in text.split("<object>")[1:]]


def test_boxes_over_the_edge_are_cut_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one_image(tmp_path / "in", [[-12, -5, 42, 35], [70, 40, 60, 60]])
    for to in ("yolo", "voc"):
        assert main(["data", "convert", str(tmp_path / "in"), str(tmp_path / to), "--to", to]) == 0
        said = capsys.readouterr().out
        assert "note: train: 2 boxes reached over the edge of their image and were cut to it\n" in said
        assert "train: 1 images, 2 boxes\n" in said
    assert (tmp_path / "yolo/labels/train/b.txt").read_text() == (
        "0 0.15625 0.234375 0.3125 0.46875\n1 0.8645833333 0.8125 0.2708333333 0.375\n"
    )
    assert corners(tmp_path / "voc/Annotations/b.xml") == [["1", "1", "30", "30"], ["71", "41", "96", "64"]]
    assert (tmp_path / "voc/Annotations/b.xml").read_text().count("<truncated>1</truncated>") == 2
    for to in ("yolo", "voc"):
        np.testing.assert_allclose(
            open_splits(tmp_path / to)["train"].annotations(0).boxes, [[0, 0, 30, 30], [70, 40, 96, 64]], atol=1e-5
        )


def test_boxes_over_the_edge_are_kept_on_request_and_in_coco(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one_image(tmp_path / "in", [[-12, -5, 42, 35], [70, 40, 60, 60]])
    for to in ("yolo", "voc"):
        assert main(["data", "convert", str(tmp_path / "in"), str(tmp_path / to), "--to", to, "--no-cut"]) == 0
        assert "2 boxes reach over the edge of their image and are kept so; other programs" in capsys.readouterr().out
        boxes = open_splits(tmp_path / to)["train"].annotations(0).boxes
        np.testing.assert_allclose(boxes, [[-12, -5, 30, 30], [70, 40, 130, 100]], atol=1e-5)
    assert convert_dataset(tmp_path / "in", tmp_path / "coco", "coco").splits["train"]["boxes"] == 2
    assert open_splits(tmp_path / "coco")["train"].xywh.tolist() == [[-12, -5, 42, 35], [70, 40, 60, 60]]


def test_polygons_are_cut_too(tmp_path: Path) -> None:
    square = [-12, -5, 30, -5, 30, 30, -12, 30]
    one_image(tmp_path / "in", [[-12, -5, 42, 35]], segmentation=[square])
    report = convert_dataset(tmp_path / "in", tmp_path / "out", "yolo")
    assert "train: 1 boxes reached over the edge of their image and were cut to it" in report.announcements
    rows = open_splits(tmp_path / "out")["train"].annotations(0)
    np.testing.assert_allclose(rows.boxes, [[0, 0, 30, 30]], atol=1e-5)
    assert rows.area == pytest.approx([900], abs=1e-3)
    values = [float(v) for v in (tmp_path / "out/labels/train/b.txt").read_text().split()[1:]]
    assert min(values) >= 0
    assert max(values) <= 1


def test_voc_has_whole_pixels_and_says_how_far_boxes_moved(tmp_path: Path) -> None:
    one_image(tmp_path / "in", [[10.25, 10.5, 29.6, 29.333333], [5, 6, 7, 8], [20.0004, 5, 9.9994, 10]])
    said = convert_dataset(tmp_path / "in", tmp_path / "out", "voc").announcements
    assert said == ("train: 1 boxes were rounded to whole pixels, which moved sides by up to 0.50",)
    assert corners(tmp_path / "out/Annotations/b.xml") == [
        ["11", "12", "40", "40"],
        ["6", "7", "12", "14"],
        ["21", "6", "30", "15"],
    ]
    text = (tmp_path / "out/Annotations/b.xml").read_text()
    assert text.count("<pose>Unspecified</pose>") == text.count("<truncated>0</truncated>") == 3
    assert convert_dataset(tmp_path / "in", tmp_path / "exact", "voc", voc_fractions=True).announcements == ()
    assert corners(tmp_path / "exact/Annotations/b.xml") == [
        ["11.25", "11.5", "39.85", "39.833333"],
        ["6", "7", "12", "14"],
        ["21", "6", "30", "15"],
    ]


def test_voc_that_came_in_whole_pixels_stays_so_through_every_format(tmp_path: Path) -> None:
    """Fractions of width and height in YOLO do not return as fractions of pixels."""
    write_voc_files(tmp_path / "voc", {"train": ["a"]})
    write_image(tmp_path / "voc/JPEGImages/a.jpg", 333, 777)
    objects = [("cat", 1, 1, 777, 333), ("dog", 13, 17, 311, 301), ("cat", 2, 3, 4, 5)]
    (tmp_path / "voc/Annotations/a.xml").write_text(voc_xml("a.jpg", objects, "777 333"))
    before = corners(tmp_path / "voc/Annotations/a.xml")
    chain: tuple[DatasetFormat, ...] = ("voc", "yolo", "coco", "voc")
    for first, to in pairwise(chain):
        source = "voc" if to == "yolo" else f"as_{first}"
        assert convert_dataset(tmp_path / source, tmp_path / f"as_{to}", to).announcements == ()
    assert corners(tmp_path / "as_voc/Annotations/a.xml") == before


@pytest.mark.parametrize(
    ("box", "size", "expected"),
    [
        ([10, 10, 1, 20], (96, 64), [["11", "11", "12", "30"]]),  # one pixel wide
        ([95, 10, 1, 20], (96, 64), [["95", "11", "96", "30"]]),  # at the edge
        ([10.6, 10, 0.3, 20], (96, 64), [["11", "11", "12", "30"]]),  # thinner than a pixel
        ([0, 0, 1, 1], (1, 1), []),  # the image has no second pixel
    ],
)
def test_thin_boxes_survive_voc(
    tmp_path: Path, box: list[float], size: tuple[int, int], expected: list[list[str]]
) -> None:
    """Equal corners are read as no area, here and elsewhere, so that such a box would be lost."""
    one_image(tmp_path / "in", [box], size)
    report = convert_dataset(tmp_path / "in", tmp_path / "out", "voc")
    assert corners(tmp_path / "out/Annotations/b.xml") == expected
    assert report.splits["train"]["boxes"] == len(expected) == open_splits(tmp_path / "out")["train"].num_boxes
    said = "1 boxes of at most one pixel were widened" if expected else "1 boxes are too thin to be written"
    assert any(said in line for line in report.announcements)


def test_a_box_too_thin_for_yolo_is_left_out_and_said(tmp_path: Path) -> None:
    one_image(tmp_path / "in", [[-10, 5, 10.0000000001, 20], [5, 5, 1e-9, 20], [5, 5, 1, 1]])
    report = convert_dataset(tmp_path / "in", tmp_path / "out", "yolo")
    assert report.splits["train"]["boxes"] == 1
    assert "train: 2 boxes are too thin to be written, and are left out" in report.announcements


def test_voc_that_counts_from_0_is_written_as_voc_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_voc_files(tmp_path / "in", {"train": ["a"]})
    (tmp_path / "in/Annotations/a.xml").write_text(voc_xml("a.jpg", [("cat", 0, 0, 20, 10), ("cat", 5, 6, 60, 40)]))
    arguments = ["data", "convert", str(tmp_path / "in"), str(tmp_path / "out"), "--format", "voc"]
    assert main([*arguments, "--voc-zero-based"]) == 0
    assert "cut" not in capsys.readouterr().out
    assert corners(tmp_path / "out/Annotations/a.xml") == [["1", "1", "20", "10"], ["6", "7", "60", "40"]]
    boxes = open_splits(tmp_path / "out")["train"].annotations(0).boxes
    assert boxes.tolist() == [[0, 0, 20, 10], [5, 6, 60, 40]]
    assert main(["data", "check", str(tmp_path / "in"), "--voc-zero-based"]) == 0
    assert "zero-based" not in capsys.readouterr().out


def test_what_voc_says_of_the_view_stays_in_voc_and_is_named_elsewhere(tmp_path: Path) -> None:
    write_voc_files(tmp_path / "in", {"train": ["a"]})
    view = "<pose>Left</pose><truncated>1</truncated><occluded>1</occluded>"
    objects: list[Any] = [("cat", 2, 3, 30, 20)]
    (tmp_path / "in/Annotations/a.xml").write_text(voc_xml("a.jpg", objects, extra=view))
    assert convert_dataset(tmp_path / "in", tmp_path / "out", "voc").announcements == ()
    text = (tmp_path / "out/Annotations/a.xml").read_text()
    for part in ("<pose>Left</pose>", "<truncated>1</truncated>", "<occluded>1</occluded>"):
        assert part in text
    for to in ("coco", "yolo"):
        said = convert_dataset(tmp_path / "in", tmp_path / to, to).announcements  # type: ignore[arg-type]
        assert said == tuple(
            f"train: 1 objects are no longer marked as {w}" for w in ("truncated", "occluded", "posed")
        )
