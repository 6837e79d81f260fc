"""Writing on a disk that may be full: errors that name the file, and no picture that is cut short unseen."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

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


@contextmanager
def write_whole(path: Path) -> Iterator[IO[str]]:
    """A text file that appears under its name only when all of it has been written."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with writing(path), temporary.open("w", encoding="utf-8", newline="") as file:
            yield file
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


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
