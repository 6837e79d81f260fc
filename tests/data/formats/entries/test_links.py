"""Links that point nowhere are named, in every format and place, and nothing is read in their place."""

import os
from pathlib import Path

import pytest

from boxwright.app.train import training_splits
from boxwright.data.formats.check import check_dataset
from boxwright.data.formats.problems import DatasetWarning
from boxwright.structures import InputError
from tests.support.dataset_files import write_coco_files, write_voc_files, write_yolo_files, yolo_line


def written(form: str, root: Path) -> None:
    """Write a data set with an image and a box in train and val."""
    match form:
        case "coco":
            for split in ("train", "val"):
                write_coco_files(root / split, split=split)
        case "voc":
            write_voc_files(root, {"train": ["a", "b"], "val": ["ccc", "dddd"]})
        case _:
            write_yolo_files(root, {f"{split}/{split}{i}": yolo_line() for split in ("train", "val") for i in "01"})


@pytest.mark.parametrize(
    ("form", "place", "severity"),
    [
        ("coco", "train/images/night", "error"),
        ("coco", "extra.json", "error"),
        ("coco", "runs", "warning"),
        ("voc", "Annotations/cam2", "error"),
        ("voc", "JPEGImages/cam2", "error"),
        ("voc", "latest", "warning"),
        ("yolo", "images/train/cam2", "error"),
        ("yolo", "labels/train/cam.2", "error"),
        ("yolo", "other.yaml", "error"),
        ("yolo", "runs", "warning"),
    ],
)
def test_dead_links_are_named(tmp_path: Path, form: str, place: str, severity: str) -> None:
    written(form, tmp_path)
    os.symlink("/nowhere/there", tmp_path / place)
    found = [p for p in check_dataset(tmp_path).problems if p.severity != "info" and p.kind != "class-without-objects"]
    assert [(p.kind, p.severity, p.file) for p in found] == [("dead-link", severity, str(tmp_path / place))]
    assert "link to /nowhere/there, which does not exist; restore that" in found[0].message
    with pytest.warns(DatasetWarning, match="link to /nowhere/there"):
        train, val = training_splits(tmp_path)
    assert len(train) == 2
    assert val is not None
    assert len(val) == 2


def test_a_dead_link_below_the_folder_of_a_data_yaml(tmp_path: Path) -> None:
    written("yolo", tmp_path)
    os.symlink("/nowhere/there", tmp_path / "images/train/cam2")
    found = [p for p in check_dataset(tmp_path / "data.yaml").problems if p.kind == "dead-link"]
    assert [(p.severity, p.file) for p in found] == [("error", str(tmp_path / "images/train/cam2"))]


@pytest.mark.parametrize(("form", "place"), [("voc", "Annotations/a.xml"), ("yolo", "labels/train/train0.txt")])
def test_dead_links_that_a_reader_asks_for(tmp_path: Path, form: str, place: str) -> None:
    written(form, tmp_path)
    (tmp_path / place).unlink()
    os.symlink("/nowhere/there", tmp_path / place)
    with pytest.raises(InputError, match=f"{place}: this is a link to /nowhere/there, which does not exist"):
        training_splits(tmp_path)


@pytest.mark.parametrize("name", ["train.json", "data.yaml"])
def test_a_dead_link_in_place_of_the_data_set(tmp_path: Path, name: str) -> None:
    os.symlink("/nowhere/there", tmp_path / name)
    with pytest.raises(InputError, match=f"no data set found.*{name}: this is a link to /nowhere/there"):
        check_dataset(tmp_path)
