"""Ground truth to the predictors of one map: by the cell of its centre, and by the anchor of that cell that fits it.

YOLOv2 (arXiv 1612.08242 §2) and the code of its authors; the wider choice is that of YOLOv5 and its kin.

Symbols: B images, G padded ground truth, H W cells of the map, a anchors of a cell, N = H * W * a predictors in order
y, x, anchor. Everything is measured in cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from boxwright.anchors.cells import cell_corners
from boxwright.geometry.boxes import box_iou
from boxwright.geometry.constants import constant
from boxwright.structures import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class CellMatcher:
    """Match by centre and shape.

    ``anchors``: (width, height). ``match``: what of a cell's anchors is compared with the object in size, the "anchor"
    itself or the "prediction" made from it. ``reach``: "cell", one predictor for each object; of two objects in one
    predictor the later row counts. "near": all whose cell's centre is less than a cell away in x and in y (mostly four
    cells) and whose anchor fits to a factor of ``fit``, or else best; of several objects a predictor takes the one that
    its box overlaps most.
    """

    anchors: tuple[tuple[float, float], ...]
    match: Literal["anchor", "prediction"] = "anchor"
    reach: Literal["cell", "near"] = "cell"
    fit: float = 4.0

    def __post_init__(self) -> None:
        if not self.anchors or min(min(pair) for pair in self.anchors) <= 0:
            raise InputError(f"anchors = {self.anchors}: give at least one (width, height) above 0, in cells")
        if self.fit < 1:
            raise InputError(f"fit = {self.fit}: a factor of at least 1, such as 4")

    def __call__(self, boxes: Tensor, truth: Tensor, usable: Tensor, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Each predictor's object: index into G, int64 ``[B, N]``, and whether it has one, bool ``[B, N]``.

        ``boxes`` ``[B, N, 4]``: what the predictors see now. ``truth`` ``[B, G, 4]`` and ``usable`` bool ``[B, G]``.
        ``shape``: H and W.
        """
        count = truth.shape[1]
        if count == 0:
            none = torch.zeros(boxes.shape[:2], dtype=torch.bool, device=boxes.device)
            return none.long(), none
        claims = self._claims(boxes, truth, shape) & usable.unsqueeze(-1)  # [B, G, N]
        if self.reach == "cell":
            rank = torch.arange(count, device=truth.device).reshape(1, -1, 1)
        else:
            rank = box_iou(truth, boxes)
        key, owner = torch.where(claims, rank, -1).max(dim=1)
        return owner, key >= 0

    def _claims(self, boxes: Tensor, truth: Tensor, shape: tuple[int, int]) -> Tensor:
        """The predictors that each object would have, bool ``[B, G, N]``."""
        height, width = shape
        size = truth[..., 2:] - truth[..., :2]  # [B, G, 2]
        centre = truth[..., :2] + size / 2
        cell = torch.minimum(centre.floor().clamp(min=0), constant([width - 1, height - 1], truth.device))
        corner = cell_corners(height, width, truth.device)  # [H * W, 2]
        own = (corner == cell.unsqueeze(2)).all(-1)  # [B, G, H * W]
        anchors = constant(self.anchors, truth.device)  # [a, 2]
        sides = anchors
        if self.match == "prediction":
            seen = (boxes[..., 2:] - boxes[..., :2]).unflatten(1, (height * width, -1))  # [B, H * W, a, 2]
            index = (cell[..., 1] * width + cell[..., 0]).long()[..., None, None]
            sides = seen.gather(1, index.expand(-1, -1, *seen.shape[2:]))  # [B, G, a, 2]
        shared = torch.minimum(size.unsqueeze(2), sides).prod(-1)
        overlap = shared / (size.prod(-1, keepdim=True) + sides.prod(-1) - shared)  # [B, G, a]
        best = overlap.argmax(-1, keepdim=True) == torch.arange(len(self.anchors), device=truth.device)
        claims = own.unsqueeze(-1) & best.unsqueeze(2)  # [B, G, H * W, a]
        if self.reach == "near":
            near = ((corner + 0.5 - centre.unsqueeze(2)).abs() < 1).all(-1)
            ratio = size.unsqueeze(2).clamp(min=1e-6) / anchors
            fits = torch.maximum(ratio, 1 / ratio).amax(-1) < self.fit
            claims = claims | (near.unsqueeze(-1) & (fits | best).unsqueeze(2))
        return claims.flatten(2)
