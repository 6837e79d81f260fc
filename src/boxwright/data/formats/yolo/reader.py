"""YOLO: a ``data.yaml`` with class names and split folders, and one text file per image with a line per object.

A line is ``class cx cy w h`` for a box or ``class x1 y1 x2 y2 x3 y3 ...`` for a polygon, all fractions of the image's
width and height. The text file of ``images/train/a.jpg`` is ``labels/train/a.txt``; without a folder ``images`` in its
path it is beside the image.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from boxwright.data.formats.problems import ProblemLog, box_defect
from boxwright.data.formats.yolo.labels import label_file
from boxwright.data.formats.yolo.layout import YoloLayout
from boxwright.data.images import image_size
from boxwright.data.index import DetectionIndex, ImageRecord
from boxwright.data.masks.masks import Segmentation
from boxwright.structures import Classes, InputError

_NOT_A_FRACTION = 1.5  # boxes may extend slightly over the edge; larger numbers are pixels, not fractions


def read_yolo(
    layout: YoloLayout, splits: Iterable[str] | None = None, log: ProblemLog | None = None
) -> dict[str, DetectionIndex]:
    """Read the splits of a YOLO data set: those in ``splits``, or all.

    Image sizes are read from the images' headers. An image without a text file has no objects. Annotation and image ids
    count from 1 in each split. Raises ``InputError`` naming file and line for a class out of range, a line that is
    neither box nor polygon, numbers that are not fractions, and an image that cannot be opened.
    """
    own_log = log or ProblemLog()
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
                _read_labels(labels, record, layout.classes, own_log)
            records.append(record)
        if images and not labelled:
            own_log.correct(
                "no-labels", "error", layout.file, f"split {split}",
                f"none of {len(images)} images has a label file; the first was looked for at {label_file(images[0])}",
            )  # fmt: skip
        layout.note_stray_labels(split, own_log)
        indexes[split] = DetectionIndex.build(layout.classes, records, root=layout.root, name=split)
    if log is None:
        own_log.announce()
    return indexes


def _read_labels(file: Path, record: ImageRecord, classes: Classes, log: ProblemLog) -> None:
    """Fill a record from its label file."""
    boxes: list[tuple[float, float, float, float]] = []
    labels: list[int] = []
    segmentations: list[Segmentation | None] = []
    seen: dict[tuple[str, ...], int] = {}
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        log.refuse("unreadable", file, f"byte {error.start}", "is not UTF-8 text; save the file as UTF-8")
        return
    for number, line in enumerate(lines, start=1):
        if not (fields := tuple(line.split())):
            continue
        place = f"line {number}"
        if fields in seen:
            log.note("duplicate-box", "warning", file, place, f"repeats line {seen[fields]}; remove one of them")
        seen.setdefault(fields, number)
        row = _parse_line(file, place, fields, len(classes), log)
        if row is None:
            continue
        label, values = row
        box, segmentation = _shape(values, record.height, record.width)
        if box_defect(log, file, place, box, record.height, record.width):
            boxes.append(box)
            labels.append(label)
            segmentations.append(segmentation)
    record.boxes, record.labels = boxes, labels
    record.segmentations = segmentations if any(segmentations) else None


def _parse_line(
    file: Path, place: str, fields: tuple[str, ...], num_classes: int, log: ProblemLog
) -> tuple[int, list[float]] | None:
    """Parse one line into class and fractions; None if it has a defect, which is noted."""
    try:
        values = [float(text) for text in fields]
    except ValueError:
        log.refuse(
            "bad-line", file, place, f"`{' '.join(fields)[:80]}` contains something other than numbers; correct it"
        )
        return None
    label, values = values[0], values[1:]
    if not label.is_integer() or not 0 <= label < num_classes:
        last = num_classes - 1
        log.refuse("unknown-category", file, place, f"class {fields[0]} is not one of 0..{last}; correct it or `names`")
        return None
    if len(values) != 4 and (len(values) < 6 or len(values) % 2):
        log.refuse(
            "bad-line", file, place,
            f"{len(fields)} numbers; a box takes 5 (class cx cy w h), a polygon 1 and an even number of at least 6",
        )  # fmt: skip
        return None
    if any(abs(v) > _NOT_A_FRACTION for v in values if math.isfinite(v)):
        log.refuse(
            "not-normalised", file, place,
            f"{max(values, key=abs):g} is not a fraction of the image; divide x by its width and y by its height",
        )  # fmt: skip
        return None
    return int(label), values


def _shape(
    values: list[float], height: int, width: int
) -> tuple[tuple[float, float, float, float], Segmentation | None]:
    """Return the corners in pixels, and the polygon if the line holds one."""
    if len(values) == 4:
        cx, cy, w, h = values
        return ((cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height), None
    polygon = [v * (height if i % 2 else width) for i, v in enumerate(values)]
    x, y = polygon[0::2], polygon[1::2]
    return (min(x), min(y), max(x), max(y)), [polygon]


def _size_or_error(path: Path) -> tuple[int, int] | InputError:
    try:
        return image_size(path)
    except InputError as error:
        return error
