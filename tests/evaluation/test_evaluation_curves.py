"""Confusion, threshold curves and advice on cases that can be counted by hand, and their plots."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from boxwright.evaluation import (
    DetectionColumns,
    VocEvaluation,
    confusion_matrix,
    evaluate_detections,
    threshold_curves,
)
from boxwright.evaluation.matching import box_overlaps, match_greedily
from boxwright.evaluation.plots import plot_confusion, plot_precision_recall, plot_thresholds
from boxwright.structures import InputError
from tests.support.evaluation_helpers import FakeIndex, as_columns, random_case, two_squares

CAT, SMALL_DOG, BIG_DOG = [10, 10, 40, 40], [60, 60, 20, 20], [0, 0, 100, 100]
FAR = [100, 100, 10, 10]


def columns(*rows: tuple[int, list[float], float, int]) -> DetectionColumns:
    """Build columns from rows of image id, x y w h, score, label."""
    images, boxes, scores, labels = zip(*rows, strict=True)
    box_array = np.array(boxes, dtype=np.float64)
    return DetectionColumns(np.array(images), box_array, np.array(scores, dtype=np.float64), np.array(labels))


def with_flag(index: FakeIndex, annotation: int, flag: str) -> FakeIndex:
    index.dataset["annotations"][annotation][flag] = 1
    return index


@pytest.mark.parametrize(
    ("rows", "expected", "why"),
    [
        ([], [[0, 0, 1], [0, 0, 2], [0, 0, 0]], "all missed"),
        ([(5, CAT, 0.9, 0), (3, BIG_DOG, 0.9, 1)], [[1, 0, 0], [0, 1, 1], [0, 0, 0]], "two right, a dog missed"),
        ([(5, CAT, 0.9, 1)], [[0, 1, 0], [0, 0, 2], [0, 0, 0]], "a cat taken for a dog"),
        ([(5, CAT, 0.9, 1), (5, CAT, 0.8, 0)], [[0, 1, 0], [0, 0, 2], [1, 0, 0]], "the better score takes the object"),
        ([(5, FAR, 0.9, 1)], [[0, 0, 1], [0, 0, 2], [0, 1, 0]], "a dog seen in the background"),
        ([(5, CAT, 0.2, 0)], [[0, 0, 1], [0, 0, 2], [0, 0, 0]], "below the score"),
        ([(5, CAT, 0.25, 0)], [[1, 0, 0], [0, 0, 2], [0, 0, 0]], "exactly at the score"),
    ],
)
def test_confusion_matrix(rows: list, expected: list[list[int]], why: str) -> None:
    index = two_squares()
    found = columns(*rows) if rows else as_columns(index, [])
    assert confusion_matrix(index, found).counts.tolist() == expected, why


@pytest.mark.parametrize("flag", ["iscrowd", "difficult"])
def test_ignored_objects_are_neither_found_nor_missed(flag: str) -> None:
    index = with_flag(two_squares(), 0, flag)
    for found in (columns((5, CAT, 0.9, 0)), columns((5, FAR, 0.1, 0))):
        matrix = confusion_matrix(index, found)
        assert matrix.counts.tolist() == [[0, 0, 0], [0, 0, 2], [0, 0, 0]]
    curves = threshold_curves(index, columns((5, CAT, 0.9, 0)))
    assert curves.per_class[0].objects == 0
    assert len(curves.overall.scores) == 0


def test_a_crowd_takes_many_detections_and_a_difficult_object_one() -> None:
    doubles = columns((5, CAT, 0.9, 0), (5, CAT, 0.8, 0))
    for flag, false in (("iscrowd", 0), ("difficult", 1)):
        matrix = confusion_matrix(with_flag(two_squares(), 0, flag), doubles)
        assert matrix.counts[2, 0] == false


def test_overlap_with_a_crowd_is_the_share_of_the_detection() -> None:
    found, truth = np.array([[0.0, 0, 10, 10]]), np.array([[5.0, 0, 100, 10]])
    assert box_overlaps(found, truth)[0, 0] == pytest.approx(50 / 1000)
    assert box_overlaps(found, truth, np.array([True]))[0, 0] == pytest.approx(0.5)
    assert box_overlaps(np.zeros((1, 4)), np.zeros((1, 4)))[0, 0] == 0  # no area, no NaN


def test_greedy_match_prefers_counted_objects_and_of_equal_ones_the_later() -> None:
    no = np.zeros(3, dtype=bool)
    assert match_greedily(np.array([[0.7, 0.7, 0.2]]), 0.5, no, no).tolist() == [1]
    ignored = np.array([False, True, False])
    assert match_greedily(np.array([[0.6, 0.9, 0.2], [0.0, 0.9, 0.0]]), 0.5, ignored, no).tolist() == [0, 1]
    assert match_greedily(np.array([[0.5, 0.0, 0.0]]), 0.5, no, no).tolist() == [0]


def test_threshold_curve_of_one_class() -> None:
    """Dogs: true 0.9, false 0.8, true 0.6; two objects."""
    found = columns((3, BIG_DOG, 0.9, 1), (5, FAR, 0.8, 1), (5, SMALL_DOG, 0.6, 1))
    dog = threshold_curves(two_squares(), found).per_class[1]
    precision, recall, f1 = dog.at(np.array([0.95, 0.9, 0.85, 0.8, 0.6, 0.0]))
    assert math.isnan(precision[0])
    assert precision[1:].tolist() == pytest.approx([1, 1, 0.5, 2 / 3, 2 / 3])
    assert recall.tolist() == pytest.approx([0, 0.5, 0.5, 0.5, 1, 1])
    assert f1.tolist() == pytest.approx([0, 2 / 3, 2 / 3, 0.5, 0.8, 0.8])
    best, precise, modest = dog.best_f1(), dog.precise(0.9), dog.precise(0.6)
    assert best is not None
    assert precise is not None
    assert modest is not None
    assert (best.threshold, best.f1) == pytest.approx((0.6, 0.8))
    assert (precise.threshold, precise.precision, precise.recall) == pytest.approx((0.85, 1, 0.5))
    assert modest.recall == 1
    cat = threshold_curves(two_squares(), found).per_class[0]
    assert cat.best_f1() is None
    assert cat.precise() is None


def test_equal_scores_cannot_be_separated() -> None:
    """A true and a false positive have the same score, so no threshold gives precision 1."""
    dog = threshold_curves(two_squares(), columns((3, BIG_DOG, 0.7, 1), (5, FAR, 0.7, 1))).per_class[1]
    assert dog.precise(0.9) is None
    best = dog.best_f1()
    assert best is not None
    assert (best.threshold, best.precision) == pytest.approx((0.7, 0.5))


@pytest.mark.parametrize("seed", range(6))
def test_advice_holds_when_it_is_followed(seed: int) -> None:
    """Dropping detections below the recommended threshold gives the stated precision and recall."""
    index, rows = random_case(seed)
    found = as_columns(index, rows)
    advice = threshold_curves(index, found, iou=0.3).overall.best_f1()
    assert advice is not None
    kept = as_columns(index, [row for row in rows if row["score"] >= advice.threshold])
    overall = threshold_curves(index, kept, iou=0.3).overall
    assert overall.hits[-1] / len(overall.scores) == pytest.approx(advice.precision)
    assert overall.hits[-1] / overall.objects == pytest.approx(advice.recall)


def test_curves_without_rivals_agree_with_voc() -> None:
    """For objects that do not overlap, the matching of COCO and VOC is the same, and so are precision and recall."""
    rng = np.random.default_rng(0)
    boxes = [[50.0 * n, 0.0, 40.0, 40.0] for n in range(20)]
    annotations = [
        {"id": n + 1, "image_id": 1, "category_id": 1, "bbox": box, "area": 1600.0, "iscrowd": 0}
        for n, box in enumerate(boxes)
    ]
    images, categories = [{"id": 1, "height": 50, "width": 1000}], [{"id": 1, "name": "thing"}]
    index = FakeIndex({"images": images, "annotations": annotations, "categories": categories})
    rows = [(1, [box[0] + rng.uniform(0, 20), *box[1:]], float(rng.random()), 0) for box in boxes * 2]
    found = columns(*rows)
    curve = threshold_curves(index, found).per_class[0]
    voc = VocEvaluation(index)
    voc.extend(found)
    row = voc.compute().per_class[0]
    assert 0 < curve.hits[-1] <= 20
    np.testing.assert_allclose(curve.hits / 20, row.recall)
    np.testing.assert_array_equal(curve.scores, row.scores)


def many_classes(count: int) -> tuple[FakeIndex, DetectionColumns]:
    rng = np.random.default_rng(1)
    categories = [{"id": k + 1, "name": f"a rather long class name, number {k}, costs $5"} for k in range(count)]
    annotations, rows = [], []
    for n in range(3 * count):
        box = [float(v) for v in (*rng.uniform(0, 300, 2), *rng.uniform(10, 120, 2))]
        label = n % count
        place = {"id": n + 1, "image_id": n % 5, "category_id": label + 1}
        annotations.append({**place, "bbox": box, "area": box[2] * box[3], "iscrowd": 0})
        rows.append((n % 5, [*(np.array(box) * rng.uniform(0.9, 1.1, 4))], float(rng.random()), label))
    images = [{"id": i, "height": 450, "width": 450} for i in range(5)]
    return FakeIndex({"images": images, "annotations": annotations, "categories": categories}), columns(*rows)


@pytest.mark.parametrize("count", [1, 3, 25])
def test_plots_are_written_whole(tmp_path: Path, count: int) -> None:
    index, found = many_classes(count)
    result = evaluate_detections(index, found)
    curves, matrix = threshold_curves(index, found), confusion_matrix(index, found)
    for path in (
        plot_precision_recall(result, tmp_path / "pr.png"),
        plot_thresholds(curves, tmp_path / "scores.png"),
        plot_confusion(matrix, tmp_path / "confusion.png"),
    ):
        pixels = np.asarray(Image.open(path).convert("L"))
        assert min(pixels.shape) > 300
        assert 0.001 < (pixels < 128).mean() < 0.6
    assert sorted(p.name for p in tmp_path.iterdir()) == ["confusion.png", "pr.png", "scores.png"]
    json.dumps([curves.to_dict(), matrix.to_dict()], allow_nan=False)


def test_plots_of_nothing_do_not_fail(tmp_path: Path) -> None:
    index = two_squares()
    nothing = as_columns(index, [])
    assert plot_precision_recall(evaluate_detections(index, nothing), tmp_path / "pr.png").exists()
    assert plot_thresholds(threshold_curves(index, nothing), tmp_path / "scores.png").exists()
    assert plot_confusion(confusion_matrix(index, nothing), tmp_path / "confusion.png").exists()
    empty = FakeIndex({**index.dataset, "annotations": []})
    assert plot_precision_recall(evaluate_detections(empty, nothing), tmp_path / "none.png").exists()


def test_a_plot_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    matrix = confusion_matrix(two_squares(), as_columns(two_squares(), []))
    (tmp_path / "taken").mkdir()
    with pytest.raises(InputError, match="taken: cannot be written"):
        plot_confusion(matrix, tmp_path / "taken")
    assert [p.name for p in tmp_path.iterdir()] == ["taken"]
