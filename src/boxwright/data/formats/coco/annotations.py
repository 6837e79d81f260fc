"""Read the annotations of a COCO file: boxes, classes, flags, areas and masks, each checked against its image."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boxwright.data.formats.coco.box_forms import BoxForms
from boxwright.data.formats.entries.values import flag, number, whole
from boxwright.data.formats.parsing import shown
from boxwright.data.formats.problems import ProblemLog, box_defect, note_zero_id
from boxwright.data.masks import masks as mask_tools
from boxwright.data.masks.agreement import Corners, disagreement
from boxwright.data.masks.masks import Segmentation
from boxwright.data.packing import ImageRecord

_FLAGS = ("iscrowd", "difficult", "ignore")


@dataclass(slots=True)
class _Row:
    """One annotation. The box is x, y, width, height; ``bounds`` are those of its mask."""

    place: str
    box: list[float]
    label: int
    crowd: bool
    difficult: bool
    area: float | None
    id: int
    segmentation: Segmentation | None
    bounds: Corners | None


class AnnotationReader:
    """Reader of the annotations of one file into the records of its images."""

    def __init__(
        self,
        file: Path,
        log: ProblemLog,
        labels: Mapping[int, int],
        records: Mapping[int, ImageRecord],
        left_out: set[str],
    ) -> None:
        """``labels`` and ``records`` are by category and image id; ``left_out`` are ids of images that are refused."""
        self.file = file
        self.log = log
        self.labels = labels
        self.records = records
        self.left_out = left_out
        self.forms = BoxForms()
        self.rows: defaultdict[int, list[_Row]] = defaultdict(list)  # by image id

    def read(self, entries: list[Any]) -> None:
        """Read all annotations, and set the columns of the records."""
        seen: set[int] = set()
        for position, entry in enumerate(entries):
            place = f"annotations[{position}]"
            if not isinstance(entry, dict):
                self.log.refuse("bad-annotation", self.file, place, f"is {shown(entry)}, no JSON object; remove it")
                continue
            key = whole(entry.get("id"))
            if key is None:
                message = f"has no whole `id` of 64 bits ({shown(entry.get('id'))}); give it one"
                self.log.note("bad-annotation", "warning", self.file, place, message)
                key = 0  # the index renumbers all annotations if ids are not unique
            else:
                place = f"annotation id {key}"
                if key in seen:
                    message = "used twice; renumber the annotations"
                    self.log.note("duplicate-annotation-id", "error", self.file, place, message)
                elif key == 0:
                    note_zero_id(self.log, self.file, "annotations")
                seen.add(key)
            self._annotation(entry, key, place)
        if self.forms.judge(self.file, self.log):
            self._compare_masks()
        for image_id, record in self.records.items():
            _fill(record, self.rows[image_id])

    def _annotation(self, entry: dict[str, Any], key: int, place: str) -> None:
        """Append one annotation to the rows of its image."""
        owner = whole(entry.get("image_id"))
        image = None if owner is None else self.records.get(owner)
        if image is None:
            if (str(owner) if owner is not None else shown(entry.get("image_id"))) not in self.left_out:
                message = f"image_id {shown(entry.get('image_id'))} is not an image of this file; remove the annotation"
                self.log.refuse("unknown-image", self.file, place, message)
            return
        category = whole(entry.get("category_id"))
        label = None if category is None else self.labels.get(category)
        if label is None:
            self.log.refuse(
                "unknown-category", self.file, place,
                f"category_id {shown(entry.get('category_id'))} is not one of the {len(self.labels)} categories; "
                "add it to `categories` or correct the annotation",
            )  # fmt: skip
            return
        where = f"{place}, image {image.path.name}"
        flags = [flag(entry.get(name)) for name in _FLAGS]
        for name, value in zip(_FLAGS, flags, strict=True):
            if value is None:
                self.log.refuse("bad-flag", self.file, where, f"{name} is {shown(entry[name])}; write 0 or 1")
                return
        if entry.get("keypoints"):
            message = "the keypoints of {count} objects are not read, their boxes are"
            self.log.gather("keypoints", "info", self.file, "", message, announced=True)
        segmentation = self._segmentation(entry.get("segmentation"), image, where)
        bounds = None if segmentation is None else mask_tools.bounds(segmentation)
        box = self._box(entry.get("bbox"), bounds, where)
        if box is None:
            return
        area = self._area(entry.get("area"), where)
        self.forms.add(place, box, (image.height, image.width), bounds, area)
        x, y, w, h = box
        if box_defect(self.log, self.file, where, (x, y, x + w, y + h), image.height, image.width):
            self.rows[image.image_id].append(
                _Row(where, box, label, bool(flags[0]), bool(flags[1] or flags[2]), area, key, segmentation, bounds)
            )

    def _box(self, value: Any, bounds: Corners | None, where: str) -> list[float] | None:
        """Return the box, that around the mask where there is none; None for a value that is no box, which is refused.

        Numbers that are not finite pass; `box_defect` reports them.
        """
        numbers = [number(v) for v in value] if isinstance(value, list) else []
        box = [v for v in numbers if v is not None]
        missing = value in (None, "", []) or (len(numbers) == 4 and not any(v != 0 for v in numbers))
        if missing and bounds is not None:
            message = "{count} objects with a mask have no bbox and get the box around the mask, the first: {first}"
            self.log.gather("box-of-mask", "warning", self.file, where, message, announced=True)
            return [bounds[0], bounds[1], bounds[2] - bounds[0], bounds[3] - bounds[1]]
        if len(box) == len(numbers) == 4:
            return box
        rotated = "; rotated boxes of 5 numbers are not read" if len(box) == len(numbers) == 5 else ""
        self.log.refuse("bad-box", self.file, where, f"bbox {shown(value)} is not x, y, width, height{rotated}")
        return None

    def _area(self, value: Any, where: str) -> float | None:
        """Return the area; None where it is missing or no area, so that it is computed."""
        if value in (None, ""):
            return None
        area = number(value)
        if area is None or not math.isfinite(area) or area < 0:
            message = f"area is {shown(value)}, no number of square pixels; computed from the mask or box"
            self.log.correct("bad-area", "warning", self.file, where, message)
            return None
        return area

    def _segmentation(self, value: Any, image: ImageRecord, where: str) -> Segmentation | None:
        """Return the segmentation, or None; parts that are not a valid mask of the image are refused."""
        if value in (None, "", [], {}):
            return None
        value = mask_tools.plain(value)
        if isinstance(value, list) and not mask_tools.is_no_polygons(value):
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
        if not mask_tools.area(value):
            self._bad_mask(where, "the mask is empty")
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

    def _compare_masks(self) -> None:
        """Refuse masks that lie off their boxes, and note those that differ from them."""
        for row in (row for rows in self.rows.values() for row in rows):
            if row.bounds is None:
                continue
            x, y, w, h = row.box
            found = disagreement(row.bounds, (x, y, x + w, y + h))
            if found is None:
                continue
            if found.serious:
                self._bad_mask(row.place, found.text)
                row.segmentation = None
            else:
                message = "{count} masks and their boxes differ, the first: {first}"
                self.log.gather("mask-off-box", "warning", self.file, f"{row.place}: {found.text}", message)


def _fill(record: ImageRecord, rows: Sequence[_Row]) -> None:
    """Set the columns of an image's record from its rows."""
    record.boxes = [row.box for row in rows]
    record.labels = [row.label for row in rows]
    record.crowd = [row.crowd for row in rows]
    record.difficult = [row.difficult for row in rows]
    record.areas = [row.area for row in rows]
    record.ids = [row.id for row in rows]
    record.segmentations = [row.segmentation for row in rows]
