"""Matrix NMS: a computed table, and the laws that tie it to Soft-NMS."""

import math

import pytest
import torch

from boxwright.geometry.boxes import box_iou
from boxwright.geometry.matrix_nms import matrix_nms
from boxwright.geometry.sequential_nms import sequential_nms
from tests.support.boxes import SHEET, random_boxes, scored

SIGMA = 0.5


def run(
    boxes: torch.Tensor, scores: torch.Tensor, labels: torch.Tensor | None = None, floor: float = 1e-3
) -> tuple[list[int], list[float]]:
    """One image; only the rows that are there."""
    labels = torch.zeros(len(scores), dtype=torch.int64) if labels is None else labels
    index, found = matrix_nms(boxes[None], scores[None], labels[None], SIGMA, floor, len(scores))
    there = found[0] > -torch.inf
    return index[0, there].tolist(), found[0, there].tolist()


def by_definition(boxes: torch.Tensor, scores: torch.Tensor) -> list[float]:
    """Equation by equation, box by box, in the order of ``scores``, which fall."""
    iou = box_iou(boxes, boxes).tolist()

    def factor(overlap: float) -> float:
        return math.exp(-(overlap**2) / SIGMA)

    kept = []
    for j, score in enumerate(scores.tolist()):
        suppressed = [max((iou[k][i] for k in range(i)), default=0.0) for i in range(j)]
        kept.append(score * min((1.0, *(factor(iou[i][j]) / factor(suppressed[i]) for i in range(j)))))
    return kept


def test_four_boxes() -> None:
    """Box 1 has IoU 0.667 with box 0, box 2 has 0.429 with box 0; box 3 is apart."""
    scores = torch.tensor([0.9, 0.8, 0.7, 0.6])
    order, found = run(SHEET, scores)
    expected = by_definition(SHEET, scores)
    assert order == sorted(range(4), key=lambda box: -expected[box])
    assert found == pytest.approx(sorted(expected, reverse=True), abs=1e-6)
    assert found[:2] == pytest.approx([0.9, 0.6])


def test_many_boxes_are_as_by_definition() -> None:
    boxes, scores = scored(50)
    scores = scores.sort(descending=True).values.clamp(min=0.01)
    order, found = run(boxes, scores, floor=0.0)
    expected = torch.tensor(by_definition(boxes, scores))
    torch.testing.assert_close(torch.tensor(found), expected[order])
    assert sorted(order) == list(range(50))


def test_two_boxes_are_as_in_soft_nms() -> None:
    for boxes in (SHEET[:2], SHEET[[0, 2]], SHEET[[0, 3]], SHEET[[1, 1]]):
        scores = torch.tensor([0.4, 0.6])
        soft = sequential_nms(
            boxes[None], scores[None], torch.zeros(1, 2, dtype=torch.int64), "soft_gaussian", 0.3, SIGMA, 1e-3, 2
        )
        order, found = run(boxes, scores)
        assert order == soft[0][0].tolist()
        assert found == pytest.approx(soft[1][0].tolist(), abs=1e-6)


def test_other_labels_absent_rows_and_low_scores_change_nothing() -> None:
    scores = torch.tensor([0.9, 0.8, -torch.inf, 0.6])
    assert run(SHEET[[0, 0, 0, 0]], scores, torch.tensor([0, 1, 2, 2])) == (
        [0, 1, 3],
        pytest.approx([0.9, 0.8, 0.6]),
    )
    assert run(SHEET[:2], torch.tensor([0.9, 0.0005]))[0] == [0], "below the floor"


def test_a_batch_is_its_images_and_order_does_not_matter() -> None:
    boxes, scores = random_boxes(40), torch.rand(2, 20, generator=torch.Generator().manual_seed(3))
    boxes, labels = boxes.reshape(2, 20, 4), torch.arange(40).reshape(2, 20) % 3
    index, found = matrix_nms(boxes, scores, labels, SIGMA, 1e-3, 30)
    assert index.shape == found.shape == (2, 30)
    shuffled = torch.randperm(20, generator=torch.Generator().manual_seed(4))
    for image in range(2):
        alone = run(boxes[image], scores[image], labels[image])
        assert index[image, : len(alone[0])].tolist() == alone[0]
        assert found[image, : len(alone[1])].tolist() == alone[1]
        mixed = run(boxes[image, shuffled], scores[image, shuffled], labels[image, shuffled])
        assert shuffled[mixed[0]].tolist() == alone[0]


def test_it_is_one_graph_without_an_operator_of_its_own() -> None:
    boxes, scores = scored(12)
    inputs = (boxes[None], scores[None], torch.zeros(1, 12, dtype=torch.int64))

    class Module(torch.nn.Module):
        def forward(self, boxes: torch.Tensor, scores: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return matrix_nms(boxes, scores, labels, SIGMA, 1e-3, 5)

    program = torch.export.export(Module(), inputs)
    assert not [n for n in program.graph.nodes if n.op == "call_function" and "boxwright" in str(n.target)]
    for exported, eager in zip(program.module()(*inputs), Module()(*inputs), strict=True):
        torch.testing.assert_close(exported, eager)
