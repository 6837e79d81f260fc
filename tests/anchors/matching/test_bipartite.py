"""Bipartite matching by the rules of Caffe and of the ports, on small tables."""

import pytest
import torch

from boxwright.anchors.matching.bipartite import BipartiteMatcher, bipartite
from boxwright.anchors.matching.matcher import Matcher
from boxwright.geometry.boxes import box_iou
from boxwright.structures import InputError
from boxwright.testing import forbid_host_sync
from tests.support.boxes import random_boxes

CLASH = torch.tensor([[[0.60, 0.40], [0.70, 0.30]]])


def flags(count: int, *true: int) -> torch.Tensor:
    """Return the flags of one image, bool ``[1, count]``, with those at ``true`` set."""
    return torch.tensor([[i in true for i in range(count)]])


def dense_kernel(iou: torch.Tensor, floor: float) -> torch.Tensor:
    """Run the operator as on all devices other than the CPU."""
    return bipartite._init_fn(iou, floor)


def written_out(iou: torch.Tensor, floor: float) -> list[int]:
    """Apply the greedy rule to one image by loops."""
    table, own = iou.clone(), [-1] * len(iou)
    while table.numel() and (best := table.max()) > floor:
        row, column = divmod(int((table == best).flatten().to(torch.uint8).argmax()), table.shape[1])
        own[row] = column
        table[row], table[:, column] = -1, -1
    return own


@pytest.mark.parametrize("kernel", [bipartite, dense_kernel])
def test_greedy_resolves_a_clash_for_the_better_pair(kernel) -> None:
    assert kernel(CLASH, 1e-6).tolist() == [[1, 0]]


@pytest.mark.parametrize("kernel", [bipartite, dense_kernel])
@pytest.mark.parametrize(("rows", "columns"), [(6, 40), (5, 3), (1, 1), (4, 4)])
def test_greedy_is_the_rule_written_out_ties_included(kernel, rows: int, columns: int) -> None:
    generator = torch.Generator().manual_seed(rows)
    iou = torch.rand((8, rows, columns), generator=generator).mul(6).round() / 6  # many ties, some zeros
    iou[:, -1] = torch.where(torch.rand(8, 1, generator=generator) < 0.5, -1.0, iou[:, -1])
    assert kernel(iou, 1e-6).tolist() == [written_out(image, 1e-6) for image in iou]


def test_operator_is_well_formed_for_the_compiler() -> None:
    torch.library.opcheck(bipartite, (torch.rand(2, 3, 5), 1e-6))


# Two anchors; object 0 has IoU .6 and .4 with them, object 1 has .7 and .3. Built from boxes of one height.
ANCHORS = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 4]])


def match(strategy: str, boxes: torch.Tensor, anchors: torch.Tensor = ANCHORS, **settings):
    count = boxes.shape[0]
    matcher = BipartiteMatcher(strategy=strategy, **settings)  # type: ignore[arg-type]
    return matcher(anchors, boxes[None], flags(count, *range(count)), flags(count))


def test_the_two_rules_differ_where_two_objects_want_one_anchor() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 6], [0, 0, 10, 7]])
    torch.testing.assert_close(box_iou(boxes, ANCHORS), torch.tensor([[0.6, 4 / 6], [0.7, 4 / 7]]))
    greedy = match("greedy", boxes)
    assert greedy.positive.tolist() == [[True, True]]
    assert greedy.truth.tolist() == [[1, 0]]
    both = torch.tensor([[0.0, 0, 10, 8], [0, 0, 10, 9]])  # .8, .5 and .9, .44: both want anchor 0
    assert match("greedy", both, positive=0.6).truth.tolist() == [[1, 0]]
    assert match("greedy", both, positive=0.6).positive.tolist() == [[True, True]]
    parallel = match("parallel", both, positive=0.6)
    assert parallel.truth[0, 0].item() == 1, "the later one wins"
    assert parallel.positive.tolist() == [[True, False]], "the other is left without"


def test_in_parallel_the_later_object_wins_even_with_the_lower_iou() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 9], [0, 0, 10, 8]])
    assert match("parallel", boxes).truth[0, 0].item() == 1
    assert match("greedy", boxes).truth[0, 0].item() == 0


def test_an_object_that_touches_nothing_takes_an_anchor_only_in_the_ports() -> None:
    far = torch.tensor([[50.0, 50, 60, 60]])
    assert not match("greedy", far).positive.any()
    assert match("greedy", far).negative.all()
    assert match("parallel", far).positive.tolist() == [[True, False]]


def test_the_threshold_itself_is_positive() -> None:
    anchors = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 4.9]])
    matches = match("greedy", torch.tensor([[0.0, 0, 10, 10]]), anchors)
    assert matches.positive.tolist() == [[True, True, False]]
    assert matches.negative.tolist() == [[False, False, True]]
    between = match("greedy", torch.tensor([[0.0, 0, 10, 10]]), anchors, positive=0.7, negative=0.5)
    assert between.positive.tolist() == [[True, False, False]]
    assert between.negative.tolist() == [[False, False, True]], "0.5 to 0.7 is ignored"


@pytest.mark.parametrize("strategy", ["greedy", "parallel"])
def test_where_objects_agree_with_their_anchors_it_is_plain_matching(strategy: str) -> None:
    anchors = random_boxes(300, seed=2)
    boxes = anchors[::30]
    matches = match(strategy, boxes, anchors)
    count = len(boxes)
    plain = Matcher(positive=0.5, negative=0.5)(anchors, boxes[None], flags(count, *range(count)), flags(count))
    assert torch.equal(matches.positive, plain.positive)
    assert torch.equal(matches.negative, plain.negative)
    assert torch.equal(matches.truth[matches.positive], plain.truth[plain.positive])


@pytest.mark.parametrize("strategy", ["greedy", "parallel"])
@pytest.mark.parametrize("padded", [0, 4])
def test_an_image_without_objects_is_all_background(strategy: str, padded: int) -> None:
    no = torch.zeros(2, padded, dtype=torch.bool)
    matches = BipartiteMatcher(strategy=strategy)(ANCHORS, torch.zeros(2, padded, 4), no, no)  # type: ignore[arg-type]
    assert not matches.positive.any()
    assert matches.negative.all()


@pytest.mark.parametrize("strategy", ["greedy", "parallel"])
def test_padding_and_other_images_change_nothing(strategy: str) -> None:
    anchors = torch.stack([random_boxes(80, seed=i) for i in range(2)])
    boxes = torch.stack([random_boxes(5, seed=7), torch.cat([random_boxes(2, seed=8), torch.zeros(3, 4)])])
    usable = torch.tensor([[True] * 5, [True, True, False, False, False]])
    matcher = BipartiteMatcher(strategy=strategy)  # type: ignore[arg-type]
    batch = matcher(anchors, boxes, usable, torch.zeros_like(usable))
    for i, count in enumerate((5, 2)):
        alone = matcher(anchors[i], boxes[i : i + 1, :count], usable[i : i + 1, :count], flags(count))
        assert torch.equal(batch.positive[i], alone.positive[0])
        assert torch.equal(batch.negative[i], alone.negative[0])
        assert torch.equal(batch.truth[i][batch.positive[i]], alone.truth[0][alone.positive[0]])


def test_crowd_regions_match_nothing_and_shade_only_when_asked() -> None:
    boxes = torch.tensor([[[0.0, 0, 10, 10], [30, 30, 40, 40]]])
    for ignore, negatives in ((None, [True, True]), (0.7, [False, False])):
        matches = BipartiteMatcher(crowd_ignore=ignore)(ANCHORS, boxes, flags(2, 1), flags(2, 0))
        assert not matches.positive.any()
        assert matches.negative.tolist() == [negatives]


def test_anchors_left_out_are_neither_and_the_object_takes_another() -> None:
    boxes = torch.tensor([[[0.0, 0, 10, 9]]])
    matches = BipartiteMatcher(positive=0.6)(ANCHORS, boxes, flags(1, 0), flags(1), allowed=flags(2, 1))
    assert matches.positive.tolist() == [[False, True]]
    assert not matches.negative.any()


def test_thresholds_out_of_order_are_refused() -> None:
    with pytest.raises(InputError, match=r"negative = 0\.6: must not be above positive = 0\.5"):
        BipartiteMatcher(positive=0.5, negative=0.6)


@pytest.mark.parametrize("strategy", ["greedy", "parallel"])
def test_one_graph_for_any_number_of_objects_and_no_waiting(strategy: str) -> None:
    torch._dynamo.reset()
    matcher = BipartiteMatcher(strategy=strategy)  # type: ignore[arg-type]
    compiled = torch.compile(matcher.__call__, fullgraph=True, backend="aot_eager")
    anchors = random_boxes(50)
    for count in (3, 9, 12):
        boxes = random_boxes(count, seed=count)[None]
        arguments = (anchors, boxes, flags(count, *range(count)), flags(count))
        with forbid_host_sync():
            plain = matcher(*arguments)
        for mine, reference in zip(compiled(*arguments), plain, strict=True):
            assert torch.equal(mine, reference)
