"""From Darknet's two files to a detector."""

from __future__ import annotations

from pathlib import Path

from boxwright.detectors.build import build_detector
from boxwright.detectors.detector import Detector
from boxwright.detectors.yolov1 import YOLOv1
from boxwright.detectors.yolov2 import YOLOv2
from boxwright.detectors.yolov3 import YOLOv3
from boxwright.structures import Classes, InputError
from boxwright.weights.darknet import read_darknet
from boxwright.weights.darknet_yolov1 import yolov1_config, yolov1_state
from boxwright.weights.darknet_yolov2 import yolov2_config, yolov2_state
from boxwright.weights.darknet_yolov3 import yolov3_config, yolov3_state


def load_darknet(cfg: Path | str, weights: Path | str, classes: Classes) -> Detector:
    """The YOLO detector of the files ``cfg`` and ``weights``, in eval mode.

    ``classes`` in the order of the file of names that it was trained with. InputError where the files do not fit each
    other, the classes, or any of YOLOv1, v2 and v3.
    """
    network = read_darknet(cfg, weights)
    sections = [network.net, *(layer.section for layer in network.layers)]
    match {section.kind for section in sections} & {"detection", "region", "yolo"}:
        case kinds if kinds == {"detection"}:
            detector = build_detector(yolov1_config(sections), classes)
            assert isinstance(detector, YOLOv1)
            state = yolov1_state(detector, network)
        case kinds if kinds == {"region"}:
            detector = build_detector(yolov2_config(sections), classes)
            assert isinstance(detector, YOLOv2)
            state = yolov2_state(detector, network)
        case kinds if kinds == {"yolo"}:
            detector = build_detector(yolov3_config(sections), classes)
            assert isinstance(detector, YOLOv3)
            state = yolov3_state(detector, network)
        case _:
            raise InputError(f"{cfg}: has no [detection], [region] or [yolo] layers of one kind, so that it is no YOLO")
    detector.load_state_dict(state)
    return detector.eval()
