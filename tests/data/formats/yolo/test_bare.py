"""Images and labels without a data.yaml."""

from pathlib import Path

import pytest

from boxwright.data.formats.opening import find_source, open_dataset
from boxwright.structures import InputError
from tests.support.dataset_files import write_drawn, yolo_line

BOX = (10, 8, 40, 32)


def test_class_names_without_label_files_are_no_data_set(tmp_path: Path) -> None:
    """All images would be background."""
    write_drawn(tmp_path / "train" / "a.png", BOX)
    (tmp_path / "classes.txt").write_text("red\n")
    (tmp_path / "train" / ".hidden.txt").write_text(yolo_line(BOX))
    with pytest.raises(InputError, match="no data set found"):
        find_source(tmp_path)
    (tmp_path / "train" / "a.txt").write_text(yolo_line(BOX))
    index = open_dataset(tmp_path)
    assert index.name == "train"
    assert index.annotations(0).boxes.tolist() == [pytest.approx(BOX, abs=0.05)]
