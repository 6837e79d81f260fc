"""Initialise from another checkpoint: copy tensors by name and shape, and class rows by class name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import torch
from torch import Tensor

from boxwright.checkpoints.contents import check_finite
from boxwright.detectors.build import DetectorConfig, build_detector
from boxwright.detectors.contract.adoption import unallocated_parameters
from boxwright.detectors.contract.capabilities import Fits
from boxwright.detectors.contract.detector import Detector
from boxwright.heads.class_rows import SHARED
from boxwright.structures import Classes, InputError

BACKGROUND = -2
"""Stands for background. A number, because classes are named by text."""


@torch.no_grad()
def take_weights(
    detector: Detector,
    given: Mapping[str, Tensor],
    origin: str,
    source: tuple[DetectorConfig, Classes] | None = None,
    carry_classes: bool = True,
) -> str:
    """Copy the tensors of ``given`` whose name and shape agree with the detector's; return a line about them.

    ``source``: configuration and classes that ``given`` was trained with; None if unknown, and then only shapes are
    compared. If its classes or their order differ, the layers that tell classes apart are copied by row: rows of a
    class of the same name (with ``carry_classes``), of background, and rows that serve all classes. Rows of others
    keep their initialisation. Raises InputError if nothing fits.
    """
    check_finite(given, origin)
    own = detector.state_dict()
    others = None if source is None or source[1].names == detector.classes.names else source
    here = detector.class_rows() if others else {}  # the layers that are taken by class
    apart = here.keys() | (detector.fit_state if isinstance(detector, Fits) else set())
    taken = {
        name: value
        for name, value in given.items()
        if name in own and own[name].shape == value.shape and name not in apart
    }
    carried: set[str] = set()
    if others is not None:
        by_class, carried = _taken_by_class(detector, own, given, *others, carry_classes)
        taken |= by_class
    if not taken:
        raise InputError(
            f"{origin}: no tensor has the name and shape of one of the detector's; is it another detector?"
        )
    detector.load_state_dict(taken, strict=False)
    left = [name for name in own if name not in taken]
    fresh = f"; fresh: {', '.join(left[:4])}{', ...' if len(left) > 4 else ''}" if left else ""
    line = f"starting from {origin}: {len(taken)} of {len(own)} tensors{fresh}"
    if others is not None:
        line += f"; {_about_classes(detector.classes, others[1], carried)}"
    return line


def _taken_by_class(
    detector: Detector,
    own: Mapping[str, Tensor],
    given: Mapping[str, Tensor],
    config: DetectorConfig,
    classes: Classes,
    carry_classes: bool,
) -> tuple[dict[str, Tensor], set[str]]:
    """Return the layers that tell classes apart with rows of ``given`` copied in, and the names of those classes."""
    names = set(detector.classes.names) & set(classes.names) if carry_classes else set()
    there = _rows_of(config, classes)
    taken: dict[str, Tensor] = {}
    for name, rows in detector.class_rows().items():
        if name not in given or name not in there or given[name].shape[1:] != own[name].shape[1:]:
            continue
        pairs = _same_rows(rows, there[name], detector.classes, classes, names)
        if pairs is not None:
            taken[name] = own[name].clone()
            taken[name][pairs[0]] = given[name][pairs[1]].to(own[name])
    return taken, names if taken else set()


def _rows_of(config: DetectorConfig, classes: Classes) -> dict[str, Tensor]:
    """Return the class rows of the network that the weights are from."""
    with unallocated_parameters(), torch.random.fork_rng(devices=[]):
        return build_detector(config, classes).class_rows()


def _same_rows(
    here: Tensor, there: Tensor, mine: Classes, theirs: Classes, names: set[str]
) -> tuple[list[int], list[int]] | None:
    """Pair rows of the same meaning in both layers: of a class in ``names``, of background, or of all classes.

    None if the layers differ in more than their classes, such as the number of anchors.
    """
    rows, known = _places(here, mine), _places(there, theirs)
    for label, other in ((SHARED, SHARED), (0, 0), (len(mine), len(theirs))):  # every class has as many rows as class 0
        if (here == label).sum() != (there == other).sum():
            return None
    common = {SHARED, BACKGROUND, *names}
    pairs = [(row, known[place]) for place, row in rows.items() if place[0] in common and place in known]
    return [row for row, _ in pairs], [row for _, row in pairs]


def _places(rows: Tensor, classes: Classes) -> dict[tuple[str | int, int], int]:
    """Return the row of each class's first, second, ... value; classes by name."""
    seen: Counter[str | int] = Counter()
    places: dict[tuple[str | int, int], int] = {}
    for row, label in enumerate(rows.tolist()):
        key = BACKGROUND if label == len(classes) else SHARED if label == SHARED else classes.names[label]
        places[key, seen[key]] = row
        seen[key] += 1
    return places


def _about_classes(mine: Classes, theirs: Classes, carried: set[str]) -> str:
    """Describe which classes were kept, initialised and dropped."""
    kept = [name for name in mine.names if name in carried]
    new = [name for name in mine.names if name not in carried]
    gone = [name for name in theirs.names if name not in carried]
    parts = []
    for what, which in (("kept by name", kept), ("fresh", new), ("dropped", gone)):
        if which:
            parts.append(f"{len(which)} {what} ({', '.join(which[:3])}{', ...' if len(which) > 3 else ''})")
    return f"classes: {', '.join(parts)}"
