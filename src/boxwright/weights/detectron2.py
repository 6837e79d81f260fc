"""detectron2's Faster R-CNN, on ResNet with FPN and on ResNet C4, and its Mask R-CNN with FPN, in our layout.

Its models keep background last and have no box for it, as ours; names differ, and a pooled region is flattened with
channels first. Published files are pickles of numpy arrays: give their ``model`` entry as tensors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from torch import Tensor

from boxwright.anchors.generator import AnchorConfig
from boxwright.backbones.resnet import ResNetConfig
from boxwright.detectors.detector import PixelConfig
from boxwright.detectors.faster_rcnn import FasterRCNNConfig
from boxwright.detectors.faster_rcnn_c4 import FasterRCNNC4Config, StageHeadConfig
from boxwright.detectors.mask_rcnn import MaskRCNNConfig
from boxwright.geometry.paste import PasteConfig
from boxwright.geometry.roi_pooling import RoIPoolingConfig
from boxwright.heads.box_head import BoxHeadConfig
from boxwright.heads.mask_head import MaskHeadConfig
from boxwright.heads.postprocess import PostprocessConfig
from boxwright.heads.rpn import RPNConfig
from boxwright.structures import InputError

PIXELS = PixelConfig(std=(1.0, 1.0, 1.0), bgr=True)
"""How its ResNets of MSRA's weights want their pixels."""

_NAMES: tuple[tuple[str, str], ...] = (
    (r"proposal_generator\.rpn_head\.conv\.(.+)", r"rpn.convs.0.\1"),
    (r"proposal_generator\.rpn_head\.objectness_logits\.(.+)", r"rpn.objectness.\1"),
    (r"proposal_generator\.rpn_head\.anchor_deltas\.(.+)", r"rpn.deltas.\1"),
    (r"backbone\.fpn_lateral(\d)\.(.+)", r"neck.lateral.P\1.conv.\2"),
    (r"backbone\.fpn_output(\d)\.(.+)", r"neck.output.P\1.conv.\2"),
    (r"roi_heads\.box_predictor\.cls_score\.(.+)", r"head.scores.\1"),
    (r"roi_heads\.box_predictor\.bbox_pred\.(.+)", r"head.deltas.\1"),
    (r"roi_heads\.box_head\.fc1\.(.+)", r"head.layers.0.\1"),
    (r"roi_heads\.box_head\.fc2\.(.+)", r"head.layers.1.\1"),
)
_MASK_NAMES = {"deconv": "deconv", "predictor": "predict", **{f"mask_fcn{n + 1}": f"convs.{n}" for n in range(8)}}
_UNUSED = ("pixel_mean", "pixel_std", "proposal_generator.anchor_generator.")


def faster_rcnn_config(depth: Literal[50, 101] = 50, freeze_at: int = 2) -> FasterRCNNConfig:
    """The configuration under which its ``faster_rcnn_R_*_FPN`` weights compute what they compute there."""
    return FasterRCNNConfig(
        backbone=ResNetConfig(depth=depth, stride_in_1x1=True, norm="frozen_bn", freeze_at=freeze_at),
        rpn=RPNConfig(beta=0.0, crowd_ignore=None, min_size=0.0),
        head=BoxHeadConfig(pooling=RoIPoolingConfig(sampling_ratio=0, level_epsilon=1e-8), beta=0.0, crowd_ignore=None),
        pixels=PIXELS,
    )


def faster_rcnn_c4_config(depth: Literal[50, 101] = 50, freeze_at: int = 2) -> FasterRCNNC4Config:
    """The configuration under which its ``faster_rcnn_R_*_C4`` weights compute what they compute there."""
    return FasterRCNNC4Config(
        backbone=ResNetConfig(depth=depth, stride_in_1x1=True, norm="frozen_bn", freeze_at=freeze_at, out_levels=(4,)),
        rpn=RPNConfig(
            anchors=AnchorConfig(sizes=((32, 64, 128, 256, 512),)),
            beta=0.0,
            crowd_ignore=None,
            pre_nms=(12_000, 6_000),
            post_nms=(2_000, 1_000),
            min_size=0.0,
        ),
        head=StageHeadConfig(
            pooling=RoIPoolingConfig(size=14, sampling_ratio=0),
            samples=512,
            beta=0.0,
            crowd_ignore=None,
            post=PostprocessConfig(nms_iou=0.5),
        ),
        pixels=PIXELS,
    )


def mask_rcnn_config(depth: Literal[50, 101] = 50, freeze_at: int = 2) -> MaskRCNNConfig:
    """The configuration under which its ``mask_rcnn_R_*_FPN`` weights compute what they compute there."""
    boxes = faster_rcnn_config(depth, freeze_at)
    return MaskRCNNConfig(
        backbone=boxes.backbone,
        rpn=boxes.rpn,
        head=boxes.head,
        mask=MaskHeadConfig(pooling=replace(boxes.head.pooling, size=14), paste=PasteConfig(method="centres")),
        pixels=boxes.pixels,
    )


def mask_rcnn_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict from that of its Mask R-CNN with FPN. Raises InputError naming the keys that are not of it."""
    masks: dict[str, Tensor] = {}
    boxes: dict[str, Tensor] = {}
    for key, value in state.items():
        match = re.fullmatch(r"roi_heads\.mask_head\.(\w+)\.(weight|bias)", key)
        if match and match[1] in _MASK_NAMES:
            masks[f"mask_head.{_MASK_NAMES[match[1]]}.{match[2]}"] = value
        else:
            boxes[key] = value
    return faster_rcnn_state(boxes) | masks


def faster_rcnn_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict from that of either model. Raises InputError naming the keys that are not of them."""
    ours: dict[str, Tensor] = {}
    unknown = []
    for key, value in state.items():
        if key.startswith(_UNUSED):
            continue
        name = _name(key)
        if name is None:
            unknown.append(key)
        else:
            ours[name] = value
    if unknown:
        raise InputError(
            f"{len(unknown)} keys are not of detectron2's Faster R-CNN, the first is {unknown[0]!r}; "
            "other models have importers of their own"
        )
    if "head.layers.0.weight" in ours:
        first = ours["head.layers.0.weight"]
        channels = ours["neck.output.P2.conv.weight"].shape[0]
        side = round((first.shape[1] / channels) ** 0.5)
        ours["head.layers.0.weight"] = first.reshape(-1, channels, side, side).permute(0, 2, 3, 1).flatten(1)
    return ours


def _name(key: str) -> str | None:
    """Our name of a tensor; None for what is not of these models."""
    for pattern, name in _NAMES:
        if re.fullmatch(pattern, key):
            return re.sub(pattern, name, key)
    if match := re.fullmatch(r"backbone\.(?:bottom_up\.)?stem\.conv1\.(norm\.)?(\w+)", key):
        return f"backbone.{'bn1' if match[1] else 'conv1'}.{match[2]}"
    if match := re.fullmatch(r"(backbone|roi_heads)\.(?:bottom_up\.)?res(\d)\.(\d+)\.(\w+)\.(norm\.)?(\w+)", key):
        root, stage, block, layer, norm, part = match.groups()
        where = "backbone" if root == "backbone" else "head.stages"
        if layer == "shortcut":
            layer = f"downsample.{1 if norm else 0}"
        elif norm:
            layer = layer.replace("conv", "bn")
        return f"{where}.layer{int(stage) - 1}.{block}.{layer}.{part}"
    return None
