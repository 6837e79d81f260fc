"""Assignment of ground truth to anchors by shape, on small tables."""

import pytest
import torch

from boxwright.anchors.matching.shape_matcher import Pairs, ShapeMatcher
from boxwright.structures import InputError

# Two levels on a 32 x 32 input: 4 x 4 cells of 8 pixels with two anchors, 2 x 2 cells of 16 pixels with one.
MATCHER = ShapeMatcher(anchors=((4.0, 4.0), (8.0, 16.0), (24.0, 24.0)), masks=((0, 1), (2,)), strides=(8, 16))
SHAPES = [(4, 4), (2, 2)]
FINE = 4 * 4 * 2


def match(boxes: list[list[float]], labels: list[int], matcher: ShapeMatcher = MATCHER, classes: int = 3) -> Pairs:
    count = len(boxes)
    usable = torch.ones(1, count, dtype=torch.bool)
    return matcher(SHAPES, torch.tensor(boxes).reshape(1, count, 4), torch.tensor([labels]), usable, classes)


def assigned(pairs: Pairs) -> dict[int, tuple[int, list[float]]]:
    """Return the ground truth and the classes of each assigned predictor."""
    rows = pairs.valid[0].nonzero().squeeze(1).tolist()
    found = {int(pairs.predictor[0, r]): (int(pairs.truth[0, r]), pairs.labels[0, r].tolist()) for r in rows}
    assert len(found) == len(rows), "one row a predictor"
    return found


@pytest.mark.parametrize(
    ("box", "predictor", "why"),
    [
        ([9, 1, 13, 5], (0 * 4 + 1) * 2 + 0, "4 x 4, centre in column 1 of row 0"),
        ([0, 8, 8, 24], (2 * 4 + 0) * 2 + 1, "8 x 16, centre in column 0 of row 2"),
        ([8, 8, 32, 32], FINE + 1 * 2 + 1, "24 x 24 belongs to the coarse level"),
        ([30, 30, 32, 32], (3 * 4 + 3) * 2 + 0, "2 x 2 fits the smallest"),
        ([16, 16, 16, 16], (2 * 4 + 2) * 2 + 0, "no size at all: the first"),
        ([28, 28, 36, 36], (3 * 4 + 3) * 2 + 1, "8 x 8 fits 8 x 16 best; a centre on the border counts in"),
    ],
)  # fmt: skip
def test_cell_of_the_centre_and_anchor_of_the_shape(box: list[float], predictor: int, why: str) -> None:
    assert list(assigned(match([box], [0]))) == [predictor], why


def test_the_last_of_two_has_the_box_and_both_have_their_class() -> None:
    pairs = match([[9, 1, 13, 5], [0, 8, 8, 24], [10, 2, 14, 6]], [0, 1, 2])
    assert assigned(pairs) == {2: (2, [1, 0, 1]), 17: (1, [0, 1, 0])}


def test_rows_that_are_padding_learn_nothing() -> None:
    usable = torch.tensor([[False, True]])
    boxes = torch.tensor([[[9.0, 1, 13, 5], [10, 2, 14, 6]]])
    assert assigned(MATCHER(SHAPES, boxes, torch.tensor([[0, 1]]), usable, 2)) == {2: (1, [0, 1])}
    none = MATCHER(SHAPES, torch.zeros(1, 0, 4), torch.zeros(1, 0, dtype=torch.int64), torch.zeros(1, 0).bool(), 2)
    assert none.valid.shape == (1, 0)
    assert none.labels.shape == (1, 0, 2)


def test_an_anchor_on_two_levels_learns_on_both_and_one_on_none_not_at_all() -> None:
    """The masks 1,2,3 of the released YOLOv3-tiny."""
    matcher = ShapeMatcher(anchors=MATCHER.anchors, masks=((1, 2), (2,)), strides=(8, 16))
    assert set(assigned(match([[8, 8, 32, 32]], [0], matcher))) == {(2 * 4 + 2) * 2 + 1, FINE + 3}
    assert assigned(match([[9, 1, 13, 5]], [0], matcher)) == {}


def test_every_fitting_anchor_may_learn() -> None:
    matcher = ShapeMatcher(anchors=MATCHER.anchors, masks=MATCHER.masks, strides=(8, 16), also_above=0.2)
    # 8 x 8 with 4 x 4, 8 x 16, 24 x 24: shape IoU .25, .5, .11.
    assert set(assigned(match([[0, 0, 8, 8]], [0], matcher))) == {0, 1}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"anchors": ()}, "anchors = .* at least 1 item"),
        ({"anchors": ((1.0, 0.0),)}, r"anchors\.0\.1 = 0\.0: should be greater than 0"),
        ({"masks": ((0,),)}, "each of the 2 levels"),
        ({"masks": ((0,), ())}, r"masks\.1 = .* at least 1 item"),
        ({"masks": ((0,), (3,))}, r"outside 0\.\.2"),
    ],
)
def test_bad_tables_are_named(fields: dict, message: str) -> None:
    good = {"anchors": MATCHER.anchors, "masks": MATCHER.masks, "strides": (8, 16)}
    with pytest.raises(InputError, match=message):
        ShapeMatcher(**{**good, **fields})
