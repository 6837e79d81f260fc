"""YOLOv1 to YOLOv3, small enough to test: their whole structure on a narrow backbone."""

import torch

from boxwright.backbones.darknet import DarknetConfig
from boxwright.detectors.build import build_detector
from boxwright.detectors.yolov1 import YOLOv1Config, YOLOv1HeadConfig
from boxwright.detectors.yolov2 import YOLOv2Config, YOLOv2HeadConfig
from boxwright.detectors.yolov3 import YOLOv3, YOLOv3AssignConfig, YOLOv3Config
from boxwright.heads.yolo_scales import YOLOScalesConfig
from boxwright.structures import Classes
from tests.support.options import with_options

SMALL_YOLOV1 = YOLOv1Config(
    backbone=DarknetConfig(variant="tiny_v2", width=0.125, out_levels=(5,)),
    head=YOLOv1HeadConfig(convs=(16,), hidden=(32,)), grid=5, cell=32,
)  # fmt: skip
SMALL_YOLOV1_MODERN = with_options(
    SMALL_YOLOV1,
    {
        "head.hidden": (),
        "head.start": "cells",
        "head.start_size": 0.25,
        "assign.method": "near",
        "assign.quiet": 0.6,
        "loss.kind": "entropy",
        "loss.overlap": "giou",
    },
)
SMALL_YOLOV2 = YOLOv2Config(
    backbone=DarknetConfig(variant="tiny_v2", width=0.25, out_levels=(4, 5)),
    head=YOLOv2HeadConfig(convs=(32,), narrow=8, merged=32), anchors=((1.0, 1.0), (2.0, 1.5), (1.5, 3.0)),
)  # fmt: skip
SMALL_YOLOV2_MODERN = with_options(
    SMALL_YOLOV2,
    {
        "reach": 2.0,
        "assign.method": "near",
        "assign.most_objects": None,
        "loss.box": "ciou",
        "loss.objectness": "bce",
        "loss.prior_images": 0,
    },
)


PLAIN_YOLOV3 = YOLOv3Config(
    backbone=DarknetConfig(variant="tiny_v3", width=0.25, out_levels=(3, 4, 5)),
    scales=YOLOScalesConfig(channels=(8, 8, 16)),
    assign=YOLOv3AssignConfig(ignore_iou=0.5),
)


MODERN_YOLOV3 = with_options(
    PLAIN_YOLOV3,
    {
        "scales.prior": 0.2,
        "reach": 2.0,
        "assign.method": "aligned",
        "loss.box": "ciou",
        "loss.object_target": "iou",
        "loss.small_weight": False,
    },
)


SPP_YOLOV3 = with_options(PLAIN_YOLOV3, {"scales.spp": True, "assign.ignore_iou": 0.7})


SMALL_YOLOV3 = {"yolov3": SPP_YOLOV3, "yolov3_modern": MODERN_YOLOV3}


def small_yolov3(config: YOLOv3Config = PLAIN_YOLOV3) -> YOLOv3:
    """Build a YOLOv3 with three classes from a fixed seed."""
    torch.manual_seed(0)
    detector = build_detector(config, Classes.from_names(["disc", "bar", "ring"]))
    assert isinstance(detector, YOLOv3)
    return detector
