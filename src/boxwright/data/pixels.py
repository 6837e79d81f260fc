"""Convert images of every mode that Pillow knows to upright uint8 RGB.

* Grayscale is repeated over the three channels; a palette is looked up; CMYK, YCbCr and Lab are converted.
* Transparency (RGBA, LA, a palette with a transparent entry) is composited over white.
* 16-bit grayscale is scaled by the range of its type, 0..65535 to 0..255, and not by the values of the image, so that
  the same sensor value gives the same gray in every image. Pillow scales 16-bit colour in the same way.
* 32-bit integer and floating-point images have no fixed range. Their finite values are stretched from the minimum to
  the maximum of the image.
* The EXIF orientation is applied if it is one of 1..8 and ignored otherwise.
* The first frame of an animation is read.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def orientation(image: Image.Image) -> int | None:
    """Return the EXIF orientation 2..8, or None if it is 1, absent, impossible or unreadable."""
    value = raw_orientation(image)
    return value if value in _TURNS else None


def raw_orientation(image: Image.Image) -> int | None:
    """Return the EXIF orientation as stored, impossible values included; None without one."""
    try:
        value = image.getexif().get(_ORIENTATION)
        return None if value is None else int(value)
    except Exception:  # an image with a broken EXIF block can still be read
        return None


def image_to_array(image: Image.Image) -> np.ndarray:
    """Convert an open Pillow image to upright uint8 RGB ``[H, W, 3]``, as the module describes."""
    image.load()  # before the orientation is read, since Pillow rotates a TIFF while loading it
    turn = orientation(image)
    pixels = _to_rgb(image)
    if turn is not None:
        pixels = pixels.transpose(_TURNS[turn])
    return np.array(pixels)  # a copy: a view of Pillow's memory is read-only


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert a loaded image to mode RGB."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        return Image.fromarray(_stretch(np.asarray(image, dtype=np.float64))).convert("RGB")
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        straight = image if image.mode == "RGBA" else image.convert("LA" if image.mode == "La" else "RGBA")
        coloured = straight.convert("RGBA")
        white = Image.new("RGBA", coloured.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, coloured).convert("RGB")
    return image.convert("RGB")


def _stretch(values: np.ndarray) -> np.ndarray:
    """Stretch finite values from their minimum to their maximum to 0..255; other values and a flat image become 0."""
    finite = np.isfinite(values)
    if not finite.any():
        return np.zeros(values.shape, dtype=np.uint8)
    low, high = values[finite].min(), values[finite].max()
    scaled = (np.where(finite, values, low) - low) * (255.0 / (high - low) if high > low else 0.0)
    return np.rint(scaled).astype(np.uint8)
