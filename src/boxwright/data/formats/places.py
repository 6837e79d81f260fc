"""List the images of a folder."""

from __future__ import annotations

from pathlib import Path

from boxwright.data.images import is_image_name, unreadable_reason, walk_files


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
