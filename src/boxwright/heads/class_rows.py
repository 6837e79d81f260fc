"""Classes of the rows of a layer, for transferring weights between lists of classes.

A layer that tells classes apart has rows of one class each: 0..K-1 are the labels, K is background, ``SHARED`` is a row
that serves all classes. A head states its rows as a dict from the names of its tensors to int64 ``[rows]``.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

SHARED = -1
"""Stands for no class: the row serves all of them."""


def grouped_rows(head: nn.Module, layer: str, classes: Tensor) -> dict[str, Tensor]:
    """Rows of the layer ``layer`` of ``head``, where those of one class of ``classes`` follow each other."""
    length = head.get_parameter(f"{layer}.weight").shape[0]
    return of_layer(layer, classes.repeat_interleave(length // len(classes)))


def tiled_rows(head: nn.Module, layer: str, classes: Tensor, shared: int = 0) -> dict[str, Tensor]:
    """Rows of the layer ``layer`` of ``head``, where each anchor has ``shared`` rows, then one for each class."""
    length = head.get_parameter(f"{layer}.weight").shape[0]
    anchor = torch.cat([torch.full((shared,), SHARED), classes])
    return of_layer(layer, anchor.repeat(length // len(anchor)))


def of_layer(layer: str, rows: Tensor) -> dict[str, Tensor]:
    """``rows`` as those of the layer's weight and bias."""
    return {f"{layer}.weight": rows, f"{layer}.bias": rows}


def under(prefix: str, rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same rows by their names in a module that has the head as its submodule ``prefix``."""
    return {f"{prefix}.{name}": value for name, value in rows.items()}
