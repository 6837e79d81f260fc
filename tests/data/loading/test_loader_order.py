"""The order of training depends only on the seed and batch number, and uses every image once per epoch."""

from collections import Counter

import numpy as np
import pytest

from boxwright.data.loading.sampler import PassOrder, Pick, StreamOrder, sample_seed


def order(count: int, batch: int, seed: int = 0, **options) -> StreamOrder:
    return StreamOrder(np.arange(count), batch, seed, **options)


def images(stream: StreamOrder, batches: int, start: int = 0) -> list[list[int]]:
    return [[pick.image for pick in stream.batch(number)] for number in range(start, start + batches)]


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize(("count", "batch"), [(12, 4), (13, 4), (5, 8), (1, 3), (300, 2)])
def test_every_image_comes_once_an_epoch(count: int, batch: int, grouped: bool) -> None:
    stream = order(count, batch, groups=np.arange(count) % 2 if grouped else None)
    batches = stream.window * count * (1 if count > 100 else 3)
    picks = [pick for number in range(batches) for pick in stream.batch(number)]
    assert sorted(pick.position for pick in picks) == list(range(batches * batch))
    by_epoch = Counter(pick.epoch for pick in picks)
    for epoch, drawn in by_epoch.items():
        members = [pick.image for pick in picks if pick.epoch == epoch]
        assert len(set(members)) == drawn
        assert drawn == count or epoch == max(by_epoch)


def test_epochs_and_seeds_differ() -> None:
    first, second = images(order(64, 64), 2)
    assert first != second
    assert images(order(64, 64, seed=1), 1)[0] != first
    assert images(order(64, 64), 1)[0] == first


def test_a_batch_can_be_asked_for_out_of_turn() -> None:
    groups = np.arange(50) % 2
    straight = images(order(50, 4, groups=groups), 60)
    backwards = order(50, 4, groups=groups)
    assert [[pick.image for pick in backwards.batch(number)] for number in range(59, -1, -1)] == straight[::-1]


def test_grouping_mixes_at_most_one_batch_a_window() -> None:
    groups = (np.arange(200) % 3 == 0).astype(np.int64)
    stream = order(200, 8, groups=groups)
    assert stream.window == 25
    for window in range(4):
        batches = images(stream, stream.window, window * stream.window)
        mixed = [batch for batch in batches if len({groups[image] for image in batch}) > 1]
        assert len(mixed) <= 1
        kinds = [groups[batch[0]] for batch in batches]
        assert kinds != sorted(kinds)  # the batches themselves are shuffled
        assert kinds != sorted(kinds, reverse=True)


def test_the_order_never_changes() -> None:
    # Old runs must resume: a new order needs a new field in the saved position.
    assert images(order(10, 5, seed=3), 2) == [[0, 4, 9, 7, 1], [5, 6, 3, 8, 2]]
    assert sample_seed(3, Pick(image=4, epoch=1, position=14), "transform") == 1857366274358341187


def test_repeats_are_kept_on_average_and_epochs_are_equally_long() -> None:
    repeats = np.array([1.0, 2.5, 1.0, 4.0, 1.0])
    stream = order(5, 9, repeats=repeats)
    assert stream.epoch_size == 9
    counts = Counter(image for batch in images(stream, 400) for image in batch)
    np.testing.assert_allclose([counts[k] / 400 for k in range(5)], repeats * 9 / repeats.sum(), atol=0.06)
    for batch in images(stream, 20):
        assert all(abs(batch.count(k) - repeats[k] * 9 / repeats.sum()) < 1 for k in range(5))


@pytest.mark.parametrize(("count", "batch", "world"), [(10, 3, 1), (10, 3, 2), (4, 4, 3), (0, 2, 2), (7, 1, 2)])
def test_a_pass_takes_every_image_once(count: int, batch: int, world: int) -> None:
    ranks = [PassOrder(count, batch, rank, world) for rank in range(world)]
    taken = [pick.image for rank in ranks for number in range(len(rank)) for pick in rank.batch(number)]
    assert sorted(taken) == list(range(count))
    assert all(rank.batch(number) for rank in ranks for number in range(len(rank)))
