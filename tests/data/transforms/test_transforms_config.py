"""Configurations of transforms, colour, and the source of randomness."""

import colorsys
import json
import random
from dataclasses import asdict
from typing import Annotated

import numpy as np
import pytest
import torch
from pydantic import Field, TypeAdapter, ValidationError

from boxwright.data.transforms.colour import saturated
from boxwright.data.transforms.configs import (
    DarknetJitterConfig,
    ExpandConfig,
    FlipConfig,
    HSVJitterConfig,
    LargeScaleJitterConfig,
    LetterboxConfig,
    MinIoUCropConfig,
    MosaicConfig,
    PhotometricConfig,
    QuarterTurnConfig,
    ResizeConfig,
    ScaleJitterConfig,
    TransformConfig,
    WarpConfig,
    build_transform,
)
from boxwright.structures import InputError
from tests.support.tiny_index import generator, painted
from tests.support.transform_cases import COLOUR, GEOMETRIC, OBJECTS, Others, named

EVERY = [*GEOMETRIC, *COLOUR]


def nothing() -> PhotometricConfig:
    return PhotometricConfig(p=0.0)


@pytest.mark.parametrize("config", EVERY, ids=named)
def test_a_configuration_survives_json_by_its_kind(config: TransformConfig) -> None:
    adapter = TypeAdapter(Annotated[TransformConfig, Field(discriminator="kind")])
    assert adapter.validate_json(json.dumps(asdict(config))) == config


def test_a_configuration_out_of_range_fails_through_pydantic_too() -> None:
    adapter = TypeAdapter(Annotated[TransformConfig, Field(discriminator="kind")])
    with pytest.raises(ValidationError, match="less than or equal to 1"):
        adapter.validate_json('{"kind": "flip", "p": 2.0}')


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: ResizeConfig(short=()), r"ResizeConfig.short = \(\): .* at least 1 item"),
        (lambda: ResizeConfig(short=(900,), long=800), "long = 800: should be at least .* 900"),
        (lambda: LetterboxConfig(size=(0, 10)), r"LetterboxConfig.size.0 = 0: .* greater than or equal to 1"),
        (lambda: LetterboxConfig(size=(10, 10), fill=(0, 0, 300)), "LetterboxConfig.fill.2 = 300: .* equal to 255"),
        (lambda: WarpConfig(size=(10, 10), interpolations=()), "WarpConfig.interpolations"),
        (lambda: ScaleJitterConfig(size=(10, 10), scale=(2.0, 1.0)), "ScaleJitterConfig.scale: .* increasing"),
        (lambda: LargeScaleJitterConfig(scale=(0.0, 1.0)), "LargeScaleJitterConfig.scale.0 = 0.0: .* greater than 0"),
        (lambda: LargeScaleJitterConfig(scale=(0.5, float("inf"))), "LargeScaleJitterConfig.scale.1 = inf"),
        (lambda: LargeScaleJitterConfig(min_visible=1.5), "min_visible = 1.5: .* less than or equal to 1"),
        (lambda: DarknetJitterConfig(method="cut"), "DarknetJitterConfig.method = 'cut': .*'place' or 'crop'"),  # type: ignore[arg-type]
        (lambda: DarknetJitterConfig(method="crop", jitter=0.5), "jitter = 0.5: should be less than 0.5"),
        (lambda: DarknetJitterConfig(jitter=1.0), "DarknetJitterConfig.jitter = 1.0: .* less than 1"),
        (lambda: DarknetJitterConfig(min_share=1.0), "DarknetJitterConfig.min_share"),
        (lambda: FlipConfig(p=-0.1), "FlipConfig.p = -0.1"),
        (lambda: FlipConfig(vertical_p=float("nan")), "FlipConfig.vertical_p = nan"),
        (lambda: QuarterTurnConfig(p=2), "QuarterTurnConfig.p = 2"),
        (lambda: ExpandConfig(ratio=(0.5, 2.0)), r"ratio = \(0.5, 2.0\): .* at least 1"),
        (lambda: MinIoUCropConfig(min_ious=(1.2,)), "MinIoUCropConfig.min_ious.0 = 1.2"),
        (lambda: MinIoUCropConfig(scale=(0.3, 1.5)), "MinIoUCropConfig.scale.1 = 1.5: .* less than or equal to 1"),
        (lambda: PhotometricConfig(hue=200), "PhotometricConfig.hue = 200"),
        (lambda: HSVJitterConfig(saturation=0.5), "HSVJitterConfig.saturation = 0.5"),
        (lambda: MosaicConfig(min_size=-1.0), "MosaicConfig.min_size = -1.0"),
    ],
)
def test_a_value_out_of_range_is_named_with_its_range(make, names: str) -> None:
    with pytest.raises(InputError, match=names):
        make()


def test_a_mosaic_without_other_pictures_is_refused() -> None:
    with pytest.raises(InputError, match="fetch"):
        build_transform([MosaicConfig()])


@pytest.mark.parametrize("config", EVERY, ids=named)
def test_the_generator_decides_alone(config: TransformConfig) -> None:
    transform = build_transform([config], fetch=Others())
    first = transform(painted(OBJECTS), generator(7))
    torch.rand(3)
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    second = transform(painted(OBJECTS), generator(7))
    assert torch.equal(first.image, second.image)
    assert torch.equal(first.boxes, second.boxes)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]  # noqa: NPY002
    assert random.getstate() == states[2]


def coloured(seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (3, 8, 9), generator=generator(seed), dtype=torch.uint8)


def with_pixels(pixels: torch.Tensor):
    sample = painted([], *pixels.shape[1:])
    sample.image.copy_(pixels)
    return sample


def test_no_probability_no_change() -> None:
    sample = with_pixels(coloured())
    assert torch.equal(build_transform([nothing()])(sample, generator()).image, sample.image)
    jitter = HSVJitterConfig(hue=0.0, saturation=1.0, value=1.0)
    assert torch.equal(build_transform([jitter])(sample, generator()).image, sample.image)


@pytest.mark.parametrize("factor", [0.5, 0.9, 1.4])
def test_saturation_is_that_of_hsv(factor: float) -> None:
    pixels = coloured().float() / 255
    out = saturated(pixels, factor).permute(1, 2, 0).reshape(-1, 3)
    for before, after in zip(pixels.permute(1, 2, 0).reshape(-1, 3).tolist(), out.tolist(), strict=True):
        h, s, v = colorsys.rgb_to_hsv(*before)
        assert after == pytest.approx(colorsys.hsv_to_rgb(h, min(1.0, s * factor), v), abs=1e-5)


def test_hsv_jitter_scales_value_and_stops_at_white() -> None:
    sample = with_pixels(coloured())
    transform = build_transform([HSVJitterConfig(hue=0.0, saturation=1.0, value=1.5)])
    ratios = set()
    for seed in range(6):
        after = transform(sample, generator(seed)).image.float().amax(0)
        before = sample.image.float().amax(0)
        dark = before < 160
        ratio = float((after[dark] / before[dark].clamp(min=1)).median())
        ratios.add(ratio > 1)
        assert 1 / 1.51 < ratio < 1.51
        torch.testing.assert_close(after, (before * ratio).clamp(max=255), atol=3, rtol=0.02)
    assert ratios == {True, False}


def test_photometric_brightness_adds() -> None:
    config = PhotometricConfig(p=1.0, contrast=(1.0, 1.0), saturation=(1.0, 1.0), hue=0.0, brightness=32.0)
    sample = with_pixels(torch.full((3, 4, 4), 100, dtype=torch.uint8))
    values = [int(build_transform([config])(sample, generator(seed)).image[0, 0, 0]) for seed in range(30)]
    assert 68 <= min(values) < 85
    assert 115 < max(values) <= 132


def test_photometric_contrast_multiplies() -> None:
    config = PhotometricConfig(p=1.0, contrast=(1.5, 1.5), saturation=(1.0, 1.0), hue=0.0, brightness=0.0)
    sample = with_pixels(torch.tensor([10, 100, 200], dtype=torch.uint8)[:, None, None].expand(3, 2, 2))
    assert build_transform([config])(sample, generator()).image[:, 0, 0].tolist() == [15, 150, 255]


def test_photometric_hue_stays_within_its_degrees() -> None:
    config = PhotometricConfig(p=1.0, contrast=(1.0, 1.0), saturation=(1.0, 1.0), hue=36.0, brightness=0.0)
    sample = with_pixels(torch.tensor([200, 100, 50], dtype=torch.uint8)[:, None, None].expand(3, 2, 2))
    start = colorsys.rgb_to_hsv(200, 100, 50)[0]
    turns = []
    for seed in range(30):
        rgb = build_transform([config])(sample, generator(seed)).image[:, 0, 0].tolist()
        turns.append((colorsys.rgb_to_hsv(*rgb)[0] - start + 0.5) % 1 - 0.5)
    assert -0.105 < min(turns) < -0.05
    assert 0.05 < max(turns) < 0.105
