"""Position-sensitive pooling: small tables by hand, torchvision's operators, and gradients."""

import pytest
import torch
import torchvision
from torch import Tensor

from boxwright.geometry.pooling.position_sensitive import PositionSensitiveConfig, pool_position_sensitive
from boxwright.structures import InputError

GENERATOR = torch.Generator().manual_seed(0)
MAPS = torch.randn(2, 3 * 9, 12, 15, generator=GENERATOR) + 4  # 3 values in 3 x 3 bins, stride 16: 240 x 192 pixels
CORNERS = torch.rand(2, 20, 2, generator=GENERATOR) * torch.tensor([200.0, 150.0])
SIDES = torch.rand(2, 20, 2, generator=GENERATOR) * torch.tensor([120.0, 100.0])
BOXES = torch.cat([CORNERS, (CORNERS + SIDES).minimum(torch.tensor([240.0, 192.0]))], dim=-1)


def rows_of(boxes: Tensor) -> Tensor:
    image = torch.arange(len(boxes)).repeat_interleave(boxes.shape[1]).unsqueeze(1)
    return torch.cat([image, boxes.flatten(0, 1)], dim=1)


def in_torchvisions_order(pooled: Tensor) -> Tensor:
    return pooled.flatten(0, 1).permute(0, 3, 1, 2)  # [B * R, C, k, k]


def test_averages_equal_torchvisions() -> None:
    config = PositionSensitiveConfig(size=3, rounding="torchvision")
    ours = in_torchvisions_order(pool_position_sensitive(MAPS, BOXES, 16, config))
    theirs = torchvision.ops.ps_roi_pool(MAPS, rows_of(BOXES), 3, 1 / 16)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    assert theirs.abs().min() == 0, "empty bins took part"


def test_gradient_of_averages_equals_torchvisions() -> None:
    """Of regions away from the last row and column, which its forward skips and its backward does not."""
    config = PositionSensitiveConfig(size=3, rounding="torchvision")
    boxes = BOXES.minimum(torch.tensor([170.0, 120.0, 200.0, 150.0]))
    gradients = []
    for pool in ("ours", "theirs"):
        maps = MAPS.clone().requires_grad_()
        if pool == "ours":
            pooled = in_torchvisions_order(pool_position_sensitive(maps, boxes, 16, config))
        else:
            pooled = torchvision.ops.ps_roi_pool(maps, rows_of(boxes), 3, 1 / 16)
        (pooled * torch.linspace(-1, 1, pooled.numel()).reshape(pooled.shape)).sum().backward()
        gradients.append(maps.grad)
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-4, rtol=1e-4)


def test_aligned_samples_equal_torchvisions() -> None:
    config = PositionSensitiveConfig(size=3, method="align", sampling_ratio=2)
    gradients, results = [], []
    for pool in ("ours", "theirs"):
        maps = MAPS.clone().requires_grad_()
        if pool == "ours":
            pooled = in_torchvisions_order(pool_position_sensitive(maps, BOXES, 16, config))
        else:
            pooled = torchvision.ops.ps_roi_align(maps, rows_of(BOXES), 3, 1 / 16, 2)
        (pooled * torch.linspace(-1, 1, pooled.numel()).reshape(pooled.shape)).sum().backward()
        results.append(pooled.detach())
        gradients.append(maps.grad)
    torch.testing.assert_close(results[0], results[1], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-4, rtol=1e-4)


def by_loops(maps: Tensor, box: list[float], stride: int, config: PositionSensitiveConfig) -> Tensor:
    """The authors' kernel for one region of one image, cell by cell."""
    size, (channels, height, width) = config.size, maps.shape
    x1, y1, x2, y2 = (float(int(v + 0.5)) for v in box)
    x1, y1 = x1 / stride, y1 / stride
    step_x = max((x2 + config.offset) / stride - x1, 0.1) / size
    step_y = max((y2 + config.offset) / stride - y1, 0.1) / size
    out = torch.zeros(size, size, channels // size**2)
    for i in range(size):
        for j in range(size):
            low, high = int(y1 + i * step_y), -int(-(y1 + (i + 1) * step_y) // 1)
            left, right = int(x1 + j * step_x), -int(-(x1 + (j + 1) * step_x) // 1)
            cells = maps[i * size + j :: size**2, max(low, 0) : min(high, height), max(left, 0) : min(right, width)]
            if cells.shape[1] and cells.shape[2]:
                out[i, j] = cells.mean((1, 2))
    return out


@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_averages_equal_the_authors_rule(offset: float) -> None:
    config = PositionSensitiveConfig(size=3, offset=offset)
    pooled = pool_position_sensitive(MAPS, BOXES, 16, config)
    for b in range(2):
        for r in range(BOXES.shape[1]):
            expected = by_loops(MAPS[b], BOXES[b, r].tolist(), 16, config)
            torch.testing.assert_close(pooled[b, r], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("box", "config", "cells", "why"),
    [
        ([0, 0, 15, 15], PositionSensitiveConfig(size=1, offset=1.0), (0, 1), "one cell"),
        ([8, 8, 23, 23], PositionSensitiveConfig(size=1, offset=1.0), (0, 2), "half of two cells counts both"),
        ([8, 8, 23, 23], PositionSensitiveConfig(size=1, rounding="torchvision"), (1, 2), "0.5 rounds up to cell 1"),
        ([8, 8, 24, 24], PositionSensitiveConfig(size=1), (0, 2), "the same region without its last pixel"),
        ([16, 16, 16, 16], PositionSensitiveConfig(size=1), (1, 2), "an empty region is a tenth of a cell"),
        ([40, 40, 20, 20], PositionSensitiveConfig(size=1), (2, 3), "and an inverted one as well"),
    ],
)
def test_cells_of_a_single_bin(
    box: list[int], config: PositionSensitiveConfig, cells: tuple[int, int], why: str
) -> None:
    maps = torch.randn(1, 2, 5, 5, generator=GENERATOR)
    low, high = cells
    pooled = pool_position_sensitive(maps, torch.tensor([[box]]).float(), 16, config)
    torch.testing.assert_close(pooled[0, 0, 0, 0], maps[0, :, low:high, low:high].mean((1, 2)), msg=why)


def test_a_region_outside_the_map_gives_zero_and_no_gradient() -> None:
    maps = MAPS.clone().requires_grad_()
    pooled = pool_position_sensitive(
        maps, torch.tensor([[[400.0, 300, 500, 400]]] * 2), 16, PositionSensitiveConfig(size=3)
    )
    pooled.sum().backward()
    assert pooled.eq(0).all()
    assert maps.grad is not None
    assert maps.grad.eq(0).all()


def test_large_values_keep_small_differences() -> None:
    """Running sums would lose them, had the mean of a map not been taken off."""
    maps = 1000 + torch.randn(1, 1, 64, 64, generator=GENERATOR)
    boxes = torch.tensor([[[60.0 * 16, 60 * 16, 61 * 16, 61 * 16]]])
    pooled = pool_position_sensitive(maps, boxes, 16, PositionSensitiveConfig(size=1))
    assert abs(pooled.item() - maps[0, 0, 60, 60].item()) < 1e-3


def test_bad_settings_are_named() -> None:
    with pytest.raises(InputError, match=r"PositionSensitiveConfig\.size = 0: should be"):
        PositionSensitiveConfig(size=0)
    with pytest.raises(InputError, match=r"offset = 1\.0 counts with method average and rounding caffe only"):
        PositionSensitiveConfig(method="align", offset=1.0)
    with pytest.raises(InputError, match="10 score maps for 3 x 3 bins"):
        pool_position_sensitive(torch.zeros(1, 10, 4, 4), torch.zeros(1, 1, 4), 16, PositionSensitiveConfig(size=3))
