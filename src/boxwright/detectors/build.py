"""From a configuration to a detector."""

from __future__ import annotations

from typing import TypeAlias

from boxwright.detectors.detector import Detector
from boxwright.detectors.faster_rcnn import FasterRCNN, FasterRCNNConfig
from boxwright.structures import Classes

DetectorConfig: TypeAlias = FasterRCNNConfig


def build_detector(config: DetectorConfig, classes: Classes) -> Detector:
    """The detector that ``config`` describes for ``classes``, freshly initialised from torch's random state."""
    match config:
        case FasterRCNNConfig():
            return FasterRCNN(config, classes)
