"""Open images with the decoders that are installed; write images and figures, encoded in memory first.

Pillow does not notice a partial write to a full disk, and matplotlib writes PNG files by Pillow.
"""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from PIL import Image, UnidentifiedImageError

from boxwright.io.files import write_atomically
from boxwright.structures import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


HEIF_SUFFIXES = frozenset({".heic", ".heics", ".heif", ".heifs", ".hif"})
"""Lower-case suffixes of HEIF images, which phones write as HEIC."""

HEIF_REMEDY = "reading HEIC images needs pillow-heif; install it with: pip install 'boxwright[heic]'"
_HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"})


def heif_installed() -> bool:
    """Return True if pillow-heif is installed."""
    try:
        return importlib.util.find_spec("pillow_heif") is not None
    except (ImportError, ValueError):  # an import hook forbids it
        return False


def open_image(stream: BinaryIO) -> Image.Image:
    """Open an image of any format that Pillow or, for HEIF, pillow-heif reads; only its header is read.

    pillow-heif turns a HEIF image by its own transformations and sets its EXIF orientation to 1. Raises as
    ``Image.open``, and ``InputError`` with the remedy for a HEIF image without pillow-heif.
    """
    try:
        return Image.open(stream)
    except UnidentifiedImageError:
        stream.seek(0)
        head = stream.read(12)
        if head[4:8] != b"ftyp" or head[8:12] not in _HEIF_BRANDS:
            raise
    try:
        import pillow_heif
    except ImportError as error:
        raise InputError(f"{HEIF_REMEDY} (it fails to load: {error})" if heif_installed() else HEIF_REMEDY) from error
    pillow_heif.register_heif_opener()
    stream.seek(0)
    try:
        return Image.open(stream)
    except UnidentifiedImageError as error:
        raise OSError("pillow-heif finds no image in this HEIC file") from error


def save_image(image: Image.Image, path: Path, **options: Any) -> None:
    """Write ``image`` in the format that the suffix of ``path`` names; ``options`` are those of Pillow's ``save``.

    Raises InputError naming the file if it cannot be written.
    """
    buffer = io.BytesIO()
    image.save(buffer, format=Image.registered_extensions()[path.suffix.lower()], **options)
    write_atomically(path, buffer.getbuffer(), durable=False)


def save_figure(figure: Figure, path: Path | str) -> Path:
    """Write a matplotlib figure as PNG at its own resolution; raises as `save_image`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    write_atomically(Path(path), buffer.getbuffer(), durable=False)
    return Path(path)
