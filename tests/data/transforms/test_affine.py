"""Random affine transform: pixels, masks and boxes at places computed by hand, and the rules of what is kept."""

from dataclasses import replace
from math import sqrt

import pytest
import torch

from boxwright.data.transforms.affine import Affine, AffineConfig, draw, transformed
from boxwright.data.transforms.configs import build_transform
from boxwright.data.transforms.sample import mask_bounds
from tests.support.tiny_index import generator, painted

STILL = AffineConfig(rotate=0, shear=0, scale=(1.0, 1.0), translate=0, fill=(0, 0, 0), min_visible=0, min_size=0)
QUARTER = (0.0, -1.0, 1.0, 0.0)
"""The x axis turns to the y axis: 90 degrees clockwise in an image."""
EIGHTH = (sqrt(0.5), -sqrt(0.5), sqrt(0.5), sqrt(0.5))


def test_a_transform_that_does_nothing_keeps_every_pixel_and_box() -> None:
    before = painted([[5, 8, 35, 28], [50, 10, 80, 50]])
    after = build_transform([STILL])(before, generator())
    assert torch.equal(after.image, before.image)
    assert torch.equal(after.boxes, before.boxes)
    assert torch.equal(after.masks, before.masks)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("masks", [True, False])
@pytest.mark.parametrize(
    ("matrix", "shift", "boxes", "why"),
    [
        ((1.0, 0.0, 0.0, 1.0), (10.0, -4.0), [[15, 4, 45, 24]], "the shift is right and down"),
        ((0.5, 0.0, 0.0, 0.5), (0.0, 0.0), [[25, 19, 40, 29]], "about the centre (45, 30): 45 - 40/2 = 25"),
        ((2.0, 0.0, 0.0, 2.0), (0.0, 0.0), [[0, 0, 25, 26]], "cut at the edge: -35 and -14 become 0"),
        (QUARTER, (0.0, 0.0), [[47, 0, 67, 20]], "(5, 8) goes to (45 + 22, 30 - 40), and is cut"),
    ],
)
def test_boxes_and_pixels_go_where_the_matrix_sends_them(
    masks: bool, matrix: tuple[float, float, float, float], shift: tuple[float, float], boxes: list, why: str
) -> None:
    before = painted([[5, 8, 35, 28]])
    before = before if masks else replace(before, masks=None)
    after = transformed(before, Affine((60, 90), matrix, shift), STILL)
    assert after.boxes.tolist() == boxes, why
    assert mask_bounds((after.image[0] > 127)[None]).tolist() == boxes, why
    if masks:
        assert mask_bounds(after.masks).tolist() == boxes, why  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("bounds", "half"),
    [("corners", (10 + 20) * sqrt(0.5)), ("ellipse", sqrt((10**2 + 20**2) / 2))],
)
def test_the_box_of_a_rotated_object_without_a_mask(bounds, half: float) -> None:
    """A box of 20 x 40 at the centre, turned by 45 degrees."""
    before = replace(painted([[30, 30, 50, 70]], 100, 80), masks=None)
    after = transformed(before, Affine((100, 80), EIGHTH, (0.0, 0.0)), replace(STILL, bounds=bounds))
    torch.testing.assert_close(after.boxes, torch.tensor([[40 - half, 50 - half, 40 + half, 50 + half]]))


def test_a_mask_gives_the_closest_box() -> None:
    """A triangle, half of its box: turned by 45 degrees its long side is level, and half the corners' box is empty."""
    before = painted([[30, 30, 50, 50]], 80, 80)
    before.masks[0, 30:50, 30:50] &= torch.ones((20, 20), dtype=torch.bool).tril()  # type: ignore[index]
    after = transformed(before, Affine((80, 80), EIGHTH, (0.0, 0.0)), STILL)
    assert after.masks is not None
    torch.testing.assert_close(mask_bounds(after.masks), after.boxes, atol=1.0, rtol=0)
    x1, y1, x2, y2 = after.boxes[0].tolist()
    assert (x1 + x2) / 2 == pytest.approx(40 - 10 * sqrt(0.5), abs=1)  # corners alone would be centred at 40
    assert x2 - x1 == pytest.approx(10 * sqrt(2), abs=1)
    assert y2 - y1 == pytest.approx(20 * sqrt(2), abs=1)


@pytest.mark.parametrize(
    ("config", "kept"),
    [
        ({"min_visible": 0.6}, [1]),  # half of object 0 is left; object 1 is a crowd
        ({"min_visible": 0.4}, [0, 1]),
        ({"min_size": 6.0}, [0]),  # 5 pixels of the crowd are left
    ],
)
def test_what_is_hardly_left_is_dropped(config: dict[str, float], kept: list[int]) -> None:
    before = painted([[0, 0, 20, 10], [0, 20, 15, 40], [0, 50, 9, 55]])
    after = transformed(before, Affine((60, 90), (1.0, 0.0, 0.0, 1.0), (-10.0, 0.0)), replace(STILL, **config))
    assert after.labels.tolist() == kept
    assert after.with_mask is None


def test_draws_reach_the_whole_range_and_no_further() -> None:
    config = AffineConfig(rotate=30, shear=0, scale=(0.5, 2.0), translate=0.2)
    moves = [draw((100, 200), config, generator(seed)) for seed in range(300)]
    scales = [sqrt(m.matrix[0] ** 2 + m.matrix[2] ** 2) for m in moves]
    angles = [m.matrix[2] / scale for m, scale in zip(moves, scales, strict=True)]  # the sine
    right, down = ([m.shift[axis] for m in moves] for axis in (0, 1))
    for values, low, high in ((scales, 0.5, 2.0), (angles, -0.5, 0.5), (right, -40, 40), (down, -20, 20)):
        room = (high - low) / 20
        assert low <= min(values) < low + room
        assert high - room < max(values) <= high


def test_fill_and_fractions() -> None:
    before = painted([], 20, 20)
    before.image[:] = 100
    move = Affine((20, 20), (1.0, 0.0, 0.0, 1.0), (5.5, 0.0))
    after = transformed(before, move, replace(STILL, fill=(1, 2, 3)))
    assert after.image[:, 0, 4].tolist() == [1, 2, 3]
    assert after.image[:, 0, 6].tolist() == [100, 100, 100]  # half a pixel beyond its centre the edge is repeated
    fractions = transformed(replace(before, image=before.image + 0.25), move, STILL)
    assert float(fractions.image[0, 0, 10]) == 100.25


def test_proposals_move_with_the_boxes() -> None:
    before = replace(painted([[5, 8, 35, 28]]), proposals=torch.tensor([[5.0, 8, 35, 28], [0, 0, 4, 4]]))
    after = transformed(before, Affine((60, 90), (1.0, 0.0, 0.0, 1.0), (-4.0, 0.0)), STILL)
    assert after.proposals.tolist() == [[1, 8, 31, 28]]  # type: ignore[union-attr]


def test_an_object_without_a_mask_among_others_has_the_bounds_of_the_configuration() -> None:
    """Its mask is its filled box, whose corners would always count."""
    before = replace(painted([[25, 10, 65, 50], [25, 10, 65, 50]]), with_mask=torch.tensor([True, False]))
    config = replace(STILL, rotate=45.0, bounds="ellipse")
    after = transformed(before, Affine(before.size, EIGHTH, (0.0, 0.0)), config)
    middle, half = torch.tensor([45.0, 30.0, 45.0, 30.0]), torch.tensor([-1.0, -1.0, 1.0, 1.0])
    assert after.boxes[0] == pytest.approx(middle + half * 20 * sqrt(2), abs=1e-4)  # the corners of the mask
    assert after.boxes[1] == pytest.approx(middle + half * 20, abs=1e-4)  # a circle stays as wide
