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
