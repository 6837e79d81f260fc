"""Find files in the folders of a data set that do not belong to it: unannotated images, labels without an image."""

from __future__ import annotations

from pathlib import Path

from boxwright.data.formats.opening import Source
from boxwright.data.formats.problems import ProblemLog
from boxwright.data.formats.yolo.layout import label_file
from boxwright.data.images import is_image_name
from boxwright.data.index import DetectionIndex


def find_strays(source: Source, indexes: dict[str, DetectionIndex], log: ProblemLog) -> list[Path]:
    """Return the images without annotations beside annotated ones, and note each folder with such images.

    Only done for a data set given as a folder: a single JSON file need not describe all images of a folder.
    """
    used = {index.path(i) for index in indexes.values() for i in range(len(index))}
    if source.format == "yolo":
        _stray_labels(used, log)
        return []  # every image in a YOLO folder belongs to the data set
    if not source.path.is_dir():
        return []
    found: list[Path] = []
    for folder in sorted({path.parent for path in used if path.parent.is_dir()}):
        strays = sorted(p for p in folder.iterdir() if is_image_name(p) and p not in used)
        if strays:
            message = f"{len(strays)} images have no annotations and are not used (the first: {strays[0].name})"
            log.note("stray-image", "info", folder, "", message)
        found += strays
    return found


def _stray_labels(used: set[Path], log: ProblemLog) -> None:
    """Note YOLO label files without an image, whose objects would be lost silently."""
    expected = {label_file(path) for path in used}
    for folder in sorted({path.parent for path in expected if path.parent.name != "images" and path.parent.is_dir()}):
        strays = sorted(p for p in folder.glob("*.txt") if p not in expected and p.name != "classes.txt")
        if strays:
            message = f"{len(strays)} label files have no image (the first: {strays[0].name}); restore the images"
            log.note("missing-image", "warning", folder, "", message)
