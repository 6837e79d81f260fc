"""Soft-NMS, DIoU-NMS and weighted NMS: computed tables, and the laws that tie them to the greedy kind."""

import pytest
import torch

from boxwright.geometry.boxes import box_iou
from boxwright.geometry.nms import nms
from boxwright.geometry.sequential_nms import KINDS, sequential_nms
from tests.support.boxes import SHEET, random_boxes, scored

Found = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def run(
    boxes: torch.Tensor,
    scores: torch.Tensor,
    kind: str,
    threshold: float = 0.3,
    sigma: float = 0.5,
    count: int | None = None,
    labels: torch.Tensor | None = None,
) -> Found:
    """One image; only the rows that are there."""
    labels = torch.zeros(len(scores), dtype=torch.int64) if labels is None else labels
    count = len(scores) if count is None else count
    index, found, kept = sequential_nms(
        boxes[None], scores[None], labels[None], kind, threshold, sigma, floor=1e-3, count=count
    )
    assert index.shape == found.shape == kept.shape[:2] == (1, count)
    there = found[0] > -torch.inf
    assert not index[0, ~there].any()
    assert not kept[0, ~there].any()
    return index[0, there], found[0, there], kept[0, there]


@pytest.mark.parametrize(
    ("kind", "order", "scores"),
    [
        ("soft_linear", [0, 3, 2, 1], [0.9, 0.6, 0.4, 0.091656]),
        ("soft_gaussian", [0, 3, 2, 1], [0.9, 0.6, 0.484799, 0.159520]),
        ("diou", [0, 3], [0.9, 0.6]),
        ("weighted", [0, 3], [0.9, 0.6]),
    ],
)
def test_four_boxes(kind: str, order: list[int], scores: list[float]) -> None:
    index, found, kept = run(SHEET, torch.tensor([0.9, 0.8, 0.7, 0.6]), kind)
    assert index.tolist() == order
    assert found.tolist() == pytest.approx(scores, abs=1e-6)
    if kind == "weighted":
        expected = (0.9 * SHEET[0] + 0.8 * SHEET[1] + 0.7 * SHEET[2]) / 2.4
        torch.testing.assert_close(kept[0], expected)
        assert torch.equal(kept[1], SHEET[3])
    else:
        assert torch.equal(kept, SHEET[index])


def test_boxes_apart_but_overlapping_survive_by_their_distance() -> None:
    """The purpose of DIoU-NMS: box 2 has IoU 0.43 but DIoU 0.37 with box 0."""
    scores = torch.tensor([0.9, 0.8, 0.7, 0.6])
    assert run(SHEET, scores, "diou", threshold=0.4)[0].tolist() == [0, 2, 3]
    assert run(SHEET, scores, "weighted", threshold=0.4)[0].tolist() == [0, 3]


@pytest.mark.parametrize("kind", ["soft_gaussian", "weighted"])
def test_the_greedy_limit(kind: str) -> None:
    """A steep Gaussian drops whatever overlaps at all; weighted NMS keeps what greedy NMS keeps."""
    boxes, scores = scored(60)
    threshold = 0.4 if kind == "weighted" else 0.0
    index, _, _ = run(boxes, scores.clamp(min=0.01), kind, threshold, sigma=1e-9)
    kept, valid = nms(boxes[None], scores.clamp(min=0.01)[None], threshold, 60)
    assert index.tolist() == kept[0, valid[0]].tolist()


def test_linear_soft_nms_drops_copies_as_greedy_does() -> None:
    boxes = SHEET[[0, 0, 3, 3]]
    assert run(boxes, torch.tensor([0.5, 0.9, 0.7, 0.2]), "soft_linear")[0].tolist() == [1, 2]


@pytest.mark.parametrize("kind", KINDS)
def test_boxes_that_do_not_overlap_are_left_alone(kind: str) -> None:
    boxes = torch.stack([torch.tensor([20.0 * i, 0, 20.0 * i + 10, 10]) for i in range(5)])
    scores = torch.tensor([0.2, 0.9, 0.5, 0.7, 0.4])
    index, found, kept = run(boxes, scores, kind)
    assert index.tolist() == [1, 3, 2, 4, 0]
    assert torch.equal(found, scores[index])
    torch.testing.assert_close(kept, boxes[index])


@pytest.mark.parametrize("kind", ["diou", "weighted"])
def test_dropping_again_drops_nothing(kind: str) -> None:
    boxes, scores = scored(50)
    index, _, _ = run(boxes, scores, kind, 0.5)
    again, _, _ = run(boxes[index], scores[index], kind, 0.5)
    assert again.tolist() == list(range(len(index)))


@pytest.mark.parametrize("kind", KINDS)
def test_scores_fall_and_never_exceed_the_first_ones(kind: str) -> None:
    boxes, scores = scored(80, seed=3)
    index, found, _ = run(boxes, scores, kind)
    assert (found.diff() <= 0).all()
    assert (found <= scores[index] + 1e-6).all()
    assert len(index.unique()) == len(index)


def test_a_written_out_soft_nms_agrees() -> None:
    boxes, scores = scored(40, seed=8)
    iou, left, expected = box_iou(boxes, boxes), scores.tolist(), []
    while (best := max(left)) >= 1e-3:
        row = left.index(best)
        expected.append((row, best))
        left = [s * (1 - o) if o > 0.3 else s for s, o in zip(left, iou[row].tolist(), strict=True)]
        left[row] = 0.0
        left = [s if s >= 1e-3 else 0.0 for s in left]
    index, found, _ = run(boxes, scores, "soft_linear")
    assert index.tolist() == [row for row, _ in expected]
    assert found.tolist() == pytest.approx([score for _, score in expected], abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_classes_and_images_keep_to_themselves(kind: str) -> None:
    (a, a_scores), (b, b_scores) = scored(20), scored(20, seed=5)
    b_scores[7:] = -torch.inf
    labels = torch.arange(20) % 2
    index, found, kept = sequential_nms(
        torch.stack([a, b]), torch.stack([a_scores, b_scores]), torch.stack([labels, labels]), kind, 0.3, 0.5, 1e-3, 25
    )
    for row, (boxes, scores) in enumerate(((a, a_scores), (b[:7], b_scores[:7]))):
        alone = []
        for label in (0, 1):
            mine = (labels[: len(scores)] == label).nonzero().squeeze(1)
            place, score, box = run(boxes[mine], scores[mine], kind)
            alone += list(zip(score.tolist(), mine[place].tolist(), box, strict=True))
        alone.sort(key=lambda each: -each[0])
        there = found[row] > -torch.inf
        assert index[row, there].tolist() == [place for _, place, _ in alone]
        torch.testing.assert_close(kept[row, there], torch.stack([box for _, _, box in alone]))


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_there_and_fewer_rows_than_asked_for(kind: str) -> None:
    _, found, _ = sequential_nms(
        torch.zeros(2, 4, 4), torch.full((2, 4), -torch.inf), torch.zeros(2, 4).long(), kind, 0.5, 0.5, 1e-3, 9
    )
    assert found.shape == (2, 9)
    assert (found == -torch.inf).all()


@pytest.mark.parametrize("kind", KINDS)
def test_operator_is_well_formed_for_the_compiler(kind: str) -> None:
    boxes, scores = scored(6)
    labels = torch.zeros(1, 6, dtype=torch.int64)
    torch.library.opcheck(sequential_nms, (boxes[None], scores[None], labels, kind, 0.5, 0.5, 1e-3, 4))


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS)
def test_gpu_and_cpu_agree(kind: str) -> None:
    from boxwright.testing import forbid_host_sync

    boxes = torch.stack([random_boxes(300), random_boxes(300, seed=1)])
    scores = torch.rand(2, 300, generator=torch.Generator().manual_seed(4))
    labels = torch.arange(600).reshape(2, 300) % 3
    settings = (kind, 0.4, 0.5, 1e-3, 50)
    there = (boxes.cuda(), scores.cuda(), labels.cuda())
    with forbid_host_sync():
        mine = sequential_nms(*there, *settings)
    for got, expected in zip(mine, sequential_nms(boxes, scores, labels, *settings), strict=True):
        torch.testing.assert_close(got.cpu(), expected, atol=1e-4, rtol=1e-5)
