"""The check names near-duplicates: as a warning where they are in two splits, as a remark within one."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from boxwright.cli.app import main
from boxwright.data.formats.check import check_dataset
from boxwright.data.formats.problems import Problem
from tests.support.dataset_files import yolo_line
from tests.support.photographs import CHANGES, photograph


def write_set(root: Path, splits: dict[str, dict[str, Image.Image]]) -> Path:
    """Write a YOLO set of the images by split and name, with a box in each."""
    for split, images in splits.items():
        (root / "images" / split).mkdir(parents=True)
        (root / "labels" / split).mkdir(parents=True)
        for name, image in images.items():
            image.save(root / "images" / split / name, quality=92)
            (root / "labels" / split / f"{Path(name).stem}.txt").write_text(yolo_line())
    keys = "".join(f"{split}: images/{split}\n" for split in splits)
    (root / "data.yaml").write_text(f"{keys}names: [cat]\n")
    return root


def similar(root: Path) -> list[Problem]:
    return [problem for problem in check_dataset(root).problems if problem.kind == "similar-images"]


def test_images_of_two_splits_are_a_warning(tmp_path: Path) -> None:
    train = {f"t{k}.png": photograph(k) for k in range(8)}
    val = {f"v{k}.png": photograph(100 + k) for k in range(3)}
    val |= {f"w{k}.jpg": CHANGES["cut all round"](photograph(k)) for k in (2, 5)}
    root = write_set(tmp_path / "set", {"train": train, "val": val})
    (problem,) = similar(root)
    assert problem.severity == "warning"
    assert problem.file == str(root / "images/val/w2.jpg")
    assert problem.place.startswith("split val, image id ")
    assert problem.message == (
        f"is a near-duplicate of {root}/images/train/t2.png in split train, and so is 1 more of the 5 images of val: "
        "w5.jpg; they make the metrics of val too good. Remove them from one of the splits, or divide the images anew "
        f"with `boxwright data split {root} --output NEW --near-duplicates`"
    )
    assert check_dataset(root).ok


def test_images_of_one_split_are_a_remark(tmp_path: Path) -> None:
    images = {f"{k}.png": photograph(k) for k in range(6)}
    images |= {f"{k}b.png": CHANGES["darker"](photograph(k)) for k in range(4)}
    images["0c.png"] = CHANGES["mirrored"](photograph(0))
    (problem,) = similar(write_set(tmp_path / "set", {"train": images}))
    assert problem.severity == "info"
    assert problem.message == (
        "9 of 11 images are near-duplicates of another one: 0.png and 0b.png; 1.png and 1b.png; 2.png and 2b.png; and "
        "1 more group. They teach little that is new; keep them in one split"
    )


def test_exact_copies_are_reported_as_such_only(tmp_path: Path) -> None:
    root = write_set(
        tmp_path / "set",
        {"train": {"a.png": photograph(0), "b.png": photograph(1)}, "val": {"a.png": photograph(0)}},
    )
    assert [problem.kind for problem in check_dataset(root).problems] == ["shared-image"]


def test_a_copy_of_a_copy_counts_and_each_pair_of_splits_has_a_line(tmp_path: Path) -> None:
    one = photograph(0)
    splits = {
        "train": {"a.png": one, "x.png": photograph(7)},
        "val": {"b.png": CHANGES["cut all round"](one), "a.png": one},
        "test": {"c.png": CHANGES["darker"](one), "y.png": photograph(8)},
    }
    found = similar(write_set(tmp_path / "set", splits))
    assert [(problem.severity, problem.place.split(",")[0]) for problem in found] == [
        ("warning", "split val"),
        ("warning", "split test"),
        ("warning", "split test"),
        ("info", "split val"),
    ]
    assert "near-duplicate of" in found[0].message
    assert "in split train" in found[1].message
    assert "in split val" in found[2].message


def test_a_damaged_image_is_no_near_duplicate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_set(tmp_path / "set", {"train": {f"{k}.png": photograph(k % 2) for k in range(3)}})
    (root / "images/train/0.png").write_bytes(b"nothing")
    assert similar(root) == []
    assert main(["data", "check", str(root)]) == 1
    assert "similar-images" not in capsys.readouterr().out


def test_the_line_of_the_command_names_the_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    splits = {"train": {"a.png": photograph(0)}, "val": {"b.png": CHANGES["lighter"](photograph(0))}}
    assert main(["data", "check", str(write_set(tmp_path / "set", splits))]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "similar-images" in line]
    assert line.startswith("warning [similar-images] ")
    assert "boxwright data split" in line
