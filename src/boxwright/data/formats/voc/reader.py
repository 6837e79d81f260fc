"""Pascal VOC: one XML file per image in ``Annotations/``, images in ``JPEGImages/``, splits in ``ImageSets/Main/``.

VOC counts pixels from 1 and its corners are inclusive: columns xmin..xmax belong to the box. Our boxes count from 0 and
their ends are exclusive. So 1 is subtracted from xmin and ymin, and xmax and ymax stay. Many tools write 0-based
corners into VOC files; ``one_based=False`` reads those unchanged.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from boxwright.data.formats.entries.class_names import named_classes, note_changed
from boxwright.data.formats.entries.image_uses import ImageUses
from boxwright.data.formats.entries.values import flag, number
from boxwright.data.formats.lists import read_lines
from boxwright.data.formats.parsing import parse_xml, shown
from boxwright.data.formats.problems import ProblemLog, box_defect, refuse_fractions, size_defect
from boxwright.data.formats.voc.images import VocImages
from boxwright.data.formats.voc.layout import VocLayout
from boxwright.data.images import image_size
from boxwright.data.index import DetectionIndex
from boxwright.data.packing import POSES, ImageRecord
from boxwright.structures import Classes, InputError, plain_name

_CLASS_FILES = ("labels.txt", "classes.txt")
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_READ_TAGS = {"name", "bndbox", "difficult", "truncated", "occluded", "pose"}
_EMPTY = ("", "0", "Unspecified", "Unknown", "none")


@dataclass(frozen=True)
class _Object:
    """One object; the corners as in the file."""

    name: str
    corners: tuple[float, float, float, float]
    difficult: bool
    truncated: bool
    occluded: bool
    pose: str
    line: int


@dataclass
class _ImageFile:
    """Content of one XML file; ``size`` is height and width."""

    file: Path
    file_name: str
    size: tuple[int, int] | None
    objects: list[_Object]


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
    for file in dict.fromkeys(f for files in layout.splits.values() for f in files):
        try:
            contents[file] = _parse(file, own_log)
        except InputError as error:
            if not own_log.lenient:
                raise
            own_log.refuse("unreadable", file, "", str(error).removeprefix(f"{file}").lstrip(",: "))
    classes = _classes(layout.root, names, contents, own_log)
    _check_corners(layout.root, contents, one_based, own_log)
    reader = _Assembler(layout.root, classes, one_based, own_log)
    indexes: dict[str, DetectionIndex] = {}
    for split in chosen:
        present = [contents[file] for file in _once(layout, split, own_log) if file in contents]
        indexes[split] = DetectionIndex.build(classes, reader.records(split, present), root=layout.root, name=split)
    if log is None:
        own_log.announce()
    return indexes


def _once(layout: VocLayout, split: str, log: ProblemLog) -> list[Path]:
    """Return the XML files of a split, each once."""
    files = list(dict.fromkeys(layout.splits[split]))
    if (more := len(layout.splits[split]) - len(files)) > 0:
        twice = next(file for file, count in Counter(layout.splits[split]).items() if count > 1)
        message = f"{more} entries stand more than once, the first {twice.stem}; each is read once"
        log.correct("listed-twice", "warning", layout.root, f"split {split}", message)
    return files


def _check_corners(root: Path, contents: Mapping[Path, _ImageFile], one_based: bool, log: ProblemLog) -> None:
    """Note boxes that look as if they counted from 0, and refuse those in fractions of the image."""
    files = [(file, box.corners) for file, content in contents.items() for box in content.objects]
    zero = [file for file, corners in files if 0 in corners[:2]]
    if zero and one_based:
        message = (
            f"{len(zero)} of {len(files)} boxes begin at 0, but VOC counts pixels from 1: if the set counts from 0, "
            "give --voc-zero-based"
        )
        log.note("zero-based", "info", zero[0], "", message)
    if files and all(0 <= v <= 1 for _, corners in files for v in corners):
        refuse_fractions(log, files[0][0], len(files))


class _Assembler:
    """Make image records of parsed XML files. Defects of a file that two splits share are reported once."""

    def __init__(self, root: Path, classes: Classes, one_based: bool, log: ProblemLog) -> None:
        self.labels = {name: label for label, name in enumerate(classes.names)}
        self.one_based = one_based
        self.log = log
        self._images = VocImages(root, log)
        self._found: dict[Path, Path] = {}
        self._reported: set[Path] = set()

    def records(self, split: str, contents: Iterable[_ImageFile]) -> list[ImageRecord]:
        """Return the records of a split's images, without those whose size cannot be determined."""
        uses, records = ImageUses(), []
        for image_id, content in enumerate(contents, start=1):
            if content.file not in self._found:
                self._found[content.file] = self._images.find(content.file, content.file_name)
            path = self._found[content.file]
            if (earlier := uses.earlier(path, content.file.name)) is not None:
                self.log.refuse(
                    "one-image-twice", content.file, f"split {split}",
                    f"its image {path} is also that of {earlier[0]}; keep one XML file for each image",
                )  # fmt: skip
                continue
            record = self._record(content, path, image_id)
            if record is not None:
                records.append(record)
        return records

    def _record(self, content: _ImageFile, path: Path, image_id: int) -> ImageRecord | None:
        log = ProblemLog(lenient=self.log.lenient) if content.file in self._reported else self.log
        self._reported.add(content.file)
        size = content.size
        if size is None:
            try:
                size = image_size(path)
            except InputError as error:
                log.refuse("no-size", content.file, "size", f"is missing or 0, and the image has none: {error}")
                return None
        elif (defect := size_defect(*size)) is not None:
            log.refuse("no-size", content.file, "size", defect)
            return None
        boxes: list[tuple[float, ...]] = []
        kept: list[_Object] = []
        for found in content.objects:
            position = f"line {found.line}, object {found.name}"
            if found.name not in self.labels:
                log.refuse(
                    "unknown-category", content.file, position,
                    f"is not among the {len(self.labels)} classes; add it to labels.txt, or correct it",
                )  # fmt: skip
                continue
            x1, y1, x2, y2 = found.corners
            if x2 > x1 and y2 > y1 and self.one_based:  # a box of no area in the file must not gain a pixel
                x1, y1 = x1 - 1, y1 - 1
            if box_defect(log, content.file, position, (x1, y1, x2, y2), *size):
                boxes.append((x1, y1, x2, y2))
                kept.append(found)
        return ImageRecord(
            path=path,
            image_id=image_id,
            height=size[0],
            width=size[1],
            boxes=boxes,
            labels=[self.labels[found.name] for found in kept],
            difficult=[found.difficult for found in kept],
            truncated=[found.truncated for found in kept],
            occluded=[found.occluded for found in kept],
            poses=[found.pose for found in kept],
        )


def _classes(root: Path, names: Sequence[str] | None, contents: Mapping[Path, _ImageFile], log: ProblemLog) -> Classes:
    """Return the given classes, else those of a file in the root, else all found, sorted."""
    if names is not None:
        return Classes.from_names(tuple(names))
    for file in (root / n for n in _CLASS_FILES):
        if file.is_file():
            return named_classes([line for _, line in read_lines(file)], file, "", log)
    found = sorted({box.name for content in contents.values() for box in content.objects})
    file = next((file for file, content in contents.items() if content.objects), root)
    return named_classes(found, file, "", log)


def _parse(file: Path, log: ProblemLog) -> _ImageFile:
    """Parse one XML file. Tags may have any order; boxes of an object's parts are not read as the object's."""
    tree = parse_xml(file)
    if tree.tag != "annotation":
        raise InputError(f"{file}: the root element is <{tree.tag}>, but a VOC file has <annotation>; remove the file")
    for element in (e for tag in ("source", "owner") for e in tree.findall(tag)):
        if any((inner.text or "").strip() not in _EMPTY for inner in element.iter()):
            _unread(file, element.tag, log)
    objects = [found for element in tree.findall("object") if (found := _object(file, element, log)) is not None]
    return _ImageFile(file, (tree.findtext("filename") or "").strip(), _size(file, tree, log), objects)


def _size(file: Path, tree: ElementTree.Element, log: ProblemLog) -> tuple[int, int] | None:
    """Return the height and width in the file; None without them."""
    sides = [number(tree.findtext(f"size/{tag}") or "0") for tag in ("height", "width")]
    for tag, side in zip(("height", "width"), sides, strict=True):
        if side is None or not math.isfinite(side) or side < 0:
            log.refuse("no-size", file, f"size/{tag}", f"is {shown(tree.findtext(f'size/{tag}'))}, no number of pixels")
            return None
    height, width = (round(side or 0) for side in sides)
    if height and width:
        return height, width
    log.note("no-size", "warning", file, "size", "is missing or 0; read from the image")
    return None


def _object(file: Path, element: ElementTree.Element, log: ProblemLog) -> _Object | None:
    """Return one object; None if it has a defect, which is refused."""
    line = int(element.get("__line", "0"))
    written = (element.findtext("name") or "").strip()
    name = plain_name(written)
    if not name:
        log.refuse("unknown-category", file, f"line {line}", "an object has no name; add one or remove the object")
        return None
    note_changed([written], file, f"line {line}", log)
    place = f"line {line}, object {name}"
    corners = _corners(file, place, element, log)
    if corners is None:
        return None
    flags = {tag: flag(element.findtext(tag)) for tag in ("difficult", "truncated", "occluded")}
    for tag, value in flags.items():
        if value is None:
            log.refuse("bad-flag", file, place, f"<{tag}> is {shown(element.findtext(tag))}; write 0 or 1")
            return None
    for child in element:
        if child.tag not in _READ_TAGS and (len(child) or (child.text or "").strip() not in _EMPTY):
            _unread(file, child.tag, log)
    pose = (element.findtext("pose") or "").strip().capitalize()
    if pose not in POSES:
        if pose not in _EMPTY:
            _unread(file, "pose", log)
        pose = "Unspecified"
    return _Object(
        name, corners, bool(flags["difficult"]), bool(flags["truncated"]), bool(flags["occluded"]), pose, line
    )


def _corners(
    file: Path, place: str, element: ElementTree.Element, log: ProblemLog
) -> tuple[float, float, float, float] | None:
    """Return the corners of an object as in the file; None without four numbers, which is refused."""
    boxes = element.findall("bndbox")
    texts = [boxes[0].findtext(tag) for tag in _CORNERS] if boxes else []
    x1, y1, x2, y2 = [number(text) for text in texts] or [None] * 4
    if len(boxes) > 1:
        message = f"has {len(boxes)} bndbox; give each box an object of its own"
    elif any(text is not None and text.strip() for text in texts):
        bad = next(
            (f"<{tag}> is {shown(text)}" for tag, text in zip(_CORNERS, texts, strict=True) if number(text) is None), ""
        )
        message = f"has no bndbox with four numbers: {bad}; correct it or remove the object"
    elif element.find("robndbox") is not None:
        message = "has no bndbox but a rotated box (robndbox), which is not read; add the upright box around it"
    else:
        message = "has no bndbox with four numbers; add it or remove the object"
    if len(boxes) != 1 or x1 is None or y1 is None or x2 is None or y2 is None:
        log.refuse("bad-box", file, place, message)
        return None
    return x1, y1, x2, y2


def _unread(file: Path, tag: str, log: ProblemLog) -> None:
    """Note a tag that is not read (source, part, polygon), in one line for the whole data set."""
    log.gather("unread-key", "info", file, f"<{tag}>", "not read: {items}")
