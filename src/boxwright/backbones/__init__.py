"""Backbones: networks that turn images into a pyramid of feature maps and declare its levels."""

from boxwright.backbones.build import NAMED_BACKBONES, Backbone, BackboneConfig, build_backbone, named_backbone
from boxwright.backbones.classifier import Classifier
from boxwright.backbones.count import backbone_rows, count_multiply_adds, count_parameters
from boxwright.backbones.darknet import DarknetConfig, conv_bn_leaky
from boxwright.backbones.darknet_layers import DarknetLayersConfig
from boxwright.backbones.detnet import DetNetConfig
from boxwright.backbones.efficientnet_lite import EfficientNetLiteConfig
from boxwright.backbones.layers.norm import FrozenBatchNorm, conv_norm, fold_norms
from boxwright.backbones.mobilenet import MobileNetConfig
from boxwright.backbones.resnet import ResNetConfig
from boxwright.backbones.timm import TimmConfig
from boxwright.backbones.vgg import VGGConfig
from boxwright.backbones.zf import ZFConfig

__all__ = [
    "NAMED_BACKBONES",
    "Backbone",
    "BackboneConfig",
    "Classifier",
    "DarknetConfig",
    "DarknetLayersConfig",
    "DetNetConfig",
    "EfficientNetLiteConfig",
    "FrozenBatchNorm",
    "MobileNetConfig",
    "ResNetConfig",
    "TimmConfig",
    "VGGConfig",
    "ZFConfig",
    "backbone_rows",
    "build_backbone",
    "conv_bn_leaky",
    "conv_norm",
    "count_multiply_adds",
    "count_parameters",
    "fold_norms",
    "named_backbone",
]
