"""Pascal VOC: one XML file per image in ``Annotations/``, images in ``JPEGImages/``, splits in ``ImageSets/Main/``.

VOC counts pixels from 1 and its corners are inclusive: columns xmin..xmax belong to the box. Our boxes count from 0 and
their ends are exclusive. So 1 is subtracted from xmin and ymin, and xmax and ymax stay. Many tools write 0-based
corners into VOC files; ``one_based=False`` reads those unchanged.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import escape

from boxwright.data.formats.parsing import parse_xml
from boxwright.data.formats.places import (
    ImageTransfer,
    images_by_stem,
    place_image,
    split_name,
    split_rank,
    unique_names,
    write_text_file,
)
from boxwright.data.formats.problems import ProblemLog, box_defect
from boxwright.data.images import image_size
from boxwright.data.index import DetectionIndex, ImageRecord
from boxwright.structures import Classes, InputError

_CLASS_FILES = ("labels.txt", "classes.txt")
_READ_TAGS = {"name", "bndbox", "difficult"}


@dataclass(frozen=True)
class VocLayout:
    """Folders and files of a VOC data set; ``splits`` holds the XML files of each split."""

    root: Path
    splits: dict[str, list[Path]]
    missing: list[tuple[str, Path, int, str]] = field(default_factory=list)  # split, list, line, stem without an XML


@dataclass
class _ImageFile:
    """Content of one XML file; ``objects`` are (name, corners as in the file, difficult, line)."""

    file: Path
    file_name: str
    size: tuple[int, int] | None
    objects: list[tuple[str, tuple[float, float, float, float], bool, int]]


def find_voc(path: Path) -> VocLayout | None:
    """Find the VOC data set at a folder: its root, its ``Annotations``, or a folder of XML files. None without one."""
    if path.name == "Annotations" and any((path.parent / n).is_dir() for n in ("ImageSets", "JPEGImages", "images")):
        path = path.parent
    annotations = path / "Annotations"
    if annotations.is_dir():
        lists = _split_lists(path)
        if lists:
            return _listed(path, annotations, lists)
        files = sorted(annotations.rglob("*.xml"))
        return VocLayout(path, {"all": files}) if files else None
    splits: dict[str, list[Path]] = {}
    for folder in sorted(p for p in path.iterdir() if p.is_dir()):
        inner = folder / "Annotations" if (folder / "Annotations").is_dir() else folder
        if files := sorted(inner.glob("*.xml")):
            splits[split_name(folder.name)] = files
    if splits:
        return VocLayout(path, dict(sorted(splits.items(), key=lambda item: split_rank(item[0]))))
    files = sorted(path.glob("*.xml"))
    return (
        VocLayout(path, {split_name(path.name) if path.name in ("train", "val", "valid", "test") else "all": files})
        if files
        else None
    )


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


def _split_lists(root: Path) -> dict[str, Path]:
    """Return the lists of ImageSets/Main, else of ImageSets, by split, without those of one class (``cat_train``)."""
    for folder in (root / "ImageSets" / "Main", root / "ImageSets"):
        lists = {split_name(p.stem): p for p in sorted(folder.glob("*.txt")) if not _is_class_list(p)}
        if lists:
            return dict(sorted(lists.items(), key=lambda item: split_rank(item[0])))
    return {}


def _is_class_list(path: Path) -> bool:
    """Return True if the list is of one class, with -1, 0 or 1 after each image."""
    if not re.search(r"_(train|val|trainval|test)$", path.stem):
        return False
    with path.open(encoding="utf-8", errors="replace") as lines:
        first = next((line.split() for line in lines if line.strip()), [])
    return len(first) == 2 and first[1] in ("-1", "0", "1")


def _listed(root: Path, annotations: Path, lists: dict[str, Path]) -> VocLayout:
    """Return the layout that the split lists describe."""
    splits: dict[str, list[Path]] = {}
    missing: list[tuple[str, Path, int, str]] = []
    for split, path in lists.items():
        splits[split] = []
        for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
            if not (stem := line.strip()):
                continue
            file = annotations / f"{stem}.xml"
            if not file.is_file() and os.path.splitext(stem)[1]:  # some lists keep the suffix of the image
                bare = annotations / f"{os.path.splitext(stem)[0]}.xml"
                file = bare if bare.is_file() else file
            if file.is_file():
                splits[split].append(file)
            else:
                missing.append((split, path, number, stem))
    return VocLayout(root, splits, missing)


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
