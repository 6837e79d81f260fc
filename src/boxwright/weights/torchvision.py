"""torchvision's Faster R-CNN with ResNet-50 and FPN (``fasterrcnn_resnet50_fpn``) in our layout.

Besides names, three things differ: torchvision keeps background as class 0 and trains no box for it, flattens a pooled
region with channels first, and has conventions that :func:`faster_rcnn_config` states.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from boxwright.anchors.generator import AnchorConfig
from boxwright.backbones.resnet import ResNetConfig
from boxwright.detectors.faster_rcnn import FasterRCNNConfig
from boxwright.geometry.roi_pooling import RoIPoolingConfig
from boxwright.heads.box_head import BoxHeadConfig
from boxwright.heads.rpn import RPNConfig
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
            f"{len(unknown)} keys are not of torchvision's fasterrcnn_resnet50_fpn, the first is {unknown[0]!r}; "
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
