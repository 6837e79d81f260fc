"""Join separate convolutions for offsets and scores into one head, as our SSD has it."""

from __future__ import annotations

import torch
from torch import Tensor

from boxwright.structures import Classes, InputError


def check_class_count(count: int, classes: Classes | None) -> None:
    """Raise InputError if ``classes`` has another number of names than the ``count`` of a checkpoint."""
    if count < 1:
        raise InputError("the checkpoint's first head is for no class at all; is the file whole?")
    if classes is not None and len(classes) != count:
        raise InputError(
            f"the checkpoint is for {count} classes and background, but {len(classes)} names were given; give {count}, "
            "in the order that it was trained with"
        )


def joined_head(offsets: Tensor, scores: Tensor, background_first: bool = True) -> Tensor:
    """Join the weights or biases of two layers: for every prior of a cell 4 offsets, the scores, background last.

    ``offsets``: ``[a * 4, ...]``. ``scores``: ``[a * (K + 1), ...]``, with background as the first or the last class.
    """
    cell = offsets.shape[0] // 4
    offsets, scores = offsets.unflatten(0, (cell, 4)), scores.unflatten(0, (cell, -1))
    parts = [offsets, scores[:, 1:], scores[:, :1]] if background_first else [offsets, scores]
    return torch.cat(parts, dim=1).flatten(0, 1)
