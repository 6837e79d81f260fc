"""A fixed number of candidates out of many, with a mask: random, but the same on every device and in every process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from boxwright.anchors.matcher import Matches
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
