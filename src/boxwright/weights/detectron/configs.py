"""Configurations that reproduce the models of detectron2's model zoo."""

from __future__ import annotations

from dataclasses import replace

from boxwright.anchors.generator import AnchorConfig
from boxwright.backbones.resnet import ResNetConfig
from boxwright.detectors.contract.pixels import IMAGENET_255_BGR
from boxwright.detectors.faster_rcnn import FasterRCNNConfig
from boxwright.detectors.faster_rcnn_c4 import FasterRCNNC4Config
from boxwright.detectors.mask_rcnn import MaskRCNNConfig
from boxwright.detectors.retinanet import RetinaNetAssignConfig, RetinaNetConfig, RetinaNetLossConfig
from boxwright.geometry.paste import PasteConfig
from boxwright.geometry.pooling.roi_pooling import RoIPoolingConfig
from boxwright.heads.postprocess import PostprocessConfig
from boxwright.heads.regions.box_head import BoxHeadConfig, RegionAssignConfig
from boxwright.heads.regions.configs import RegionLossConfig
from boxwright.heads.regions.mask_head import MaskHeadConfig
from boxwright.heads.regions.region_heads import LayersHeadConfig, StageHeadConfig
from boxwright.heads.regions.rpn import ProposalNMSConfig, RPNAssignConfig, RPNConfig, RPNLossConfig
from boxwright.weights.common.state_checks import Depth

_POOLING = RoIPoolingConfig(sampling_ratio=0, level_epsilon=1e-8)
_NOT_EMPTY = 1e-6
"""detectron2 drops only boxes whose sides are not above 0. Clipping leaves many of them at the border."""


def faster_rcnn_config(depth: Depth = 50, freeze_at: int = 2) -> FasterRCNNConfig:
    """Return the configuration that reproduces ``faster_rcnn_R_*_FPN``."""
    return FasterRCNNConfig(
        backbone=ResNetConfig(depth=depth, stride_in_1x1=True, norm="frozen_bn", freeze_at=freeze_at),
        rpn=RPNConfig(
            loss=RPNLossConfig(beta=0.0),
            assign=RPNAssignConfig(crowd_ignore=None),
            nms=ProposalNMSConfig(min_size=_NOT_EMPTY),
        ),
        head=BoxHeadConfig(
            pooling=_POOLING, loss=RegionLossConfig(beta=0.0), assign=RegionAssignConfig(crowd_ignore=None)
        ),
        pixels=IMAGENET_255_BGR,
    )


def _rpn_of_one_map() -> RPNConfig:
    return RPNConfig(
        anchors=AnchorConfig(sizes=((32, 64, 128, 256, 512),)),
        loss=RPNLossConfig(beta=0.0),
        assign=RPNAssignConfig(crowd_ignore=None),
        pre_nms=(12_000, 6_000),
        post_nms=(2_000, 1_000),
        nms=ProposalNMSConfig(min_size=_NOT_EMPTY),
    )


def faster_rcnn_c4_config(depth: Depth = 50, freeze_at: int = 2) -> FasterRCNNC4Config:
    """Return the configuration that reproduces ``faster_rcnn_R_*_C4``."""
    return FasterRCNNC4Config(
        backbone=ResNetConfig(depth=depth, stride_in_1x1=True, norm="frozen_bn", freeze_at=freeze_at, out_levels=(4,)),
        rpn=_rpn_of_one_map(),
        head=StageHeadConfig(
            pooling=RoIPoolingConfig(size=14, sampling_ratio=0),
            samples=512,
            loss=RegionLossConfig(beta=0.0),
            assign=RegionAssignConfig(crowd_ignore=None),
            post=PostprocessConfig(nms_iou=0.5),
        ),
        pixels=IMAGENET_255_BGR,
    )


def faster_rcnn_dc5_config(depth: Depth = 50, freeze_at: int = 2) -> FasterRCNNC4Config:
    """Return the configuration that reproduces ``faster_rcnn_R_*_DC5``.

    Stage 5 is dilated and keeps stride 16. The RPN and a head with two fully connected layers read its map.
    """
    return FasterRCNNC4Config(
        backbone=ResNetConfig(
            depth=depth,
            stride_in_1x1=True,
            norm="frozen_bn",
            freeze_at=freeze_at,
            output_stride=16,
            out_levels=(5,),
        ),
        rpn=_rpn_of_one_map(),
        head=LayersHeadConfig(
            pooling=_POOLING,
            hidden=(1024, 1024),
            dropout=0.0,
            samples=512,
            loss=RegionLossConfig(beta=0.0),
            assign=RegionAssignConfig(crowd_ignore=None),
            post=PostprocessConfig(nms_iou=0.5),
        ),
        pixels=IMAGENET_255_BGR,
    )


def mask_rcnn_config(depth: Depth = 50, freeze_at: int = 2) -> MaskRCNNConfig:
    """Return the configuration that reproduces ``mask_rcnn_R_*_FPN``."""
    boxes = faster_rcnn_config(depth, freeze_at)
    return MaskRCNNConfig(
        backbone=boxes.backbone,
        rpn=boxes.rpn,
        head=boxes.head,
        mask=MaskHeadConfig(pooling=replace(boxes.head.pooling, size=14), paste=PasteConfig(method="centres")),
        pixels=boxes.pixels,
    )


def retinanet_config(depth: Depth = 50, freeze_at: int = 2) -> RetinaNetConfig:
    """Return the configuration that reproduces ``retinanet_R_*_FPN``.

    NMS runs on unclipped boxes, and only its result is clipped to the image.
    """
    return RetinaNetConfig(
        backbone=ResNetConfig(
            depth=depth, stride_in_1x1=True, norm="frozen_bn", freeze_at=freeze_at, out_levels=(3, 4, 5)
        ),
        assign=RetinaNetAssignConfig(crowd_ignore=None),
        loss=RetinaNetLossConfig(beta=0.0, normalizer="average"),
        post=PostprocessConfig(candidates=1000, min_size=0.0, clip=False),
        pixels=IMAGENET_255_BGR,
    )
