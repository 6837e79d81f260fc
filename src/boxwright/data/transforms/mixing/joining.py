"""Annotations of several images on one canvas, for the transforms that combine images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torchvision import tv_tensors

from boxwright.data.transforms.sample import NO_WAY_BACK, Sample


def joined(parts: Sequence[Sample], pixels: Tensor) -> Sample:
    """Return ``pixels`` with the annotations of all ``parts``, which have its size; its identity is the first part's.

    Masks and proposals are kept if all parts have them.
    """
    return replace(
        parts[0],
        image=tv_tensors.Image(pixels),
        boxes=torch.cat([part.boxes for part in parts]),
        labels=torch.cat([part.labels for part in parts]),
        crowd=torch.cat([part.crowd for part in parts]),
        difficult=torch.cat([part.difficult for part in parts]),
        masks=_all([part.masks for part in parts]),
        proposals=_all([part.proposals for part in parts]),
        with_mask=_all([part.with_mask for part in parts]),
        to_original=NO_WAY_BACK,
    )


def _all(tensors: Sequence[Tensor | None]) -> Tensor | None:
    given = [tensor for tensor in tensors if tensor is not None]
    return torch.cat(given) if len(given) == len(tensors) else None
