"""Find images in the folders of a data set that have no annotations."""

from __future__ import annotations

from pathlib import Path

from boxwright.data.formats.opening import Source
from boxwright.data.formats.problems import ProblemLog
from boxwright.data.images import walk_images
from boxwright.data.index import DetectionIndex


def find_strays(source: Source, indexes: dict[str, DetectionIndex], log: ProblemLog) -> list[Path]:
    """Return the images without annotations beside annotated ones, and note each folder with such images.

    Only done for a data set given as a folder: a single JSON file need not describe all images of a folder.
    """
    if source.format == "yolo" or not source.path.is_dir():
        return []  # every image in a YOLO folder belongs to the data set
    used = {index.path(i) for index in indexes.values() for i in range(len(index))}
    found: list[Path] = []
    for folder in sorted(folder for folder in {path.parent for path in used} if folder.is_dir()):
        strays = [p for p in walk_images(folder, recursive=False) if p not in used]
        if strays:
            message = f"{len(strays)} images have no annotations and are not used (the first: {strays[0].name})"
            log.note("stray-image", "info", folder, "", message)
        found += strays
    return found
