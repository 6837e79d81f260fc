"""Box regression in closed form: a ridge regression per class (R-CNN appendix C).

Symbols: N pairs of window and object, D numbers of a feature, T = 4 targets.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from boxwright.fields import Count, Fraction, Positive, config

WHITENING_FLOOR = 1e-3
"""Added to the variances of the targets in whitening (released code)."""


@config
class RidgeFitConfig:
    """Box regression (appendix C)."""

    kind: Literal["boxes"] = "boxes"
    """Kind of fit."""
    overlap: Fraction = 0.6
    """Pair a proposal with the object that it overlaps most if their IoU is higher than this."""
    strength: Positive = 1000.0
    """Weight of the penalty, the paper's lambda."""
    norm: Positive | None = 20.0
    """Scale features of a class to this mean length, as for the SVMs; None leaves them as they are."""
    whiten: bool = True
    """Whiten the targets first, as the released code does; the paper does not say so."""
    regularise_bias: bool = True
    """Penalise the constant like other weights, as the released code does."""
    most: Count | None = None
    """Most pairs kept of each class, drawn at random; None keeps all. A pair takes 100 KB on VGG-16's pool5."""

    @property
    def passes(self) -> int:
        """Number of passes over the training set."""
        return 1


def fit_ridge(features: Tensor, targets: Tensor, config: RidgeFitConfig) -> tuple[Tensor, Tensor]:
    """Fit weights float32 ``[T, D]`` and constants ``[T]`` from features ``[N, D]`` to targets ``[N, T]``.

    Minimises ``|Y - X w - b|^2 + strength |w|^2``. Returns zeros, which move no box, if N is 0.
    """
    count, width = features.shape
    if count == 0:
        return features.new_zeros(targets.shape[1], width), features.new_zeros(targets.shape[1])
    x, y = features.double(), targets.double()
    scale = 1.0 if config.norm is None else config.norm / max(float(x.norm(dim=1).mean()), 1e-12)
    x = x * scale
    mean, forward, back = whitening(y) if config.whiten else (y.new_zeros(y.shape[1]), None, None)
    z = y if forward is None else (y - mean) @ forward
    if config.regularise_bias:
        solution = ridge(torch.cat([x, x.new_ones(count, 1)], 1), z, config.strength)  # [D + 1, T]
        weight, bias = solution[:-1], solution[-1]
    else:
        centre, middle = x.mean(0), z.mean(0)
        weight = ridge(x - centre, z - middle, config.strength)
        bias = middle - centre @ weight
    if back is not None:
        weight, bias = weight @ back, bias @ back + mean
    return (weight * scale).T.float().contiguous(), bias.float()


def ridge(x: Tensor, y: Tensor, strength: float) -> Tensor:
    """Solve ``(X'X + s)^-1 X'Y``, or the equal ``X'(XX' + s)^-1 Y`` if X has fewer rows than columns: ``[D, T]``."""
    count, width = x.shape
    gram = x.T @ x if width <= count else x @ x.T
    gram.diagonal().add_(strength)
    factor = torch.linalg.cholesky(gram)
    return torch.cholesky_solve(x.T @ y, factor) if width <= count else x.T @ torch.cholesky_solve(y, factor)


def whitening(y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the mean ``[T]`` of ``[N, T]``, and inverse root and root of its covariance, symmetric ``[T, T]``."""
    mean = y.mean(0)
    centred = y - mean
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(y))
    root = (values.clamp(min=0) + WHITENING_FLOOR).sqrt()
    return mean, (vectors / root) @ vectors.T, (vectors * root) @ vectors.T


class PairStore:
    """Pairs of one class: features float32 ``[n, D]`` and targets ``[n, T]``, a random sample of at most ``most``.

    The sample keeps the pairs with the least noise. A new pair replaces the one with the most noise, so that memory
    never holds more than ``most``.
    """

    def __init__(self, most: int | None) -> None:
        self.most = most
        self.seen = 0
        self._count = 0
        self._columns: list[Tensor] = []  # features, targets, noise; the first ``_count`` rows count

    def add(self, features: Tensor, targets: Tensor, noise: Tensor) -> None:
        """Add pairs; uniform ``noise`` ``[n]`` decides which stay if there are too many."""
        if len(features) == 0:
            return
        self.seen += len(features)
        new = [features, targets, noise]
        fitting = len(features) if self.most is None else min(len(features), self.most - self._count)
        if fitting > 0:
            self._make_room(self._count + fitting, new)
            for column, values in zip(self._columns, new, strict=True):
                column[self._count : self._count + fitting] = values[:fitting]
            self._count += fitting
        for row in range(fitting, len(features)):
            worst = int(self._columns[2].argmax())
            if noise[row] < self._columns[2][worst]:
                for column, values in zip(self._columns, new, strict=True):
                    column[worst] = values[row]

    def pairs(self) -> tuple[Tensor, Tensor] | None:
        """Features and targets; None where there are none."""
        if self._count == 0:
            return None
        features, targets, _ = (column[: self._count] for column in self._columns)
        return features, targets

    def _make_room(self, needed: int, like: list[Tensor]) -> None:
        """Twice the rows where they do not suffice, so that copying stays cheap; never more than ``most``."""
        have = len(self._columns[0]) if self._columns else 0
        if needed <= have:
            return
        rows = max(needed, 2 * have)
        rows = rows if self.most is None else min(rows, self.most)
        wider = [values.new_empty(rows, *values.shape[1:]) for values in like]
        for old, column in zip(self._columns, wider, strict=False):
            column[: self._count] = old[: self._count]
        self._columns = wider

    def state_dict(self) -> dict[str, Any]:
        """Return the state that resuming needs."""
        # A file holds all of the memory that a tensor is a part of; what is full needs no copy.
        used = [c if len(c) == self._count else c[: self._count].clone() for c in self._columns]
        return {"seen": self.seen, "columns": used}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state_dict()``."""
        self.seen = state["seen"]
        self._columns = list(state["columns"])
        self._count = len(self._columns[0]) if self._columns else 0
