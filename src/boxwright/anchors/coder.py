"""Boxes as offsets from reference boxes (R-CNN appendix C, Faster R-CNN §3.1.2)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from boxwright.geometry.constants import constant


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxCoder:
    """``dx dy`` of the centre in reference sizes, ``dw dh`` as logarithm of the size ratio, times ``weights``.

    ``weights``: 1 / standard deviation of the targets; (10, 10, 5, 5) in the second stage.
    ``clamp``: upper bound of dw and dh before the exponential; None for none, as in py-faster-rcnn.
    ``offset``: 1 counts the last pixel as part of the box (Caffe), 0 does not.
    ``decoded_end``: taken from the far corner of a decoded box; None for ``offset``, which makes decoding the inverse
    of encoding. py-faster-rcnn and DetNet_pytorch take nothing: 0, with an offset of 1.
    """

    weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    clamp: float | None = math.log(1000.0 / 16)
    offset: float = 0.0
    decoded_end: float | None = None

    def encode(self, reference: Tensor, boxes: Tensor) -> Tensor:
        """Deltas ``[..., 4]`` that take ``reference`` to ``boxes``; finite for empty boxes too."""
        size = (reference[..., 2:] - reference[..., :2] + self.offset).clamp(min=1e-3)
        target = (boxes[..., 2:] - boxes[..., :2] + self.offset).clamp(min=1e-3)
        centre = (boxes[..., :2] + target / 2) - (reference[..., :2] + size / 2)
        deltas = torch.cat([centre / size, torch.log(target / size)], dim=-1)
        return deltas * self._weights(deltas)

    def decode(self, reference: Tensor, deltas: Tensor) -> Tensor:
        """Boxes ``[..., 4]`` that ``deltas`` make of ``reference``."""
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
    """``base``, whose offsets are brought to mean 0 and deviation 1: less ``mean``, over ``std``, both ``[..., 4]``."""

    base: BoxCoder
    mean: Tensor
    std: Tensor

    def encode(self, reference: Tensor, boxes: Tensor) -> Tensor:
        """Normalised deltas ``[..., 4]`` that take ``reference`` to ``boxes``."""
        return (self.base.encode(reference, boxes) - self.mean) / self.std

    def decode(self, reference: Tensor, deltas: Tensor) -> Tensor:
        """Boxes ``[..., 4]`` that normalised ``deltas`` make of ``reference``."""
        return self.base.decode(reference, deltas * self.std + self.mean)


Coder: TypeAlias = BoxCoder | NormalisedCoder
