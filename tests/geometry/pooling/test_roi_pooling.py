"""Pooling from the feature table against torchvision's kernels, one level at a time and over a pyramid."""

import pytest
import torch
import torchvision

from boxwright.geometry.pooling.feature_table import FeatureTable, patch_rows
from boxwright.geometry.pooling.roi_pooling import RoIPoolingConfig, assign_levels, pool_regions
from boxwright.structures import InputError

STRIDES = (4, 8, 16, 32)


def pyramid(batch: int = 2, channels: int = 3, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn((batch, channels, 64 // s * 4, 96 // s * 4), generator=generator, dtype=dtype) for s in STRIDES]


def regions() -> torch.Tensor:
    """Two images of 256 x 384: small, large, on the border, beyond it, without area."""
    first = [[3, 5, 20, 30], [0, 0, 383, 255], [100.5, 60.25, 160, 90.75], [380, 250, 384, 256], [-9, -9, 30, 30]]
    second = [[10, 10, 10, 10], [200, 100, 300, 250], [7, 9, 8, 10], [350, 200, 420, 300], [0, 0, 60, 4]]
    return torch.tensor([first, second], dtype=torch.float32)


def reference(maps: list[torch.Tensor], boxes: torch.Tensor, config: RoIPoolingConfig) -> torch.Tensor:
    """One call of torchvision's kernel for each region on its own level."""
    levels = assign_levels(boxes, len(maps), config)
    out = torch.zeros(*boxes.shape[:2], config.size, config.size, maps[0].shape[1], dtype=maps[0].dtype)
    for b in range(boxes.shape[0]):
        for r in range(boxes.shape[1]):
            level = int(levels[b, r])
            rois = boxes[b, r][None].to(maps[0].dtype)
            if config.method == "pool":
                cell = torchvision.ops.roi_pool(maps[level][b : b + 1], [rois], config.size, 1 / STRIDES[level])
            else:
                cell = torchvision.ops.roi_align(
                    maps[level][b : b + 1],
                    [rois],
                    config.size,
                    1 / STRIDES[level],
                    config.sampling_ratio,
                    config.aligned,
                )
            out[b, r] = cell[0].permute(1, 2, 0)
    return out


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("samples", [1, 2, 0])
def test_align_equals_torchvision(aligned: bool, samples: int) -> None:
    config = RoIPoolingConfig(aligned=aligned, sampling_ratio=samples, size=5)
    maps, boxes = pyramid(dtype=torch.float32), regions()
    pooled = pool_regions(FeatureTable.from_maps(maps, STRIDES), boxes, config)
    torch.testing.assert_close(pooled, reference(maps, boxes, config), atol=2e-5, rtol=1e-5)


def test_align_has_torchvisions_gradient() -> None:
    config, boxes = RoIPoolingConfig(size=3), regions()
    maps = [m.float().requires_grad_() for m in pyramid()]
    weight = torch.randn(2, 5, 3, 3, 3, generator=torch.Generator().manual_seed(1))
    (pool_regions(FeatureTable.from_maps(maps, STRIDES), boxes, config) * weight).sum().backward()
    ours = [m.grad.clone() for m in maps]  # type: ignore[union-attr]
    for fmap in maps:
        fmap.grad = None
    (reference(maps, boxes, config) * weight).sum().backward()
    for mine, fmap in zip(ours, maps, strict=True):
        theirs = torch.zeros_like(fmap) if fmap.grad is None else fmap.grad
        torch.testing.assert_close(mine, theirs, atol=2e-5, rtol=1e-4)


def test_pool_equals_torchvision() -> None:
    config = RoIPoolingConfig(method="pool", size=4)
    maps, boxes = pyramid(dtype=torch.float32), regions()
    pooled = pool_regions(FeatureTable.from_maps(maps, STRIDES), boxes, config)
    torch.testing.assert_close(pooled, reference(maps, boxes, config))


def test_pool_rounds_half_away_from_zero() -> None:
    """Fact sheet, list of tests, 1: x.5 coordinates on a 4 x 4 map."""
    fmap = torch.arange(16.0).reshape(1, 1, 4, 4)
    config = RoIPoolingConfig(method="pool", size=1)
    table = FeatureTable.from_maps([fmap], [1])
    assert pool_regions(table, torch.tensor([[[0.5, 0.5, 1.5, 1.5]]]), config).item() == 10  # cells 1..2, not 0..2


def test_pool_of_regions_that_end_behind_their_last_pixel() -> None:
    """Pixels 0 to 7 lie in the first cell of 16; Caffe's end of them, 7, rounds to it, ours, 8, to the next."""
    fmap = torch.arange(16.0).reshape(1, 1, 4, 4)
    table, box = FeatureTable.from_maps([fmap], [16]), torch.tensor([[[0.0, 0, 8, 8]]])
    values = [
        pool_regions(table, box, RoIPoolingConfig(method="pool", size=1, inclusive=inclusive)).item()
        for inclusive in (False, True)
    ]
    assert values == [5, 0]
    with pytest.raises(InputError, match=r'pooling\.inclusive is for method "pool"'):
        RoIPoolingConfig(inclusive=True)


def test_crop_samples_from_corner_to_corner_then_takes_maxima() -> None:
    fmap = torch.arange(16.0).reshape(1, 1, 4, 4)
    config = RoIPoolingConfig(method="crop", size=1)
    table = FeatureTable.from_maps([fmap], [1])
    assert pool_regions(table, torch.tensor([[[0.0, 0, 2, 3]]]), config).item() == fmap[0, 0, 3, 2]


def test_corners_average_the_samples_at_a_cells_corners() -> None:
    """A plane is read exactly wherever a sample lies within: each cell's mean is the plane at its centre."""
    y, x = torch.meshgrid(torch.arange(12.0), torch.arange(10.0), indexing="ij")
    table = FeatureTable.from_maps([(3 * y + x)[None, None]], [2])
    config = RoIPoolingConfig(method="corners", size=2)
    pooled = pool_regions(table, torch.tensor([[[2.0, 4, 8, 10]]]), config)  # 3 cells and the one that is added
    centres_y, centres_x = torch.tensor([3.0, 5.0]), torch.tensor([2.0, 4.0])
    torch.testing.assert_close(pooled[0, 0, :, :, 0], 3 * centres_y[:, None] + centres_x)


@pytest.mark.parametrize(
    "box",
    [
        (0.0, 0, 1.5, 1.5),  # samples at 0 and 2.5, both inside
        (1.75, 1.75, 3, 3),  # at 1.75 and 4: the second counts as zero
        (2.25, 2.25, 2.5, 2.5),  # at 2.25 and 3.5: beyond the last cell the line goes on
        (-1.5, -1.5, 0.5, 0.5),  # at -1.5, which is zero, and 1.5
    ],
)
def test_corners_at_the_border(box: tuple[float, ...]) -> None:
    """One cell, so four samples, on the plane 10 y + x over 4 x 4 cells."""
    fmap = (10 * torch.arange(4.0)[:, None] + torch.arange(4.0))[None, None]
    config = RoIPoolingConfig(method="corners", size=1)
    found = pool_regions(FeatureTable.from_maps([fmap], [1]), torch.tensor([[box]]), config).item()
    low, high = box[0], box[2] + 1
    inside = [p for p in (low, high) if 0 <= p < 4]
    by_hand = sum(10 * y + x for y in inside for x in inside) / 4
    assert found == pytest.approx(by_hand)


def test_the_level_may_be_chosen_by_inclusive_sides() -> None:
    box = torch.tensor([0.0, 0, 223, 223])
    assert assign_levels(box, 4, RoIPoolingConfig()).item() == 1
    assert assign_levels(box, 4, RoIPoolingConfig(level_offset=1.0)).item() == 2


@pytest.mark.parametrize(("side", "level"), [(224, 4), (112, 3), (111, 2), (448, 5), (10, 2), (2000, 5), (0, 2)])
def test_level_follows_the_size(side: float, level: int) -> None:
    """Fact sheet, list of tests, 5."""
    assert assign_levels(torch.tensor([0.0, 0, side, side]), 4, RoIPoolingConfig()).item() == level - 2


def test_equal_strides_keep_their_own_levels() -> None:
    """DetNet: P4 and P5 share a stride; a region goes by its size, and reads the right map."""
    maps = [torch.full((1, 1, s, s), float(i)) for i, s in enumerate((64, 32, 16, 16))]
    table = FeatureTable.from_maps(maps, (4, 8, 16, 16))
    boxes = torch.tensor([[[64.0, 64, 84, 84], [60, 60, 180, 180], [10, 10, 240, 240], [0, 0, 250, 256]]])
    pooled = pool_regions(table, boxes, RoIPoolingConfig(size=1, canonical_size=224))
    assert pooled.flatten().tolist() == [0, 1, 2, 2]
    big = torch.tensor([[[0.0, 0, 256, 256]]])
    assert pool_regions(table, big, RoIPoolingConfig(size=1, canonical_size=112)).item() == pytest.approx(3, abs=1)


def test_patches_are_the_neighbourhoods_a_convolution_reads() -> None:
    maps = pyramid(dtype=torch.float32)
    table = FeatureTable.from_maps(maps, STRIDES)
    level = torch.tensor([[0, 2, 3, 1], [3, 0, 0, 1]])
    y, x = torch.tensor([[0, 15, 7, 3], [0, 63, 5, 31]]), torch.tensor([[0, 23, 11, 9], [11, 95, 0, 47]])
    patches = patch_rows(table, level, y, x)
    weight = torch.randn(6, 3, 3, 3, generator=torch.Generator().manual_seed(2))
    linear = patches @ weight.permute(0, 2, 3, 1).flatten(1).T
    for b in range(2):
        for n in range(4):
            dense = torch.nn.functional.conv2d(maps[level[b, n]][b : b + 1], weight, padding=1)
            torch.testing.assert_close(linear[b, n], dense[0, :, y[b, n], x[b, n]], atol=1e-5, rtol=1e-5)


def test_first_levels_share_rows() -> None:
    table = FeatureTable.from_maps(pyramid(), STRIDES)
    part = table.first(2)
    assert part.rows.data_ptr() == table.rows.data_ptr()
    assert len(part.rows) == 2 * (64 * 96 + 32 * 48)


def test_bad_sizes_are_refused() -> None:
    with pytest.raises(InputError, match=r"RoIPoolingConfig\.size = 0: should be greater than or equal to 1"):
        RoIPoolingConfig(size=0)
