"""Greedy non-maximum suppression with an output of fixed size, as one operator of the graph.

The number of survivors depends on the data, so the plain operation would break a compiled graph. Here it is one
registered operator that always returns ``count`` rows and a mask.
"""

from __future__ import annotations

import math

import torch
import torchvision
from torch import Tensor


@torch.library.custom_op("boxwright::nms", mutates_args=())
def nms(boxes: Tensor, scores: Tensor, threshold: float, count: int) -> tuple[Tensor, Tensor]:
    """Suppress boxes that overlap a higher-scored one by more than ``threshold``, in each row of the batch by itself.

    ``boxes`` ``[B, N, 4]``; ``scores`` ``[B, N]``, minus infinity marks rows that are not there. Returns ``index``
    int64 ``[B, count]`` into N, by falling score, and ``valid`` bool ``[B, count]``; 0 stands where nothing is left.
    """
    batch = boxes.shape[0]
    index = torch.zeros((batch, count), dtype=torch.int64, device=boxes.device)
    valid = torch.zeros((batch, count), dtype=torch.bool, device=boxes.device)
    # A loop over rows, but inside one operator: the kernel below takes one image, and its result has a free length.
    for row in range(batch):
        present = (scores[row] > -torch.inf).nonzero().squeeze(1)
        kept = torchvision.ops.nms(boxes[row, present].float(), scores[row, present].float(), threshold)[:count]
        index[row, : len(kept)] = present[kept]
        valid[row, : len(kept)] = True
    return index, valid


@nms.register_kernel("cuda")
def _(boxes: Tensor, scores: Tensor, threshold: float, count: int) -> tuple[Tensor, Tensor]:
    # Imported on first use: Triton is only there where torch was built for GPUs.
    from boxwright.geometry.nms_cuda import nms_fixed

    return nms_fixed(boxes, scores, float32_at_most(threshold), count)


@nms.register_fake
def _(boxes: Tensor, scores: Tensor, threshold: float, count: int) -> tuple[Tensor, Tensor]:
    shape = (boxes.shape[0], count)
    return boxes.new_empty(shape, dtype=torch.int64), boxes.new_empty(shape, dtype=torch.bool)


def float32_at_most(value: float) -> float:
    """The largest float32 that is no larger than a ``value`` of 0..1.

    A float32 overlap is above it exactly when it is above ``value``; a comparison that first rounds ``value`` to the
    nearest float32 would lose "at or above t", which is asked for as "above the number next below t".
    """
    step = 2.0 ** (math.frexp(value)[1] - 24)
    return math.floor(value / step) * step


def class_offsets(boxes: Tensor, labels: Tensor) -> Tensor:
    """Move the boxes of every class to a place of their own, so that one NMS serves all classes.

    ``boxes`` ``[B, N, 4]``, ``labels`` int64 ``[B, N]``. The step exceeds the range of all coordinates, which are
    negative too where boxes are not clipped, so classes never overlap.
    """
    step = boxes.amax(dim=(1, 2), keepdim=True) - boxes.amin(dim=(1, 2), keepdim=True).clamp(max=0) + 1  # [B, 1, 1]
    return boxes + labels.unsqueeze(-1).to(boxes.dtype) * step
