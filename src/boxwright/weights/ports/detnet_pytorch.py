"""Import DetNet-59 of guoruoqian/DetNet_pytorch: the ImageNet classifier, and Faster R-CNN with FPN.

The file of the classifier is a bare state dict. That of the detector is a dictionary whose entry ``model`` is one; both
forms are accepted. Besides names, three things differ: background is class 0 there and has boxes, the first layer of
the head is a convolution over the whole pooled region, and DetNet's extra shortcut has a name of its own. The port's
conventions are options of our detector, stated in :func:`faster_rcnn_config`. Its files need them all, including those
that are defects.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from boxwright.anchors.generator import AnchorConfig
from boxwright.backbones.detnet import DetNetConfig
from boxwright.data.transforms.resizing import ResizeConfig
from boxwright.detectors.contract.pixels import IMAGENET
from boxwright.detectors.faster_rcnn import FasterRCNNConfig
from boxwright.geometry.pooling.roi_pooling import RoIPoolingConfig
from boxwright.heads.postprocess import PostprocessConfig
from boxwright.heads.regions.box_head import BoxHeadConfig, RegionAssignConfig
from boxwright.heads.regions.configs import CoderConfig, RegionLossConfig
from boxwright.heads.regions.rpn import ProposalNMSConfig, RPNAssignConfig, RPNCoderConfig, RPNConfig, RPNLossConfig
from boxwright.necks.fpn import FPNConfig
from boxwright.structures import Classes, InputError
from boxwright.weights.common.class_names import default_classes
from boxwright.weights.common.foreign_files import tensors_in
from boxwright.weights.common.heads import background_last, check_class_count
from boxwright.weights.common.imported import Imported
from boxwright.weights.common.imported_backbone import ImportedBackbone
from boxwright.weights.common.state_checks import rows_of

_PYRAMID = {
    "RCNN_toplayer": "lateral.P6",
    "RCNN_latlayer1": "lateral.P5",
    "RCNN_latlayer2": "lateral.P4",
    "RCNN_latlayer3": "lateral.P3",
    "RCNN_latlayer4": "lateral.P2",
    "RCNN_smooth1": "output.P3",
    "RCNN_smooth2": "output.P2",
}
_HEADS = {
    "RCNN_rpn.RPN_Conv": "rpn.convs.0",
    "RCNN_rpn.RPN_cls_score": "rpn.objectness",
    "RCNN_rpn.RPN_bbox_pred": "rpn.deltas",
    "RCNN_top.0": "head.layers.0",
    "RCNN_top.2": "head.layers.1",
    "RCNN_cls_score": "head.scores",
    "RCNN_bbox_pred": "head.deltas",
}
_BLOCKS = r"(\d+\.(?:conv|bn)\d\.\w+|\d+\.(?:downsample|extra_conv)\.[01]\.\w+)"
NO_LIMIT = 2**16
"""Maximum longer side of an image, in pixels. The port's own limit is commented out."""


def faster_rcnn_config(
    classes: int = 20, freeze_at: int = 2, proposals: int = 300, class_agnostic: bool = False
) -> FasterRCNNConfig:
    """Return the configuration that reproduces the port's detectors.

    ``classes``: number of classes; every pair of a proposal and a class may enter NMS. ``freeze_at``: number of leading
    stages that are frozen. ``proposals``: at test, 300, or 1000 with its large-scale settings. One difference remains:
    images of a batch are padded with zeros here, while a batch of one has no padding there.
    """
    return FasterRCNNConfig(
        backbone=DetNetConfig(stride_in_1x1=False, norm="frozen_bn", freeze_at=freeze_at),
        neck=FPNConfig(output_convs="upsampled", upsample="bilinear_align_corners", passed_down="smoothed"),
        rpn=RPNConfig(
            anchors=AnchorConfig(ratio="w/h"),
            channels=512,
            objectness="softmax",
            pairing="crossed",
            assign=RPNAssignConfig(crowd_ignore=None, straddle=0.0),
            loss=RPNLossConfig(normalizer="sampled"),
            coder=RPNCoderConfig(offset=1.0, decoded_end=0.0, clamp=None),
            pre_nms=(12_000, 6_000),
            post_nms=(2_000, proposals),
            nms=ProposalNMSConfig(scope="image", min_size=0.0),
        ),
        head=BoxHeadConfig(
            pooling=RoIPoolingConfig(method="corners", size=14, level_epsilon=0.0, level_offset=1.0),
            class_agnostic=class_agnostic,
            assign=RegionAssignConfig(crowd_ignore=None),
            samples=128,
            loss=RegionLossConfig(normalizer="sampled"),
            coder=CoderConfig(offset=1.0, decoded_end=0.0, clamp=None),
            post=PostprocessConfig(
                score_threshold=0.0,
                nms_iou=0.3,
                candidates=proposals * classes,
                offset=1.0,
                min_size=0.0,
                original_from="nms",
            ),
        ),
        region_scale="map",
    )


def recognise_detnet_pytorch(tensors: Mapping[str, Tensor]) -> bool:
    """Return True for the tensors of a detector of the port."""
    return "RCNN_layer5.0.0.extra_conv.0.weight" in tensors


def import_detnet_pytorch(
    state: Mapping[str, Any], classes: Classes | None = None, large_scale: bool = False
) -> Imported:
    """Import the port's Faster R-CNN with DetNet-59 and FPN, class-agnostic or not.

    ``state``: the whole file, or its ``model`` entry. ``classes``: None for names of VOC or COCO by their number, else
    ``class_0`` and so on. ``large_scale``: its settings ``_ls``, a short side of 800 and 1000 proposals, of its COCO
    models. Raises InputError naming missing keys and keys of other models.
    """
    given = _tensors(state)
    if not recognise_detnet_pytorch(given):
        raise InputError(
            f"no detector of DetNet_pytorch: among {len(given)} tensors there is no RCNN_layer5, which is DetNet's "
            "stage 6; its ImageNet classifier goes to --backbone-weights"
        )
    names = {key: name for key in given if (name := _name(key)) is not None}
    if unknown := [key for key in given if key not in names]:
        raise InputError(
            f"{len(unknown)} of {len(given)} keys are not of DetNet_pytorch's detector, the first is {unknown[0]!r}"
        )
    if absent := [key for key in _HEADS if f"{key}.weight" not in given or f"{key}.bias" not in given]:
        raise InputError(f"DetNet_pytorch's detector lacks {absent[0]}.weight or .bias; is the file whole?")
    mode = state.get("pooling_mode", "align")
    if mode != "align":
        raise InputError(
            f"DetNet_pytorch's detector with pooling_mode {mode!r}: only its default, 'align', is read; evaluate this "
            "file where it was trained, or train it again with 'align'"
        )
    count = given["RCNN_cls_score.bias"].shape[0] - 1
    check_class_count(count, classes)
    agnostic = given["RCNN_bbox_pred.bias"].shape[0] == 4
    ours = {name: given[key] for key, name in names.items()}
    for part in ("weight", "bias"):
        ours[f"head.scores.{part}"] = background_last(ours[f"head.scores.{part}"])
        if not agnostic:
            ours[f"head.deltas.{part}"] = ours[f"head.deltas.{part}"][4:]
    first, second = ours["head.layers.0.weight"], ours["head.layers.1.weight"]
    ours["head.layers.0.weight"] = first.permute(0, 2, 3, 1).flatten(1)  # regions are flattened with channels last here
    ours["head.layers.1.weight"] = second.flatten(1)
    return Imported(
        source="DetNet_pytorch detnet59 fpn",
        config=faster_rcnn_config(count, proposals=1000 if large_scale else 300, class_agnostic=agnostic),
        classes=classes or default_classes(count),
        state=ours,
        transforms=(
            ResizeConfig(
                short=(800 if large_scale else 600,),
                long=NO_LIMIT,
                interpolation="aliased",
                levels="fractions",
                sampling="scale",
            ),
        ),
        pad_multiple=1,
    )


def recognise_detnet_classifier(tensors: Mapping[str, Tensor]) -> bool:
    """Return True for the tensors of the port's ImageNet classifier, ``detnet59.pth``."""
    return "layer5.0.extra_conv.0.weight" in tensors


def import_detnet_classifier(state: Mapping[str, Any]) -> ImportedBackbone:
    """Import the port's ImageNet classifier: 317 tensors. Raises InputError naming keys of other models."""
    given = _tensors(state)
    ours: dict[str, Tensor] = {}
    unknown = []
    for key, value in given.items():
        if re.fullmatch(rf"(conv1|bn1)\.\w+|layer[1-5]\.{_BLOCKS}", key):
            ours[f"backbone.{key.replace('extra_conv', 'downsample')}"] = value
        elif key in ("fc.weight", "fc.bias"):
            ours[key] = value
        else:
            unknown.append(key)
    if unknown or not recognise_detnet_classifier(given):
        found = f"among {len(given)} tensors there is no layer5, which is DetNet's stage 6"
        if unknown:
            found = f"{len(unknown)} of {len(given)} keys are of no such network, the first is {unknown[0]!r}"
        raise InputError(f"no classifier of DetNet_pytorch: {found}")
    config = DetNetConfig(stride_in_1x1=False, width=rows_of(given, "conv1.weight", "DetNet_pytorch detnet59"))
    return ImportedBackbone("DetNet_pytorch detnet59", config, IMAGENET, ours)


def _tensors(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the tensors of a state dict without batch counters."""
    return {key: value for key, value in tensors_in(state).items() if not key.endswith("num_batches_tracked")}


def _name(key: str) -> str | None:
    """Return our name of a tensor of the detector; None for keys that it does not have."""
    layer, _, part = key.rpartition(".")
    if layer in _PYRAMID:
        return f"neck.{_PYRAMID[layer]}.conv.{part}"
    if layer in _HEADS:
        return f"{_HEADS[layer]}.{part}"
    if stem := re.fullmatch(r"RCNN_layer0\.([01])\.(\w+)", key):
        return f"backbone.{('conv1', 'bn1')[int(stem[1])]}.{stem[2]}"
    if block := re.fullmatch(rf"RCNN_layer([1-5])\.0\.{_BLOCKS}", key):
        return f"backbone.layer{block[1]}.{block[2].replace('extra_conv', 'downsample')}"
    return None
