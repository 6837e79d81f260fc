"""Non-maximum suppression on a GPU without host synchronisation: one Triton program per image.

torchvision's kernel returns as many rows as survive, and somebody must wait to learn how many. Here a mask comes back.
Triton travels with torch where there is CUDA.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from boxwright.geometry.indexing import take_rows


@triton.jit
def _suppress(boxes, alive, count, threshold, BLOCK: tl.constexpr):
    """Greedy suppression of ``count`` boxes, sorted by score; ``alive`` int32 is read and written."""
    row = tl.program_id(0)
    boxes += row * count * 4
    alive += row * count
    lane = tl.arange(0, BLOCK)
    there = lane < count
    x1 = tl.load(boxes + lane * 4, mask=there, other=0.0)
    y1 = tl.load(boxes + lane * 4 + 1, mask=there, other=0.0)
    x2 = tl.load(boxes + lane * 4 + 2, mask=there, other=0.0)
    y2 = tl.load(boxes + lane * 4 + 3, mask=there, other=0.0)
    area = (x2 - x1) * (y2 - y1)
    state = tl.load(alive + lane, mask=there, other=0)
    for i in range(count):
        # The whole block agrees on whether box i still stands; then it strikes out what overlaps it further down.
        standing = tl.sum(tl.where(lane == i, state, 0))
        if standing > 0:  # pyright: ignore[reportOperatorIssue]
            left, top = tl.load(boxes + i * 4), tl.load(boxes + i * 4 + 1)
            right, bottom = tl.load(boxes + i * 4 + 2), tl.load(boxes + i * 4 + 3)
            width = tl.maximum(tl.minimum(x2, right) - tl.maximum(x1, left), 0.0)
            height = tl.maximum(tl.minimum(y2, bottom) - tl.maximum(y1, top), 0.0)
            shared = width * height
            iou = shared / (area + (right - left) * (bottom - top) - shared)
            state = tl.where((lane > i) & (iou > threshold), 0, state)
    tl.store(alive + lane, state, mask=there)


def nms_fixed(boxes: Tensor, scores: Tensor, threshold: float, count: int) -> tuple[Tensor, Tensor]:
    """The same as :func:`boxwright.geometry.nms.nms`, for tensors on a GPU."""
    batch, total = scores.shape
    score, order = scores.float().sort(dim=1, descending=True, stable=True)
    ranked = take_rows(boxes.float(), order).contiguous()
    alive = (score > -torch.inf).to(torch.int32)
    block = max(triton.next_power_of_2(total), 16)
    warps = min(32, max(4, block // 128))
    _suppress[(batch,)](ranked, alive, total, threshold, BLOCK=block, num_warps=warps)  # pyright: ignore[reportCallIssue]
    kept, place = torch.where(alive > 0, score, -torch.inf).topk(min(count, total), dim=1)
    valid = kept > -torch.inf
    index = torch.where(valid, order.gather(1, place), 0)
    missing = count - index.shape[1]
    if missing > 0:
        index, valid = (torch.nn.functional.pad(t, (0, missing)) for t in (index, valid))
    return index, valid
