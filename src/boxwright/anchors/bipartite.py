"""SSD's matching: each object first gets an anchor of its own, then anchors that overlap an object join (SSD §2.2).

Symbols: B images, G padded ground truth, N candidates (default boxes).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from boxwright.anchors.matcher import Matches, nothing_to_match, overlaps
from boxwright.structures import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class BipartiteMatcher:
    """Match each ground truth to one candidate, then each other candidate by IoU.

    ``positive``: a candidate that no ground truth took is positive with its best one from this IoU on (Caffe; the paper
    says above). ``negative``: below this IoU it is negative, what lies between is ignored; None for ``positive``.
    ``strategy``: "greedy" as Caffe, the highest overlap of all pairs first, then the highest of what is left: no two
    ground truths share a candidate, and one that touches none gets none. "parallel" as amdegroot's, lufficc's and
    torchvision's ports: each takes its best candidate; of two that meet, the later one stays, and one that touches no
    candidate takes the first.
    ``floor``: the least IoU of a pair in the greedy strategy.
    ``crowd_ignore``: candidates that a crowd region covers by more than this share of their area are not negatives;
    None, as Caffe, treats crowd regions as background.
    """

    positive: float = 0.5
    negative: float | None = None
    strategy: Literal["greedy", "parallel"] = "greedy"
    floor: float = 1e-6
    crowd_ignore: float | None = None

    def __post_init__(self) -> None:
        negative = self.positive if self.negative is None else self.negative
        if not 0 <= negative <= self.positive <= 1:
            raise InputError(
                f"IoU thresholds negative {self.negative}, positive {self.positive}: "
                "they must rise in this order within 0..1"
            )

    def __call__(
        self, candidates: Tensor, boxes: Tensor, usable: Tensor, crowd: Tensor, allowed: Tensor | None = None
    ) -> Matches:
        """Match ``candidates`` ``[N, 4]`` or ``[B, N, 4]`` to ``boxes`` ``[B, G, 4]``.

        ``usable`` and ``crowd`` bool ``[B, G]``: rows that can be matched, and rows that only shade negatives.
        ``allowed`` bool ``[B, N]``: candidates that take part; the others are ignored.
        """
        if boxes.shape[1] == 0:
            return nothing_to_match(candidates, boxes, allowed)
        iou, shaded = overlaps(candidates, boxes, usable, crowd, allowed, self.crowd_ignore)  # [B, G, N]
        best, truth = iou.max(dim=1)  # [B, N]
        own = bipartite(iou, self.floor) if self.strategy == "greedy" else _favourites(iou, usable)  # [B, G]

        # A column past the end takes the rows that have none.
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


def _favourites(iou: Tensor, usable: Tensor) -> Tensor:
    """The best candidate of each ground truth, -1 for rows that are none, ``[B, G, N] -> [B, G]``."""
    return torch.where(usable, iou.argmax(dim=2), -1)


@torch.library.custom_op("boxwright::bipartite", mutates_args=())
def bipartite(iou: Tensor, floor: float) -> Tensor:
    """One candidate for each row of ``iou`` ``[B, G, N]``, by falling IoU of the pair: int64 ``[B, G]``, -1 for none.

    Pairs at or below ``floor`` do not count. Of equal pairs the first row goes first, then the first candidate. An
    operator of its own, for a compiler would write out the loop below once a row.
    """
    batch, rows, total = iou.shape
    # The bits of a float that is not negative rise with it. Below them the candidate's place, so that no two are equal.
    bits = iou.float().clamp(min=0).view(torch.int32).to(torch.int64)
    key = (bits << 32) + torch.arange(total - 1, -1, -1, device=iou.device)
    # A row loses at most one candidate to each other row, so its best G hold one that is left for it.
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
    # Nothing is lost by looking at values here, and most rows keep their first choice: one pass finds it.
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
