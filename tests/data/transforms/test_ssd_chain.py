"""SSD's augmentation: each step and its probability as in the reference code, and the order of all."""

import pytest
import torch
from torch import Tensor
from torchvision import tv_tensors

from boxwright.data.transforms.augment import FREE
from boxwright.data.transforms.configs import (
    ExpandConfig,
    FlipConfig,
    MinIoUCropConfig,
    PhotometricConfig,
    WarpConfig,
    build_transform,
)
from boxwright.data.transforms.field_types import CAFFE_MEAN, Interpolation
from boxwright.data.transforms.resizing import SSD_INTERPOLATIONS
from boxwright.data.transforms.sample import Sample, resized
from tests.support.tiny_index import generator, painted
from tests.support.transform_cases import crop_by

CHAIN = (
    PhotometricConfig(),
    ExpandConfig(),
    MinIoUCropConfig(),
    WarpConfig(size=(64, 64), interpolations=SSD_INTERPOLATIONS),
    FlipConfig(),
)


def plain(colour: tuple[int, int, int], height: int = 2, width: int = 2) -> Sample:
    sample = painted([], height, width)
    sample.image.copy_(torch.tensor(colour, dtype=torch.uint8)[:, None, None])
    return sample


def share(holds: list[bool]) -> float:
    return sum(holds) / len(holds)


def test_contrast_comes_first_or_last_with_even_odds() -> None:
    config = PhotometricConfig(p=1.0, brightness=0.0, contrast=(1.5, 1.5), saturation=(0.5, 0.5), hue=0.0)
    transform = build_transform([config])
    seen = [tuple(transform(plain((200, 100, 50)), generator(s)).image[:, 0, 0].tolist()) for s in range(200)]
    first, last = (
        (255, 202, 165),
        (255, 225, 188),
    )  # 300 150 75 is clipped at 255 before saturation, or 200 150 125 after it
    assert set(seen) == {first, last}
    assert share([colour == first for colour in seen]) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(
    "changes",
    [
        {"brightness": 32.0},
        {"contrast": (0.5, 1.5)},
        {"saturation": (0.5, 1.5)},
        {"hue": 36.0},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_each_distortion_happens_half_of_the_time(changes: dict) -> None:
    still = {"brightness": 0.0, "contrast": (1.0, 1.0), "saturation": (1.0, 1.0), "hue": 0.0}
    transform = build_transform([PhotometricConfig(**{**still, **changes})])
    before = plain((160, 100, 60))
    same = [torch.equal(transform(before, generator(seed)).image, before.image) for seed in range(300)]
    assert share(same) == pytest.approx(0.5, abs=0.12)  # a draw near 0 changes no grey level either


def test_expansion_is_even_in_its_ratio_and_filled_with_the_mean() -> None:
    transform = build_transform([ExpandConfig()])
    samples = [transform(painted([[0, 0, 90, 60]]), generator(seed)) for seed in range(400)]
    grown = [sample for sample in samples if sample.size != (60, 90)]
    assert share([sample.size != (60, 90) for sample in samples]) == pytest.approx(0.5, abs=0.08)
    ratios = torch.tensor([[sample.size[0] / 60, sample.size[1] / 90] for sample in grown])
    assert float((ratios[:, 0] - ratios[:, 1]).abs().max()) < 0.03  # one factor for both sides
    quarters = torch.histc(ratios[:, 0], 3, 1, 4) / len(grown)
    assert bool(((quarters - 1 / 3).abs() < 0.1).all())
    for sample in grown[:5]:
        outside = sample.image.clone().as_subclass(Tensor)
        x1, y1, x2, y2 = sample.boxes[0].int().tolist()
        outside[:, y1:y2, x1:x2] = torch.tensor(CAFFE_MEAN, dtype=torch.uint8)[:, None, None]
        assert bool((outside == torch.tensor(CAFFE_MEAN)[:, None, None]).all())


@pytest.mark.parametrize(
    ("box", "expected", "why"),
    [
        ([0, 0, 90, 60], 1 / 7, "an object as large as the image: every sampler finds a crop"),
        ([30, 30, 33, 33], 1 / 2, "an object that no crop overlaps by 0.1: only the whole image and the free sampler"),
    ],
)
def test_the_sampler_is_drawn_among_those_that_succeed(box: list[int], expected: float, why: str) -> None:
    transform = build_transform([MinIoUCropConfig(keep="visible")])
    whole = [transform(painted([box]), generator(seed)).size == (60, 90) for seed in range(400)]
    assert share(whole) == pytest.approx(expected, abs=0.06), why


def test_the_aspect_of_a_crop_is_clipped_after_it_is_drawn() -> None:
    """At a scale of 0.9 an aspect of 1 / 0.81 fills the width, where 51 % of U(0.5, 2) are clipped to."""
    transform = crop_by(FREE, scale=(0.9, 0.9))
    sizes = [transform(painted([]), generator(seed)).size for seed in range(400)]
    assert share([width == 90 for _, width in sizes]) == pytest.approx(0.510, abs=0.08)
    assert share([height == 60 for height, _ in sizes]) == pytest.approx(0.207, abs=0.07)
    assert {height for height, width in sizes if width == 90} == {49}  # 60 * 0.81


def test_a_crop_may_leave_no_object() -> None:
    transform = crop_by(0.1)
    counts = {len(transform(painted([[0, 0, 60, 60]]), generator(seed))) for seed in range(60)}
    assert counts == {0, 1}


def test_what_a_crop_keeps_is_cut_and_never_dropped_for_its_size() -> None:
    """A box with its centre inside is kept, even if less than a pixel of it is left."""
    transform = crop_by(FREE)
    for seed in range(200):
        before = painted([[40, 20, 41, 40]])
        after = transform(before, generator(seed))
        left, top = -after.to_original[2], -after.to_original[3]
        inside = left <= 40.5 < left + after.size[1] and top <= 30 < top + after.size[0]
        assert len(after) == int(inside)


@pytest.mark.parametrize("how", SSD_INTERPOLATIONS)
@pytest.mark.parametrize("size", [(30, 45), (61, 127)], ids=["smaller", "larger"])
def test_every_interpolation_keeps_an_even_colour_and_the_place_of_an_edge(
    how: Interpolation, size: tuple[int, int]
) -> None:
    assert torch.equal(resized(plain((7, 130, 250), 60, 90), *size, how).image, plain((7, 130, 250), *size).image)
    edge = plain((0, 0, 0), 60, 90)
    edge.image[:, :, 45:] = 200
    row = resized(edge, *size, how).image[0, size[0] // 2].float()
    assert abs(float((row < 100).sum()) - size[1] / 2) <= 1


def test_lanczos4_has_eight_taps_at_any_scale() -> None:
    """One bright pixel, doubled, gives sin(pi x) sin(pi x / 4) / (pi x)^2 at x = 0.25, 0.75 ..., normalised."""
    dot = plain((0, 0, 0), 1, 21)
    dot.image[:, :, 10] = 200
    x = (torch.arange(42) + 0.5) / 2 - 0.5 - 10
    row = torch.where(x.abs() < 4, torch.sinc(x) * torch.sinc(x / 4), 0.0)
    total = sum(row[20 + 2 * k] for k in range(-4, 4))  # the weights of one new pixel on eight old ones
    got = resized(dot, 1, 42, "lanczos4").image[0, 0].float()
    torch.testing.assert_close(got, (row / total * 200).round().clamp(min=0), atol=1, rtol=0)
    stripes = plain((0, 0, 0), 64, 64)
    stripes.image[:, :, 1::4] = 255
    assert int(resized(stripes, 16, 16, "lanczos4").image.max()) > 120  # not the average of the four pixels


def test_aliased_bicubic_is_opencvs() -> None:
    """Between pixels the weights for a = -0.75 are -3/32, 19/32, 19/32, -3/32; antialiased ones have a = -0.5."""
    step = plain((0, 0, 0), 1, 8)
    step.image[:, :, 4:] = 128
    assert resized(step, 1, 4, "aliased_bicubic").image[0, 0].tolist() == [
        0,
        0,
        140,
        128,
    ]  # 128 * 35/32 beside the step
    dot = plain((0, 0, 0), 1, 8)
    dot.image[:, :, 3] = 128
    assert resized(dot, 1, 4, "aliased_bicubic").image[0, 0].tolist() == [0, 76, 0, 0]  # 128 * 19/32; the rest < 0


def test_the_chain_in_its_order_gives_the_networks_input() -> None:
    transform = build_transform(CHAIN)
    zoomed = set()
    for seed in range(20):
        before = painted([[5, 8, 35, 28], [10, 34, 44, 58]], labels=[0, 2])
        after = transform(before, generator(seed))
        assert isinstance(after.image, tv_tensors.Image)
        assert after.size == (64, 64)
        assert bool(((after.boxes >= 0) & (after.boxes <= 64)).all())
        zoomed.add(abs(after.to_original[0]) > 64 / 90)
    assert zoomed == {True, False}
