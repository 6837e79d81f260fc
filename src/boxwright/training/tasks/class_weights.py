"""Weights of the classes in the loss, from what a recipe says and what a data set holds."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from boxwright.config.recipe import ClassWeighting
from boxwright.data.index import DetectionIndex
from boxwright.fields import nearest
from boxwright.structures import InputError


def weights_of_classes(wanted: ClassWeighting | None, index: DetectionIndex) -> list[float] | None:
    """Return the weight of each class of ``index``, positive; None if nothing is to be weighted.

    "balanced" is in inverse proportion to the number n of a class's objects, "sqrt" to its root; both have a mean of 1
    over all objects, so that the loss keeps its scale. Crowds do not count. A class without objects has the weight 1.
    By name, a class that is not named has the weight 1. Raises InputError for a name that is not a class.
    """
    names = index.classes.names
    if wanted is None:
        return None
    if isinstance(wanted, Mapping):
        for name in wanted:
            if name not in names:
                near = nearest(name, names) or f"; the classes are {', '.join(names[:20])}" + ", ..." * (
                    len(names) > 20
                )
                raise InputError(f"class_weights: {name!r} is not a class of {index.root}{near}")
        return [float(wanted.get(name, 1.0)) for name in names]
    counts = np.bincount(index.labels[~index.crowd], minlength=len(names)).astype(np.float64)
    if not counts.any():
        return [1.0] * len(names)
    given = np.maximum(counts, 1) ** (-1.0 if wanted == "balanced" else -0.5)
    given *= counts.sum() / (counts * given).sum()
    return np.where(counts > 0, given, 1.0).tolist()


def weights_note(names: tuple[str, ...], weights: list[float]) -> str:
    """Return a line for the log with the weights, of many classes those of the largest and the smallest."""
    order = sorted(range(len(names)), key=lambda i: -weights[i])
    shown = [f"{names[i]} {weights[i]:.3g}" for i in order]
    return f"class weights: {', '.join(shown if len(shown) <= 8 else [*shown[:4], '...', *shown[-4:]])}"
