"""From a configuration to a detector."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias, assert_never

from boxwright.detectors.contract.detector import Detector
from boxwright.detectors.contract.preparation import Preparation
from boxwright.detectors.contract.size_limit import TooLargeError, bounded_network
from boxwright.detectors.fast_rcnn import FastRCNN, FastRCNNConfig
from boxwright.detectors.faster_rcnn import FasterRCNN, FasterRCNNConfig
from boxwright.detectors.faster_rcnn_c4 import FasterRCNNC4, FasterRCNNC4Config
from boxwright.detectors.mask_rcnn import MaskRCNN, MaskRCNNConfig
from boxwright.detectors.rcnn import RCNN, RCNNConfig
from boxwright.detectors.refinedet import RefineDet, RefineDetConfig
from boxwright.detectors.retinanet import RetinaNet, RetinaNetConfig
from boxwright.detectors.rfcn import RFCN, RFCNConfig
from boxwright.detectors.ssd import SSD, SSDConfig
from boxwright.detectors.yolov1 import YOLOv1, YOLOv1Config
from boxwright.detectors.yolov2 import YOLOv2, YOLOv2Config
from boxwright.detectors.yolov3 import YOLOv3, YOLOv3Config
from boxwright.structures import Classes

DetectorConfig: TypeAlias = (
    FastRCNNConfig
    | FasterRCNNConfig
    | FasterRCNNC4Config
    | MaskRCNNConfig
    | RCNNConfig
    | RefineDetConfig
    | RetinaNetConfig
    | RFCNConfig
    | SSDConfig
    | YOLOv1Config
    | YOLOv2Config
    | YOLOv3Config
)


_MOST_VALUES, _MOST_TENSORS = 5 * 10**9, 20_000
"""Parameters of a network that can still be meant: 20 times the largest of the recipes."""

Build: TypeAlias = Callable[[DetectorConfig, Classes], Detector]
"""A function that makes a detector of its configuration and classes, such as `build_detector`."""


def build_detector(
    config: DetectorConfig, classes: Classes, preparation: Preparation | None = None, build: Build | None = None
) -> Detector:
    """Build the detector that ``config`` describes for ``classes``, initialised from torch's random state.

    ``preparation``: of images, None for the detector's default. ``build``: makes the detector in place of this library.
    Raises InputError for a network of a size that cannot be meant.
    """
    try:
        with bounded_network(_MOST_VALUES, _MOST_TENSORS):
            detector = _built(config, classes) if build is None else build(config, classes)
    except TooLargeError as error:
        raise TooLargeError(
            f"the detector that is described has {error}; make its channels, layers, classes or image smaller"
        ) from None
    if preparation is not None:
        detector.preparation = preparation
    return detector


def _built(config: DetectorConfig, classes: Classes) -> Detector:
    match config:
        case FastRCNNConfig():
            return FastRCNN(config, classes)
        case FasterRCNNConfig():
            return FasterRCNN(config, classes)
        case FasterRCNNC4Config():
            return FasterRCNNC4(config, classes)
        case MaskRCNNConfig():
            return MaskRCNN(config, classes)
        case RCNNConfig():
            return RCNN(config, classes)
        case RefineDetConfig():
            return RefineDet(config, classes)
        case RetinaNetConfig():
            return RetinaNet(config, classes)
        case RFCNConfig():
            return RFCN(config, classes)
        case SSDConfig():
            return SSD(config, classes)
        case YOLOv1Config():
            return YOLOv1(config, classes)
        case YOLOv2Config():
            return YOLOv2(config, classes)
        case YOLOv3Config():
            return YOLOv3(config, classes)
        case _:
            assert_never(config)
