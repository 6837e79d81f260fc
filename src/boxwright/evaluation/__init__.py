"""How good detections are: COCO and VOC metrics, confusion, curves and advice on score thresholds."""

from boxwright.evaluation.coco import ClassRow, CocoEvaluation, CocoResult, IouTable, proposal_recall
from boxwright.evaluation.columns import DetectionColumns, DetectionLog

__all__ = [
    "ClassRow",
    "CocoEvaluation",
    "CocoResult",
    "DetectionColumns",
    "DetectionLog",
    "IouTable",
    "proposal_recall",
]
