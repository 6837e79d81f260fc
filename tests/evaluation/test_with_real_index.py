"""Evaluation on a DetectionIndex, from memory and from files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from boxwright.data.formats.opening import open_splits
from boxwright.data.index import DetectionIndex, ImageRecord
from boxwright.evaluation import (
    CocoEvaluation,
    DetectionColumns,
    VocEvaluation,
    confusion_matrix,
    evaluate_detections,
    threshold_curves,
)
from tests.support.evaluation_helpers import as_columns, random_case, run_pycocotools


@pytest.mark.parametrize("masks", [False, True])
def test_an_index_built_in_memory_scores_like_its_dict(masks: bool) -> None:
    fake, rows = random_case(6, masks=masks)
    records = []
    for image in fake.dataset["images"]:
        mine = [a for a in fake.dataset["annotations"] if a["image_id"] == image["id"]]
        record = ImageRecord(
            path=Path(f"{image['id']}.jpg"),
            image_id=image["id"],
            height=image["height"],
            width=image["width"],
            boxes=[a["bbox"] for a in mine],
            labels=[fake.classes.ids.index(a["category_id"]) for a in mine],
            crowd=[bool(a["iscrowd"]) for a in mine],
            areas=[a["area"] for a in mine],
            segmentations=[a["segmentation"] for a in mine] if masks else None,
            box_format="xywh",
        )
        records.append(record)
    index = DetectionIndex.build(fake.classes, records)
    iou_type = "segm" if masks else "bbox"
    result = evaluate_detections(index, as_columns(fake, rows), iou_type)
    expected = run_pycocotools(fake.to_coco(), rows, iou_type).stats
    np.testing.assert_allclose(np.nan_to_num(list(result.stats.values()), nan=-1), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("name", "split", "iou_type"), [("nwpu_vhr10", "train", "segm"), ("coco_mini", "val", "bbox")])
def test_the_truth_as_detections_is_perfect(shared_data: Path, name: str, split: str, iou_type: str) -> None:
    """AP is 1 and there is no confusion, also with image id 0, sparse categories and crowds."""
    whole = open_splits(shared_data / name)[split]
    index = whole.subset(np.argsort(whole.image_ids)[:40])  # with image id 0 if there is one
    assert name != "nwpu_vhr10" or 0 in index.image_ids
    evaluation = CocoEvaluation(index, iou_type)
    truth = index.to_coco()
    rows = [a | {"score": 0.9} for a in truth["annotations"] if not a["iscrowd"]]
    label = {category: k for k, category in enumerate(index.classes.ids)}
    if iou_type == "segm":  # results have run-length masks
        from boxwright.data.masks import masks as mask_tools

        sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
        rows = [
            r | {"segmentation": mask_tools.encode(mask_tools.rasterise(r["segmentation"], *sizes[r["image_id"]]))}
            for r in rows
        ]
    columns = DetectionColumns(
        np.array([r["image_id"] for r in rows]),
        np.array([r["bbox"] for r in rows], dtype=np.float64),
        np.array([r["score"] for r in rows]),
        np.array([label[r["category_id"]] for r in rows]),
        [r["segmentation"] for r in rows] if iou_type == "segm" else None,
    )
    evaluation.extend(columns)
    result = evaluation.compute()
    assert result.stats["AP50"] == pytest.approx(1.0, abs=1e-3)
    assert result.stats["AR100"] == pytest.approx(1.0, abs=1e-3)
    assert sum(row.objects for row in result.per_class) == len(rows)
    matrix = confusion_matrix(index, columns).counts
    assert matrix.trace() >= 0.99 * len(rows)  # two objects of different classes may share one box
    curves = threshold_curves(index, columns)
    assert curves.overall.objects == len(rows)
    assert curves.overall.hits[-1] >= 0.99 * len(rows)
    voc = VocEvaluation(index)
    voc.extend(columns)
    assert voc.compute().mean_ap > 0.99
