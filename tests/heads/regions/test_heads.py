"""Losses, the box head's targets and the final cut, on tables small enough to draw."""

import pytest
import torch

from boxwright.anchors.coder import BoxCoder
from boxwright.heads.losses import box_regression_loss, smooth_l1
from boxwright.heads.postprocess import PostprocessConfig, best_candidates, suppress
from boxwright.heads.regions.box_head import BoxHead, BoxHeadConfig, RegionAssignConfig
from boxwright.heads.regions.proposals import Proposals
from boxwright.structures import InputError, Targets


@pytest.mark.parametrize("beta", [1.0, 1 / 9])
def test_smooth_l1_is_continuous_at_beta(beta: float) -> None:
    below, above = smooth_l1(torch.tensor([beta - 1e-6, beta + 1e-6]), beta)
    assert below.item() == pytest.approx(above.item(), abs=1e-5)
    assert smooth_l1(torch.tensor(beta), beta).item() == pytest.approx(beta / 2)


def test_smooth_l1_without_beta_is_l1() -> None:
    assert smooth_l1(torch.tensor([-2.0, 0.5]), 0).tolist() == [2, 0.5]


@pytest.mark.parametrize("kind", ["smooth_l1", "giou"])
def test_box_loss_is_zero_on_target_and_where_nothing_is_selected(kind: str) -> None:
    reference, target = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10]]), torch.tensor([[2.0, 2, 9, 12], [0, 0, 0, 0]])
    coder = BoxCoder()
    deltas = coder.encode(reference, target).requires_grad_()
    hit = box_regression_loss(deltas, reference, target, torch.tensor([True, False]), coder, kind, 1.0)  # type: ignore[arg-type]
    assert hit.item() == pytest.approx(0, abs=1e-5)
    none = box_regression_loss(deltas + 1, reference, target, torch.tensor([False, False]), coder, kind, 1.0)  # type: ignore[arg-type]
    none.backward()
    assert none.item() == 0
    assert deltas.grad is not None
    assert (deltas.grad == 0).all()


def head(**settings: object) -> BoxHead:
    torch.manual_seed(0)
    return BoxHead(BoxHeadConfig(hidden=(8,), samples=8, **settings), channels=2, num_classes=3)  # type: ignore[arg-type]


def targets() -> Targets:
    boxes = torch.tensor([[[0.0, 0, 10, 10], [20, 20, 40, 40]]])
    no = torch.zeros(1, 2, dtype=torch.bool)
    return Targets(boxes, torch.tensor([[2, 0]]), ~no, no, no)


def proposals() -> Proposals:
    boxes = torch.tensor([[[0.0, 0, 10, 9], [20, 20, 40, 28], [60, 60, 80, 80], [0, 0, 10, 10]]])
    return Proposals(boxes, torch.zeros(1, 4), torch.tensor([[True, True, True, False]]))


def test_regions_are_labelled_by_their_best_truth_and_background_is_last() -> None:
    sample = head(positive_fraction=1.0, assign=RegionAssignConfig(add_truth=False)).choose(
        proposals(), targets(), targets().valid, torch.zeros(1).long()
    )
    order = sample.boxes[0, :, 3].tolist()
    labels = {bottom: int(label) for bottom, label in zip(order, sample.labels[0], strict=True)}
    assert labels[9.0] == 2
    assert labels[28.0] == 3, "IoU 0.4 is background"
    assert labels[80.0] == 3
    assert sample.valid.sum() == 3, "the row that is no proposal is not sampled"


def test_truth_joins_the_regions() -> None:
    sample = head(positive_fraction=1.0).choose(proposals(), targets(), targets().valid, torch.zeros(1).long())
    assert sample.positive.sum() == 3
    assert sorted(sample.labels[0, sample.positive[0]].tolist()) == [0, 2, 2]


def test_class_agnostic_boxes_ignore_the_class() -> None:
    for agnostic, rows in ((True, 1), (False, 3)):
        logits, deltas = head(class_agnostic=agnostic)(torch.randn(1, 4, 7, 7, 2))
        assert logits.shape == (1, 4, 4)
        assert deltas.shape == (1, 4, rows, 4)


def test_detections_are_cut_by_score_size_and_number() -> None:
    config = PostprocessConfig(score_threshold=0.1, nms_iou=0.5, detections=2, candidates=4, min_size=3)
    boxes = torch.tensor([[[0.0, 0, 10, 10], [1, 0, 11, 10], [30, 30, 32, 32], [50, 50, 70, 90]]])
    score, index = best_candidates(torch.tensor([[0.9, 0.8, 0.7, 0.05]]), config)
    assert score[0, 3] == -torch.inf, "0.05 is below the threshold"
    labels = torch.zeros(1, 4, dtype=torch.int64)
    found = suppress(
        boxes.gather(1, index[..., None].expand(-1, -1, 4)), score, labels, torch.tensor([[60, 60]]), config
    )
    assert found.valid[0].tolist() == [True, False], "one is suppressed, one too small, one too faint"
    assert found.boxes[0].tolist() == [[0, 0, 10, 10], [0, 0, 0, 0]]
    assert found.scores[0, 0].item() == pytest.approx(0.9)


def test_detections_are_clipped_to_their_image() -> None:
    config = PostprocessConfig(detections=1, candidates=1)
    found = suppress(
        torch.tensor([[[50.0, 50, 70, 90]]]),
        torch.tensor([[0.9]]),
        torch.zeros(1, 1).long(),
        torch.tensor([[60, 65]]),
        config,
    )
    assert found.boxes[0, 0].tolist() == [50, 50, 65, 60]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"score_threshold": 1.0}, "score_threshold"),
        ({"nms_iou": 0.0}, "nms_iou"),
        ({"detections": 0}, "detections = 0"),
        ({"detections": 100, "candidates": 50}, "at least post.detections"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        PostprocessConfig(**settings)  # type: ignore[arg-type]
