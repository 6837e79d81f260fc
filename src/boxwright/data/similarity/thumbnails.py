"""Small grey images, in which images are compared with each other."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from boxwright.data.images import read_reduced

SIDE = 64
"""Height and width of a thumbnail, whatever the shape of the image, so that a change of shape is no difference."""


def thumbnail(pixels: np.ndarray) -> np.ndarray:
    """Return the mean grey level of each of 64x64 parts of an RGB image ``[H, W, 3]``, uint8 ``[64, 64]``."""
    small = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(small.convert("L"))


def read_thumbnails(paths: Sequence[Path]) -> np.ndarray:
    """Read the thumbnails of image files in threads, uint8 ``[N, 64, 64]``; a JPEG is decoded at an eighth of its size.

    Raises ``InputError`` as `read_image` does for an image that cannot be read.
    """
    with warnings.catch_warnings(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        warnings.simplefilter("ignore")  # Pillow warns of metadata
        small = list(pool.map(lambda path: thumbnail(read_reduced(path, SIDE)), paths))
    return np.stack(small) if small else np.zeros((0, SIDE, SIDE), dtype=np.uint8)
