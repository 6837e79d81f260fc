"""PASCAL VOC metric: average precision at one IoU threshold, by eleven points (2007) or by area (2010 and later).

Unlike in COCO, a detection is compared with the object of its class that it overlaps most, even if that is already
matched, and a second detection of an object is false. Detections of difficult objects are ignored, and those of crowd
regions too, which VOC does not have. Published implementations differ in four points; each is a field of `VocRules`.

Symbols: D detections of a class, best first; K classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from boxwright.evaluation.columns import DetectionColumns, DetectionLog
from boxwright.evaluation.matching import Objects, box_overlaps, ground_truth, image_sizes
from boxwright.evaluation.tables import json_safe, percent_table
from boxwright.structures import Classes, InputError

if TYPE_CHECKING:
    from rich.table import Table

    from boxwright.data.index import DetectionIndex


@dataclass(frozen=True, slots=True)
class VocRules:
    """Rules in which implementations of the metric differ.

    * ``iou``: the IoU that a true detection needs, and ``comparison``: at least that much (``>=``, the kit) or
      more (``>``, py-faster-rcnn and Detectron2).
    * ``average``: ``"area"`` under the monotone precision curve (2010 and later) or ``"11-point"`` (2007, the metric
      of papers that report "VOC07").
    * ``pixels``: ``"exclusive"``, x2 and y2 just outside the box, as everywhere in this library: read from VOC
      files and scored like this they give the IoU of the kit. ``"inclusive"``: x2 and y2 are the last pixels inside,
      and 1 is added to widths and heights; for boxes taken unchanged from VOC files or from tools that do so.
    * ``tenths``: of the eleven points. ``"float"``: recall is compared with 0.1 times 0..10 as floats, as numpy gives
      them to py-faster-rcnn and its successors, so that 3 of 10 objects do not reach 0.30000000000000004. It is the
      default, because nearly all published results use it. ``"exact"``: 3 of 10 objects reach 3/10.
    """

    iou: float = 0.5
    average: Literal["area", "11-point"] = "area"
    comparison: Literal[">=", ">"] = ">="
    pixels: Literal["exclusive", "inclusive"] = "exclusive"
    tenths: Literal["float", "exact"] = "float"

    def __post_init__(self) -> None:
        if not 0 < self.iou <= 1:
            raise InputError(f"iou {self.iou} must be above 0 and at most 1")
        for name, known in (
            ("average", ("area", "11-point")),
            ("comparison", (">=", ">")),
            ("pixels", ("exclusive", "inclusive")),
            ("tenths", ("float", "exact")),
        ):
            value = getattr(self, name)
            if value not in known:
                raise InputError(f"{name} {value!r} is not known; use one of {', '.join(map(repr, known))}")


@dataclass(frozen=True, slots=True, eq=False)
class VocClass:
    """Result of one class: ``objects`` without difficult ones; arrays float64 ``[D]`` over its detections, best first.

    Detections of difficult objects are not in the arrays. ``AP`` is NaN if ``objects`` is 0.
    """

    name: str
    objects: int
    AP: float
    precision: NDArray[np.float64] = field(repr=False)
    recall: NDArray[np.float64] = field(repr=False)
    scores: NDArray[np.float64] = field(repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class VocResult:
    """VOC metrics of a data set; ``mean_ap`` is the mean over classes with objects, NaN without any."""

    rules: VocRules
    images: int
    detections: int
    mean_ap: float
    per_class: tuple[VocClass, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the curves as a dictionary for JSON, with None for NaN."""
        return json_safe(
            {
                "metric": "voc",
                "rules": asdict(self.rules),
                "images": self.images,
                "detections": self.detections,
                "mAP": self.mean_ap,
                "per_class": [{"name": c.name, "objects": c.objects, "AP": c.AP} for c in self.per_class],
            }
        )

    def table(self) -> Table:
        """Return a rich table of the classes and their mean."""
        rows: list[list[str | float]] = [[c.name, c.objects, c.AP] for c in self.per_class]
        rows.append(["mean", sum(c.objects for c in self.per_class), self.mean_ap])
        title = f"VOC, {self.rules.average}, IoU {self.rules.comparison} {self.rules.iou:g}"
        return percent_table(title, ["class", "objects", "AP"], rows, caption=f"{self.images} images, in percent")


class VocEvaluation:
    """Collect the detections of a data set and score them: call ``update`` once per image, then ``compute``."""

    def __init__(self, index: DetectionIndex, rules: VocRules | None = None) -> None:
        self.rules = rules or VocRules()
        self.classes: Classes = index.classes
        self._truth = ground_truth(index)
        self._log = DetectionLog(image_sizes(index), len(index.classes))

    def update(self, image_id: int, boxes: Any, scores: Any, labels: Any) -> None:
        """Add the detections of one image, as `CocoEvaluation.update` does."""
        self._log.add(image_id, boxes, scores, labels)

    def extend(self, detections: DetectionColumns, image_ids: Sequence[int] | None = None) -> None:
        """Add detections that were collected elsewhere."""
        self._log.extend(detections, image_ids)

    def compute(self) -> VocResult:
        """Score the detections. Equal scores keep the order of the index and, within an image, of the detections."""
        outcomes = self._outcomes(self._log.columns())
        rows = []
        for label, name in enumerate(self.classes.names):
            objects = sum(int(((t.labels == label) & ~t.ignored).sum()) for t in self._truth)
            mine = outcomes.labels == label
            rows.append(_score_class(name, objects, outcomes.scores[mine], outcomes.true[mine], self.rules))
        defined = [row.AP for row in rows if row.objects]
        mean = float(np.mean(defined)) if defined else math.nan
        return VocResult(self.rules, len(self._truth), len(outcomes.labels) + outcomes.left_out, mean, tuple(rows))

    def _outcomes(self, found: DetectionColumns) -> _Outcomes:
        """Return True for each correct detection; those of ignored objects are left out."""
        extra = 1.0 if self.rules.pixels == "inclusive" else 0.0
        labels, scores, verdicts = [np.zeros(0, np.int64)], [np.zeros(0)], [np.zeros(0, np.int8)]
        corners = found.corners
        for rows, truth in zip(found.rows_by_image(list(self._log.image_sizes)), self._truth, strict=True):
            order = rows[np.argsort(-found.scores[rows], kind="stable")]
            overlaps = box_overlaps(corners[order], truth.boxes, extra_pixel=extra)
            overlaps[found.labels[order][:, None] != truth.labels[None]] = -1
            verdicts.append(_verdicts(overlaps, truth, self.rules))
            labels.append(found.labels[order])
            scores.append(found.scores[order])
        verdict = np.concatenate(verdicts)
        kept = verdict >= 0
        left_out = int((~kept).sum())
        return _Outcomes(np.concatenate(labels)[kept], np.concatenate(scores)[kept], verdict[kept] == 1, left_out)


class _Outcomes(NamedTuple):
    labels: NDArray[np.int64]
    scores: NDArray[np.float64]
    true: NDArray[np.bool_]
    left_out: int


def _verdicts(overlaps: NDArray[np.float64], truth: Objects, rules: VocRules) -> NDArray[np.int8]:
    """Judge the detections of one image, best first: 1 true, 0 false, -1 ignored. Other classes have an IoU of -1."""
    verdicts = np.zeros(len(overlaps), dtype=np.int8)
    if not overlaps.size:
        return verdicts
    nearest = overlaps.argmax(axis=1)
    best = overlaps[np.arange(len(overlaps)), nearest]
    claimed = np.zeros(overlaps.shape[1], dtype=bool)
    for row in np.flatnonzero(best > rules.iou if rules.comparison == ">" else best >= rules.iou):
        target = nearest[row]
        if truth.ignored[target]:
            verdicts[row] = -1
        elif not claimed[target]:
            verdicts[row] = 1
            claimed[target] = True
    return verdicts


def _score_class(
    name: str, objects: int, scores: NDArray[np.float64], true: NDArray[np.bool_], rules: VocRules
) -> VocClass:
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(true[order], dtype=np.int64)
    precision = hits / np.arange(1, len(order) + 1)
    if not objects:
        return VocClass(name, 0, math.nan, precision, np.full(len(order), math.nan), scores[order])
    average = _eleven_points(hits, precision, objects, rules) if rules.average == "11-point" else _area(hits, objects)
    return VocClass(name, objects, average, precision, hits / objects, scores[order])


def _eleven_points(hits: NDArray[np.int64], precision: NDArray[np.float64], objects: int, rules: VocRules) -> float:
    total = 0.0
    for tenth in range(11):
        exact = rules.tenths == "exact"
        reached = hits * 10 >= tenth * objects if exact else hits / objects >= tenth * 0.1
        total += precision[reached].max(initial=0.0)
    return total / 11


def _area(hits: NDArray[np.int64], objects: int) -> float:
    """Return the area under the monotone precision curve; each true positive adds one step of recall."""
    precision = hits / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    step = np.diff(hits, prepend=0)
    return float((envelope * step).sum() / objects)
