"""Writing on a disk that may be full: errors that name the file, and no picture that is cut short unseen."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image


@contextmanager
def writing(path: Path | str) -> Iterator[None]:
    """While ``path`` is written: an ``OSError`` that names no file, as a full disk's, passes on naming this one."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(path)
        raise


def save_picture(image: Image.Image, path: Path, **options: Any) -> None:
    """Write ``image`` in the format that the suffix of ``path`` names; ``options`` are those of Pillow's ``save``.

    It is encoded in memory first: where the disk takes only the beginning of a write, Pillow's own one goes on as if
    all were well. Raises ``OSError`` naming the file; what was written of it is removed.
    """
    buffer = io.BytesIO()
    image.save(buffer, format=Image.registered_extensions()[path.suffix.lower()], **options)
    try:
        with writing(path):
            path.write_bytes(buffer.getvalue())
    except BaseException:
        path.unlink(missing_ok=True)
        raise
