"""Order of training: an endless sequence of batches, each of which can be computed without the earlier ones.

Symbols: N samples an epoch, B samples in a global batch (over all ranks). The stream is a sequence of permutations of
the data set; position p belongs to epoch p // N. Global batch k holds the same samples for any number of ranks,
so an exact resume needs only k.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from boxwright.structures import InputError

if TYPE_CHECKING:
    from boxwright.data.index import DetectionIndex

WINDOW = 64
"""Number of batches in the window that grouping reorders; the window is at most about an epoch."""


class Pick(NamedTuple):
    """One sample of the stream: position ``image`` in the data set, ``epoch``, and ``position`` in the stream."""

    image: int
    epoch: int
    position: int


class StreamOrder:
    """Endless order of training.

    ``members`` are the positions in the data set to draw from, int64 ``[N]``. ``groups``, int ``[N]``, keeps unlike
    samples in different batches: within windows of 64 batches (or an epoch, if shorter) the stream is sorted by
    group, cut into batches, and the batches are shuffled; only batches at the border of two groups are mixed.
    ``repeats``, float ``[N]``, is the expected number of times that a member appears in an epoch, above 0.
    """

    def __init__(
        self,
        members: NDArray[np.int64],
        batch_size: int,
        seed: int,
        groups: NDArray[np.int64] | None = None,
        repeats: NDArray[np.float64] | None = None,
    ) -> None:
        self.members = members
        self.batch_size = batch_size
        self.seed = seed
        self.groups = groups
        self.repeats = repeats
        # A sum that rounding has left just below a whole number is that number.
        self.epoch_size = len(members) if repeats is None else max(1, int(repeats.sum() + 1e-6))
        self.window = 1 if groups is None else max(1, min(WINDOW, self.epoch_size // batch_size))
        self._orders: dict[int, NDArray[np.int64]] = {}
        self._windows: dict[int, NDArray[np.int64]] = {}

    def batch(self, number: int) -> list[Pick]:
        """Return the B picks of global batch ``number`` (from 0)."""
        window, within = divmod(number, self.window)
        start = within * self.batch_size
        places = self._window_positions(window)[start : start + self.batch_size]
        picks = []
        for position in places.tolist():
            epoch, place = divmod(position, self.epoch_size)
            picks.append(Pick(int(self.members[self._epoch_order(epoch)[place]]), epoch, position))
        return picks

    def _window_positions(self, window: int) -> NDArray[np.int64]:
        """Return the stream positions of one window, in the order in which batches take them."""
        length = self.window * self.batch_size
        places = np.arange(window * length, (window + 1) * length, dtype=np.int64)
        if self.groups is None:
            return places
        if window not in self._windows:
            epochs, within = np.divmod(places, self.epoch_size)
            group = np.empty(length, dtype=np.int64)
            for epoch in np.unique(epochs).tolist():
                here = epochs == epoch
                group[here] = self.groups[self._epoch_order(epoch)[within[here]]]
            # The order of the groups alternates between windows, so that the mixed batch varies.
            batches = places[np.argsort(group if window % 2 == 0 else -group, kind="stable")]
            batches = batches.reshape(self.window, self.batch_size)
            self._windows = {window: batches[_shuffle(self.window, self.seed, 1, window)].reshape(-1)}
        return self._windows[window]

    def _epoch_order(self, epoch: int) -> NDArray[np.int64]:
        """Return positions in ``members`` in the order of one epoch, int64 ``[epoch_size]``."""
        if epoch not in self._orders:
            while len(self._orders) > 1 and min(self._orders) < epoch - 1:
                del self._orders[min(self._orders)]
            order = _shuffle(self.epoch_size, self.seed, 0, epoch)
            if self.repeats is not None:
                # Evenly spaced marks on the cumulative repeats give each member its repeats, rounded up or down, and
                # every epoch has the same length, without which no position could be computed on its own.
                steps = np.cumsum(self.repeats) * (self.epoch_size / self.repeats.sum())
                offset = _random_words(1, self.seed, 2, epoch)[0] / 2**64
                marks = np.arange(self.epoch_size) + offset
                drawn = np.minimum(np.searchsorted(steps, marks, side="right"), len(steps) - 1)
                order = drawn[order]
            self._orders[epoch] = order
        return self._orders[epoch]


class PassOrder:
    """One pass in the order of the data set; the ranks take batches in turn and the last batch may be short."""

    def __init__(self, count: int, batch_size: int, rank: int = 0, world: int = 1) -> None:
        self.count = count
        self.batch_size = batch_size
        self.rank = rank
        self.world = world

    def __len__(self) -> int:
        return len(range(self.rank, -(-self.count // self.batch_size), self.world))

    def batch(self, number: int) -> list[Pick]:
        """Return the picks of this rank's batch ``number`` (from 0)."""
        start = (self.rank + number * self.world) * self.batch_size
        return [Pick(index, 0, index) for index in range(start, min(start + self.batch_size, self.count))]


class Numbers:
    """Batch numbers from ``start`` on, for a loader of batches by number; endless without a ``stop``."""

    def __init__(self, start: int = 0, stop: int | None = None) -> None:
        self.start = start
        self.stop = stop

    def __iter__(self) -> Iterator[int]:
        number = self.start
        while self.stop is None or number < self.stop:
            yield number
            number += 1


def sample_seed(seed: int, pick: Pick, purpose: Literal["transform", "detector"]) -> int:
    """Return the seed of a sample's augmentation, or of the detector's random draws for it, in 0..2^62-1.

    It is a hash, so that seeds of neighbours are unrelated.
    """
    packed = struct.pack("<4q", seed, pick.epoch, pick.position, pick.image)
    digest = hashlib.blake2b(packed, digest_size=8, person=purpose.encode()).digest()
    return int.from_bytes(digest, "little") >> 2


def _random_words(count: int, *key: int) -> NDArray[np.uint64]:
    # Raw words of the bit generator: numpy promises that these stay the same between its versions, and makes no such
    # promise for `permutation`.
    return np.random.PCG64(np.random.SeedSequence([value % 2**64 for value in key])).random_raw(count)


def _shuffle(count: int, *key: int) -> NDArray[np.int64]:
    return np.argsort(_random_words(count, *key), kind="stable").astype(np.int64)


def stream_members(index: DetectionIndex, drop_empty: bool) -> NDArray[np.int64]:
    """Return the positions to train on: all, or those with an object other than a crowd. Raises InputError for none."""
    if len(index) == 0:
        raise InputError(f"{index.root}: the data set has no image to train on; check the path and the split")
    if not drop_empty:
        return np.arange(len(index), dtype=np.int64)
    kept = [i for i in range(len(index)) if not np.all(index.annotations(i).crowd)]
    if not kept:
        raise InputError(f"{index.root}: no image has an object, and data.drop_empty drops images without objects")
    return np.array(kept, dtype=np.int64)


def aspect_groups(index: DetectionIndex, members: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return 0 for a portrait or square image, 1 for a landscape, int64 ``[N]``."""
    return (np.asarray(index.aspect_ratios)[members] > 1).astype(np.int64)
