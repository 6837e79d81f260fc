"""YOLO reader and writer."""

from pathlib import Path

import numpy as np
import pytest

from boxwright.data.formats.coco.reader import read_coco
from boxwright.data.formats.opening import open_dataset, open_splits
from boxwright.data.formats.problems import DatasetWarning
from boxwright.data.formats.yolo.labels import label_file
from boxwright.data.formats.yolo.writer import write_yolo
from boxwright.structures import InputError
from tests.support.dataset_files import write_coco_files, write_image, write_yolo_files

BOX = "1 0.5 0.5 0.5 0.25\n"


def test_boxes_and_polygons(tmp_path: Path) -> None:
    lines = "1 0.5 0.5 0.5 0.25\n\n0 0.1 0.2 0.6 0.2 0.6 0.8\n"
    file = write_yolo_files(tmp_path, {"train/a": lines, "val/b": ""})
    index = open_dataset(file, "train")
    rows = index.annotations(0)
    np.testing.assert_allclose(rows.boxes, [[15, 15, 45, 25], [6, 8, 36, 32]], rtol=1e-6)
    assert rows.labels.tolist() == [1, 0]
    assert index.classes.names == ("cat", "dog")
    assert rows.segmentations is not None
    assert rows.segmentations[0] is None
    np.testing.assert_allclose(rows.segmentations[1], [[6, 8, 36, 8, 36, 32]])
    np.testing.assert_allclose(rows.area, [300, 30 * 24 / 2])
    assert open_dataset(tmp_path, "val").num_boxes == 0  # an empty file means an image without objects


@pytest.mark.parametrize(
    "yaml",
    [
        "train: images/train\nval: images/val\nnames: {0: cat, 1: dog}\n",
        "path: .\ntrain: [images/train]\nval: images/val\ntest:\nnc: 2\nnames: [cat, dog]\n",
        "path: ../datasets/other\ntrain: images/train\nval: images/val\nnames: [cat, dog]\n",  # another tool's folder
        "train: ../images/train\nvalid: ../images/val\nnames: [cat, dog]\n",  # Roboflow's one folder too many
        "train: train.txt\nval: val.txt\nnames: [cat, dog]\n",
        "path: {root}\ntrain: images/train\nval: images/val\nnames: [cat, dog]\n",
    ],
)
def test_ways_to_say_where_images_are(tmp_path: Path, yaml: str) -> None:
    root = tmp_path / "set"
    file = write_yolo_files(
        root, {"train/a": BOX, "train/deep/c": BOX, "val/b": BOX}, yaml.replace("{root}", str(root))
    )
    (root / "train.txt").write_text(f"./images/train/a.png\n{root}/images/train/deep/c.png\n")
    (root / "val.txt").write_text("images/val/b.png\n")
    splits = open_splits(file)
    assert {name: (len(s), s.num_boxes) for name, s in splits.items()} == {"train": (2, 2), "val": (1, 1)}
    assert open_splits(root)["train"].path(0) == root / "images/train/a.png"


def test_label_files() -> None:
    assert label_file(Path("/images/x/images/train/a.b.jpg")) == Path("/images/x/labels/train/a.b.txt")
    assert label_file(Path("/data/obj/a.jpg")) == Path("/data/obj/a.txt")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2 0.5 0.5 0.5 0.25", r"labels/train/a\.txt, line 2: class 2 is not one of 0\.\.1"),
        ("-1 0.5 0.5 0.5 0.25", "line 2: class -1"),
        ("0.5 0.5 0.5 0.5 0.25", r"line 2: class 0\.5"),
        ("cat 0.5 0.5 0.5 0.25", "line 2: `cat 0.5 0.5 0.5 0.25` contains something other than numbers"),
        ("1 0.5 0.5 0.5", "line 2: 4 numbers"),
        ("1 0.5 0.5 0.5 0.25 0.9", "line 2: 6 numbers"),
        ("1 30 20 15 10", "line 2: 30 is not a fraction"),
    ],
)
def test_bad_lines_name_file_and_line(tmp_path: Path, line: str, message: str) -> None:
    write_yolo_files(tmp_path, {"train/a": f"{BOX}{line}\n", "val/b": BOX})
    with pytest.raises(InputError, match=message):
        open_dataset(tmp_path, "train")


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("train: images/train\nnames: [cat\n", r"data\.yaml, line \d+, column \d+: not valid YAML"),
        ("train: images/train\nnames: []\n", "key `names`"),
        ("train: images/train\nnames: {0: cat, 2: dog}\n", "key `names`: the keys must be 0 to 1"),
        ("train: images/train\nnames: [cat, cat]\n", 'key `names`: class name "cat" appears more than once'),
        ("train: images/train\nnames: [cat, dog]\nnc: 3\n", "nc is 3 but `names` has 2"),
        ("train: images/nowhere\nnames: [cat, dog]\n", "key `train`: images/nowhere does not exist"),
        ("train: 5\nnames: [cat, dog]\n", "line 1, key `train`: 5 does not exist"),
        ("names: [cat, dog]\ntrain:\n", "none of the keys"),
        ("just text", "holds none of them"),
    ],
)
def test_bad_yaml_names_the_key(tmp_path: Path, yaml: str, message: str) -> None:
    file = write_yolo_files(tmp_path, {"train/a": BOX}, yaml)
    with pytest.raises(InputError, match=message):
        open_dataset(file)


def test_yaml_does_not_run_code(tmp_path: Path) -> None:
    yaml = "train: images/train\nnames: !!python/object/apply:os.mkdir [made]\n"
    file = write_yolo_files(tmp_path, {"train/a": BOX}, yaml)
    with pytest.raises(InputError, match=r"line 2: the tag !!python/object/apply:os\.mkdir is not read"):
        open_dataset(file)


def test_no_label_files_at_all(tmp_path: Path) -> None:
    write_image(tmp_path / "images/train/a.png")
    (tmp_path / "data.yaml").write_text("train: images/train\nnames: [cat]\n")
    with pytest.warns(DatasetWarning, match=r"none of 1 images has a label file.*labels/train/a\.txt"):
        assert open_dataset(tmp_path).num_boxes == 0


def test_damaged_image_is_refused(tmp_path: Path) -> None:
    write_yolo_files(tmp_path, {"train/a": BOX, "val/b": BOX})
    (tmp_path / "images/train/a.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"images/train/a\.png: this is none of the image formats"):
        open_dataset(tmp_path, "train")


def test_written_and_read_again(tmp_path: Path) -> None:
    lines = "1 0.5123 0.5 0.5 0.2501\n0 0.1 0.2 0.6 0.2 0.6 0.8\n"
    before = open_splits(write_yolo_files(tmp_path / "in", {"train/a": lines, "val/b": BOX}))
    assert write_yolo(tmp_path / "out", before).announcements == []
    after = open_splits(tmp_path / "out")
    for split in ("train", "val"):
        np.testing.assert_allclose(after[split].xywh, before[split].xywh, atol=1e-6)
        assert after[split].classes == before[split].classes
    ours, theirs = before["train"].annotations(0).segmentations, after["train"].annotations(0).segmentations
    assert ours is not None
    assert theirs is not None
    np.testing.assert_allclose(theirs[1], ours[1], atol=1e-6)


def test_what_yolo_cannot_hold_is_said(tmp_path: Path) -> None:
    rows = [
        {"bbox": [1, 2, 8, 7], "segmentation": [[1, 2, 5, 2, 5, 9], [6, 2, 9, 2, 9, 9]], "difficult": 1},
        {"bbox": [0, 0, 20, 20], "iscrowd": 1, "segmentation": {"size": [40, 60], "counts": [0, 800, 1600]}},
        {"bbox": [0, 0, 20, 40], "segmentation": {"size": [40, 60], "counts": [0, 800, 1600]}},
    ]
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 60, "height": 40}],
        "annotations": [{"id": i, "image_id": 1, "category_id": 5, **row} for i, row in enumerate(rows, start=1)],
        "categories": [{"id": 5, "name": "cat"}],
    }
    index = read_coco(write_coco_files(tmp_path, content))
    said = write_yolo(tmp_path / "out", {"train": index}).announcements
    assert said == [
        "train: 1 crowd regions are left out, because YOLO cannot mark them",
        "train: 1 difficult boxes become ordinary ones",
        "train: 1 objects of several polygons are joined into one each",
        "train: 1 run-length masks become outlines, their holes filled",
        "train: category ids 5..5 become 0..0",
    ]
    after = open_splits(tmp_path / "out")["train"]
    np.testing.assert_allclose(after.annotations(0).boxes, [[1, 2, 9, 9], [0, 0, 20, 40]], atol=1e-5)
    np.testing.assert_allclose(after.annotations(0).area, [4 * 7 / 2 + 3 * 7 / 2, 800])
    assert after.masks(0)[1].sum() == 800
    plain = write_yolo(tmp_path / "plain", {"train": index}, masks=False).announcements
    assert "train: the masks of 2 objects are left out" in plain
    assert not open_splits(tmp_path / "plain")["train"].has_masks
