"""Near-duplicates are found whatever was done to the copy, and different images are not taken for them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageDraw

from boxwright.data.similarity.search import find_similar
from boxwright.data.similarity.thumbnails import thumbnail
from tests.support.photographs import CHANGES, photograph


def thumbnails(images: list[Image.Image]) -> np.ndarray:
    return np.stack([thumbnail(np.asarray(image.convert("RGB"))) for image in images])


@pytest.fixture(scope="module")
def originals() -> list[Image.Image]:
    return [photograph(seed) for seed in range(30)]


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_found_among_other_images(change: str, originals: list[Image.Image]) -> None:
    copies = [CHANGES[change](image) for image in originals[:10]]
    found = find_similar(thumbnails([*originals, *copies]))
    assert found.pairs == [(i, 30 + i) for i in range(10)]
    assert found.groups[:10].tolist() == found.groups[30:].tolist()
    assert len(set(found.groups.tolist())) == 30


def test_different_images_are_not_found() -> None:
    found = find_similar(thumbnails([photograph(seed) for seed in range(1000, 1400)]))
    assert found.pairs == []
    assert len(set(found.groups.tolist())) == 400


def page(seed: int) -> Image.Image:
    """Draw lines of words on white paper; all pages have the same margins."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (620, 877), "white")
    draw = ImageDraw.Draw(image)
    for y in range(70, 800, 16):
        x, end = 60, 560 if rng.random() < 0.8 else int(rng.integers(120, 560))
        while x < end and rng.random() > 0.01:
            width = int(rng.integers(8, 50))
            draw.rectangle((x, y, min(x + width, end), y + 7), fill=(40, 40, 40))
            x += width + 6
    return image


def slope(seed: int) -> Image.Image:
    """Draw the same soft gradient, as of a lit wall, with fine noise."""
    rng = np.random.default_rng(seed)
    light = np.linspace(80, 170, 200)[None, :, None] + np.linspace(0, 30, 150)[:, None, None]
    return Image.fromarray(np.clip(light + rng.normal(0, 8, (150, 200, 3)), 0, 255).astype(np.uint8))


def plain(seed: int) -> Image.Image:
    return Image.new("RGB", (60, 40), (seed * 9, 100, 100))


def texture(seed: int) -> Image.Image:
    """Draw fine noise without larger structure, as of sand or grass from above."""
    pixels = np.random.default_rng(seed).integers(60, 120, (256, 256, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("draw", [page, plain, texture, slope])
def test_images_of_one_kind_are_not_near_duplicates(draw: Callable[[int], Image.Image]) -> None:
    found = find_similar(thumbnails([draw(seed) for seed in range(20)]))
    assert found.pairs == []


def test_frames_of_a_video_are_one_group_and_two_videos_two() -> None:
    def frames(seed: int, step: float) -> list[Image.Image]:
        scene = photograph(seed, 480, 240)
        return [scene.crop((round(k * step), 0, round(k * step) + 320, 240)) for k in range(12)]

    found = find_similar(thumbnails([*frames(1, 6), *frames(2, 10)]))
    assert found.groups.tolist() == [0] * 12 + [1] * 12
    assert len(found.pairs) == 22  # enough to connect each group


def test_a_long_still_video_costs_no_more_than_its_frames() -> None:
    images = thumbnails([photograph(0)] * 5)
    rng = np.random.default_rng(0)
    noisy = np.clip(images[:1].astype(int) + rng.integers(-2, 3, (1500, 64, 64)), 0, 255).astype(np.uint8)
    found = find_similar(noisy)
    assert len(set(found.groups.tolist())) == 1
    assert len(found.pairs) == 1499


def test_no_images_and_one_image_have_no_pairs() -> None:
    assert find_similar(np.zeros((0, 64, 64), dtype=np.uint8)).pairs == []
    found = find_similar(thumbnails([photograph(0)]))
    assert (found.groups.tolist(), found.pairs) == ([0], [])
