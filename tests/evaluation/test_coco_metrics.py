"""COCO metrics compared with pycocotools, on constructed cases, random ones and real data."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from boxwright.evaluation import CocoEvaluation, CocoResult
from boxwright.structures import InputError
from tests.support.evaluation_helpers import (
    FakeIndex,
    as_columns,
    diamond,
    random_case,
    rle_of,
    run_pycocotools,
    two_squares,
)

NAMES = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]


def score(index: FakeIndex, detections: list[dict[str, Any]], iou_type: Any = "bbox") -> CocoResult:
    evaluation = CocoEvaluation(index, iou_type)
    evaluation.extend(as_columns(index, detections))
    return evaluation.compute()


def assert_equals_pycocotools(index: FakeIndex, detections: list[dict[str, Any]], iou_type: str = "bbox") -> CocoResult:
    """Compare all values of the result to 1e-9, including the arrays and the pooled recall."""
    result = score(index, detections, iou_type)
    truth = index.to_coco()
    if any(annotation["id"] == 0 for annotation in truth["annotations"]):  # pycocotools loses matches to id 0
        truth = {**truth, "annotations": [{**a, "id": a["id"] + 1} for a in truth["annotations"]]}
    oracle = run_pycocotools(truth, detections, iou_type)
    assert list(result.stats) == NAMES
    np.testing.assert_allclose(np.nan_to_num(list(result.stats.values()), nan=-1), oracle.stats, rtol=0, atol=1e-9)
    order = np.argsort(np.argsort(index.classes.ids))  # pycocotools sorts classes by id
    for ours, theirs in (
        (result.precision, oracle.precision[..., -1][:, :, order]),
        (result.recall, oracle.recall[:, order]),
    ):
        np.testing.assert_allclose(np.nan_to_num(ours, nan=-1), theirs, rtol=0, atol=1e-9)
    defined = ~np.isnan(result.precision)
    np.testing.assert_array_equal(result.scores[defined], oracle.scores[..., -1][:, :, order][defined])
    pooled = run_pycocotools(truth, detections, iou_type, use_categories=False)
    agnostic = pooled.recall[:, 0, :, -1].T
    np.testing.assert_allclose(np.nan_to_num(result.by_iou.ar_agnostic, nan=-1), agnostic, rtol=0, atol=1e-9)
    return result


@pytest.mark.parametrize("seed", range(12))
def test_boxes_equal_pycocotools(seed: int) -> None:
    assert_equals_pycocotools(*random_case(seed))


@pytest.mark.parametrize("seed", range(8))
def test_masks_equal_pycocotools(seed: int) -> None:
    index, detections = random_case(seed, masks=True)
    assert_equals_pycocotools(index, detections, "segm")


def test_the_size_of_a_mask_is_its_area_not_that_of_its_box() -> None:
    """A diamond in a box of 40x40 has 800 pixels and is small, although its box of 1600 is medium."""
    box = [10.0, 10.0, 40.0, 40.0]
    truth = {
        "images": [{"id": 1, "height": 80, "width": 80}],
        "categories": [{"id": 1, "name": "thing"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": box, "area": 800.0, "iscrowd": 0}
            | {"segmentation": [diamond(box)]}
        ],
    }
    evaluation = CocoEvaluation(FakeIndex(truth), "segm")
    elsewhere = rle_of([diamond([30.0, 30.0, 40.0, 40.0])], 80, 80)
    masks = [rle_of([diamond(box)], 80, 80), elsewhere]
    evaluation.update(1, [[10, 10, 50, 50], [30, 30, 70, 70]], [0.5, 0.9], [0, 0], masks)
    stats = evaluation.compute().stats
    # The wrong mask scores higher and is small too, so it lowers the precision of "small"; by box area it would not.
    assert stats["APs"] == pytest.approx(0.5)
    assert math.isnan(stats["APm"])


def test_twelve_numbers_of_the_padilla_sample(shared_data: Path) -> None:
    folder = shared_data / "metric_oracles" / "padilla_tests" / "test_coco_eval"
    truth = json.loads((folder / "gts" / "sampled_gts_bbox_area.json").read_text())
    found = json.loads((folder / "dets" / "sampled_bbox_results.json").read_text())["annotations"]
    found = [{k: d[k] for k in ("image_id", "category_id", "bbox", "score")} for d in found]
    result = assert_equals_pycocotools(FakeIndex(truth), found)
    expected = [0.503647, 0.696973, 0.571667, 0.593252, 0.557991, 0.489363]
    expected += [0.386813, 0.593680, 0.595353, 0.654764, 0.603130, 0.553744]
    assert list(result.stats.values()) == pytest.approx(expected, abs=5e-7)
    assert (result.images, result.detections) == (100, 734)


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_real_objects_with_crowds(shared_data: Path, iou_type: str) -> None:
    """Use perturbed ground truth of coco_mini val as detections."""
    truth = json.loads((shared_data / "coco_mini" / "instances_val.json").read_text())
    assert any(a["iscrowd"] for a in truth["annotations"])
    sizes = {i["id"]: (i["height"], i["width"]) for i in truth["images"]}
    rng = np.random.default_rng(0)
    detections = []
    for annotation in truth["annotations"]:
        image_id, category = annotation["image_id"], annotation["category_id"]
        for _ in range(rng.integers(0, 3)):
            entry = {"image_id": image_id, "category_id": category, "score": round(float(rng.random()), 2)}
            box = np.array(annotation["bbox"])
            box = box + rng.normal(0, 0.1, 4) * np.tile(box[2:], 2)
            box[2:] = np.maximum(box[2:], 1)
            if iou_type == "bbox":
                entry["bbox"] = box.tolist()
            else:
                entry["segmentation"] = rle_of([diamond(box.tolist())], *sizes[image_id])
            detections.append(entry)
    result = assert_equals_pycocotools(FakeIndex(truth), detections, iou_type)
    assert 0.02 < result.stats["AP"] < 0.9


def test_a_match_to_annotation_id_0_counts() -> None:
    """pycocotools would treat it as no match; ids here are 0, 1 and 2."""
    index = two_squares()
    evaluation = CocoEvaluation(index)
    evaluation.update(5, [[10, 10, 50, 50], [60, 60, 80, 80]], [0.9, 0.8], [0, 1])
    evaluation.update(3, [[0, 0, 100, 100]], [0.7], [1])
    result = evaluation.compute()
    assert result.stats["AP"] == pytest.approx(1.0)
    assert result.stats["AR1"] == pytest.approx(1.0)


def test_per_class_rows_and_tables_by_overlap_and_area() -> None:
    """The cat of 40x40 is found with IoU 30/40 = 0.75; of the dogs only the small one is."""
    evaluation = CocoEvaluation(two_squares())
    evaluation.update(5, torch.tensor([[10, 10, 50, 40], [60, 60, 80, 80]]), torch.tensor([0.9, 0.8]), [0, 1])
    result = evaluation.compute()
    cat, dog = result.per_class
    assert (cat.name, cat.objects, dog.name, dog.objects) == ("cat", 1, "dog", 2)
    assert pytest.approx(0.6) == cat.AP  # .50 .55 .60 .65 .70 .75 of ten
    assert (cat.AP50, cat.AP75, cat.APm) == pytest.approx((1, 1, 0.6))
    assert math.isnan(cat.APs)
    assert pytest.approx(51 / 101) == dog.AP50  # precision 1 up to recall 0.5
    assert (dog.APs, dog.APl, dog.AR) == pytest.approx((1, 0, 0.5))
    row = result.by_iou.row("AR")
    assert list(row)[:3] == ["AR", "AR50", "AR55"]
    assert (row["AR50"], row["AR80"]) == pytest.approx((0.75, 0.25))  # mean of cat and dog
    assert result.by_iou.row("AR_agnostic")["AR50"] == pytest.approx(2 / 3)  # two of three objects
    assert result.by_iou.row("AP", "medium")["AP75"] == pytest.approx(1)
    assert result.by_iou.row("AP", "medium")["AP80"] == pytest.approx(0)
    assert row["AR"] == pytest.approx(result.stats["AR100"])


def test_classes_without_objects_are_left_out_of_means() -> None:
    index = two_squares()
    index.dataset["categories"].append({"id": 1, "name": "unicorn"})
    index.__post_init__()
    result = score(index, [{"image_id": 5, "category_id": 9, "bbox": [10, 10, 40, 40], "score": 0.5}])
    assert math.isnan(result.per_class[2].AP)
    assert result.stats["AP50"] == pytest.approx(0.5)  # cat 1, dog 0, unicorn not counted


def test_no_detections_and_no_objects() -> None:
    stats = score(two_squares(), []).stats
    assert stats["AP"] == 0.0
    assert stats["AR100"] == 0.0
    empty = FakeIndex({**two_squares().dataset, "annotations": []})
    for detections in ([], [{"image_id": 5, "category_id": 9, "bbox": [0, 0, 9, 9], "score": 0.5}]):
        result = score(empty, detections)
        assert all(math.isnan(value) for value in result.stats.values())
        assert set(result.to_dict()["stats"].values()) == {None}


def test_scores_below_zero_are_scores() -> None:
    """A score may be a logit."""
    result = score(two_squares(), [{"image_id": 5, "category_id": 9, "bbox": [10, 10, 40, 40], "score": -3.5}])
    assert result.scores[0, 0, 0, 0] == -3.5


def test_other_limits_are_named_as_they_are() -> None:
    evaluation = CocoEvaluation(two_squares(), max_detections=(1, 2, 300))
    assert list(evaluation.compute().stats)[6:9] == ["AR1", "AR2", "AR300"]


def test_result_as_json_and_as_table() -> None:
    from rich.console import Console

    result = score(two_squares(), [{"image_id": 5, "category_id": 9, "bbox": [10, 10, 40, 40], "score": 0.5}])
    told = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert told["stats"]["AP50"] == pytest.approx(0.5)
    assert told["per_class"][0]["APs"] is None
    assert told["by_iou"]["AR"]["small"]["AR95"] == 0.0
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(result.table())
    text = console.export_text()
    assert "AR, classes pooled" in text
    assert "2 images, 1 detections" in text


def test_parts_of_two_processes_give_the_whole() -> None:
    index, detections = random_case(3)
    whole = score(index, detections)
    ids = sorted(index.image_id(i) for i in range(len(index)))
    joined = CocoEvaluation(index)
    for part in (ids[1::2], ids[::2]):
        worker = CocoEvaluation(index)
        mine = [d for d in detections if d["image_id"] in part]
        worker.extend(as_columns(index, mine), part)
        joined.extend(worker.detections(), worker.seen)
    assert joined.seen == ids
    assert joined.compute().stats == whole.stats


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((77, [[0, 0, 1, 1]], [0.5], [0]), "image id 77.*no such image"),
        ((5, [[0, 0, 1, 1]], [0.5, 0.4], [0]), "1 boxes, 2 scores, 1 labels"),
        ((5, [[0, 0, 1, float("nan")]], [0.5], [0]), "image id 5.*not finite"),
        ((5, [[0, 0, 1, 1]], [float("inf")], [0]), "image id 5.*not finite"),
        ((5, [[0, 0, 1, 1]], [0.5], [2]), "image id 5.*label 2 is outside 0..1"),
        ((5, [[9, 0, 1, 1]], [0.5], [0]), "image id 5.*box 0.*negative width"),
        ((3, [], [], []), "image id 3 were added twice"),
    ],
)
def test_bad_detections_are_refused(arguments: tuple[Any, ...], message: str) -> None:
    evaluation = CocoEvaluation(two_squares())
    evaluation.update(3, np.zeros((0, 4)), [], [])
    with pytest.raises(InputError, match=message):
        evaluation.update(*arguments)


def test_bad_masks_and_limits_are_refused() -> None:
    index, _ = random_case(1, masks=True)
    image_id = index.image_id(0)
    evaluation = CocoEvaluation(index, "segm")
    with pytest.raises(InputError, match="0 masks"):
        evaluation.update(image_id, [[0, 0, 9, 9]], [0.5], [0])
    with pytest.raises(InputError, match=r"mask of size \[9, 9\]"):
        evaluation.update(image_id, [[0, 0, 9, 9]], [0.5], [0], [rle_of([diamond([0, 0, 9, 9])], 9, 9)])
    with pytest.raises(InputError, match="a mask is ndarray; give run-length masks"):
        evaluation.update(image_id, [[0, 0, 9, 9]], [0.5], [0], [np.zeros((9, 9), dtype=bool)])
    evaluation.update(image_id, [[0, 0, 9, 9]], [0.5], [0], [{"size": list(index.size(0)), "counts": [10**9]}])
    with pytest.raises(InputError, match=r"detections: invalid RLE.*; give run-length masks"):
        evaluation.compute()
    with pytest.raises(InputError, match="annotation id 0 has no mask"):
        CocoEvaluation(two_squares(), "segm")
    with pytest.raises(InputError, match="ascending"):
        CocoEvaluation(index, max_detections=(10, 1, 100))
