"""Build backbones from their configurations, and list the named ones."""

from __future__ import annotations

from typing import TypeAlias

from boxwright.backbones.darknet import Darknet, DarknetConfig
from boxwright.backbones.darknet_layers import DarknetLayers, DarknetLayersConfig
from boxwright.backbones.detnet import DetNetConfig, build_detnet
from boxwright.backbones.efficientnet_lite import EfficientNetLite, EfficientNetLiteConfig
from boxwright.backbones.layers.blocks import ResidualBackbone
from boxwright.backbones.mobilenet import MobileNet, MobileNetConfig
from boxwright.backbones.resnet import ResNetConfig, build_resnet
from boxwright.backbones.timm import TimmBackbone, TimmConfig
from boxwright.backbones.vgg import VGG, VGGConfig
from boxwright.backbones.zf import ZF, ZFConfig
from boxwright.fields import nearest
from boxwright.structures import InputError

BackboneConfig: TypeAlias = (
    ResNetConfig
    | DetNetConfig
    | VGGConfig
    | ZFConfig
    | DarknetConfig
    | DarknetLayersConfig
    | MobileNetConfig
    | EfficientNetLiteConfig
    | TimmConfig
)
Backbone: TypeAlias = (
    ResidualBackbone | VGG | ZF | Darknet | DarknetLayers | MobileNet | EfficientNetLite | TimmBackbone
)

# A name without a suffix is the usual variant: v1.5 strides for ResNet (torchvision), v1 strides for DetNet (paper).
NAMED_BACKBONES: dict[str, BackboneConfig] = {
    "resnet18": ResNetConfig(depth=18),
    "resnet34": ResNetConfig(depth=34),
    "resnet50": ResNetConfig(depth=50),
    "resnet50-v1": ResNetConfig(depth=50, stride_in_1x1=True),
    "resnet50-dilated": ResNetConfig(depth=50, stride_in_1x1=True, output_stride=16),
    "resnet101": ResNetConfig(depth=101),
    "resnet101-v1": ResNetConfig(depth=101, stride_in_1x1=True),
    "resnet152": ResNetConfig(depth=152),
    "detnet59": DetNetConfig(),
    "detnet59-v1.5": DetNetConfig(stride_in_1x1=False),
    "detnet59-noproj": DetNetConfig(projections=(True, False)),
    "detnet59-nodilation": DetNetConfig(dilation=1),
    "vgg11": VGGConfig(depth=11),
    "vgg16": VGGConfig(),
    "vgg16-bn": VGGConfig(norm="bn"),
    "vgg16-reduced": VGGConfig(fc="reduced", out_levels=(4, 6)),  # SSD's
    "vgg16-refinedet": VGGConfig(fc="reduced", pool5="2x2s2", fc6_dilation=3, out_levels=(4, 5, 6)),
    "vgg19": VGGConfig(depth=19),
    "zf": ZFConfig(),
    "darknet19": DarknetConfig(variant="darknet19"),
    "darknet53": DarknetConfig(),
    "darknet-tiny": DarknetConfig(variant="tiny_v3", out_levels=(4, 5)),
    "darknet-extraction": DarknetConfig(variant="extraction"),
    "darknet-yolov1": DarknetConfig(variant="yolov1", norm="none", out_levels=(6,)),
    "darknet-yolov1-fast": DarknetConfig(variant="yolov1_fast", norm="none", out_levels=(6,)),
    "mobilenet-v1": MobileNetConfig(version=1),
    "mobilenet-v2": MobileNetConfig(version=2),
    "mobilenet-v3": MobileNetConfig(version=3),
    "efficientnet-lite0": EfficientNetLiteConfig(),
    "efficientnet-lite1": EfficientNetLiteConfig(version=1),
    "efficientnet-lite2": EfficientNetLiteConfig(version=2),
    "efficientnet-lite0-detnet": EfficientNetLiteConfig(output_stride=16, detnet=True, out_levels=(2, 3, 4, 5, 6)),
    # Small enough to train on a CPU. The first two have equal costs, and the others are close to them.
    "detnet-small": DetNetConfig(depths=(1, 1, 2, 1, 1), width=16, stride_in_1x1=False),
    "resnet-small": ResNetConfig(depth=50, blocks=(1, 2, 3, 1), width=16),
    # Costs relative to detnet-small (20 layers): those of ResNet-50 and 101 (3.9, 7.6 G) relative to DetNet-59 (4.8 G).
    "resnet17-small": ResNetConfig(depth=50, blocks=(1, 1, 2, 1), width=16),
    "resnet44-small": ResNetConfig(depth=50, blocks=(1, 1, 11, 1), width=16),
    "detnet-small-noproj": DetNetConfig(
        depths=(1, 1, 2, 1, 1), width=16, stride_in_1x1=False, projections=(True, False)
    ),
    "vgg-small": VGGConfig(width=8, norm="bn"),
    "darknet-small": DarknetConfig(variant="darknet19", width=0.25),
    "mobilenet-small": MobileNetConfig(version=1, width=0.5),
}


def build_backbone(config: BackboneConfig) -> Backbone:
    """Build the backbone of ``config`` with initial weights.

    Its ``levels`` state what ``forward`` returns for normalised images ``[B, 3, H, W]``, in that order.
    """
    match config:
        case ResNetConfig():
            return build_resnet(config)
        case DetNetConfig():
            return build_detnet(config)
        case VGGConfig():
            return VGG(config)
        case ZFConfig():
            return ZF(config)
        case DarknetConfig():
            return Darknet(config)
        case DarknetLayersConfig():
            return DarknetLayers(config)
        case MobileNetConfig():
            return MobileNet(config)
        case EfficientNetLiteConfig():
            return EfficientNetLite(config)
        case TimmConfig():
            return TimmBackbone(config)


def named_backbone(name: str) -> BackboneConfig:
    """Return the backbone called ``name`` in ``NAMED_BACKBONES``, or the network ``timm:NAME`` of timm.

    Raises InputError naming the nearest name.
    """
    if name.startswith("timm:"):
        return TimmConfig(name=name.removeprefix("timm:"))
    if name not in NAMED_BACKBONES:
        near, known = nearest(name, NAMED_BACKBONES) or ".", ", ".join(NAMED_BACKBONES)
        raise InputError(f"there is no backbone {name!r}{near} There are {known}, and timm:NAME")
    return NAMED_BACKBONES[name]
