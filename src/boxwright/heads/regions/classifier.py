"""Initialisation of fc6 and fc7 from the classifier of a pretrained VGG-16 or ZF (Fast R-CNN §2.2)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn


@torch.no_grad()
def take_classifier(layers: Iterable[nn.Module], state: Mapping[str, Tensor], side: int | None = None) -> int:
    """Copy the classifier's layers "0" and "3", fc6 and fc7, into ``layers`` as far as they fit; return their number.

    The classifier flattens its map with channels first. ``side``: the first of ``layers`` reads a map of ``side`` x
    ``side`` cells that is flattened with channels last, so its columns are reordered. None: channels first here too.
    """
    taken = 0
    for layer, name in zip(layers, ("0", "3"), strict=False):
        weight, bias = state.get(f"{name}.weight"), state.get(f"{name}.bias")
        if not isinstance(layer, nn.Linear) or weight is None or bias is None or weight.shape != layer.weight.shape:
            break
        if taken == 0 and side is not None:
            weight = weight.unflatten(1, (-1, side, side)).permute(0, 2, 3, 1).flatten(1)
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
        taken += 1
    return taken
