"""COCO reader and writer on real files and on all kinds of defects."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boxwright.data.formats.coco.reader import read_coco
from boxwright.data.formats.coco.writer import write_coco
from boxwright.data.formats.opening import open_dataset, open_splits
from boxwright.data.formats.problems import DatasetWarning, ProblemLog
from boxwright.structures import InputError
from tests.support.dataset_files import coco_content, write_coco_files, write_image


def test_sparse_ids_become_labels_in_their_order(tmp_path: Path) -> None:
    index = read_coco(write_coco_files(tmp_path))
    assert index.name == "train"
    assert index.classes.ids == (3, 7)
    assert index.classes.names == ("dog", "cat")
    assert index.annotations(0).labels.tolist() == [1]
    assert index.path(0) == tmp_path / "images" / "1.png"
    assert index.to_coco()["annotations"][0]["bbox"] == [1.1, 2.2, 10.3, 20.7]
    assert index.annotations(0).area.tolist() == [200.25]
    np.testing.assert_allclose(index.annotations(0).boxes, [[1.1, 2.2, 11.4, 22.9]], rtol=1e-6)


def test_missing_size_is_read_from_the_image(tmp_path: Path) -> None:
    content = coco_content()
    del content["images"][0]["width"]
    content["images"][1]["height"] = 0
    index = read_coco(write_coco_files(tmp_path, content))
    assert [index.size(0), index.size(1)] == [(40, 60), (40, 60)]


@pytest.mark.parametrize(
    ("annotations", "images"),
    [
        ("annotations/instances_train2017.json", "train2017/1.png"),
        ("annotations/instances_train2017.json", "images/train2017/1.png"),
        ("annotations/instances_train2017.json", "images/1.png"),
        ("instances_train.json", "train/1.png"),
        ("train/_annotations.coco.json", "train/1.png"),
        ("train.json", "1.png"),
    ],
)
def test_layouts(tmp_path: Path, annotations: str, images: str) -> None:
    write_image(tmp_path / images)
    file = tmp_path / annotations
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(coco_content(1)))
    assert open_dataset(file).path(0) == tmp_path / images
    splits = open_splits(tmp_path)
    assert list(splits) == ["train"]
    assert splits["train"].path(0).is_file()


def test_folders_in_file_names(tmp_path: Path) -> None:
    content = coco_content()
    content["images"][0]["file_name"] = "sub\\a#b=1.png"
    content["images"][1]["file_name"] = "elsewhere/2.png"  # the folder in the name is missing, the file exists
    for name in ("images/sub/a#b=1.png", "images/2.png"):
        write_image(tmp_path / name)
    file = tmp_path / "instances_val.json"
    file.write_text(json.dumps(content))
    index = read_coco(file)
    assert index.path(0) == tmp_path / "images/sub/a#b=1.png"
    assert index.path(1) == tmp_path / "images/2.png"


def test_difficult_and_ignore(tmp_path: Path) -> None:
    content = coco_content(3)
    content["annotations"][0]["difficult"] = 1
    content["annotations"][1]["ignore"] = 1
    index = read_coco(write_coco_files(tmp_path, content))
    assert index.difficult.tolist() == [True, True, False]


def test_roboflow_parent_category_is_no_class(tmp_path: Path) -> None:
    content = coco_content()
    content["categories"] = [
        {"id": 0, "name": "cat", "supercategory": "none"},
        {"id": 3, "name": "dog", "supercategory": "cat"},
        {"id": 7, "name": "cat", "supercategory": "cat"},
    ]
    assert read_coco(write_coco_files(tmp_path, content)).classes.names == ("dog", "cat")


def _edit(path: list[Any], value: Any) -> Any:
    def edit(content: dict[str, Any]) -> None:
        inner: Any = content
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            _edit(["annotations", 0, "category_id"], 99),
            r"annotation id 1: category_id 99 is not one of the 2 categories",
        ),
        (_edit(["annotations", 0, "image_id"], 99), r"annotation id 1: image_id 99 is not an image of this file"),
        (_edit(["annotations", 0, "bbox"], [1, 2, 3]), r"annotation id 1, image 1\.png: bbox \[1, 2, 3\]"),
        (_edit(["annotations", 0], 5), r"annotations\[0\]"),
        (_edit(["images", 1, "id"], 1), "image id 1: used by two images"),
        (_edit(["images", 1, "file_name"], None), r"images\[1\]: needs the name .* it is null"),
        (_edit(["categories", 1, "id"], 7), "id 7 is used twice"),
        (_edit(["categories", 1, "name"], "cat"), "class name cat appears more than once"),
        (_edit(["categories"], None), "no list `categories`"),
        (_edit(["images"], {}), "not a COCO annotation file"),
        (_edit(["images"], []), "image_id 1 is not an image"),
    ],
)
def test_what_cannot_be_read_names_file_and_place(tmp_path: Path, edit: Any, message: str) -> None:
    content = coco_content()
    file = write_coco_files(tmp_path, content)
    edit(content)
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match=message) as caught:
        read_coco(file)
    assert str(file) in str(caught.value)


def test_size_nowhere_to_be_found(tmp_path: Path) -> None:
    file = write_coco_files(tmp_path)
    content = coco_content()
    del content["images"][0]["width"]
    file.write_text(json.dumps(content))
    (tmp_path / "images" / "1.png").unlink()
    with pytest.raises(InputError, match=r"image id 1: has no width and height.*no such image"):
        read_coco(file)


def test_malformed_json_names_line_and_column(tmp_path: Path) -> None:
    file = tmp_path / "instances_train.json"
    file.write_text('{"images": [\n  {"id": 1,,}\n]}')
    with pytest.raises(InputError, match=r"instances_train\.json, line 2, column 12: not valid JSON"):
        read_coco(file)
    file.write_bytes(b'{"images": "\xff"}')
    with pytest.raises(InputError, match="byte 12 is not UTF-8"):
        read_coco(file)
    file.write_text("[1, 2]")
    with pytest.raises(InputError, match="a list of 2 entries"):
        read_coco(file)


def test_harmless_defects_are_corrected_and_announced_once(tmp_path: Path) -> None:
    content = coco_content(4)
    content["annotations"][0]["bbox"] = [5, 5, 0, 9]
    content["annotations"][1]["bbox"] = [70, 5, 9, 9]  # beyond the 60 pixels
    file = write_coco_files(tmp_path, content)
    with pytest.warns(DatasetWarning) as caught:
        index = read_coco(file)
    assert len(caught) == 1
    text = str(caught[0].message)
    for part in (
        "annotation id 1, image 1.png",
        "no area",
        "outside its 60x40 image",
    ):
        assert part in text
    assert index.num_boxes == 2
    log = ProblemLog()
    read_coco(file, log=log)
    assert [p.kind for p in log.problems] == ["no-area", "outside"]


def test_invalid_polygons_and_runs_are_refused(tmp_path: Path) -> None:
    """A lenient log lists each of them; they are left out only with ``skip_masks``."""
    content = coco_content(4)
    content["annotations"][1]["segmentation"] = [[1, 2, 9, 2, 9, 9], [1, 2, 3, 4], [1, 2, 9, 2, 9, 9, 1]]
    content["annotations"][1]["bbox"] = [1, 2, 8, 7]
    content["annotations"][2]["segmentation"] = [[1, 2]]
    content["annotations"][3]["segmentation"] = {"size": [40, 60], "counts": [5]}
    file = write_coco_files(tmp_path, content)
    with pytest.raises(InputError) as refused:
        read_coco(file)
    assert str(refused.value) == (
        f"{file}, annotation id 2, image 2.png, segmentation[1]: a polygon has 4 coordinates; it takes an x and a y "
        "for each of at least 3 points, so an even number of at least 6; correct or remove it, or convert without it: "
        "`boxwright data convert DATA NEW --format coco --skip-bad-masks`; `boxwright data check` lists all defects"
    )
    places = ["id 2, image 2.png, segmentation[1]", "id 2, image 2.png, segmentation[2]"]
    places += ["id 3, image 3.png, segmentation[0]", "id 4, image 4.png"]
    for log in (ProblemLog(lenient=True), ProblemLog(skip_masks=True)):
        index = read_coco(file, log=log)
        assert [p.kind for p in log.problems] == ["bad-mask"] * 4
        assert [p.severity for p in log.problems] == ["error"] * 4
        assert [p.place for p in log.problems] == [f"annotation {place}" for place in places]
        assert index.num_boxes == 4
        assert index.annotations(1).segmentations == [[[1, 2, 9, 2, 9, 9]]]
        assert index.annotations(2).segmentations == [None]
        assert index.annotations(3).segmentations == [None]


def test_written_and_read_again(tmp_path: Path) -> None:
    content = coco_content(3)
    content["annotations"][0] |= {
        "segmentation": [[1, 2, 9, 2, 9, 9.5]],
        "bbox": [1, 2, 8, 7.5],
        "difficult": 1,
        "id": 500,
    }
    content["annotations"][1] |= {
        "segmentation": {"size": [40, 60], "counts": [5, 7, 2388]},
        "bbox": [0, 5, 1, 7],
        "iscrowd": 1,
    }
    before = read_coco(write_coco_files(tmp_path / "in", content))
    for images in ("copy", "link", "none"):
        folder = tmp_path / images
        said = write_coco(folder, {"train": before}, images=images).announcements
        assert said == ["train: 1 difficult boxes have the key `difficult`, which COCO tools ignore"]
        after = open_splits(folder)["train"]
        theirs, ours = after.to_coco(), before.to_coco()
        assert theirs["annotations"] == ours["annotations"]
        assert theirs["categories"] == ours["categories"]
        for i in range(3):
            assert after.path(i).read_bytes() == before.path(i).read_bytes()
    assert (tmp_path / "link/train/1.png").samefile(before.path(0))


def test_coco_mini(shared_data: Path) -> None:
    """50 crowd regions, sparse ids and grayscale images, compared with the parsed JSON."""
    splits = open_splits(shared_data / "coco_mini")
    assert list(splits) == ["train", "val", "val_extra_boxonly"]
    assert {name: (len(s), s.num_boxes) for name, s in splits.items()} == {
        "train": (343, 2974), "val": (206, 1786), "val_extra_boxonly": (122, 854),
    }  # fmt: skip
    assert int(splits["train"].crowd.sum() + splits["val"].crowd.sum()) == 50
    val = splits["val"]
    assert val.classes.ids[0] == 1
    assert val.classes.ids[-1] == 90
    assert len(val.classes) == 80
    assert splits["train"].has_masks
    assert not splits["val_extra_boxonly"].has_masks
    raw = json.loads((shared_data / "coco_mini/instances_val.json").read_text())
    by_id = {row["id"]: row for row in raw["annotations"]}
    for row in val.to_coco()["annotations"]:
        for key in ("bbox", "area", "iscrowd", "segmentation", "category_id", "image_id"):
            assert row[key] == by_id[row["id"]][key]
    crowded = next(i for i in range(len(val)) if val.annotations(i).crowd.any())
    masks, rows = val.masks(crowded), val.annotations(crowded)
    k = int(np.flatnonzero(rows.crowd)[0])
    assert masks[k].sum() == rows.area[k]  # COCO's area of a run-length mask is its number of pixels


def test_nwpu_id_zero(shared_data: Path) -> None:
    """Image id 0 and annotation id 0 are reported, and the latter is renumbered for the evaluation."""
    log = ProblemLog()
    index = read_coco(shared_data / "nwpu_vhr10/instances_train.json", log=log)
    (message,) = [p.message for p in log.problems if p.kind == "id-zero"]
    assert message.startswith("ids of images, annotations begin at 0")
    assert 0 in index.annotation_ids
    assert min(row["id"] for row in index.to_coco()["annotations"]) == 1
