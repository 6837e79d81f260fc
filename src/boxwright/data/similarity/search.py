"""Find the near-duplicates among the images of a data set.

Every image is compared with every other one by the edges of an 8x8 image, as matrix products of blocks of images. The
pairs that agree there are fitted to each other (`boxwright.data.similarity.alignment`) and compared at 32x32 and 64x64.
Found are images that were encoded again, resized, stretched, made lighter or darker, mirrored, or cut by up to a tenth
of their sides, and frames of a video in which little moves. On photographs, blood smears and aerial images, copies that
were changed in these ways agree by at least 0.92 at 32x32 (19 of 20 by 0.95), and pairs of different images by at most
0.66 among 700 and 0.86 among 3,000. Images of one object on an empty ground agree most.

Symbols: N images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from boxwright.data.similarity.alignment import agreement, fit, gradients

_CANDIDATE, _AT_FIRST, _COARSE, _FINE = 0.6, 0.5, 0.9, 0.7
"""Least correlations of gradients: at 8x8 without a fit, at 32x32 after half of the fit and all of it, at 64x64."""
_LEAST_CONTRAST = 1.0
"""Root mean square difference of neighbours in an 8x8 image, in grey levels, below which it has no structure."""
_BLOCK, _AT_ONCE, _MOST_PER_IMAGE = 256, 256, 20


@dataclass(frozen=True)
class Similar:
    """Near-duplicates among N images.

    ``groups``: a number for each image, int64 ``[N]``, equal for images that are near-duplicates, be it by way of
    others. ``pairs``: pairs of positions that were found, enough to connect each group, the smaller position first.
    """

    groups: np.ndarray
    pairs: list[tuple[int, int]]


def find_similar(thumbnails: np.ndarray) -> Similar:
    """Find near-duplicates by the thumbnails of the images, uint8 ``[N, 64, 64]``.

    Images without structure, such as a plain wall, are left out. The time grows with N² for the first comparison, about
    a second at 10,000 images, and with the number of pairs that agree there, of which at most 20 an image are fitted
    (a millisecond each), the most similar ones first.
    """
    groups = _Groups(len(thumbnails))
    pairs: list[tuple[int, int]] = []
    plain = _descriptors(thumbnails)
    mirrored = _descriptors(thumbnails[:, :, ::-1])
    for start in range(0, len(thumbnails), _BLOCK):
        left = _candidates(plain, mirrored, start)
        for _ in range(_MOST_PER_IMAGE * _BLOCK // _AT_ONCE):
            left = left.of(groups.of[left.i] != groups.of[left.j])  # the others are in one group by now
            tried, left = left.of(slice(0, _AT_ONCE)), left.of(slice(_AT_ONCE, None))
            if not len(tried.i):
                break
            confirmed = tried.of(_confirmed(thumbnails, tried))
            found = zip(confirmed.i.tolist(), confirmed.j.tolist(), strict=True)
            pairs += [(i, j) for i, j in found if groups.join(i, j)]
    return Similar(np.unique(groups.of, return_inverse=True)[1].reshape(-1), sorted(pairs))


class _Pairs(NamedTuple):
    """Pairs of images ``i < j``, int64 ``[P]``, and whether the second one is mirrored, bool ``[P]``."""

    i: np.ndarray
    j: np.ndarray
    mirrored: np.ndarray

    def of(self, rows: np.ndarray | slice) -> _Pairs:
        """Return some of the pairs."""
        return _Pairs(self.i[rows], self.j[rows], self.mirrored[rows])


class _Groups:
    """Groups of images that grow together; ``of`` has the number of the group of each image."""

    def __init__(self, count: int) -> None:
        self.of = np.arange(count)
        self._members = [[i] for i in range(count)]

    def join(self, i: int, j: int) -> bool:
        """Join the groups of two images; False if they are one already."""
        small, large = sorted((int(self.of[i]), int(self.of[j])), key=lambda group: (len(self._members[group]), -group))
        if small == large:
            return False
        self.of[self._members[small]] = large
        self._members[large] += self._members[small]
        self._members[small] = []
        return True


def _descriptors(thumbnails: np.ndarray) -> np.ndarray:
    """Return the gradients of the 8x8 images as vectors of length 1, float32 ``[N, 98]``; zeros without structure."""
    values = gradients(_reduced(thumbnails, 8))
    values = (values - values.mean(axis=(2, 3), keepdims=True)).reshape(len(thumbnails), 2 * 7 * 7)
    contrast = np.sqrt((values**2).mean(axis=1))
    norm = np.linalg.norm(values, axis=1, keepdims=True)
    values[contrast < _LEAST_CONTRAST] = 0
    return (values / np.maximum(norm, 1e-6)).astype(np.float32)


def _reduced(thumbnails: np.ndarray, side: int) -> np.ndarray:
    """Average thumbnails to a smaller side, float32 ``[N, side, side]``."""
    images = thumbnails.astype(np.float32)
    while images.shape[1] > side:
        rows = images[:, ::2] + images[:, 1::2]
        images = (rows[:, :, ::2] + rows[:, :, 1::2]) / 4
    return images


def _candidates(plain: np.ndarray, mirrored: np.ndarray, start: int) -> _Pairs:
    """Return the pairs of an image of a block and a later one that agree at 8x8, the best first."""
    block = plain[start : start + _BLOCK]
    found, close = [], []
    for turned, others in ((False, plain), (True, mirrored)):
        products = block @ others[start:].T
        i, j = np.nonzero(np.triu(products, 1) >= _CANDIDATE)
        found.append(_Pairs(start + i, start + j, np.full(len(i), turned)))
        close.append(products[i, j])
    best = np.argsort(-np.round(np.concatenate(close), 5), kind="stable")
    return _Pairs(*map(np.concatenate, zip(*found, strict=True))).of(best)


def _confirmed(thumbnails: np.ndarray, pairs: _Pairs) -> np.ndarray:
    """Fit the images of each pair to each other; True where they agree, bool ``[P]``."""
    first, second = thumbnails[pairs.i], thumbnails[pairs.j]
    second = np.where(pairs.mirrored[:, None, None], second[:, :, ::-1], second)
    a, b = _reduced(first, 32), _reduced(second, 32)
    fitted = fit(a, b, 2)
    rows = np.flatnonzero(agreement(a, b, fitted) >= _AT_FIRST)
    fitted = fit(a[rows], b[rows], 4, fitted.of(rows))
    agree = agreement(a[rows], b[rows], fitted) >= _COARSE
    rows, fitted = rows[agree], fitted.of(agree)
    fine = agreement(first[rows].astype(np.float32), second[rows].astype(np.float32), fitted) >= _FINE
    confirmed = np.zeros(len(first), dtype=bool)
    confirmed[rows[fine]] = True
    return confirmed
