"""COCO detection files: one JSON file per split with ``images``, ``annotations`` and ``categories``."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from boxwright.data.formats.parsing import parse_json
from boxwright.data.formats.places import ImageFinder
from boxwright.data.formats.problems import ProblemLog, box_defect
from boxwright.data.formats.splits import split_name
from boxwright.data.images import image_size
from boxwright.data.index import DetectionIndex, ImageRecord
from boxwright.data.masks import masks as mask_tools
from boxwright.data.masks.masks import Segmentation
from boxwright.structures import Classes, InputError

_KNOWN_KEYS: dict[str, set[str]] = {
    "images": {"id", "file_name", "width", "height"},
    "annotations": {
        *("id", "image_id", "category_id", "bbox", "area", "iscrowd", "segmentation", "difficult", "ignore"),
    },
    "categories": {"id", "name"},
}


def read_coco(path: Path | str, name: str | None = None, log: ProblemLog | None = None) -> DetectionIndex:
    """Read the split in one COCO JSON file.

    Category ids may have gaps; labels follow the ascending ids. Images are searched below the folder of the JSON file,
    in ``images/`` beside or above it, and in folders named like the split. A missing width or height is read from the
    image. ``difficult`` (our own key) and ``ignore`` mark difficult boxes. ``name`` defaults to the split in the file's
    name.

    Raises ``InputError`` naming the file, the position and a remedy for JSON that does not parse, an unknown category,
    an image id used twice, a polygon of fewer than three points, and a run length that does not fit its image. Boxes
    without area are left out and noted in ``log``, or announced in one `DatasetWarning` if no log is given.
    """
    file = Path(path).absolute()
    own_log = log or ProblemLog()
    index = _CocoReader(file, own_log).read(split_name(file.stem) if name is None else name)
    if log is None:
        own_log.announce()
    return index


class _Row(NamedTuple):
    """One annotation. The box is x, y, width, height."""

    box: list[float]
    label: int
    crowd: bool
    difficult: bool
    area: float | None
    id: int
    segmentation: Segmentation | None

    @staticmethod
    def fill(record: ImageRecord, rows: Sequence[_Row]) -> None:
        """Set the columns of an image's record from its rows."""
        record.boxes = [row.box for row in rows]
        record.labels = [row.label for row in rows]
        record.crowd = [row.crowd for row in rows]
        record.difficult = [row.difficult for row in rows]
        record.areas = [row.area for row in rows]
        record.ids = [row.id for row in rows]
        record.segmentations = [row.segmentation for row in rows]


class _CocoReader:
    """Reader of one file; each method reads one kind of entry."""

    def __init__(self, file: Path, log: ProblemLog) -> None:
        self.file = file
        self.log = log
        self.rows: defaultdict[int, list[_Row]] = defaultdict(list)  # by image id
        # The images of instances_train2017.json are in train2017/ or train/, those of _annotations.coco.json beside it.
        raw = file.stem.removeprefix("instances_")
        self.finder = ImageFinder(file.parent, (raw, split_name(file.stem)))

    def read(self, name: str) -> DetectionIndex:
        """Read the whole file into an index called ``name``. Raises InputError if it is not a COCO detection file."""
        content = parse_json(self.file)
        if not isinstance(content, dict) or not isinstance(content.get("images"), list):
            found = f"a list of {len(content)} entries" if isinstance(content, list) else "no list `images`"
            raise InputError(
                f"{self.file}: not a COCO annotation file ({found}); it needs `images`, `annotations` and `categories`"
            )
        for key in ("annotations", "categories"):
            if not isinstance(content.get(key), list):
                raise InputError(f"{self.file}: no list `{key}`; a COCO file for training or evaluation needs one")
        self._unread(content)
        classes = self._classes(content["categories"], content["annotations"])
        labels = {category: label for label, category in enumerate(classes.ids)}
        records = self._images(content["images"])
        self._annotations(content["annotations"], labels, records)
        for image_id, record in records.items():
            _Row.fill(record, self.rows[image_id])
        root = self.file.parent
        if records:
            first = next(iter(records.values())).path
            root = next((p for p in list(self.file.parents)[:3] if first.is_relative_to(p)), root)
        return DetectionIndex.build(classes, list(records.values()), root=root, name=name)

    def _unread(self, content: dict[str, Any]) -> None:
        """Note the content that is not read, so that a conversion can report what it leaves out."""
        unread = [f"`{key}`" for key, value in sorted(content.items()) if key not in _KNOWN_KEYS and value]
        for part, known in _KNOWN_KEYS.items():
            entries = [entry for entry in content[part] if isinstance(entry, dict)]
            keys = {key for entry in entries for key, value in entry.items() if key not in known and value}
            unread += [f"`{key}` of {part}" for key in sorted(keys)]
        if unread:
            self.log.note("unread-key", "info", self.file, "", f"not read: {', '.join(unread)}")

    def _classes(self, categories: list[Any], annotations: list[Any]) -> Classes:
        names: dict[int, str] = {}
        for position, entry in enumerate(categories):
            key = _whole(entry.get("id")) if isinstance(entry, dict) else None
            if key is None or not isinstance(entry.get("name"), str):
                raise InputError(f"{self.file}, categories[{position}]: needs a whole `id` and a `name`")
            if key in names:
                raise InputError(f"{self.file}, categories[{position}]: id {key} is used twice; give each its own")
            if key == 0:
                self.log.note(
                    "id-zero", "info", self.file, "category id 0", "some tools keep category 0 for background"
                )
            names[key] = entry["name"]
        # Roboflow puts a parent category such as "0: animals" before the classes. It is not a class.
        others = [e for e in categories if _whole(e["id"]) != 0]
        if 0 in names and others and all(e.get("supercategory") == names[0] for e in others):
            used = any(isinstance(a, dict) and _whole(a.get("category_id")) == 0 for a in annotations)
            if not used:
                self.log.note(
                    "parent-category", "info", self.file, "category 0", f"`{names[0]}` only groups the others; left out"
                )
                del names[0]
        ordered = sorted(names)
        try:
            return Classes(tuple(names[k] for k in ordered), tuple(ordered))
        except InputError as error:
            raise InputError(f"{self.file}, categories: {error}") from None

    def _images(self, entries: list[Any]) -> dict[int, ImageRecord]:
        records: dict[int, ImageRecord] = {}
        for position, entry in enumerate(entries):
            place = f"images[{position}]"
            key = _whole(entry.get("id")) if isinstance(entry, dict) else None
            if key is None or not isinstance(entry.get("file_name"), str) or not entry["file_name"]:
                self.log.refuse("bad-image-entry", self.file, place, "needs a whole `id` and a `file_name`")
                continue
            place = f"image id {key}"
            if key in records:
                self.log.refuse(
                    "duplicate-image-id", self.file, place, "used by two images; give each image its own id"
                )
                continue
            if key == 0:
                self.log.note(
                    "id-zero", "warning", self.file, place, "some tools treat id 0 as missing; count image ids from 1"
                )
            path = self.finder.find(entry["file_name"])
            size = self._size(entry, path or self.finder.expected(entry["file_name"]), place)
            if size is None:
                continue
            path = path or self.finder.expected(entry["file_name"])
            records[key] = ImageRecord(path=path, image_id=key, height=size[0], width=size[1], box_format="xywh")
        return records

    def _size(self, entry: dict[str, Any], path: Path, place: str) -> tuple[int, int] | None:
        """Return height and width: those of the entry, else of the image file."""
        height, width = _whole(entry.get("height")), _whole(entry.get("width"))
        if height and width and height > 0 and width > 0:
            return height, width
        try:
            return image_size(path)
        except InputError as error:
            self.log.refuse(
                "no-size", self.file, place, f"has no width and height, and they cannot be read from its image: {error}"
            )
            return None

    def _annotations(self, entries: list[Any], labels: dict[int, int], records: dict[int, ImageRecord]) -> None:
        seen: set[int] = set()
        for position, entry in enumerate(entries):
            if not isinstance(entry, dict):
                self.log.refuse(
                    "bad-annotation", self.file, f"annotations[{position}]", "is not a JSON object; remove it"
                )
                continue
            key = _whole(entry.get("id"))
            place = f"annotation id {key}" if key is not None else f"annotations[{position}]"
            if key is None:
                key = 0  # the index renumbers all annotations if ids are not unique
                self.log.note("bad-annotation", "warning", self.file, place, "has no whole `id`; give it one")
            elif key in seen:
                self.log.note(
                    "duplicate-annotation-id", "error", self.file, place, "used twice; renumber the annotations"
                )
            elif key == 0:
                self.log.note(
                    "id-zero", "warning", self.file, place,
                    "pycocotools treats a match with annotation id 0 as no match; count annotation ids from 1",
                )  # fmt: skip
            seen.add(key)
            self._annotation(entry, key, place, labels, records)

    def _annotation(
        self, entry: dict[str, Any], key: int, place: str, labels: dict[int, int], records: dict[int, ImageRecord]
    ) -> None:
        """Append one annotation to its image's record."""
        image = records.get(owner) if (owner := _whole(entry.get("image_id"))) is not None else None
        if image is None:
            self.log.refuse(
                "unknown-image",
                self.file,
                place,
                f"image_id {entry.get('image_id')} is not an image of this file; remove the annotation",
            )
            return
        label = labels.get(category) if (category := _whole(entry.get("category_id"))) is not None else None
        if label is None:
            self.log.refuse(
                "unknown-category", self.file, place,
                f"category_id {entry.get('category_id')} is not one of the {len(labels)} categories; "
                "add it to `categories` or correct the annotation",
            )  # fmt: skip
            return
        box = _box(entry.get("bbox"))
        where = f"{place}, image {image.path.name}"
        if box is None:
            self.log.refuse("bad-box", self.file, where, f"bbox {entry.get('bbox')} is not x, y, width, height")
            return
        x, y, w, h = box
        if not box_defect(self.log, self.file, where, (x, y, x + w, y + h), image.height, image.width):
            return
        area = entry.get("area")
        self.rows[image.image_id].append(
            _Row(
                box=box,
                label=label,
                crowd=bool(entry.get("iscrowd", 0)),
                difficult=bool(entry.get("difficult", 0) or entry.get("ignore", 0)),
                area=float(area) if isinstance(area, int | float) and math.isfinite(area) else None,
                id=key,
                segmentation=self._segmentation(entry.get("segmentation"), image, where),
            )
        )

    def _segmentation(self, value: Any, image: ImageRecord, where: str) -> Segmentation | None:
        """Return the segmentation, or None; parts that are not a valid mask of the image are refused."""
        if not value:
            return None
        if isinstance(value, list):
            usable = []
            for position, polygon in enumerate(value):
                defect = mask_tools.defect([polygon], image.height, image.width)
                if defect is None:
                    usable.append(polygon)
                else:
                    self._bad_mask(f"{where}, segmentation[{position}]", defect)
            return usable or None
        if (defect := mask_tools.defect(value, image.height, image.width)) is not None:
            self._bad_mask(where, defect)
            return None
        return value

    def _bad_mask(self, where: str, defect: str) -> None:
        """Refuse an invalid polygon or mask, or leave it out if the log says so."""
        if self.log.skip_masks:
            self.log.correct("bad-mask", "error", self.file, where, f"{defect}; left out")
            return
        remedy = (
            "correct or remove it, or convert without it: "
            "`boxwright data convert DATA NEW --format coco --skip-bad-masks`"
        )
        self.log.refuse("bad-mask", self.file, where, f"{defect}; {remedy}")


def _whole(value: Any) -> int | None:
    """Return a whole number given as int, as 3.0 or as text; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and value.strip().lstrip("-").isdecimal():
        return int(value)
    return None


def _box(value: Any) -> list[float] | None:
    """Return four numbers, else None. Numbers that are not finite pass; `box_defect` reports them."""
    if not isinstance(value, list) or len(value) != 4:
        return None
    if any(isinstance(v, bool) or not isinstance(v, int | float) for v in value):
        return None
    return [float(v) for v in value]
