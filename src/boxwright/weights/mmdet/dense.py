"""Import MMDetection 3's one-stage detectors: RetinaNet, SSD and YOLOv3.

RetinaNet: P7 is a convolution of P6 without a ReLU. Anchors of a cell are ordered by ratio, then by size.

SSD: scores and offsets of a map are separate convolutions there and one here. It selects the best pairs of prior and
class on each map, ours over all maps and more of them: the 200 detections are the same unless NMS leaves fewer.

YOLOv3: channels of a cell are ordered by anchor, then x y w h, objectness, classes, as in Darknet. Before NMS it
requires 0.05 of the class and 0.005 of the objectness separately, and no minimum of their product, the score.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from boxwright.anchors.coder import BoxCoder
from boxwright.anchors.priors import PriorConfig, paper_sizes
from boxwright.backbones.resnet import ResNetConfig
from boxwright.backbones.vgg import VGGConfig
from boxwright.data.transforms.resizing import ResizeConfig, WarpConfig
from boxwright.detectors.contract.pixels import IMAGENET, IMAGENET_255, IMAGENET_255_BGR
from boxwright.detectors.retinanet import (
    RetinaNetAssignConfig,
    RetinaNetConfig,
    RetinaNetLossConfig,
    octave_anchors,
)
from boxwright.detectors.ssd import SSDAssignConfig, SSDConfig, SSDHeadConfig
from boxwright.detectors.yolov3 import YOLOv3AssignConfig, YOLOv3Config, YOLOv3LossConfig
from boxwright.heads.extra_maps import EXTRAS_300, EXTRAS_512
from boxwright.heads.postprocess import PostprocessConfig
from boxwright.necks.fpn import FPNConfig
from boxwright.structures import Classes, InputError
from boxwright.weights.common.heads import joined_head
from boxwright.weights.common.imported import Imported
from boxwright.weights.common.state_checks import chosen_classes, refuse_keys, refuse_model, resnet_depth, rows_of
from boxwright.weights.common.tensor_names import Renaming
from boxwright.weights.mmdet.file import MMDetFile, resnet_names

_NOT_EMPTY = 1e-6  # MMDetection drops only boxes whose sides are not above 0
_RETINANET_NAMES = Renaming(
    [
        *resnet_names(),
        *((f"neck.lateral_convs.{n}.conv.{{part}}", f"neck.lateral.P{n + 3}.conv.{{part}}") for n in range(3)),
        *((f"neck.fpn_convs.{n}.conv.{{part}}", f"neck.output.P{n + 3}.conv.{{part}}") for n in range(3)),
        *((f"neck.fpn_convs.{n}.conv.{{part}}", f"neck.extra.P{n + 3}.conv.{{part}}") for n in (3, 4)),
        ("bbox_head.cls_convs.{n}.conv.{part}", "head.class_subnet.layers.{n}.conv.{part}"),
        ("bbox_head.reg_convs.{n}.conv.{part}", "head.box_subnet.layers.{n}.conv.{part}"),
        ("bbox_head.retina_cls.{part}", "head.scores.{part}"),
        ("bbox_head.retina_reg.{part}", "head.deltas.{part}"),
    ]
)
_SSD_NAMES = Renaming(
    [
        ("backbone.features.31.{part}", "backbone.fc6.{part}"),
        ("backbone.features.33.{part}", "backbone.fc7.{part}"),
        ("backbone.features.{n}.{part}", "backbone.features.{n}.{part}"),
        ("neck.l2_norm.weight", "l2.weight"),
        ("neck.extra_layers.{n}.0.conv.{part}", "extras.{n}.0.0.{part}"),
        ("neck.extra_layers.{n}.1.conv.{part}", "extras.{n}.1.{part}"),
    ]
)


def _conv_bn(*pairs: tuple[str, str]) -> list[tuple[str, str]]:
    """Return the pairs of names of a convolution and its norm, ``conv`` and ``bn`` there, 0 and 1 here."""
    return [
        (f"{theirs}.{a}.{{part}}", f"{ours}.{b}.{{part}}")
        for theirs, ours in pairs
        for a, b in (("conv", "0"), ("bn", "1"))
    ]


_YOLO_NAMES = Renaming(
    [
        *_conv_bn(("backbone.conv1", "backbone.stages.0.0")),
        *_conv_bn(*((f"backbone.conv_res_block{n}.conv", f"backbone.stages.{n}.0") for n in range(1, 6))),
        *_conv_bn(
            *(
                (f"backbone.conv_res_block{n}.res{k}.conv{c}", f"backbone.stages.{n}.{k + 1}.conv{c}")
                for n in range(1, 6)
                for k in range(8)
                for c in (1, 2)
            )
        ),
        *_conv_bn(*((f"neck.conv{n}", f"scales.scales.{n}.narrow") for n in (1, 2))),
        *_conv_bn(
            *((f"neck.detect{n + 1}.conv{k + 1}", f"scales.scales.{n}.body.{k}") for n in range(3) for k in range(5))
        ),
        *_conv_bn(*((f"bbox_head.convs_bridge.{n}", f"scales.scales.{n}.hidden.0") for n in range(3))),
        ("bbox_head.convs_pred.{n}.{part}", "scales.scales.{n}.predict.{part}"),
    ]
)


def retinanet_config(depth: Any = 50, caffe: bool = False, freeze_at: int = 2) -> RetinaNetConfig:
    """Return the configuration that reproduces ``retinanet_r*_fpn``.

    ``caffe``: the style of the ResNet; false is torchvision's.
    """
    return RetinaNetConfig(
        backbone=ResNetConfig(
            depth=depth, stride_in_1x1=caffe, norm="frozen_bn", freeze_at=freeze_at, out_levels=(3, 4, 5)
        ),
        neck=FPNConfig(extra="conv_c", extra_relu=False),
        anchors=replace(octave_anchors(), order="ratio"),
        assign=RetinaNetAssignConfig(crowd_ignore=None),
        loss=RetinaNetLossConfig(beta=0.0),
        post=PostprocessConfig(candidates=1000, min_size=_NOT_EMPTY),
        pixels=IMAGENET_255_BGR if caffe else IMAGENET,
    )


def ssd_config(side: int = 300, smallest: int = 15) -> SSDConfig:
    """Return the configuration that reproduces ``ssd300`` and ``ssd512``.

    ``smallest``: the prior of the second map in percent of ``side``: 15 and 10 for COCO, 20 and 15 for VOC.
    """
    first = {(300, 15): 7, (300, 20): 10, (512, 10): 4, (512, 15): 7}.get((side, smallest))
    if first is None:
        raise InputError(
            f"MMDetection's SSD{side} has no priors from {smallest} % on; it has 15, 20 (300), 10, 15 (512)"
        )
    small = side == 300
    return SSDConfig(
        size=(side, side),
        backbone=VGGConfig(depth=16, fc="reduced", out_levels=(4, 6)),
        extras=EXTRAS_300 if small else EXTRAS_512,
        l2_eps="root",
        head=SSDHeadConfig(start="glorot"),
        priors=PriorConfig(
            sizes=paper_sizes(side, 6 if small else 7, first, smallest),
            ratios=((2,), (2, 3), (2, 3), (2, 3), (2,), (2,)) if small else ((2,), *[(2, 3)] * 4, (2,), (2,)),
            steps=(8, 16, 32, 64, 100, 300) if small else (8, 16, 32, 64, 128, 256, 512),
            truncate=True,
        ),
        assign=SSDAssignConfig(forced="parallel"),
        coder=BoxCoder(weights=(10.0, 10.0, 5.0, 5.0)),
        pixels=IMAGENET_255,
        post=PostprocessConfig(
            score_threshold=0.02, nms_iou=0.45, candidates=5000, detections=200, min_size=_NOT_EMPTY
        ),
    )


def yolov3_config() -> YOLOv3Config:
    """Return the configuration that reproduces ``yolov3_d53`` at inference."""
    return YOLOv3Config(
        assign=YOLOv3AssignConfig(ignore_iou=0.5),
        loss=YOLOv3LossConfig(small_weight=False, box_weight=2.0),
        class_threshold=0.05,
        post=PostprocessConfig(score_threshold=0.0, nms_iou=0.45, candidates=3000, clip=False),
    )


def import_retinanet(file: MMDetFile, classes: Classes | None) -> Imported:
    """Import RetinaNet, as :func:`~boxwright.weights.mmdet.two_stage.import_mmdet` does."""
    source = "MMDetection retinanet FPN"
    depth = resnet_depth(file.state, r"^backbone\.layer3\.(\d+)\.", source)
    state, unknown = _RETINANET_NAMES.import_all(file.state)
    refuse_keys(unknown, source)
    boxes, scores = (rows_of(file.state, f"bbox_head.retina_{part}.weight", source) for part in ("reg", "cls"))
    count = scores * 4 // max(boxes, 1)
    config = retinanet_config(depth, file.caffe)
    if "on_lateral" in file.text:
        refuse_model("MMDetection's", "RetinaNet whose P6 reads a lateral map", "one with on_input or on_output")
    extra = state.get("neck.extra.P6.conv.weight")
    on_output = extra is not None and extra.shape[1] == extra.shape[0]
    relu = re.search(r"relu_before_extra_convs\s*=\s*True", file.text) is not None
    neck = FPNConfig(extra="conv_p" if on_output else "conv_c", extra_relu=relu)
    return Imported(
        source=f"{source} R{depth}{' caffe' if file.caffe else ''}",
        config=replace(config, neck=neck),
        classes=chosen_classes(count, classes or file.classes(count), source),
        state=state,
        transforms=(ResizeConfig(short=(800,), long=1333, interpolation="opencv"),),
    )


def import_ssd(file: MMDetFile, classes: Classes | None) -> Imported:
    """Import SSD, as :func:`~boxwright.weights.mmdet.two_stage.import_mmdet` does."""
    maps = len({name.split(".")[2] for name in file.state if name.startswith("bbox_head.cls_convs.")})
    if maps not in (6, 7):
        raise InputError(f"MMDetection's SSD on {maps} maps; expected 6 (SSD300) or 7 (SSD512); is the file whole?")
    side = 300 if maps == 6 else 512
    source = f"MMDetection ssd{side}"
    head = re.compile(r"bbox_head\.(cls|reg)_convs\.(\d)\.0\.(weight|bias)")
    rest = {name: value for name, value in file.state.items() if not head.fullmatch(name)}
    state, unknown = _SSD_NAMES.import_all(rest)
    refuse_keys(unknown, source)
    for name, value in file.state.items():
        if (found := head.fullmatch(name)) and found[1] == "reg":
            other = name.replace("reg_convs", "cls_convs")
            if other not in file.state:
                raise InputError(f"a checkpoint of {source} with {name} but without {other}; is the file whole?")
            joined = joined_head(value, file.state[other], background_first=False)
            state[f"heads.{found[2]}.predict.{found[3]}"] = joined
    priors = rows_of(file.state, "bbox_head.reg_convs.0.0.weight", source) // 4
    count = rows_of(file.state, "bbox_head.cls_convs.0.0.weight", source) // max(priors, 1) - 1
    found = re.search(r"basesize_ratio_range\s*=\s*[\[(]\s*([\d.]+)", file.text)
    usual = {300: 15, 512: 10}[side] + (5 if count == 20 else 0)
    return Imported(
        source=source,
        config=ssd_config(side, round(float(found[1]) * 100) if found else usual),
        classes=chosen_classes(count, classes or file.classes(count), source),
        state=state,
        transforms=(WarpConfig(size=(side, side), interpolations=("opencv",)),),
        pad_multiple=1,
    )


YOLOV3_SIZES = (320, 416, 608)
"""Sides of the models of YOLOv3, which have the same tensors."""


def yolov3_side(file: MMDetFile) -> int | None:
    """Return the side of the input that the configuration in the file states; None where it states none."""
    sides = re.findall(r"scale\s*=\s*[\[(]\s*(\d{2,4}),\s*(\d{2,4})\s*[\])]", file.text)
    return int(sides[-1][0]) if sides else None  # the last one belongs to the test pipeline


def import_yolov3(file: MMDetFile, classes: Classes | None, side: int | None = None) -> Imported:
    """Import YOLOv3, as :func:`~boxwright.weights.mmdet.two_stage.import_mmdet` does.

    ``side``: of the input; None for that of the file's configuration, else 608.
    """
    source = "MMDetection yolov3"
    if not file.has("backbone.conv_res_block"):
        refuse_model("MMDetection's", "YOLOv3 on another backbone than Darknet-53", "one on Darknet-53")
    state, unknown = _YOLO_NAMES.import_all(file.state)
    refuse_keys(unknown, source)
    count = rows_of(file.state, "bbox_head.convs_pred.0.weight", source) // 3 - 5
    side = side or yolov3_side(file) or YOLOV3_SIZES[-1]
    return Imported(
        source=source,
        config=yolov3_config(),
        classes=chosen_classes(count, classes or file.classes(count), source),
        state=state,
        transforms=(ResizeConfig(short=(side,), long=side, interpolation="opencv"),),
    )
