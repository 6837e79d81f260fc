"""YOLO: a ``data.yaml`` with class names and split folders, and one text file per image with a line per object.

A line is ``class cx cy w h`` for a box or ``class x1 y1 x2 y2 x3 y3 ...`` for a polygon, all fractions of the image's
width and height. With ``kpt_shape`` in the data.yaml it is ``class cx cy w h`` and keypoints, which are not read. The
text file of ``images/train/a.jpg`` is ``labels/train/a.txt``; without a folder ``images`` in its
path it is beside the image.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from boxwright.data.formats.problems import ProblemLog
from boxwright.data.formats.texts import read_text
from boxwright.data.formats.yolo.labels import label_file
from boxwright.data.formats.yolo.layout import YoloLayout
from boxwright.data.formats.yolo.lines import LineReader
from boxwright.data.images import image_size
from boxwright.data.index import DetectionIndex, ImageRecord
from boxwright.structures import InputError


def read_yolo(
    layout: YoloLayout, splits: Iterable[str] | None = None, log: ProblemLog | None = None
) -> dict[str, DetectionIndex]:
    """Read the splits of a YOLO data set: those in ``splits``, or all.

    Image sizes are read from the images' headers. An image without a text file has no objects. Annotation and image ids
    count from 1 in each split. Raises ``InputError`` naming file and line for a class out of range, a line that is
    neither box nor polygon, numbers that are not fractions, keypoints without their ``kpt_shape``, and an image that
    cannot be opened.
    """
    own_log = log or ProblemLog()
    lines = LineReader(len(layout.classes), layout.keypoints, own_log)
    indexes: dict[str, DetectionIndex] = {}
    for split in layout.splits if splits is None else splits:
        images = layout.images(split, own_log)
        with ThreadPoolExecutor(min(8, (os.cpu_count() or 1) + 4)) as pool:
            sizes = list(pool.map(_size_or_error, images))
        records: list[ImageRecord] = []
        labelled = 0
        for number, (path, size) in enumerate(zip(images, sizes, strict=True), start=1):
            if isinstance(size, InputError):
                own_log.refuse("bad-image", path, "", str(size).removeprefix(f"{path}: "))
                continue
            record = ImageRecord(path=path, image_id=number, height=size[0], width=size[1])
            labels = layout.labels.find(path, own_log)
            if labels is not None:
                labelled += 1
                lines.read(labels, _text(labels, own_log), record)
            records.append(record)
        if images and not labelled:
            own_log.correct(
                "no-labels", "error", layout.file, f"split {split}",
                f"none of {len(images)} images has a label file; the first was looked for at {label_file(images[0])}",
            )  # fmt: skip
        lines.judge(layout.file, split)
        layout.note_stray_labels(split, own_log)
        indexes[split] = DetectionIndex.build(layout.classes, records, root=layout.root, name=split)
    if log is None:
        own_log.announce()
    return indexes


def _text(file: Path, log: ProblemLog) -> str:
    """Return the text of a label file; one that cannot be read is refused, and empty if the log is lenient."""
    try:
        return read_text(file)
    except InputError as error:
        log.refuse("unreadable", file, "", str(error).removeprefix(f"{file}").lstrip(",: "))
        return ""


def _size_or_error(path: Path) -> tuple[int, int] | InputError:
    try:
        return image_size(path)
    except InputError as error:
        return error
