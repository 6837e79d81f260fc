"""Copy images under unique names, and write text files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from boxwright.data.index import DetectionIndex
from boxwright.io.files import copy_file, write_atomically
from boxwright.structures import InputError

ImageTransfer = Literal["copy", "link", "none"]
"""Treatment of images by a writer: copy, link (hard links, or copies where impossible), or leave in place."""


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
