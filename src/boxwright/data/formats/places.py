"""Find images beside annotations, and name splits."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from boxwright.data.images import is_image_name, unreadable_reason, walk_files

_IMAGE_FOLDERS = ("", "images", "JPEGImages")


class ImageFinder:
    """Find the images that annotation files name, in the folders that common layouts use."""

    def __init__(self, annotation_folder: Path, split_folders: Iterable[str] = ()) -> None:
        names = [n for n in dict.fromkeys(split_folders) if n]
        inner = [*_IMAGE_FOLDERS, *names, *(f"images/{n}" for n in names)]
        bases = [annotation_folder, *list(annotation_folder.parents)[:2]]
        self.folders = [base / name if name else base for base in bases for name in inner]
        self._home: Path | None = None  # folder of the last image, tried first so that most images cost one lookup

    def find(self, file_name: str) -> Path | None:
        """Return the file with a name, or None. A leading folder in the name may be missing on disk."""
        name = file_name.replace("\\", "/") if os.sep == "/" else file_name
        if os.path.isabs(name) and os.path.isfile(name):
            return Path(name)
        for candidate in dict.fromkeys((name.lstrip("/"), os.path.basename(name))):
            for folder in [self._home, *self.folders] if self._home is not None else self.folders:
                path = os.path.join(folder, candidate)
                if os.path.isfile(path):
                    self._home = folder
                    return Path(path)
        return None

    def expected(self, file_name: str) -> Path:
        """Return the path at which a missing file was expected."""
        if self._home is None:
            self._home = next((f for f in self.folders[1:] if f.is_dir()), self.folders[0])
        return self._home / os.path.basename(file_name.replace("\\", "/"))


def images_by_stem(folder: Path, recursive: bool = False) -> dict[str, list[str]]:
    """Return the names of the images in a folder by stem, with ``recursive`` as paths below it.

    An image of a format that is not read is given where no other has its stem.
    """
    found: dict[str, list[str]] = {}
    unread: dict[str, list[str]] = {}
    if folder.is_dir():
        for path in walk_files(folder, recursive):
            if is_image_name(path):
                found.setdefault(path.stem, []).append(path.relative_to(folder).as_posix())
            elif unreadable_reason(path) is not None:
                unread.setdefault(path.stem, []).append(path.relative_to(folder).as_posix())
    return {**unread, **found}
