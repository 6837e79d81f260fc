"""Task-aligned assignment on a row of points, and its invariants."""

import pytest
import torch

from boxwright.anchors.matching.task_aligned import TaskAlignedMatcher
from boxwright.geometry.boxes import box_iou
from boxwright.structures import InputError
from boxwright.testing import forbid_host_sync
from tests.support.boxes import random_boxes

POINTS = torch.tensor([[5.0, 5], [15, 5], [25, 5], [35, 5]])
TRUTH = torch.tensor([[[0.0, 0, 20, 10], [20, 0, 40, 10]]])
LABELS = torch.tensor([[1, 0]])
YES = torch.ones(1, 2, dtype=torch.bool)


def grid(batch: int = 1, classes: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return an 8 x 8 grid of points over 128 pixels, with random scores and boxes around them."""
    axis = torch.arange(8) * 16.0 + 8
    points = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1).reshape(-1, 2)
    generator = torch.Generator().manual_seed(0)
    reach = torch.rand((batch, 64, 4), generator=generator) * 30
    boxes = torch.cat([points - reach[..., :2], points + reach[..., 2:]], -1)
    return points, torch.rand((batch, 64, classes), generator=generator), boxes


def test_the_best_aligned_predictions_are_chosen_and_scaled_to_the_best_overlap() -> None:
    scores = torch.full((1, 4, 2), 0.01)
    scores[0, :, 1] = torch.tensor([0.5, 0.25, 0.9, 0.9])
    predicted = torch.tensor([[[0.0, 0, 20, 8], [0, 0, 20, 10], [0, 0, 20, 10], [60, 0, 70, 10]]])
    matcher = TaskAlignedMatcher(topk=2, alpha=1.0, beta=2.0)
    matches, alignment = matcher(POINTS, scores, predicted, TRUTH, LABELS, YES, ~YES)
    # Object 0: points 0 and 1 lie in it; t = .5 x .8^2 = .32 and .25 x 1 = .25; the best overlap is 1.
    # Object 1: point 2 lies in it but its box is the other object's, point 3's box is elsewhere: no overlap, no match.
    assert matches.positive.tolist() == [[True, True, False, False]]
    assert matches.negative.tolist() == [[False, False, True, True]]
    assert matches.truth[0, :2].tolist() == [0, 0]
    assert alignment[0].tolist() == pytest.approx([1.0, 0.25 / 0.32, 0, 0])
    one, alignment = TaskAlignedMatcher(topk=1, alpha=1.0, beta=2.0)(
        POINTS, scores, predicted, TRUTH, LABELS, YES, ~YES
    )
    assert one.positive.tolist() == [[True, False, False, False]]
    assert alignment[0].tolist() == pytest.approx([0.8, 0, 0, 0])


def test_a_prediction_that_two_objects_choose_goes_to_the_better_overlap() -> None:
    truth = torch.tensor([[[0.0, 0, 20, 10], [0, 0, 20, 12]]])
    scores = torch.full((1, 4, 2), 0.5)
    predicted = torch.tensor([[[0.0, 0, 20, 12]]]).expand(1, 4, 4)
    matches, _ = TaskAlignedMatcher()(POINTS, scores, predicted, truth, LABELS, YES, ~YES)
    assert matches.positive.tolist() == [[True, True, False, False]]
    assert matches.truth[0, :2].tolist() == [1, 1]


def test_chosen_points_lie_within_their_object_and_are_at_most_topk() -> None:
    points, scores, predicted = grid(batch=2)
    truth = torch.stack([random_boxes(5), random_boxes(5, seed=1)]) + torch.tensor([0, 0, 30, 30])
    yes, labels = torch.ones(2, 5, dtype=torch.bool), torch.arange(10).reshape(2, 5) % 3
    matches, alignment = TaskAlignedMatcher(topk=4)(points, scores, predicted, truth, labels, yes, ~yes)
    assert matches.positive.any(1).all()
    for b in range(2):
        for g in range(5):
            mine = matches.positive[b] & (matches.truth[b] == g)
            assert mine.sum() <= 4
            assert ((points[mine] > truth[b, g, :2]) & (points[mine] < truth[b, g, 2:])).all()
            if mine.any():
                best = box_iou(truth[b, g : g + 1], predicted[b, mine]).max()
                torch.testing.assert_close(alignment[b, mine].max(), best)
    assert not alignment[~matches.positive].any()
    assert (alignment[matches.positive] > 0).all()


@pytest.mark.parametrize("padded", [0, 3])
def test_an_image_without_objects_is_all_background(padded: int) -> None:
    points, scores, predicted = grid(batch=2)
    no = torch.zeros(2, padded, dtype=torch.bool)
    matches, alignment = TaskAlignedMatcher()(
        points, scores, predicted, torch.zeros(2, padded, 4), torch.zeros(2, padded).long(), no, no
    )
    assert not matches.positive.any()
    assert matches.negative.all()
    assert alignment.shape == (2, 64)
    assert not alignment.any()


def test_padding_changes_nothing_and_points_in_a_crowd_are_ignored() -> None:
    points, scores, predicted = grid()
    truth = torch.tensor([[[10.0, 10, 60, 60], [64, 64, 128, 128], [0, 0, 0, 0]]])
    usable, crowd = torch.tensor([[True, False, False]]), torch.tensor([[False, True, False]])
    labels = torch.tensor([[1, 0, 0]])
    matches, alignment = TaskAlignedMatcher()(points, scores, predicted, truth, labels, usable, crowd)
    alone, expected = TaskAlignedMatcher()(
        points, scores, predicted, truth[:, :1], labels[:, :1], usable[:, :1], crowd[:, :1]
    )
    assert torch.equal(matches.positive, alone.positive)
    torch.testing.assert_close(alignment, expected)
    shaded = ((points > 64) & (points < 128)).all(1)
    assert torch.equal(matches.negative[0], alone.negative[0] & ~shaded)


def test_no_gradient_one_graph_and_no_waiting() -> None:
    points, scores, predicted = grid(batch=2)
    truth = torch.stack([random_boxes(3), random_boxes(3, seed=1)])
    yes, labels = torch.ones(2, 3, dtype=torch.bool), torch.zeros(2, 3).long()
    arguments = (points, scores.requires_grad_(), predicted.requires_grad_(), truth, labels, yes, ~yes)
    matcher = TaskAlignedMatcher()
    with forbid_host_sync():
        plain, alignment = matcher(*arguments)
    assert not alignment.requires_grad
    compiled, other = torch.compile(matcher.__call__, fullgraph=True, backend="aot_eager")(*arguments)
    torch.testing.assert_close(other, alignment)
    for mine, reference in zip(compiled, plain, strict=True):
        assert torch.equal(mine, reference)


@pytest.mark.parametrize("settings", [{"topk": 0}, {"alpha": -1.0}, {"beta": -1.0}])
def test_impossible_settings_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(InputError, match="TaskAlignedMatcher"):
        TaskAlignedMatcher(**settings)  # type: ignore[arg-type]
