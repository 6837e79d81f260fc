"""Configurations and state dicts of torchvision's two-stage detectors and RetinaNets, in both directions.

Faster R-CNN (``fasterrcnn_resnet50_fpn``, its ``_v2``, and ``fasterrcnn_mobilenet_v3_large_fpn``) differs from ours in
names and in three more ways. torchvision has background as class 0 and trains no box for it, it flattens a pooled
region with channels first, and it has conventions that the configurations state. Mask R-CNN (``maskrcnn_resnet50_fpn``
and ``_v2``) has a mask for background too. The sigmoid head of RetinaNet (``retinanet_resnet50_fpn`` and ``_v2``) has a
column for every category id, including 0 and the ids that COCO does not use.

``labels`` are the columns of their heads for our classes, in the order of our classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from boxwright.anchors.generator import AnchorConfig
from boxwright.backbones.mobilenet import MobileNetConfig
from boxwright.backbones.resnet import ResNetConfig
from boxwright.detectors.faster_rcnn import FasterRCNNConfig
from boxwright.detectors.mask_rcnn import MaskRCNNConfig
from boxwright.detectors.retinanet import RetinaNetAssignConfig, RetinaNetConfig, RetinaNetLossConfig
from boxwright.geometry.pooling.roi_pooling import RoIPoolingConfig
from boxwright.heads.dense import DenseHeadConfig
from boxwright.heads.postprocess import PostprocessConfig
from boxwright.heads.regions.box_head import BoxHeadConfig, RegionAssignConfig
from boxwright.heads.regions.configs import RegionLossConfig
from boxwright.heads.regions.mask_head import MaskHeadConfig
from boxwright.heads.regions.rpn import RPNAssignConfig, RPNConfig, RPNLossConfig
from boxwright.necks.fpn import FPNConfig
from boxwright.structures import InputError
from boxwright.weights.common.flattened_regions import FIRST_LAYER, channels_first, channels_last
from boxwright.weights.torchvision.names import RETINANET, in_names_of_today, two_stage_names

SILENT = -1000.0
"""Bias of a column without a class: its probability is 0 in any precision."""


def faster_rcnn_config(version: Literal[1, 2] = 1, freeze_at: int = 2, norm_eps: float = 1e-5) -> FasterRCNNConfig:
    """Return the configuration that reproduces torchvision's Faster R-CNN on ResNet.

    ``version``: 1 is ``fasterrcnn_resnet50_fpn`` with frozen norms, 2 is ``fasterrcnn_resnet50_fpn_v2`` with trained
    ones in backbone, pyramid and box head. ``norm_eps``: added to a variance by the norms of the backbone; 0 in the
    published weights of version 1, 1e-5 in all others.
    """
    head = BoxHeadConfig(
        pooling=RoIPoolingConfig(aligned=False),
        loss=RegionLossConfig(beta=1 / 9, normalizer="sampled"),
        assign=RegionAssignConfig(crowd_ignore=None),
    )
    config = FasterRCNNConfig(
        backbone=ResNetConfig(depth=50, norm="frozen_bn", norm_eps=norm_eps, freeze_at=freeze_at),
        rpn=RPNConfig(
            anchors=AnchorConfig(rounding="extent", steps="measured"),
            assign=RPNAssignConfig(crowd_ignore=None),
            loss=RPNLossConfig(normalizer="sampled"),
            post_nms=(2000, 1000),
        ),
        head=head,
    )
    if version == 1:
        return config
    return replace(
        config,
        backbone=ResNetConfig(depth=50, norm="bn", norm_eps=norm_eps, freeze_at=freeze_at),
        neck=FPNConfig(norm="bn"),
        rpn=replace(config.rpn, convs=2),
        head=replace(head, convs=4, norm="bn", hidden=(1024,)),
    )


def faster_rcnn_mobilenet_config(small: bool = False, freeze_at: int = 3) -> FasterRCNNConfig:
    """Return the configuration of ``fasterrcnn_mobilenet_v3_large_fpn``, or with ``small`` of its ``_320_fpn``.

    It has two levels of stride 32 and a pooled one. Regions are pooled from the first.
    """
    boxes = faster_rcnn_config()
    return replace(
        boxes,
        backbone=MobileNetConfig(
            version=3, norm="frozen_bn", norm_eps=1e-5, freeze_at=freeze_at, tap="first", out_levels=(5, 6)
        ),
        neck=FPNConfig(extra="pool"),
        rpn=replace(
            boxes.rpn,
            anchors=AnchorConfig(
                sizes=((32, 64, 128, 256, 512),) * 3, rounding="extent", steps="measured", order="ratio"
            ),
            pre_nms=(2000, 150) if small else (2000, 1000),
            post_nms=(2000, 150) if small else (2000, 1000),
            nms=replace(boxes.rpn.nms, score_threshold=0.05),
        ),
        pooled_levels=1,
    )


def mask_rcnn_config(version: Literal[1, 2] = 1, freeze_at: int = 2, norm_eps: float = 1e-5) -> MaskRCNNConfig:
    """Return the configuration of ``maskrcnn_resnet50_fpn`` or its ``_v2``, with frozen norms in the mask head."""
    boxes = faster_rcnn_config(version, freeze_at, norm_eps)
    return MaskRCNNConfig(
        backbone=boxes.backbone,
        neck=boxes.neck,
        rpn=boxes.rpn,
        head=boxes.head,
        mask=MaskHeadConfig(
            pooling=RoIPoolingConfig(size=14, aligned=False),
            norm="none" if version == 1 else "frozen_bn",
            target="soft",
        ),
    )


def retinanet_config(version: Literal[1, 2] = 1, freeze_at: int = 2, norm_eps: float = 1e-5) -> RetinaNetConfig:
    """Return the configuration that reproduces torchvision's RetinaNet.

    ``version``: 1 is ``retinanet_resnet50_fpn`` with frozen norms. 2 is ``retinanet_resnet50_fpn_v2`` with trained
    batch norms in the backbone, group norms in the head and GIoU as box loss. ``norm_eps``: see
    :func:`faster_rcnn_config`.
    """
    sizes = tuple((base, int(base * 2 ** (1 / 3)), int(base * 2 ** (2 / 3))) for base in (32, 64, 128, 256, 512))
    levels = (3, 4, 5)
    config = RetinaNetConfig(
        backbone=ResNetConfig(depth=50, norm="frozen_bn", norm_eps=norm_eps, freeze_at=freeze_at, out_levels=levels),
        neck=FPNConfig(extra="conv_p"),
        anchors=AnchorConfig(sizes=sizes, rounding="extent", order="ratio", steps="measured"),
        assign=RetinaNetAssignConfig(crowd_ignore=None),
        loss=RetinaNetLossConfig(beta=0.0, normalizer="image"),
        post=PostprocessConfig(candidates=1000, detections=300, min_size=0.0),
    )
    if version == 1:
        return config
    return replace(
        config,
        backbone=ResNetConfig(depth=50, norm="bn", norm_eps=norm_eps, freeze_at=freeze_at, out_levels=levels),
        neck=FPNConfig(extra="conv_c"),
        head=DenseHeadConfig(norm="gn"),
        loss=replace(config.loss, box="giou"),
    )


def faster_rcnn_state(state: Mapping[str, Tensor], labels: Sequence[int] | None = None) -> dict[str, Tensor]:
    """Convert the state dict of torchvision's Faster or Mask R-CNN, of any version and age.

    ``labels``: see the head of the module, from 1; None keeps all. Raises InputError naming keys of other models.
    """
    state = in_names_of_today(state)
    names = two_stage_names(on_mobilenet(state), box_convs(state), "roi_heads.mask_head.0.1.weight" in state)
    ours, unknown = names.import_all(state)
    if unknown:
        raise InputError(
            f"{len(unknown)} keys are not of torchvision's fasterrcnn_resnet50_fpn or maskrcnn_resnet50_fpn, the first "
            f"is {unknown[0]!r}; other models have importers of their own"
        )
    ours[FIRST_LAYER] = channels_last(ours[FIRST_LAYER], _pooled_channels(ours))
    kept = torch.tensor(range(1, len(ours["head.scores.bias"])) if labels is None else labels)
    for part in ("weight", "bias"):
        scores = ours[f"head.scores.{part}"]
        ours[f"head.scores.{part}"] = torch.cat([scores[kept], scores[:1]])
        ours[f"head.deltas.{part}"] = ours[f"head.deltas.{part}"].unflatten(0, (-1, 4))[kept].flatten(0, 1)
        if f"mask_head.predict.{part}" in ours:
            ours[f"mask_head.predict.{part}"] = ours[f"mask_head.predict.{part}"][kept]
    return ours


def exported_faster_rcnn(ours: Mapping[str, Tensor], labels: Sequence[int], columns: int) -> dict[str, Tensor]:
    """Convert back to a state dict for torchvision's model of ``columns`` classes: the inverse of
    :func:`faster_rcnn_state`.

    Columns that are not among ``labels`` get the bias :data:`SILENT`.
    """
    ours = dict(ours)
    if FIRST_LAYER not in ours or any(name.startswith("head.layers.1.0.") for name in ours):
        raise InputError("torchvision has no layers of truncated SVD (head.ranks); give the detector that was trained")
    ours[FIRST_LAYER] = channels_first(ours[FIRST_LAYER], _pooled_channels(ours))
    for part, silent in (("weight", 0.0), ("bias", SILENT)):
        scores = ours[f"head.scores.{part}"]
        ours[f"head.scores.{part}"] = spread(torch.cat([scores[-1:], scores[:-1]]), [0, *labels], columns, silent)
        boxes = ours[f"head.deltas.{part}"].unflatten(0, (-1, 4))
        ours[f"head.deltas.{part}"] = spread(boxes, labels, columns, 0.0).flatten(0, 1)
        if f"mask_head.predict.{part}" in ours:
            ours[f"mask_head.predict.{part}"] = spread(ours[f"mask_head.predict.{part}"], labels, columns, silent)
    mobile = any(name.startswith("backbone.features.") for name in ours)
    normed = "mask_head.convs.0.norm.weight" in ours
    convs = sum(name.startswith("head.convs.") and name.endswith(".0.weight") for name in ours)
    theirs, unknown = two_stage_names(mobile, convs, normed).export_all(ours)
    assert not unknown, unknown
    return theirs


def retinanet_state(state: Mapping[str, Tensor], labels: Sequence[int] | None = None) -> dict[str, Tensor]:
    """Convert the state dict of torchvision's RetinaNet, of either version.

    ``labels``: the category ids to keep, in the order of our classes, such as COCO's 80; None keeps every column.
    Raises InputError naming keys of other models.
    """
    ours, unknown = RETINANET.import_all(in_names_of_today(state))
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


def exported_retinanet(ours: Mapping[str, Tensor], labels: Sequence[int], columns: int) -> dict[str, Tensor]:
    """Convert back for torchvision, like :func:`exported_faster_rcnn`: the inverse of :func:`retinanet_state`."""
    ours = dict(ours)
    cell = ours["head.deltas.bias"].shape[0] // 4
    for part, silent in (("weight", 0.0), ("bias", SILENT)):
        scores = ours[f"head.scores.{part}"].unflatten(0, (cell, -1)).transpose(0, 1)  # [K, a, ...]
        ours[f"head.scores.{part}"] = spread(scores, labels, columns, silent).transpose(0, 1).flatten(0, 1)
    theirs, unknown = RETINANET.export_all(ours)
    assert not unknown, unknown
    return theirs


def spread(rows: Tensor, labels: Sequence[int], columns: int, fill: float) -> Tensor:
    """Place ``rows`` ``[K, ...]`` at ``labels`` of a tensor ``[columns, ...]`` with ``fill`` elsewhere."""
    out = rows.new_full((columns, *rows.shape[1:]), fill)
    out[torch.tensor(list(labels))] = rows
    return out


def on_mobilenet(state: Mapping[str, Tensor]) -> bool:
    """Return True if the backbone of a state dict, in current names, is a MobileNet."""
    return "backbone.body.0.0.weight" in state


def box_convs(state: Mapping[str, Tensor]) -> int:
    """Return the number of convolutions of the box head of a state dict, in current names."""
    return sum(key.startswith("roi_heads.box_head.") and value.dim() == 4 for key, value in state.items())


def _pooled_channels(ours: Mapping[str, Tensor]) -> int:
    """Return the channels of the maps that the first linear layer of the box head reads."""
    last = [value for name, value in ours.items() if name.startswith("head.convs.") and value.dim() == 4]
    if last:
        return last[-1].shape[0]
    return next(v for name, v in ours.items() if name.startswith("neck.output.") and v.dim() == 4).shape[0]
