"""The second and third stage of R-CNN: SVMs with mined negatives, and box regression (§2.3, appendix C).

Symbols: K classes, G objects and N windows of an image, D length of a feature.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from boxwright.anchors.sampler import hashed_noise
from boxwright.data.index import DetectionIndex
from boxwright.detectors.contract.fitting import Fitting, WindowFeatures
from boxwright.geometry.boxes import box_iou
from boxwright.heads.regions.fits.ridge import PairStore, RidgeFitConfig, fit_ridge
from boxwright.heads.regions.fits.svm import MinedSVM, SVMFitConfig, joined_svms, require_liblinear
from boxwright.structures import Images, InputError, Targets


class Windows:
    """Windows of one image and their overlaps with its objects: proposals first, then the ground-truth boxes.

    ``boxes`` ``[N, 4]``; ``objects`` ``[G, 4]`` and ``labels`` ``[G]``: the objects to train on; ``iou`` ``[G, N]``;
    ``proposals``: number of proposals among the windows; ``crowded`` bool ``[N]``: covered by a crowd region, and
    therefore no negative.
    """

    def __init__(self, detector: WindowFeatures, images: Images, targets: Targets) -> None:
        given = detector.proposals_of(images)
        usable = detector.usable(targets)[0]
        self.objects, self.labels = targets.boxes[0, usable], targets.labels[0, usable]
        proposals = given.boxes[0, given.valid[0]]
        self.proposals = len(proposals)
        self.boxes = torch.cat([proposals, self.objects])
        self.iou = box_iou(self.objects, self.boxes)
        crowds = targets.boxes[0, targets.crowd[0] & targets.valid[0]]
        covered = box_iou(crowds, self.boxes, over_b=torch.ones(1, 1, dtype=torch.bool, device=crowds.device))
        limit = detector.crowd_ignore
        self.crowded = (covered > (2.0 if limit is None else limit)).any(0)

    def overlap(self, classes: int) -> Tensor:
        """Compute the largest IoU of each window with an object of each class, ``[N, K]``; 0 without an object."""
        best = self.iou.new_zeros(classes, len(self.boxes))
        return best.scatter_reduce(0, self.labels[:, None].expand_as(self.iou), self.iou, "amax").T


class SVMFitting(Fitting):
    """Fit of the SVMs: one pass collects positives and the mean length of features, the others mine negatives."""

    figures = ("positives", "hard_negatives")

    def __init__(self, config: SVMFitConfig, detector: WindowFeatures, index: DetectionIndex, seed: int) -> None:
        """Prepare the fit. Raises InputError if scikit-learn is absent or a class has no object in ``index``."""
        require_liblinear()
        kept = ~index.crowd if detector.difficult else ~index.crowd & ~index.difficult
        counts = np.bincount(index.labels[kept], minlength=len(detector.classes))
        if missing := [name for name, count in zip(detector.classes.names, counts, strict=True) if count == 0]:
            raise InputError(
                f"{index.root}: class {missing[0]!r} has no object in the training set"
                f"{f' (nor have {len(missing) - 1} more)' if len(missing) > 1 else ''}, and an SVM needs positives; "
                "annotate some, take the class out of the data's list, or score by the softmax "
                '(a recipe with detector.score = "softmax")'
            )
        self.config, self.detector, self.seed = config, detector, seed
        self.every = max(1, len(index) // config.norm_images)
        self.lengths = torch.zeros((), dtype=torch.float64)
        self.measured = 0
        self.positives: list[list[Tensor]] = [[] for _ in detector.classes.names]
        self.machines: list[MinedSVM] = []

    @property
    def scale(self) -> float:
        """Factor by which features are multiplied."""
        if self.config.norm is None or self.measured == 0:
            return 1.0
        return self.config.norm / max(float(self.lengths) / self.measured, 1e-12)

    def see(self, images: Images, targets: Targets, place: int, turn: int, last: bool) -> tuple[float, ...]:
        """See :class:`Fitting`."""
        windows = Windows(self.detector, images, targets)
        if turn == 0:
            return float(self._collect(windows, images, place)), 0.0
        if not self.machines:
            features = (torch.cat(parts) * self.scale for parts in self.positives)
            self.machines = [MinedSVM(self.config, self.seed, rows) for rows in features]
            self.positives = []
        overlap = windows.overlap(len(self.machines))
        negative = ((overlap < self.config.negative_iou) & ~windows.crowded[:, None]).cpu()
        features = self.detector.describe(images, windows.boxes)[0].cpu() * self.scale
        mined = 0
        for k, machine in enumerate(self.machines):
            mined += machine.mine(place, features, negative[:, k])
            machine.update(last)
        return 0.0, float(mined)

    def _collect(self, windows: Windows, images: Images, place: int) -> int:
        """Collect the positives of an image and, some lengths of features; return their number."""
        positive = torch.zeros(len(windows.boxes), len(self.positives), dtype=torch.bool, device=windows.boxes.device)
        if self.config.positives == "overlap":
            positive = windows.overlap(len(self.positives)) >= self.config.positive_iou
        else:
            rows = windows.proposals + torch.arange(len(windows.objects), device=positive.device)
            positive[rows, windows.labels] = True
        measured = torch.zeros_like(positive[:, 0])
        if place % self.every == 0:
            count = min(self.config.norm_windows, len(measured))
            measured[torch.linspace(0, max(len(measured) - 1, 0), count).round().long()] = True
        chosen = (positive.any(1) | measured).nonzero().flatten()
        features = self.detector.describe(images, windows.boxes[chosen])[0].cpu()
        positive, measured = positive[chosen].cpu(), measured[chosen].cpu()
        lengths = features[measured].double().norm(dim=1)
        self.lengths, self.measured = self.lengths + lengths.sum(), self.measured + len(lengths)
        for k, rows in enumerate(self.positives):
            rows.append(features[positive[:, k]])
        return int(positive.sum())

    def finish(self) -> dict[str, Tensor]:
        """See :class:`Fitting`."""
        weight, bias = joined_svms(self.machines, self.scale, self.detector.classes.names)
        return {"svm_weight": weight, "svm_bias": bias, "svm_ready": torch.tensor(True)}

    def summary(self) -> str:
        """See :class:`Fitting`."""
        machines = self.machines
        positives, negatives = sum(len(m.positives) for m in machines), sum(len(m.negatives) for m in machines)
        return (
            f"SVMs of {len(machines)} classes: {positives} positives, {negatives} negatives kept, "
            f"{sum(m.fits for m in machines)} fits, features scaled by {self.scale:.4g}"
        )

    def state_dict(self) -> dict[str, Any]:
        """See :class:`Fitting`."""
        return {
            "lengths": self.lengths,
            "measured": self.measured,
            "positives": [[torch.cat(rows)] if rows else [] for rows in self.positives],
            "machines": [machine.state_dict() for machine in self.machines],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See :class:`Fitting`."""
        self.lengths, self.measured = state["lengths"], state["measured"]
        self.positives = [list(rows) for rows in state["positives"]]
        self.machines = [MinedSVM.from_state(self.config, self.seed, one) for one in state["machines"]]


class BoxFitting(Fitting):
    """Fit of the box regression: one pass pairs proposals with objects, then a ridge regression for each class."""

    figures = ("pairs",)

    def __init__(self, config: RidgeFitConfig, detector: WindowFeatures, seed: int) -> None:
        self.config, self.detector, self.seed = config, detector, seed
        self.stores = [PairStore(config.most) for _ in detector.classes.names]

    def see(self, images: Images, targets: Targets, place: int, turn: int, last: bool) -> tuple[float, ...]:
        """See :class:`Fitting`."""
        windows = Windows(self.detector, images, targets)
        if len(windows.objects) == 0 or windows.proposals == 0:
            return (0.0,)
        best, truth = windows.iou[:, : windows.proposals].max(0)
        chosen = (best > self.config.overlap).nonzero().flatten()
        boxes, truth = windows.boxes[chosen], truth[chosen]
        labels = windows.labels[truth].cpu()
        features = self.detector.describe(images, boxes)[1].cpu()
        wanted = self.detector.coder.encode(boxes, windows.objects[truth]).cpu()
        seed = torch.tensor([(self.seed * 1_000_003 + place) % 2**62])
        noise = hashed_noise(seed, len(chosen), salt=3)[0]
        for k, store in enumerate(self.stores):
            mine = labels == k
            store.add(features[mine], wanted[mine], noise[mine])
        return (float(len(chosen)),)

    def finish(self) -> dict[str, Tensor]:
        """See :class:`Fitting`."""
        width = self.detector.box_features
        fitted = []
        for store in self.stores:
            pairs = store.pairs() or (torch.zeros(0, width), torch.zeros(0, 4))
            fitted.append(fit_ridge(*pairs, self.config))
        weights, biases = zip(*fitted, strict=True)
        return {"box_weight": torch.stack(weights), "box_bias": torch.stack(biases), "box_ready": torch.tensor(True)}

    def summary(self) -> str:
        """See :class:`Fitting`."""
        names = self.detector.classes.names
        without = [name for name, store in zip(names, self.stores, strict=True) if store.seen == 0]
        note = f"; none of {', '.join(without)}, whose boxes stay as proposed" if without else ""
        return f"box regression from {sum(store.seen for store in self.stores)} pairs{note}"

    def state_dict(self) -> dict[str, Any]:
        """See :class:`Fitting`."""
        return {"stores": [store.state_dict() for store in self.stores]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See :class:`Fitting`."""
        for store, one in zip(self.stores, state["stores"], strict=True):
            store.load_state_dict(one)
