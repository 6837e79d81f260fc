"""Segmentations cut to a window: the part is what a crop of the whole mask is."""

import numpy as np
import pytest

from boxwright.data.masks.masks import area, encode, rasterise
from boxwright.data.masks.windows import cut_segmentation, shifted, window_of_runs

WINDOWS = [
    (0, 0, 40, 30),
    (5, 3, 10, 12),
    (30, 20, 10, 10),
    (0, 0, 1, 1),
    (39, 29, 1, 1),
    (12, 0, 3, 30),
    (0, 9, 40, 2),
]


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("compressed", [True, False])
def test_run_lengths_are_cropped(window: tuple[int, int, int, int], compressed: bool) -> None:
    x, y, width, height = window
    for seed in range(5):
        mask = np.random.default_rng(seed).random((30, 40)) < (0.02, 0.3, 0.7, 0.99, 0)[seed]
        runs = encode(mask)
        if not compressed:
            flat = mask.T.ravel()
            edges = np.flatnonzero(np.diff(flat, prepend=False)).tolist()
            runs["counts"] = np.diff([0, *edges, flat.size]).tolist()
        crop = mask[y : y + height, x : x + width]
        assert (window_of_runs(runs, window) == crop).all()
        part = cut_segmentation(runs, window)
        assert (part is None) == (not crop.any())
        if part is not None:
            assert (rasterise(part, height, width) == crop).all()


def test_polygons_are_cut() -> None:
    square = [10.0, 5.0, 30.0, 5.0, 30.0, 25.0, 10.0, 25.0]
    part = cut_segmentation([square], (20, 15, 20, 15))
    assert part is not None
    assert area(part) == 100
    assert sorted(zip(part[0][0::2], part[0][1::2], strict=True)) == [(0, 0), (0, 10), (10, 0), (10, 10)]  # type: ignore[index]
    assert cut_segmentation([square], (30, 0, 10, 10)) is None
    assert cut_segmentation([square, [35.0, 1.0, 38.0, 1.0, 38.0, 4.0]], (31, 0, 9, 9)) == [[4, 1, 7, 1, 7, 4]]
    assert shifted([square], (10, 5, 20, 20)) == [[0, 0, 20, 0, 20, 20, 0, 20]]


def test_polygons_over_all_tiles_have_the_area_of_the_whole() -> None:
    star = [
        20.0,
        1.0,
        24.0,
        12.0,
        38.0,
        12.5,
        27.0,
        18.0,
        31.0,
        29.0,
        20.0,
        22.0,
        9.0,
        29.0,
        13.0,
        18.0,
        2.0,
        12.5,
        16.0,
        12.0,
    ]
    parts = [cut_segmentation([star], (x, y, 10, 10)) for x in range(0, 40, 10) for y in range(0, 30, 10)]
    assert sum(area(part) for part in parts if part is not None) == pytest.approx(area([star]))
