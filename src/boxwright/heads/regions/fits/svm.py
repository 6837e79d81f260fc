"""Linear SVMs, one per class, trained with hard negative mining (R-CNN §2.3; liblinear behind the extra `rcnn`).

Symbols: K classes, D numbers of a feature, N windows of an image.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from boxwright.fields import Count, Finite, Positive, PositiveShare, config
from boxwright.structures import InputError


@config
class SVMFitConfig:
    """Training of the SVM of each class. Defaults are those of the paper (§2.3) and its released code."""

    kind: Literal["svm"] = "svm"
    """Kind of fit."""
    positives: Literal["truth", "overlap"] = "truth"
    """"truth": the annotated boxes alone. "overlap": all windows with an IoU of ``positive_iou`` or more with an object
    of the class, the boxes among them."""
    positive_iou: PositiveShare = 0.5
    """Minimum IoU of a positive under "overlap"."""
    negative_iou: PositiveShare = 0.3
    """Windows with a lower IoU with every object of the class are negatives; those between are ignored."""
    c: Positive = 1e-3
    """Cost of a violation, liblinear's C."""
    positive_weight: Positive = 2.0
    """Factor of that cost for positives."""
    bias: Positive = 10.0
    """Value of the constant feature, whose weight is regularised with the others."""
    norm: Positive | None = 20.0
    """Scale features to this mean length; None leaves them as they are."""
    norm_images: Count = 200
    """Images on which the mean length is measured."""
    norm_windows: Count = 200
    """Windows of each of these images."""
    hard: Finite = -1.0001
    """Negatives with a higher margin join the training set; the first image with a negative gives all."""
    evict: Finite = -1.2
    """Negatives with a lower margin leave the training set when the SVM is retrained."""
    retrain: Count = 2000
    """Retrain the SVM after more new negatives than this."""
    rounds: Count = 1
    """Passes over the images that mine negatives."""
    tolerance: Positive = 1e-3
    """Tolerance at which liblinear stops."""
    iterations: Count = 10_000
    """Most iterations of liblinear."""

    def __post_init__(self) -> None:
        if self.positives == "overlap" and self.negative_iou > self.positive_iou:
            raise InputError(
                f"fit.negative_iou = {self.negative_iou} is above fit.positive_iou = {self.positive_iou}: a window "
                "would be both; lower the former"
            )
        if self.evict > self.hard:
            raise InputError(
                f"fit.evict = {self.evict} is above fit.hard = {self.hard}: what is added would leave at once; lower it"
            )

    @property
    def passes(self) -> int:
        """Number of passes over the training set: one for the positives and the mean length, then those that mine."""
        return 1 + self.rounds


def require_liblinear() -> Any:
    """Import sklearn's SVM module. Raises InputError with the command that installs it if it is absent."""
    try:
        return importlib.import_module("sklearn.svm")
    except ImportError:
        raise InputError(
            "fitting SVMs needs scikit-learn; install it with `pip install 'boxwright[rcnn]'`, or score by the softmax "
            "with a recipe that fits none"
        ) from None


def fit_svm(positives: Tensor, negatives: Tensor, config: SVMFitConfig, seed: int) -> tuple[Tensor, Tensor]:
    """Train the SVM between ``[P, D]`` and ``[N, D]``, at least one row each: weight float64 ``[D]`` and bias ``[]``.

    liblinear solves the dual of the L2-regularised hinge loss. Equal inputs give equal bits.
    """
    examples = torch.cat([positives, negatives]).double().numpy()
    machine = require_liblinear().LinearSVC(
        loss="hinge",
        dual=True,
        C=config.c,
        class_weight={1: config.positive_weight, 0: 1.0},
        intercept_scaling=config.bias,
        tol=config.tolerance,
        max_iter=config.iterations,
        random_state=seed % 2**32,
    )
    with warnings.catch_warnings():
        # A solution short of its tolerance is used all the same, as liblinear's own program does.
        warnings.filterwarnings("ignore", message="Liblinear failed to converge")
        machine.fit(examples, [1] * len(positives) + [0] * len(negatives))
    return torch.from_numpy(machine.coef_[0].copy()), torch.tensor(float(machine.intercept_[0]), dtype=torch.float64)


class MinedSVM:
    """SVM of one class with its training set. ``weight`` is None before the first fit."""

    def __init__(self, config: SVMFitConfig, seed: int, positives: Tensor) -> None:
        """``positives`` float32 ``[P, D]``, scaled already."""
        self.config, self.seed = config, seed
        self.positives = positives
        self.negatives = positives.new_zeros(0, positives.shape[1])
        self.keys: set[tuple[int, int]] = set()  # image and window of each negative that was ever taken
        self.owners: list[tuple[int, int]] = []  # of the rows of negatives
        self.weight: Tensor | None = None
        self.bias = torch.zeros((), dtype=torch.float64)
        self.added = 0
        self.fits = 0

    def margins(self, features: Tensor) -> Tensor:
        """Compute the margins of features ``[N, D]``: float64 ``[N]``."""
        assert self.weight is not None
        return features.double() @ self.weight + self.bias

    def mine(self, image: int, features: Tensor, negative: Tensor) -> int:
        """Add the hard windows ``[N, D]`` of an image where ``negative`` ``[N]``; return the number of new ones."""
        if self.weight is not None:
            negative = negative & (self.margins(features) > self.config.hard)
        rows = [row for row in negative.nonzero().flatten().tolist() if (image, row) not in self.keys]
        self.negatives = torch.cat([self.negatives, features[rows]])
        new = [(image, row) for row in rows]
        self.keys.update(new)
        self.owners += new
        self.added += len(new)
        return len(new)

    def update(self, last: bool) -> None:
        """Retrain if it is due, and drop easy negatives."""
        due = self.weight is None or self.added > self.config.retrain or last
        if not due or len(self.negatives) == 0 or len(self.positives) == 0:
            return
        self.weight, self.bias = fit_svm(self.positives, self.negatives, self.config, self.seed)
        self.added, self.fits = 0, self.fits + 1
        kept = self.margins(self.negatives) >= self.config.evict
        gone = {owner for owner, stays in zip(self.owners, kept.tolist(), strict=True) if not stays}
        self.negatives = self.negatives[kept]
        self.owners = [owner for owner in self.owners if owner not in gone]
        self.keys -= gone  # a later pass may find them hard again

    def state_dict(self) -> dict[str, Any]:
        """Return the state that resuming needs."""
        return {
            "positives": self.positives,
            "negatives": self.negatives,
            "owners": [list(owner) for owner in self.owners],
            "weight": self.weight,
            "bias": self.bias,
            "added": self.added,
            "fits": self.fits,
        }

    @classmethod
    def from_state(cls, config: SVMFitConfig, seed: int, state: dict[str, Any]) -> MinedSVM:
        """Restore from ``state_dict()``."""
        made = cls(config, seed, state["positives"])
        made.negatives, made.weight, made.bias = state["negatives"], state["weight"], state["bias"]
        made.owners = [(image, row) for image, row in state["owners"]]
        made.keys = set(made.owners)
        made.added, made.fits = state["added"], state["fits"]
        return made


def joined_svms(machines: Sequence[MinedSVM], scale: float, names: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Stack the SVMs: weights float32 ``[K, D]`` and biases ``[K]`` for unscaled features.

    Raises InputError naming a class without a negative or without a positive.
    """
    for machine, name in zip(machines, names, strict=True):
        if machine.weight is None:
            what = "positive" if len(machine.positives) == 0 else "negative"
            raise InputError(
                f"the SVM of class {name!r} has no {what} window in the training set; "
                + (
                    "annotate some, or leave the class out"
                    if what == "positive"
                    else "give more proposals (data.proposals.most), or raise fit.negative_iou"
                )
            )
    weights = torch.stack([m.weight for m in machines if m.weight is not None]) * scale
    return weights.float(), torch.stack([m.bias for m in machines]).float()
