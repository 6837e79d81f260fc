"""COCO metrics: the twelve standard ones, per class, and per IoU threshold and size.

Rules of COCO that may surprise: The limit on detections is per image *and class*. The size of an object is the area in
its annotation, usually that of the mask. An object of exactly 32^2 pixels is both small and medium. Crowd regions are
neither found nor missed. ``difficult`` objects (VOC) count like any other. A metric without ground truth is NaN (-1 in
pycocotools), None in `CocoResult.to_dict`, and left out of means.

Symbols: D detections of an image; K classes, T IoU thresholds, R = 101 recall points, A areas, L detection limits.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from boxwright.evaluation.columns import DetectionColumns, DetectionLog, Rle
from boxwright.evaluation.engine import AREAS, IOU_THRESHOLDS, Accumulated, CocoEngine, IouType
from boxwright.evaluation.tables import json_safe, percent_table
from boxwright.structures import Classes, InputError

if TYPE_CHECKING:
    from rich.console import Group

    from boxwright.data.index import DetectionIndex

DETNET_THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.85)
"""IoU thresholds that the DetNet paper reports (tables 3 and 4)."""


@dataclass(frozen=True, slots=True)
class ClassRow:
    """Metrics of a class; ``objects`` counts annotations without crowds, ``AR`` is at the largest detection limit."""

    name: str
    objects: int
    AP: float
    AP50: float
    AP75: float
    APs: float
    APm: float
    APl: float
    AR: float


@dataclass(frozen=True, slots=True, eq=False)
class IouTable:
    """AP and AR by IoU threshold and area, at the largest detection limit, averaged over classes with ground truth.

    Each array is float64 ``[A, T]``, rows in the order of ``areas``. ``ar_agnostic`` pools the classes
    (pycocotools' ``useCats=0``): then the limit is per image, and a box of the wrong class may match an object.
    """

    thresholds: tuple[float, ...]
    areas: tuple[str, ...]
    ap: NDArray[np.float64]
    ar: NDArray[np.float64]
    ar_agnostic: NDArray[np.float64]

    def row(self, metric: str, area: str = "all") -> dict[str, float]:
        """Return ``metric`` ("AP", "AR" or "AR_agnostic") of one area: the mean over IoU thresholds, and each value.

        The keys are the name of the metric with the IoU in percent: ``AP``, ``AP50``, ``AP55`` ... ``AP95``.
        """
        values = {"AP": self.ap, "AR": self.ar, "AR_agnostic": self.ar_agnostic}[metric][self.areas.index(area)]
        head = metric[:2]
        each = {f"{head}{round(t * 100)}": float(v) for t, v in zip(self.thresholds, values, strict=True)}
        return {head: mean_of_defined(values), **each}


@dataclass(frozen=True, slots=True, eq=False)
class CocoResult:
    """COCO metrics of the detections of one data set. All values are in 0..1, or NaN without ground truth.

    ``stats`` has AP AP50 AP75 APs APm APl AR1 AR10 AR100 ARs ARm ARl (the ARn follow ``max_detections``).
    ``precision`` and ``scores`` float64 ``[T, R, K, A]`` at the largest limit: precision at recall 0, 0.01 ... 1 and
    the lowest score it holds for; ``recall`` float64 ``[T, K, A, L]``.
    """

    iou_type: IouType
    classes: Classes
    images: int
    detections: int
    max_detections: tuple[int, ...]
    stats: dict[str, float]
    per_class: tuple[ClassRow, ...]
    by_iou: IouTable
    precision: NDArray[np.float64] = field(repr=False)
    recall: NDArray[np.float64] = field(repr=False)
    scores: NDArray[np.float64] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the raw arrays as a dictionary for JSON, with None for NaN."""
        table = self.by_iou
        by_iou = {m: {a: table.row(m, a) for a in table.areas} for m in ("AP", "AR", "AR_agnostic")}
        return json_safe(
            {
                "metric": "coco",
                "iou_type": self.iou_type,
                "images": self.images,
                "detections": self.detections,
                "max_detections": list(self.max_detections),
                "stats": self.stats,
                "per_class": [asdict(row) for row in self.per_class],
                "by_iou": by_iou,
            }
        )

    def table(self) -> Group:
        """Return three rich tables: the twelve metrics, the classes, and AP and AR by IoU threshold and area."""
        from rich.console import Group

        what = "boxes" if self.iou_type == "bbox" else "masks"
        caption = f"{self.images} images, {self.detections} detections, in percent"
        names = list(self.stats)
        halves = [  # two halves, because twelve columns do not fit 80 characters
            percent_table(title, part, [[self.stats[name] for name in part]], caption=under)
            for title, part, under in ((f"COCO, {what}", names[:6], None), (None, names[6:], caption))
        ]
        columns = ["class", "objects", "AP", "AP50", "AP75", "APs", "APm", "APl", f"AR{self.max_detections[-1]}"]
        classes = percent_table("By class", columns, [list(asdict(row).values()) for row in self.per_class])
        rows: list[list[str | float]] = []
        for metric, name in (("AP", "AP"), ("AR", "AR"), ("AR_agnostic", "AR, classes pooled")):
            for area in self.by_iou.areas:
                row = self.by_iou.row(metric, area)
                keys = [metric[:2]] + [f"{metric[:2]}{round(t * 100)}" for t in DETNET_THRESHOLDS]
                rows.append([name, area, *(row[key] for key in keys)])
        heads = ["metric", "area", "mean"] + [f"{t:.2f}" for t in DETNET_THRESHOLDS]
        return Group(*halves, classes, percent_table("By overlap and area (mean of .50:.05:.95)", heads, rows))


class CocoEvaluation:
    """Collect the detections of a data set and score them: call ``update`` once per image, then ``compute``.

    Images without a call count as images without detections, so their objects are missed.
    """

    def __init__(
        self,
        index: DetectionIndex,
        iou_type: IouType = "bbox",
        max_detections: Sequence[int] = (1, 10, 100),
    ) -> None:
        """``max_detections``: three ascending limits on the best-scored detections of an image and class."""
        self.max_detections = _limits(max_detections, count=3)
        self.classes: Classes = index.classes
        self._engine = CocoEngine(index.to_coco(), index.classes, iou_type)
        self._log = DetectionLog(self._engine.image_sizes, len(index.classes), with_masks=iou_type == "segm")

    def update(self, image_id: int, boxes: Any, scores: Any, labels: Any, masks: Sequence[Rle] | None = None) -> None:
        """Add the detections of one image, which may be none.

        ``boxes`` ``[D, 4]`` x1 y1 x2 y2 in pixels of the original image, ``scores`` ``[D]``, ``labels`` ``[D]`` in
        0..K-1, as tensors, arrays or lists; ``masks`` D run-length masks of the original size, needed for "segm".
        Raises InputError for an unknown or repeated image, unequal lengths, labels out of range and values that are
        not finite.
        """
        self._log.add(image_id, boxes, scores, labels, masks)

    def detections(self) -> DetectionColumns:
        """Return all detections so far, in a small picklable form for other processes and for curves."""
        return self._log.columns()

    @property
    def seen(self) -> list[int]:
        """Return the ids of the images added so far."""
        return self._log.seen

    def extend(self, detections: DetectionColumns, image_ids: Sequence[int] | None = None) -> None:
        """Add ``detections()`` and ``seen`` of another process, or the columns of a results file."""
        self._log.extend(detections, image_ids)

    def compute(self) -> CocoResult:
        """Score the detections added so far."""
        detections = self._log.columns()
        found = self._engine.load(detections)
        by_class = self._engine.run(found, self.max_detections)
        pooled = self._engine.run(found, self.max_detections, pool_classes=True)
        return CocoResult(
            iou_type=self._engine.iou_type,
            classes=self.classes,
            images=len(self._engine.image_sizes),
            detections=len(detections),
            max_detections=self.max_detections,
            stats=_stats(by_class, self.max_detections),
            per_class=_class_rows(by_class, self.classes, self._engine.objects_per_class),
            by_iou=_by_iou(by_class, pooled),
            precision=by_class.precision[..., -1],
            recall=by_class.recall,
            scores=by_class.scores[..., -1],
        )


def mean_of_defined(values: NDArray[np.float64]) -> float:
    """Return the mean of the values that are not NaN, or NaN."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else math.nan


def _limits(values: Sequence[int], count: int | None = None) -> tuple[int, ...]:
    limits = tuple(int(value) for value in values)
    if not limits or limits[0] < 1 or any(a >= b for a, b in itertools.pairwise(limits)):
        raise InputError(f"detection limits {list(values)} must be positive and ascending, such as 1, 10, 100")
    if count is not None and len(limits) != count:
        raise InputError(f"detection limits {list(values)} must be {count} numbers, such as 1, 10, 100")
    return limits


def _stats(arrays: Accumulated, limits: tuple[int, ...]) -> dict[str, float]:
    precision, recall = arrays.precision[..., -1], arrays.recall
    at50, at75 = IOU_THRESHOLDS.index(0.5), IOU_THRESHOLDS.index(0.75)
    return {
        "AP": mean_of_defined(precision[:, :, :, 0]),
        "AP50": mean_of_defined(precision[at50, :, :, 0]),
        "AP75": mean_of_defined(precision[at75, :, :, 0]),
        **{f"AP{AREAS[a][0]}": mean_of_defined(precision[:, :, :, a]) for a in (1, 2, 3)},
        **{f"AR{limit}": mean_of_defined(recall[:, :, 0, m]) for m, limit in enumerate(limits)},
        **{f"AR{AREAS[a][0]}": mean_of_defined(recall[:, :, a, -1]) for a in (1, 2, 3)},
    }


def _class_rows(arrays: Accumulated, classes: Classes, objects: NDArray[np.int64]) -> tuple[ClassRow, ...]:
    precision, recall = arrays.precision[..., -1], arrays.recall[..., -1]
    at50, at75 = IOU_THRESHOLDS.index(0.5), IOU_THRESHOLDS.index(0.75)
    return tuple(
        ClassRow(
            name,
            int(objects[k]),
            mean_of_defined(precision[:, :, k, 0]),
            mean_of_defined(precision[at50, :, k, 0]),
            mean_of_defined(precision[at75, :, k, 0]),
            *(mean_of_defined(precision[:, :, k, a]) for a in (1, 2, 3)),
            AR=mean_of_defined(recall[:, k, 0]),
        )
        for k, name in enumerate(classes.names)
    )


def _by_iou(by_class: Accumulated, pooled: Accumulated) -> IouTable:
    cells = [(area, threshold) for area in range(len(AREAS)) for threshold in range(len(IOU_THRESHOLDS))]
    shape = (len(AREAS), len(IOU_THRESHOLDS))
    ap = [mean_of_defined(by_class.precision[t, :, :, a, -1]) for a, t in cells]
    ar = [mean_of_defined(by_class.recall[t, :, a, -1]) for a, t in cells]
    agnostic = [mean_of_defined(pooled.recall[t, :, a, -1]) for a, t in cells]
    arrays = (np.array(values).reshape(shape) for values in (ap, ar, agnostic))
    return IouTable(IOU_THRESHOLDS, AREAS, *arrays)
