"""Overlaps on boxes small enough to draw, and the laws they keep."""

import math
from collections.abc import Callable

import pytest
import torch
import torchvision

from boxwright.geometry import boxes as boxes_module
from boxwright.geometry.boxes import (
    box_area,
    box_iou,
    clip_boxes,
    complete_iou,
    cxcywh_to_xyxy,
    distance_iou,
    generalized_iou,
    pair_iou,
    points_in_boxes,
    xyxy_to_cxcywh,
)
from tests.support.boxes import SHEET, random_boxes

Measure = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@pytest.mark.parametrize(
    ("a", "b", "iou", "why"),
    [
        ([0, 0, 2, 2], [0, 0, 2, 2], 1.0, "the same box"),
        ([0, 0, 2, 2], [1, 0, 3, 2], 2 / 6, "half of each"),
        ([0, 0, 2, 2], [2, 0, 4, 2], 0.0, "edges touch: exclusive corners share nothing"),
        ([0, 0, 4, 4], [1, 1, 2, 2], 1 / 16, "one inside the other"),
        ([0, 0, 0, 0], [0, 0, 0, 0], 0.0, "empty boxes are 0, not NaN"),
        ([5, 5, 3, 3], [0, 0, 9, 9], 0.0, "an inverted box has no area"),
    ],
)
def test_iou_of_pairs(a: list[float], b: list[float], iou: float, why: str) -> None:
    assert box_iou(torch.tensor([a]).float(), torch.tensor([b]).float()).item() == pytest.approx(iou), why


def test_inclusive_boxes_that_touch_share_a_pixel() -> None:
    a, b = torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([[1.0, 0, 2, 1]])
    assert box_iou(a, b, offset=1).item() == pytest.approx(2 / 6)
    assert box_area(a, offset=1).item() == 4


def test_iou_is_symmetric_and_within_bounds() -> None:
    a, b = random_boxes(20), random_boxes(30, seed=1)
    iou = box_iou(a, b)
    assert torch.equal(iou, box_iou(b, a).T)
    assert 0 <= iou.min() <= iou.max() <= 1


def test_crowd_rows_give_the_covered_share_of_the_candidate() -> None:
    crowd, candidate = torch.tensor([[0.0, 0, 100, 100]]), torch.tensor([[90.0, 0, 110, 10]])
    assert box_iou(crowd, candidate, over_b=torch.tensor([[True]])).item() == pytest.approx(0.5)


def test_batched_iou_equals_single_images() -> None:
    a, b = random_boxes(12).reshape(3, 4, 4), random_boxes(15, seed=2).reshape(3, 5, 4)
    batched = box_iou(a, b)
    assert torch.equal(batched, torch.stack([box_iou(x, y) for x, y in zip(a, b, strict=True)]))


@pytest.mark.parametrize("shared", [True, False])
def test_large_tables_are_made_in_pieces_that_fit_together(shared: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = random_boxes(33).reshape(3, 11, 4), random_boxes(90, seed=1)
    b = b[:30] if shared else b.reshape(3, 30, 4)
    crowd = torch.arange(33).reshape(3, 11, 1) % 4 == 0
    whole = [box_iou(a, b), box_iou(a, b, offset=1, over_b=crowd)]
    monkeypatch.setattr(boxes_module, "_PIECE", 100)  # three rows
    pieces = [box_iou(a, b), box_iou(a, b, offset=1, over_b=crowd)]
    for one, other in zip(whole, pieces, strict=True):
        assert torch.equal(one, other)
    assert torch.equal(box_iou(a[0, :0], a[0]), torch.zeros(0, 11))


def test_tables_can_be_trained_through() -> None:
    a, b = random_boxes(6).double().requires_grad_(), random_boxes(7, seed=1).double().requires_grad_()
    assert torch.autograd.gradcheck(box_iou, (a, b))


def test_generalized_iou_is_negative_apart_and_one_on_itself() -> None:
    boxes = torch.tensor([[0.0, 0, 1, 1], [0, 0, 2, 2]])
    apart = torch.tensor([[3.0, 0, 4, 1], [0, 0, 2, 2]])
    assert generalized_iou(boxes, apart).tolist() == pytest.approx([-0.5, 1.0], abs=1e-5)


def test_clip_uses_each_images_own_size() -> None:
    boxes = torch.tensor([[[-5.0, -5, 500, 500]], [[-5.0, -5, 500, 500]]])
    sizes = torch.tensor([[100, 200], [30, 40]])
    assert clip_boxes(boxes, sizes).tolist() == [[[0, 0, 200, 100]], [[0, 0, 40, 30]]]
    assert clip_boxes(boxes, sizes, offset=1)[0, 0].tolist() == [0, 0, 199, 99]


def test_formats_round_trip() -> None:
    boxes = random_boxes(10)
    torch.testing.assert_close(cxcywh_to_xyxy(xyxy_to_cxcywh(boxes)), boxes)


MEASURES = [pair_iou, generalized_iou, distance_iou, complete_iou]


def test_pairs_and_tables_give_the_same_iou() -> None:
    first = SHEET[:1].expand(4, 4)
    assert pair_iou(first, SHEET).tolist() == pytest.approx([1, 0.818182, 0.428571, 0], abs=1e-6)
    assert torch.equal(pair_iou(first, SHEET), box_iou(SHEET[:1], SHEET)[0])
    assert pair_iou(SHEET[1], SHEET[2]).item() == pytest.approx(0.369863, abs=1e-6)


def test_distance_iou_of_the_sheet() -> None:
    found = distance_iou(SHEET[:1].expand(4, 4), SHEET)
    assert found.tolist() == pytest.approx([1, 0.813657, 0.374517, -0.444444], abs=1e-6)


def test_complete_iou_is_distance_iou_for_equal_aspects_and_less_for_others() -> None:
    a, same, tall = SHEET[:1], torch.tensor([[3.0, 3, 23, 23]]), torch.tensor([[3.0, 0, 7, 10]])
    torch.testing.assert_close(complete_iou(a, same), distance_iou(a, same))
    angle = 4 / math.pi**2 * (math.pi / 4 - math.atan(0.4)) ** 2
    expected = 0.4 - angle * angle / (0.6 + angle)  # the centres coincide
    assert complete_iou(a, tall).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("measure", MEASURES)
def test_overlaps_of_pairs_are_symmetric_bounded_and_one_on_themselves(measure: Measure) -> None:
    a, b = random_boxes(200), random_boxes(200, seed=1)
    torch.testing.assert_close(measure(a, b), measure(b, a))
    assert (measure(a, b) <= pair_iou(a, b) + 1e-6).all()
    assert (measure(a, b) > -2).all()
    torch.testing.assert_close(measure(a, a), torch.ones(200))


@pytest.mark.parametrize(
    ("measure", "reference"),
    [
        (generalized_iou, torchvision.ops.generalized_box_iou_loss),
        (distance_iou, torchvision.ops.distance_box_iou_loss),
        (complete_iou, torchvision.ops.complete_box_iou_loss),
    ],
)
def test_overlaps_and_gradients_agree_with_torchvision(measure: Measure, reference: Measure) -> None:
    mine, theirs = (random_boxes(100).requires_grad_() for _ in range(2))
    target = random_boxes(100, seed=1)
    loss, expected = 1 - measure(mine, target), reference(theirs, target)
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
    loss.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(mine.grad, theirs.grad, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("measure", MEASURES)
def test_degenerate_boxes_have_finite_overlaps_and_gradients(measure: Measure) -> None:
    odd = torch.tensor(
        [[0.0, 0, 0, 0], [3, 3, 3, 3], [3, 0, 3, 9], [0, 3, 9, 3], [5, 5, 3, 3], [-1e-4, 0, 0, 1e-4], [0, 0, 4, 4]]
    )
    a = odd.repeat_interleave(len(odd), 0).requires_grad_()
    b = odd.repeat(len(odd), 1).requires_grad_()
    found = measure(a, b)
    found.sum().backward()
    assert found.isfinite().all()
    for box in (a, b):
        assert box.grad is not None
        assert box.grad.isfinite().all()
        assert box.grad.abs().max() < 1e6


def test_points_on_an_edge_are_outside() -> None:
    points = torch.tensor([[5.0, 5], [0, 5], [5, 10], [11, 5]])
    assert points_in_boxes(points, SHEET[:2]).tolist() == [[True, False, False, False], [True, False, False, False]]
