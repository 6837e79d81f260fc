"""Initial weights of layers that start without pretrained weights."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

XavierFan = Literal["caffe", "glorot"]
"""Fan of Xavier's distribution: "caffe", the fan-in alone; "glorot", fan-in and fan-out, as in PyTorch ports."""


@torch.no_grad()
def xavier_(weight: Tensor, fan: XavierFan) -> None:
    """Draw ``weight`` ``[..., inputs, h, w]`` from Xavier's uniform distribution, in place.

    The leading dimensions count the outputs. For a transposed convolution, whose weight is ``[inputs, outputs, h, w]``,
    Caffe's fan-in is the fan-out; so it is here.
    """
    cells = weight.shape[-2] * weight.shape[-1]
    fan_in, fan_out = weight.shape[-3] * cells, weight.shape[:-3].numel() * cells
    bound = math.sqrt(3 / fan_in if fan == "caffe" else 6 / (fan_in + fan_out))
    nn.init.uniform_(weight, -bound, bound)


@torch.no_grad()
def initialise_convs(part: nn.Module | None, start: str, gaussian: bool) -> None:
    """Initialise the convolutions of ``part`` by Xavier, or by a Gaussian of 0.01 where a norm follows; biases are 0.

    ``start``: "caffe" uses Xavier by fan-in and the Gaussian (RefineDet's code); "paper" the Gaussian only if
    ``gaussian``; "glorot" Xavier by fan-in and fan-out, and no Gaussian.
    """
    for layer in part.modules() if part is not None else ():
        if not isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            continue
        if start != "glorot" and layer.bias is None and (start == "caffe" or gaussian):
            nn.init.normal_(layer.weight, std=0.01)
        else:
            xavier_(layer.weight, "glorot" if start == "glorot" else "caffe")
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
