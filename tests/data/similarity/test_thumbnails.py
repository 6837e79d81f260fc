"""Thumbnails: upright, of one size, alike from a file and from its pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from boxwright.data.images import read_image, read_reduced
from boxwright.data.similarity.thumbnails import read_thumbnails, thumbnail
from boxwright.structures import InputError
from tests.support.photographs import photograph


def test_a_thumbnail_has_the_mean_of_each_part() -> None:
    pixels = np.zeros((128, 192, 3), dtype=np.uint8)
    pixels[:64] = 200
    small = thumbnail(pixels)
    assert small.shape == (64, 64)
    assert (small[:32] == 200).all()
    assert (small[32:] == 0).all()


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_thumbnails_of_files_are_those_of_their_pixels(tmp_path: Path, suffix: str) -> None:
    paths = []
    for seed in range(3):
        paths.append(tmp_path / f"{seed}.{suffix}")
        photograph(seed, 640, 480).save(paths[-1], quality=90)
    found = read_thumbnails(paths)
    assert found.shape == (3, 64, 64)
    for small, path in zip(found, paths, strict=True):
        assert np.abs(small.astype(int) - thumbnail(read_image(path))).mean() < 2


def test_a_jpeg_is_decoded_at_a_part_of_its_size_and_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned by 90 degrees
    photograph(1, 640, 480).save(tmp_path / "turned.jpg", quality=90, exif=exif)
    small = read_reduced(tmp_path / "turned.jpg", 64)
    assert small.shape == (160, 120, 3)  # an eighth would have a side below 64
    full = thumbnail(read_image(tmp_path / "turned.jpg"))
    assert np.abs(read_thumbnails([tmp_path / "turned.jpg"])[0].astype(int) - full).mean() < 2


def test_no_files_are_no_thumbnails_and_a_missing_one_is_named(tmp_path: Path) -> None:
    assert read_thumbnails([]).shape == (0, 64, 64)
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    with pytest.raises(InputError, match=r"broken\.jpg"):
        read_thumbnails([tmp_path / "broken.jpg"])
