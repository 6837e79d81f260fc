"""HEIC files for the tests, and a Python that has no pillow-heif."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def write_heic(path: Path, pixels: np.ndarray, orientation: int = 1) -> Path:
    """Write pixels ``[H, W, 3]`` as HEIC, to be turned by an EXIF orientation and by the transformations of HEIF."""
    pillow_heif = pytest.importorskip("pillow_heif")
    exif = Image.Exif()
    exif[0x0112] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pillow_heif.from_pillow(Image.fromarray(pixels))
    image.info["exif"] = exif.tobytes()
    image.save(path, quality=95)
    return path


def hide_pillow_heif(patch: pytest.MonkeyPatch) -> None:
    """Make pillow-heif look as if it was not installed, and forget that Pillow knows it."""
    patch.setitem(sys.modules, "pillow_heif", None)
    patch.delitem(Image.OPEN, "HEIF", raising=False)
    patch.setattr(Image, "ID", [name for name in Image.ID if name != "HEIF"])
