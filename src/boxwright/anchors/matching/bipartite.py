"""Bipartite matching, then matching by IoU (SSD §2.2).

Symbols: B images, G padded ground truth, N candidates (default boxes).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from boxwright.anchors.matching.matcher import Matches, nothing_to_match, overlaps
from boxwright.fields import Fraction, Share, config
from boxwright.structures import InputError


@config
class BipartiteMatcher:
    """Match each ground truth to one candidate, then each other candidate by IoU."""

    positive: Share = 0.5
    """Minimum IoU of a positive candidate that is no ground truth's own (Caffe; the paper says above)."""
    negative: Share | None = None
    """IoU below which a candidate is negative. Candidates between are ignored. None: ``positive``."""
    strategy: Literal["greedy", "parallel"] = "greedy"
    """Rule that gives each ground truth its own candidate.

    "greedy" (Caffe): the pair of highest IoU first, then the highest of those left. No two ground truths share a
    candidate, and one that overlaps none gets none. "parallel" (the ports of amdegroot and lufficc, torchvision): each
    takes its best candidate. The last of several that take the same one keeps it. One that overlaps none takes the
    first candidate.
    """
    floor: Fraction = 1e-6
    """IoU above which a pair counts for "greedy"."""
    crowd_ignore: Share | None = None
    """Share of a candidate's area above which a crowd region makes it ignored instead of negative. None: crowd regions
    are background (Caffe)."""

    def __post_init__(self) -> None:
        negative = self.positive if self.negative is None else self.negative
        if negative > self.positive:
            raise InputError(f"negative = {self.negative}: must not be above positive = {self.positive}")

    def __call__(
        self, candidates: Tensor, boxes: Tensor, usable: Tensor, crowd: Tensor, allowed: Tensor | None = None
    ) -> Matches:
        """Match ``candidates`` ``[N, 4]`` or ``[B, N, 4]`` to ``boxes`` ``[B, G, 4]``.

        ``usable`` and ``crowd`` bool ``[B, G]``: objects that can be matched, and crowd regions.
        ``allowed`` bool ``[B, N]``: candidates that take part; the others are ignored.
        """
        if boxes.shape[1] == 0:
            return nothing_to_match(candidates, boxes, allowed)
        iou, shaded = overlaps(candidates, boxes, usable, crowd, allowed, self.crowd_ignore)  # [B, G, N]
        best, truth = iou.max(dim=1)  # [B, N]
        own = bipartite(iou, self.floor) if self.strategy == "greedy" else _best_candidates(iou, usable)  # [B, G]

        # Rows without a candidate write to an additional last column.
        slot = torch.where(own >= 0, own, iou.shape[2])
        number = torch.arange(iou.shape[1], device=iou.device).expand_as(slot)
        taken = torch.full_like(best[:, :1], -1, dtype=torch.int64).expand(-1, iou.shape[2] + 1)
        taken = taken.scatter_reduce(1, slot, number, "amax")[:, :-1]  # the later ground truth of two
        truth = torch.where(taken >= 0, taken, truth)
        positive = (taken >= 0) | (best >= self.positive)
        negative = best < (self.positive if self.negative is None else self.negative)
        if shaded is not None:
            negative = negative & ~shaded
        if allowed is not None:
            positive, negative = positive & allowed, negative & allowed
        return Matches(truth, positive, negative & ~positive)


def _best_candidates(iou: Tensor, usable: Tensor) -> Tensor:
    """Return the best candidate of each ground truth, -1 for unusable rows: ``[B, G, N] -> [B, G]``."""
    return torch.where(usable, iou.argmax(dim=2), -1)


@torch.library.custom_op("boxwright::bipartite", mutates_args=())
def bipartite(iou: Tensor, floor: float) -> Tensor:
    """Assign a candidate of its own to each row of ``iou`` ``[B, G, N]``, in descending order of IoU.

    Returns int64 ``[B, G]``, -1 for none. Pairs at or below ``floor`` are left out. Of equal pairs the first row comes
    first, then the first candidate. This is a custom operator because a compiler would unroll the loop over the rows.
    """
    batch, rows, total = iou.shape
    # The bits of a non-negative float grow with it. The candidate's index in the low bits makes all keys different.
    bits = iou.float().clamp(min=0).view(torch.int32).to(torch.int64)
    key = (bits << 32) + torch.arange(total - 1, -1, -1, device=iou.device)
    # Every other row takes at most one candidate, so one of a row's best G is free.
    key, index = key.topk(min(rows, total), dim=2)
    value = torch.where(iou.gather(2, index) > floor, key, -1)
    own = torch.full((batch, rows), -1, dtype=torch.int64, device=iou.device)
    number = torch.arange(rows, device=iou.device).unsqueeze(-1)
    for _ in range(min(rows, total)):
        place = value.flatten(1).argmax(dim=1, keepdim=True)  # [B, 1]
        found = value.flatten(1).gather(1, place) >= 0
        row, candidate = place // value.shape[2], index.flatten(1).gather(1, place)
        own.scatter_(1, row, torch.where(found, candidate, own.gather(1, row)))
        value.masked_fill_((index == candidate.unsqueeze(-1)) | (number == row.unsqueeze(-1)), -1)
    return own


@bipartite.register_kernel("cpu")
def _(iou: Tensor, floor: float) -> Tensor:
    # On the CPU reading values is no synchronisation, and one pass suffices for the many rows that keep their best.
    value, index = iou.max(dim=2)
    own = torch.full_like(index, -1)
    for image in range(iou.shape[0]):
        best, choice = value[image].tolist(), index[image].tolist()
        taken: list[int] = []
        while best and (height := max(best)) > floor:
            row = best.index(height)
            if choice[row] in taken:
                left = iou[image, row].index_fill(0, torch.tensor(taken), -1.0)
                best[row], choice[row] = left.max().item(), int(left.argmax())
            else:
                taken.append(choice[row])
                own[image, row] = choice[row]
                best[row] = -1.0
    return own


@bipartite.register_fake
def _(iou: Tensor, floor: float) -> Tensor:
    return iou.new_empty(iou.shape[:2], dtype=torch.int64)
