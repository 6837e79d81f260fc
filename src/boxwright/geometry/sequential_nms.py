"""The kinds of non-maximum suppression that change scores or boxes, as one operator of the graph.

Unlike greedy NMS they cannot be decided box by box in one order: each round takes the best box that is left and changes
the others. There is one round for each row of the output.
"""

from __future__ import annotations

import torch
from torch import Tensor

from boxwright.geometry.boxes import distance_iou, pair_iou
from boxwright.geometry.indexing import take_rows
from boxwright.geometry.nms import float32_at_most

KINDS = ("soft_linear", "soft_gaussian", "diou", "weighted")


@torch.library.custom_op("boxwright::sequential_nms", mutates_args=())
def sequential_nms(
    boxes: Tensor, scores: Tensor, labels: Tensor, kind: str, threshold: float, sigma: float, floor: float, count: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Suppress boxes of the same label, in each row of the batch by itself.

    ``boxes`` ``[B, N, 4]``; ``scores`` ``[B, N]`` in 0..1, minus infinity marks rows that are not there; ``labels``
    int64 ``[B, N]``. Beside the best box that is left, another one with the overlap o

    * "soft_linear": has its score multiplied by 1 - o if o > ``threshold`` (Soft-NMS eq. 2);
    * "soft_gaussian": by exp(-o^2 / ``sigma``) (Soft-NMS eq. 3); both drop what falls below ``floor``, itself above 0;
    * "diou": is dropped if its distance IoU is above ``threshold`` (Zheng et al. 2020, eq. 11);
    * "weighted": is dropped if o > ``threshold``, and the best one becomes the mean of itself and all that it drops,
      weighted by score.

    Returns ``index`` int64 ``[B, count]`` into N, the scores by falling value, minus infinity where nothing is left,
    and the boxes ``[B, count, 4]``.
    """
    batch, total = scores.shape
    left = torch.where(scores > -torch.inf, scores.float(), -1.0)  # -1: not there, or no longer
    boxes = boxes.float()
    index = torch.zeros((batch, count), dtype=torch.int64, device=boxes.device)
    found = torch.full((batch, count), -torch.inf, device=boxes.device)
    kept = torch.zeros((batch, count, 4), device=boxes.device)
    threshold = float32_at_most(threshold)
    measure = distance_iou if kind == "diou" else pair_iou
    for round_ in range(min(count, total)):
        place = left.argmax(dim=1, keepdim=True)  # [B, 1]
        best = left.gather(1, place)
        if boxes.device.type == "cpu" and not (best >= 0).any():
            break
        box = take_rows(boxes, place)  # [B, 1, 4]
        overlap = torch.where(labels == labels.gather(1, place), measure(box.expand_as(boxes), boxes), 0.0)
        if kind == "weighted":
            weight = torch.where(overlap > threshold, left.clamp(min=0), 0.0).scatter(1, place, best.clamp(min=1e-12))
            box = torch.einsum("bn,bnc->bc", weight / weight.sum(1, keepdim=True), boxes).unsqueeze(1)
        index[:, round_ : round_ + 1] = torch.where(best >= 0, place, 0)
        found[:, round_ : round_ + 1] = torch.where(best >= 0, best, -torch.inf)
        kept[:, round_ : round_ + 1] = torch.where((best >= 0).unsqueeze(-1), box, 0.0)
        left = _decayed(left, overlap, kind, threshold, sigma, floor).scatter(1, place, -1.0)
    return index, found, kept


def _decayed(scores: Tensor, overlap: Tensor, kind: str, threshold: float, sigma: float, floor: float) -> Tensor:
    """The scores after one round; -1 for what is dropped."""
    if kind not in ("soft_linear", "soft_gaussian"):
        return scores.masked_fill(overlap > threshold, -1.0)
    if kind == "soft_linear":
        scores = scores * torch.where(overlap > threshold, 1 - overlap, 1.0)
    else:
        scores = scores * torch.exp(-overlap * overlap / sigma)
    return scores.masked_fill(scores < floor, -1.0)


@sequential_nms.register_fake
def _(
    boxes: Tensor, scores: Tensor, labels: Tensor, kind: str, threshold: float, sigma: float, floor: float, count: int
) -> tuple[Tensor, Tensor, Tensor]:
    shape = (boxes.shape[0], count)
    floats = boxes.new_empty(shape, dtype=torch.float32)
    return boxes.new_empty(shape, dtype=torch.int64), floats, boxes.new_empty((*shape, 4), dtype=torch.float32)
