"""Overlaps on boxes small enough to draw, and the laws they keep."""

import pytest
import torch

from boxwright.geometry.boxes import (
    box_area,
    box_iou,
    clip_boxes,
    cxcywh_to_xyxy,
    generalized_iou,
    xyxy_to_cxcywh,
)


def random_boxes(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand((count, 2), generator=generator) * 80
    return torch.cat([corner, corner + torch.rand((count, 2), generator=generator) * 40], dim=1)


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
