"""How good detections are: COCO and VOC metrics, confusion, curves and advice on score thresholds."""

from boxwright.evaluation.coco import ClassRow, CocoEvaluation, CocoResult, IouTable, proposal_recall
from boxwright.evaluation.columns import DetectionColumns, DetectionLog
from boxwright.evaluation.voc import VocClass, VocEvaluation, VocResult, VocRules

__all__ = [
    "ClassRow",
    "CocoEvaluation",
    "CocoResult",
    "DetectionColumns",
    "DetectionLog",
    "IouTable",
    "VocClass",
    "VocEvaluation",
    "VocResult",
    "VocRules",
    "proposal_recall",
]
