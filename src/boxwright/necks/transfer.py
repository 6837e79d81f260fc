"""RefineDet's transfer connection blocks, a top-down pyramid (arXiv 1711.06897 §3.2, figure 2)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from boxwright.backbones.layers.norm import ConvNormAct, make_norm
from boxwright.structures import InputError, Level


class TransferBlocks(nn.Module):
    """Bring each map to ``width`` channels and add the upsampled map of the level above.

    Upsampling is a 2x2 transposed convolution, as in the released code (figure 2 shows 4x4). Raises InputError if two
    neighbouring strides are neither equal nor one twice the other.
    """

    def __init__(self, levels: Sequence[Level], width: int, norm: str) -> None:
        super().__init__()
        relu = nn.ReLU(inplace=True)
        self.lateral = nn.ModuleList(
            nn.Sequential(
                ConvNormAct(level.channels, width, 3, norm=norm, act=relu),
                ConvNormAct(width, width, 3, norm=norm, act=None),  # the ReLU follows the sum
            )
            for level in levels
        )
        self.up = nn.ModuleList()
        for here, above in pairwise(levels):
            if above.stride not in (here.stride, 2 * here.stride):
                raise InputError(
                    f"maps {here.name} and {above.name} have strides {here.stride} and {above.stride}; a transfer "
                    "block joins equal strides, or one that is twice the other"
                )
            if above.stride == here.stride:  # DetNet's later stages have maps of equal size, added as they are
                self.up.append(nn.Identity())
                continue
            deconv = nn.ConvTranspose2d(width, width, 2, 2, bias=norm == "none")
            self.up.append(nn.Sequential(deconv, make_norm(norm, width)))
        self.smooth = nn.ModuleList(ConvNormAct(width, width, 3, norm=norm, act=relu) for _ in levels)

    def forward(self, sources: Sequence[Tensor]) -> list[Tensor]:
        """Maps ``[B, C, h, w]`` of all levels, finest first, to ``[B, width, h, w]``."""
        pyramid: list[Tensor] = []
        for i in reversed(range(len(sources))):
            fmap = self.lateral[i](sources[i])
            if pyramid:
                fmap = fmap.add_(self.up[i](pyramid[0]))  # in place: no convolution or norm keeps its output
            pyramid.insert(0, self.smooth[i](F.relu_(fmap)))
        return pyramid
