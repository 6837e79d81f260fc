"""Pascal VOC: one XML file per image in ``Annotations/``, images in ``JPEGImages/``, splits in ``ImageSets/Main/``.

VOC counts pixels from 1 and its corners are inclusive: columns xmin..xmax belong to the box. Our boxes count from 0 and
their ends are exclusive. So 1 is subtracted from xmin and ymin, and xmax and ymax stay. Many tools write 0-based
corners into VOC files; ``one_based=False`` reads those unchanged.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from boxwright.data.formats.parsing import parse_xml
from boxwright.data.formats.places import (
    images_by_stem,
)
from boxwright.data.formats.problems import ProblemLog, box_defect
from boxwright.data.formats.voc.layout import VocLayout
from boxwright.data.images import image_size
from boxwright.data.index import DetectionIndex, ImageRecord
from boxwright.structures import Classes, InputError

_CLASS_FILES = ("labels.txt", "classes.txt")
_READ_TAGS = {"name", "bndbox", "difficult"}


@dataclass
class _ImageFile:
    """Content of one XML file; ``objects`` are (name, corners as in the file, difficult, line)."""

    file: Path
    file_name: str
    size: tuple[int, int] | None
    objects: list[tuple[str, tuple[float, float, float, float], bool, int]]


def read_voc(
    layout: VocLayout,
    splits: Iterable[str] | None = None,
    names: Sequence[str] | None = None,
    one_based: bool = True,
    log: ProblemLog | None = None,
) -> dict[str, DetectionIndex]:
    """Read the splits of a VOC data set: those in ``splits``, or all.

    The classes are ``names`` in that order. Without them they are the lines of ``labels.txt`` or ``classes.txt`` in the
    root; without that file, all names found in any split, sorted. An image is found by the stem of its XML file, else
    by the XML's ``filename``. Boxes without area (xmax not above xmin) are left out.

    Raises ``InputError`` naming the file, its line and a remedy for XML that does not parse or declares a document
    type, a name that is not among the given classes, an object without a box, and a split list that names no XML.
    """
    own_log = log or ProblemLog()
    chosen = list(layout.splits if splits is None else splits)
    for split, file, line, stem in layout.missing:
        if split not in chosen:
            continue
        own_log.refuse(
            "missing-annotation", file, f"line {line}", f"`{stem}` has no Annotations/{stem}.xml; restore or remove it"
        )
    contents: dict[Path, _ImageFile] = {}
    unread: dict[str, list[tuple[Path, int]]] = {}
    for file in dict.fromkeys(f for files in layout.splits.values() for f in files):
        try:
            contents[file] = _parse(file, own_log, unread)
        except InputError as error:
            if not own_log.lenient:
                raise
            own_log.refuse("unreadable", file, "", str(error).removeprefix(f"{file}").lstrip(",: "))
    for tag, positions in unread.items():
        file, line = positions[0]
        own_log.note("unread-key", "info", file, f"line {line}", f"<{tag}> is not read (found {len(positions)} times)")
    classes = _classes(layout.root, names, contents.values())
    reader = _Assembler(layout.root, classes, one_based, own_log)
    indexes: dict[str, DetectionIndex] = {}
    for split in chosen:
        present = [contents[file] for file in layout.splits[split] if file in contents]
        made = (reader.record(content, number) for number, content in enumerate(present, start=1))
        records = [record for record in made if record is not None]
        indexes[split] = DetectionIndex.build(classes, records, root=layout.root, name=split)
    if log is None:
        own_log.announce()
    return indexes


class _Assembler:
    """Make image records of parsed XML files. Defects of a file that two splits share are reported once."""

    def __init__(self, root: Path, classes: Classes, one_based: bool, log: ProblemLog) -> None:
        self.root = root
        self.labels = {name: label for label, name in enumerate(classes.names)}
        self.one_based = one_based
        self.log = log
        self._reported: set[Path] = set()
        self._stems: dict[Path, dict[str, list[str]]] = {}

    def record(self, content: _ImageFile, image_id: int) -> ImageRecord | None:
        """Return the record of one image; None if its size cannot be determined."""
        log = ProblemLog(lenient=self.log.lenient) if content.file in self._reported else self.log
        self._reported.add(content.file)
        path = self._image(content)
        size = content.size
        if size is None:
            try:
                size = image_size(path)
            except InputError as error:
                log.refuse("no-size", content.file, "size", f"is missing or 0, and the image has none: {error}")
                return None
        boxes: list[tuple[float, ...]] = []
        labels: list[int] = []
        difficult: list[bool] = []
        for name, corners, hard, line in content.objects:
            position = f"line {line}, object {name}"
            if name not in self.labels:
                log.refuse("unknown-category", content.file, position, "is not among the classes; add or correct it")
                continue
            x1, y1, x2, y2 = corners
            if x2 > x1 and y2 > y1 and self.one_based:  # a box of no area in the file must not gain a pixel
                x1, y1 = x1 - 1, y1 - 1
            if box_defect(log, content.file, position, (x1, y1, x2, y2), *size):
                boxes.append((x1, y1, x2, y2))
                labels.append(self.labels[name])
                difficult.append(hard)
        return ImageRecord(
            path=path, image_id=image_id, height=size[0], width=size[1], boxes=boxes, labels=labels, difficult=difficult
        )

    def _image(self, content: _ImageFile) -> Path:
        """Return the image of an XML file, or the path where it is expected if there is none."""
        xml = content.file
        bases = (self.root, xml.parent, xml.parent.parent, self.root.parent, self.root.parent.parent)
        folders = [*(base / n for base in bases for n in ("JPEGImages", "images", "Images")), xml.parent, self.root]
        name = re.split(r"[/\\]", content.file_name)[-1]
        for stem in dict.fromkeys((xml.stem, os.path.splitext(name)[0], name)):
            for folder in dict.fromkeys(folders):
                if folder not in self._stems:
                    self._stems[folder] = images_by_stem(folder)
                if found := self._stems[folder].get(stem):
                    return folder / (name if name in found else found[0])
        home = next((f for f in folders if self._stems.get(f)), folders[0])
        return home / (name or f"{xml.stem}.jpg")


def _classes(root: Path, names: Sequence[str] | None, contents: Iterable[_ImageFile]) -> Classes:
    """Return the given classes, else those of a file in the root, else all found, sorted."""
    if names is not None:
        return Classes.from_names(tuple(names))
    for file in (root / n for n in _CLASS_FILES):
        if file.is_file():
            lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
            try:
                return Classes.from_names(lines)
            except InputError as error:
                raise InputError(f"{file}: {error}") from None
    return Classes.from_names(sorted({name for content in contents for name, *_ in content.objects}))


def _parse(file: Path, log: ProblemLog, unread: dict[str, list[tuple[Path, int]]]) -> _ImageFile:
    """Parse one XML file. Tags may have any order; boxes of an object's parts are not read as the object's.

    ``unread`` collects the file and line of tags that are not read (pose, truncated, parts), by tag.
    """
    tree = parse_xml(file)
    if tree.tag != "annotation":
        raise InputError(f"{file}: the root element is <{tree.tag}>, but a VOC file has <annotation>; remove the file")
    width, height = _number(tree.findtext("size/width")), _number(tree.findtext("size/height"))
    size = (round(height), round(width)) if height and width and height >= 1 and width >= 1 else None
    if size is None:
        log.note("no-size", "warning", file, "size", "is missing or 0; read from the image")
    for element in (e for tag in ("source", "owner") for e in tree.findall(tag)):
        if any((inner.text or "").strip() not in ("", "Unknown") for inner in element.iter()):
            unread.setdefault(element.tag, []).append((file, int(element.get("__line", "0"))))
    objects: list[tuple[str, tuple[float, float, float, float], bool, int]] = []
    for element in tree.findall("object"):
        line = int(element.get("__line", "0"))
        name = (element.findtext("name") or "").strip()
        if not name:
            log.refuse("unknown-category", file, f"line {line}", "an object has no name; add one or remove the object")
            continue
        corners = tuple(_number(element.findtext(f"bndbox/{tag}")) for tag in ("xmin", "ymin", "xmax", "ymax"))
        x1, y1, x2, y2 = corners
        if x1 is None or y1 is None or x2 is None or y2 is None:
            log.refuse(
                "bad-box",
                file,
                f"line {line}, object {name}",
                "has no bndbox with four numbers; add it or remove the object",
            )
            continue
        for child in element:
            if child.tag not in _READ_TAGS and (
                len(child) or (child.text or "").strip() not in ("", "0", "Unspecified")
            ):
                unread.setdefault(child.tag, []).append((file, line))
        objects.append((name, (x1, y1, x2, y2), bool(_number(element.findtext("difficult"))), line))
    return _ImageFile(file, (tree.findtext("filename") or "").strip(), size, objects)


def _number(text: str | None) -> float | None:
    """Return the number in a tag's text; None if the tag is missing or holds no number."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None
