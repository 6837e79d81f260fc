"""ATSS on a small scene, against the algorithm written out as loops, and its invariants."""

import pytest
import torch

from boxwright.anchors.generator import AnchorConfig, AnchorGenerator
from boxwright.anchors.matching.atss import ATSSMatcher
from boxwright.geometry.boxes import box_iou
from boxwright.structures import InputError, Level
from boxwright.testing import forbid_host_sync
from tests.support.boxes import random_boxes

SHAPES = [(8, 8), (4, 4), (2, 2)]
SIZES = [h * w for h, w in SHAPES]
ANCHORS = AnchorGenerator(
    AnchorConfig(sizes=((32,), (64,), (128,)), ratios=(1,), centre="cell"),
    [Level("P3", 16, 8), Level("P4", 32, 8), Level("P5", 64, 8)],
)(SHAPES, torch.device("cpu"))


def match(boxes: torch.Tensor, topk: int = 9):
    usable = torch.ones(boxes.shape[:2], dtype=torch.bool)
    return ATSSMatcher(topk=topk)(ANCHORS, SIZES, boxes, usable, ~usable)


def written_out(boxes: torch.Tensor, topk: int) -> list[int]:
    """Return the object of each anchor of one image, -1 for none, by loops."""
    centre, iou = (ANCHORS[:, :2] + ANCHORS[:, 2:]) / 2, box_iou(boxes, ANCHORS)
    owner, best = [-1] * len(ANCHORS), [-1.0] * len(ANCHORS)
    for g, box in enumerate(boxes):
        distance, start, near = (centre - (box[:2] + box[2:]) / 2).norm(dim=1), 0, []
        for size in SIZES:
            near += (distance[start : start + size].argsort()[: min(topk, size)] + start).tolist()
            start += size
        threshold = iou[g, near].mean() + iou[g, near].std()
        for a in near:
            x, y = centre[a].tolist()
            inside = min(x - box[0], y - box[1], box[2] - x, box[3] - y) > 0.01
            if iou[g, a] >= threshold and inside and iou[g, a] > best[a]:
                owner[a], best[a] = g, float(iou[g, a])
    return owner


def test_an_object_like_an_anchor_takes_that_level() -> None:
    matches = match(torch.tensor([[[32.0, 32, 64, 64]]]), topk=4)
    rows = matches.positive[0].nonzero().squeeze(1)
    assert rows.tolist() == [18, 19, 26, 27], "the four P3 cells whose centres are within"
    assert matches.negative.sum() == len(ANCHORS) - 4


@pytest.mark.parametrize("topk", [2, 9])
@pytest.mark.parametrize("seed", range(4))
def test_it_is_the_algorithm_written_out(seed: int, topk: int) -> None:
    boxes = random_boxes(6, seed)
    boxes = torch.cat([boxes[:, :2], boxes[:, 2:] + 10], 1)
    matches, owner = match(boxes[None], topk), torch.tensor(written_out(boxes, topk))
    assert matches.positive.any()
    assert torch.equal(matches.positive[0], owner >= 0)
    assert torch.equal(matches.truth[0], owner.clamp(min=0))


def test_every_object_of_some_size_gets_anchors() -> None:
    matches = match(torch.tensor([[[5.0, 5, 30, 40], [70, 60, 120, 120], [10, 60, 60, 90]]]))
    assert set(matches.truth[0, matches.positive[0]].tolist()) == {0, 1, 2}


@pytest.mark.parametrize("padded", [0, 3])
def test_an_image_without_objects_is_all_background(padded: int) -> None:
    no = torch.zeros(2, padded, dtype=torch.bool)
    matches = ATSSMatcher()(ANCHORS, SIZES, torch.zeros(2, padded, 4), no, no)
    assert not matches.positive.any()
    assert matches.negative.all()


def test_padding_changes_nothing() -> None:
    boxes = random_boxes(3) + torch.tensor([0, 0, 10, 10])
    usable = torch.tensor([[True, True, True, False, False]])
    padded = torch.cat([boxes, torch.zeros(2, 4)])[None]
    plain, more = match(boxes[None]), ATSSMatcher()(ANCHORS, SIZES, padded, usable, torch.zeros_like(usable))
    for mine, other in zip(plain, more, strict=True):
        assert torch.equal(mine, other)


def test_anchors_with_their_centre_in_a_crowd_are_ignored() -> None:
    boxes = torch.tensor([[[0.0, 0, 64, 64], [64, 64, 128, 128]]])
    matches = ATSSMatcher()(ANCHORS, SIZES, boxes, torch.tensor([[True, False]]), torch.tensor([[False, True]]))
    centre = (ANCHORS[:, :2] + ANCHORS[:, 2:]) / 2
    crowd = (centre > 64).all(1)
    assert crowd.any()
    assert not (matches.positive[0] & crowd).any()
    assert torch.equal(matches.negative[0], ~crowd & ~matches.positive[0])


def test_one_graph_without_host_sync() -> None:
    boxes = torch.stack([random_boxes(4), random_boxes(4, seed=1)])
    with forbid_host_sync():
        plain = match(boxes)
    matcher, usable = ATSSMatcher(topk=9), torch.ones(boxes.shape[:2], dtype=torch.bool)
    compiled = torch.compile(matcher, fullgraph=True, backend="aot_eager")(ANCHORS, SIZES, boxes, usable, ~usable)
    for mine, reference in zip(compiled, plain, strict=True):
        assert torch.equal(mine, reference)


def test_topk_must_be_positive() -> None:
    with pytest.raises(InputError, match="topk"):
        ATSSMatcher(topk=0)
