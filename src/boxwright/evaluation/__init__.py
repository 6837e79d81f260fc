"""Score detections: COCO and VOC metrics, confusion, curves and advice on score thresholds.

The plots are in `boxwright.evaluation.plots`, which imports matplotlib.
"""

from boxwright.evaluation.coco import ClassRow, CocoEvaluation, CocoResult, IouTable
from boxwright.evaluation.columns import DetectionColumns, DetectionLog
from boxwright.evaluation.curves import (
    Advice,
    ConfusionMatrix,
    ThresholdCurve,
    ThresholdCurves,
    confusion_matrix,
    threshold_curves,
)
from boxwright.evaluation.results_file import evaluate_detections, load_coco_detections
from boxwright.evaluation.voc import VocClass, VocEvaluation, VocResult, VocRules

__all__ = [
    "Advice",
    "ClassRow",
    "CocoEvaluation",
    "CocoResult",
    "ConfusionMatrix",
    "DetectionColumns",
    "DetectionLog",
    "IouTable",
    "ThresholdCurve",
    "ThresholdCurves",
    "VocClass",
    "VocEvaluation",
    "VocResult",
    "VocRules",
    "confusion_matrix",
    "evaluate_detections",
    "load_coco_detections",
    "threshold_curves",
]
