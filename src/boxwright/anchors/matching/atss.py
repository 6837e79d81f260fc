"""Adaptive training sample selection (Zhang et al.: Bridging the Gap Between Anchor-based and Anchor-free Detection,
arXiv 1912.02424, algorithm 1): each object sets its own IoU threshold.

Symbols: B images, G padded ground truth, A anchors over the pyramid, M anchors that an object considers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from boxwright.anchors.matching.matcher import Matches, nothing_to_match
from boxwright.fields import Count, config
from boxwright.geometry.boxes import pair_iou, points_in_boxes


@config
class ATSSMatcher:
    """Match by an IoU threshold for each object: mean plus standard deviation of the IoU of its candidates.

    Candidates are the ``topk`` anchors of each level whose centres are nearest to the object's. Those that reach the
    threshold and have their centre within the object are positive. An anchor that several objects choose goes to the
    one it overlaps most. All others are negative, except those with their centre in a crowd region, which are ignored.
    """

    topk: Count = 9
    """Number of candidates on each level."""

    def __call__(
        self, anchors: Tensor, level_sizes: Sequence[int], boxes: Tensor, usable: Tensor, crowd: Tensor
    ) -> Matches:
        """Match ``anchors`` ``[A, 4]``, of which ``level_sizes`` belong to each level, to ``boxes`` ``[B, G, 4]``.

        ``usable`` and ``crowd`` bool ``[B, G]``: rows that can be matched, and crowd regions.
        """
        if boxes.shape[1] == 0:
            return nothing_to_match(anchors, boxes, None)
        batch, rows, total = boxes.shape[0], boxes.shape[1], anchors.shape[0]
        centres = (anchors[:, :2] + anchors[:, 2:]) / 2
        near = self._nearest(centres, level_sizes, boxes)  # [B, G, M]
        iou = pair_iou(anchors[near], boxes.unsqueeze(2))
        spread = iou.std(dim=2, keepdim=True, correction=min(1, iou.shape[2] - 1))
        within = _contains(boxes, centres[near])
        chosen = (iou >= iou.mean(dim=2, keepdim=True) + spread) & within & usable.unsqueeze(-1)

        # Of the objects that chose an anchor, take the one of highest IoU, or the first of equals. Anchors that no
        # object chose go to a column past the end.
        anchor = torch.where(chosen, near, total).flatten(1)
        best = iou.new_full((batch, total + 1), -1.0).scatter_reduce(1, anchor, iou.flatten(1), "amax")
        wins = chosen.flatten(1) & (iou.flatten(1) == best.gather(1, anchor))
        number = torch.arange(rows, device=boxes.device).repeat_interleave(near.shape[2]).expand(batch, -1)
        owner = torch.full((batch, total + 1), rows, dtype=torch.int64, device=boxes.device)
        owner = owner.scatter_reduce(1, torch.where(wins, anchor, total), number, "amin")[:, :-1]
        positive = owner < rows
        ignored = (points_in_boxes(centres, boxes) & crowd.unsqueeze(-1)).any(dim=1)
        return Matches(torch.where(positive, owner, 0), positive, ~positive & ~ignored)

    def _nearest(self, centres: Tensor, level_sizes: Sequence[int], boxes: Tensor) -> Tensor:
        """Return the indexes of the nearest anchors of each level, ``[B, G, M]``."""
        x, y = ((boxes[..., i, None] + boxes[..., i + 2, None]) / 2 for i in (0, 1))  # [B, G, 1]
        found, start = [], 0
        for size in level_sizes:
            level = centres[start : start + size]
            distance = (x - level[:, 0]).square_().add_((y - level[:, 1]).square_())  # [B, G, n]
            found.append(distance.topk(min(self.topk, size), dim=2, largest=False).indices + start)
            start += size
        return torch.cat(found, dim=2)


def _contains(boxes: Tensor, points: Tensor) -> Tensor:
    """Return True for the points ``[B, G, M, 2]`` that lie in their box ``[B, G, 4]``."""
    low, high = points - boxes[..., None, :2], boxes[..., None, 2:] - points
    return torch.minimum(low, high).amin(-1) > 0.01  # pixels, as the reference code: on the edge is outside
