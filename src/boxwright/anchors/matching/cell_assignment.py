"""Assignment of objects to the predictors of a grid of cells, by YOLOv1's rule and a wider one.

Redmon et al., arXiv 1506.02640 §2: the cell that holds an object's centre predicts it, by its predictor of highest IoU.

Symbols: B images, G padded ground truth, S x S cells, n predictors in a cell, K classes.
"""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from boxwright.anchors.cells import cell_corners, one_hot, pair_up
from boxwright.anchors.sampler import hashed_noise
from boxwright.fields import Share, config
from boxwright.geometry.boxes import box_iou, distance_iou, pair_iou, xyxy_to_cxcywh
from boxwright.geometry.indexing import take_entries, take_rows
from boxwright.structures import Targets


@config
class CellAssignConfig:
    """Assignment of objects to cells and their predictors. "near" and ``quiet`` are not in the paper."""

    method: Literal["cell", "near"] = "cell"
    """"cell": a cell has one object, drawn at random from those with their centre in it. "near": cells within
    ``radius`` of an object's centre may have it too, and each predictor of a cell can have an object, those with their
    centre in the cell first."""
    radius: Annotated[float, Field(ge=0.5, allow_inf_nan=False)] = 1.0
    """Maximum distance in x and in y, in cells, for "near". At least 0.5, so that every object has a cell."""
    smallest: Share = 0.005
    """Minimum side of an object as a share of the input's; smaller objects are left out."""
    quiet: Share | None = None
    """IoU with any object above which a predictor without one is no background. None: all are background (paper)."""
    difficult: bool = True
    """Train on boxes marked difficult."""


class CellAssignment(NamedTuple):
    """Training targets of all predictors.

    ``truth`` ``[B, S * S, n, 4]``: the box of a predictor's object where ``positive`` ``[B, S * S, n]``. ``iou``
    ``[B, S * S, n]``: overlap of its predicted box with it. ``background`` ``[B, S * S, n]``: predictors of no object.
    ``classes`` ``[B, S * S, K]``: class targets of the cells, where ``occupied`` ``[B, S * S]``.
    """

    truth: Tensor
    positive: Tensor
    iou: Tensor
    background: Tensor
    classes: Tensor
    occupied: Tensor


@torch.no_grad()
def assign_to_cells(
    config: CellAssignConfig, predicted: Tensor, targets: Targets, seeds: Tensor, cell: int, num_classes: int
) -> CellAssignment:
    """Assign the objects of ``targets`` to the predictors with ``predicted`` boxes ``[B, S * S, n, 4]``.

    ``seeds`` int64 ``[B]``: of the random draw between objects of one cell. ``cell``: pixels of a cell's side.
    """
    batch, cells, each = predicted.shape[:3]
    grid = round(cells**0.5)
    boxes, labels, usable = targets.boxes, targets.labels, targets.usable(config.difficult)
    if boxes.shape[1] == 0:  # a row of padding, so that every maximum below exists
        boxes, labels, usable = boxes.new_zeros(batch, 1, 4), labels.new_zeros(batch, 1), usable.new_zeros(batch, 1)
    usable = usable & ((boxes[..., 2:] - boxes[..., :2]) >= config.smallest * (grid * cell)).all(-1)
    centre = (boxes[..., :2] + boxes[..., 2:]) / 2 / cell  # [B, G, 2], in cells
    corner = cell_corners(grid, grid, boxes.device)
    own = (centre.unsqueeze(2).floor().clamp(0, grid - 1) == corner).all(-1) & usable.unsqueeze(-1)  # [B, G, S * S]
    if config.method == "cell":
        draw = hashed_noise(seeds, boxes.shape[1], salt=3).unsqueeze(-1) + 1
        owner = torch.where(own, draw, 0.0).argmax(1)  # [B, S * S]
        truth = take_rows(boxes, owner).unsqueeze(2).expand(-1, -1, each, -1)
        positive = responsible(predicted, truth) & own.any(1).unsqueeze(-1)
        owner = owner.unsqueeze(-1).expand(-1, -1, each)
    else:
        near = ((corner + 0.5 - centre.unsqueeze(2)).abs() < config.radius).all(-1) & usable.unsqueeze(-1)
        # Distance IoU also ranks boxes that do not touch the object, by their distance from it.
        fit = distance_iou(predicted.unsqueeze(1), boxes[:, :, None, None])  # [B, G, S * S, n]
        key = torch.where((own | near).unsqueeze(-1), fit + 2 * own.unsqueeze(-1), -torch.inf)
        owner, positive = pair_up(key.transpose(1, 2))
        truth = take_rows(boxes, owner.flatten(1)).unflatten(1, (cells, each))
    label = take_entries(labels, owner.flatten(1)).reshape(batch, cells, each)
    votes = (one_hot(label, num_classes) & positive.unsqueeze(-1)).sum(2).float()  # [B, S * S, K]
    background = ~positive
    if config.quiet is not None:
        overlap = box_iou(boxes, predicted.flatten(1, 2)).unflatten(2, (cells, each))  # [B, G, S * S, n]
        background = background & ~((overlap > config.quiet) & usable[..., None, None]).any(1)
    return CellAssignment(
        truth,
        positive,
        pair_iou(predicted, truth),
        background,
        votes / votes.sum(-1, keepdim=True).clamp(min=1),
        positive.any(-1),
    )


def responsible(predicted: Tensor, truth: Tensor) -> Tensor:
    """Choose one predictor of each cell, bool ``[..., n]``: that of highest IoU, or of least error if none overlaps.

    ``predicted`` and ``truth``: boxes ``[..., n, 4]``.
    """
    iou = pair_iou(predicted, truth)
    error = (xyxy_to_cxcywh(predicted) - xyxy_to_cxcywh(truth)).square().sum(-1)
    chosen = torch.where(iou.amax(-1) > 0, iou.argmax(-1), error.argmin(-1))
    return one_hot(chosen, predicted.shape[-2])
