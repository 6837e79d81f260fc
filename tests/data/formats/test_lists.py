"""Lists of images: entries that are no data by their names, and folders that are hidden themselves."""

import os
from pathlib import Path

import pytest

from boxwright.app.train import training_splits
from boxwright.data.formats.check import check_dataset
from boxwright.data.formats.opening import open_splits
from boxwright.data.formats.problems import DatasetWarning
from tests.support.dataset_files import drawn_box, write_drawn, yolo_line


def write_set(root: Path, inner: str = "") -> None:
    """Write an image with its label file for train and val below ``inner``, in lists, and the data.yaml."""
    for split in ("train", "val"):
        write_drawn(root / inner / f"images/{split}/{split}0.png")
        label = root / inner / f"labels/{split}/{split}0.txt"
        label.parent.mkdir(parents=True)
        label.write_text(yolo_line())
        (root / f"{split}.txt").write_text(f"{inner}images/{split}/{split}0.png\n")
    (root / "data.yaml").write_text("train: train.txt\nval: val.txt\nnames: [red]\n")


def counts(path: Path) -> dict[str, int]:
    """Return the images of each split, after comparing the one box of each with the rectangle that is drawn."""
    splits = open_splits(path)
    for index in splits.values():
        for i in range(len(index)):
            assert index.annotations(i).boxes[0].tolist() == pytest.approx(drawn_box(index.path(i)), abs=0.05)
    return {name: len(index) for name, index in splits.items()}


def test_hidden_images_are_passed_over(tmp_path: Path) -> None:
    write_set(tmp_path)
    (tmp_path / "images/train/._train0.png").write_bytes(b"\0\5\x16\7")
    copy = write_drawn(tmp_path / "images/train/.ipynb_checkpoints/train0-checkpoint.png")
    with (tmp_path / "train.txt").open("a") as stream:
        stream.write(f"images/train/._train0.png\n./{copy.relative_to(tmp_path)}\n{copy}\n")
    assert counts(tmp_path) == {"train": 1, "val": 1}
    assert check_dataset(tmp_path).problems == []


@pytest.mark.parametrize("absolute", [False, True])
def test_a_data_set_in_a_hidden_folder(tmp_path: Path, absolute: bool) -> None:
    root = tmp_path / ".cache/set"
    write_set(root, ".data/")
    if absolute:
        for split in ("train", "val"):
            (root / f"{split}.txt").write_text(str(root / f".data/images/{split}/{split}0.png"))
    assert counts(root) == {"train": 1, "val": 1}


def test_an_image_of_both_splits_by_a_link(tmp_path: Path) -> None:
    write_set(tmp_path)
    os.symlink("../val", tmp_path / "images/train/more")
    (tmp_path / "data.yaml").write_text("train: images/train\nval: val.txt\nnames: [red]\n")
    with pytest.warns(DatasetWarning, match="1 of the 1 images of val are in train too"):
        training_splits(tmp_path)
