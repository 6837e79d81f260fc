"""Copy or link images, write text files, and say what became of a data set that was written."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from boxwright.data.index import DetectionIndex
from boxwright.data.packing import POSES
from boxwright.io.files import copy_file, write_atomically
from boxwright.structures import InputError

ImageTransfer = Literal["copy", "link", "none"]
"""Treatment of images by a writer: copy, link (hard links, or copies where impossible), or leave in place."""


@dataclass
class Written:
    """Result of a writer: the number of boxes written by split, and a sentence for each kind of loss or change."""

    boxes: dict[str, int] = field(default_factory=dict)
    announcements: list[str] = field(default_factory=list)


def lost_views(index: DetectionIndex) -> list[str]:
    """List VOC's remarks on the view of objects, for a format that has no place for them."""
    found = (
        ("truncated", int(index.truncated.sum())),
        ("occluded", int(index.occluded.sum())),
        ("posed", sum(pose != POSES[0] for pose in index.poses)),
    )
    return [f"{count} objects are no longer marked as {name}" for name, count in found if count]


def new_folder(path: Path | str) -> Path:
    """Return the full path of a folder to write. Raises InputError if it holds anything or cannot be a folder."""
    target = Path(os.path.expanduser(path)).absolute()
    if target.is_symlink() and not target.exists():
        raise InputError(f"{path}: is a link that points nowhere; name a new folder")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{path}: exists and is not {'empty' if target.is_dir() else 'a folder'}; name a new folder")
    above = next(folder for folder in target.parents if folder.exists())
    if not above.is_dir():
        raise InputError(f"{path}: {above} is a file, so no folder can be in it; name a new folder")
    return target


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
    """Write a UTF-8 text file atomically; creates its folder. Raises InputError for text that UTF-8 cannot hold."""
    try:
        content = text.encode()
    except UnicodeEncodeError as error:
        line = text[text.rfind("\n", 0, error.start) + 1 : error.end].strip()
        raise InputError(
            f"{path}: cannot hold {line[-80:]!r}, which has half a Unicode character; rename the class or file"
        ) from None
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content, durable=False)
