"""Results files are read exactly, or refused with file and position."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from boxwright.data.formats.opening import open_dataset
from boxwright.data.formats.problems import DatasetWarning
from boxwright.evaluation import evaluate_detections, load_coco_detections
from boxwright.structures import InputError
from tests.support.dataset_files import write_coco_files
from tests.support.evaluation_helpers import as_columns, random_case, run_pycocotools, two_squares

GOOD = {"image_id": 5, "category_id": 9, "bbox": [10.0, 10.0, 40.0, 40.0], "score": 0.5}


def written(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize("masks", [False, True])
def test_a_file_scores_like_its_entries(tmp_path: Path, masks: bool) -> None:
    index, rows = random_case(2, masks=masks)
    iou_type: Any = "segm" if masks else "bbox"
    file = written(tmp_path / "found.json", rows)
    result = evaluate_detections(index, file, iou_type)
    assert list(result.stats.values())[:3] == pytest.approx(run_pycocotools(index.to_coco(), rows, iou_type).stats[:3])
    columns = load_coco_detections(file, index, iou_type)
    if not masks:
        assert columns.boxes.tolist() == [row["bbox"] for row in rows]  # no digit lost


def test_masks_alone_give_their_boxes(tmp_path: Path) -> None:
    index, rows = random_case(4, masks=True)
    result = evaluate_detections(index, written(tmp_path / "found.json", rows), "bbox")
    assert result.stats["AP"] == pytest.approx(run_pycocotools(index.to_coco(), rows, "bbox").stats[0], abs=1e-9)


def test_a_dict_with_annotations_is_taken(tmp_path: Path) -> None:
    file = written(tmp_path / "found.json", {"images": [], "annotations": [GOOD]})
    assert evaluate_detections(two_squares(), file).stats["AP50"] == pytest.approx(0.5)


def test_ids_may_be_text(tmp_path: Path) -> None:
    rows = [{**GOOD, "image_id": "5", "category_id": str(GOOD["category_id"])}]
    columns = load_coco_detections(written(tmp_path / "found.json", rows), two_squares())
    assert columns.image_ids.tolist() == [5]


@pytest.mark.parametrize(("file", "beside"), [("detections.json", "images.json"), ("a.json", "a.images.json")])
def test_results_of_other_images_under_the_same_ids_are_refused(tmp_path: Path, file: str, beside: str) -> None:
    """`boxwright detect` counts the images that it is given, also those of other folders."""
    index = open_dataset(write_coco_files(tmp_path / "data"))
    path = written(tmp_path / file, [{"image_id": 2, "category_id": 7, "bbox": [1, 2, 3, 4], "score": 0.5}])
    images = [{"id": 2, "file_name": "2-2.png", "path": "/data/2.png"}, {"id": 99, "file_name": "other.png"}]
    written(tmp_path / beside, {"images": images, "categories": []})
    assert len(load_coco_detections(path, index)) == 1
    images[0]["path"] = "/data/other.png"
    written(tmp_path / beside, {"images": images, "categories": []})
    words = rf"{file}: its image id 2 is other\.png \({beside}\), that of the data set is 2\.png; .*--save"
    with pytest.raises(InputError, match=words):
        load_coco_detections(path, index)


def test_tuples_and_columns_are_taken() -> None:
    index = two_squares()
    by_tuple = evaluate_detections(index, [(5, [[10, 10, 50, 50]], [0.5], [0])])
    by_columns = evaluate_detections(index, as_columns(index, [GOOD]))
    assert by_tuple.stats == by_columns.stats


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"image_id": 5,\n "score": ', r"found.json, line 2, column \d+: not valid JSON.*truncated"),
        ({"results": []}, "found.json: not a list of detections"),
        ([GOOD, 7], "entry 1 is int, not an object"),
        ([GOOD, {**GOOD, "image_id": 6}], "entry 1 is of image id 6, which is not in the data set"),
        ([{**GOOD, "image_id": [5]}], r"entry 0 has image_id \[5\]; it must be a number"),
        ([{**GOOD, "image_id": True}], "entry 0 has image_id true; it must be a number"),
        ([{**GOOD, "image_id": "5a"}], 'entry 0 has image_id "5a"; it must be a number'),
        ([{**GOOD, "image_id": 10**400}], "entry 0 is of image id 1000000.*, which is not in the data set"),
        ([{**GOOD, "bbox": [1, 2, 3, 10**400]}], "entry 0 has bbox .*four finite numbers"),
        ("[" * 100_000, "found.json: the JSON is nested too deeply"),
        ("[1" + "0" * 5000 + "]", "found.json, line 1: a number of more than 4300 digits"),
        ([{**GOOD, "category_id": 1}], "entry 0 has category id 1; the data set has 4, 9"),
        ([{**GOOD, "score": "high"}], 'entry 0 has score "high"'),
        ('[{"image_id": 5, "category_id": 9, "bbox": [0, 0, 1, 1], "score": NaN}]', "entry 0 has score NaN"),
        ([{**GOOD, "bbox": [1, 2, 3]}], "entry 0 has bbox .*four finite numbers"),
        ([{**GOOD, "bbox": [1, 2, -3, 4]}], "entry 0 has bbox .*negative width"),
        ([{k: v for k, v in GOOD.items() if k != "score"}], "entry 0 has no score"),
        ([{**GOOD, "image_id": 2**70}], "entry 0 is of image id 1180591620717411303424"),
        ([{**GOOD, "category_id": 1e300}], r"entry 0 has category id 1e\+300"),
        ([{**GOOD, "category_id": "cat"}], 'entry 0 has category_id "cat"; it must be'),
        ([{**GOOD, "score": 10**400}], "entry 0 has score 1000000.*; it must be a finite"),
        ([{**GOOD, "bbox": [1, 2, "x", 4]}], r'entry 0 has bbox \[1, 2, "x", 4\]'),
        ([{**GOOD, "bbox": [1, 2, True, 4]}], "entry 0 has bbox"),
        ([{**GOOD, "bbox": 7}], "entry 0 has bbox 7"),
        ([{**GOOD, "bbox": None, "segmentation": {"size": [3, 4], "counts": [12]}}], "entry 0 has a mask .*size"),
        (
            [{**GOOD, "bbox": [], "segmentation": {"size": [120, 120], "counts": [0, 10**9]}}],
            "covers 1000000000 pixels",
        ),
        ([{**GOOD, "bbox": [], "segmentation": {"size": [120, 120], "counts": "\u00ff"}}], "is invalid"),
        (
            {"images": [], "annotations": [{k: v for k, v in GOOD.items() if k != "score"}]},
            "an annotation file, not det",
        ),
        ('[{"image_id": 5, "image_id": 5}]', 'the key "image_id" stands twice'),
        ([{k: v for k, v in GOOD.items() if k != "bbox"}], "entry 0 has neither bbox nor a run-length mask"),
    ],
)
def test_bad_files_are_refused_with_the_place(tmp_path: Path, content: Any, message: str) -> None:
    file = written(tmp_path / "found.json", content)
    with pytest.raises(InputError, match=message):
        load_coco_detections(file, two_squares())


def test_files_that_are_no_results(tmp_path: Path) -> None:
    index: Any = two_squares()
    with pytest.raises(InputError, match=r"missing\.json: there is no such file"):
        load_coco_detections(tmp_path / "missing.json", index)
    (tmp_path / "photo.json").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(InputError, match=r"photo\.json, line 1: byte 0 is not UTF-8"):
        load_coco_detections(tmp_path / "photo.json", index)
    with pytest.raises(InputError, match="this is a folder, not a file"):
        load_coco_detections(tmp_path, index)
    with pytest.raises(InputError, match="entry 0 has no run-length mask"):
        load_coco_detections(written(tmp_path / "boxes.json", [GOOD]), index, "segm")


def test_numbers_as_text(tmp_path: Path) -> None:
    row = {"image_id": "5", "category_id": "9.0", "bbox": ["10", "1e1", 40, "40.0"], "score": " 0.5 "}
    found = load_coco_detections(written(tmp_path / "found.json", [row]), two_squares())
    assert (found.image_ids.tolist(), found.labels.tolist(), found.scores.tolist()) == ([5], [0], [0.5])
    assert found.boxes.tolist() == [[10, 10, 40, 40]]


def test_repeated_entries_and_empty_files_are_said(tmp_path: Path) -> None:
    other = {**GOOD, "score": 0.4}
    with pytest.warns(DatasetWarning, match=r"found\.json: 2 of 4 detections repeat others exactly"):
        load_coco_detections(written(tmp_path / "found.json", [GOOD, other, GOOD, GOOD]), two_squares())
    with pytest.warns(DatasetWarning, match=r"found\.json: holds no detections"):
        assert len(load_coco_detections(written(tmp_path / "found.json", []), two_squares())) == 0


def test_a_file_in_utf16_with_scores_above_1(tmp_path: Path) -> None:
    (tmp_path / "found.json").write_text(json.dumps([{**GOOD, "score": 87.5}]), encoding="utf-16")
    assert load_coco_detections(tmp_path / "found.json", two_squares()).scores.tolist() == [87.5]
