"""Lines of YOLO label files: keypoints, detections, tracks, corners, encodings."""

from pathlib import Path

import numpy as np
import pytest

from boxwright.data.formats.check import check_dataset
from boxwright.data.formats.opening import open_splits
from boxwright.data.formats.problems import DatasetWarning
from boxwright.structures import InputError
from tests.support.dataset_files import write_yolo_files

YAML = "train: images/train\nval: images/val\nnames: [cat, dog]\n"
BOX = "0 0.4 0.5 0.5 0.5"  # of 60x40 pixels: 9 10 39 30
RED = [[9, 10, 39, 30]]


def pose(points: int, size: int, visible: int = 2) -> str:
    """Return a line with keypoints in the box."""
    values = [f"{0.3 + 0.2 * i / points:.3f} {0.4 + 0.1 * i / points:.3f}" for i in range(points)]
    return " ".join([BOX, *(v if size == 2 else f"{v} {visible}" for v in values)]) + "\n"


def written(folder: Path, line: str, yaml: str = YAML, times: int = 2) -> Path:
    text = line if line.endswith("\n") else line + "\n"
    return write_yolo_files(folder, {f"{split}/{i}": text for split in ("train", "val") for i in range(times)}, yaml)


@pytest.mark.parametrize("visible", [0, 1, 2])
@pytest.mark.parametrize(("points", "size"), [(1, 2), (2, 2), (4, 2), (17, 2), (1, 3), (5, 3), (4, 3), (17, 3)])
def test_pose_labels(tmp_path: Path, points: int, size: int, visible: int) -> None:
    file = written(tmp_path, pose(points, size, visible), f"{YAML}kpt_shape: [{points}, {size}]\n")
    with pytest.warns(DatasetWarning, match="the keypoints of 4 objects are not read, their boxes are") as caught:
        splits = open_splits(file)
    assert len(caught) == 1
    for index in splits.values():
        assert not index.has_masks
        for i in range(2):
            np.testing.assert_allclose(index.annotations(i).boxes, RED, atol=1e-5)
    report = check_dataset(tmp_path)
    assert report.ok
    assert [p.kind for p in report.problems if p.severity != "info"] == ["class-without-objects"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            pose(4, 3),
            r"line 1: 17 numbers; with kpt_shape \[4, 2\] a line has 13: class cx cy w h and 4 keypoints",
        ),
        (pose(3, 2), "11 numbers; with kpt_shape"),
        (BOX + " 0.9", "6 numbers; with kpt_shape"),
    ],
)
def test_pose_labels_of_another_shape(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_splits(written(tmp_path, line, f"{YAML}kpt_shape: [4, 2]\n"))


def test_a_box_without_keypoints_among_pose_labels(tmp_path: Path) -> None:
    index = open_splits(written(tmp_path, BOX, f"{YAML}kpt_shape: [4, 2]\n"))["train"]
    np.testing.assert_allclose(index.annotations(0).boxes, RED, atol=1e-5)


@pytest.mark.parametrize("shape", ["5", "[17]", "[17, 4]", "[0, 2]", "[a, 2]", "[17, 3, 1]", "{a: 1}"])
def test_a_shape_of_keypoints_that_is_none(tmp_path: Path, shape: str) -> None:
    with pytest.raises(InputError, match=r"data\.yaml, line \d, key `kpt_shape`: give the number of keypoints"):
        open_splits(written(tmp_path, BOX, f"{YAML}kpt_shape: {shape}\n"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (pose(5, 3), "20 numbers; .*boxes with keypoints \\(pose labels\\) need `kpt_shape`"),
        (pose(1, 3), "8 numbers; .*keypoints"),
        (pose(4, 3), "2 seems to mark visible keypoints"),
        (pose(4, 3, 1), "all 2 polygons have 17 numbers, a box and keypoints with their visibility"),
        (BOX + " 0.87", "6 numbers; .*a sixth may be the confidence or track of a detection"),
        (BOX + " 0.87 3", r"7 numbers; detections with a confidence and a track"),
        ("0 20 30 10 10", "30 is not a fraction of the image; divide x"),
        ("0 0.1 0.1 0.2 0.2 0.3 0.4 0.5 120", "120 is not a fraction"),
    ],
)
def test_what_is_no_label(tmp_path: Path, line: str, message: str) -> None:
    file = written(tmp_path, line)
    with pytest.raises(InputError, match=message):
        open_splits(file)
    assert not check_dataset(tmp_path).ok


@pytest.mark.parametrize("points", [1, 2, 4, 8])
def test_keypoints_that_look_like_polygons_are_remarked(tmp_path: Path, points: int) -> None:
    line = pose(points, 2).replace("0.5 0.5 ", "0.5 0.5 ").replace("0 0.4 0.5 0.5 0.5", "0 0.4 0.5 0.9 0.9", 1)
    line = line.replace("0 0.4 0.5 0.9 0.9", "0 0.5 0.5 0.9 0.9", 1)
    with pytest.warns(DatasetWarning, match=r"may be a box and keypoints \(pose labels\); if so, add `kpt_shape`"):
        open_splits(written(tmp_path, line))


POLYGONS = {
    "rotated": "0 0.5 0.2 0.8 0.5 0.5 0.8 0.2 0.5",
    "upright": "0 0.2 0.2 0.8 0.2 0.8 0.8 0.2 0.8",
    "small": "0 0.6 0.6 0.65 0.6 0.65 0.7 0.6 0.7",
    "triangle": "0 0.1 0.2 0.6 0.2 0.6 0.8",
    "many": "0 " + " ".join(f"{0.5 + 0.1 * np.cos(a):.4f} {0.5 + 0.1 * np.sin(a):.4f}" for a in np.arange(0, 6, 0.5)),
}


@pytest.mark.parametrize("name", POLYGONS)
def test_polygons_are_not_taken_for_keypoints(tmp_path: Path, name: str) -> None:
    index = open_splits(written(tmp_path, POLYGONS[name]))["train"]
    values = np.array(POLYGONS[name].split()[1:], dtype=float).reshape(-1, 2) * (60, 40)
    np.testing.assert_allclose(index.annotations(0).boxes[0], [*values.min(0), *values.max(0)], atol=1e-4)
    assert index.has_masks
    assert {p.kind for p in check_dataset(tmp_path).problems} <= {"class-without-objects", "duplicate-image"}


def test_corners_instead_of_centres(tmp_path: Path) -> None:
    with pytest.warns(DatasetWarning, match="lines may hold x1 y1 x2 y2 instead of cx cy w h: 2 of 2 boxes extend"):
        open_splits(written(tmp_path, "0 0.3 0.5 0.99 0.9"))


@pytest.mark.parametrize("value", ["nan", "inf", "1e999"])
@pytest.mark.parametrize("line", ["0 0.5 {} 0.5 0.5", "0 0.1 0.2 0.6 0.2 0.6 {}"])
def test_numbers_that_are_not_finite(tmp_path: Path, value: str, line: str) -> None:
    with pytest.warns(DatasetWarning, match=r"line 1: `.*` has a number that is not finite; left out"):
        assert open_splits(written(tmp_path, line.format(value)))["train"].num_boxes == 0


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_label_files_of_other_encodings(tmp_path: Path, encoding: str) -> None:
    file = written(tmp_path, BOX)
    (tmp_path / "labels/train/0.txt").write_text(BOX + "\r\n", encoding=encoding)
    np.testing.assert_allclose(open_splits(file)["train"].annotations(0).boxes, RED, atol=1e-5)


def test_label_files_that_are_no_text(tmp_path: Path) -> None:
    file = written(tmp_path, BOX)
    (tmp_path / "labels/train/0.txt").write_bytes(b"0 0.5 0.5 0.5 0.5\n\x80\x81\xfe")
    with pytest.raises(InputError, match=r"labels/train/0\.txt: line 2: byte 18 is not UTF-8 text; save it as UTF-8"):
        open_splits(file)
    assert [p.kind for p in check_dataset(tmp_path).problems if p.severity == "error"] == ["unreadable"]
