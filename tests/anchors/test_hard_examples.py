"""Hard negatives and OHEM on short lists of losses."""

import pytest
import torch

from boxwright.anchors.matching.matcher import Matches
from boxwright.anchors.sampler import OHEMSampler, hard_negatives
from boxwright.structures import InputError
from boxwright.testing import forbid_host_sync
from tests.support.boxes import random_boxes


def matches(positives: list[int], negatives: list[int], total: int) -> Matches:
    """Return matches of images whose first candidates are positive and whose next ones are negative."""
    place = torch.arange(total).expand(len(positives), -1)
    p, n = torch.tensor(positives).unsqueeze(1), torch.tensor(negatives).unsqueeze(1)
    return Matches(torch.zeros_like(place), place < p, (place >= p) & (place < p + n))


@pytest.mark.parametrize(
    ("positives", "eligible", "expected", "why"),
    [
        (2, 100, 6, "three for each positive"),
        (2, 4, 4, "no more than there are"),
        (0, 100, 0, "none without positives"),
        (100, 20, 20, "many positives take all"),
    ],
)
def test_numbers_of_hard_negatives(positives: int, eligible: int, expected: int, why: str) -> None:
    loss = torch.rand(1, 120, generator=torch.Generator().manual_seed(0))
    found = matches([positives], [eligible], 120)
    chosen = hard_negatives(loss, found)
    assert chosen.sum().item() == expected, why
    assert not (chosen & ~found.negative).any()
    if expected < eligible and expected:
        assert loss[chosen].min() > loss[found.negative & ~chosen].max()


def test_each_image_counts_its_own_positives() -> None:
    loss = torch.arange(40.0).repeat(3, 1)
    chosen = hard_negatives(loss, matches([1, 0, 4], [30, 30, 30], 40))
    assert chosen.sum(1).tolist() == [3, 0, 12]
    assert chosen[0].nonzero().squeeze(1).tolist() == [28, 29, 30]


def test_of_equal_losses_the_first_is_chosen() -> None:
    chosen = hard_negatives(torch.ones(1, 50), matches([2], [40], 50))
    assert chosen[0].nonzero().squeeze(1).tolist() == [2, 3, 4, 5, 6, 7]


def test_ratio_and_minimum() -> None:
    loss = torch.arange(20.0).unsqueeze(0)
    assert hard_negatives(loss, matches([3], [17], 20), ratio=1.5).sum().item() == 4
    assert hard_negatives(loss, matches([0], [17], 20), minimum=5).sum().item() == 5
    assert hard_negatives(loss, matches([0], [2], 20), minimum=5).sum().item() == 2


def test_mining_takes_no_gradient_and_compiles() -> None:
    loss = torch.linspace(0, 1, 60).sin().reshape(2, 30).requires_grad_()
    found = matches([2, 1], [20, 25], 30)
    with forbid_host_sync():
        plain = hard_negatives(loss, found)
    assert not plain.requires_grad
    compiled = torch.compile(hard_negatives, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(loss, found), plain)


def test_ohem_takes_the_highest_losses_of_both_kinds() -> None:
    loss = torch.tensor([[0.1, 0.9, 0.5, 0.8, 0.2, 0.7]])
    choice = OHEMSampler(count=3, nms_iou=None)(loss, matches([2], [3], 6))
    assert choice.chosen.tolist() == [[1, 3, 2]], "the last candidate is ignored, its 0.7 notwithstanding"
    assert choice.positive.tolist() == [[True, False, False]]
    assert choice.valid.all()


def test_ohem_masks_what_is_missing() -> None:
    loss = torch.tensor([[0.3, 0.1, 0.9, 0.8, 0.2, 0.7]]).repeat(2, 1)
    choice = OHEMSampler(count=4, nms_iou=None)(loss, matches([1, 0], [1, 0], 6))
    assert choice.chosen.shape == (2, 4)
    assert choice.valid.sum(1).tolist() == [2, 0]
    assert not (choice.positive & ~choice.valid).any()


def test_ohem_drops_candidates_that_overlap_a_harder_one() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [30, 30, 40, 40], [0, 0, 10, 6]])
    loss = torch.tensor([[0.5, 0.9, 0.1, 0.4]])
    sampler = OHEMSampler(count=4, nms_iou=0.7)
    choice = sampler(loss, matches([1], [3], 4), boxes)
    assert choice.chosen[0, choice.valid[0]].tolist() == [1, 3, 2]
    with pytest.raises(InputError, match="boxes"):
        sampler(loss, matches([1], [3], 4))


def test_ohem_is_one_graph_without_host_sync() -> None:
    sampler = OHEMSampler(count=8, pool=20)
    loss, boxes = torch.linspace(0, 9, 80).sin().abs().reshape(2, 40), random_boxes(40)
    found = matches([3, 0], [30, 30], 40)
    with forbid_host_sync():
        plain = sampler(loss, found, boxes)
    compiled = torch.compile(sampler.__call__, fullgraph=True, backend="aot_eager")
    for mine, reference in zip(compiled(loss, found, boxes), plain, strict=True):
        assert torch.equal(mine, reference)


@pytest.mark.parametrize("settings", [{"count": 0}, {"count": 10, "pool": 5}, {"count": 1, "nms_iou": 0.0}])
def test_impossible_settings_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(InputError, match="OHEMSampler"):
        OHEMSampler(**settings)  # type: ignore[arg-type]
