"""Linear SVMs of every class, fitted with mined hard negatives (R-CNN §2.3; liblinear behind the extra `rcnn`).

Symbols: K classes, D numbers of a feature, N windows of an image.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from boxwright.structures import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class SVMFitConfig:
    """What a class's SVM is fitted on and how; defaults are those of the paper (§2.3) and its released code.

    ``positives``: "truth" takes the annotated boxes alone; "overlap" every window with an IoU of ``positive_iou`` or
    more with an object of the class, boxes among them. ``negative_iou``: windows below it with every object of the
    class are negatives; what lies between is ignored. (Appendix B asks why fine-tuning labels otherwise.)
    ``c``, ``positive_weight``, ``bias``: of liblinear: the cost of a violation, its factor for positives, and the value
    of the constant feature, whose weight is regularised with the others.
    ``norm``: features are scaled so that this is their mean length, measured on ``norm_windows`` windows of
    ``norm_images`` images; None leaves them as they are.
    ``hard``: negatives with a margin above it join the training set; the first image with a negative gives all.
    ``retrain``: more new ones than this fit the SVM anew; negatives with a margin below ``evict`` then leave.
    ``rounds``: passes over the images. ``tolerance`` and ``iterations``: where liblinear stops.
    """

    kind: Literal["svm"] = "svm"
    positives: Literal["truth", "overlap"] = "truth"
    positive_iou: float = 0.5
    negative_iou: float = 0.3
    c: float = 1e-3
    positive_weight: float = 2.0
    bias: float = 10.0
    norm: float | None = 20.0
    norm_images: int = 200
    norm_windows: int = 200
    hard: float = -1.0001
    evict: float = -1.2
    retrain: int = 2000
    rounds: int = 1
    tolerance: float = 1e-3
    iterations: int = 10_000

    def __post_init__(self) -> None:
        if not 0 < self.negative_iou <= 1 or not 0 < self.positive_iou <= 1:
            raise InputError(
                f"fit.positive_iou = {self.positive_iou} and fit.negative_iou = {self.negative_iou} must lie in 0..1 "
                "and above 0"
            )
        if self.positives == "overlap" and self.negative_iou > self.positive_iou:
            raise InputError(
                f"fit.negative_iou = {self.negative_iou} is above fit.positive_iou = {self.positive_iou}: a window "
                "would be both; lower the former"
            )
        positive = (self.c, self.positive_weight, self.bias, self.tolerance, 1.0 if self.norm is None else self.norm)
        if min(positive) <= 0:
            raise InputError("fit.c, positive_weight, bias, tolerance and norm must each be above 0")
        if min(self.norm_images, self.norm_windows, self.retrain, self.rounds, self.iterations) < 1:
            raise InputError("fit.norm_images, norm_windows, retrain, rounds and iterations must each be at least 1")
        if self.evict > self.hard:
            raise InputError(
                f"fit.evict = {self.evict} is above fit.hard = {self.hard}: what is added would leave at once; lower it"
            )

    @property
    def passes(self) -> int:
        """Over the training set: one for the positives and the mean length, then those that mine."""
        return 1 + self.rounds


def require_liblinear() -> Any:
    """sklearn's module of SVMs. InputError with the command that installs it where it is absent."""
    try:
        return importlib.import_module("sklearn.svm")
    except ImportError:
        raise InputError(
            "fitting SVMs needs scikit-learn; install it with `pip install boxwright[rcnn]`, or score by the softmax "
            "with a recipe that fits none"
        ) from None


def fit_svm(positives: Tensor, negatives: Tensor, config: SVMFitConfig, seed: int) -> tuple[Tensor, Tensor]:
    """Weight float64 ``[D]`` and bias ``[]`` of the SVM between ``[P, D]`` and ``[N, D]``, at least one row each.

    liblinear's dual of the L2-regularised hinge loss; equal input gives equal bits.
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
    """One class's SVM and the examples that it keeps. ``weight`` is None until it was fitted once."""

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
        """Of ``[N, D]``: float64 ``[N]``."""
        assert self.weight is not None
        return features.double() @ self.weight + self.bias

    def mine(self, image: int, features: Tensor, negative: Tensor) -> int:
        """Take the hard ones of an image's windows ``[N, D]`` where ``negative`` ``[N]``; how many were new."""
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
        """Fit anew where it is due, and let easy negatives go."""
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
        """Everything that resuming needs."""
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
        """What ``state_dict`` described."""
        made = cls(config, seed, state["positives"])
        made.negatives, made.weight, made.bias = state["negatives"], state["weight"], state["bias"]
        made.owners = [(image, row) for image, row in state["owners"]]
        made.keys = set(made.owners)
        made.added, made.fits = state["added"], state["fits"]
        return made


def joined_svms(machines: Sequence[MinedSVM], scale: float, names: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Weights float32 ``[K, D]`` and biases ``[K]`` for features that are not scaled yet.

    InputError naming a class that never met a negative or has no positive.
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
