"""Prediction heads with weights of their own on each map (SSD §2.1, RefineDet §3.1).

Symbols: B images, C columns of logits, a anchors in a cell, n anchors on one map, A anchors on all maps.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from boxwright.heads.class_rows import tiled_rows
from boxwright.heads.dense import flatten_map
from boxwright.heads.extra_maps import depthwise, residual_block
from boxwright.heads.initialisation import XavierFan, xavier_


class MapHead(nn.Module):
    """Offsets and logits of the default boxes of one map, by a 3x3 convolution or two separable ones (SSDLite).

    The paper's two 3x3 convolutions are one layer here, which reads the map once. Its outputs are, for every default
    box, 4 offsets and then C logits.
    """

    def __init__(self, channels: int, per_cell: int, columns: int, separable: bool, norm: str) -> None:
        super().__init__()
        self.columns, self.separable = columns, separable
        if separable:
            self.deltas, self.scores = (
                nn.Sequential(depthwise(channels, 1, norm), nn.Conv2d(channels, per_cell * values, 1))
                for values in (4, columns)
            )
        else:
            self.predict = nn.Conv2d(channels, per_cell * (4 + columns), 3, padding=1)

    def forward(self, fmap: Tensor) -> tuple[Tensor, Tensor]:
        """Map ``[B, channels, h, w]`` to offsets ``[B, n, 4]`` and logits ``[B, n, C]``, in float32."""
        if self.separable:
            return flatten_map(self.deltas(fmap), 4), flatten_map(self.scores(fmap), self.columns)
        out = flatten_map(self.predict(fmap), 4 + self.columns)
        return out[..., :4], out[..., 4:]

    def class_rows(self) -> dict[str, Tensor]:
        """Return the class of each row of the layers that distinguish classes."""
        columns = torch.arange(self.columns)
        if self.separable:
            return tiled_rows(self, "scores.1", columns)
        return tiled_rows(self, "predict", columns, shared=4)

    def draw_joined(self, fan: XavierFan) -> None:
        """Draw the joined convolution anew, as the two convolutions of the paper, whose fans differ from its own."""
        if not self.separable:
            for part in self.predict.weight.unflatten(0, (-1, 4 + self.columns)).split([4, self.columns], dim=1):
                xavier_(part, fan)

    @property
    def logit_bias(self) -> Tensor:
        """Bias of the logits, a view ``[a, C]``."""
        bias = self.scores[1].bias if self.separable else self.predict.bias
        assert isinstance(bias, Tensor)
        return bias.unflatten(0, (-1, self.columns + (0 if self.separable else 4)))[:, -self.columns :]


class AnchorHeads(nn.Module):
    """One 3x3 convolution on each map for the offsets and logits of its anchors (RefineDet's ARM and ODM).

    ``logits``: their number for each anchor. ``hidden``: width inside a residual block before each convolution, whose
    output is four times as wide; None for no block.
    """

    def __init__(
        self, widths: Sequence[int], per_cell: Sequence[int], logits: int, hidden: int | None, norm: str
    ) -> None:
        super().__init__()
        self.outputs = 4 + logits
        self.blocks = nn.ModuleList(
            nn.Identity() if hidden is None else residual_block(width, hidden, 4 * hidden, 1, norm) for width in widths
        )
        inputs = widths if hidden is None else [4 * hidden] * len(widths)
        self.convs = nn.ModuleList(
            nn.Conv2d(width, cell * self.outputs, 3, padding=1) for width, cell in zip(inputs, per_cell, strict=True)
        )

    def class_rows(self, columns: int) -> dict[str, Tensor]:
        """Return the class of each row, for logits of ``columns`` classes with background last."""
        rows: dict[str, Tensor] = {}
        for i in range(len(self.convs)):
            rows |= tiled_rows(self, f"convs.{i}", torch.arange(columns), shared=4)
        return rows

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Maps ``[B, channels, h, w]`` to offsets ``[B, A, 4]`` and logits ``[B, A, logits]``, in anchor order."""
        rows = [
            flatten_map(conv(block(fmap)), self.outputs)
            for conv, block, fmap in zip(self.convs, self.blocks, maps, strict=True)
        ]
        out = torch.cat(rows, dim=1)
        return out[..., :4], out[..., 4:]
