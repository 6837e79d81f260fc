"""Write a data set as Pascal VOC."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from xml.sax.saxutils import escape

from boxwright.data.formats.writing.boxes import (
    NEAR,
    Box,
    BoxChanges,
    cut_box,
    near_corners,
    reaches_over,
    whole_corners,
)
from boxwright.data.formats.writing.names import check_splits, unique_names
from boxwright.data.formats.writing.output import ImageTransfer, Written, place_image, write_text_file
from boxwright.data.index import DetectionIndex
from boxwright.data.packing import CROWD, DIFFICULT, OCCLUDED, POSE_SHIFT, POSES, TRUNCATED
from boxwright.structures import Classes, InputError


def write_voc(
    folder: Path | str,
    splits: Mapping[str, DetectionIndex],
    images: ImageTransfer = "copy",
    *,
    fractions: bool = False,
    cut: bool = True,
    names: Mapping[Path, str] | None = None,
) -> Written:
    """Write ``Annotations/``, ``ImageSets/Main/SPLIT.txt``, ``labels.txt`` and ``JPEGImages/``.

    Corners are written 1-based and inclusive, in whole pixels as VOC has them; ``fractions`` keeps fractions. Boxes are
    cut to their image unless ``cut`` is false. Returns one sentence for each kind of content that the format cannot
    hold. Masks are left out. Crowd regions become difficult boxes, since the evaluations ignore both. Category and
    annotation ids are lost. With ``images="none"`` the images must already be in ``JPEGImages``. ``names``: file names
    to write instead of the images' own, by path. Raises InputError for class names that XML cannot hold, and for a
    split that cannot name a file.
    """
    root = Path(folder).absolute()
    check_splits(splits)
    file_names, renamed = unique_names(splits, one_folder=True, own=names)
    written = Written(announcements=renamed)
    for split, index in splits.items():
        _check_names(index.classes)
        changes = BoxChanges()
        written.boxes[split] = 0
        for i in range(len(index)):
            place_image(index.path(i), image_folder(root, split) / file_names[split][i], images)
            stem = os.path.splitext(file_names[split][i])[0]
            objects = _objects(index, i, changes, fractions, cut)
            write_text_file(root / "Annotations" / f"{stem}.xml", _xml(index, i, file_names[split][i], objects))
            written.boxes[split] += len(objects)
        lines = "".join(os.path.splitext(name)[0] + "\n" for name in file_names[split])
        write_text_file(root / "ImageSets" / "Main" / f"{split}.txt", lines)
        write_text_file(root / "labels.txt", "".join(name + "\n" for name in index.classes.names))
        written.announcements += [f"{split}: {said}" for said in (*_lost(index), *changes.sentences())]
    return written


def image_folder(folder: Path | str, split: str) -> Path:
    """Return the folder in which `write_voc` puts the images of all splits."""
    return Path(folder) / "JPEGImages"


def _check_names(classes: Classes) -> None:
    """Raise InputError for a class name with a character that XML forbids. `Classes` refuses control characters."""
    for name in classes.names:
        if "\ufffe" in name or "\uffff" in name:
            raise InputError(f"class {name!r}: XML cannot hold U+FFFE and U+FFFF; rename the class")


def _lost(index: DetectionIndex) -> list[str]:
    """List the contents of a split that the format cannot hold."""
    lost: list[str] = []
    if index.text_ends is not None:
        lost.append("masks are left out, VOC XML holds boxes only")
    if crowds := int(index.crowd.sum()):
        lost.append(f"{crowds} crowd regions become difficult boxes")
    if index.classes.ids != tuple(range(1, len(index.classes) + 1)):
        lost.append(f"category ids {min(index.classes.ids)}..{max(index.classes.ids)} are lost, VOC has names only")
    return lost


def _objects(index: DetectionIndex, i: int, changes: BoxChanges, fractions: bool, cut: bool) -> list[str]:
    """Return the XML text of the objects of one image."""
    height, width = index.size(i)
    rows = slice(int(index.box_ends[i]), int(index.box_ends[i + 1]))
    objects: list[str] = []
    values = zip(*(column[rows].tolist() for column in (index.xywh, index.labels, index.flags)), strict=True)
    for (x, y, w, h), label, flags in values:
        box: Box | None = (x, y, x + w, y + h)
        over = reaches_over(box, height, width)
        if cut:
            box = cut_box(box, height, width)
        corners = None if box is None else _corners(box, height, width, changes, fractions, cut)
        if corners is None:
            changes.vanished += 1
            continue
        changes.cut += over and cut
        changes.over_edge += over and not cut
        objects.append(_object(index.classes.names[label], flags | TRUNCATED * (over and cut), corners))
    return objects


def _object(name: str, flags: int, corners: tuple[float, float, float, float]) -> str:
    """Return the XML text of an object; ``flags`` are those of an index."""
    tags = zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
    lines = [
        "  <object>",
        f"    <name>{escape(name)}</name>",
        f"    <pose>{POSES[flags >> POSE_SHIFT]}</pose>",
        f"    <truncated>{int(flags & TRUNCATED > 0)}</truncated>",
        *(["    <occluded>1</occluded>"] if flags & OCCLUDED else []),
        f"    <difficult>{int(flags & (CROWD | DIFFICULT) > 0)}</difficult>",
        "    <bndbox>" + "".join(f"<{tag}>{_number_text(value)}</{tag}>" for tag, value in tags) + "</bndbox>",
        "  </object>",
    ]
    return "\n".join(lines)


def _corners(
    box: Box, height: int, width: int, changes: BoxChanges, fractions: bool, cut: bool
) -> tuple[float, float, float, float] | None:
    """Return xmin ymin xmax ymax of a box, counted from 1; None if the image has no room for it."""
    x1, y1, x2, y2 = box
    if fractions:
        across, down = near_corners(x1, x2), near_corners(y1, y2)
    else:
        across, down = whole_corners(x1, x2, width if cut else None), whole_corners(y1, y2, height if cut else None)
    if across is None or down is None:
        return None
    changes.widened += x2 - x1 < 1 + NEAR or y2 - y1 < 1 + NEAR
    moved = max(abs(across[0] - 1 - x1), abs(across[1] - x2), abs(down[0] - 1 - y1), abs(down[1] - y2))
    if moved > NEAR:
        changes.rounded += 1
        changes.rounded_by = max(changes.rounded_by, moved)
    return across[0], down[0], across[1], down[1]


def _xml(index: DetectionIndex, i: int, name: str, objects: list[str]) -> str:
    """Return the XML text of one image."""
    height, width = index.size(i)
    lines = [
        "<annotation>",
        "  <folder>JPEGImages</folder>",
        f"  <filename>{escape(name)}</filename>",
        f"  <size><width>{width}</width><height>{height}</height><depth>3</depth></size>",
        "  <segmented>0</segmented>",
        *objects,
        "</annotation>",
        "",
    ]
    return "\n".join(lines)


def _number_text(value: float) -> str:
    """Return a coordinate without a needless fraction."""
    return str(int(value)) if value == int(value) else repr(round(value, 6))
