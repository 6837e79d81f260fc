"""Matrix NMS: suppression without rounds, which lowers all scores at once.

Wang et al., SOLOv2, NeurIPS 2020, §3.3 and appendix; here on boxes, as PP-YOLO does (arXiv 2007.12099).
"""

from __future__ import annotations

import torch
from torch import Tensor

from boxwright.geometry.boxes import pair_iou


def matrix_nms(
    boxes: Tensor, scores: Tensor, labels: Tensor, sigma: float, floor: float, count: int
) -> tuple[Tensor, Tensor]:
    """Lower the score of each box by its overlap with better ones of its label, in each row of the batch by itself.

    ``boxes`` ``[B, N, 4]``; ``scores`` ``[B, N]`` in 0..1, minus infinity marks rows that are not there; ``labels``
    ``[B, N]``. With o the IoU of a better box i and this one j, and c the greatest IoU of i with one better than i, the
    score of j is multiplied by the least ``exp(-(o^2 - c^2) / sigma)``, at most 1: i counts less if it is itself
    suppressed. Of equal scores the earlier is the better one.

    Returns ``index`` int64 ``[B, count]`` into N and the scores by falling value, minus infinity below ``floor`` and
    where nothing is left. All are plain operations on tensors, so that the graph has no operator of its own.
    """
    scores, order = scores.float().sort(dim=1, descending=True, stable=True)
    boxes = boxes.float().gather(1, order.unsqueeze(-1).expand_as(boxes))
    labels = labels.gather(1, order)
    overlap = pair_iou(boxes.unsqueeze(2), boxes.unsqueeze(1))  # [B, N, N], of a better box and a worse one
    same = (labels.unsqueeze(2) == labels.unsqueeze(1)) & (scores > -torch.inf).unsqueeze(2)
    overlap = torch.where(same, overlap, 0.0).triu(diagonal=1)
    suppressed = overlap.amax(dim=1).unsqueeze(2)  # c of each better box, [B, N, 1]
    decay = ((suppressed.square() - overlap.square()) / sigma).amin(dim=1).clamp(max=0).exp()
    found = scores * decay
    found = torch.where(found >= floor, found, -torch.inf)
    if found.shape[1] < count:
        missing = count - found.shape[1]
        found = torch.nn.functional.pad(found, (0, missing), value=-torch.inf)
        order = torch.nn.functional.pad(order, (0, missing))
    found, position = found.topk(count, dim=1)
    return order.gather(1, position), found
