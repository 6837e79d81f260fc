"""Polygons that are cut to their image: every part where it is, and nothing beside."""

import numpy as np
import pytest

from boxwright.data.masks.clipping import cut_polygon
from boxwright.data.masks.masks import area, bounds, rasterise

U_AROUND_A_CORNER = [-54, 100, -54, 10, 56, 10, 56, 20, -44, 20, -44, 90, 10, 90, 10, 100]
"""Arms that reach into the image at the top and further down, joined to the left of it."""


@pytest.mark.parametrize(
    ("polygon", "parts"),
    [
        pytest.param([10, 10, 30, 10, 30, 30], [(10, 10, 30, 30)], id="whole"),
        pytest.param([-10, -10, 30, -10, 30, 30, -10, 30], [(0, 0, 30, 30)], id="over a corner"),
        pytest.param([-9, -9, 99, -9, 99, 99, -9, 99], [(0, 0, 64, 64)], id="all around"),
        pytest.param([0, 0, 64, 0, 64, 64, 0, 64], [(0, 0, 64, 64)], id="the border itself"),
        pytest.param([70, 5, 80, 5, 80, 9], [], id="outside"),
        pytest.param(U_AROUND_A_CORNER, [(0, 10, 56, 20)], id="one arm, the other below the image"),
        pytest.param([-50, -50, 50, -50, 50, 10, 40, 10, 40, -40, -40, -40, -40, 60, 8, 60, 8, 62, -50, 62],
                     [(0, 60, 8, 62), (40, 0, 50, 10)], id="two parts joined around a corner"),
        pytest.param([-5, 20, 9, 20, 9, 30, -3, 30, -3, -9, 70, -9, 70, 40, 60, 40, 60, 50, 80, 50, 80, -20, -5, -20],
                     [(0, 20, 9, 30), (60, 40, 64, 50)], id="two parts joined over the top"),
    ],
)  # fmt: skip
def test_parts_have_the_bounds_of_what_is_inside(
    polygon: list[float], parts: list[tuple[float, float, float, float]]
) -> None:
    for flat in (polygon, [v for pair in zip(polygon[-2::-2], polygon[::-2], strict=True) for v in pair]):
        found = cut_polygon([float(v) for v in flat], 64, 64)
        assert sorted(bounds([part]) for part in found) == parts


def test_parts_cover_the_pixels_that_the_whole_polygon_covers() -> None:
    """Star-shaped polygons around random centres, many of them over the border, as drawn by the COCO mask API."""
    rng = np.random.default_rng(0)
    several = 0
    for _ in range(300):
        angles = np.sort(rng.uniform(0, 2 * np.pi, 12))
        radii = rng.choice([4, 50], 12)
        x, y = rng.uniform(-10, 74, 2)
        flat = np.stack([x + radii * np.cos(angles), y + radii * np.sin(angles)], 1)
        parts = cut_polygon(flat.ravel().tolist(), 64, 64)
        several += len(parts) > 1
        large = rasterise([(flat + 64).ravel().tolist()], 192, 192)[64:128, 64:128]
        drawn = rasterise(parts, 64, 64) if parts else np.zeros((64, 64), dtype=bool)
        assert (drawn ^ large).sum() <= 0.02 * large.sum() + 64, (flat, parts)
        if parts:
            x1, y1, x2, y2 = bounds(parts)
            rows, columns = np.nonzero(rasterise([(flat * 8).ravel().tolist()], 512, 512))
            if len(rows):
                exact = (columns.min() / 8, rows.min() / 8, (columns.max() + 1) / 8, (rows.max() + 1) / 8)
                assert (x1, y1, x2, y2) == pytest.approx(exact, abs=4)  # a needle has no pixels at its tip
    assert several > 10
    assert area(cut_polygon([0.0, 0, 10, 0, 10, 10, 0, 10], 64, 64)) == 100
