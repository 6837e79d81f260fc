"""The image that a label file belongs to."""

from pathlib import Path

import pytest

from boxwright.data.formats.opening import open_dataset
from boxwright.data.index import DetectionIndex
from tests.support.dataset_files import write_drawn, yolo_line

BOX = (10, 8, 40, 32)


def write_set(root: Path, images: list[str], labels: list[str]) -> Path:
    for name in images:
        write_drawn(root / "images" / name, BOX)
    (root / "labels").mkdir()
    for name in labels:
        (root / "labels" / name).write_text(yolo_line(BOX))
    file = root / "data.yaml"
    file.write_text("train: images\nnames: [red]\n")
    return file


def boxes_of(index: DetectionIndex) -> dict[str, list[list[float]]]:
    return {index.path(i).name: index.annotations(i).boxes.tolist() for i in range(len(index))}


def test_a_file_goes_before_links_to_it(tmp_path: Path) -> None:
    file = write_set(tmp_path, ["m.png"], ["m.txt"])
    for name in ("a.png", "z.png"):
        (tmp_path / "images" / name).symlink_to("m.png")
    assert boxes_of(open_dataset(file)) == {"m.png": [pytest.approx(BOX, abs=0.05)]}


def test_case_is_ignored_where_no_other_label_file_fits(tmp_path: Path) -> None:
    """A letter that stands for two in lower case does not take the label file of another image."""
    file = write_set(tmp_path, ["STRASSE.png", "STRAßE.png", "b.png", "B.png"], ["strasse.txt", "b.txt", "B.txt"])
    box = pytest.approx(BOX, abs=0.05)
    assert boxes_of(open_dataset(file)) == {"STRASSE.png": [box], "STRAßE.png": [], "b.png": [box], "B.png": [box]}
