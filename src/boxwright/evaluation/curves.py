"""Confusion between classes, curves of precision, recall and F1 against the score, and advice on thresholds.

All use COCO's greedy matching (`match_greedily`) at one IoU threshold. Crowd regions and difficult objects are ignored:
their detections are left out, and they are not missed.

Symbols: D detections of a class, best first; K classes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from boxwright.evaluation.columns import DetectionColumns
from boxwright.evaluation.matching import box_overlaps, ground_truth, image_sizes, match_greedily

if TYPE_CHECKING:
    from boxwright.data.index import DetectionIndex


@dataclass(frozen=True, slots=True, eq=False)
class ConfusionMatrix:
    """Confusion matrix of the classes and background.

    ``counts`` int64 ``[K + 1, K + 1]``: rows are the true class, columns the detected class, the last of each is
    background. The last row holds detections without an object, the last column objects without a detection.
    """

    counts: NDArray[np.int64]
    names: tuple[str, ...]
    iou: float
    score: float

    def to_dict(self) -> dict[str, Any]:
        """Return the matrix as a dictionary for JSON."""
        return {**asdict(self), "counts": self.counts.tolist(), "names": [*self.names, "background"]}


def confusion_matrix(
    index: DetectionIndex, detections: DetectionColumns, iou: float = 0.5, score: float = 0.25
) -> ConfusionMatrix:
    """Match detections and objects regardless of class, and count the pairs by class.

    Detections with a score of at least ``score``, best first, each match the free object with the largest IoU, which
    must be at least ``iou``. So a box of the wrong class takes an object from a correct box with a lower score, as a
    user would see it.
    """
    classes = len(index.classes)
    counts = np.zeros((classes + 1, classes + 1), dtype=np.int64)
    corners = detections.corners
    by_image = detections.rows_by_image(list(image_sizes(index)))
    for rows, truth in zip(by_image, ground_truth(index), strict=True):
        rows = rows[detections.scores[rows] >= score]
        rows = rows[np.argsort(-detections.scores[rows], kind="stable")]
        overlaps = box_overlaps(corners[rows], truth.boxes, truth.crowd)
        match = match_greedily(overlaps, iou, truth.ignored, truth.crowd)
        paired = match >= 0
        counted = paired.copy()
        counted[paired] = ~truth.ignored[match[paired]]
        np.add.at(counts, (truth.labels[match[counted]], detections.labels[rows[counted]]), 1)
        np.add.at(counts[classes], detections.labels[rows[~paired]], 1)
        missed = ~truth.ignored
        missed[match[counted]] = False
        np.add.at(counts[:, classes], truth.labels[missed], 1)
    return ConfusionMatrix(counts, index.classes.names, iou, score)


class Advice(NamedTuple):
    """Metrics of the detections with a score of at least ``threshold``."""

    threshold: float
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True, slots=True, eq=False)
class ThresholdCurve:
    """Number of ``objects`` found, of one class or all, against the score threshold.

    ``scores`` float64 ``[D]``, descending; ``hits`` int64 ``[D]``, the true positives among the first 1, 2 ... D.
    """

    name: str
    objects: int
    scores: NDArray[np.float64] = field(repr=False)
    hits: NDArray[np.int64] = field(repr=False)

    def at(self, thresholds: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
        """Return precision, recall and F1 of the detections with at least each threshold.

        Precision is NaN without detections, recall and F1 are NaN without objects.
        """
        kept = np.searchsorted(-self.scores, -np.asarray(thresholds, dtype=np.float64), side="right")
        hits = np.concatenate([[0], self.hits])[kept].astype(np.float64)
        nan = np.full(len(hits), np.nan)
        precision = np.divide(hits, kept, out=nan.copy(), where=kept > 0)
        if not self.objects:
            return precision, nan, nan.copy()
        return precision, hits / self.objects, 2 * hits / (kept + self.objects)

    def best_f1(self) -> Advice | None:
        """Return the threshold with the highest F1, the highest such one. None without objects or true positives."""
        _, _, _, f1 = self._steps()
        return self._advice(int(f1.argmax())) if self.objects and len(f1) and f1.max() > 0 else None

    def precise(self, precision: float = 0.9) -> Advice | None:
        """Return the lowest threshold with at least this precision, which has the largest recall, or None."""
        _, reached, _, _ = self._steps()
        enough = np.flatnonzero(reached >= precision)
        return self._advice(int(enough[-1])) if self.objects and len(enough) else None

    def _steps(self) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Return the ends of runs of equal scores, which no threshold separates, with the metrics there."""
        ends = np.flatnonzero(np.diff(self.scores, append=-np.inf))
        hits, kept = self.hits[ends], ends + 1
        return ends, hits / kept, hits / max(self.objects, 1), 2 * hits / (kept + max(self.objects, 1))

    def _advice(self, step: int) -> Advice:
        ends, precision, recall, f1 = self._steps()
        last = self.scores[ends[step]]
        # Half way to the next detection, so that rounding the threshold does not lose the last one.
        following = self.scores[ends[step] + 1] if ends[step] + 1 < len(self.scores) else last
        return Advice(float((last + following) / 2), float(precision[step]), float(recall[step]), float(f1[step]))


@dataclass(frozen=True, slots=True, eq=False)
class ThresholdCurves:
    """Curves at IoU threshold ``iou``; ``overall`` pools the detections of all classes under one score threshold."""

    iou: float
    overall: ThresholdCurve
    per_class: tuple[ThresholdCurve, ...]

    def to_dict(self, precision: float = 0.9) -> dict[str, Any]:
        """Return the advice, overall and per class, by best F1 and by precision, as a dictionary for JSON."""

        def advice(curve: ThresholdCurve) -> dict[str, Any]:
            best, precise = curve.best_f1(), curve.precise(precision)
            return {
                "name": curve.name,
                "objects": curve.objects,
                "best_f1": best._asdict() if best else None,
                "precise": precise._asdict() if precise else None,
            }

        per_class = [advice(curve) for curve in self.per_class]
        return {"iou": self.iou, "precision": precision, "overall": advice(self.overall), "per_class": per_class}


def threshold_curves(index: DetectionIndex, detections: DetectionColumns, iou: float = 0.5) -> ThresholdCurves:
    """Match detections with objects of their own class and count true positives by score.

    Matching goes from the best score down, so a score threshold does not change the matches above it.
    """
    corners = detections.corners
    labels, scores, true = [np.zeros(0, np.int64)], [np.zeros(0)], [np.zeros(0, bool)]
    objects = np.zeros(len(index.classes), dtype=np.int64)
    by_image = detections.rows_by_image(list(image_sizes(index)))
    for rows, truth in zip(by_image, ground_truth(index), strict=True):
        objects += np.bincount(truth.labels[~truth.ignored], minlength=len(objects))
        rows = rows[np.argsort(-detections.scores[rows], kind="stable")]
        overlaps = box_overlaps(corners[rows], truth.boxes, truth.crowd)
        overlaps[detections.labels[rows][:, None] != truth.labels[None]] = -1
        match = match_greedily(overlaps, iou, truth.ignored, truth.crowd)
        paired = match >= 0
        counted = np.ones(len(rows), dtype=bool)
        counted[paired] = ~truth.ignored[match[paired]]
        labels.append(detections.labels[rows[counted]])
        scores.append(detections.scores[rows[counted]])
        true.append(paired[counted])
    label, score, hit = np.concatenate(labels), np.concatenate(scores), np.concatenate(true)
    per_class = tuple(
        _curve(name, int(objects[k]), score[label == k], hit[label == k]) for k, name in enumerate(index.classes.names)
    )
    return ThresholdCurves(iou, _curve("all classes", int(objects.sum()), score, hit), per_class)


def _curve(name: str, objects: int, scores: NDArray[np.float64], true: NDArray[np.bool_]) -> ThresholdCurve:
    order = np.argsort(-scores, kind="stable")
    return ThresholdCurve(name, objects, scores[order], np.cumsum(true[order], dtype=np.int64))
