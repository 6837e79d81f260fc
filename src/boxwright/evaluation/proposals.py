"""Class-agnostic recall of region proposals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from boxwright.evaluation.matching import box_overlaps

if TYPE_CHECKING:
    from boxwright.data.index import DetectionIndex
    from boxwright.data.proposals.files import ProposalSet

IOUS = np.arange(10) * 0.05 + 0.5
"""IoU thresholds of the average recall: .5, .55, ... .95."""
COUNTS = (100, 300, 1000, 2000)
"""Numbers of proposals per image that papers report recall at."""


@dataclass(frozen=True)
class RecallRow:
    """Recall of the ``count`` best proposals of each image, in 0..1; NaN where the split has no object."""

    count: int
    recall_50: float
    """Recall at IoU .5."""
    recall_70: float
    """Recall at IoU .7."""
    average: float
    """Mean of the recall over `IOUS`."""


def recall_report(proposals: ProposalSet, index: DetectionIndex, counts: Sequence[int] = COUNTS) -> list[RecallRow]:
    """Count the objects that the best proposals of each image find, for each of ``counts``.

    Objects and proposals are matched by descending IoU, each once, as in Detectron. Crowds and difficult objects are
    left out, as in the metrics of detections.
    """
    found: list[list[np.ndarray]] = [[np.zeros(0)] for _ in counts]
    for i in range(len(index)):
        rows = index.annotations(i)
        truth = rows.boxes[~rows.crowd & ~rows.difficult].astype(np.float64)
        if len(truth) == 0:
            continue
        overlaps = box_overlaps(truth, proposals.of(i).astype(np.float64))
        for column, count in zip(found, counts, strict=True):
            column.append(_paired(overlaps[:, :count]))
    report = []
    for count, column in zip(counts, found, strict=True):
        best = np.concatenate(column)
        # An IoU slightly below a threshold counts as equal to it, since corners are stored as float32.
        recalls = [float((best >= t - 1e-6).mean()) if len(best) else float("nan") for t in IOUS]
        report.append(RecallRow(count, recalls[0], recalls[4], float(np.mean(recalls))))
    return report


def _paired(overlaps: np.ndarray) -> np.ndarray:
    """Return the IoU of each object's proposal in descending order, 0 where no proposal is left."""
    left = overlaps.copy()
    best = np.zeros(len(overlaps))
    for k in range(min(left.shape)):
        row, column = np.unravel_index(left.argmax(), left.shape)
        best[k] = max(left[row, column], 0.0)
        left[row, :] = -1.0
        left[:, column] = -1.0
    return best
