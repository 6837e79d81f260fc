"""Mean and deviation of box offsets, measured on a training set (Fast R-CNN §2.3).

Later code divides all offsets by (0.1, 0.1, 0.2, 0.2). The paper normalised those of each class to mean 0 and deviation
1. Here the offsets are divided first and measured then, so that a class without a region keeps the fixed division.

Symbols: K classes, or 1 where all share one box.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from boxwright.anchors.coder import BoxCoder, NormalisedCoder
from boxwright.data.index import DetectionIndex
from boxwright.data.proposals.files import ProposalSet
from boxwright.geometry.boxes import box_iou

LEAST_DEVIATION = 1e-3
"""A class with a smaller deviation, such as one with a single region, keeps the deviation 1."""


class TargetStatistics(nn.Module):
    """``mean`` and ``std`` ``[K, 4]``, kept with the weights; 0 and 1 until they are measured."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(rows, 4))
        self.register_buffer("std", torch.ones(rows, 4))

    def coder(self, base: BoxCoder, rows: Tensor) -> NormalisedCoder:
        """Return a coder that normalises offsets by the statistics of ``rows``, int64 ``[...]``."""
        return NormalisedCoder(base, self.get_buffer("mean")[rows], self.get_buffer("std")[rows])

    @torch.no_grad()
    def renormalise(self, deltas: nn.Linear, mean: Tensor, std: Tensor) -> None:
        """Rescale a layer trained with ``mean`` and ``std`` ``[K, 4]`` to give the same boxes with the present ones."""
        ratio = (std / self.get_buffer("std")).flatten()
        deltas.weight.mul_(ratio.unsqueeze(1))
        deltas.bias.mul_(ratio).add_(((mean - self.get_buffer("mean")) / self.get_buffer("std")).flatten())

    @torch.no_grad()
    def measure(
        self,
        index: DetectionIndex,
        proposals: ProposalSet,
        coder: BoxCoder,
        positive_iou: float,
        difficult: bool = True,
        add_truth: bool = True,
    ) -> int:
        """Measure mean and deviation on all positive regions of ``index``, and return the number of regions.

        ``proposals``: those of the images of ``index``, in its order. A region is positive if its highest IoU with an
        object is at least ``positive_iou``. With ``add_truth`` the ground-truth boxes are regions too. The mean of dx
        is 0, because each image also counts mirrored, as in the authors' code.
        """
        rows = len(self.get_buffer("mean"))
        count = torch.zeros(rows, 1, dtype=torch.float64)
        total, squares = (torch.zeros(rows, 4, dtype=torch.float64) for _ in range(2))
        for i in range(len(index)):
            annotations = index.annotations(i)
            usable = ~annotations.crowd if difficult else ~annotations.crowd & ~annotations.difficult
            truth = torch.from_numpy(annotations.boxes[usable]).float()
            if len(truth) == 0:
                continue
            regions = torch.from_numpy(proposals.of(i))
            regions = torch.cat([regions, truth]) if add_truth else regions
            overlap, best = box_iou(regions, truth).max(1)
            chosen = overlap >= positive_iou
            offsets = coder.encode(regions[chosen], truth[best[chosen]]).double()
            labels = torch.from_numpy(annotations.labels[usable]).long()[best[chosen]].clamp(max=rows - 1)
            count.index_add_(0, labels, torch.ones(len(labels), 1, dtype=torch.float64))
            total.index_add_(0, labels, offsets)
            squares.index_add_(0, labels, offsets**2)
        total[:, 0] = 0  # mirrored
        mean = total / count.clamp(min=1)
        std = (squares / count.clamp(min=1) - mean**2).clamp(min=0).sqrt()
        self.get_buffer("mean").copy_(mean)
        self.get_buffer("std").copy_(torch.where(std < LEAST_DEVIATION, 1.0, std))
        return int(count.sum())
