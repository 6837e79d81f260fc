"""Image classifiers from backbones: for pretraining, and for the costs that papers state."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from boxwright.backbones.build import Backbone
from boxwright.backbones.darknet import Darknet
from boxwright.backbones.efficientnet_lite import EfficientNetLite, EfficientNetLiteHead
from boxwright.backbones.mobilenet import MobileNet, MobileNetHead
from boxwright.backbones.vgg import VGG
from boxwright.backbones.zf import ZF


class Classifier(nn.Module):
    """A backbone with its published classifier ``fc`` on the last level.

    VGG and ZF up to C5: pool5 and three linear layers with dropout. Darknet-19: a 1x1 convolution and global average
    pooling. MobileNet V2 and V3: their last 1x1 convolution (unless it is the level), global average pooling, dropout
    and one or two linear layers. EfficientNet-Lite: likewise. All others: global average pooling and one linear layer.
    """

    def __init__(self, backbone: Backbone, num_classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.fc = _head(backbone, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[B, num_classes]`` of normalised images ``[B, 3, H, W]``."""
        return self.fc(self.backbone(x)[-1])


def _head(backbone: Backbone, num_classes: int) -> nn.Module:
    last = backbone.levels[-1]
    match backbone:
        case VGG() if last.name == "C5":
            return VGGHead(last.channels, num_classes, backbone.ceil_mode)
        case ZF() if last.name == "C5":
            return VGGHead(last.channels, num_classes, ceil_mode=False, kernel=3, side=6, growth=16)
        case Darknet(variant="darknet19"):
            return AveragedConv(last.channels, num_classes, 1)
        case MobileNet(version=2 | 3):
            return MobileNetHead(backbone, num_classes)
        case EfficientNetLite():
            return EfficientNetLiteHead(backbone, num_classes)
        case _:
            return PooledLinear(last.channels, num_classes)


class PooledLinear(nn.Linear):
    """Global average and one linear layer."""

    def forward(self, input: Tensor) -> Tensor:
        """``[B, C, H, W] -> [B, K]``."""
        return super().forward(input.mean((2, 3)))


class AveragedConv(nn.Conv2d):
    """A convolution to class logits at every position, averaged over all positions."""

    def forward(self, input: Tensor) -> Tensor:
        """``[B, C, H, W] -> [B, K]``."""
        return super().forward(input).mean((2, 3))


class VGGHead(nn.Sequential):
    """pool5, fc6, fc7 and fc8 of VGG under torchvision's indices; 512 channels give 4096 hidden units.

    ``kernel``: size of pool5; ``side``: size of its map; ``growth``: hidden units per channel.
    """

    def __init__(
        self, channels: int, num_classes: int, ceil_mode: bool, kernel: int = 2, side: int = 7, growth: int = 8
    ) -> None:
        hidden = channels * growth
        super().__init__(
            nn.Linear(channels * side**2, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(hidden, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(hidden, num_classes),
        )
        self.ceil_mode, self.kernel, self.side = ceil_mode, kernel, side
        for layer in self:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, 0, 0.01)
                nn.init.zeros_(layer.bias)

    def forward(self, input: Tensor) -> Tensor:
        """``[B, C, H, W] -> [B, K]``; maps of other inputs than 224 are averaged to the 7 x 7 (ZF: 6 x 6) of fc6."""
        pooled = F.adaptive_avg_pool2d(F.max_pool2d(input, self.kernel, 2, ceil_mode=self.ceil_mode), self.side)
        return super().forward(pooled.flatten(1))
