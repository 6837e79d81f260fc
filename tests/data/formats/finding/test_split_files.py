"""Splits by files and folders: none vanishes, two of one name are refused, and none is read in another's place."""

import os
import re
import shutil
from pathlib import Path

import pytest

from boxwright.app.train import training_splits
from boxwright.data.formats.check import check_dataset
from boxwright.data.formats.opening import find_source, open_splits
from boxwright.data.formats.problems import DatasetWarning
from boxwright.data.formats.splits import distinct_splits, is_held_back
from boxwright.structures import InputError
from tests.support.dataset_files import drawn_box, voc_xml, write_drawn, write_drawn_coco, yolo_line


def coco_split(folder: Path, *names: str, count: int = 1) -> None:
    """Write images and COCO files of the same content into a folder."""
    for name in names:
        write_drawn_coco(folder / name, [folder / f"{i}.png" for i in range(count)])


def counts(path: Path) -> dict[str, tuple[int, int]]:
    """Return images and boxes of each split, after comparing each box with the rectangle that is drawn."""
    splits = open_splits(path)
    for index in splits.values():
        for i in range(len(index)):
            for box in index.annotations(i).boxes.tolist():
                assert box == pytest.approx(drawn_box(index.path(i)), abs=0.01)
    return {name: (len(index), index.num_boxes) for name, index in splits.items()}


@pytest.mark.parametrize(
    "names",
    [
        ("_annotations.coco.json", "_annotations.coco (1).json"),
        ("train_0213.json", "train_0327.json"),
        ("instances_train2014.json", "instances_train2017.json"),
        ("a.json", "b.json", "c.json"),
        ("x.json", "x - Copy.json"),
    ],
)
@pytest.mark.parametrize("folder", ["train", "Training"])
def test_two_coco_files_in_the_folder_of_a_split(tmp_path: Path, names: tuple[str, ...], folder: str) -> None:
    coco_split(tmp_path / folder, *names)
    coco_split(tmp_path / "valid", "_annotations.coco.json")
    for read in (open_splits, check_dataset, training_splits):
        with pytest.raises(InputError) as caught:
            read(tmp_path)
        assert str(caught.value) == f"{tmp_path}: {folder}/ holds {', '.join(names)}; name the one you mean"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("train.json", "train (1).json"), "holds train.json, train (1).json"),
        (("train.json", "instances_train.json"), "holds instances_train.json, train.json"),
        (("train.json", "train2017.json"), "holds train.json, train2017.json"),
        (("val.json", "valid.json"), "holds val.json, valid.json"),
        (("annotations.json", "data.json"), "holds annotations.json, data.json"),
    ],
)
@pytest.mark.parametrize("folder", ["", "annotations"])
def test_two_coco_files_of_one_split(tmp_path: Path, names: tuple[str, ...], message: str, folder: str) -> None:
    coco_split(tmp_path / folder, *names, "test.json")
    with pytest.raises(InputError) as caught:
        find_source(tmp_path)
    start = f"{folder}/ " if folder else ""
    assert str(caught.value) == f"{tmp_path}: {start}{message}; name the one you mean"


@pytest.mark.parametrize(
    ("files", "splits"),
    [
        (["instances_train.json", "val.json", "test.json"], ["train", "val", "test"]),
        (["annotations/instances_train.json", "val.json"], ["train", "val"]),
        (["Annotations/train.json", "Annotations/val.json"], ["train", "val"]),
        (["train/annotations/train_0213.json", "valid/x.json"], ["train", "val"]),
        (["train/a/b/c.json", "valid/x.json"], ["train", "val"]),
        (["annotations/train/a.json", "annotations/val/b.json"], ["train", "val"]),
        (["instances_train2014.json", "instances_train2017.json"], ["train2014", "train2017"]),
        (["export/train/_annotations.coco.json", "export/valid/_annotations.coco.json"], ["train", "val"]),
        (["a/b/c/instances_train.json", "a/b/c/instances_val.json"], ["train", "val"]),
        (["Night/labels.json", "Day/labels.json"], ["Day", "Night"]),
        (["export/annotations/instances_default.json"], ["all"]),
        (["person_keypoints_train2017.json"], ["train"]),
    ],
)
def test_coco_files_of_all_splits_are_used(tmp_path: Path, files: list[str], splits: list[str]) -> None:
    for file in files:
        coco_split((tmp_path / file).parent, Path(file).name)
    assert counts(tmp_path) == dict.fromkeys(splits, (1, 1))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("train/_annotations.coco.json", "", "the file is empty; create it again"),
        ("annotations/instances_train.json", "[]", "not a COCO annotation file (a list of 0 entries)"),
        ("annotations/train.json", '{"shapes": []}', "not a COCO annotation file (no list `images`)"),
    ],
)
def test_a_damaged_coco_file_is_not_passed_over(tmp_path: Path, name: str, text: str, message: str) -> None:
    val = tmp_path / name.replace("train", "val", 1)
    coco_split(val.parent, val.name)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=re.escape(message)):
        training_splits(tmp_path)
    assert [(p.kind, Path(p.file).name) for p in check_dataset(tmp_path).problems if p.severity == "error"] == [
        ("unreadable", Path(name).name)
    ]


def test_coco_of_the_validation_set_alone_gives_way_to_a_data_yaml(tmp_path: Path) -> None:
    coco_split(tmp_path / "annotations", "instances_val.json")
    write_drawn(tmp_path / "images/train/a.png")
    (tmp_path / "labels/train").mkdir(parents=True)
    (tmp_path / "labels/train/a.txt").write_text(yolo_line())
    (tmp_path / "data.yaml").write_text("train: images/train\nnames: [red]\n")
    with pytest.warns(DatasetWarning, match=r"read as YOLO; not read: COCO in annotations/instances_val\.json"):
        assert counts(tmp_path) == {"train": (1, 1)}


def test_coco_files_elsewhere_are_named(tmp_path: Path) -> None:
    coco_split(tmp_path / "annotations", "instances_train.json", "instances_val.json", "captions_val.json")
    coco_split(tmp_path / "new/part2", "labels.json")
    with pytest.warns(DatasetWarning, match=r"read as COCO; not read: COCO in new/part2/labels\.json; give its path"):
        assert list(open_splits(tmp_path)) == ["train", "val"]
    messages = [p.message for p in check_dataset(tmp_path).problems if p.kind == "unused-file"]
    assert len(messages) == 2
    assert messages[1].endswith("other tasks or have no annotations: captions_val.json")


def write_voc(root: Path, stems: dict[str, str], xml: str = "Annotations", images: str = "JPEGImages") -> None:
    """Write drawn images and XML files, ``stems`` to the list's name or an empty text for none."""
    for stem, name in stems.items():
        write_drawn(root / images / f"{stem}.png")
        file = root / xml / f"{stem}.xml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(voc_xml(f"{Path(stem).name}.png", [("red", 11, 9, 40, 32)]))
        if name:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            with (root / name).open("a") as lines:
                lines.write(f"{stem}\n")


@pytest.mark.parametrize(
    ("stems", "splits"),
    [
        ({"a": "ImageSets/Main/train.txt", "b": "ImageSets/Main/val.txt"}, ["train", "val"]),
        ({"a": "imagesets/main/train.txt", "b": "imagesets/main/val.txt"}, ["train", "val"]),
        ({"a": "ImageSets/Layout/train.txt", "b": "ImageSets/Layout/val.txt"}, ["train", "val"]),
        ({"a": "ImageSets/train.txt", "b": "ImageSets/Segmentation/val.txt"}, ["train"]),
        ({"a": "train.txt", "b": "val.txt"}, ["train", "val"]),
        ({"sub/a": "ImageSets/Main/train.txt", "b": "ImageSets/Main/test.txt"}, ["train", "test"]),
        ({"train/a": "", "val/b": ""}, ["train", "val"]),
        ({"a": "", "b": ""}, ["all"]),
    ],
)
@pytest.mark.parametrize("xml", ["Annotations", "annotations"])
def test_voc_lists_and_folders(tmp_path: Path, stems: dict[str, str], splits: list[str], xml: str) -> None:
    write_voc(tmp_path, stems, xml)
    assert list(find_source(tmp_path).splits) == splits


def test_voc_lists_of_one_split(tmp_path: Path) -> None:
    write_voc(tmp_path, {"a": "ImageSets/Main/train.txt", "b": "ImageSets/Main/train (1).txt"})
    with pytest.raises(InputError, match=r"ImageSets/Main/ holds train\.txt, train \(1\)\.txt; name the one you mean"):
        find_source(tmp_path)


def test_voc_lists_that_name_paths(tmp_path: Path) -> None:
    write_voc(tmp_path, {"a": "", "b": "", "c": "", "d": ""})
    lists = tmp_path / "ImageSets/Main"
    lists.mkdir(parents=True)
    text = 'JPEGImages/a.png Annotations/a.xml\r\n\r\n"b.png"\r\n/home/x/set/JPEGImages/c.jpg  \r\n# the last\r\n'
    (lists / "train.txt").write_bytes(b"\xff\xfe" + text.encode("utf-16-le"))
    with pytest.warns(DatasetWarning, match=r"1 XML files are in no list of a split and are not read.*d\.xml"):
        assert counts(tmp_path) == {"train": (3, 3)}


def test_voc_lists_that_name_hidden_files(tmp_path: Path) -> None:
    write_voc(tmp_path, {"a": "", "b": ""})
    lists = tmp_path / "ImageSets/Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a\n._a\n.ipynb_checkpoints/b-checkpoint\nb\n")
    assert counts(tmp_path) == {"train": (2, 2)}
    assert check_dataset(tmp_path).problems == []


def test_annotations_beside_annotations(tmp_path: Path) -> None:
    write_voc(tmp_path, {"a": ""})
    (tmp_path / "annotations").mkdir()
    assert counts(tmp_path) == {"all": (1, 1)}  # an empty folder is no choice
    write_voc(tmp_path, {"b": ""}, "annotations")
    with pytest.raises(InputError, match=r"holds Annotations, annotations, both with XML files; name the one you mean"):
        find_source(tmp_path)


def test_a_split_folder_without_annotations_is_named(tmp_path: Path) -> None:
    coco_split(tmp_path / "valid", "_annotations.coco.json")
    write_drawn(tmp_path / "train/a.png")
    with pytest.raises(InputError, match=r"train/ holds 1 images but no annotation file; add it"):
        training_splits(tmp_path)
    shutil.rmtree(tmp_path / "valid")
    write_voc(tmp_path, {"valid/a": ""}, "", "")
    report = check_dataset(tmp_path)
    assert list(report.splits) == ["val"]
    assert [p.message for p in report.problems if p.kind == "no-annotations"] != []


@pytest.mark.parametrize("form", ["coco", "voc", "yolo"])
@pytest.mark.parametrize("name", ["valid", "val", "test", "holdout", "eval"])
def test_training_takes_no_split_for_validation_unasked(tmp_path: Path, form: str, name: str) -> None:
    if form == "coco":
        coco_split(tmp_path / name, "_annotations.coco.json")
    elif form == "voc":
        write_voc(tmp_path, {"a": ""}, name, name)
    else:
        write_drawn(tmp_path / name / "images/a.png")
        (tmp_path / name / "labels").mkdir()
        (tmp_path / name / "labels/a.txt").write_text(yolo_line())
        (tmp_path / "data.yaml").write_text(f"{name}: {name}/images\nnames: [red]\n")
    with pytest.raises(
        InputError, match=r"has no split 'train'; it has \w+; to train on \w+ all the same, give --train"
    ):
        training_splits(tmp_path)
    train, val = training_splits(tmp_path, name)
    assert (len(train), val) == (1, None)


def test_held_back_names() -> None:
    held = ["val", "valid2017", "test-dev", "my_test", "nightVal", "holdout", "minival"]
    assert [name for name in held if not is_held_back(name)] == []
    assert [
        name for name in ("all", "train", "trainval", "contest", "valley", "train_test") if is_held_back(name)
    ] == []


def test_names_of_one_split(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds a/train\.json, b/train\.json; name the one you mean"):
        distinct_splits(tmp_path, [("train", tmp_path / "b/train.json"), ("train", tmp_path / "a/train.json")])


def test_one_folder_for_two_splits_is_announced(tmp_path: Path) -> None:
    write_drawn(tmp_path / "images/a.png")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/a.txt").write_text(yolo_line())
    (tmp_path / "data.yaml").write_text("train: images\nval: images\nnames: [red]\n")
    with pytest.warns(DatasetWarning, match="1 of the 1 images of val are in train too"):
        training_splits(tmp_path)


def test_a_missing_image_stops_training_at_the_start(tmp_path: Path) -> None:
    coco_split(tmp_path / "train", "a.json", count=3)
    os.remove(tmp_path / "train/1.png")
    with pytest.raises(InputError, match=r"train/1\.png: the image does not exist; restore it"):
        training_splits(tmp_path)


def test_several_formats_in_one_folder(tmp_path: Path) -> None:
    coco_split(tmp_path, "instances_train.json")
    write_voc(tmp_path, {"a": ""})
    (tmp_path / "data.yaml").write_text("train: images\nnames: [red]\n")
    with pytest.warns(DatasetWarning, match=r"read as COCO; not read: YOLO in data\.yaml, VOC in Annotations/; give"):
        assert list(open_splits(tmp_path)) == ["train"]
