"""Masks compared with pycocotools, damaged encodings, and outlines that rasterise back to their mask."""

import numpy as np
import pytest
from pycocotools import mask as reference

from boxwright.data.masks import masks
from boxwright.data.masks.contours import one_polygon, outlines

TRIANGLE = [2.5, 1.0, 17.0, 3.25, 9.0, 15.5]


def blob(seed: int, size: tuple[int, int] = (24, 31)) -> np.ndarray:
    """Draw smoothed noise, with several regions, holes and touching corners."""
    noise = np.random.default_rng(seed).random((size[0] + 2, size[1] + 2))
    return sum(noise[y : y + size[0], x : x + size[1]] for y in range(3) for x in range(3)) > 4.5


def test_polygons_rasterise_as_the_reference_does() -> None:
    polygons = [TRIANGLE, [20.0, 2.0, 28.0, 2.0, 28.0, 12.5, 20.0, 12.5]]
    expected = reference.decode(reference.merge(reference.frPyObjects(polygons, 24, 31))).astype(bool)
    np.testing.assert_array_equal(masks.rasterise(polygons, 24, 31), expected)
    np.testing.assert_allclose(masks.area(polygons), 8 * 10.5 + abs((14.5 * 14.5) - (6.5 * 2.25)) / 2)


@pytest.mark.parametrize("seed", range(3))
def test_run_lengths_compressed_and_not(seed: int) -> None:
    mask = blob(seed)
    encoded = masks.encode(mask)
    assert encoded == {
        "size": [24, 31],
        "counts": reference.encode(np.asfortranarray(mask, np.uint8))["counts"].decode(),
    }
    plain = {"size": [24, 31], "counts": masks.decompress_counts(encoded["counts"])}
    assert all(isinstance(run, int) and run >= 0 for run in plain["counts"])
    for segmentation in (encoded, plain):
        np.testing.assert_array_equal(masks.rasterise(segmentation, 24, 31), mask)
        assert masks.area(segmentation) == mask.sum()
        assert masks.defect(segmentation, 24, 31) is None


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([[1, 2, 3, 4]], "4 coordinates"),
        ([[1, 2, 3, 4, 5, 6, 7]], "7 coordinates"),
        ([[1, 2, 3, 4, 5, float("nan")]], "not finite"),
        (["poly"], "one list of 1 values"),
        ([1, 2, 9, 2, 9, 9], "one list of 6 values"),
        ([[1, 2], [9, 2], [9, 9]], "one list of 3 points"),
        ([[1, 2], "poly"], "2 coordinates"),
        ([[1, 2, 9, 2, 9, 9], "poly"], "not str"),
        ([[1, 2, 9, 2, 9, True]], "coordinate 'True', which is no number"),
        ([[1, 2, 9, 2, 9, 1e300]], "coordinate 1e+300, far outside its image"),
        ([[1, 2, 9, 2, 9, 10**1000]], "far outside its image"),
        ({"size": [24, 31], "counts": [743, True]}, "text or a list"),
        ({"size": [24, 31], "counts": "o" * 100_000}, "a number is too long"),
        ("poly", "not str"),
        ({"size": [3, 4], "counts": "0"}, "is for size"),
        ({"size": [24, 31], "counts": [700, 100]}, "covers 800 pixels, the image has 744"),
        ({"size": [24, 31], "counts": [800, -56]}, "covers"),
        ({"size": [24, 31], "counts": "o"}, "ends within a number"),
        ({"size": [24, 31], "counts": " "}, "is invalid"),
        ({"size": [24, 31], "counts": None}, "text or a list"),
    ],
)
def test_defects(segmentation: object, message: str) -> None:
    assert message in (masks.defect(segmentation, 24, 31) or "no defect")


@pytest.mark.parametrize("seed", range(5))
def test_outlines_give_the_mask_back_with_holes_filled(seed: int) -> None:
    mask = blob(seed)
    polygons = outlines(mask)
    filled = np.zeros_like(mask)
    for polygon in polygons:
        filled |= masks.rasterise([polygon], *mask.shape)
    assert (filled & mask).sum() == mask.sum()
    assert len(polygons) > 1
    # Only holes were filled: a flood of the empty pixels from the border does not reach the new ones.
    reached = np.zeros(np.array(mask.shape) + 2, dtype=bool)
    reached[0] = True
    empty = np.pad(~mask, 1, constant_values=True)
    for _ in range(reached.size):
        grown = reached.copy()
        for y, x in ((0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1)):
            grown |= np.roll(reached, (y, x), (0, 1))
        grown &= empty
        if (grown == reached).all():
            break
        reached = grown
    assert not (filled & ~mask & reached[1:-1, 1:-1]).any()


def test_outline_of_a_rectangle_has_its_four_corners() -> None:
    mask = np.zeros((6, 7), dtype=bool)
    mask[1:4, 2:7] = True
    (polygon,) = outlines(mask)
    corners = {(polygon[i], polygon[i + 1]) for i in range(0, len(polygon), 2)}
    assert corners == {(2, 1), (7, 1), (7, 4), (2, 4)}
    assert outlines(np.zeros((4, 4), dtype=bool)) == []


def test_one_polygon_keeps_area_and_extent() -> None:
    squares = [[0.0, 0, 4, 0, 4, 4, 0, 4], [10.0, 0, 14, 0, 14, 4, 10, 4], [5.0, 9, 8, 9, 8, 12]]
    joined = one_polygon(squares)
    assert joined is not None
    assert masks.area([joined]) == masks.area(squares)
    assert (min(joined[0::2]), max(joined[0::2]), max(joined[1::2])) == (0, 14, 12)
    assert one_polygon([squares[0]]) == squares[0]
    assert one_polygon([]) is None
