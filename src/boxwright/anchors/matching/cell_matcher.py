"""Assignment of objects to the predictors of one map, by the cell of their centre and the anchor of the closest shape.

YOLOv2 (arXiv 1612.08242 §2) and its authors' code. The wider method is that of YOLOv5.

Symbols: B images, G padded ground truth, H W cells of the map, a anchors of a cell, N = H * W * a predictors in order
y, x, anchor. All lengths are in cells.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from boxwright.anchors.cells import cell_corners
from boxwright.fields import Count, Factor, Positive, Share, config
from boxwright.geometry.boxes import box_iou
from boxwright.geometry.constants import constant


@config
class YOLOv2AssignConfig:
    """Assignment of objects to the predictors of one map. "near" is not in the paper."""

    method: Literal["cell", "near"] = "cell"
    """"cell": one predictor for each object, in the cell of its centre; of two objects on one predictor the later
    counts. "near": predictors of all cells whose centre is less than a cell away in x and in y (mostly four cells), if
    their anchor fits or is the best; of several objects a predictor takes the one that its box overlaps most."""
    match: Literal["anchor", "prediction"] = "anchor"
    """Box whose size is compared with the object's: the anchor, or the prediction (``bias_match=0``)."""
    fit: Factor = 4.0
    """Maximum ratio of an object's side to that of its anchor, or its inverse, for "near"."""
    quiet: Share = 0.6
    """IoU with any object above which a predictor without one gets no objectness loss."""
    most_objects: Count | None = 30
    """Maximum number of objects in an image; the rest are left out. None: all are used."""
    smallest: Share = 0.001
    """Minimum side of an object as a share of the input's; smaller objects are left out."""
    difficult: bool = True
    """Train on boxes marked difficult."""


@config
class CellMatcher:
    """Match objects to predictors by the cell of their centre and the shape of the cell's anchors."""

    anchors: Annotated[tuple[tuple[Positive, Positive], ...], Field(min_length=1)]
    """(width, height) in cells."""
    config: YOLOv2AssignConfig
    """Rules; ``method``, ``match`` and ``fit`` are read here."""

    def __call__(self, boxes: Tensor, truth: Tensor, usable: Tensor, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Return the index of each predictor's object in G, int64 ``[B, N]``, and a mask of those that have one.

        ``boxes`` ``[B, N, 4]``: predicted boxes. ``truth`` ``[B, G, 4]``; ``usable`` bool ``[B, G]``: objects to match.
        ``shape``: H and W.
        """
        count = truth.shape[1]
        if count == 0:
            none = torch.zeros(boxes.shape[:2], dtype=torch.bool, device=boxes.device)
            return none.long(), none
        claims = self._claims(boxes, truth, shape) & usable.unsqueeze(-1)  # [B, G, N]
        if self.config.method == "cell":
            rank = torch.arange(count, device=truth.device).reshape(1, -1, 1)
        else:
            rank = box_iou(truth, boxes)
        key, owner = torch.where(claims, rank, -1).max(dim=1)
        return owner, key >= 0

    def _claims(self, boxes: Tensor, truth: Tensor, shape: tuple[int, int]) -> Tensor:
        """Return the predictors that each object may take, bool ``[B, G, N]``."""
        height, width = shape
        size = truth[..., 2:] - truth[..., :2]  # [B, G, 2]
        centre = truth[..., :2] + size / 2
        cell = torch.minimum(centre.floor().clamp(min=0), constant([width - 1, height - 1], truth.device))
        corner = cell_corners(height, width, truth.device)  # [H * W, 2]
        own = (corner == cell.unsqueeze(2)).all(-1)  # [B, G, H * W]
        anchors = constant(self.anchors, truth.device)  # [a, 2]
        sides = anchors
        if self.config.match == "prediction":
            predicted = (boxes[..., 2:] - boxes[..., :2]).unflatten(1, (height * width, -1))  # [B, H * W, a, 2]
            index = (cell[..., 1] * width + cell[..., 0]).long()[..., None, None]
            sides = predicted.gather(1, index.expand(-1, -1, *predicted.shape[2:]))  # [B, G, a, 2]
        shared = torch.minimum(size.unsqueeze(2), sides).prod(-1)
        overlap = shared / (size.prod(-1, keepdim=True) + sides.prod(-1) - shared)  # [B, G, a]
        best = overlap.argmax(-1, keepdim=True) == torch.arange(len(self.anchors), device=truth.device)
        claims = own.unsqueeze(-1) & best.unsqueeze(2)  # [B, G, H * W, a]
        if self.config.method == "near":
            near = ((corner + 0.5 - centre.unsqueeze(2)).abs() < 1).all(-1)
            ratio = size.unsqueeze(2).clamp(min=1e-6) / anchors
            fits = torch.maximum(ratio, 1 / ratio).amax(-1) < self.config.fit
            claims = claims | (near.unsqueeze(-1) & (fits | best).unsqueeze(2))
        return claims.flatten(2)
