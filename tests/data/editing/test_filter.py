"""Data sets filtered by class, size of box, objects and name, in the three formats, boxes compared with pixels."""

import json
from pathlib import Path

import pytest

from boxwright.data.editing.filter import FilterRules, filter_dataset
from boxwright.data.formats.opening import detect_format, open_splits
from boxwright.data.formats.writing.whole import CopyOptions
from boxwright.structures import InputError
from tests.support.drawn_sets import found_objects, read_set, write_set

SPLITS = {
    "train": {
        "day_1.png": [("red", 5, 4, 25, 30), ("green", 40, 10, 50, 22)],
        "day_2.png": [("blue", 3, 3, 7, 8)],
        "night_1.png": [("red", 10, 10, 44, 33), ("blue", 50, 2, 58, 12)],
        "night_2.png": [],
    },
    "val": {"day_3.png": [("green", 8, 8, 30, 30)], "night_3.png": []},
}

RED_BLUE = ["red", "blue"]


@pytest.fixture(params=["coco", "voc", "yolo"])
def data(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write_set(tmp_path / "in", request.param, SPLITS)


def test_classes_are_renamed_merged_and_dropped(data: Path, tmp_path: Path) -> None:
    rules = FilterRules(rename=("red=thing", "green=thing"), drop=("blue",))
    report = filter_dataset(data, tmp_path / "out", rules)
    assert detect_format(tmp_path / "out") == detect_format(data) == report.format
    found = read_set(tmp_path / "out")
    assert {split: set(images) for split, images in found.items()} == {s: set(images) for s, images in SPLITS.items()}
    for split, index in open_splits(tmp_path / "out").items():
        assert index.classes.names == ("thing",)
        for i in range(len(index)):
            drawn = found_objects(index.path(i))
            expected = sorted(box for name, box in drawn.items() if name != "blue")
            assert sorted(box for _, box in found[split][index.path(i).name]) == expected
    assert [(row.old, row.name, row.before, row.after) for row in report.classes] == [
        ("red", "thing", 2, 2),
        ("green", "thing", 2, 2),
        ("blue", None, 2, 0),
    ]
    assert "classes red, green are merged into one class, thing" in report.announcements
    train = report.splits["train"]
    assert (train.images, train.boxes, train.empty) == ((4, 4), (5, 3), (1, 2))


@pytest.mark.parametrize(
    ("rules", "left"),
    [
        (FilterRules(min_size=9), {"day_1.png": ["red", "green"], "day_2.png": [], "night_1.png": ["red"]}),
        (FilterRules(min_area=100), {"day_1.png": ["red", "green"], "day_2.png": [], "night_1.png": ["red"]}),
        (FilterRules(min_area=19), {"day_1.png": ["red", "green"], "day_2.png": ["blue"], "night_1.png": RED_BLUE}),
        (FilterRules(min_share=0.06), {"day_1.png": ["red"], "day_2.png": [], "night_1.png": ["red"]}),
        (FilterRules(match=("day_*", "train/none")), None),
        (FilterRules(match=("night_*",)), {"night_1.png": ["red", "blue"]}),
        (FilterRules(keep=("blue",), without_empty=True), {"day_2.png": ["blue"], "night_1.png": ["blue"]}),
        (FilterRules(keep=("blue",), empty_share=0.34), {"day_2.png": ["blue"], "night_1.png": ["blue"], "": []}),
    ],
)  # fmt: skip
def test_what_is_left_in_train(
    data: Path, tmp_path: Path, rules: FilterRules, left: dict[str, list[str]] | None
) -> None:
    if left is None:
        with pytest.raises(InputError, match=r"--match train/none: matches no image; one is .*\.png"):
            filter_dataset(data, tmp_path / "out", rules)
        return
    filter_dataset(data, tmp_path / "out", rules)
    found = {name: [label for label, _ in rows] for name, rows in read_set(tmp_path / "out")["train"].items()}
    if "" in left:  # one image without objects, chosen at random
        left = {name: labels for name, labels in left.items() if name}
        (spare,) = set(found) - set(left)
        assert found.pop(spare) == []
    elif not rules.without_empty:
        left = left | {"night_2.png": []}
    assert found == left


def test_tiny_boxes_can_be_ignored(data: Path, tmp_path: Path) -> None:
    rules = FilterRules(min_size=9, tiny="ignore")
    format = detect_format(data)
    if format == "yolo":
        with pytest.raises(InputError, match="YOLO cannot mark them; use --tiny drop, or --format coco"):
            filter_dataset(data, tmp_path / "out", rules)
        assert not (tmp_path / "out").exists()
        return
    report = filter_dataset(data, tmp_path / "out", rules)
    index = open_splits(tmp_path / "out")["train"]
    ignored = index.crowd if format == "coco" else index.difficult
    assert [index.classes.names[label] for label in index.labels[ignored]] == ["blue", "blue"]
    assert index.num_boxes == 5
    assert any(text.startswith("2 tiny boxes become") for text in report.announcements)


def test_a_split_without_images_is_left_out_and_named(data: Path, tmp_path: Path) -> None:
    report = filter_dataset(data, tmp_path / "out", FilterRules(match=("*_1.png",)))
    assert "split val: no image is left, so it is left out" in report.announcements
    assert list(read_set(tmp_path / "out")) == ["train"]
    assert report.splits["val"].images == (2, 0)


def test_a_dry_run_counts_and_writes_nothing(data: Path, tmp_path: Path) -> None:
    rules = FilterRules(keep=("red",), min_size=30)
    dry = filter_dataset(data, tmp_path / "out", rules, dry_run=True)
    assert not (tmp_path / "out").exists()
    assert "no box of class red is left" in dry.announcements
    assert filter_dataset(data, tmp_path / "out", rules).splits == dry.splits
    assert dry.output is None


def test_masks_and_category_ids_stay(tmp_path: Path) -> None:
    data = write_set(tmp_path / "in", "coco", SPLITS, polygons=True)
    filter_dataset(data, tmp_path / "out", FilterRules(drop=("red",)))
    index = open_splits(tmp_path / "out")["train"]
    assert (index.classes.names, index.classes.ids) == (("green", "blue"), (2, 3))
    for i in range(len(index)):
        rows = index.annotations(i)
        for (x1, y1, x2, y2), polygons in zip(rows.boxes.tolist(), rows.segmentations or [], strict=True):
            assert polygons == [[x1, y1, x2, y1, x2, y2, x1, y2]]


def test_run_lengths_crowds_and_sparse_ids_stay(tmp_path: Path) -> None:
    data = write_set(tmp_path / "in", "coco", SPLITS)
    file = data / "annotations/instances_train.json"
    content = json.loads(file.read_text())
    for category in content["categories"]:
        category["id"] = {"red": 7, "green": 90, "blue": 12}[category["name"]]
    crowd = {"size": [40, 60], "counts": [405, 10, 30, 10, 1945]}
    content["annotations"] = [
        {"id": 5, "image_id": 1, "category_id": 90, "bbox": [3, 2, 4, 3], "area": 12, "iscrowd": 0},
        {"id": 9, "image_id": 1, "category_id": 12, "bbox": [10, 5, 2, 10], "area": 20, "iscrowd": 1}
        | {"segmentation": crowd},
        {"id": 4, "image_id": 2, "category_id": 7, "bbox": [3, 2, 4, 3], "area": 12, "difficult": 1},
    ]
    file.write_text(json.dumps(content))
    other = data / "annotations/instances_val.json"
    held = json.loads(other.read_text())
    held["categories"], held["annotations"] = content["categories"], []
    other.write_text(json.dumps(held))
    filter_dataset(data, tmp_path / "out", FilterRules(min_size=4, rename=("red=green",), drop=()))
    written = json.loads((tmp_path / "out/annotations/instances_train.json").read_text())
    assert {c["name"]: c["id"] for c in written["categories"]} == {"green": 90, "blue": 12}
    (row,) = written["annotations"]  # the crowd region of two pixels stays, the boxes of three do not
    assert (row["id"], row["category_id"], row["iscrowd"]) == (9, 12, 1)
    assert row["segmentation"]["size"] == [40, 60]
    assert (
        open_splits(tmp_path / "out")["train"].annotations(0).segmentations
        == (open_splits(data)["train"].annotations(0).segmentations or [])[1:]
    )


def test_difficult_objects_stay_difficult(tmp_path: Path) -> None:
    data = write_set(tmp_path / "in", "voc", SPLITS)
    file = data / "Annotations/night_1.xml"
    text = file.read_text()
    assert text.count("<difficult>0</difficult>") == 2
    file.write_text(text.replace("<difficult>0</difficult>", "<difficult>1</difficult>", 1))
    filter_dataset(data, tmp_path / "out", FilterRules(rename=("red=blue",), drop=("green",)))
    index = open_splits(tmp_path / "out")["train"]
    assert index.classes.names == ("blue",)
    assert int(index.difficult.sum()) == 1


def test_held_back_splits_keep_their_backgrounds(data: Path, tmp_path: Path) -> None:
    filter_dataset(data, tmp_path / "out", FilterRules(empty_share=0))
    found = read_set(tmp_path / "out")
    assert set(found["val"]) == set(SPLITS["val"])
    assert "night_2.png" not in found["train"]


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"min_size": -1}, "--min-size -1"),
        ({"min_share": 1}, "--min-share 1"),
        ({"min_area": float("nan")}, "--min-area nan"),
        ({"empty_share": 2}, "--empty-share 2"),
        ({"empty_share": 0.1, "without_empty": True}, "exclude each other"),
        ({"seed": -1}, "--seed -1"),
    ],
)
def test_rules_out_of_range(rules: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        FilterRules(**rules)  # type: ignore[arg-type]


def test_refusals(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no image is left"):
        filter_dataset(data, tmp_path / "out", FilterRules(min_size=50, without_empty=True))
    with pytest.raises(InputError, match="there is no such file or folder"):
        filter_dataset(tmp_path / "none", tmp_path / "out", FilterRules())
    (tmp_path / "full").mkdir()
    (tmp_path / "full/a").touch()
    with pytest.raises(InputError, match="exists and is not empty"):
        filter_dataset(data, tmp_path / "full", FilterRules())
    next(data.rglob("day_2.png")).write_bytes(b"no image")
    with pytest.raises(InputError, match=r"day_2\.png"):
        filter_dataset(data, tmp_path / "out", FilterRules(), CopyOptions(images="link"))
    assert not (tmp_path / "out").exists()
