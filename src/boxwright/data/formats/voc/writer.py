"""Write a data set as Pascal VOC."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from xml.sax.saxutils import escape

from boxwright.data.formats.writing.output import (
    ImageTransfer,
    place_image,
    unique_names,
    write_text_file,
)
from boxwright.data.index import DetectionIndex


def write_voc(folder: Path | str, splits: Mapping[str, DetectionIndex], images: ImageTransfer = "copy") -> list[str]:
    """Write ``Annotations/``, ``ImageSets/Main/SPLIT.txt``, ``labels.txt`` and ``JPEGImages/``.

    Corners are written 1-based and inclusive, as whole numbers where they are whole. Returns one sentence for each kind
    of content that the format cannot hold. Masks are left out. Crowd regions become difficult boxes, since the
    evaluations ignore both. Category and annotation ids are lost. With ``images="none"`` the images must already be in
    ``JPEGImages``.
    """
    root = Path(folder).absolute()
    names, renamed = unique_names(splits, one_folder=True)
    announcements = [f"{renamed} images were renamed, because two had the same name"] if renamed else []
    for split, index in splits.items():
        announcements += _lost(split, index)
        for i in range(len(index)):
            place_image(index.path(i), image_folder(root, split) / names[split][i], images)
            stem = os.path.splitext(names[split][i])[0]
            write_text_file(root / "Annotations" / f"{stem}.xml", _xml(index, i, names[split][i]))
        lines = "".join(os.path.splitext(name)[0] + "\n" for name in names[split])
        write_text_file(root / "ImageSets" / "Main" / f"{split}.txt", lines)
        write_text_file(root / "labels.txt", "".join(name + "\n" for name in index.classes.names))
    return announcements


def image_folder(folder: Path | str, split: str) -> Path:
    """Return the folder in which `write_voc` puts the images of all splits."""
    return Path(folder) / "JPEGImages"


def _lost(split: str, index: DetectionIndex) -> list[str]:
    """List the contents of a split that the format cannot hold."""
    lost: list[str] = []
    if index.text_ends is not None:
        lost.append(f"{split}: masks are left out, VOC XML holds boxes only")
    if crowds := int(index.crowd.sum()):
        lost.append(f"{split}: {crowds} crowd regions become difficult boxes")
    if index.classes.ids != tuple(range(1, len(index.classes) + 1)):
        lost.append(
            f"{split}: category ids {min(index.classes.ids)}..{max(index.classes.ids)} are lost, VOC has names only"
        )
    return lost


def _xml(index: DetectionIndex, i: int, name: str) -> str:
    """Return the XML text of one image."""
    height, width = index.size(i)
    rows = index.annotations(i)
    lines = [
        "<annotation>",
        "  <folder>JPEGImages</folder>",
        f"  <filename>{escape(name)}</filename>",
        f"  <size><width>{width}</width><height>{height}</height><depth>3</depth></size>",
        "  <segmented>0</segmented>",
    ]
    xywh = index.xywh[index.box_ends[i] : index.box_ends[i + 1]].tolist()
    for (x, y, w, h), label, crowd, hard in zip(xywh, rows.labels, rows.crowd, rows.difficult, strict=True):
        corners = zip(("xmin", "ymin", "xmax", "ymax"), (x + 1, y + 1, x + w, y + h), strict=True)
        lines += [
            "  <object>",
            f"    <name>{escape(index.classes.names[label])}</name>",
            f"    <difficult>{int(crowd or hard)}</difficult>",
            "    <bndbox>" + "".join(f"<{tag}>{_number_text(value)}</{tag}>" for tag, value in corners) + "</bndbox>",
            "  </object>",
        ]
    return "\n".join([*lines, "</annotation>", ""])


def _number_text(value: float) -> str:
    """Return a coordinate, rounded to 1e-6 pixel so that sums of decimal fractions become whole again."""
    rounded = round(value, 6)
    return str(int(rounded)) if rounded == int(rounded) else repr(rounded)
