"""Locally connected layer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LocalLayer(nn.Module):
    """3x3 convolution, padded by 1, with separate weights at each position (Darknet's ``[local]``)."""

    def __init__(self, inputs: int, outputs: int, height: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(height * width, outputs, inputs * 9))
        self.bias = nn.Parameter(torch.zeros(outputs, height, width))
        nn.init.normal_(self.weight, std=(2 / (inputs * 9)) ** 0.5)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, inputs, H, W] -> [B, outputs, H, W]``."""
        patches = F.unfold(x, 3, padding=1).permute(2, 1, 0)  # [H * W, inputs * 9, B]
        return torch.bmm(self.weight, patches).permute(2, 1, 0).reshape(-1, *self.bias.shape) + self.bias
