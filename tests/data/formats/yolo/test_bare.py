"""Images and labels without a data.yaml, also further down in the folder that is given."""

from pathlib import Path

import pytest

from boxwright.data.formats.opening import find_source, open_dataset, open_splits
from boxwright.structures import InputError
from tests.support.dataset_files import drawn_box, write_drawn, yolo_line

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


def write_pairs(images: Path, labels: Path) -> None:
    """Write two images and their label files."""
    labels.mkdir(parents=True, exist_ok=True)
    for name in "ab":
        write_drawn(images / f"{name}.png")
        (labels / f"{name}.txt").write_text(yolo_line())


def counts(path: Path) -> dict[str, int]:
    """Return the images of each split, after comparing the one box of each with the rectangle that is drawn."""
    splits = open_splits(path)
    for index in splits.values():
        for i in range(len(index)):
            assert index.annotations(i).boxes.tolist() == [pytest.approx(drawn_box(index.path(i)), abs=0.05)]
    return {name: len(index) for name, index in splits.items()}


@pytest.mark.parametrize("names", ["classes.txt", "labels/classes.txt", "obj.names"])
@pytest.mark.parametrize("home", ["project-1", "export/project-1"])
def test_an_export_that_was_unpacked_into_a_folder(tmp_path: Path, names: str, home: str) -> None:
    write_pairs(tmp_path / home / "images", tmp_path / home / "labels")
    (tmp_path / home / names).write_text("red\n")
    (tmp_path / "other.data").write_bytes(b"\x80\1\0")
    assert counts(tmp_path) == {"all": 2}


@pytest.mark.filterwarnings("ignore:read with corrections")
def test_darknets_data_folder(tmp_path: Path) -> None:
    write_pairs(tmp_path / "data/obj", tmp_path / "data/obj")
    (tmp_path / "data/obj.names").write_text("red\n")
    (tmp_path / "data/train.txt").write_text("data/obj/a.png\n")
    (tmp_path / "data/test.txt").write_text("data/obj/b.png\n")
    (tmp_path / "data/obj.data").write_text(
        "classes = 1\ntrain = data/train.txt\nvalid = data/test.txt\nnames = data/obj.names\n"
    )
    assert counts(tmp_path) == {"train": 1, "val": 1}


@pytest.mark.parametrize("homes", [["one", "two"], ["train"], ["train", "val"]])
def test_none_is_chosen_among_several(tmp_path: Path, homes: list[str]) -> None:
    for home in homes:
        write_pairs(tmp_path / home, tmp_path / home)
        (tmp_path / home / "classes.txt").write_text("red\n")
    with pytest.raises(InputError, match=r"no data set found.*look like YOLO labels; add a data\.yaml"):
        find_source(tmp_path)
