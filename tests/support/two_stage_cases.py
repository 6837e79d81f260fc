"""Two-stage detectors, small enough to test."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from boxwright.anchors.generator import AnchorConfig
from boxwright.backbones.detnet import DetNetConfig
from boxwright.backbones.resnet import ResNetConfig
from boxwright.backbones.vgg import VGGConfig
from boxwright.backbones.zf import ZFConfig
from boxwright.detectors.fast_rcnn import FastRCNNConfig
from boxwright.detectors.faster_rcnn import FasterRCNNConfig
from boxwright.detectors.faster_rcnn_c4 import FasterRCNNC4Config
from boxwright.detectors.mask_rcnn import MaskRCNNConfig
from boxwright.detectors.rcnn import RCNNConfig, WindowConfig
from boxwright.detectors.rfcn import RFCNConfig, RFCNHeadConfig
from boxwright.geometry.pooling.position_sensitive import PositionSensitiveConfig
from boxwright.geometry.pooling.region_warp import RegionWarpConfig
from boxwright.geometry.pooling.roi_pooling import RoIPoolingConfig
from boxwright.heads.regions.box_head import BoxHeadConfig, RegionAssignConfig
from boxwright.heads.regions.configs import RegionLossConfig
from boxwright.heads.regions.crop_layers import LayersConfig, MeanConfig
from boxwright.heads.regions.mask_head import MaskHead, MaskHeadConfig
from boxwright.heads.regions.region_heads import LayersHeadConfig, StageHeadConfig
from boxwright.heads.regions.rpn import ProposalNMSConfig, RPNAssignConfig, RPNConfig
from boxwright.necks.fpn import FPNConfig
from tests.support.options import with_options

RPN = RPNConfig(
    anchors=AnchorConfig(sizes=((24, 48, 96),), centre="cell"),
    channels=16,
    assign=RPNAssignConfig(straddle=0.0),
    pre_nms=(100, 50),
    post_nms=(20, 20),
    samples=64,
    nms_iou=0.2,
    nms=ProposalNMSConfig(filter_first=True, min_size=4.0),
)
RESNET = ResNetConfig(depth=50, blocks=(1, 1, 1, 1), width=8, out_levels=(4,))
DETNET = DetNetConfig(depths=(1, 1, 1, 1, 1), width=8, out_levels=(4,))

SMALL_C4 = {
    "faster_rcnn_vgg": FasterRCNNC4Config(
        backbone=VGGConfig(depth=11, width=8, norm="bn", out_levels=(5,)),
        rpn=RPN,
        head=LayersHeadConfig(hidden=(32, 32), samples=32, pooling=RoIPoolingConfig(method="pool", size=4)),
    ),
    "faster_rcnn_zf": FasterRCNNC4Config(
        backbone=ZFConfig(width=0.25, norm="bn"),
        rpn=RPN,
        head=LayersHeadConfig(hidden=(32,), samples=32, pooling=RoIPoolingConfig(method="crop", size=3)),
    ),
    "faster_rcnn_c4": FasterRCNNC4Config(
        backbone=RESNET, rpn=RPN, head=StageHeadConfig(samples=32, pooling=RoIPoolingConfig(size=6))
    ),
    "faster_rcnn_c4_detnet": FasterRCNNC4Config(
        backbone=DETNET, rpn=RPN, head=StageHeadConfig(samples=32, pooling=RoIPoolingConfig(size=4))
    ),
}

SMALL_FAST = {
    "fast_rcnn": FastRCNNConfig(
        backbone=VGGConfig(depth=11, width=8, norm="bn", out_levels=(5,)),
        head=LayersHeadConfig(
            hidden=(32, 32),
            samples=16,
            assign=RegionAssignConfig(negative_floor=0.1),
            loss=RegionLossConfig(normalizer="sampled"),
            pooling=RoIPoolingConfig(method="pool", size=4),
        ),
        targets="measured",
    ),
    "fast_rcnn_detnet": FastRCNNConfig(
        backbone=DETNET, head=StageHeadConfig(samples=16, pooling=RoIPoolingConfig(size=4))
    ),
}

SMALL_RCNN = {
    "rcnn": RCNNConfig(
        backbone=VGGConfig(depth=11, width=8, norm="bn", out_levels=(5,)),
        warp=RegionWarpConfig(size=32, context=2),
        layers=LayersConfig(hidden=(32, 24), dropout=0.0),
        windows=WindowConfig(count=16),
        chunk=10,
    ),
    "rcnn_detnet": RCNNConfig(
        backbone=DetNetConfig(depths=(1, 1, 1, 1, 1), width=8, out_levels=(6,)),
        warp=RegionWarpConfig(size=32, context=2, samples=2),
        layers=MeanConfig(cells=2),
        score="softmax",
        regress=False,
    ),
}


def example_proposals(batch: int, height: int, width: int, count: int = 24) -> Tensor:
    """Return ``[batch, count, 4]`` boxes spread over the image, the last three of them padding."""
    generator = torch.Generator().manual_seed(1)
    corners = torch.rand((batch, count, 2, 2), generator=generator).sort(dim=2).values.flatten(2)
    boxes = corners * torch.tensor([width, height, width, height])
    boxes[:, -3:] = 0
    return boxes


BINS = PositionSensitiveConfig(size=3)
SMALL_RFCN = {
    "rfcn": RFCNConfig(
        backbone=ResNetConfig(depth=50, blocks=(1, 1, 1, 1), width=8, output_stride=16, out_levels=(4, 5)),
        rpn=RPN,
        head=RFCNHeadConfig(channels=32, samples=12, pooling=BINS),
    ),
    "rfcn_detnet": RFCNConfig(
        backbone=DetNetConfig(depths=(1, 1, 1, 1, 1), width=8, out_levels=(4, 6)),
        rpn=RPN,
        head=RFCNHeadConfig(
            channels=None,
            ohem=False,
            class_agnostic=False,
            samples=12,
            pooling=PositionSensitiveConfig(size=3, method="align"),
        ),
    ),
}


def small_faster_rcnn(rpn: Mapping[str, Any] | None = None) -> FasterRCNNConfig:
    """Faster R-CNN with a pyramid on DetNet; ``rpn`` changes the RPN's options by their paths."""
    base = RPNConfig(
        anchors=AnchorConfig(sizes=((16,), (32,), (48,), (64,), (96,))),
        pre_nms=(100, 50),
        post_nms=(20, 20),
        samples=64,
        nms_iou=0.2,
    )
    return FasterRCNNConfig(
        backbone=DetNetConfig(depths=(1, 1, 1, 1, 1), width=8),
        neck=FPNConfig(channels=16),
        rpn=with_options(base, rpn or {}),
        head=BoxHeadConfig(hidden=(32, 32), samples=32),
    )


SMALL_FASTER = small_faster_rcnn()


SMALL_MASK_RCNN = MaskRCNNConfig(
    backbone=SMALL_FASTER.backbone,
    neck=SMALL_FASTER.neck,
    rpn=SMALL_FASTER.rpn,
    head=SMALL_FASTER.head,
    mask=MaskHeadConfig(pooling=RoIPoolingConfig(size=6), convs=2, channels=8),
)


def plain_logits(module: MaskHead, pooled: Tensor) -> Tensor:
    """Compute all masks by torch's own layers: ``[N, K, m, m]``."""
    x = pooled.flatten(0, 1).permute(0, 3, 1, 2)
    for conv in module.convs:
        x = F.relu(conv(x))
    return module.predict(F.relu(module.deconv(x)))
