"""torchvision's detectors in our layout: Faster R-CNN, Mask R-CNN and both RetinaNets with ResNet-50 and FPN.

Faster R-CNN (``fasterrcnn_resnet50_fpn``): besides names, three things differ. torchvision keeps background as class 0
and trains no box for it, flattens a pooled region with channels first, and has conventions that
:func:`faster_rcnn_config` states.

Mask R-CNN (``maskrcnn_resnet50_fpn``): Faster R-CNN's rules; its mask head has a map for background too, which is
dropped.

RetinaNet (``retinanet_resnet50_fpn`` and ``retinanet_resnet50_fpn_v2``): its sigmoid head has a column for every
category id, also for 0 and for the ids that COCO never gave; :func:`retinanet_state` takes all or those that are asked
for. The conventions are in :func:`retinanet_config`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from boxwright.anchors.generator import AnchorConfig
from boxwright.backbones.resnet import ResNetConfig
from boxwright.detectors.faster_rcnn import FasterRCNNConfig
from boxwright.detectors.mask_rcnn import MaskRCNNConfig
from boxwright.detectors.retinanet import RetinaNetConfig
from boxwright.geometry.roi_pooling import RoIPoolingConfig
from boxwright.heads.box_head import BoxHeadConfig
from boxwright.heads.dense import DenseHeadConfig
from boxwright.heads.mask_head import MaskHeadConfig
from boxwright.heads.postprocess import PostprocessConfig
from boxwright.heads.rpn import RPNConfig
from boxwright.necks.fpn import FPNConfig
from boxwright.structures import InputError

_NAMES: tuple[tuple[str, str], ...] = (
    (r"backbone\.body\.(.+)", r"backbone.\1"),
    (r"rpn\.head\.conv\.(?:0\.0\.)?(weight|bias)", r"rpn.convs.0.\1"),
    (r"rpn\.head\.cls_logits\.(.+)", r"rpn.objectness.\1"),
    (r"rpn\.head\.bbox_pred\.(.+)", r"rpn.deltas.\1"),
    (r"roi_heads\.box_head\.fc6\.(.+)", r"head.layers.0.\1"),
    (r"roi_heads\.box_head\.fc7\.(.+)", r"head.layers.1.\1"),
    (r"roi_heads\.box_predictor\.cls_score\.(.+)", r"head.scores.\1"),
    (r"roi_heads\.box_predictor\.bbox_pred\.(.+)", r"head.deltas.\1"),
)


def faster_rcnn_config(freeze_at: int = 2) -> FasterRCNNConfig:
    """The configuration under which torchvision's weights compute what they compute there."""
    return FasterRCNNConfig(
        backbone=ResNetConfig(depth=50, norm="frozen_bn", freeze_at=freeze_at),
        rpn=RPNConfig(
            anchors=AnchorConfig(rounding="extent"),
            crowd_ignore=None,
            normalizer="sampled",
            post_nms=(2000, 1000),
        ),
        head=BoxHeadConfig(
            pooling=RoIPoolingConfig(aligned=False), beta=1 / 9, crowd_ignore=None, normalizer="sampled"
        ),
    )


def faster_rcnn_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict from torchvision's. Raises InputError naming the keys that are not of that model."""
    ours: dict[str, Tensor] = {}
    unknown = []
    for key, value in state.items():
        if pyramid := re.fullmatch(r"backbone\.fpn\.(inner|layer)_blocks\.(\d)\.(?:0\.)?(weight|bias)", key):
            block, level, part = pyramid.groups()
            ours[f"neck.{'lateral' if block == 'inner' else 'output'}.P{int(level) + 2}.conv.{part}"] = value
            continue
        for pattern, name in _NAMES:
            if re.fullmatch(pattern, key):
                ours[re.sub(pattern, name, key)] = value
                break
        else:
            unknown.append(key)
    if unknown:
        raise InputError(
            f"{len(unknown)} keys are not of torchvision's fasterrcnn_resnet50_fpn or maskrcnn_resnet50_fpn, the first "
            f"is {unknown[0]!r}; "
            "other models have importers of their own"
        )
    first = ours["head.layers.0.weight"]
    channels = ours["neck.output.P2.conv.weight"].shape[0]
    side = round((first.shape[1] / channels) ** 0.5)
    ours["head.layers.0.weight"] = first.reshape(-1, channels, side, side).permute(0, 2, 3, 1).flatten(1)
    for part in ("weight", "bias"):
        scores = ours[f"head.scores.{part}"]
        ours[f"head.scores.{part}"] = torch.cat([scores[1:], scores[:1]])
        ours[f"head.deltas.{part}"] = ours[f"head.deltas.{part}"][4:]
    return ours


def mask_rcnn_config(freeze_at: int = 2) -> MaskRCNNConfig:
    """The configuration under which the weights of torchvision's Mask R-CNN compute what they compute there."""
    boxes = faster_rcnn_config(freeze_at)
    return MaskRCNNConfig(
        backbone=boxes.backbone,
        rpn=boxes.rpn,
        head=boxes.head,
        mask=MaskHeadConfig(pooling=RoIPoolingConfig(size=14, aligned=False), target="soft"),
    )


def mask_rcnn_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict from that of torchvision's Mask R-CNN, of any age. InputError naming the keys that are not."""
    masks: dict[str, Tensor] = {}
    boxes: dict[str, Tensor] = {}
    for key, value in state.items():
        if match := re.fullmatch(r"roi_heads\.mask_head\.(?:mask_fcn(\d)|(\d)\.0)\.(weight|bias)", key):
            number = int(match[1]) - 1 if match[1] else int(match[2])  # files from before 2022 count from 1
            masks[f"mask_head.convs.{number}.{match[3]}"] = value
        elif match := re.fullmatch(r"roi_heads\.mask_predictor\.conv5_mask\.(weight|bias)", key):
            masks[f"mask_head.deconv.{match[1]}"] = value
        elif match := re.fullmatch(r"roi_heads\.mask_predictor\.mask_fcn_logits\.(weight|bias)", key):
            masks[f"mask_head.predict.{match[1]}"] = value[1:]  # without the map of background
        else:
            boxes[key] = value
    return faster_rcnn_state(boxes) | masks


def retinanet_config(version: Literal[1, 2] = 1, freeze_at: int = 2) -> RetinaNetConfig:
    """The configuration under which the weights of torchvision's RetinaNet compute what they compute there.

    ``version``: 1 is ``retinanet_resnet50_fpn`` with frozen norms, 2 is ``retinanet_resnet50_fpn_v2``, whose backbone
    has live batch norms, whose head has group norms and whose boxes learn by GIoU.
    """
    sizes = tuple((base, int(base * 2 ** (1 / 3)), int(base * 2 ** (2 / 3))) for base in (32, 64, 128, 256, 512))
    config = RetinaNetConfig(
        backbone=ResNetConfig(depth=50, norm="frozen_bn", freeze_at=freeze_at, out_levels=(3, 4, 5)),
        neck=FPNConfig(extra="conv_p"),
        anchors=AnchorConfig(sizes=sizes, rounding="extent", order="ratio"),
        crowd_ignore=None,
        beta=0.0,
        normalizer="image",
        post=PostprocessConfig(candidates=1000, detections=300, min_size=0.0),
    )
    if version == 1:
        return config
    return replace(
        config,
        backbone=ResNetConfig(depth=50, norm="bn", freeze_at=freeze_at, out_levels=(3, 4, 5)),
        neck=FPNConfig(extra="conv_c"),
        head=DenseHeadConfig(norm="gn"),
        box_loss="giou",
    )


def retinanet_state(
    state: Mapping[str, Tensor], labels: Sequence[int] | None = None, norm_eps: float = 1e-5
) -> dict[str, Tensor]:
    """Our state dict from that of torchvision's RetinaNet, either version.

    ``labels``: the category ids to keep, in the order of our classes, such as COCO's 80; None keeps every column.
    ``norm_eps``: what the frozen norms add to a variance there: 0 for the published weights of version 1. Raises
    InputError naming the keys that are not of that model.
    """
    ours: dict[str, Tensor] = {}
    unknown = []
    for key, value in state.items():
        name = _retinanet_name(key)
        if name is None:
            unknown.append(key)
        elif key.endswith("running_var"):
            ours[name] = value - (1e-5 - norm_eps)
        else:
            ours[name] = value
    if unknown:
        raise InputError(
            f"{len(unknown)} keys are not of torchvision's retinanet_resnet50_fpn, the first is {unknown[0]!r}; "
            "other models have importers of their own"
        )
    if labels is not None:
        cell = ours["head.deltas.bias"].shape[0] // 4
        for part in ("weight", "bias"):
            columns = ours[f"head.scores.{part}"].unflatten(0, (cell, -1))
            if labels and not 0 <= min(labels) <= max(labels) < columns.shape[1]:
                raise InputError(
                    f"labels {min(labels)}..{max(labels)} do not all lie in 0..{columns.shape[1] - 1}, "
                    "the columns of the checkpoint"
                )
            ours[f"head.scores.{part}"] = columns[:, list(labels)].flatten(0, 1)
    return ours


def _retinanet_name(key: str) -> str | None:
    """Our name of a tensor; None for what is not of that model."""
    if match := re.fullmatch(r"backbone\.body\.(.+)", key):
        return f"backbone.{match[1]}"
    if match := re.fullmatch(r"backbone\.fpn\.(inner|layer)_blocks\.(\d)\.(?:0\.)?(weight|bias)", key):
        return f"neck.{'lateral' if match[1] == 'inner' else 'output'}.P{int(match[2]) + 3}.conv.{match[3]}"
    if match := re.fullmatch(r"backbone\.fpn\.extra_blocks\.p([67])\.(weight|bias)", key):
        return f"neck.extra.P{match[1]}.conv.{match[2]}"
    if match := re.fullmatch(r"head\.(?:classification_head\.cls_logits|regression_head\.bbox_reg)\.(.+)", key):
        return f"head.{'scores' if 'cls' in key else 'deltas'}.{match[1]}"
    subnet = "class_subnet" if "classification" in key else "box_subnet"
    if match := re.fullmatch(r"head\.\w+_head\.conv\.(\d)\.([01])\.(weight|bias)", key):
        return f"head.{subnet}.layers.{match[1]}.{('conv', 'norm')[int(match[2])]}.{match[3]}"
    if match := re.fullmatch(r"head\.\w+_head\.conv\.(\d)\.(weight|bias)", key):  # files from before 2022
        return f"head.{subnet}.layers.{int(match[1]) // 2}.conv.{match[2]}"
    return None
