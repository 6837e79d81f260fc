"""Coding of boxes relative to reference boxes (R-CNN appendix C, Faster R-CNN §3.1.2)."""

from __future__ import annotations

import math
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from boxwright.fields import Finite, Positive, config
from boxwright.geometry.constants import constant


@config
class BoxCoder:
    """Code boxes as deltas: ``dx dy`` of the centre in reference sizes and ``dw dh``, logs of size ratios."""

    weights: tuple[Positive, Positive, Positive, Positive] = (1.0, 1.0, 1.0, 1.0)
    """Factors of the deltas, 1 / standard deviation of the targets; (10, 10, 5, 5) in the second stage."""
    clamp: Finite | None = math.log(1000.0 / 16)
    """Upper bound of dw and dh before the exponential. None: no bound, as in py-faster-rcnn."""
    offset: Finite = 0.0
    """Added to widths and heights: 1 counts the last pixel as part of the box (Caffe), 0 does not."""
    decoded_end: Finite | None = None
    """Subtracted from the far corner of a decoded box. None: ``offset``, so that decoding inverts encoding.
    py-faster-rcnn and DetNet_pytorch subtract 0 with an offset of 1."""

    def encode(self, reference: Tensor, boxes: Tensor) -> Tensor:
        """Return the deltas ``[..., 4]`` from ``reference`` to ``boxes``; finite for empty boxes too."""
        size = (reference[..., 2:] - reference[..., :2] + self.offset).clamp(min=1e-3)
        target = (boxes[..., 2:] - boxes[..., :2] + self.offset).clamp(min=1e-3)
        centre = (boxes[..., :2] + target / 2) - (reference[..., :2] + size / 2)
        deltas = torch.cat([centre / size, torch.log(target / size)], dim=-1)
        return deltas * self._weights(deltas)

    def decode(self, reference: Tensor, deltas: Tensor) -> Tensor:
        """Apply ``deltas`` to ``reference`` boxes: ``[..., 4]``."""
        deltas = deltas / self._weights(deltas)
        size = reference[..., 2:] - reference[..., :2] + self.offset
        log_ratio = deltas[..., 2:] if self.clamp is None else deltas[..., 2:].clamp(max=self.clamp)
        half = 0.5 * size * torch.exp(log_ratio)
        centre = reference[..., :2] + 0.5 * size + deltas[..., :2] * size
        end = self.offset if self.decoded_end is None else self.decoded_end
        return torch.cat([centre - half, centre + half - end], dim=-1)

    def _weights(self, like: Tensor) -> Tensor:
        return constant(self.weights, like.device, like.dtype)


class NormalisedCoder(NamedTuple):
    """Coder whose deltas are normalised: those of ``base``, less ``mean``, over ``std``, both ``[..., 4]``."""

    base: BoxCoder
    mean: Tensor
    std: Tensor

    def encode(self, reference: Tensor, boxes: Tensor) -> Tensor:
        """Return the normalised deltas ``[..., 4]`` from ``reference`` to ``boxes``."""
        return (self.base.encode(reference, boxes) - self.mean) / self.std

    def decode(self, reference: Tensor, deltas: Tensor) -> Tensor:
        """Apply normalised ``deltas`` to ``reference`` boxes: ``[..., 4]``."""
        return self.base.decode(reference, deltas * self.std + self.mean)


Coder: TypeAlias = BoxCoder | NormalisedCoder
