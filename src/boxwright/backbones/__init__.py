"""Backbones: images in, a pyramid of feature maps out, whose levels are declared."""

from boxwright.backbones.blocks import Classifier
from boxwright.backbones.build import NAMED_BACKBONES, Backbone, BackboneConfig, build_backbone
from boxwright.backbones.count import backbone_rows, count_multiply_adds, count_parameters
from boxwright.backbones.detnet import DetNetConfig
from boxwright.backbones.norm import FrozenBatchNorm, conv_norm, fold_norms
from boxwright.backbones.resnet import ResNetConfig

__all__ = [
    "NAMED_BACKBONES",
    "Backbone",
    "BackboneConfig",
    "Classifier",
    "DetNetConfig",
    "FrozenBatchNorm",
    "ResNetConfig",
    "backbone_rows",
    "build_backbone",
    "conv_norm",
    "count_multiply_adds",
    "count_parameters",
    "fold_norms",
]
