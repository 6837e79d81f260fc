"""Box voting on groups small enough to work out by hand."""

import numpy as np
import pytest
import torch

from boxwright.geometry.voting import box_voting
from boxwright.structures import InputError
from tests.support.boxes import SHEET, scored

SCORES = torch.tensor([0.9, 0.8, 0.7, 0.6])
ONE_CLASS = torch.zeros(4, dtype=torch.int64)


def test_a_group_becomes_its_mean_with_the_best_score() -> None:
    boxes, scores, labels = box_voting(SHEET, SCORES, ONE_CLASS, 0.45)
    expected = (0.9 * SHEET[0] + 0.8 * SHEET[1]) / 1.7
    torch.testing.assert_close(boxes, torch.stack([expected, SHEET[2], SHEET[3]]))
    assert scores.tolist() == pytest.approx([0.9, 0.7, 0.6])
    assert labels.tolist() == [0, 0, 0]


def test_the_threshold_itself_joins_and_inclusive_boxes_overlap_more() -> None:
    boxes = torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 1]])
    assert len(box_voting(boxes, SCORES[:2], ONE_CLASS[:2], 0.5)[0]) == 1
    assert len(box_voting(boxes, SCORES[:2], ONE_CLASS[:2], 0.51)[0]) == 2
    assert len(box_voting(boxes, SCORES[:2], ONE_CLASS[:2], 0.6, offset=1)[0]) == 1  # 6 of 9 pixels


def test_soft_voting_keeps_the_members_with_lower_scores() -> None:
    boxes, scores, _ = box_voting(SHEET, SCORES, ONE_CLASS, 0.4, soft=True, floor=0.01)
    assert scores.tolist() == pytest.approx([0.9, 0.6, 0.7 * (1 - 0.428571), 0.8 * (1 - 0.818182)], abs=1e-5)
    assert torch.equal(boxes[[1, 2, 3]], SHEET[[3, 2, 1]])
    _, scores, _ = box_voting(SHEET, SCORES, ONE_CLASS, 0.4, soft=True, floor=0.2)
    assert scores.tolist() == pytest.approx([0.9, 0.6, 0.4], abs=1e-5), "0.145 is below the floor"


def test_classes_do_not_vote_together() -> None:
    boxes, _, labels = box_voting(SHEET, SCORES, torch.tensor([0, 1, 0, 0]), 0.45)
    assert torch.equal(boxes, SHEET)
    assert labels.tolist() == [0, 1, 0, 0]


def test_single_boxes_stay_as_they_are_even_without_area() -> None:
    lone = torch.tensor([[0.0, 0, 10, 10], [40, 40, 40, 40]])
    for soft in (False, True):
        boxes, scores, _ = box_voting(lone, SCORES[:2], ONE_CLASS[:2], soft=soft)
        assert torch.equal(boxes, lone)
        assert scores.tolist() == pytest.approx([0.9, 0.8])


def test_order_does_not_matter_and_arrays_do_as_well() -> None:
    boxes, scores = scored(60)
    labels = torch.arange(60) % 3
    mixed = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    plain = box_voting(boxes, scores, labels)
    other = box_voting(boxes[mixed].numpy(), scores[mixed].numpy(), labels[mixed].numpy())
    for a, b in zip(plain, other, strict=True):
        torch.testing.assert_close(a, b)
    assert (plain[1].diff() <= 0).all()


def test_no_boxes() -> None:
    boxes, scores, labels = box_voting(np.zeros((0, 4)), np.zeros(0), np.zeros(0, dtype=np.int64))
    assert (boxes.shape, scores.shape, labels.shape) == ((0, 4), (0,), (0,))


def test_an_impossible_threshold_is_refused() -> None:
    with pytest.raises(InputError, match=r"IoU 1\.5"):
        box_voting(SHEET, SCORES, ONE_CLASS, 1.5)
