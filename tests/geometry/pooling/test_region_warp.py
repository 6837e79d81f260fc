"""Crops of regions: drawn tables, and the resampling of torch as a reference."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from boxwright.geometry.pooling.region_warp import RegionWarpConfig, warp_regions, with_context
from boxwright.structures import InputError


def table(height: int, width: int) -> Tensor:
    """One image of one channel, 1 2 3 ... row by row."""
    return torch.arange(1.0, height * width + 1).reshape(1, 1, height, width)


def crop(pixels: Tensor, box: list[float], config: RegionWarpConfig, size: tuple[int, int] | None = None) -> Tensor:
    sizes = torch.tensor([size or tuple(pixels.shape[2:])])
    return warp_regions(pixels, sizes, torch.tensor([[box]]), config)[0, 0, 0]


PLAIN = RegionWarpConfig(size=2, context=0)


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ([0, 0, 2, 2], [[1, 2], [5, 6]]),  # pixel for pixel
        ([1, 1, 3, 3], [[6, 7], [10, 11]]),
        ([0, 0, 4, 2], [[1.5, 3.5], [5.5, 7.5]]),  # two pixels of a row become one: their middle
        ([2, 0, 6, 4], [[5.5, 0], [13.5, 0]]),  # the right half lies outside: the mean colour
        ([-2, -2, 2, 2], [[0, 0], [0, 3.5]]),
        ([-9, -9, -5, -5], [[0, 0], [0, 0]]),
    ],
)
def test_drawn_tables(box: list[float], expected: list[list[float]]) -> None:
    assert crop(table(4, 4), box, PLAIN).tolist() == expected


def test_the_edge_repeats_the_outermost_pixel() -> None:
    """Half a pixel within the edge there is nothing to interpolate with: not with the padding either."""
    config = RegionWarpConfig(size=4, context=0)
    assert crop(table(2, 2), [0, 0, 2, 2], config)[0].tolist() == [1, 1.25, 1.75, 2]
    padded = F.pad(table(2, 2), (0, 3, 0, 3), value=1000.0)
    torch.testing.assert_close(crop(padded, [0, 0, 2, 2], config, size=(2, 2)), crop(table(2, 2), [0, 0, 2, 2], config))
    assert (crop(padded, [0, 0, 4, 4], config, size=(2, 2)) < 5).all()


def test_inside_the_image_it_is_bilinear_resizing() -> None:
    pixels = torch.rand(1, 3, 40, 50)
    theirs = F.interpolate(pixels, (16, 16), mode="bilinear", align_corners=False)
    plain = RegionWarpConfig(size=16, context=0)
    found = warp_regions(pixels, torch.tensor([[40, 50]]), torch.tensor([[[0.0, 0, 50, 40]]]), plain)
    torch.testing.assert_close(found[0, 0], theirs[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("samples", [2, 4])
def test_samples_are_averaged(samples: int) -> None:
    pixels = torch.rand(1, 1, 8 * samples, 8 * samples)
    size = torch.tensor([[8 * samples, 8 * samples]])
    box = torch.tensor([[[0.0, 0, 8 * samples, 8 * samples]]])
    found = warp_regions(pixels, size, box, RegionWarpConfig(size=8, context=0, samples=samples))
    torch.testing.assert_close(found[0, 0], F.avg_pool2d(pixels, samples)[0])


def test_context_is_counted_in_pixels_of_the_crop() -> None:
    """16 of 64 pixels on each side: the region fills the middle half, so the cut is twice as large."""
    config = RegionWarpConfig(size=64, context=16)
    cut = with_context(torch.tensor([10.0, 20, 30, 60]), config)
    assert cut.tolist() == [0, 0, 40, 80]
    pixels = torch.zeros(1, 1, 80, 40)
    pixels[..., 20:60, 10:30] = 1
    inner = crop(pixels, [10, 20, 30, 60], config)
    assert (inner[17:47, 17:47] == 1).all()
    assert (inner[:15] == 0).all()
    assert (inner[:, :15] == 0).all()


def test_rounding_and_squares() -> None:
    box = torch.tensor([10.4, 20.5, 30.2, 60.0])
    assert with_context(box, RegionWarpConfig(size=8, context=0, rounding=True)).tolist() == [10, 21, 30, 60]
    square = with_context(torch.tensor([10.0, 20, 30, 60]), RegionWarpConfig(size=8, context=0, mode="square"))
    assert square.tolist() == [0, 20, 40, 60]
    thin = with_context(torch.tensor([3.1, 3.1, 3.2, 3.2]), RegionWarpConfig(size=8, context=0, rounding=True))
    assert (thin[2:] - thin[:2]).tolist() == [1, 1], "never nothing"


def test_regions_of_several_images_are_those_of_each() -> None:
    pixels, sizes = torch.rand(2, 3, 30, 40), torch.tensor([[30, 40], [20, 25]])
    boxes = torch.rand(2, 7, 2, 2).sort(2).values.flatten(2) * 40
    config = RegionWarpConfig(size=16, context=2)
    together = warp_regions(pixels, sizes, boxes, config)
    for b in range(2):
        for r in range(7):
            alone = warp_regions(pixels[b : b + 1], sizes[b : b + 1], boxes[b : b + 1, r : r + 1], config)
            torch.testing.assert_close(together[b, r], alone[0, 0])


def test_a_box_without_area_is_finite() -> None:
    assert crop(table(4, 4), [2, 2, 2, 2], RegionWarpConfig(size=8, context=1)).isfinite().all()


@pytest.mark.parametrize(("size", "context", "samples"), [(8, 4, 1), (0, 0, 1), (8, -1, 1), (8, 1, 0)])
def test_what_cannot_be(size: int, context: int, samples: int) -> None:
    with pytest.raises(InputError, match=r"RegionWarpConfig"):
        RegionWarpConfig(size=size, context=context, samples=samples)
