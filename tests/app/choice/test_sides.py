"""The canvas: the shape of the images, in whole cells, and no larger than asked for."""

import numpy as np
import pytest

from boxwright.app.choice.candidate import Wishes
from boxwright.app.choice.sides import canvas, choose_size, object_pixels, on_canvas, shape
from boxwright.app.choice.table import DETECTORS
from boxwright.recipes import get_recipe
from tests.support.choice_cases import boxes_index, task_of


@pytest.mark.parametrize(
    ("height", "width", "pixels", "expected"),
    [
        (480, 640, 192 * 256, (192, 256)),
        (640, 480, 192 * 256, (256, 192)),
        (480, 640, 288 * 384, (288, 384)),
        (100, 100, 192 * 256, (224, 224)),
        (1080, 1920, 288 * 384, (256, 448)),
    ],
)
def test_canvas_has_the_shape_of_the_images(height, width, pixels, expected):
    assert canvas(np.array([[height, width]] * 3), pixels) == expected


def test_canvas_of_images_both_ways_up_is_nearly_square():
    high, wide = canvas(np.array([[480, 640], [640, 480]]), 288 * 384)
    assert abs(high - wide) <= 32


def test_canvas_comes_in_whole_cells_and_is_never_a_strip():
    high, wide = canvas(np.array([[50, 5000]]), 192 * 256, multiple=64)
    assert high % 64 == wide % 64 == 0
    assert wide <= 3 * high


def test_small_objects_get_more_pixels():
    faster = DETECTORS[1]
    sizes = [choose_size(task_of(boxes_index(side=side)), Wishes(), faster)[0] for side in (130.0, 100.0, 35.0, 5.0)]
    assert sizes == [(192, 256), (256, 352), (352, 448), (352, 448)]
    assert object_pixels(boxes_index(side=100.0), (192, 256), 0.5) == pytest.approx(40.0)


def test_small_images_are_not_enlarged_much():
    size, why = choose_size(task_of(boxes_index(size=(120, 160), side=8.0)), Wishes(), DETECTORS[1])
    assert size == (192, 256)
    assert "only enlarge" in why


def test_recipe_that_trains_at_several_sizes_takes_one_canvas():
    recipe = on_canvas(get_recipe("yolov3-lite0"), (192, 256))
    assert recipe.data.multi_scale is None
    assert shape(recipe.data.eval[-1].size) == "192x256"  # type: ignore[union-attr]
