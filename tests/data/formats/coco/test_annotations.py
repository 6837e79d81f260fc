"""Values of COCO annotations: flags and numbers as text, masks against boxes, other meanings of bbox."""

import json
from pathlib import Path
from typing import Any

import pytest

from boxwright.data.formats.check import check_dataset
from boxwright.data.formats.coco.reader import read_coco
from boxwright.data.formats.problems import DatasetWarning, ProblemLog
from boxwright.structures import InputError
from tests.support.dataset_files import coco_content, write_coco_files


def written(folder: Path, *rows: dict[str, Any], **top: Any) -> Path:
    """Write a file with an image of 60x40 and an annotation for each of ``rows``, which change the ordinary one."""
    content = coco_content(max(1, len(rows)))
    for row, change in zip(content["annotations"], rows, strict=False):
        row |= change
    return write_coco_files(folder, content | top)


def kinds(log: ProblemLog) -> list[tuple[str, str]]:
    return [(p.kind, p.severity) for p in log.problems]


@pytest.mark.parametrize("key", ["iscrowd", "difficult", "ignore"])
def test_flags_as_text(tmp_path: Path, key: str) -> None:
    values = ["0", "False", "no", "", None, 0, 0.0, "1", "TRUE", "yes", True, 1]
    log = ProblemLog()
    index = read_coco(written(tmp_path, *({key: value} for value in values)), log=log)
    expected = [False] * 7 + [True] * 5
    assert (index.crowd if key == "iscrowd" else index.difficult).tolist() == expected
    assert (index.difficult if key == "iscrowd" else index.crowd).tolist() == [False] * 12
    assert log.problems == []


@pytest.mark.parametrize("key", ["iscrowd", "difficult", "ignore"])
@pytest.mark.parametrize("value", ["maybe", 2, [1], "nan"])
def test_flags_that_say_nothing(tmp_path: Path, key: str, value: Any) -> None:
    file = written(tmp_path, {}, {key: value})
    with pytest.raises(InputError) as caught:
        read_coco(file)
    assert f"{file}, annotation id 2, image 2.png: {key} is {json.dumps(value)}; write 0 or 1" in str(caught.value)
    assert [p.kind for p in check_dataset(file).problems if p.severity == "error"] == ["bad-flag"]


def test_numbers_as_text(tmp_path: Path) -> None:
    row = {"id": "5", "image_id": "1", "category_id": "3", "bbox": ["1", "2.5", " 10 ", "2e1"], "area": "200"}
    row["segmentation"] = [["1", "2.5", "11", "2.5", "11", "22.5"]]
    image = {"id": "1", "file_name": "1.png", "width": "60", "height": "40.0"}
    categories = [{"id": "3", "name": "dog"}]
    log = ProblemLog()
    index = read_coco(written(tmp_path, row, images=[image], categories=categories), log=log)
    assert index.to_coco()["annotations"] == [
        {"id": 5, "image_id": 1, "category_id": 3, "bbox": [1, 2.5, 10, 20], "area": 200, "iscrowd": 0,
         "segmentation": [[1, 2.5, 11, 2.5, 11, 22.5]]}
    ]  # fmt: skip
    assert index.size(0) == (40, 60)
    assert log.problems == []


@pytest.mark.parametrize("value", [2**63, 1e300, 10**1000, 1.5, "abc", True, None, [1], "", -(2**64)])
@pytest.mark.parametrize("place", ["images", "categories", "image_id", "category_id"])
def test_ids_that_are_none(tmp_path: Path, value: Any, place: str) -> None:
    content = coco_content(1)
    if place in ("images", "categories"):
        content[place][0]["id"] = value
    else:
        content["annotations"][0][place] = value
    file = write_coco_files(tmp_path, content)
    text = json.dumps(value) if len(json.dumps(value)) < 60 else json.dumps(value)[:50]
    with pytest.raises(InputError) as caught:
        read_coco(file)
    assert str(file) in str(caught.value)
    assert text in str(caught.value)
    assert len(str(caught.value)) < 600
    assert not check_dataset(file).ok


@pytest.mark.parametrize("value", [2**63, 1e300, 1.5, "abc", True, None])
def test_annotation_ids_that_are_none_are_renumbered(tmp_path: Path, value: Any) -> None:
    file = written(tmp_path, {"id": value}, {})
    log = ProblemLog()
    assert [row["id"] for row in read_coco(file, log=log).to_coco()["annotations"]] == [1, 2]
    assert kinds(log) == [("bad-annotation", "warning")]
    assert json.dumps(value) in log.problems[0].message


@pytest.mark.parametrize(
    ("key", "value"), [("width", -60), ("width", "wide"), ("height", 10**9), ("height", True), ("width", 59.5)]
)
def test_sizes_that_are_none(tmp_path: Path, key: str, value: Any) -> None:
    image = {"id": 1, "file_name": "1.png", "width": 60, "height": 40} | {key: value}
    image |= {"width": 10**9} if value == 10**9 else {}
    file = written(tmp_path, {}, images=[image])
    with pytest.raises(InputError, match=rf"image id 1: .*({json.dumps(value)}|1000000000x1000000000)"):
        read_coco(file)
    assert {p.kind for p in check_dataset(file).problems if p.severity == "error"} == {"no-size", "no-images"}


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ([1, 2, "a", 4], r'bbox \[1, 2, "a", 4\] is not x, y, width, height'),
        ([1, 2, True, 4], r"bbox \[1, 2, true, 4\]"),
        ([[1, 2, 3, 4]], r"bbox \[\[1, 2, 3, 4\]\]"),
        ({"x": 1}, r'bbox {"x": 1}'),
        ([1, 2, 3, 4, 45], "rotated boxes of 5 numbers are not read"),
        (None, "bbox null"),
    ],
)
def test_boxes_that_are_none(tmp_path: Path, box: Any, message: str) -> None:
    with pytest.raises(InputError, match=rf"annotation id 1, image 1\.png: .*{message}"):
        read_coco(written(tmp_path, {"bbox": box}))


@pytest.mark.parametrize("value", [float("nan"), "nan", 1e300, -1e300, float("inf"), 10**1000])
def test_boxes_that_are_not_finite_or_enormous(tmp_path: Path, value: Any) -> None:
    log = ProblemLog()
    index = read_coco(written(tmp_path, {"bbox": [value, 2, 3, 4]}, {}), log=log)
    assert index.num_boxes == 1
    assert kinds(log)[0] in [(kind, "error") for kind in ("bad-box", "outside", "no-area")]


@pytest.mark.parametrize("value", ["big", True, -5, float("nan"), [1]])
def test_areas_that_are_none_are_computed(tmp_path: Path, value: Any) -> None:
    with pytest.warns(DatasetWarning, match=r"annotation id 1, image 1\.png: area is .*; computed"):
        index = read_coco(written(tmp_path, {"area": value, "bbox": [1, 2, 10, 20]}))
    assert index.annotations(0).area.tolist() == [200]


BOX = [10, 5, 20, 20]


@pytest.mark.parametrize(
    ("polygon", "expected"),
    [
        ([10, 5, 30, 5, 30, 25], None),
        ([11, 7, 28, 5, 30, 24], None),  # rounded and simplified
        ([12, 10, 25, 10, 25, 24], "warning"),
        ([14, 5, 34, 5, 34, 25], "warning"),
        ([12, 10, 16, 10, 16, 14], "warning"),  # the visible part of a box of the whole object
        ([35, 5, 55, 5, 55, 25], "error"),
        ([0.2, 0.1, 0.5, 0.1, 0.5, 0.6], "fractions of the image instead of pixels"),
        ([5, 10, 5, 30, 25, 30], None),
    ],
)
def test_masks_against_boxes(tmp_path: Path, polygon: list[float], expected: str | None) -> None:
    file = written(tmp_path, {"bbox": BOX, "segmentation": [polygon], "area": 250}, {"bbox": BOX, "area": 400})
    if polygon == [5, 10, 5, 30, 25, 30]:
        file = written(tmp_path, {"bbox": [30, 2, 25, 10], "segmentation": [[2, 30, 2, 55, 12, 55]], "area": 200})
        expected = "x and y seem to be swapped"
    log = ProblemLog(lenient=True)
    index = read_coco(file, log=log)
    if expected is None:
        assert log.problems == []
    elif expected == "warning":
        assert kinds(log) == [("mask-off-box", "warning")]
        assert index.has_masks
    else:
        assert kinds(log) == [("bad-mask", "error")]
        assert expected == "error" or expected in log.problems[0].message
        assert not index.has_masks
        with pytest.raises(InputError, match=r"the mask spans .*, but its box .*--skip-bad-masks"):
            read_coco(file)
        read_coco(file, log=ProblemLog(skip_masks=True))


def test_a_run_length_mask_off_its_box(tmp_path: Path) -> None:
    runs = {"size": [40, 60], "counts": [5 * 40, 400, 45 * 40 + 200 - 200]}
    runs["counts"][2] = 40 * 60 - sum(runs["counts"][:2])
    with pytest.raises(InputError, match="the mask spans 5 0 15 40, but its box 40 5 60 25"):
        read_coco(written(tmp_path, {"bbox": [40, 5, 20, 20], "segmentation": runs}))


@pytest.mark.parametrize("box", [None, [], [0, 0, 0, 0], [0.0, 0, "0", 0]])
def test_a_mask_without_a_box(tmp_path: Path, box: Any) -> None:
    file = written(tmp_path, {"bbox": box, "segmentation": [[10, 5, 30, 5, 30, 25]]})
    with pytest.warns(DatasetWarning, match="1 objects with a mask have no bbox and get the box around the mask"):
        index = read_coco(file)
    assert index.annotations(0).boxes.tolist() == [[10, 5, 30, 25]]


@pytest.mark.parametrize(
    ("polygon", "message"),
    [
        ([1, 2, 9, 2, 9, 9], "the segmentation is one list of 6 values"),
        ([[1, 2], [9, 2], [9, 9]], "the segmentation is one list of 3 points"),
        ([{"x": 1, "y": 2}] * 3, "the segmentation is one list of 3 values"),
        ([[1, 2, "a", 2, 9, 9]], r"segmentation\[0\]: a polygon has the coordinate 'a', which is no number"),
        ("1 2 9 2", "not str"),
        ({"size": [40, 60], "counts": [2400]}, "the mask is empty"),
        (5, "not int"),
    ],
)
def test_one_error_a_mask(tmp_path: Path, polygon: Any, message: str) -> None:
    file = written(tmp_path, {"segmentation": polygon})
    with pytest.raises(InputError, match=rf"annotation id 1, image 1\.png.*{message}"):
        read_coco(file)
    assert [p.kind for p in check_dataset(file).problems if p.severity == "error"] == ["bad-mask"]


def test_keypoints_are_named_once(tmp_path: Path) -> None:
    points = {"keypoints": [5, 5, 2, 0, 0, 0], "num_keypoints": 1}
    file = written(tmp_path, points, points, {"num_keypoints": 0, "keypoints": []})
    with pytest.warns(DatasetWarning, match="the keypoints of 2 objects are not read, their boxes are") as caught:
        index = read_coco(file)
    assert len(caught) == 1
    assert index.num_boxes == 3
    assert not index.has_masks


CORNERS = [[10, 5, 30, 25], [2, 3, 40, 39], [20, 10, 58, 38]]


@pytest.mark.parametrize("evidence", ["area", "mask"])
def test_corners_instead_of_sizes(tmp_path: Path, evidence: str) -> None:
    rows = []
    for x1, y1, x2, y2 in CORNERS:
        row: dict[str, Any] = {"bbox": [x1, y1, x2, y2], "area": (x2 - x1) * (y2 - y1)}
        rows.append(row | ({"segmentation": [[x1, y1, x2, y1, x2, y2, x1, y2]]} if evidence == "mask" else {}))
    file = written(tmp_path, *rows)
    with pytest.raises(InputError, match="bbox seems to be x1 y1 x2 y2: that fits the area or mask of 3 of 3 objects"):
        read_coco(file)
    errors = [p.kind for p in check_dataset(file).problems if p.severity == "error"]
    assert errors == ["corners"]


def test_corners_that_only_the_edge_tells(tmp_path: Path) -> None:
    rows = [{"bbox": box, "area": None} for box in CORNERS]
    with pytest.warns(DatasetWarning, match="bbox may be x1 y1 x2 y2 .*: 2 of 3 boxes extend over the edge"):
        read_coco(written(tmp_path, *rows))


def test_boxes_in_fractions(tmp_path: Path) -> None:
    rows = [{"bbox": [0.1, 0.2, 0.3, 0.4], "area": 0.12}, {"bbox": [0, 0, 1, 1], "area": 1}]
    with pytest.raises(InputError, match=r"all 2 boxes lie within 0\.\.1: fractions of the image"):
        read_coco(written(tmp_path, *rows))


def test_text_of_other_languages_is_no_coordinate(tmp_path: Path) -> None:
    """Python reads "1_0" as 10, which no tool writes."""
    shape = [["1_0", 8, 40, 8, 40, 32, 10, 32]]
    with pytest.raises(InputError, match="coordinate '1_0', which is no number"):
        read_coco(written(tmp_path, {"segmentation": shape}))
