"""Normalisation of pixel values: its configuration, and the values that published weights were trained with."""

from __future__ import annotations

from boxwright.fields import Positive, config


@config
class PixelConfig:
    """Map RGB values in 0..255 to the range that the backbone was trained on: ``(x - mean) / std``."""

    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    """Mean of each channel, in RGB order. The default is ImageNet's."""
    std: tuple[Positive, Positive, Positive] = (58.395, 57.12, 57.375)
    """Standard deviation of each channel, in RGB order. The default is ImageNet's; 1 leaves the scale as it is."""
    bgr: bool = False
    """Swap the channels after normalising, for weights from Caffe and detectron2."""


IMAGENET = PixelConfig()
"""Torchvision's networks, those of timm that say nothing else, and our own."""

IMAGENET_255 = PixelConfig(std=(1.0, 1.0, 1.0))
"""ImageNet's mean at the scale 0..255: SSD of MMDetection."""

IMAGENET_255_BGR = PixelConfig(std=(1.0, 1.0, 1.0), bgr=True)
"""MSRA's ResNets by way of detectron2 and MMDetection, which round their mean to ImageNet's."""

MSRA = PixelConfig(mean=(122.7717, 115.9465, 102.9801), std=(1.0, 1.0, 1.0), bgr=True)
"""R-CNN to R-FCN in Caffe, and MSRA's ResNets themselves."""

CAFFE_VGG = PixelConfig(mean=(123.68, 116.779, 103.939), std=(1.0, 1.0, 1.0), bgr=True)
"""The VGGs of their authors."""

CAFFE_SSD = PixelConfig(mean=(123.0, 117.0, 104.0), std=(1.0, 1.0, 1.0), bgr=True)
"""SSD and RefineDet in Caffe."""

SSD_RGB = PixelConfig(mean=(123.0, 117.0, 104.0), std=(1.0, 1.0, 1.0))
"""The same means without the swap of channels: the PyTorch ports of SSD and RefineDet."""

TORCHVISION_SSD = PixelConfig(mean=(0.48235 * 255, 0.45882 * 255, 0.40784 * 255), std=(1.0, 1.0, 1.0))
"""SSD300 of torchvision, and its VGG-16 without a classifier."""

SYMMETRIC = PixelConfig(mean=(127.5, 127.5, 127.5), std=(127.5, 127.5, 127.5))
"""Values in -1..1: SSDlite of torchvision."""

EFFICIENTNET_LITE = PixelConfig(mean=(127.0, 127.0, 127.0), std=(128.0, 128.0, 128.0))
"""Values in -1..1: EfficientNet-Lite."""

DARKNET = PixelConfig(mean=(0.0, 0.0, 0.0), std=(255.0, 255.0, 255.0))
"""Values in 0..1: Darknet's networks."""
