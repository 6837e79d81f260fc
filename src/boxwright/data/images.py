"""Read image files of every mode that Pillow knows as upright uint8 RGB.

Conversion of the modes to RGB:

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

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL import __version__ as pillow

from boxwright.structures import InputError

MAX_PIXELS = 250_000_000
"""Largest image read, in pixels (0.75 GB), unless the caller or ``BOXWRIGHT_MAX_PIXELS`` sets another limit."""

IMAGE_SUFFIXES = frozenset(
    {".bmp", ".dib", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".mpo", ".png"}
    | {".pbm", ".pgm", ".ppm", ".pnm", ".tif", ".tiff", ".webp", ".avif", ".jp2"}
)
"""Lower-case suffixes of image files in a folder. The content of a file decides how it is read."""

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
# Errors that Pillow raises for damaged content, besides OSError: those of the parsers of its plugins.
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError, RuntimeError)


def read_image(path: str | os.PathLike[str], max_pixels: int | None = None) -> np.ndarray:
    """Read the image in ``path`` as uint8 RGB ``[H, W, 3]``, turned upright by its EXIF orientation.

    Raises ``InputError`` naming the file and a remedy if it is missing, not an image, damaged, or has more than
    ``max_pixels`` pixels (default: `pixel_limit`).
    """
    with _opened(path, max_pixels) as image:
        try:
            return image_to_array(image)
        except MemoryError:
            height, width = image.height, image.width
            raise InputError(
                f"{path}: {width}x{height} pixels do not fit into memory; cut the image into tiles or scale it down"
            ) from None
        except _DAMAGE as error:
            raise InputError(
                f"{path}: the image is damaged ({_reason(error)}); fetch it again or remove it from the data set"
            ) from error


def image_size(path: str | os.PathLike[str], max_pixels: int | None = None) -> tuple[int, int]:
    """Return height and width of the upright image from the file's header; raises as `read_image`."""
    with _opened(path, max_pixels) as image:
        width, height = image.size
        # Pillow returns the size of a TIFF after its orientation.
        turned = image.format != "TIFF" and (orientation(image) or 1) >= 5
        return (width, height) if turned else (height, width)


def image_header(path: str | os.PathLike[str]) -> tuple[str, int | None]:
    """Return Pillow's name of the format and the raw EXIF orientation from the file's header."""
    with _opened(path, None) as image:
        return image.format or "", raw_orientation(image)


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


def pixel_limit() -> int:
    """Return the largest number of pixels that an image may have: ``BOXWRIGHT_MAX_PIXELS``, else `MAX_PIXELS`."""
    value = os.environ.get("BOXWRIGHT_MAX_PIXELS")
    if value is None:
        return MAX_PIXELS
    try:
        limit = int(value)
    except ValueError:
        limit = 0
    if limit <= 0:
        raise InputError(f"BOXWRIGHT_MAX_PIXELS={value}: give the largest number of pixels as a positive whole number")
    return limit


def is_image_name(path: str | os.PathLike[str]) -> bool:
    """Return True if the name has the suffix of an image format."""
    return os.path.splitext(path)[1].lower() in IMAGE_SUFFIXES


@contextmanager
def _opened(path: str | os.PathLike[str], max_pixels: int | None) -> Iterator[Image.Image]:
    """Open an image, read its header, and check its size against the limit."""
    limit = pixel_limit() if max_pixels is None else max_pixels
    # Opened as a stream: given a name, Pillow maps uncompressed TIFFs into memory, and then garbles those whose
    # orientation swaps the sides.
    with _open_file(path) as stream, _PILLOW_LIMIT:
        image = _read_header(path, stream)
        width, height = image.size
        if width * height > limit:
            raise InputError(
                f"{path}: {width}x{height} is {width * height:,} pixels, more than the limit of {limit:,}; "
                "cut it into tiles, scale it down, or set BOXWRIGHT_MAX_PIXELS if there is enough memory"
            )
        yield image


def _open_file(path: str | os.PathLike[str]) -> BinaryIO:
    try:
        return open(path, "rb")
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such image; correct the path or restore the file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: this is a folder, not an image; name a file in it") from None
    except PermissionError:
        raise InputError(f"{path}: there is no permission to read the image; grant it") from None
    except OSError as error:
        raise InputError(
            f"{path}: the image cannot be opened ({error.strerror}); check the disk and the path"
        ) from error


def _read_header(path: str | os.PathLike[str], stream: BinaryIO) -> Image.Image:
    try:
        return Image.open(stream)
    except UnidentifiedImageError as error:
        size = Path(path).stat().st_size
        what = "the file is empty" if size == 0 else f"this is none of the image formats that Pillow {pillow} reads"
        raise InputError(
            f"{path}: {what}; fetch it again, convert it to PNG or JPEG, or remove it from the data set"
        ) from error
    except _DAMAGE as error:
        raise InputError(
            f"{path}: the image's header is damaged ({_reason(error)}); fetch it again or remove it from the data set"
        ) from error


class _LiftedLimit:
    """Context that lifts Pillow's global pixel limit while any thread reads, so that only `pixel_limit` applies."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readers = 0
        self._saved: int | None = None

    def __enter__(self) -> None:
        with self._lock:
            if self._readers == 0:
                self._saved, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            self._readers += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._readers -= 1
            if self._readers == 0:
                Image.MAX_IMAGE_PIXELS = self._saved


_PILLOW_LIMIT = _LiftedLimit()


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


def _reason(error: BaseException) -> str:
    return str(error).strip().rstrip(".") or type(error).__name__
