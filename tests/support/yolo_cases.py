"""YOLOv1 to YOLOv3, small enough to test: their whole structure on a narrow backbone."""

from dataclasses import replace

from boxwright.backbones.darknet import DarknetConfig
from boxwright.detectors.yolov1 import DetectionLossConfig, YOLOv1Config
from boxwright.detectors.yolov2 import RegionLossConfig, YOLOv2Config
from boxwright.detectors.yolov3 import YOLOv3Config
from boxwright.heads.yolo_scales import YOLOScalesConfig

SMALL_YOLOV1 = YOLOv1Config(
    backbone=DarknetConfig(variant="tiny_v2", width=0.125, out_levels=(5,)),
    convs=(16,), hidden=(32,), grid=5, cell=32,
)  # fmt: skip
SMALL_YOLOV1_MODERN = replace(
    SMALL_YOLOV1,
    hidden=(),
    start="cells",
    start_size=0.25,
    loss=DetectionLossConfig(kind="entropy", overlap="giou", assignment="near", quiet=0.6),
)
SMALL_YOLOV2 = YOLOv2Config(
    backbone=DarknetConfig(variant="tiny_v2", width=0.25, out_levels=(4, 5)),
    convs=(32,), narrow=8, merged=32, anchors=((1.0, 1.0), (2.0, 1.5), (1.5, 3.0)),
)  # fmt: skip
SMALL_YOLOV2_MODERN = replace(
    SMALL_YOLOV2,
    reach=2.0,
    loss=RegionLossConfig(box_loss="ciou", objectness_loss="bce", assignment="near", prior_images=0, most_objects=None),
)


PLAIN_YOLOV3 = YOLOv3Config(
    backbone=DarknetConfig(variant="tiny_v3", width=0.25, out_levels=(3, 4, 5)),
    scales=YOLOScalesConfig(channels=(8, 8, 16)),
    ignore_iou=0.5,
)


MODERN_YOLOV3 = replace(
    PLAIN_YOLOV3, assignment="aligned", reach=2.0, box_loss="ciou", object_target="iou", prior=0.2, small_weight=False
)


SPP_YOLOV3 = replace(PLAIN_YOLOV3, scales=YOLOScalesConfig(channels=(8, 8, 16), spp=True), ignore_iou=0.7)


SMALL_YOLOV3 = {"yolov3": SPP_YOLOV3, "yolov3_modern": MODERN_YOLOV3}
