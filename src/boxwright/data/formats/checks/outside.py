"""Find the entries of a data set that name files outside its folder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from boxwright.data.formats.coco.layout import ANNOTATION_FOLDERS
from boxwright.data.formats.opening import Source
from boxwright.data.formats.voc.layout import VocLayout
from boxwright.data.formats.yolo.layout import YoloLayout
from boxwright.data.index import DetectionIndex
from boxwright.structures import InputError

_FOR_IMAGES = ("images", "JPEGImages", "Images")


@dataclass(frozen=True)
class OutsideFile:
    """An entry that names a file outside the folders of its data set."""

    path: Path
    place: str

    def __str__(self) -> str:
        return "is outside the folder of the data set; move it there and correct the entry"


def outside_files(source: Source, splits: Mapping[str, DetectionIndex]) -> Iterator[OutsideFile]:
    """Yield the images, and in VOC the XML files, that absolute or `..` paths name outside the data set's folders.

    The folders are that of the source and those that it is known to keep images in: the folders that a data.yaml names,
    the folder above ``annotations/`` or one for images beside it. Links are not resolved: a linked folder or file in
    the data set belongs to it.
    """
    folders = [os.path.join(folder, "") for folder in _folders(source, splits)]

    def inside(path: Path) -> bool:
        return os.path.normpath(path).startswith(tuple(folders))

    if isinstance(source.layout, VocLayout):
        for split in splits:
            for file in source.layout.splits[split]:
                if not inside(file):
                    yield OutsideFile(file, f"split {split}")
    for split, index in splits.items():
        for i in range(len(index)):
            if not inside(index.path(i)):
                yield OutsideFile(index.path(i), f"split {split}, image id {index.image_id(i)}")


def refuse_outside(source: Source, splits: Mapping[str, DetectionIndex], remedy: str = "") -> None:
    """Raise ``InputError`` for the first entry that names a file outside the data set; ``remedy`` ends the message."""
    found = list(outside_files(source, splits))
    if found:
        others = f" ({len(found) - 1} more entries do so)" if len(found) > 1 else ""
        raise InputError(f"{found[0].path}, {found[0].place}: {found[0]}{others}{remedy}")


def _folders(source: Source, splits: Mapping[str, DetectionIndex]) -> list[str]:
    """Return the folders of a data set."""
    folders = {source.path if source.path.is_dir() else source.path.parent}
    match source.layout:
        case YoloLayout() as layout:
            places = [entry.place for split in splits for entry in layout.splits[split]]  # these are meant
            folders |= {layout.root, layout.file.absolute().parent}
            folders |= {place if place.is_dir() else place.parent for place in places}
        case VocLayout() as layout:
            bases = (layout.root, layout.root.parent, layout.root.parent.parent)
            folders |= {layout.root, *(base / name for base in bases for name in _FOR_IMAGES)}
        case files:
            for split, file in files.items():
                home = file.absolute().parent
                folders |= {home.parent} if home.name.lower() in ANNOTATION_FOLDERS else {home}
                folders |= {home.parent / name for name in (*_FOR_IMAGES, split, f"images/{split}")}
    return sorted({os.path.normpath(folder) for folder in folders})
