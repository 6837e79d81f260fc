"""Data sets merged by class name, in the three formats, boxes compared with pixels."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from boxwright.data.editing.merge import merge_datasets
from boxwright.data.formats.opening import detect_format, open_splits
from boxwright.data.formats.writing.whole import CopyOptions
from boxwright.data.masks.masks import encode
from boxwright.structures import InputError
from tests.support.drawn_sets import found_objects, read_set, write_set

A = {
    "train": {"a.png": [("red", 5, 4, 25, 30), ("green", 40, 10, 50, 22)], "same.png": [("green", 3, 3, 17, 18)]},
    "val": {"v.png": [("red", 8, 8, 30, 30)]},
}
B = {"train": {"a.png": [("blue", 1, 2, 20, 30), ("red", 30, 10, 44, 33)], "b.png": []}}
B_CLASSES = ("blue", "red")
ONE_CLASS = {"train": {"x.png": [("red", 5, 4, 25, 30)]}}


@pytest.mark.parametrize("second", ["coco", "voc", "yolo"])
@pytest.mark.parametrize("first", ["coco", "voc", "yolo"])
def test_any_two_formats(first: str, second: str, tmp_path: Path) -> None:
    a = write_set(tmp_path / "a", first, A)
    b = write_set(tmp_path / "b", second, B, B_CLASSES)
    report = merge_datasets((a, b), tmp_path / "out")
    assert detect_format(tmp_path / "out") == report.format == (first if first == second else "coco")
    assert any(text.startswith("the formats differ") for text in report.announcements) == (first != second)
    found = open_splits(tmp_path / "out")
    assert {name: len(index) for name, index in found.items()} == {"train": 4, "val": 1}
    for index in found.values():
        assert set(index.classes.names) == {"red", "green", "blue"}
        assert len(np.unique(index.image_ids)) == len(index)
        for i in range(len(index)):
            rows = index.annotations(i)
            boxes = {index.classes.names[k]: box for k, box in zip(rows.labels, rows.boxes.tolist(), strict=True)}
            assert {name: [round(v, 2) for v in box] for name, box in boxes.items()} == found_objects(index.path(i))
    assert any("same name" in text for text in report.announcements)  # two files a.png: both stay
    assert report.splits["train"].sources == (2, 2)
    assert (report.splits["train"].images, report.splits["train"].boxes) == (4, 5)
    assert {row.name: row.boxes for row in report.classes} == {"red": (2, 1), "green": (2, 0), "blue": (0, 1)}


def test_the_format_can_be_named(tmp_path: Path) -> None:
    a, b = write_set(tmp_path / "a", "coco", A), write_set(tmp_path / "b", "yolo", B, B_CLASSES)
    report = merge_datasets((a, b), tmp_path / "out", (), CopyOptions(format="voc", images="link"))
    assert detect_format(tmp_path / "out") == report.format == "voc"
    assert not any(text.startswith("the formats differ") for text in report.announcements)


def test_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_set(tmp_path / "a", "coco", A)
    write_set(tmp_path / "b", "yolo", B, B_CLASSES)
    monkeypatch.chdir(tmp_path)
    merge_datasets(("a", "b"), "out")
    assert len(read_set(tmp_path / "out")["train"]) == 4


def test_classes_are_renamed_and_names_that_are_alike_are_told(tmp_path: Path) -> None:
    a = write_set(tmp_path / "a", "coco", ONE_CLASS, ("red",))
    b = write_set(tmp_path / "b", "coco", {"train": {"y.png": [("Reds", 2, 2, 9, 9)]}}, ("Reds",))
    report = merge_datasets((a, b), tmp_path / "apart")
    assert (
        "classes red, Reds seem to mean the same but stay apart; --rename 'Reds=red' merges them"
        in report.announcements
    )
    report = merge_datasets((a, b), tmp_path / "out", ("Reds=red",))
    assert "classes red, Reds are merged into one class, red" in report.announcements
    assert not any("seem to mean" in text for text in report.announcements)
    index = open_splits(tmp_path / "out")["train"]
    assert index.classes.names == ("red",)
    assert index.labels.tolist() == [0, 0]
    with pytest.raises(InputError, match="--rename rd=x: there is no class 'rd'; did you mean 'red'"):
        merge_datasets((a, b), tmp_path / "none", ("rd=x",))


def test_classes_that_a_data_set_lacks_are_told(tmp_path: Path) -> None:
    a = write_set(tmp_path / "a", "coco", ONE_CLASS, ("red",))
    b = write_set(tmp_path / "b", "coco", {"train": {"y.png": [("blue", 2, 2, 9, 9)]}}, ("blue", "red"))
    said = merge_datasets((a, b), tmp_path / "out").announcements
    lacking = [text for text in said if "has no class" in text]
    assert lacking == ["a: has no class blue; where its images show one without a box, it counts as background"]


def test_masks_crowds_difficult_and_sparse_ids_stay(tmp_path: Path) -> None:
    a = write_set(tmp_path / "a", "coco", A)
    b = write_set(tmp_path / "b", "coco", {"train": {"c.png": []}}, ("red", "blue", "grey"))
    file = b / "annotations/instances_train.json"
    content = json.loads(file.read_text())
    for category in content["categories"]:
        category["id"] = {"red": 90, "blue": 55, "grey": 1}[category["name"]]
    mask = np.zeros((40, 60), dtype=bool)
    mask[3:9, 4:20] = True
    box = {"image_id": 1, "bbox": [4, 3, 16, 6], "area": 96, "iscrowd": 0}
    polygon = [[4, 3, 20, 3, 20, 9, 4, 9]]
    content["annotations"] = [
        box | {"id": 70, "category_id": 90, "iscrowd": 1, "segmentation": encode(mask)},
        box | {"id": 71, "category_id": 55, "segmentation": polygon},
        box | {"id": 72, "category_id": 1, "difficult": 1},
    ]
    file.write_text(json.dumps(content))
    merge_datasets((a, b), tmp_path / "out")
    index = open_splits(tmp_path / "out")["train"]
    ids = dict(zip(index.classes.names, index.classes.ids, strict=True))
    assert ids == {"red": 1, "green": 2, "blue": 3, "grey": 4}  # 1 is that of red, so grey has the next free one
    (i,) = [i for i in range(len(index)) if index.path(i).name == "c.png"]
    rows = index.annotations(i)
    assert [index.classes.names[k] for k in rows.labels] == ["red", "blue", "grey"]
    assert rows.crowd.tolist() == [True, False, False]
    assert rows.difficult.tolist() == [False, False, True]
    assert rows.segmentations is not None
    assert (index.masks(i)[0] == mask).all()
    assert rows.segmentations[1:] == [polygon, None]
    assert int(index.with_mask.sum()) == 2
    with pytest.raises(InputError, match="given twice"):
        merge_datasets((a, b, tmp_path / "b/../a"), tmp_path / "more")


def test_difficult_objects_of_voc_stay(tmp_path: Path) -> None:
    a, b = write_set(tmp_path / "a", "voc", A), write_set(tmp_path / "b", "voc", B, B_CLASSES)
    file = b / "Annotations/a.xml"
    file.write_text(file.read_text().replace("<difficult>0</difficult>", "<difficult>1</difficult>", 1))
    merge_datasets((a, b), tmp_path / "out")
    assert int(open_splits(tmp_path / "out")["train"].difficult.sum()) == 1


@pytest.mark.parametrize("format", ["coco", "voc", "yolo"])
def test_images_of_several_data_sets(format: str, tmp_path: Path) -> None:
    shared = ("red", 5, 4, 25, 30)
    a = write_set(tmp_path / "a", format, {"train": {"s.png": [shared], "d.png": [shared], "l.png": [shared]}})
    b = write_set(
        tmp_path / "b", format, {"train": {"s.png": [shared], "e.png": []}, "val": {"m.png": [shared]}}, ("blue", "red")
    )
    for ours, theirs in (("d", "e"), ("l", "m")):
        shutil.copy(next(a.rglob(f"{ours}.png")), next(b.rglob(f"{theirs}.png")))
    report = merge_datasets((a, b), tmp_path / "out")
    found = read_set(tmp_path / "out")
    assert set(found["train"]) == {"s.png", "d.png", "l.png", "e.png"}
    assert set(found["val"]) == {"m.png"}
    assert {row.name: row.boxes for row in report.classes if any(row.boxes)} == {
        "red": (3, 1)
    }  # s.png of b is left out
    assert sum(split.boxes for split in report.splits.values()) == 4
    said = "\n".join(report.announcements)
    assert (
        "1 images are in several data sets with the same objects, and are taken once; the first is s.png of b" in said
    )
    assert "1 images are in several data sets with different objects" in said
    assert "1 images are in different splits of several data sets" in said
    assert "m.png of b" in said


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    a, b = write_set(tmp_path / "a", "coco", A), write_set(tmp_path / "b", "coco", B, B_CLASSES)
    dry = merge_datasets((a, b), tmp_path / "out", dry_run=True)
    assert not (tmp_path / "out").exists()
    assert dry.output is None
    assert merge_datasets((a, b), tmp_path / "out").splits == dry.splits


def test_refusals(tmp_path: Path) -> None:
    a, b = write_set(tmp_path / "a", "coco", A), write_set(tmp_path / "b", "coco", B, B_CLASSES)
    with pytest.raises(InputError, match="1 data set to merge: give two or more"):
        merge_datasets((a,), tmp_path / "out")
    with pytest.raises(InputError, match="0 data sets to merge"):
        merge_datasets((), tmp_path / "out")
    with pytest.raises(InputError, match="there is no such file or folder"):
        merge_datasets((a, tmp_path / "none"), tmp_path / "out")
    with pytest.raises(InputError, match="exists and is not empty"):
        merge_datasets((a, b), b)
    (b / "train/b.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"b\.png"):
        merge_datasets((a, b), tmp_path / "out")
    assert not (tmp_path / "out").exists()
