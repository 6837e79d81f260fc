"""The fit of one image to another: a crop is found again to a fraction of a pixel."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from boxwright.data.similarity.alignment import Fit, agreement, fit, sample
from tests.support.photographs import cropped, photograph


def grey(image: Image.Image, side: int = 32) -> np.ndarray:
    return np.asarray(image.resize((side, side), Image.Resampling.BOX).convert("L"), dtype=np.float32)


CROPS = [(0.0, 0.0, 0.0, 0.0), (0.05, 0.05, 0.05, 0.05), (0.08, 0.0, 0.0, 0.0), (0.0, 0.03, 0.06, 0.02)]


@pytest.mark.parametrize("crop", CROPS)
def test_a_crop_is_found_again(crop: tuple[float, float, float, float]) -> None:
    left, top, right, bottom = crop
    images = [photograph(seed, 640, 480) for seed in range(4)]
    first = np.stack([grey(cropped(image, *crop)) for image in images])
    second = np.stack([grey(image) for image in images])
    fitted = fit(first, second, 6)
    expected = [1 - left - right, (left - right) / 2, 1 - top - bottom, (top - bottom) / 2]
    assert np.abs(fitted.parameters - expected).max() < 0.015  # half a pixel
    assert agreement(first, second, fitted).min() > 0.93
    rows = np.array([2, 0])
    assert (fitted.of(rows).parameters == fitted.parameters[rows]).all()


def test_different_images_do_not_agree_however_they_are_fitted() -> None:
    first = np.stack([grey(photograph(seed)) for seed in range(20)])
    second = np.stack([grey(photograph(seed)) for seed in range(20, 40)])
    assert agreement(first, second, fit(first, second, 6)).max() < 0.6


def test_sampling_at_the_pixels_themselves_changes_nothing_and_halfway_gives_the_mean() -> None:
    image = np.arange(16, dtype=np.float32).reshape(1, 4, 4)
    across, down = Fit(np.array([[1.0, 0.0, 1.0, 0.0]])).positions(4)
    assert sample(image, across, down)[0].tolist() == image[0].tolist()
    across, down = Fit(np.array([[1.0, 0.125, 1.0, 0.0]])).positions(4)  # half a pixel to the right
    assert sample(image, across, down)[0, 0].tolist() == [0.5, 1.5, 2.5, 3.0]
