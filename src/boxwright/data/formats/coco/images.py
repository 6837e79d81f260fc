"""Find the images that a COCO file names, in the folders that common layouts use."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from boxwright.data.formats.coco.layout import ANNOTATION_FOLDERS
from boxwright.data.formats.entries.image_uses import identity
from boxwright.data.formats.problems import ProblemLog
from boxwright.data.images import image_size
from boxwright.structures import InputError

_IMAGE_FOLDERS = ("", "images", "JPEGImages")

Size = tuple[int, int]


class CocoImages:
    """Images beside, below and above a JSON file. Those outside the data set are taken only where it holds none."""

    def __init__(self, file: Path, root: Path, split_folders: Sequence[str], log: ProblemLog) -> None:
        """Search for the images of ``file`` in the data set at ``root``, a folder or the file itself."""
        self.file = file
        self.log = log
        self.given = root.is_dir()
        base = root if self.given else file.parent
        self.bound = base.parent if base.name.lower() in ANNOTATION_FOLDERS else base
        names = [n for n in dict.fromkeys(split_folders) if n]
        inner = [*names, *(f"images/{n}" for n in names), *_IMAGE_FOLDERS]
        bases = [file.parent, *list(file.parent.parents)[:2]]
        find = _Folders().find
        folders = [folder for base in bases for name in inner for folder in find(base, name)]
        self.inside = [p for p in folders if p.is_relative_to(self.bound)]
        self.outside = [p for p in folders if not p.is_relative_to(self.bound)]
        self._expected = next((folder for base in bases for n in inner if n for folder in find(base, n)), file.parent)

    def find(self, names: Sequence[str], sizes: Sequence[Size | None]) -> list[Path]:
        """Return the image of each name, or the path where a missing one was expected.

        ``sizes``: height and width in the file, if it has them. They tell between images of one name.
        """
        plain = [name.replace("\\", "/") if os.sep == "/" else name for name in names]
        found = self._search(plain, sizes, self.inside)
        if not any(path is not None for path in found):
            found = self._search(plain, sizes, self.outside)
        home = next((p.parent for p, n in zip(found, plain, strict=True) if p and "/" not in n), self._expected)
        for path in found:
            if path is not None and not path.is_relative_to(self.bound):
                self._outside(path)
        return [path or home / name.lstrip("/") for path, name in zip(found, plain, strict=True)]

    def _outside(self, path: Path) -> None:
        message = "{count} images were found outside the folder of the data set, the first: {first}"
        self.log.gather(
            "image-outside", "warning" if self.given else "info", self.file, str(path), message, announced=self.given
        )

    def _search(self, names: list[str], sizes: Sequence[Size | None], folders: list[Path]) -> list[Path | None]:
        found = [self._exact(name, size, folders) for name, size in zip(names, sizes, strict=True)]
        if all(found):
            return found
        counts = Counter(os.path.basename(name).casefold() for name in names)
        for i, (name, size) in enumerate(zip(names, sizes, strict=True)):
            if found[i] is None and "/" in name and counts[os.path.basename(name).casefold()] == 1:
                found[i] = self._without_folder(name, size, folders)
        return found

    def _exact(self, name: str, size: Size | None, folders: list[Path]) -> Path | None:
        """Return the image of a name with its folder."""
        if os.path.isabs(name) and os.path.isfile(name):
            return Path(name)
        for form in _forms(name.lstrip("/")):
            matches = [Path(folder, form) for folder in folders if os.path.isfile(os.path.join(folder, form))]
            if len(matches) > 1:
                matches = list({identity(path): path for path in reversed(matches)}.values())[::-1]
                matches = [path for path in matches if _fits(path, size)] or matches
            if len(matches) > 1:
                message = "{count} images stand in two folders, and the first is taken: {items}"
                self.log.gather("two-images", "warning", self.file, f"{matches[0]}, not {matches[1]}", message, True)
            if matches:
                return matches[0]
        return None

    def _without_folder(self, name: str, size: Size | None, folders: list[Path]) -> Path | None:
        """Return the only image of a name whose folder, or the first part of it, is missing on the disk."""
        parts = name.lstrip("/").split("/")
        if any(os.path.isdir(os.path.join(folder, *parts[:-1])) for folder in folders):
            return None  # the folder is there, so the image is missing in it
        for first in range(1, len(parts)):
            for form in _forms("/".join(parts[first:])):
                matches = [Path(folder, form) for folder in folders if os.path.isfile(os.path.join(folder, form))]
                matches = list({identity(path): path for path in matches}.values())
                if len(matches) == 1 and _fits(matches[0], size):
                    message = "{count} images were found without the folder in their `file_name`, the first: {first}"
                    self.log.gather("file-name", "info", self.file, f"{name} as {matches[0]}", message, True)
                    return matches[0]
        return None


class _Folders:
    """Finds folders by names in any case. Reads each folder once."""

    def __init__(self) -> None:
        self._inner: dict[Path, dict[str, list[Path]]] = {}

    def find(self, base: Path, name: str) -> list[Path]:
        """Return the folders of ``name``, a path below ``base``, as it stands if that exists, else in any case."""
        found = [base] if base.is_dir() else []
        for part in name.split("/") if name else ():
            found = [
                path
                for folder in found
                for path in ([folder / part] if (folder / part).is_dir() else self._like(folder, part))
            ]
        return found

    def _like(self, folder: Path, name: str) -> list[Path]:
        if folder not in self._inner:
            inner: dict[str, list[Path]] = {}
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        if entry.is_dir():
                            inner.setdefault(entry.name.lower(), []).append(folder / entry.name)
            except OSError:
                inner = {}  # a folder above the data set may be closed to us
            self._inner[folder] = inner
        return sorted(self._inner[folder].get(name.lower(), []))


def _forms(name: str) -> Iterator[str]:
    """Return a name as it stands and in composed and decomposed Unicode, which systems use for one name."""
    yield from dict.fromkeys((name, unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name)))


def _fits(path: Path, size: Size | None) -> bool:
    """Return True if an image has the stated size, or none is stated."""
    if size is None:
        return True
    try:
        return image_size(path) == size
    except InputError:
        return False
