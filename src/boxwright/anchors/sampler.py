"""Sampling of a fixed number of candidates with a mask: at random, or those of highest loss.

The random choice depends on the seed alone. It is the same on every device and in every process.

Symbols: B images, N candidates, S chosen ones.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from boxwright.anchors.matching.matcher import Matches
from boxwright.fields import Count, PositiveShare, config
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
    """Draw uniform numbers in [0, 1) for ``seeds`` int64 ``[B]``: float32 ``[B, count]``.

    They are a pure function of seed, salt and position.
    """
    position = torch.arange(count, device=seeds.device, dtype=torch.int64)
    key = _mix(_mix(seeds ^ (seeds >> 32)) + salt * 0x9E3779B1)
    return (_mix(key.unsqueeze(1) ^ (position * 0x9E3779B1)) >> 8).to(torch.float32) * 2.0**-24


class Choice(NamedTuple):
    """Sampled candidates: their indexes ``chosen`` int64 ``[B, S]``; ``positive`` and ``valid`` bool ``[B, S]``."""

    chosen: Tensor
    positive: Tensor
    valid: Tensor


@config
class BalancedSampler:
    """Sample candidates at random without replacement, with a limit on the share of positives.

    Negatives fill up what positives leave. If there are too few candidates, the mask marks the missing ones. Caffe
    shrinks the batch likewise; other ports repeat negatives.
    """

    count: Count
    """Number of samples in an image."""
    positive_fraction: PositiveShare
    """Maximum share of positives among them."""

    def __call__(self, matches: Matches, seeds: Tensor, salt: int) -> Choice:
        """Choose from ``[B, N]`` matches; S is the lesser of ``count`` and N."""
        total = matches.positive.shape[1]
        noise = hashed_noise(seeds, total, salt) + 1.0  # in 1..2, so that 0 marks what may not be chosen
        key, positive = (noise * matches.positive).topk(min(int(self.count * self.positive_fraction), total), dim=1)
        chosen = torch.zeros_like(matches.positive).scatter(1, positive, key > 0)
        # Chosen positives first, then as many negatives as there is room for.
        key, index = (noise * (matches.negative | chosen) + 2.0 * chosen).topk(min(self.count, total), dim=1)
        return Choice(index, key > 2.5, key > 0)


def hard_negatives(loss: Tensor, matches: Matches, ratio: float = 3.0, minimum: int = 0) -> Tensor:
    """Choose the negatives of each image with the highest ``loss`` ``[B, N]``, ``ratio`` per positive: bool ``[B, N]``.

    SSD §2.2: 3 to 1, ranked by cross-entropy with background. If there are fewer, all are chosen; of equal losses, the
    first. An image without positives has no negatives, as in Caffe, unless ``minimum`` is above 0.
    """
    candidates = matches.negative
    wanted = (matches.positive.sum(1, keepdim=True) * ratio).to(torch.int64).clamp(min=minimum)  # [B, 1]
    ranked = torch.where(candidates, loss.detach(), -torch.inf)
    order = ranked.argsort(dim=1, descending=True, stable=True)
    first = torch.arange(loss.shape[1], device=loss.device) < wanted
    return torch.zeros_like(candidates).scatter(1, order, first) & candidates


@config
class OHEMSampler:
    """Sample the candidates of an image with the highest loss, positives and negatives together (OHEM §4)."""

    count: Count
    """Number of samples in an image."""
    nms_iou: PositiveShare | None = 0.7
    """IoU above which only the candidate of highest loss stays, as overlapping ones count one error several times
    (0.7 in the paper). None: no NMS."""
    pool: Count = 4096
    """Number of candidates of highest loss that take part in NMS; at least ``count``."""

    def __post_init__(self) -> None:
        if self.pool < self.count:
            raise InputError(f"pool = {self.pool}: must be at least count = {self.count}; raise it, or lower count")

    def __call__(self, loss: Tensor, matches: Matches, boxes: Tensor | None = None) -> Choice:
        """Choose by ``loss`` ``[B, N]``; S is the lesser of ``count`` and N.

        ``boxes`` ``[N, 4]`` or ``[B, N, 4]``: those of the candidates, for NMS.
        """
        key = torch.where(matches.positive | matches.negative, loss.detach().float(), -torch.inf)
        if self.nms_iou is not None:
            if boxes is None:
                raise InputError("OHEMSampler.nms_iou needs the candidates' boxes; pass them, or set it to None")
            key = self._without_overlaps(key, boxes, self.nms_iou)
        count = min(self.count, key.shape[1])
        best, chosen = key.topk(count, dim=1)
        valid = best > -torch.inf
        return Choice(chosen, matches.positive.gather(1, chosen) & valid, valid)

    def _without_overlaps(self, key: Tensor, boxes: Tensor, iou: float) -> Tensor:
        """Set ``key`` to minus infinity where a candidate overlaps one of higher loss."""
        best, hardest = key.topk(min(self.pool, key.shape[1]), dim=1)
        corners = take_rows(boxes.expand(key.shape[0], -1, -1), hardest)
        standing, valid = nms(corners, best, iou, best.shape[1])
        standing = torch.where(valid, hardest.gather(1, standing), key.shape[1])  # the rest to a column of their own
        left = torch.zeros_like(key[:, :1], dtype=torch.bool).expand(-1, key.shape[1] + 1).scatter(1, standing, True)
        return torch.where(left[:, :-1], key, -torch.inf)
