"""Divide images over splits so that every class is in each of them in proportion, and groups of images stay together.

Images have several classes, so they are assigned by iterative stratification (Sechidis, Tsoumakas and Vlahavas, "On the
Stratification of Multi-label Data", 2011, algorithm 1): the rarest class is divided first, each of its images going to
the split that lacks most of that class. Two things are added. The unit that is assigned is a group of images, such as
the frames of a video. And afterwards groups are moved and exchanged between splits as long as that comes closer to the
wanted numbers of images of every class, of images in all, and, with less weight, of objects.

Symbols: N images, G groups, K classes, S splits, C columns that are balanced (see `_columns`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from boxwright.data.index import DetectionIndex
from boxwright.structures import InputError

_SIZE_WEIGHT = 4.0
"""Weight of a deviation by one image in the size of a split, to that of one image of the rarest class."""
_OBJECT_WEIGHT = 0.05
"""Weight of the objects of a class to that of its images."""
_MOST_CANDIDATES = 400
"""Groups of a split that are tried at once for an exchange; more are drawn in turn."""
_MOST_STEPS = 400


class _Columns(NamedTuple):
    """Quantities to divide in proportion, for each group: float32 ``[G, C]``, and the weights of the columns ``[C]``.

    Column 0 counts images, columns 1..K+1 the images that have each class and those that have none, the rest objects.
    """

    values: np.ndarray
    weights: np.ndarray
    strata: slice


def class_counts(index: DetectionIndex) -> np.ndarray:
    """Count the objects of each class in each image, int32 ``[N, K]``.

    Crowd regions and difficult boxes do not count, since neither training nor evaluation takes them for objects.
    """
    counts = np.zeros((len(index), len(index.classes)), dtype=np.int32)
    owners = np.repeat(np.arange(len(index)), np.diff(index.box_ends))
    ordinary = ~(index.crowd | index.difficult)
    np.add.at(counts, (owners[ordinary], index.labels[ordinary]), 1)
    return counts


def split_sizes(images: int, shares: Mapping[str, float]) -> dict[str, int]:
    """Return the number of images of each split, ``train`` first, which has the rest.

    ``shares``: a fraction of the images below 1, or a whole number of images, for each split besides ``train``; zero
    leaves the split out. Raises ``InputError``, naming the split and the value, for another number, for a share that is
    less than an image, and if nothing is left to train on.
    """
    sizes: dict[str, int] = {}
    for name, share in shares.items():
        if not 0 <= share < math.inf or (share >= 1 and share != int(share)):
            raise InputError(f"{name} {share}: give a fraction below 1, such as 0.2, or a whole number of images")
        if share == 0:
            continue
        sizes[name] = int(share) if share >= 1 else int(share * images + 0.5)
        if sizes[name] == 0:
            raise InputError(
                f"{name} {share}: is less than one of the {images} images; give at least {_least_share(images)}, "
                "or a number of images"
            )
    left = images - sum(sizes.values())
    if left < 1:
        asked = " and ".join(f"{name} {shares[name]}" for name in sizes)
        raise InputError(f"{asked}: take all of the {images} images, so that none is left for train; give less")
    return {"train": left, **sizes}


def _least_share(images: int) -> float:
    """Return a fraction with two digits that is at least one image, if there is one below 1."""
    return min(0.99, np.ceil(100 / max(images, 1)) / 100)


def assign_splits(
    counts: np.ndarray, sizes: Mapping[str, int], *, groups: np.ndarray | None = None, seed: int = 0
) -> dict[str, np.ndarray]:
    """Divide images over splits of about ``sizes`` images, balanced by class; the same seed gives the same splits.

    ``counts``: objects of each class in each image, int ``[N, K]``, as `class_counts` gives them; the images without
    any are balanced as a class of their own. ``sizes``: images by split, N in all. ``groups``: a number for each image,
    int ``[N]``; images of one number are in one split, so that sizes can be met only roughly. Without it each image is
    a group. Returns the positions of the images of each split, int64, ascending; no split is empty. Raises
    ``InputError`` if there are fewer groups than splits.
    """
    numbers = np.arange(len(counts)) if groups is None else np.unique(groups, return_inverse=True)[1].reshape(-1)
    members = int(numbers.max(initial=-1)) + 1
    if members < len(sizes):
        what = f"{len(counts)} image{'' if len(counts) == 1 else 's'}"
        if groups is not None:
            what += f" in {members} group{'' if members == 1 else 's'} that stay together"
        remedy = "add images or ask for fewer splits" + ("" if groups is None else ", or make smaller groups")
        raise InputError(f"{what}: too few for the {len(sizes)} splits {', '.join(sizes)}; {remedy}")
    rng = np.random.default_rng(seed)
    columns = _columns(counts, numbers, members)
    shares = np.array(list(sizes.values()), dtype=np.float64) / max(1, sum(sizes.values()))
    chosen = _stratify(columns, shares, rng)
    _improve(chosen, columns, shares, rng)
    _fill_empty(chosen, columns, shares)
    of_image = chosen[numbers]
    return {name: np.flatnonzero(of_image == s) for s, name in enumerate(sizes)}


def split_index(
    index: DetectionIndex, fraction: float, seed: int = 0, groups: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Divide the images of an index into those to train on and those to validate on; same seed, same split.

    ``fraction``: share of the images to validate on, in 0..1; at least one is, and one is left to train on. ``groups``
    as in `assign_splits`. Returns positions in the index, int64, ascending. Raises ``InputError`` for a fraction that
    is none, and for fewer than two images or groups.
    """
    if not 0 < fraction < 1:
        raise InputError(f"a validation share of {fraction}: give a fraction between 0 and 1, such as 0.2")
    val = max(1, min(len(index) - 1, int(fraction * len(index) + 0.5)))
    try:
        splits = assign_splits(
            class_counts(index), {"train": max(1, len(index) - val), "val": val}, groups=groups, seed=seed
        )
    except InputError as error:
        raise InputError(f"{index.root}: {error}") from None
    return splits["train"], splits["val"]


def _columns(counts: np.ndarray, numbers: np.ndarray, members: int) -> _Columns:
    """Sum what is to be balanced over the images of each group."""
    classes = counts.shape[1]
    ones, empty = np.ones((len(counts), 1)), (counts == 0).all(axis=1, keepdims=True)
    of_image = np.concatenate([ones, counts > 0, empty, counts], axis=1, dtype=np.float32)
    values = np.zeros((members, of_image.shape[1]), dtype=np.float32)
    np.add.at(values, numbers, of_image)
    totals = values.sum(axis=0, dtype=np.float64)
    strata = slice(1, classes + 2)
    rarity = 1 / np.sqrt(np.maximum(totals[strata], 1))  # a missing image matters more to a rare class
    per_image = totals[classes + 2 :] / np.maximum(totals[1 : classes + 1], 1)
    of_objects = _OBJECT_WEIGHT * rarity[:classes] / np.maximum(per_image, 1) ** 2  # deviations in images
    return _Columns(values, np.concatenate([[_SIZE_WEIGHT], rarity, of_objects]), strata)


def _stratify(columns: _Columns, shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Assign every group to a split by iterative stratification, int64 ``[G]``."""
    values = columns.values
    chosen = np.full(len(values), -1)
    lacking = shares[:, None] * values.sum(axis=0, dtype=np.float64)  # [S, C]
    order = rng.permutation(len(values))
    order = order[np.argsort(-values[order, 0], kind="stable")]  # large groups first, while there is room
    remaining = values[:, columns.strata].sum(axis=0, dtype=np.float64)
    while (remaining > 0).any():
        rarest = int(np.argmin(np.where(remaining > 0, remaining, np.inf)))
        column = columns.strata.start + rarest
        for group in order[(values[order, column] > 0) & (chosen[order] < 0)]:
            tied = _largest(lacking[:, column], np.arange(len(shares)))
            split = int(rng.choice(_largest(lacking[:, 0], tied)))
            chosen[group] = split
            lacking[split] -= values[group]
            remaining -= values[group, columns.strata]
    return chosen


def _largest(values: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Return those positions ``among`` which have the largest value."""
    rounded = np.round(values[among], 9)
    return among[rounded == rounded.max()]


def _improve(chosen: np.ndarray, columns: _Columns, shares: np.ndarray, rng: np.random.Generator) -> None:
    """Exchange two groups of two splits, or move one, as long as the splits come closer to their shares."""
    pairs = [(a, b) for a in range(len(shares)) for b in range(a + 1, len(shares))]
    excess = -shares[:, None] * columns.values.sum(axis=0, dtype=np.float64)  # [S, C]
    for split in range(len(shares)):
        excess[split] += columns.values[chosen == split].sum(axis=0, dtype=np.float64)
    idle = 0
    for step in range(_MOST_STEPS * len(pairs)):
        idle = 0 if _exchange(chosen, columns, excess, *pairs[step % len(pairs)], rng) else idle + 1
        if idle == len(pairs):
            break


def _exchange(
    chosen: np.ndarray, columns: _Columns, excess: np.ndarray, a: int, b: int, rng: np.random.Generator
) -> bool:
    """Make the best exchange between splits ``a`` and ``b`` among the candidates; False if none is an improvement.

    With p and q the ``excess`` of the splits over their shares, and y what ``a`` receives less what it gives, the
    weighted sum of squares changes by 2 (y·(p - q) + y·y). A row of zeros stands for "nothing", which makes an exchange
    a move.
    """
    values, weights = columns.values, np.sqrt(columns.weights)
    mine, theirs = (_candidates(np.flatnonzero(chosen == split), rng) for split in (a, b))
    given, taken = (np.concatenate([values[own] * weights, np.zeros((1, len(weights)))]) for own in (mine, theirs))
    difference = (excess[a] - excess[b]) * weights
    squares = (given**2).sum(axis=1)[:, None] + (taken**2).sum(axis=1) - 2 * given @ taken.T
    change = np.round(taken @ difference - (given @ difference)[:, None] + squares, 9)
    i, j = np.unravel_index(int(np.argmin(change)), change.shape)
    if change[i, j] >= 0:
        return False
    moved = (taken[j] - given[i]) / weights
    excess[a] += moved
    excess[b] -= moved
    chosen[mine[i : i + 1]] = b  # none if the row is that of "nothing"
    chosen[theirs[j : j + 1]] = a
    return True


def _candidates(own: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return rng.choice(own, _MOST_CANDIDATES, replace=False) if len(own) > _MOST_CANDIDATES else own


def _fill_empty(chosen: np.ndarray, columns: _Columns, shares: np.ndarray) -> None:
    """Give a split without images the group that comes closest to its size, from one that keeps others."""
    sizes = columns.values[:, 0]
    for split in range(len(shares)):
        if (chosen == split).any():
            continue
        kept = np.bincount(chosen, minlength=len(shares))
        movable = np.flatnonzero(kept[chosen] > 1)
        chosen[movable[np.argmin(np.abs(sizes[movable] - shares[split] * sizes.sum()))]] = split


def group_numbers(keys: Sequence[object]) -> np.ndarray:
    """Number the groups of equal keys in the order of their first members, int64 ``[N]``."""
    numbers: dict[object, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)
