"""Anchors by k-means: known clusters, the ranking of the paper's methods, and bad input."""

from pathlib import Path

import numpy as np
import pytest
import torch

from boxwright.anchors import kmeans
from boxwright.anchors.kmeans import kmeans_anchors, shape_iou
from boxwright.data import open_dataset
from boxwright.structures import InputError

THREE = np.array([[10.0, 20.0], [60.0, 30.0], [150.0, 160.0]])


def around(centres: np.ndarray, each: int = 50, seed: int = 0) -> np.ndarray:
    """Draw sizes within 5 percent of the given ones."""
    noise = np.random.default_rng(seed).uniform(0.95, 1.05, (len(centres), each, 2))
    return (centres[:, None] * noise).reshape(-1, 2)


@pytest.mark.parametrize("distance", ["iou", "euclid"])
@pytest.mark.parametrize("update", ["mean", "median"])
def test_clear_clusters_are_found_and_sorted_by_area(distance, update) -> None:
    found = kmeans_anchors(around(THREE), 3, distance=distance, update=update)
    np.testing.assert_allclose(found.shapes, THREE, rtol=0.02)
    assert found.counts.tolist() == [50, 50, 50]
    assert 0.9 < found.mean_iou < 1


def test_iou_of_shapes_has_a_common_corner() -> None:
    assert shape_iou(np.array([[2.0, 4.0]]), np.array([[4.0, 2.0], [2.0, 4.0]])).tolist() == [[4 / 12, 1]]


def test_as_many_anchors_as_sizes_fit_perfectly_and_one_more_is_refused() -> None:
    boxes = np.repeat(THREE, 4, axis=0)
    found = kmeans_anchors(boxes, 3)
    np.testing.assert_array_equal(found.shapes, THREE)
    assert found.mean_iou == pytest.approx(1)
    with pytest.raises(InputError, match=r"4 anchors from 12 boxes of 3 different sizes: ask for 1 to 3"):
        kmeans_anchors(boxes, 4)


@pytest.mark.parametrize(
    ("boxes", "k", "message"),
    [
        (np.zeros((0, 2)), 1, "no boxes"),
        (THREE, 0, "ask for 1 to 3"),
        (np.array([[3.0, 4.0], [0.0, 5.0]]), 1, "box 1 has the size"),
        (np.array([[3.0, np.nan]]), 1, "box 0 has the size"),
    ],
)
def test_impossible_requests_are_refused(boxes: np.ndarray, k: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        kmeans_anchors(boxes, k)


def test_a_seed_decides_and_units_do_not_matter() -> None:
    boxes = np.random.default_rng(1).uniform(5, 200, (300, 2))
    first, again = kmeans_anchors(boxes, 5, seed=3), kmeans_anchors(torch.from_numpy(boxes), 5, seed=3)
    np.testing.assert_array_equal(first.shapes, again.shapes)
    cells = kmeans_anchors(boxes / 32, 5, seed=3)
    np.testing.assert_allclose(cells.shapes * 32, first.shapes)
    assert first.counts.sum() == 300


def test_more_anchors_and_more_restarts_never_fit_worse() -> None:
    boxes = np.random.default_rng(2).lognormal(4, 0.7, (400, 2))
    fits = [kmeans_anchors(boxes, k, restarts=5).mean_iou for k in (1, 3, 5, 9)]
    assert fits == sorted(fits)
    runs = [kmeans_anchors(boxes, 7, restarts=r).mean_iou for r in (1, 4, 12)]
    assert runs == sorted(runs), "the runs of a seed begin with those of fewer restarts"


def test_result_is_a_fixed_point() -> None:
    boxes = np.random.default_rng(3).lognormal(4, 0.7, (400, 2))
    found = kmeans_anchors(boxes, 6)
    owner = shape_iou(boxes, found.shapes).argmax(1)
    means = np.stack([boxes[owner == i].mean(0) for i in range(6)])
    np.testing.assert_allclose(means, found.shapes)
    assert np.bincount(owner, minlength=6).tolist() == found.counts.tolist()
    assert shape_iou(boxes, found.shapes).max(1).mean() == pytest.approx(found.mean_iou)


def test_starts_are_tried_on_a_sample_but_all_boxes_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = np.concatenate([around(THREE, each=400), [[400.0, 20.0]]])
    whole = kmeans_anchors(boxes, 3)
    monkeypatch.setattr(kmeans, "_SAMPLE", 100)
    sampled = kmeans_anchors(boxes, 3)
    np.testing.assert_allclose(sampled.shapes, whole.shapes)
    assert sampled.counts.sum() == len(boxes)
    monkeypatch.setattr(kmeans, "_SAMPLE", 2)
    assert len(kmeans_anchors(boxes, 3).shapes) == 3, "a sample with too few sizes is none"


def test_no_cluster_stays_empty_among_many_copies() -> None:
    boxes = np.concatenate([np.repeat([[10.0, 10.0]], 200, 0), [[300.0, 20], [20, 300], [200, 200]]])
    found = kmeans_anchors(boxes, 4, restarts=1)
    assert (found.counts > 0).all()
    assert found.mean_iou == pytest.approx(1)


def test_on_real_boxes_iou_beats_euclid_beats_nothing(shared_data: Path) -> None:
    """YOLOv2 table 1 on its data: 61.0 for five by IoU, 58.7 for five by Euclid, 67.2 for nine by IoU."""
    index = open_dataset(shared_data / "voc2012_100")
    sides = [index.size(i) for i in range(len(index)) for _ in range(len(index.annotations(i).boxes))]
    height, width = np.array(sides, dtype=np.float64).T
    boxes = np.stack([index.xywh[:, 2] / width, index.xywh[:, 3] / height], 1) * 13
    by_iou, by_euclid = kmeans_anchors(boxes, 5), kmeans_anchors(boxes, 5, distance="euclid")
    assert by_euclid.mean_iou < by_iou.mean_iou < kmeans_anchors(boxes, 9).mean_iou
    assert by_iou.mean_iou == pytest.approx(0.61, abs=0.05)
