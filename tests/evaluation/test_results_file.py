"""Results files are read exactly, or refused with file and position."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from boxwright.evaluation import evaluate_detections, load_coco_detections
from boxwright.structures import InputError
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


def test_tuples_and_columns_are_taken() -> None:
    index = two_squares()
    by_tuple = evaluate_detections(index, [(5, [[10, 10, 50, 50]], [0.5], [0])])
    by_columns = evaluate_detections(index, as_columns(index, [GOOD]))
    assert by_tuple.stats == by_columns.stats


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"image_id": 5,\n "score": ', r"found.json, line 2, column \d+: not JSON.*truncated"),
        ({"results": []}, "found.json: not a list of detections"),
        ([GOOD, 7], "entry 1 is int, not an object"),
        ([GOOD, {**GOOD, "image_id": 6}], "entry 1 is of image id 6, which is not in the data set"),
        ([{**GOOD, "image_id": [5]}], "entry 0 cannot be read"),
        ([{**GOOD, "category_id": 1}], "entry 0 has category id 1; the data set has 4, 9"),
        ([{**GOOD, "score": "0.5"}], "entry 0 has score '0.5'"),
        ('[{"image_id": 5, "category_id": 9, "bbox": [0, 0, 1, 1], "score": NaN}]', "entry 0 has score nan"),
        ([{**GOOD, "bbox": [1, 2, 3]}], "entry 0 has bbox .*four finite numbers"),
        ([{**GOOD, "bbox": [1, 2, -3, 4]}], "entry 0 has bbox .*negative width"),
        ([{k: v for k, v in GOOD.items() if k != "score"}], "entry 0 has no score"),
        ([{k: v for k, v in GOOD.items() if k != "bbox"}], "entry 0 has neither bbox nor a run-length mask"),
    ],
)
def test_bad_files_are_refused_with_the_place(tmp_path: Path, content: Any, message: str) -> None:
    file = written(tmp_path / "found.json", content)
    with pytest.raises(InputError, match=message):
        load_coco_detections(file, two_squares())


def test_files_that_are_no_results(tmp_path: Path) -> None:
    index: Any = two_squares()
    with pytest.raises(InputError, match=r"missing\.json: no such file"):
        load_coco_detections(tmp_path / "missing.json", index)
    (tmp_path / "photo.json").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(InputError, match=r"photo\.json: not"):
        load_coco_detections(tmp_path / "photo.json", index)
    with pytest.raises(InputError, match="cannot be read"):
        load_coco_detections(tmp_path, index)
    with pytest.raises(InputError, match="entry 0 has no run-length mask"):
        load_coco_detections(written(tmp_path / "boxes.json", [GOOD]), index, "segm")
