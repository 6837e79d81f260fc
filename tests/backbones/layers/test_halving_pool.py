"""Pooling without indices has torch's values and gradients."""

import pytest
import torch
from torch import nn

from boxwright.backbones.layers.pooling import HalvingMaxPool2d


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("size", [(6, 8), (7, 8)], ids=["even", "odd"])
def test_equals_torchs(size: tuple[int, int], ceil_mode: bool, layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    x = torch.randint(-2, 3, (2, 3, *size)).float()  # many ties, as after a ReLU
    x = torch.relu(x).to(memory_format=layout).requires_grad_()
    ours, theirs = HalvingMaxPool2d(ceil_mode), nn.MaxPool2d(2, 2, ceil_mode=ceil_mode)
    y, wanted = ours(x), theirs(x)
    assert torch.equal(y, wanted)
    slope = torch.randn_like(wanted)
    assert torch.equal(torch.autograd.grad(y, x, slope)[0], torch.autograd.grad(wanted, x, slope)[0])


def test_keeps_no_indices() -> None:
    kept: list[torch.Tensor] = []
    x = torch.rand(1, 4, 8, 8, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        y = HalvingMaxPool2d()(x)
    assert [t.data_ptr() for t in kept] == [x.data_ptr()]
    torch.relu_(y.mul_(2)).sum().backward()  # what follows may work in place
    assert x.grad is not None
    assert x.grad.sum() == 2 * y.numel()


def test_compiles_to_torchs_own() -> None:
    x = torch.rand(1, 4, 8, 8, requires_grad=True)
    pool = HalvingMaxPool2d()
    assert torch.equal(torch.compile(pool, backend="eager", fullgraph=True)(x), pool(x))
