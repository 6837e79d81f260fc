"""Import Fast R-CNN and Faster R-CNN of rbgirshick, and R-FCN of YuwenXiong/py-R-FCN, from their ``.caffemodel``.

There, background is class 0 and has boxes, and regions are flattened with channels first. The files hold unnormalised
box offsets, because the code multiplies the standard deviations of the targets into the weights on saving. The importer
divides them out again: ``head.coder.weights`` is the same as in training, and the results are equal. All else is an
option of our detectors.

Four differences remain. NMS runs on the resized image here and on the original there, where it adds 1 to sides.
Proposals have a minimum side of 16 pixels of the resized image here, of the original there. Fast R-CNN's code gives all
regions that fall on the same cells the box of one of them. Its proposals include their last pixel: with the same
proposals the results are equal, and our proposal files hold one pixel more.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch

from boxwright.anchors.generator import AnchorConfig
from boxwright.backbones.build import BackboneConfig
from boxwright.backbones.resnet import ResNetConfig
from boxwright.backbones.vgg import VGGConfig
from boxwright.backbones.zf import ZFConfig
from boxwright.data.transforms.resizing import ResizeConfig
from boxwright.detectors.contract.pixels import MSRA
from boxwright.detectors.fast_rcnn import FastRCNNConfig
from boxwright.detectors.faster_rcnn_c4 import FasterRCNNC4Config
from boxwright.detectors.rfcn import RFCNConfig, RFCNHeadConfig
from boxwright.geometry.pooling.position_sensitive import PositionSensitiveConfig
from boxwright.geometry.pooling.roi_pooling import RoIPoolingConfig
from boxwright.heads.postprocess import PostprocessConfig
from boxwright.heads.regions.box_head import RegionAssignConfig
from boxwright.heads.regions.configs import CoderConfig, RegionLossConfig
from boxwright.heads.regions.region_heads import LayersHeadConfig
from boxwright.heads.regions.rpn import ProposalNMSConfig, RPNAssignConfig, RPNCoderConfig, RPNConfig, RPNLossConfig
from boxwright.structures import Classes, InputError
from boxwright.weights.caffe.layers import LayerConverter, resnet_depth
from boxwright.weights.caffe.protobuf import CaffeModel, integer_of
from boxwright.weights.common.class_names import default_classes
from boxwright.weights.common.heads import background_last, check_class_count
from boxwright.weights.common.imported import Imported

DROPOUT = 108
"""Field of a layer with the settings of dropout."""

SIDES = (ResizeConfig(short=(600,), long=1000, interpolation="aliased", levels="fractions", sampling="scale"),)
DEVIATIONS = (10.0, 10.0, 5.0, 5.0)
_SCALES = {9: (128, 256, 512), 12: (64, 128, 256, 512), 15: (32, 64, 128, 256, 512)}


def rpn_config(channels: int, anchors: int, proposals: tuple[int, int], pre_nms: tuple[int, int]) -> RPNConfig:
    """Return the RPN of py-faster-rcnn. ``proposals`` and ``pre_nms``: in training, and at test."""
    return RPNConfig(
        anchors=AnchorConfig(sizes=(_SCALES[anchors],), rounding="caffe", centre="pixel", order="ratio"),
        channels=channels,
        objectness="softmax",
        pairing="blocks",
        assign=RPNAssignConfig(crowd_ignore=None, straddle=0.0),
        loss=RPNLossConfig(normalizer="sampled"),
        coder=RPNCoderConfig(offset=1.0, decoded_end=0.0, clamp=None),
        pre_nms=pre_nms,
        post_nms=proposals,
        nms=ProposalNMSConfig(scope="image", filter_first=True, min_size=16.0),
    )


def recognise_rcnn(model: CaffeModel) -> bool:
    """Return True for a Fast or Faster R-CNN with a head of fc6 and fc7."""
    return {"cls_score", "bbox_pred", "fc7"} <= model.layers.keys()


def import_rcnn(model: CaffeModel, classes: Classes | None = None) -> Imported:
    """Import Fast R-CNN on VGG-16, or Faster R-CNN on VGG-16 or ZF, detected by their layers."""
    if "conv5_3" in model.layers:
        network: Literal["vgg16", "zf"] = "vgg16"
    elif "conv5" in model.layers and "rpn_conv/3x3" in model.layers:
        network = "zf"
    else:
        raise InputError(
            f"{model.origin}: a Fast R-CNN on another network than VGG-16; CaffeNet and VGG_CNN_M_1024 are not known, "
            "nor are heads compressed by truncated SVD"
        )
    faster = "rpn_conv/3x3" in model.layers
    source = f"{'faster_rcnn' if faster else 'fast_rcnn'}_{network}"
    converter = LayerConverter(model, f"{source} of rbgirshick")
    backbone: BackboneConfig
    if network == "vgg16":
        converter.vgg16()
        backbone, side = VGGConfig(freeze_at=2, out_levels=(5,)), 7
    else:
        for number in range(1, 6):
            converter.conv(f"backbone.convs.{number - 1}.0", f"conv{number}")
        backbone, side = ZFConfig(ceil_mode=True), 6
    count = _layers_head(converter, side, _halved(model, network))
    check_class_count(count, classes, model.origin)
    config: FastRCNNConfig | FasterRCNNC4Config
    if faster:
        anchors, channels = _rpn(converter)
        config = FasterRCNNC4Config(
            backbone=backbone,
            rpn=rpn_config(channels, anchors, (2_000, 300), (12_000, 6_000)),
            head=_layers_config(side, offset=1.0, samples=128, floor=0.0),
            pixels=MSRA,
            difficult=False,
        )
    else:
        # Widths do not include the last pixel, except in NMS and overlaps.
        head = _layers_config(side, offset=0.0, samples=64, floor=0.1)
        post = replace(head.post, score_threshold=0.0, candidates=4000)
        config = FastRCNNConfig(backbone=backbone, head=replace(head, post=post), pixels=MSRA)
    return Imported(
        source=f"rbgirshick {source}",
        config=config,
        classes=classes or default_classes(count),
        state=converter.done(),
        transforms=SIDES,
        pad_multiple=1,
    )


def _layers_config(side: int, offset: float, samples: int, floor: float) -> LayersHeadConfig:
    return LayersHeadConfig(
        pooling=RoIPoolingConfig(method="pool", size=side),
        assign=RegionAssignConfig(crowd_ignore=None, negative_floor=floor),
        samples=samples,
        loss=RegionLossConfig(normalizer="sampled"),
        coder=CoderConfig(offset=offset, decoded_end=0.0, clamp=None, weights=DEVIATIONS),
        post=PostprocessConfig(score_threshold=0.05, nms_iou=0.3, offset=1.0, min_size=0.0, original_from="decoding"),
    )


def _layers_head(converter: LayerConverter, side: int, halved: bool) -> int:
    """Convert the head and return the number of classes. ``halved``: halve the outputs of fc6 and fc7, see
    :func:`_halved`.
    """
    share = 0.5 if halved else 1.0
    weight, bias = converter.matrix("fc6")
    if weight.shape[1] % side**2:
        raise InputError(f"{converter.model.origin}: fc6 has {weight.shape[1]} inputs, not cells of {side} x {side}")
    weight = weight.unflatten(1, (-1, side, side)).permute(0, 2, 3, 1).flatten(1)
    converter.state |= {"head.layers.0.weight": weight, "head.layers.0.bias": bias}
    weight, bias = converter.matrix("fc7")
    converter.state |= {"head.layers.1.weight": weight * share, "head.layers.1.bias": bias}
    weight, bias = converter.matrix("cls_score")
    converter.state |= {
        "head.scores.weight": background_last(weight) * share,
        "head.scores.bias": background_last(bias),
    }
    count = len(bias) - 1
    weight, bias = converter.matrix("bbox_pred")
    if len(bias) != 4 * (count + 1):
        raise InputError(
            f"{converter.model.origin}: bbox_pred has {len(bias)} rows for {count} classes and background, not 4 each"
        )
    deviations = torch.tensor(DEVIATIONS).repeat(count)
    converter.state["head.deltas.weight"] = weight[4:] * deviations[:, None] * share
    converter.state["head.deltas.bias"] = bias[4:] * deviations
    return count


def _halved(model: CaffeModel, network: str) -> bool:
    """Return True if dropout halves outputs at test (``scale_train: false``), as in ZF, instead of doubling them in
    training.
    """
    layer = model.layers.get("drop6")
    if layer is None or DROPOUT not in layer.settings:
        return network == "zf"
    return not integer_of(layer.settings[DROPOUT], 2, 1)


def _rpn(converter: LayerConverter) -> tuple[int, int]:
    """Convert the RPN and return its anchors per cell and its channels."""
    converter.conv("rpn.convs.0", "rpn_conv/3x3")
    converter.conv("rpn.objectness", "rpn_cls_score")
    converter.conv("rpn.deltas", "rpn_bbox_pred")
    anchors = len(converter.state["rpn.objectness.bias"]) // 2
    if anchors not in _SCALES or len(converter.state["rpn.deltas.bias"]) != 4 * anchors:
        known = ", ".join(f"{n} ({len(sizes)} sizes, 3 ratios)" for n, sizes in _SCALES.items())
        raise InputError(f"{converter.model.origin}: {anchors} anchors in a cell; known are {known}")
    return anchors, len(converter.state["rpn.convs.0.bias"])


def recognise_rfcn(model: CaffeModel) -> bool:
    """Return True for an R-FCN on a ResNet."""
    return {"rfcn_cls", "rfcn_bbox"} <= model.layers.keys() and resnet_depth(model) is not None


def import_rfcn(model: CaffeModel, classes: Classes | None = None) -> Imported:
    """Import R-FCN on ResNet-50 or 101, with class-agnostic boxes.

    The authors' MATLAB code keeps the proposal network in a file of its own. Such files are refused.
    """
    depth = resnet_depth(model)
    assert depth in (50, 101, 152)
    converter = LayerConverter(model, f"rfcn_resnet{depth} of YuwenXiong/py-R-FCN")
    if "rpn_conv/3x3" not in model.layers:
        raise InputError(
            f"{model.origin}: an R-FCN without a proposal network, as the MATLAB code writes it; give a model of "
            "py-R-FCN, which holds both"
        )
    converter.resnet(depth)
    anchors, channels = _rpn(converter)
    for ours, layer in (("reduce", "conv_new_1"), ("scores", "rfcn_cls"), ("deltas", "rfcn_bbox")):
        converter.conv(f"head.{ours}", layer)
    state = converter.done()
    boxes = len(state["head.deltas.bias"])
    bins = boxes // 8
    side = round(bins**0.5)
    if boxes % 8 or side**2 != bins or len(state["head.scores.bias"]) % bins:
        raise InputError(
            f"{model.origin}: {boxes} maps of boxes and {len(state['head.scores.bias'])} of scores; R-FCN with one box "
            "for all classes has 8 k k and (K + 1) k k"
        )
    count = len(state["head.scores.bias"]) // bins - 1
    check_class_count(count, classes, model.origin)
    deviations = torch.tensor(DEVIATIONS).repeat_interleave(bins)
    for part in ("weight", "bias"):
        state[f"head.scores.{part}"] = background_last(state[f"head.scores.{part}"], bins)
        offsets = state[f"head.deltas.{part}"][4 * bins :]  # the first four belong to background
        state[f"head.deltas.{part}"] = offsets * deviations.reshape(-1, *[1] * (offsets.ndim - 1))
    return Imported(
        source=f"YuwenXiong/py-R-FCN rfcn_resnet{depth}",
        config=_rfcn_config(depth, anchors, channels, side, count),
        classes=classes or default_classes(count),
        state=state,
        transforms=SIDES,
        pad_multiple=1,
    )


def _rfcn_config(depth: Literal[50, 101, 152], anchors: int, channels: int, side: int, count: int) -> RFCNConfig:
    return RFCNConfig(
        backbone=ResNetConfig(
            depth=depth,
            stride_in_1x1=True,
            stem_pool="ceil",
            norm="frozen_bn",
            freeze_at=2,
            output_stride=16,
            out_levels=(4, 5),
        ),
        rpn=rpn_config(channels, anchors, (300, 300), (6_000, 6_000)),
        head=RFCNHeadConfig(
            pooling=PositionSensitiveConfig(size=side, offset=1.0),
            assign=RegionAssignConfig(crowd_ignore=None),
            coder=CoderConfig(offset=1.0, decoded_end=0.0, clamp=None, weights=DEVIATIONS),
            post=PostprocessConfig(
                score_threshold=0.0,
                nms_iou=0.3,
                detections=400,
                candidates=max(400, 300 * count),
                offset=1.0,
                min_size=0.0,
                original_from="decoding",
            ),
        ),
        pixels=MSRA,
        difficult=False,
    )
