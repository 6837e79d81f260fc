"""Convert heads of other layouts: separate offsets and scores, background as the first class."""

from __future__ import annotations

import torch
from torch import Tensor

from boxwright.structures import Classes, InputError


def check_class_count(count: int, classes: Classes | None, origin: str = "the checkpoint") -> None:
    """Raise InputError if ``classes`` has another number of names than ``origin`` has classes."""
    if count < 1:
        raise InputError(f"{origin}: its first head has no class at all; is the file complete?")
    if classes is not None and len(classes) != count:
        raise InputError(
            f"{origin}: is for {count} classes and background, but {len(classes)} names were given; give {count}, in "
            "the order of its training"
        )


def joined_head(offsets: Tensor, scores: Tensor, background_first: bool = True) -> Tensor:
    """Join the weights or biases of two layers: for every prior of a cell 4 offsets, the scores, background last.

    ``offsets``: ``[a * 4, ...]``. ``scores``: ``[a * (K + 1), ...]``, with background as the first or the last class.
    """
    cell = offsets.shape[0] // 4
    offsets, scores = offsets.unflatten(0, (cell, 4)), scores.unflatten(0, (cell, -1))
    parts = [offsets, scores[:, 1:], scores[:, :1]] if background_first else [offsets, scores]
    return torch.cat(parts, dim=1).flatten(0, 1)


def background_last(scores: Tensor, rows: int = 1) -> Tensor:
    """Move the rows of background, the first ``rows`` rows of class scores, to the end."""
    return torch.cat([scores[rows:], scores[:rows]])
