"""Find images beside annotations, name splits, and copy images under unique names."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from boxwright.data.images import is_image_name
from boxwright.data.index import DetectionIndex
from boxwright.io.files import copy_file, write_atomically
from boxwright.structures import InputError

ImageTransfer = Literal["copy", "link", "none"]
"""Treatment of images by a writer: copy, link (hard links, or copies where impossible), or leave in place."""

_SYNONYMS = {"valid": "val", "validation": "val", "dev": "val", "training": "train", "testing": "test"}
_IMAGE_FOLDERS = ("", "images", "JPEGImages")


def split_name(stem: str) -> str:
    """Return the split that a file or folder name means: ``instances_train2017`` is train, ``valid`` is val.

    A name without a split, such as ``annotations``, gives ``all``; any other name is returned unchanged.
    """
    name = stem.strip().lstrip("_")
    name = re.sub(r"\.coco$", "", name, flags=re.IGNORECASE)
    name = re.sub(r"^(instances|annotations?|labels)[_-]?", "", name, flags=re.IGNORECASE)
    name = re.sub(r"[_-]?(annotations?|instances|coco)$", "", name, flags=re.IGNORECASE)
    name = re.sub(r"^(train|val|test|trainval|minival)[_-]?\d{4}$", r"\1", name, flags=re.IGNORECASE)
    lowered = name.lower()
    if lowered in ("", "default", "labels", "data", "dataset"):
        return "all"
    if lowered in ("train", "val", "test", "trainval", *_SYNONYMS):
        return _SYNONYMS.get(lowered, lowered)
    return name


def split_rank(name: str) -> tuple[int, str]:
    """Return the sort key of a split: train, val, test, then the others by name."""
    order = ("train", "val", "test")
    return (order.index(name) if name in order else len(order), name)


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


def images_by_stem(folder: Path) -> dict[str, list[str]]:
    """Return the image names of a folder, by stem."""
    found: dict[str, list[str]] = {}
    if folder.is_dir():
        for name in sorted(os.listdir(folder)):
            if is_image_name(name):
                found.setdefault(os.path.splitext(name)[0], []).append(name)
    return found


def unique_names(indexes: Mapping[str, DetectionIndex], one_folder: bool) -> tuple[dict[str, list[str]], int]:
    """Return the file names to write for the images of each split, and the number of renamed images.

    A stem is used once in a folder, in any case and with any suffix, since VOC and YOLO find a label file by the
    image's stem. ``one_folder``: all splits share one folder; the same file in two splits keeps one name.
    """
    taken: dict[str, Path] = {}
    names: dict[str, list[str]] = {}
    renamed = 0
    for split, index in indexes.items():
        names[split] = []
        if not one_folder:
            taken = {}
        for i in range(len(index)):
            path = index.path(i)
            stem, suffix, number = path.stem, path.suffix, 1
            while taken.setdefault(stem.lower(), path) != path:
                number += 1
                stem = f"{path.stem}_{number}"
            renamed += number > 1
            names[split].append(stem + suffix)
    return names, renamed


def place_image(source: Path, target: Path, transfer: ImageTransfer) -> None:
    """Copy or link one image to ``target``; with "none" it must be there already. Raises InputError if missing."""
    if transfer == "none":
        if not target.is_file():
            raise InputError(
                f"{target}: the image is not here, so it cannot be left in place; copy or link the images instead"
            )
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists() and target.samefile(source):
        return
    if not source.is_file():
        raise InputError(f"{source}: there is no such image; restore it or remove it from the data set")
    if transfer == "link":
        try:
            os.link(source.resolve(), target)
            return
        except OSError:
            pass  # another file system, or one without hard links: copy
    copy_file(source, target)


def write_text_file(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically; creates its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text.encode(), durable=False)
