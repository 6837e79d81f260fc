"""Divide the images of a data set into train, val and test, balanced by class, in a new data set."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from boxwright.data.editing.groups import groups_of_copies, groups_of_names, groups_of_similar, joined_groups
from boxwright.data.editing.pool import pool_splits
from boxwright.data.formats.opening import DatasetFormat
from boxwright.data.formats.splits import split_name
from boxwright.data.formats.writing.output import new_folder
from boxwright.data.formats.writing.whole import CopyOptions, read_whole, write_whole
from boxwright.data.index import DetectionIndex
from boxwright.data.splitting import assign_splits, class_counts, split_sizes
from boxwright.structures import InputError

VAL_SHARE = 0.2
"""Share of the images for validation, if nothing is asked for; it is that which training holds back."""
_NEW = ("train", "val", "test")
_OFF = 0.02
"""Share of the images by which a split may miss its size without a note."""


@dataclass(frozen=True, kw_only=True)
class SplitRules:
    """Sizes of the new splits, and what stays together.

    ``val`` and ``test``: a fraction of the images below 1, or a whole number of them; train has the rest. ``val`` is
    0.2 if it is None, or 0 if a split val is kept. ``fractions`` gives those of train, val and test instead, or of
    train and val, which add up to 1. ``group_by`` is a regular expression: images in whose names it finds the same stay
    in one split (`boxwright.data.editing.groups.groups_of_names`); ``near_duplicates`` keeps those together too, and
    exact copies always are. ``keep``: splits of the data set that stay as they are, while the images of the others are
    divided. The same ``seed`` gives the same splits.

    Raises ``InputError`` for fractions that do not add up, and for options that exclude each other.
    """

    val: float | None = None
    test: float | None = None
    fractions: tuple[float, ...] = ()
    group_by: str | None = None
    near_duplicates: bool = False
    keep: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise InputError(f"--seed {self.seed}: give a whole number of 0 or more")
        if self.fractions:
            _check_fractions(self.fractions)
            if self.val is not None or self.test is not None:
                raise InputError("--fractions and --val or --test exclude each other; give one")

    def shares(self, kept: tuple[str, ...]) -> dict[str, float]:
        """Return the share of each new split but train. Raises ``InputError`` if one is kept, and if all are 0."""
        val, test = self.val, self.test
        if self.fractions:
            val, test = (*self.fractions[1:], 0.0)[:2]
        if val is None:
            val = 0 if "val" in kept else VAL_SHARE
        shares = {"val": val, "test": test or 0}
        for name in ("train", *(name for name, share in shares.items() if share)):
            if name in kept:
                raise InputError(f"--keep {name}: {name} is one of the new splits; keep another one")
        if not any(shares.values()):
            raise InputError("neither val nor test gets images; give --val or --test a fraction, such as 0.2")
        return shares


@dataclass(frozen=True)
class SplitCount:
    """Contents of a split: ``objects`` without crowd regions and difficult ones; ``empty`` images have none."""

    images: int
    objects: int
    empty: int


@dataclass(frozen=True)
class ClassBalance:
    """Images that have a class, and its objects, by split."""

    name: str
    images: dict[str, int]
    objects: dict[str, int]


@dataclass(frozen=True)
class SplitReport:
    """Result of dividing. ``output`` is None for a dry run; ``announcements`` are sentences for the user."""

    output: str | None
    source_format: DatasetFormat
    format: DatasetFormat
    splits: dict[str, SplitCount]
    classes: tuple[ClassBalance, ...]
    announcements: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the report as a dictionary for JSON."""
        return asdict(self)


def split_dataset(
    path: Path | str,
    output: Path | str,
    rules: SplitRules | None = None,
    options: CopyOptions | None = None,
    *,
    dry_run: bool = False,
) -> SplitReport:
    """Divide the images of the data set at ``path`` as ``rules`` say; with ``dry_run`` only count.

    All images are divided, whatever splits they are in, but for those that ``rules`` keep. The folder ``output``
    appears whole or not at all.

    Raises ``InputError`` as `boxwright.data.formats.convert.convert_dataset`, for a split to keep that is not there, a
    share of less than an image, a pattern that is found in no name or in all alike, and fewer groups than splits.
    """
    rules, options = rules or SplitRules(), options or CopyOptions()
    target = new_folder(output)
    read = read_whole(path, target, options)
    kept = _kept_splits(path, rules.keep, tuple(read.splits))
    shares = rules.shares(kept)
    ordered = {name: read.splits[name] for name in (*kept, *(name for name in read.splits if name not in kept))}
    pooled, owner, said = pool_splits(ordered)
    if len(read.splits) - len(kept) > 1:
        said.insert(0, f"the splits {', '.join(s for s in read.splits if s not in kept)} are divided anew")
    groups = _groups(pooled, rules, said)
    divided = owner >= len(kept)
    if not divided.any():
        raise InputError(f"{path}: no image is left to divide; keep fewer splits than {', '.join(kept)}")
    _note_leaks(groups, divided, kept, said)
    index = pooled.subset(np.flatnonzero(divided))
    new = _divided(path, index, shares, groups[divided], rules.seed, said)
    splits = {**new, **{name: read.splits[name] for name in kept}}
    splits = dict(sorted(splits.items(), key=lambda item: _NEW.index(item[0]) if item[0] in _NEW else len(_NEW)))
    classes = _balance(splits)
    said += _absent_classes(classes)
    if not dry_run:
        said += write_whole(target, read.format, options, splits).announcements
    counts = {name: _count(index) for name, index in splits.items()}
    place = None if dry_run else str(target)
    return SplitReport(place, read.source.format, read.format, counts, classes, (*read.announcements, *said))


def _check_fractions(fractions: tuple[float, ...]) -> None:
    given = " ".join(f"{value:g}" for value in fractions)
    if len(fractions) not in (2, 3):
        raise InputError(f"--fractions {given}: give two or three, for train, val and test, such as 0.7 0.2 0.1")
    if not all(0 <= value < math.inf for value in fractions):
        raise InputError(f"--fractions {given}: give numbers from 0 to 1, such as 0.7 0.2 0.1")
    total = sum(fractions)
    if abs(total - 1) > 1e-3:
        remedy = "such as 0.7 0.2 0.1"
        if abs(total - 100) < 0.1:
            remedy = "here " + " ".join(f"{value / 100:g}" for value in fractions)
        raise InputError(f"--fractions {given}: add up to {total:g}; give fractions that add up to 1, {remedy}")
    if fractions[0] == 0:
        raise InputError(f"--fractions {given}: the first is that of train, which needs images")


def _kept_splits(path: Path | str, names: tuple[str, ...], splits: tuple[str, ...]) -> tuple[str, ...]:
    """Return the splits to keep by the names that the data set has."""
    found: dict[str, None] = {}
    for name in names:
        known = name if name in splits else split_name(name)
        if known not in splits:
            raise InputError(f"--keep {name}: {path} has no such split; it has {', '.join(splits)}")
        found[known] = None
    return tuple(found)


def _groups(index: DetectionIndex, rules: SplitRules, said: list[str]) -> np.ndarray:
    """Number the images so that those which stay together have one number, int64 ``[N]``; adds notes to ``said``."""
    paths = [index.path(i) for i in range(len(index))]
    numberings: list[np.ndarray] = []
    for numbers, notes in (
        groups_of_names(index, rules.group_by) if rules.group_by is not None else (None, []),
        groups_of_copies(paths),
        groups_of_similar(paths) if rules.near_duplicates else (None, []),
    ):
        said += notes
        if numbers is not None:
            numberings.append(numbers)
    return joined_groups(*numberings)


def _note_leaks(groups: np.ndarray, divided: np.ndarray, kept: tuple[str, ...], said: list[str]) -> None:
    """Note the images to divide which belong together with images of a split that is kept."""
    count = int((np.isin(groups, groups[~divided]) & divided).sum())
    if count:
        subject = "1 image belongs" if count == 1 else f"{count} images belong"
        said.append(
            f"{subject} together with images of {', '.join(kept)}, which {'is' if len(kept) == 1 else 'are'} kept, so "
            "that its metrics may be too good; divide all images anew, without --keep"
        )


def _divided(
    path: Path | str,
    index: DetectionIndex,
    shares: Mapping[str, float],
    groups: np.ndarray,
    seed: int,
    said: list[str],
) -> dict[str, DetectionIndex]:
    """Return the new splits; notes those of another size than asked for."""
    try:
        sizes = split_sizes(len(index), shares)
        alone = len(np.unique(groups)) == len(index)
        rows = assign_splits(class_counts(index), sizes, groups=None if alone else groups, seed=seed)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    for name, chosen in rows.items():
        if abs(len(chosen) - sizes[name]) > max(1, _OFF * len(index)):
            said.append(f"{name} has {len(chosen)} images instead of {sizes[name]}, since groups stay together")
    return {name: replace(index.subset(chosen), name=name) for name, chosen in rows.items()}


def _count(index: DetectionIndex) -> SplitCount:
    counts = class_counts(index)
    return SplitCount(len(index), int(counts.sum()), int((counts == 0).all(axis=1).sum()))


def _balance(splits: Mapping[str, DetectionIndex]) -> tuple[ClassBalance, ...]:
    """Count images and objects of each class in each split."""
    counts = {name: class_counts(index) for name, index in splits.items()}
    names = next(iter(splits.values())).classes.names
    return tuple(
        ClassBalance(
            name,
            {split: int((table[:, label] > 0).sum()) for split, table in counts.items()},
            {split: int(table[:, label].sum()) for split, table in counts.items()},
        )
        for label, name in enumerate(names)
    )


def _absent_classes(classes: tuple[ClassBalance, ...]) -> list[str]:
    """Name the classes that a split has no image of, and those that the data set has none of."""
    notes = []
    for split in classes[0].images if classes else ():
        absent = [c for c in classes if not c.images[split] and any(c.images.values())]
        if absent:
            names = ", ".join(f"{c.name} ({sum(c.images.values())} in all)" for c in absent[:4])
            more = f" and {len(absent) - 4} more" if len(absent) > 4 else ""
            notes.append(f"{split} has no image with {names}{more}: too few images or groups have it")
    return notes
