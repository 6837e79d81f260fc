"""A trunk that is described layer by layer, as in a cfg of Darknet that is none of the named networks.

Symbols: C H W channels, rows and columns of a map.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from boxwright.backbones.darknet import SLOPE, init_darknet
from boxwright.backbones.layers.local import LocalLayer
from boxwright.fields import Count, CountOrZero, Fraction, config
from boxwright.structures import InputError, Level

Activation = Literal[
    "leaky", "linear", "relu", "logistic", "loggy", "tanh", "elu", "selu", "relie", "ramp", "hardtan", "lhtan"
]
"""Darknet's activations."""

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "leaky": lambda x: F.leaky_relu(x, SLOPE),
    "linear": lambda x: x,
    "relu": F.relu,
    "logistic": torch.sigmoid,
    "loggy": lambda x: 2 * torch.sigmoid(x) - 1,
    "tanh": torch.tanh,
    "elu": F.elu,
    "selu": F.selu,
    "relie": lambda x: F.leaky_relu(x, 0.01),
    "ramp": lambda x: F.relu(x) + 0.1 * x,
    "hardtan": F.hardtanh,
    "lhtan": lambda x: x.clamp(0, 1) + 0.001 * (x - x.clamp(0, 1)),
}


@config
class DarknetLayerConfig:
    """A layer of a trunk. Options that its kind does not have keep their defaults."""

    kind: Literal["convolutional", "local", "connected", "maxpool", "dropout"] = "convolutional"
    """Kind of layer. "local" is a convolution with weights of its own at each position."""
    channels: Count = 1
    """Outputs of a convolutional, local or connected layer."""
    size: Count = 1
    """Side of the kernel, or of the window of a pool."""
    stride: Count = 1
    """Step of the kernel or window."""
    padding: CountOrZero = 0
    """Rows and columns added on each side; by a pool, on both sides together, the larger half below and right."""
    groups: Count = 1
    """Groups of channels of a convolution."""
    norm: bool = False
    """Batch norm of a convolutional or connected layer."""
    activation: Activation = "linear"
    """Activation after it."""
    probability: Fraction = 0.5
    """Part of the values that a dropout sets to zero in training."""


@config
class DarknetLayersConfig:
    """A trunk as a list of layers, for an input of one size."""

    kind: Literal["darknet_layers"] = "darknet_layers"
    size: tuple[Count, Count] = (448, 448)
    """Height and width of the input in pixels."""
    layers: tuple[DarknetLayerConfig, ...] = ()
    """The layers, from the input on."""


class DarknetLayers(nn.Module):
    """The layers of a trunk. Its only level is the last map, of ``map_size`` rows and columns."""

    def __init__(self, config: DarknetLayersConfig) -> None:
        super().__init__()
        channels, (height, width) = 3, config.size
        layers: list[nn.Module] = []
        for number, layer in enumerate(config.layers):
            built, (channels, height, width) = _build(layer, channels, height, width)
            if min(height, width) < 1:
                raise InputError(f"layer {number} ({layer.kind}) of the trunk leaves nothing of {config.size} pixels")
            layers.append(built)
        self.stages = nn.ModuleList([nn.ModuleList(layers)])
        self.map_size = (height, width)
        self.levels: tuple[Level, ...] = (Level("C1", max(1, config.size[0] // height), channels),)
        init_darknet(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Features of normalised images ``[B, 3, *size]``: the last map, ``[B, C, *map_size]``."""
        for stage in self.stages:
            assert isinstance(stage, nn.ModuleList)
            for layer in stage:
                x = layer(x)
        return [x]


class _Activation(nn.Module):
    def __init__(self, kind: Activation) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        """Apply the activation."""
        return _ACTIVATIONS[self.kind](x)


class _MaxPool(nn.Module):
    def __init__(self, size: int, stride: int, padding: int) -> None:
        super().__init__()
        self.size, self.stride, self.padding = size, stride, padding

    def rows(self, length: int) -> int:
        """Return the rows that a map of ``length`` rows becomes, or columns."""
        return (length + self.padding - self.size) // self.stride + 1

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W] -> [B, C, rows(H), rows(W)]``."""
        first, pads = self.padding // 2, []
        for length in (x.shape[3], x.shape[2]):
            # The last window may end before the padding does.
            reached = (self.rows(length) - 1) * self.stride + self.size
            pads += [first, reached - first - length]
        return F.max_pool2d(F.pad(x, pads, value=float("-inf")), self.size, self.stride)


def _build(layer: DarknetLayerConfig, channels: int, height: int, width: int) -> tuple[nn.Module, tuple[int, int, int]]:
    """Build a layer for a map; return it and the shape of what it makes of the map."""
    out = layer.channels
    act = _Activation(layer.activation)
    match layer.kind:
        case "dropout":
            return nn.Dropout(layer.probability), (channels, height, width)
        case "maxpool":
            pool = _MaxPool(layer.size, layer.stride, layer.padding)
            return pool, (channels, pool.rows(height), pool.rows(width))
        case "connected":
            norm = [nn.BatchNorm1d(out, momentum=0.01)] if layer.norm else []
            linear = nn.Linear(channels * height * width, out, bias=not norm)
            return nn.Sequential(nn.Flatten(), linear, *norm, act, nn.Unflatten(1, (out, 1, 1))), (out, 1, 1)
    rows, columns = ((side + 2 * layer.padding - layer.size) // layer.stride + 1 for side in (height, width))
    if min(rows, columns) < 1:
        return nn.Identity(), (out, rows, columns)
    if layer.kind == "local":
        local = LocalLayer(channels, out, rows, columns, layer.size, layer.stride, layer.padding)
        return nn.Sequential(local, act), (out, rows, columns)
    if channels % layer.groups or out % layer.groups:
        raise InputError(f"a convolution of {channels} to {out} channels cannot have {layer.groups} groups")
    conv = nn.Conv2d(channels, out, layer.size, layer.stride, layer.padding, groups=layer.groups, bias=not layer.norm)
    norms = [nn.BatchNorm2d(out, momentum=0.01)] if layer.norm else []
    return nn.Sequential(conv, *norms, act), (out, rows, columns)
