"""Write images and figures, encoded in memory first.

Pillow does not notice a partial write to a full disk, and matplotlib writes PNG files by Pillow.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from boxwright.io.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
