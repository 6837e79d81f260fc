"""Import the detectors of Detectron, the first one in Caffe2: Faster R-CNN on ResNet C4 and FPN, Mask R-CNN and
RetinaNet on FPN.

Its files are Python 2 pickles of numpy arrays, ``{"blobs": {...}, "cfg": ...}``, with the momentum of every parameter
beside it. Background is first and has an untrained box and mask. Batch norms are a scale and a shift.

Its conventions are those of Caffe: boxes include their last pixel, anchors are centred on pixels and have rounded
sides, RoIAlign has no half-pixel shift, and NMS suppresses at the threshold itself. Its detections follow that
convention too: a side is one pixel longer than ``x2 - x1``. One difference remains: it drops proposals whose centre is
outside of the image, which after clipping affects only the last half pixel.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from boxwright.anchors.coder import BoxCoder
from boxwright.anchors.generator import AnchorConfig
from boxwright.backbones.resnet import ResNetConfig
from boxwright.data.transforms.resizing import ResizeConfig
from boxwright.detectors.build import DetectorConfig
from boxwright.detectors.contract.pixels import MSRA
from boxwright.detectors.faster_rcnn import FasterRCNNConfig
from boxwright.detectors.faster_rcnn_c4 import FasterRCNNC4Config
from boxwright.detectors.mask_rcnn import MaskRCNNConfig
from boxwright.detectors.retinanet import (
    RetinaNetAssignConfig,
    RetinaNetConfig,
    RetinaNetLossConfig,
    octave_anchors,
)
from boxwright.geometry.pooling.roi_pooling import RoIPoolingConfig
from boxwright.heads.postprocess import PostprocessConfig
from boxwright.heads.regions.box_head import BoxHeadConfig
from boxwright.heads.regions.configs import CoderConfig
from boxwright.heads.regions.mask_head import MaskHeadConfig
from boxwright.heads.regions.region_heads import StageHeadConfig
from boxwright.heads.regions.rpn import ProposalNMSConfig, RPNAssignConfig, RPNCoderConfig, RPNConfig
from boxwright.structures import Classes, InputError
from boxwright.weights.common.flattened_regions import first_layer_channels_last
from boxwright.weights.common.foreign_files import tensors_in
from boxwright.weights.common.heads import background_last
from boxwright.weights.common.imported import Imported
from boxwright.weights.common.state_checks import (
    Depth,
    chosen_classes,
    refuse_keys,
    refuse_model,
    resnet_depth,
    rows_of,
)
from boxwright.weights.common.tensor_names import Renaming

_POOLING = RoIPoolingConfig(aligned=False, level_offset=1.0)
_POST = PostprocessConfig(nms_inclusive=True, offset=1.0, min_size=0.0, original_from="decoding")
_RPN = RPNConfig(
    anchors=AnchorConfig(centre="pixel", rounding="caffe"),
    assign=RPNAssignConfig(straddle=0.0),
    coder=RPNCoderConfig(offset=1.0),
    post_nms=(2_000, 1_000),
    nms=ProposalNMSConfig(inclusive=True, min_size=0.0),
)
_READ = "Faster R-CNN on C4 or FPN, or RetinaNet or Mask R-CNN on FPN, of its model zoo"
_PARTS = (("w", "weight"), ("b", "bias"))
_NORM_PARTS = (
    *(("s", "weight"), ("b", "bias"), ("gamma", "weight"), ("beta", "bias")),
    *(("running_mean", "running_mean"), ("running_var", "running_var")),
)
"""Parts of a norm: a scale and a shift. Pretrained ResNets may have whole norms."""


def faster_rcnn_config(depth: Depth = 50, freeze_at: int = 2) -> FasterRCNNConfig:
    """Return the configuration that reproduces ``e2e_faster_rcnn_R-*-FPN``."""
    return FasterRCNNConfig(
        backbone=ResNetConfig(depth=depth, stride_in_1x1=True, norm="frozen_bn", freeze_at=freeze_at),
        rpn=_RPN,
        head=BoxHeadConfig(pooling=_POOLING, coder=CoderConfig(offset=1.0), post=_POST),
        pixels=MSRA,
    )


def faster_rcnn_c4_config(depth: Depth = 50, freeze_at: int = 2) -> FasterRCNNC4Config:
    """Return the configuration that reproduces ``e2e_faster_rcnn_R-*-C4``."""
    return FasterRCNNC4Config(
        backbone=ResNetConfig(depth=depth, stride_in_1x1=True, norm="frozen_bn", freeze_at=freeze_at, out_levels=(4,)),
        rpn=replace(
            _RPN,
            anchors=replace(_RPN.anchors, sizes=((32, 64, 128, 256, 512),)),
            pre_nms=(12_000, 6_000),
            post_nms=(2_000, 1_000),
        ),
        head=StageHeadConfig(
            pooling=RoIPoolingConfig(size=14, sampling_ratio=0, aligned=False),
            samples=512,
            coder=CoderConfig(offset=1.0),
            post=_POST,
        ),
        pixels=MSRA,
    )


def mask_rcnn_config(depth: Depth = 50, freeze_at: int = 2) -> MaskRCNNConfig:
    """Return the configuration that reproduces ``e2e_mask_rcnn_R-*-FPN``."""
    boxes = faster_rcnn_config(depth, freeze_at)
    return MaskRCNNConfig(
        backbone=boxes.backbone,
        rpn=boxes.rpn,
        head=boxes.head,
        mask=MaskHeadConfig(pooling=replace(_POOLING, size=14)),
        pixels=boxes.pixels,
    )


def retinanet_config(depth: Depth = 50, freeze_at: int = 2) -> RetinaNetConfig:
    """Return the configuration that reproduces ``retinanet_R-*-FPN``."""
    return RetinaNetConfig(
        backbone=ResNetConfig(
            depth=depth, stride_in_1x1=True, norm="frozen_bn", freeze_at=freeze_at, out_levels=(3, 4, 5)
        ),
        anchors=replace(octave_anchors(ratios=(1.0, 2.0, 0.5)), centre="pixel", rounding="caffe"),
        assign=RetinaNetAssignConfig(low_quality="gap", crowd_ignore=None),
        loss=RetinaNetLossConfig(beta=0.11, normalizer="batch_plus_images"),
        coder=BoxCoder(offset=1.0),
        post=replace(_POST, candidates=1000, original_from="clip"),
        top_threshold=0.0,
        pixels=MSRA,
    )


def recognise_detectron(tensors: Mapping[str, Tensor]) -> bool:
    """Return True if the tensors of a file have Detectron's names: a detector or a pretrained ResNet."""
    return any(re.match(r"res\d_\d+_branch2[abc]_w$", name) for name in tensors)


def import_detectron(content: Mapping[str, Any], classes: Classes | None = None) -> Imported:
    """Import the detector in ``content``, the result of :func:`read_foreign`: the whole file, or its ``blobs`` alone.

    ``classes``: names in the checkpoint's order; None for COCO's for 80, VOC's for 20, else ``class_0``, ...

    Raises InputError for other files, for unsupported models (Keypoint R-CNN, Mask R-CNN on C4, ResNeXt, group norm),
    for another number of classes, and for missing tensors.
    """
    tensors = tensors_in(content)
    if not recognise_detectron(tensors):
        first = next(iter(tensors), "there are no tensors at all")
        raise InputError(
            "no detector of Detectron's: none of its tensors is called res2_0_branch2a_w or the like, but "
            f"{first}; give a model_final.pkl: {_READ}"
        )
    blobs = _without_momentum(tensors)
    kind = _kind_of(blobs)
    source = f"Detectron {kind}"
    depth = resnet_depth(blobs, r"res4_(\d+)_", source)
    state, unknown = _NAMES[kind].import_all(blobs)
    refuse_keys(unknown, source)
    config, count = _config(blobs, kind, depth, source)
    return Imported(
        source=f"{source} R{depth}",
        config=config,
        classes=chosen_classes(count, classes, source),
        state=with_statistics(_converted_heads(state)),
        transforms=(
            ResizeConfig(short=(800,), long=1333, interpolation="aliased", levels="fractions", sampling="scale"),
        ),
        pad_multiple={"faster_rcnn C4": 1, "retinanet FPN": 128}.get(kind, 32),
    )


def with_statistics(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Add the mean 0 and the variance 1 - eps to norms that are only a scale and a shift."""
    full = dict(state)
    for name, value in state.items():
        if re.search(r"(^|\.)(bn\d|downsample\.1)\.weight$", name):
            stem = name.removesuffix("weight")
            full.setdefault(f"{stem}running_mean", torch.zeros_like(value))
            full.setdefault(f"{stem}running_var", torch.ones_like(value) - 1e-5)
    return full


Model = Literal["faster_rcnn FPN", "mask_rcnn FPN", "faster_rcnn C4", "retinanet FPN"]


def _without_momentum(blobs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Drop the momentum of the training, and the last layer and unused bias of the classifier."""
    left = re.compile(r".*_momentum|lr|conv1_b|(fc1000|pred)_[wb]")
    return {name: value for name, value in blobs.items() if not left.fullmatch(name)}


def _kind_of(blobs: Mapping[str, Tensor]) -> Model:
    starts = {name for name in ("kps_", "conv_fcn", "mask_fcn", "conv5_mask", "retnet_", "fpn_") if _has(blobs, name)}
    if starts & {"kps_", "conv_fcn"}:
        refuse_model("Detectron's", "Keypoint R-CNN", _READ)
    if any("_gn_" in name for name in blobs):
        refuse_model("Detectron's", "network with group norm", _READ)
    if "retnet_" in starts:
        return "retinanet FPN"
    if not _has(blobs, "conv_rpn") and not _has(blobs, "cls_score"):
        raise InputError(
            "a pretrained ResNet of Detectron's, not a detector: start a training from it, by `boxwright train RECIPE "
            f"--backbone-weights`, or give a model_final.pkl: {_READ}"
        )
    if "fpn_" in starts:
        return "mask_rcnn FPN" if starts & {"mask_fcn", "conv5_mask"} else "faster_rcnn FPN"
    if starts & {"mask_fcn", "conv5_mask"}:
        refuse_model("Detectron's", "Mask R-CNN on C4", "Mask R-CNN on FPN")
    return "faster_rcnn C4"


def _has(blobs: Mapping[str, Tensor], start: str) -> bool:
    return any(name.startswith(start) for name in blobs)


def _config(blobs: Mapping[str, Tensor], kind: Model, depth: Depth, source: str) -> tuple[DetectorConfig, int]:
    """Return the configuration, and the number of classes without background."""
    if kind == "retinanet FPN":
        boxes, scores = (rows_of(blobs, f"retnet_{part}_pred_fpn3_w", source) for part in ("bbox", "cls"))
        return retinanet_config(depth), scores * 4 // max(boxes, 1)
    columns = rows_of(blobs, "cls_score_w", source)
    agnostic = columns > 2 and rows_of(blobs, "bbox_pred_w", source) == 8  # one for background, one for all else
    config: Any
    if kind == "faster_rcnn C4":
        config = faster_rcnn_c4_config(depth)
    elif kind == "faster_rcnn FPN":
        config = faster_rcnn_config(depth)
    else:
        config = mask_rcnn_config(depth)
        convs = sum(bool(re.fullmatch(r"_\[mask\]_fcn\d_w", name)) for name in blobs)
        config = replace(config, mask=replace(config.mask, convs=max(convs, 1)))
    return replace(config, head=replace(config.head, class_agnostic=agnostic)), columns - 1


def _converted_heads(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Move background to the end of the scores, drop its box and mask, and reorder flattened regions."""
    for part in ("weight", "bias"):
        if "rpn.deltas.weight" in state:
            if (scores := state.get(f"head.scores.{part}")) is not None:
                state[f"head.scores.{part}"] = background_last(scores)
            for name, rows in ((f"head.deltas.{part}", 4), (f"mask_head.predict.{part}", 1)):
                if name in state:
                    state[name] = state[name][rows:]
    return first_layer_channels_last(state)


def _layers(*pairs: tuple[str, str]) -> list[tuple[str, str]]:
    """Return the pairs of names of weight and bias, for pairs of a blob and our layer."""
    return [(f"{blob}_{a}", f"{layer}.{b}") for blob, layer in pairs for a, b in _PARTS]


def stage_pairs(ours: str, stages: tuple[int, ...]) -> list[tuple[str, str]]:
    """Return the pairs of names of the residual stages. ``ours`` is our prefix with its dot."""
    pairs: list[tuple[str, str]] = []
    branches = (("branch2a", "conv1", "bn1"), ("branch2b", "conv2", "bn2"), ("branch2c", "conv3", "bn3"))
    for stage in stages:
        for branch, conv, norm in (*branches, ("branch1", "downsample.0", "downsample.1")):
            blob, block = f"res{stage}_{{block}}_{branch}", f"{ours}layer{stage - 1}.{{block}}"
            pairs.append((f"{blob}_w", f"{block}.{conv}.weight"))
            pairs += [(f"{blob}_bn_{a}", f"{block}.{norm}.{b}") for a, b in _NORM_PARTS]
    return pairs


def stem_pairs(ours: str) -> list[tuple[str, str]]:
    """Return the pairs of names of the stem."""
    norm = [(f"res_conv1_bn_{a}", f"{ours}bn1.{b}") for a, b in _NORM_PARTS]
    return [("conv1_w", f"{ours}conv1.weight"), *norm]


_BODY = [*stem_pairs("backbone."), *stage_pairs("backbone.", (2, 3, 4, 5))]
_PYRAMID = _layers(
    *((f"fpn_inner_res{n}_{{block}}_sum_lateral", f"neck.lateral.P{n}.conv") for n in (2, 3, 4, 5)),
    *((f"fpn_inner_res{n}_{{block}}_sum", f"neck.lateral.P{n}.conv") for n in (2, 3, 4, 5)),
    *((f"fpn_res{n}_{{block}}_sum", f"neck.output.P{n}.conv") for n in (2, 3, 4, 5)),
)
_PREDICTOR = _layers(("cls_score", "head.scores"), ("bbox_pred", "head.deltas"))
_FPN = [
    *_BODY,
    *_PYRAMID,
    *_layers(("conv_rpn_fpn2", "rpn.convs.0"), ("rpn_cls_logits_fpn2", "rpn.objectness")),
    *_layers(("rpn_bbox_pred_fpn2", "rpn.deltas"), ("fc6", "head.layers.0"), ("fc7", "head.layers.1")),
    *_PREDICTOR,
]
_NAMES: dict[Model, Renaming] = {
    "faster_rcnn FPN": Renaming(_FPN),
    "mask_rcnn FPN": Renaming(
        [
            *_FPN,
            *_layers(*((f"_[mask]_fcn{n + 1}", f"mask_head.convs.{n}") for n in range(8))),
            *_layers(("conv5_mask", "mask_head.deconv"), ("mask_fcn_logits", "mask_head.predict")),
        ]
    ),
    "faster_rcnn C4": Renaming(
        [
            *stem_pairs("backbone."),
            *stage_pairs("backbone.", (2, 3, 4)),
            *stage_pairs("head.stages.", (5,)),
            *_layers(("conv_rpn", "rpn.convs.0"), ("rpn_cls_logits", "rpn.objectness")),
            *_layers(("rpn_bbox_pred", "rpn.deltas")),
            *_PREDICTOR,
        ]
    ),
    "retinanet FPN": Renaming(
        [
            *_BODY,
            *_PYRAMID,
            *_layers(("fpn_6", "neck.extra.P6.conv"), ("fpn_7", "neck.extra.P7.conv")),
            *_layers(*((f"retnet_cls_conv_n{n}_fpn3", f"head.class_subnet.layers.{n}.conv") for n in range(4))),
            *_layers(*((f"retnet_bbox_conv_n{n}_fpn3", f"head.box_subnet.layers.{n}.conv") for n in range(4))),
            *_layers(("retnet_cls_pred_fpn3", "head.scores"), ("retnet_bbox_pred_fpn3", "head.deltas")),
        ]
    ),
}
