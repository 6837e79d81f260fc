"""Import MMDetection 3's detectors: Faster R-CNN, Mask R-CNN and RetinaNet on ResNet with FPN, SSD300 and SSD512 on
VGG-16, and YOLOv3 on Darknet-53.

Its files are torch's, ``{"meta": ..., "state_dict": ...}``. ``meta`` has the class names and the text of the
configuration. Two settings that tensors do not tell are read from the text if it is there: the style of the ResNet
(``caffe``: MSRA's weights, BGR, strides in the 1x1) and the smallest prior of SSD.

Background is last, as in ours. One difference remains: it also bounds the logarithm of a side's ratio from below, by
the inverse of the upper bound, which a trained network does not reach. :mod:`boxwright.weights.mmdet.dense` has the
one-stage detectors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from boxwright.backbones.resnet import ResNetConfig
from boxwright.data.transforms.resizing import ResizeConfig
from boxwright.detectors.contract.pixels import IMAGENET, IMAGENET_255_BGR
from boxwright.detectors.faster_rcnn import FasterRCNNConfig
from boxwright.detectors.mask_rcnn import MaskRCNNConfig
from boxwright.geometry.paste import PasteConfig
from boxwright.geometry.pooling.roi_pooling import RoIPoolingConfig
from boxwright.heads.regions.box_head import BoxHeadConfig, RegionAssignConfig
from boxwright.heads.regions.configs import RegionLossConfig
from boxwright.heads.regions.mask_head import MaskHeadConfig
from boxwright.heads.regions.rpn import ProposalNMSConfig, RPNAssignConfig, RPNConfig, RPNLossConfig
from boxwright.structures import Classes, InputError
from boxwright.weights.common.flattened_regions import first_layer_channels_last
from boxwright.weights.common.imported import Imported
from boxwright.weights.common.state_checks import chosen_classes, refuse_keys, refuse_model, resnet_depth, rows_of
from boxwright.weights.common.tensor_names import Renaming
from boxwright.weights.mmdet.dense import YOLOV3_SIZES, import_retinanet, import_ssd, import_yolov3, yolov3_side
from boxwright.weights.mmdet.file import MMDetFile, read_parts, resnet_names

_READ = "Faster R-CNN, Mask R-CNN or RetinaNet on ResNet with FPN, SSD300 or SSD512 on VGG-16, or YOLOv3 on Darknet-53"
_NOT_EMPTY = 1e-6  # MMDetection drops only boxes whose sides are not above 0
_POOLING = RoIPoolingConfig(sampling_ratio=0)

_NAMES = Renaming(
    [
        *resnet_names(),
        *((f"neck.lateral_convs.{n}.conv.{{part}}", f"neck.lateral.P{n + 2}.conv.{{part}}") for n in range(4)),
        *((f"neck.fpn_convs.{n}.conv.{{part}}", f"neck.output.P{n + 2}.conv.{{part}}") for n in range(4)),
        ("rpn_head.rpn_conv.{part}", "rpn.convs.0.{part}"),
        ("rpn_head.rpn_cls.{part}", "rpn.objectness.{part}"),
        ("rpn_head.rpn_reg.{part}", "rpn.deltas.{part}"),
        ("roi_head.bbox_head.shared_fcs.{n}.{part}", "head.layers.{n}.{part}"),
        ("roi_head.bbox_head.fc_cls.{part}", "head.scores.{part}"),
        ("roi_head.bbox_head.fc_reg.{part}", "head.deltas.{part}"),
        ("roi_head.mask_head.convs.{n}.conv.{part}", "mask_head.convs.{n}.{part}"),
        ("roi_head.mask_head.upsample.{part}", "mask_head.deconv.{part}"),
        ("roi_head.mask_head.conv_logits.{part}", "mask_head.predict.{part}"),
    ]
)


def faster_rcnn_config(depth: Any = 50, caffe: bool = False, freeze_at: int = 2) -> FasterRCNNConfig:
    """Return the configuration that reproduces ``faster-rcnn_r*_fpn``.

    ``caffe``: the style of the ResNet; false is torchvision's.
    """
    return FasterRCNNConfig(
        backbone=ResNetConfig(depth=depth, stride_in_1x1=caffe, norm="frozen_bn", freeze_at=freeze_at),
        rpn=RPNConfig(
            loss=RPNLossConfig(beta=0.0, normalizer="sampled"),
            assign=RPNAssignConfig(crowd_ignore=None),
            nms=ProposalNMSConfig(min_size=_NOT_EMPTY),
        ),
        head=BoxHeadConfig(
            pooling=_POOLING,
            loss=RegionLossConfig(beta=0.0, normalizer="sampled"),
            assign=RegionAssignConfig(crowd_ignore=None),
        ),
        pixels=IMAGENET_255_BGR if caffe else IMAGENET,
    )


def mask_rcnn_config(depth: Any = 50, caffe: bool = False, freeze_at: int = 2) -> MaskRCNNConfig:
    """Return the configuration that reproduces ``mask-rcnn_r*_fpn``."""
    boxes = faster_rcnn_config(depth, caffe, freeze_at)
    return MaskRCNNConfig(
        backbone=boxes.backbone,
        rpn=boxes.rpn,
        head=boxes.head,
        mask=MaskHeadConfig(pooling=replace(_POOLING, size=14), paste=PasteConfig(method="centres")),
        pixels=boxes.pixels,
    )


def recognise_mmdet(tensors: Mapping[str, Tensor]) -> bool:
    """Return True if the tensors of a file are of a detector of MMDetection, supported or not."""
    neck = r"neck\.((lateral|fpn)_convs|detect\d|extra_layers)\."
    head = r"bbox_head\.(cls_convs|reg_convs|convs_pred|retina_\w+)\.|rpn_head\.rpn_\w+\.|roi_head\.\w+_head\."
    return any(re.match(f"{neck}|{head}", name) for name in tensors)


def mmdet_sizes(content: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the input sizes that a YOLOv3 without the text of its configuration fits; empty for all others."""
    file = read_parts(content)
    return YOLOV3_SIZES if file.has("bbox_head.convs_pred.") and yolov3_side(file) is None else ()


def import_mmdet(content: Mapping[str, Any], classes: Classes | None = None, size: int | None = None) -> Imported:
    """Import the detector in ``content``, the result of :func:`read_foreign`: the whole file, or its ``state_dict``
    alone.

    ``classes``: names in the checkpoint's order; None for those of the file, else COCO's for 80, VOC's for 20.
    ``size``: side of YOLOv3's input, a multiple of 32; None for that of the file's configuration, else 608.

    Raises InputError for other files, for unsupported models, for another number of classes, and for missing tensors.
    """
    file = read_parts(content)
    if not recognise_mmdet(file.state):
        first = next(iter(file.state), "there are no tensors at all")
        raise InputError(
            "no detector of MMDetection's: none of its tensors is called neck.fpn_convs.0.conv.weight or "
            f"bbox_head.retina_cls.weight or the like, but {first}; give a checkpoint of {_READ}"
        )
    if file.has("bbox_head.convs_pred.") or file.has("backbone.conv_res_block"):
        if size is not None and (size < 32 or size % 32):
            raise InputError(f"size = {size}: YOLOv3's input is a multiple of 32; its models have 320, 416 or 608")
        return import_yolov3(file, classes, size)
    if size is not None:
        raise InputError(f"size {size}: is for YOLOv3; MMDetection's other files tell it themselves; leave it out")
    if file.has("bbox_head.retina_cls.") or file.has("bbox_head.retina_reg."):
        return import_retinanet(file, classes)
    if file.has("backbone.features."):
        return import_ssd(file, classes)
    if not file.has("roi_head.bbox_head."):
        first = min(
            (n for n in file.state if not n.startswith("backbone.")), key=lambda n: not n.startswith("bbox_head.")
        )
        refuse_model("MMDetection's", f"detector with {first}", _READ)
    return _import_two_stage(file, classes)


def _import_two_stage(file: MMDetFile, classes: Classes | None) -> Imported:
    if file.has("roi_head.bbox_head.0.") or file.has("roi_head.bbox_head.1."):
        refuse_model("MMDetection's", "Cascade R-CNN", _READ)
    masks = file.has("roi_head.mask_head.")
    source = f"MMDetection {'mask' if masks else 'faster'}_rcnn FPN"
    depth = resnet_depth(file.state, r"^backbone\.layer3\.(\d+)\.", source)
    state, unknown = _NAMES.import_all(file.state)
    refuse_keys(unknown, source)
    columns = rows_of(file.state, "roi_head.bbox_head.fc_cls.weight", source)
    agnostic = columns > 2 and rows_of(file.state, "roi_head.bbox_head.fc_reg.weight", source) == 4
    state = first_layer_channels_last(state)
    config: Any = (mask_rcnn_config if masks else faster_rcnn_config)(depth, file.caffe)
    return Imported(
        source=f"{source} R{depth}{' caffe' if file.caffe else ''}",
        config=replace(config, head=replace(config.head, class_agnostic=agnostic)),
        classes=chosen_classes(columns - 1, classes or file.classes(columns - 1), source),
        state=state,
        transforms=(ResizeConfig(short=(800,), long=1333, interpolation="opencv"),),
    )
