"""Training at several input sizes: the size of a batch depends only on the seed and its number."""

from collections import Counter
from pathlib import Path

import pytest

from boxwright.data.index import DetectionIndex
from boxwright.data.loading.loader import TrainStream
from boxwright.data.transforms.configs import (
    DarknetJitterConfig,
    FlipConfig,
    HSVJitterConfig,
    LetterboxConfig,
    MosaicConfig,
    ResizeConfig,
    ScaleJitterConfig,
    TransformConfig,
    WarpConfig,
)
from boxwright.data.transforms.multi_scale import MultiScaleConfig, scaled, with_size
from boxwright.structures import InputError
from tests.support.streams import same_batches, take, train_stream
from tests.support.tiny_index import write_index

TRAIN: tuple[TransformConfig, ...] = (DarknetJitterConfig(size=(64, 64)), HSVJitterConfig(), FlipConfig())
SIZES = MultiScaleConfig(sizes=(32, 64, 96), every=3)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> DetectionIndex:
    return write_index(tmp_path_factory.mktemp("images"))


def test_the_sizes_of_a_seed_never_change() -> None:
    """Old runs must resume with the same sizes."""
    config = MultiScaleConfig()
    assert [config.size_at(0, batch) for batch in range(0, 60, 10)] == [480, 416, 416, 320, 384, 512]
    assert [config.size_at(7, batch) for batch in range(0, 50, 10)] == [416, 320, 576, 384, 448]


def test_a_size_lasts_for_its_batches_and_all_sizes_come() -> None:
    config = MultiScaleConfig()
    assert config.choices == (320, 352, 384, 416, 448, 480, 512, 544, 576, 608)
    for first in range(0, 200, 10):
        assert len({config.size_at(3, batch) for batch in range(first, first + 10)}) == 1
    counts = Counter(config.size_at(3, batch) for batch in range(0, 20_000, 10))
    assert set(counts) == set(config.choices)
    assert all(abs(count / 2000 - 0.1) < 0.03 for count in counts.values())


@pytest.mark.parametrize(
    ("config", "expected", "why"),
    [
        (MultiScaleConfig(sizes=(32,), last=3), [32] * 10, "the largest is the only one"),
        (MultiScaleConfig(sizes=(32,), last=3, last_size=64), [32] * 7 + [64] * 3, "the last three"),
        (MultiScaleConfig(sizes=(32,), last=99, last_size=64), [64] * 10, "more than there are"),
        (MultiScaleConfig(sizes=(32,), last=0, last_size=64), [32] * 10, "none"),
    ],
)
def test_the_last_batches(config: MultiScaleConfig, expected: list[int], why: str) -> None:
    assert [config.size_at(0, batch, 10) for batch in range(10)] == expected, why
    assert config.size_at(0, 9) == 32, "without a known end there is no last batch"
    assert set(expected) <= set(config.all_sizes)


@pytest.mark.parametrize("fixed_size", [None, (64, 64)])
def test_batches_have_their_sizes(index: DetectionIndex, fixed_size: tuple[int, int] | None) -> None:
    stream = train_stream(index, TRAIN, 2, seed=4, multi_scale=SIZES, fixed_size=fixed_size)
    stream.ends_after(20)
    config = MultiScaleConfig(sizes=SIZES.sizes, every=3)
    sizes = [tuple(batch.images.pixels.shape[-2:]) for batch in take(stream, 12)]
    assert sizes == [(side, side) for side in (config.size_at(4, number) for number in range(12))]
    assert len(set(sizes)) > 1


def test_images_smaller_than_the_input_are_padded_to_the_fixed_size_of_the_batch(index: DetectionIndex) -> None:
    transforms = (ScaleJitterConfig(size=(64, 64), scale=(0.5, 0.6)),)
    stream = train_stream(index, transforms, 2, seed=4, multi_scale=SIZES, fixed_size=(64, 64))
    for number, batch in enumerate(take(stream, 7)):
        side = SIZES.size_at(4, number)
        assert tuple(batch.images.pixels.shape[-2:]) == (side, side)
        assert int(batch.images.sizes.max()) <= 0.6 * side + 1


def test_only_the_size_differs_from_a_stream_of_one_size(index: DetectionIndex) -> None:
    several = take(train_stream(index, TRAIN, 2, seed=4, multi_scale=SIZES), 6)
    for number, batch in enumerate(several):
        side = SIZES.size_at(4, number)
        with train_stream(index, with_size(TRAIN, (side, side)), 2, seed=4) as alone:
            alone.load_state_dict({**alone.state_dict(), "batches": number})
            assert same_batches(next(alone), batch)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_stream_goes_on_with_its_sizes(index: DetectionIndex, workers: int) -> None:
    config = MultiScaleConfig(sizes=(32, 64, 96), every=2, last=2, last_size=128)

    def stream(workers: int) -> TrainStream:
        made = train_stream(index, TRAIN, 2, seed=1, multi_scale=config, workers=workers)
        made.ends_after(9)
        return made

    whole = take(stream(0), 9)
    assert [batch.images.pixels.shape[-1] for batch in whole[-3:]] == [config.size_at(1, 6), 128, 128]
    with stream(workers) as first:
        for _ in range(3):
            next(first)
        state = first.state_dict()
    with stream(2 - workers) as second:
        second.load_state_dict(state)
        assert all(same_batches(next(second), batch) for batch in whole[3:])


def test_ranks_share_the_size_of_a_global_batch(index: DetectionIndex) -> None:
    whole = take(train_stream(index, TRAIN, 4, seed=2, multi_scale=SIZES), 7)
    ranks = [take(train_stream(index, TRAIN, 2, seed=2, rank=r, world=2, multi_scale=SIZES), 7) for r in (0, 1)]
    for batch, *parts in zip(whole, *ranks, strict=True):
        assert [part.images.pixels.shape[-1] for part in parts] == [batch.images.pixels.shape[-1]] * 2
        for part, half in zip(parts, (slice(0, 2), slice(2, 4)), strict=True):
            assert bool((part.images.pixels == batch.images.pixels[half]).all())


def test_every_size_is_replaced_and_nothing_else() -> None:
    before = (MosaicConfig(size=(64, 64), p=0.3), LetterboxConfig(size=(64, 64), fill=(1, 2, 3)), FlipConfig(p=0.2))
    assert with_size(before, (32, 96)) == (
        MosaicConfig(size=(32, 96), p=0.3),
        LetterboxConfig(size=(32, 96), fill=(1, 2, 3)),
        FlipConfig(p=0.2),
    )


@pytest.mark.parametrize(
    ("transform", "factors", "multiple", "expected", "why"),
    [
        (WarpConfig(size=(320, 320)), (0.6, 1.0), 64, WarpConfig(size=(192, 320)), "RefineDet's aspect pass"),
        (WarpConfig(size=(320, 320)), (2.2, 2.2), 64, WarpConfig(size=(704, 704)), "RefineDet's largest"),
        (LetterboxConfig(size=(416, 416)), (1.25, 1.25), 32, LetterboxConfig(size=(512, 512)), "520 is nearer to 512"),
        (LetterboxConfig(size=(416, 416)), (0.01, 0.01), 32, LetterboxConfig(size=(32, 32)), "never nothing"),
        (WarpConfig(size=(300, 300)), (1.1, 1.1), 1, WarpConfig(size=(330, 330)), "no multiple"),
        (ResizeConfig(short=(800,), long=1333), (1.5, 1.5), 32, ResizeConfig(short=(1200,), long=2000), "padded later"),
        (FlipConfig(), (2.0, 2.0), 32, FlipConfig(), "has no size"),
    ],
)
def test_scaled(
    transform: TransformConfig, factors: tuple[float, float], multiple: int, expected: TransformConfig, why: str
) -> None:
    assert scaled((transform,), factors, multiple) == (expected,), why


def test_what_does_not_fit_is_refused(index: DetectionIndex, tmp_path: Path) -> None:
    for make, message in (
        (lambda: MultiScaleConfig(step=0), r"MultiScaleConfig.step = 0"),
        (lambda: MultiScaleConfig(low=700), r"low = 700: should be at most high = 608"),
        (lambda: MultiScaleConfig(every=0), r"MultiScaleConfig.every = 0"),
        (lambda: MultiScaleConfig(last=-1), r"MultiScaleConfig.last = -1"),
        (lambda: MultiScaleConfig(sizes=()), r"MultiScaleConfig.sizes = \(\)"),
        (lambda: MultiScaleConfig(last_size=0), r"MultiScaleConfig.last_size = 0"),
        (lambda: scaled((ResizeConfig(),), (1.0, 0.6)), "one factor for both"),
        (
            lambda: train_stream(index, (ResizeConfig(),), 2, multi_scale=SIZES),
            r"\(resize\) have no size to replace",
        ),
        (
            lambda: train_stream(index, (WarpConfig(size=(64, 32)),), 2, multi_scale=SIZES),
            r"transform 0 \(warp\) has the size 64 x 32; make it square",
        ),
        (
            lambda: train_stream(index, TRAIN, 2, multi_scale=SIZES, shapes=((64, 64),)),
            "shapes and multi_scale are both given",
        ),
    ):
        with pytest.raises(InputError, match=message):
            make()
