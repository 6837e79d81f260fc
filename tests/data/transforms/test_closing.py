"""The end of a run without transforms that combine images (``data.close_mosaic``)."""

from dataclasses import replace

import pytest

from boxwright.data.config import DataConfig
from boxwright.data.index import DetectionIndex
from boxwright.data.transforms.configs import (
    CopyPasteConfig,
    DarknetJitterConfig,
    FlipConfig,
    HSVJitterConfig,
    LetterboxConfig,
    MixupConfig,
    MosaicConfig,
    TransformConfig,
    WarpConfig,
    without_mixing,
)
from boxwright.data.transforms.multi_scale import MultiScaleConfig
from boxwright.recipes import RECIPES, resolve_recipe
from boxwright.structures import InputError
from tests.support.streams import same_batches, take, train_stream
from tests.support.tiny_index import write_index

MIXED: tuple[TransformConfig, ...] = (WarpConfig(size=(32, 32)), MixupConfig(p=1.0), FlipConfig())


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> DetectionIndex:
    return write_index(tmp_path_factory.mktemp("images"))  # 13 images


def test_what_is_left_out() -> None:
    flip = FlipConfig()
    assert without_mixing((MosaicConfig(size=(64, 96), fill=(1, 2, 3)), flip)) == (
        LetterboxConfig(size=(64, 96), fill=(1, 2, 3)),
        flip,
    )
    some = MosaicConfig(size=(64, 64), p=0.5)
    assert without_mixing((some, DarknetJitterConfig(size=(64, 64)), MixupConfig(), CopyPasteConfig(), flip)) == (
        DarknetJitterConfig(size=(64, 64)),
        flip,
    )
    assert without_mixing(()) == ()


@pytest.mark.parametrize("workers", [0, 1])
def test_the_last_epochs_are_plain(index: DetectionIndex, workers: int) -> None:
    """An epoch of 13 images in batches of 2 has 6.5 steps; of 13 steps the last 7 (one epoch, rounded up) are plain."""
    plain = take(train_stream(index, without_mixing(MIXED), 2, seed=2), 13)
    mixed = take(train_stream(index, MIXED, 2, seed=2), 13)
    assert not any(map(same_batches, plain, mixed))
    stream = train_stream(index, MIXED, 2, seed=2, close_mosaic=1, workers=workers, start_method="fork")
    stream.ends_after(13)
    made = take(stream, 13)
    assert all(map(same_batches, made[:6], mixed[:6]))
    assert all(map(same_batches, made[6:], plain[6:]))
    resumed = train_stream(index, MIXED, 2, seed=2, close_mosaic=1)
    resumed.ends_after(20)  # the run goes on for longer
    resumed.load_state_dict({**stream.state_dict(), "batches": 6})
    assert all(map(same_batches, take(resumed, 7), mixed[6:]))


def test_several_sizes_go_on(index: DetectionIndex) -> None:
    train = (MosaicConfig(size=(64, 64)), HSVJitterConfig())
    sizes = MultiScaleConfig(sizes=(32, 64), every=1)
    stream = train_stream(index, train, 2, seed=4, multi_scale=sizes, close_mosaic=20)
    stream.ends_after(6)
    plain = train_stream(index, without_mixing(train), 2, seed=4, multi_scale=sizes)
    plain.ends_after(6)
    made = take(stream, 6)
    assert all(map(same_batches, made, take(plain, 6)))
    assert {tuple(batch.images.pixels.shape[-2:]) for batch in made} == {(32, 32), (64, 64)}
    half = (replace(train[0], p=0.5), HSVJitterConfig())
    with pytest.raises(InputError, match="have no size to replace"):
        train_stream(index, half, 2, multi_scale=sizes, close_mosaic=1)


def test_nothing_to_leave_out_is_an_error() -> None:
    with pytest.raises(InputError, match=r"close_mosaic = 2, but data\.train has no mosaic, mixup or copy_paste"):
        DataConfig(train=(FlipConfig(),), eval=(), close_mosaic=2)

    name = next(name for name, recipe in RECIPES.items() if any(t.kind == "mosaic" for t in recipe.data.train))
    assert resolve_recipe(name, sets=["data.close_mosaic=2.5"]).data.close_mosaic == 2.5
