"""Locally connected layer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LocalLayer(nn.Module):
    """Convolution with separate weights at each position (Darknet's ``[local]``), by default 3x3 and padded by 1.

    ``height`` and ``width`` are those of its output.
    """

    def __init__(
        self, inputs: int, outputs: int, height: int, width: int, kernel: int = 3, stride: int = 1, padding: int = 1
    ) -> None:
        super().__init__()
        self.kernel, self.stride, self.padding = kernel, stride, padding
        values = inputs * kernel**2
        self.weight = nn.Parameter(torch.empty(height * width, outputs, values))
        self.bias = nn.Parameter(torch.zeros(outputs, height, width))
        nn.init.normal_(self.weight, std=(2 / values) ** 0.5)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, inputs, H, W] -> [B, outputs, height, width]``."""
        patches = F.unfold(x, self.kernel, padding=self.padding, stride=self.stride)
        patches = patches.permute(2, 1, 0)  # [height * width, inputs * kernel * kernel, B]
        return torch.bmm(self.weight, patches).permute(2, 1, 0).reshape(-1, *self.bias.shape) + self.bias
