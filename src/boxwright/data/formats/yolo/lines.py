"""Read the lines of YOLO label files: boxes, polygons, and boxes with keypoints, whose keypoints are not read.

Without ``kpt_shape`` in the data.yaml, a line of keypoints looks like a polygon. So the lines of a split are counted,
and those that can only be keypoints are refused; what may be keypoints or corners is remarked.
"""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

from boxwright.data.formats.entries.values import number
from boxwright.data.formats.problems import ProblemLog, box_defect
from boxwright.data.index import ImageRecord
from boxwright.data.masks.masks import Segmentation

_NOT_A_FRACTION = 1.5  # boxes may extend slightly over the edge; larger numbers are pixels, not fractions

Box = tuple[float, float, float, float]


class LineReader:
    """Reader of the label files of a data set; ``keypoints`` is the data.yaml's shape of keypoints."""

    def __init__(self, num_classes: int, keypoints: tuple[int, int] | None, log: ProblemLog) -> None:
        self.num_classes = num_classes
        self.keypoints = keypoints
        self.log = log
        self._boxes = self._as_corners = self._over_edge = 0
        self._polygons: Counter[int] = Counter()  # by the number of values
        self._poses = self._flagged = 0
        self._first = ""

    def read(self, file: Path, text: str, record: ImageRecord) -> None:
        """Fill the record of an image from the text of its label file."""
        boxes: list[Box] = []
        labels: list[int] = []
        segmentations: list[Segmentation | None] = []
        seen: dict[tuple[str, ...], int] = {}
        for line_number, line in enumerate(text.splitlines(), start=1):
            if not (fields := tuple(line.split())):
                continue
            place = f"line {line_number}"
            if fields in seen:
                message = f"repeats line {seen[fields]}; remove one of them"
                self.log.note("duplicate-box", "warning", file, place, message)
            seen.setdefault(fields, line_number)
            row = self._parse(file, place, fields)
            if row is None:
                continue
            label, values = row
            box, segmentation = _shape(values, record.height, record.width)
            self._count(f"{file}, {place}", values)
            if box_defect(self.log, file, place, box, record.height, record.width):
                boxes.append(box)
                labels.append(label)
                segmentations.append(segmentation)
        record.boxes, record.labels = boxes, labels
        record.segmentations = segmentations if any(segmentations) else None

    def judge(self, file: Path, split: str) -> None:
        """Refuse or remark the lines of a split, all read, that are of another form than they seem; count anew."""
        lines = self._polygons.total()
        alike = f"all {lines} polygons have {next(iter(self._polygons), 0) + 1} numbers"
        if lines > 1 and len(self._polygons) == 1 and self._flagged == lines:
            message = f"{alike}, a box and keypoints with their visibility (pose labels?); add `kpt_shape` to data.yaml"
            self.log.refuse("keypoints", file, f"split {split}", f"{message} ({self._first})")
        elif lines > 1 and len(self._polygons) == 1 and self._poses == lines:
            message = f"{alike}, which may be a box and keypoints (pose labels); if so, add `kpt_shape` to data.yaml"
            self.log.correct("keypoints", "warning", file, f"split {split}", f"{message} ({self._first})")
        if self._boxes == self._as_corners and self._over_edge >= max(2, 0.1 * self._boxes):
            message = (
                f"lines may hold x1 y1 x2 y2 instead of cx cy w h: {self._over_edge} of {self._boxes} boxes extend "
                "over the edge, and all would fit as corners"
            )
            self.log.correct("corners", "warning", file, f"split {split}", message)
        self._boxes = self._as_corners = self._over_edge = self._poses = self._flagged = 0
        self._polygons.clear()
        self._first = ""

    def _parse(self, file: Path, place: str, fields: tuple[str, ...]) -> tuple[int, list[float]] | None:
        """Parse one line into class and fractions; None if it has a defect, which is noted."""
        values = [value for value in map(number, fields) if value is not None]
        if len(values) < len(fields):
            message = f"`{' '.join(fields)[:80]}` contains something other than numbers; correct it"
            self.log.refuse("bad-line", file, place, message)
            return None
        label, values = values[0], values[1:]
        if not label.is_integer() or not 0 <= label < self.num_classes:
            message = f"class {fields[0][:40]} is not one of 0..{self.num_classes - 1}; correct it or `names`"
            self.log.refuse("unknown-category", file, place, message)
            return None
        if not all(map(math.isfinite, values)):
            message = f"`{' '.join(fields)[:80]}` has a number that is not finite; left out"
            self.log.correct("bad-box", "error", file, place, message)
            return None
        if self.keypoints is not None and len(values) == 4 + math.prod(self.keypoints):
            values = values[:4]
            message = "the keypoints of {count} objects are not read, their boxes are"
            self.log.gather("keypoints", "info", file, "", message, announced=True)
        if (defect := self._count_defect(values)) is not None:
            self.log.refuse("bad-line", file, place, f"{len(values) + 1} numbers; {defect}")
            return None
        if max(map(abs, values)) > _NOT_A_FRACTION:
            if _is_flagged(values):
                message = "2 seems to mark visible keypoints (pose labels); add `kpt_shape` to data.yaml"
                self.log.refuse("keypoints", file, place, message)
                return None
            largest = max(values, key=abs)
            message = f"{largest:g} is not a fraction of the image; divide x by its width and y by its height"
            self.log.refuse("not-normalised", file, place, message)
            return None
        return int(label), values

    def _count_defect(self, values: list[float]) -> str | None:
        """Describe a wrong number of values; None if it is that of a box or polygon."""
        count = len(values)
        if self.keypoints is not None and count != 4:
            points, size = self.keypoints
            return (
                f"with kpt_shape [{points}, {size}] a line has {5 + points * size}: class cx cy w h and {points} "
                f"keypoints of {size} numbers; correct the line or kpt_shape"
            )
        if count == 4 or (count >= 6 and count % 2 == 0):
            if count == 6 and values[5] >= 2 and values[5].is_integer() and max(map(abs, values[:5])) <= 1:
                return "detections with a confidence and a track (class cx cy w h confidence track)? A label has 5"
            return None
        message = "a box takes 5 (class cx cy w h), a polygon 1 and an even number of at least 6"
        if count == 5:
            return f"{message}; a sixth may be the confidence or track of a detection, which labels lack: remove it"
        return f"{message}; boxes with keypoints (pose labels) need `kpt_shape` in data.yaml" if count > 5 else message

    def _count(self, place: str, values: list[float]) -> None:
        """Count a line that is read, for `judge`."""
        a, b, c, d = values[:4]
        if len(values) == 4:
            self._boxes += 1
            self._as_corners += 0 <= a < c <= 1 and 0 <= b < d <= 1
            self._over_edge += a + c / 2 > 1.01 or b + d / 2 > 1.01 or a - c / 2 < -0.01 or b - d / 2 < -0.01
            return
        self._polygons[len(values)] += 1
        self._first = self._first or f"the first: {place}"
        self._flagged += _is_flagged(values)
        self._poses += _is_pose(values)


def _is_flagged(values: list[float]) -> bool:
    """Return True if values can be a box and keypoints x y v, with v 0, 1 or 2 and visible ones in the box."""
    points = values[4:]
    if len(points) < 3 or len(points) % 3 or not set(points[2::3]) <= {0.0, 1.0, 2.0}:
        return False
    return all(
        v == 0 or _inside(values, x, y) for x, y, v in zip(points[0::3], points[1::3], points[2::3], strict=True)
    )


def _is_pose(values: list[float]) -> bool:
    """Return True if values can be a box and keypoints x y in it, and do not follow one another as a polygon's do."""
    w, h = values[2:4]
    points = list(zip(values[4::2], values[5::2], strict=True))
    if not all((x, y) == (0, 0) or _inside(values, x, y) for x, y in points):
        return False
    if len(values) == 8:  # a rotated box, as other tools write it, is a parallelogram
        (x1, y1), (x2, y2) = points
        if abs(values[0] - w + x1 - x2) < 0.01 and abs(values[1] - h + y1 - y2) < 0.01:
            return False
    x, y = [p[0] for p in points], [p[1] for p in points]
    wide, high = max(x) - min(x), max(y) - min(y)
    # The second point of a polygon lies among the others; the size of a box, taken for a point, anywhere.
    return not (min(x) - wide <= w <= max(x) + wide and min(y) - high <= h <= max(y) + high)


def _inside(box: list[float], x: float, y: float) -> bool:
    """Return True if a point is in a box cx cy w h that lies in the image."""
    cx, cy, w, h = box[:4]
    fits = w > 0 and h > 0 and abs(cx - 0.5) + w / 2 <= 0.51 and abs(cy - 0.5) + h / 2 <= 0.51
    return fits and abs(x - cx) <= w / 2 + 0.01 and abs(y - cy) <= h / 2 + 0.01


def _shape(values: list[float], height: int, width: int) -> tuple[Box, Segmentation | None]:
    """Return the corners in pixels, and the polygon if the line holds one."""
    if len(values) == 4:
        cx, cy, w, h = values
        return ((cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height), None
    polygon = [v * (height if i % 2 else width) for i, v in enumerate(values)]
    x, y = polygon[0::2], polygon[1::2]
    return (min(x), min(y), max(x), max(y)), [polygon]
