"""Winograd's convolution against the definition, and when it stands aside."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from boxwright.backbones import VGGConfig, build_backbone
from boxwright.backbones.layers import winograd
from boxwright.backbones.layers.winograd import (
    TrainableWinogradConv2d,
    WinogradConv2d,
    use_winograd,
    use_winograd_in_training,
)


def relative_error(ours: Tensor, exact: Tensor) -> float:
    return ((ours.double() - exact).norm() / exact.norm()).item()


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("padding", [1, 0, (1, 2), (3, 0)])
@pytest.mark.parametrize(("batch", "height", "width"), [(1, 16, 16), (2, 13, 19), (3, 38, 9), (1, 75, 50), (1, 3, 65)])
@pytest.mark.parametrize("chunk", [None, 1], ids=["whole", "row-by-row"])
def test_values_equal_the_definition(
    batch: int, height: int, width: int, padding: int, layout: torch.memory_format, chunk: int | None, monkeypatch
) -> None:
    torch.manual_seed(0)
    if chunk is not None:
        monkeypatch.setattr(winograd, "CHUNK_TILES", chunk)
        monkeypatch.setattr(winograd, "CHUNK_BYTES", chunk)
    conv = nn.Conv2d(24, 40, 3, padding=padding, bias=batch != 2).requires_grad_(False)
    x = torch.randn(batch, 24, height, width).to(memory_format=layout)
    ours = WinogradConv2d(conv)
    assert ours.serves(x)
    out = ours(x)
    assert out.is_contiguous(memory_format=torch.channels_last)
    exact = conv.double()(x.double())
    assert out.shape == exact.shape
    assert relative_error(out, exact) < 3e-6


def test_error_stays_small_with_many_channels_of_one_sign() -> None:
    """After a ReLU all inputs are positive, and the transforms subtract large numbers."""
    torch.manual_seed(0)
    conv = nn.Conv2d(512, 128, 3, padding=1).requires_grad_(False)
    x = torch.rand(1, 512, 20, 20) * 100
    out = WinogradConv2d(conv)(x)
    exact = conv.double()(x.double())
    assert relative_error(out, exact) < 1e-5
    assert (out - exact).abs().max() < 1e-4 * exact.abs().max()


@pytest.mark.parametrize(("height", "width"), [(16, 16), (13, 21)])
def test_bfloat16_costs_little_more_than_rounding_its_output(height: int, width: int) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(256, 128, 3, padding=1).bfloat16().requires_grad_(False)
    x = torch.randn(2, 256, height, width).relu().bfloat16()
    ours = WinogradConv2d(conv)
    assert ours.serves(x)
    assert ours.transformed.shape == (16, 256, 128)
    out = ours(x)
    exact = conv.double()(x.double())
    assert out.dtype == torch.bfloat16
    assert relative_error(out, exact) < 3.5 * relative_error(exact.bfloat16(), exact)


@pytest.mark.parametrize(
    ("instructions", "tiles", "gains"), [(True, False, True), (True, True, False), (False, False, False)]
)
def test_bfloat16_gains_on_some_processors(instructions: bool, tiles: bool, gains: bool, monkeypatch) -> None:
    monkeypatch.setattr(winograd, "bfloat16_units", lambda: (instructions, tiles))
    wide, narrow = nn.Conv2d(256, 256, 3, padding=1).bfloat16(), nn.Conv2d(128, 128, 3, padding=1).bfloat16()
    assert isinstance(use_winograd(nn.Sequential(wide))[0], WinogradConv2d) == gains
    assert not isinstance(use_winograd(nn.Sequential(narrow))[0], WinogradConv2d)
    assert not isinstance(use_winograd_in_training(nn.Sequential(wide))[0], TrainableWinogradConv2d)


def convolutions(**changes: object) -> nn.Conv2d:
    options: dict = {"in_channels": 96, "out_channels": 96, "kernel_size": 3, "padding": 1} | changes
    return nn.Conv2d(**options)


@pytest.mark.parametrize(
    ("make", "gains"),
    [
        (lambda: convolutions(), True),
        (lambda: convolutions(in_channels=1024, out_channels=48), True),
        (lambda: convolutions(in_channels=64, out_channels=64), False),
        (lambda: convolutions(in_channels=1024, out_channels=24), False),
        (lambda: convolutions(kernel_size=1, padding=0), False),
        (lambda: convolutions(kernel_size=(3, 1)), False),
        (lambda: convolutions(stride=2), False),
        (lambda: convolutions(dilation=2), False),
        (lambda: convolutions(groups=2), False),
        (lambda: convolutions(padding_mode="reflect"), False),
        (lambda: convolutions(padding="same"), False),
        (lambda: convolutions(dtype=torch.bfloat16), False),
        (lambda: convolutions(device="meta"), False),
        (lambda: nn.ConvTranspose2d(96, 96, 3), False),
    ],
)
def test_which_convolutions_are_replaced(make: Callable[[], nn.Module], gains: bool) -> None:
    net = use_winograd(nn.Sequential(make()))
    assert isinstance(net[0], WinogradConv2d) == gains


def test_replacing_keeps_parameters_names_and_sharing() -> None:
    net = nn.Module()
    net.one = convolutions()
    net.inner = nn.Sequential(nn.ReLU(), net.one)
    state = dict(net.named_parameters())
    net = use_winograd(net.eval())
    assert net.one is net.inner[1]
    assert isinstance(net.one, WinogradConv2d)
    assert not net.one.training
    assert all(state[k] is p for k, p in net.named_parameters())
    assert set(net.state_dict()) == {"one.weight", "one.bias", "inner.1.weight", "inner.1.bias"}


def test_stands_aside_where_it_cannot_serve() -> None:
    torch.manual_seed(0)
    conv = convolutions()
    ours = WinogradConv2d(conv)
    x = torch.randn(2, 96, 16, 16)
    assert torch.equal(ours(x), conv(x))  # its weight learns
    conv.requires_grad_(False)
    assert not torch.equal(ours(x), conv(x))
    torch.testing.assert_close(ours(x), conv(x), rtol=1e-4, atol=1e-5)
    assert torch.equal(ours(x[..., :8, :8]), conv(x[..., :8, :8]))  # too small to gain
    assert torch.equal(ours(x.clone().requires_grad_()), conv(x))
    with torch.autocast("cpu", torch.bfloat16):
        assert ours(x).dtype == torch.bfloat16
        assert torch.equal(ours(x), conv(x))
    assert torch.equal(torch.compile(ours, backend="eager", fullgraph=True)(x), conv(x))
    program = torch.export.export(ours, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    assert [n.target for n in program.graph.nodes if n.op == "call_function"] == [torch.ops.aten.conv2d.default]
    assert torch.equal(program.module()(x), conv(x))
    half = ours.bfloat16()
    assert torch.equal(half(x.bfloat16()), conv.bfloat16()(x.bfloat16()))


def test_a_backbone_gives_the_same_features() -> None:
    torch.manual_seed(0)
    backbone = build_backbone(VGGConfig(depth=11, width=32, fc="reduced", out_levels=(3, 4, 6))).requires_grad_(False)
    x = torch.randn(1, 3, 100, 130)
    exact = backbone(x)
    features = use_winograd(backbone)(x)
    assert sum(isinstance(m, WinogradConv2d) for m in backbone.modules()) == 6
    for ours, theirs in zip(features, exact, strict=True):
        assert relative_error(ours, theirs.double()) < 2e-5


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize(("padding", "bias"), [(1, True), (0, False), ((1, 2), True)])
@pytest.mark.parametrize("chunk", [None, 1], ids=["whole", "row-by-row"])
def test_gradients_equal_the_definitions(
    padding: int | tuple[int, int],
    bias: bool,
    layout: torch.memory_format,
    chunk: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    if chunk is not None:
        for name in ("CHUNK_TILES", "CHUNK_BYTES"):
            monkeypatch.setattr(winograd, name, chunk)
        monkeypatch.setattr(winograd, "KERNEL_BYTES", 200_000)  # five parts, the last one smaller
    conv = nn.Conv2d(72, 96, 3, padding=padding, bias=bias)
    conv = conv.to(memory_format=layout)  # type: ignore[call-overload]
    ours = TrainableWinogradConv2d(conv)
    x = torch.randn(2, 72, 23, 34).to(memory_format=layout).requires_grad_()
    assert ours.serves(x)
    out = ours(x)
    slope = torch.randn_like(out)
    wanted = [x, *conv.parameters()]
    found = torch.autograd.grad(torch.relu_(out), wanted, slope)  # in place, as networks have it
    exact = torch.nn.functional.conv2d(
        x.double(), conv.weight.double(), conv.bias.double() if conv.bias is not None else None, padding=padding
    )
    slope = torch.where(out > 0, slope, 0.0).double()  # what lies near 0 may round to the other side
    for mine, reference in zip(found, torch.autograd.grad(exact, wanted, slope), strict=True):
        assert mine.shape == reference.shape
        assert relative_error(mine, reference.double()) < 5e-6


def test_of_narrow_layers_only_the_gradients_go_the_short_way() -> None:
    """64 to 64 channels: the definition is quicker forwards and slower back."""
    torch.manual_seed(0)
    conv = nn.Conv2d(64, 64, 3, padding=1)
    (ours,) = use_winograd_in_training(nn.Sequential(conv))
    assert isinstance(ours, TrainableWinogradConv2d)
    x = torch.randn(2, 64, 64, 64)
    slope = torch.randn_like(conv(x))
    wanted = list(conv.parameters())
    out = ours(x)
    assert torch.equal(out, conv(x))
    found, exact = (torch.autograd.grad(y, wanted, slope) for y in (out, conv(x)))
    for mine, reference in zip(found, exact, strict=True):
        assert relative_error(mine, reference.double()) < 5e-6
    assert not torch.equal(found[0], exact[0])
    assert not ours.serves(x[:1])  # too small to gain
    with torch.no_grad():
        assert not ours.serves(x)
    assert type(use_winograd_in_training(nn.Sequential(nn.Conv2d(48, 48, 3, padding=1)))[0]) is nn.Conv2d


def test_only_what_learns_gets_a_gradient() -> None:
    conv = convolutions()
    conv.weight.requires_grad_(False)
    x = torch.randn(2, 96, 32, 32)
    use_winograd_in_training(nn.Sequential(conv))(x).sum().backward()
    assert conv.weight.grad is None
    assert conv.bias is not None
    assert conv.bias.grad is not None


def test_what_learnt_is_ready_for_inference() -> None:
    net = use_winograd_in_training(nn.Sequential(convolutions(), nn.ReLU(inplace=True)))
    assert isinstance(net[0], TrainableWinogradConv2d)
    x = torch.randn(2, 96, 32, 32)
    conv = use_winograd(net.requires_grad_(False))[0]
    assert isinstance(conv, WinogradConv2d)
    plain = nn.functional.conv2d(x, conv.weight, conv.bias, padding=1)
    assert relative_error(conv(x), plain.double()) < 5e-6


def test_learning_stands_aside_where_it_cannot_serve() -> None:
    torch.manual_seed(0)
    conv = convolutions()
    ours, x = TrainableWinogradConv2d(conv), torch.randn(2, 96, 24, 24)
    assert not torch.equal(ours(x), conv(x))
    assert torch.equal(ours(x[..., :16, :16]), conv(x[..., :16, :16]))  # too small to gain
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ours(x), conv(x))
    assert torch.equal(torch.compile(ours, backend="eager", fullgraph=True)(x), conv(x))
    assert torch.equal(ours.bfloat16()(x.bfloat16()), conv.bfloat16()(x.bfloat16()))
