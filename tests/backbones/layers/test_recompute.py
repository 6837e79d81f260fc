"""VGG recomputes its first map: values and gradients are the same, and the map is not stored."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from boxwright.backbones.build import build_backbone
from boxwright.backbones.layers.recompute import can_recompute, recomputed_conv_relu
from boxwright.backbones.layers.winograd import use_winograd_in_training
from boxwright.backbones.vgg import VGGConfig


def _gradients(model: nn.Module, x: Tensor) -> list[Tensor]:
    model.zero_grad()
    sum(level.square().mean() for level in model(x)).backward()  # type: ignore[union-attr]
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("winograd", [False, True])
@pytest.mark.parametrize("depth", [13, 16])
def test_gradients_are_those_of_a_map_that_is_kept(depth: int, winograd: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_backbone(VGGConfig(depth=depth, out_levels=(1, 2, 3)))  # type: ignore[arg-type]
    model = use_winograd_in_training(model) if winograd else model
    x = torch.randn(2, 3, 64, 68)
    mine = _gradients(model, x)
    monkeypatch.setattr("boxwright.backbones.vgg.can_recompute", lambda *_: False)
    kept = _gradients(model, x)
    assert len(mine) == len(kept) == 2 * sum({13: (2, 2, 2), 16: (2, 2, 3)}[depth])
    for one, other in zip(mine, kept, strict=True):
        assert torch.equal(one, other)


def test_the_map_is_gone_after_the_way_there_and_the_same_on_the_way_back() -> None:
    first, second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3)
    seen: list[weakref.ref[Tensor]] = []

    def then(fmap: Tensor) -> Tensor:
        seen.append(weakref.ref(fmap))
        return second(fmap)

    x = torch.randn(1, 3, 9, 9)
    out = recomputed_conv_relu(x, first, then)
    assert seen[0]() is None
    assert torch.equal(out, second(F.relu(first(x))))


def test_a_second_way_back_is_the_first() -> None:
    first, second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3)
    out = recomputed_conv_relu(torch.randn(1, 3, 9, 9), first, second).sum()
    out.backward(retain_graph=True)
    assert first.weight.grad is not None
    once = first.weight.grad.clone()
    out.backward()
    assert torch.equal(first.weight.grad, 2 * once)


def test_what_is_forgotten() -> None:
    conv, x = nn.Conv2d(3, 8, 3), torch.randn(1, 3, 9, 9)
    assert can_recompute(x, conv)
    assert not can_recompute(x.clone().requires_grad_(), conv)
    assert not can_recompute(x, nn.Conv2d(3, 8, 3).requires_grad_(False))
    with torch.no_grad():
        assert not can_recompute(x, conv)
    with torch.autocast("cpu", torch.bfloat16):
        assert not can_recompute(x, conv)


def test_norms_see_their_batch_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A live norm counts its batches, so a network with norms keeps the map."""
    model = build_backbone(VGGConfig(depth=16, norm="bn", out_levels=(2,)))

    def fail(*_: object) -> Tensor:
        raise AssertionError("forgotten")

    monkeypatch.setattr("boxwright.backbones.vgg.recomputed_conv_relu", fail)
    _gradients(model, torch.randn(1, 3, 32, 32))
