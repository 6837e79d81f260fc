"""COCO detection files: one JSON file per split with ``images``, ``annotations`` and ``categories``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from boxwright.data.formats.coco.annotations import AnnotationReader
from boxwright.data.formats.coco.images import CocoImages
from boxwright.data.formats.entries.class_names import named_classes
from boxwright.data.formats.entries.image_uses import ImageUses
from boxwright.data.formats.entries.values import whole
from boxwright.data.formats.parsing import parse_json, shown
from boxwright.data.formats.problems import ProblemLog, note_zero_id, size_defect
from boxwright.data.formats.splits import split_name
from boxwright.data.images import image_size
from boxwright.data.index import DetectionIndex
from boxwright.data.packing import ImageRecord
from boxwright.structures import Classes, InputError

_LONGEST_NAME = 4096  # of a path on most systems
_KNOWN_KEYS: dict[str, set[str]] = {
    "images": {"id", "file_name", "width", "height"},
    "annotations": {
        *("id", "image_id", "category_id", "bbox", "area", "iscrowd", "segmentation", "difficult", "ignore"),
        *("keypoints", "num_keypoints"),  # which have words of their own
    },
    "categories": {"id", "name"},
}


def read_coco(
    path: Path | str, name: str | None = None, log: ProblemLog | None = None, root: Path | None = None
) -> DetectionIndex:
    """Read the split in one COCO JSON file.

    Category ids may have gaps; labels follow the ascending ids. Numbers and flags may be text. Images are searched
    below the folder of the JSON file, in ``images/`` beside or above it, and in folders named like the split, and
    outside ``root``, the data set's folder (default: that of the file), only where it holds none of them. A missing
    width or height is read from the image. ``difficult`` (our own key) and ``ignore`` mark difficult boxes. ``name``
    defaults to the split in the file's name.

    Raises ``InputError`` naming the file, the position and a remedy for JSON that does not parse, an unknown category,
    an image id used twice, two images of one file, a value that is not of its key's type, a polygon of fewer than three
    points, a run length that does not fit its image, a mask that lies off its box, and boxes that are not x y width
    height. Boxes without area are left out and noted in ``log``, or announced in one `DatasetWarning` if no log is
    given.
    """
    file = Path(path).absolute()
    own_log = log or ProblemLog()
    index = _CocoReader(file, own_log, root or file).read(split_name(file.stem) if name is None else name)
    if log is None:
        own_log.announce()
    return index


class _CocoReader:
    """Reader of one file; each method reads one kind of entry."""

    def __init__(self, file: Path, log: ProblemLog, root: Path) -> None:
        self.file = file
        self.log = log
        # The images of instances_train2017.json are in train2017/ or train/, those of _annotations.coco.json beside it.
        raw = file.stem.removeprefix("instances_")
        self.finder = CocoImages(file, root, (raw, split_name(file.stem)), log)
        self.refused: set[str] = set()  # ids of images that were left out, whose annotations are no further defect

    def read(self, name: str) -> DetectionIndex:
        """Read the whole file into an index called ``name``. Raises InputError if it is not a COCO detection file."""
        content = parse_json(self.file)
        if not isinstance(content, dict) or not isinstance(content.get("images"), list):
            raise InputError(f"{self.file}: not a COCO annotation file ({_found(content)}")
        for key in ("annotations", "categories"):
            if not isinstance(content.get(key), list):
                raise InputError(f"{self.file}: no list `{key}`; a COCO file for training or evaluation needs one")
        self._unread(content)
        classes = self._classes(content["categories"], content["annotations"])
        labels = {category: label for label, category in enumerate(classes.ids)}
        records = self._images(content["images"])
        AnnotationReader(self.file, self.log, labels, records, self.refused).read(content["annotations"])
        root = self.file.parent
        if records:
            first = next(iter(records.values())).path
            root = next((p for p in list(self.file.parents)[:3] if first.is_relative_to(p)), root)
        return DetectionIndex.build(classes, list(records.values()), root=root, name=name)

    def _unread(self, content: dict[str, Any]) -> None:
        """Note the content that is not read, so that a conversion can report what it leaves out."""
        unread = [f"`{key[:60]}`" for key, value in sorted(content.items()) if key not in _KNOWN_KEYS and value]
        for part, known in _KNOWN_KEYS.items():
            entries = [entry for entry in content[part] if isinstance(entry, dict)]
            keys = {key for entry in entries for key, value in entry.items() if key not in known and value}
            unread += [f"`{key[:60]}` of {part}" for key in sorted(keys)]
        for item in unread:
            self.log.gather("unread-key", "info", self.file, item, "not read: {items}")

    def _classes(self, categories: list[Any], annotations: list[Any]) -> Classes:
        names: dict[int, str] = {}
        for position, entry in enumerate(categories):
            place = f"{self.file}, categories[{position}]"
            key = whole(entry.get("id")) if isinstance(entry, dict) else None
            if key is None or not isinstance(entry.get("name"), str):
                raise InputError(
                    f"{place}: needs a whole `id` of 64 bits and a `name`, but is {shown(entry)}; correct it"
                )
            if key in names:
                raise InputError(f"{place}: id {key} is used twice; give each its own")
            names[key] = entry["name"]
        # Roboflow puts a parent category such as "0: animals" before the classes. It is not a class.
        others = [e for e in categories if whole(e["id"]) != 0]
        if 0 in names and others and all(e.get("supercategory") == names[0] for e in others):
            used = any(isinstance(a, dict) and whole(a.get("category_id")) == 0 for a in annotations)
            if not used:
                self.log.note(
                    "parent-category",
                    "info",
                    self.file,
                    "category 0",
                    f"`{names[0][:60]}` only groups the others; left out",
                )
                del names[0]
        if 0 in names:
            note_zero_id(self.log, self.file, "categories")
        ordered = sorted(names)
        return named_classes([names[k] for k in ordered], self.file, "categories", self.log, ordered)

    def _images(self, entries: list[Any]) -> dict[int, ImageRecord]:
        """Return a record without boxes for each image that can be used, by id."""
        usable: dict[int, tuple[str, tuple[int, int] | None]] = {}
        for position, entry in enumerate(entries):
            if (defect := _image_defect(entry)) is not None:
                self._leave_out("bad-image-entry", entry, f"images[{position}]", defect)
                continue
            key = whole(entry["id"])
            assert key is not None
            place = f"image id {key}"
            if key in usable:
                message = "used by two images; give each image its own id"
                self.log.refuse("duplicate-image-id", self.file, place, message)
                continue
            if key == 0:
                note_zero_id(self.log, self.file, "images")
            size = self._stated_size(entry)
            if isinstance(size, str):
                self._leave_out("no-size", entry, place, size)
            else:
                usable[key] = (entry["file_name"], size)
        paths = self.finder.find([name for name, _ in usable.values()], [size for _, size in usable.values()])
        records: dict[int, ImageRecord] = {}
        uses = ImageUses()
        for (key, (file_name, size)), path in zip(usable.items(), paths, strict=True):
            place = f"image id {key}"
            if (earlier := uses.earlier(path, str(key))) is not None:
                self._leave_out(
                    "one-image-twice", {"id": key}, f"image ids {earlier[0]} and {key}",
                    f"both name {file_name}, the file {earlier[1]}; give each file one entry, with all its objects",
                )  # fmt: skip
                continue
            if size is None and (size := self._size_of(path, key, place)) is None:
                continue
            records[key] = ImageRecord(path=path, image_id=key, height=size[0], width=size[1], box_format="xywh")
        return records

    def _stated_size(self, entry: dict[str, Any]) -> tuple[int, int] | str | None:
        """Return the height and width of the entry, None without them, and the defect of values that are no size."""
        sides: list[int] = []
        for key in ("height", "width"):
            value = entry.get(key)
            if value in (None, "", 0, "0") and not isinstance(value, bool):
                return None
            side = whole(value)
            if side is None or side < 0:
                return f"{key} is {shown(value)}, no number of pixels; correct it"
            sides.append(side)
        return size_defect(sides[0], sides[1]) or ((sides[0], sides[1]) if all(sides) else None)

    def _size_of(self, path: Path, key: int, place: str) -> tuple[int, int] | None:
        """Return height and width of an image file."""
        try:
            size = image_size(path)
        except InputError as error:
            message = f"has no width and height, and they cannot be read from its image: {error}"
            self._leave_out("no-size", {"id": key}, place, message)
            return None
        message = "{count} images have no width and height; read from the images"
        self.log.gather("no-size", "warning", self.file, place, message)
        return size

    def _leave_out(self, kind: str, entry: Any, place: str, message: str) -> None:
        """Refuse an image."""
        if isinstance(entry, dict) and "id" in entry:
            key = whole(entry["id"])
            self.refused.add(shown(entry["id"]) if key is None else str(key))
        self.log.refuse(kind, self.file, place, message)


def _found(content: Any) -> str:
    """Describe content that is no annotation file, with what it needs."""
    needs = "it needs `images`, `annotations` and `categories`"
    if isinstance(content, list):
        first = content[0] if content else None
        if isinstance(first, dict) and {"image_id", "score"} <= first.keys():
            return f"a list of {len(content)} detections); `boxwright evaluate --detections FILE` takes them"
        return f"a list of {len(content)} entries); {needs}"
    return f"no list `images`); {needs}"


def _image_defect(entry: Any) -> str | None:
    """Describe the defect of an image's id or name; None if it has none."""
    if not isinstance(entry, dict):
        return f"is {shown(entry)}, no JSON object; correct or remove it"
    if whole(entry.get("id")) is None:
        return f"needs a whole `id` of 64 bits, but it is {shown(entry.get('id'))}; number the images from 1"
    name = entry.get("file_name")
    if not isinstance(name, str) or not name.strip() or "\0" in name or len(name) > _LONGEST_NAME:
        return f"needs the name of an image as `file_name`, but it is {shown(name)}"
    try:
        os.fsencode(entry["file_name"])
    except UnicodeEncodeError:
        return f"has the `file_name` {shown(entry['file_name'])}, with half a Unicode character; correct it"
    return None
