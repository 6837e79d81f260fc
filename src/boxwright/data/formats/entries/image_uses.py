"""Find two entries of a split that come to one image file."""

from __future__ import annotations

import os
from pathlib import Path


class ImageUses:
    """Entries of a split by image file, whatever path or link leads to it.

    Two entries of one file have different boxes for the same pixels, so that each trains on the objects of the other as
    background.
    """

    def __init__(self) -> None:
        self._first: dict[object, tuple[str, Path]] = {}

    def earlier(self, path: Path, place: str) -> tuple[str, Path] | None:
        """Return the place and path of an earlier entry of the same file; None for the first one, which is kept."""
        key = identity(path)
        if key in self._first:
            return self._first[key]
        self._first[key] = (place, path)
        return None


def identity(path: Path) -> object:
    """Return what tells a file from others. Hard links count as copies, since copying a folder makes them so."""
    try:
        status = os.stat(path)
    except OSError:
        return os.path.normpath(path)
    # The number is the same for names that differ in case on a disk that does not distinguish it.
    return (status.st_dev, status.st_ino) if status.st_nlink == 1 and status.st_ino else os.path.realpath(path)
