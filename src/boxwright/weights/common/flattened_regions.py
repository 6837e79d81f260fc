"""Order of the inputs of the first layer that reads flattened regions: channels first elsewhere, channels last here."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

FIRST_LAYER = "head.layers.0.weight"
"""Our name of that layer's weight in a box head with fully connected layers."""
_RPN = "rpn.convs.0.weight"


def first_layer_channels_last(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return ``state``, under our names, with the inputs of the first layer reordered to channels last.

    The number of channels is that of the RPN's input. A state dict without the layer or the RPN is returned as it is.
    """
    if FIRST_LAYER not in state or _RPN not in state:
        return dict(state)
    return {**state, FIRST_LAYER: channels_last(state[FIRST_LAYER], state[_RPN].shape[1])}


def first_layer_channels_first(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo :func:`first_layer_channels_last`. The RPN must be in ``state`` where the layer is."""
    if FIRST_LAYER not in state:
        return dict(state)
    return {**state, FIRST_LAYER: channels_first(state[FIRST_LAYER], state[_RPN].shape[1])}


def channels_last(weight: Tensor, channels: int) -> Tensor:
    """Reorder the inputs of a layer on flattened regions, ``[N, C * P * P] -> [N, P * P * C]``.

    A weight whose size does not fit is returned as it is. The loader then reports its shape with all other faults.
    """
    side = round((weight.shape[1] / channels) ** 0.5)
    if channels * side * side != weight.shape[1]:
        return weight
    return weight.reshape(-1, channels, side, side).permute(0, 2, 3, 1).flatten(1)


def channels_first(weight: Tensor, channels: int) -> Tensor:
    """Reorder the inputs back, ``[N, P * P * C] -> [N, C * P * P]``."""
    side = round((weight.shape[1] / channels) ** 0.5)
    return weight.reshape(-1, side, side, channels).permute(0, 3, 1, 2).flatten(1)
