"""A fixed number of candidates out of many, with a mask: at random, but the same on every device and in every process;
or the hardest, by their loss.

Symbols: B images, N candidates, S chosen ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from boxwright.anchors.matcher import Matches
from boxwright.geometry.indexing import take_rows
from boxwright.geometry.nms import nms
from boxwright.structures import InputError

_LOW_32 = 0xFFFFFFFF


def _mix(x: Tensor) -> Tensor:
    """Scatter the low 32 bits of int64 values (xor-shift and multiply, constants of Wellons' "lowbias32")."""
    x = x & _LOW_32
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & _LOW_32
    x = ((x ^ (x >> 15)) * 0x846CA68B) & _LOW_32
    return x ^ (x >> 16)


def hashed_noise(seeds: Tensor, count: int, salt: int) -> Tensor:
    """Uniform numbers in 0..1, ``[B] int64 -> [B, count]`` float32, a pure function of seed, salt and position."""
    position = torch.arange(count, device=seeds.device, dtype=torch.int64)
    key = _mix(_mix(seeds ^ (seeds >> 32)) + salt * 0x9E3779B1)
    return (_mix(key.unsqueeze(1) ^ (position * 0x9E3779B1)) >> 8).to(torch.float32) * 2.0**-24


class Choice(NamedTuple):
    """``chosen`` int64 ``[B, S]`` of the chosen candidates; ``positive`` and ``valid`` bool ``[B, S]``."""

    chosen: Tensor
    positive: Tensor
    valid: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class BalancedSampler:
    """``count`` candidates of an image, at most ``positive_fraction`` of them positive, filled up with negatives.

    Without replacement; where candidates are short the mask says so, instead of repeating some (Caffe lets the batch
    shrink alike; other ports draw negatives again).
    """

    count: int
    positive_fraction: float

    def __post_init__(self) -> None:
        if self.count < 1 or not 0 < self.positive_fraction <= 1:
            raise InputError(
                f"sampling {self.count} candidates with a positive share of {self.positive_fraction}: "
                "the count must be at least 1 and the share above 0 and at most 1"
            )

    def __call__(self, matches: Matches, seeds: Tensor, salt: int) -> Choice:
        """Choose from ``[B, N]`` matches; S is ``count``, or N where there are fewer."""
        total = matches.positive.shape[1]
        noise = hashed_noise(seeds, total, salt) + 1.0  # in 1..2, so that 0 marks what may not be chosen
        key, positive = (noise * matches.positive).topk(min(int(self.count * self.positive_fraction), total), dim=1)
        chosen = torch.zeros_like(matches.positive).scatter(1, positive, key > 0)
        # Chosen positives first, then as many negatives as there is room for.
        key, index = (noise * (matches.negative | chosen) + 2.0 * chosen).topk(min(self.count, total), dim=1)
        return Choice(index, key > 2.5, key > 0)


def hard_negatives(loss: Tensor, matches: Matches, ratio: float = 3.0, minimum: int = 0) -> Tensor:
    """The negatives of each image with the highest ``loss`` ``[B, N]``, ``ratio`` for each positive: bool ``[B, N]``.

    SSD §2.2: 3 to 1, ranked by the cross-entropy with background. If there are fewer, all are taken; of equal losses
    the first. An image without positives has no negatives, as in Caffe, unless ``minimum`` asks for some.
    """
    candidates = matches.negative
    wanted = (matches.positive.sum(1, keepdim=True) * ratio).to(torch.int64).clamp(min=minimum)  # [B, 1]
    ranked = torch.where(candidates, loss.detach(), -torch.inf)
    order = ranked.argsort(dim=1, descending=True, stable=True)
    first = torch.arange(loss.shape[1], device=loss.device) < wanted
    return torch.zeros_like(candidates).scatter(1, order, first) & candidates


@dataclass(frozen=True, slots=True, kw_only=True)
class OHEMSampler:
    """The ``count`` candidates of an image with the highest loss, positives and negatives together (OHEM §4).

    ``nms_iou``: of candidates that overlap by more, only the one with the highest loss stands, for they would count one
    mistake several times (0.7 in the paper); the ``pool`` hardest take part in that. None: no NMS.
    """

    count: int
    nms_iou: float | None = 0.7
    pool: int = 4096

    def __post_init__(self) -> None:
        if self.count < 1 or self.pool < self.count:
            raise InputError(
                f"ohem.count {self.count} must be at least 1 and ohem.pool {self.pool} no fewer; raise the one too low"
            )
        if self.nms_iou is not None and not 0 < self.nms_iou <= 1:
            raise InputError(f"ohem.nms_iou = {self.nms_iou}: must be above 0 and at most 1, or none for no NMS")

    def __call__(self, loss: Tensor, matches: Matches, boxes: Tensor | None = None) -> Choice:
        """Choose by ``loss`` ``[B, N]``; S is ``count``, or N where there are fewer.

        ``boxes`` ``[N, 4]`` or ``[B, N, 4]``, the candidates', are needed for NMS.
        """
        key = torch.where(matches.positive | matches.negative, loss.detach().float(), -torch.inf)
        if self.nms_iou is not None:
            if boxes is None:
                raise InputError("ohem.nms_iou is set, so the sampler needs the candidates' boxes; pass them, or None")
            key = self._without_overlaps(key, boxes, self.nms_iou)
        count = min(self.count, key.shape[1])
        best, chosen = key.topk(count, dim=1)
        valid = best > -torch.inf
        return Choice(chosen, matches.positive.gather(1, chosen) & valid, valid)

    def _without_overlaps(self, key: Tensor, boxes: Tensor, iou: float) -> Tensor:
        """``key``, minus infinity where a candidate overlaps a harder one."""
        best, hardest = key.topk(min(self.pool, key.shape[1]), dim=1)
        corners = take_rows(boxes.expand(key.shape[0], -1, -1), hardest)
        standing, valid = nms(corners, best, iou, best.shape[1])
        standing = torch.where(valid, hardest.gather(1, standing), key.shape[1])  # the rest to a column of their own
        left = torch.zeros_like(key[:, :1], dtype=torch.bool).expand(-1, key.shape[1] + 1).scatter(1, standing, True)
        return torch.where(left[:, :-1], key, -torch.inf)
