"""Frozen batch norm, frozen stages and folding."""

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck as TorchvisionBottleneck
from torchvision.ops.misc import FrozenBatchNorm2d

from boxwright.backbones import (
    DarknetConfig,
    DetNetConfig,
    FrozenBatchNorm,
    MobileNetConfig,
    ResNetConfig,
    VGGConfig,
    build_backbone,
    conv_norm,
    fold_norms,
)
from boxwright.backbones.layers.blocks import Bottleneck, ResidualStage
from boxwright.backbones.layers.norm import L2Norm


def randomise_norms(module: nn.Module) -> None:
    """Statistics and affines that are no special case."""
    generator = torch.Generator().manual_seed(1)
    for m in module.modules():
        if isinstance(m, FrozenBatchNorm | nn.BatchNorm2d):
            with torch.no_grad():
                for name, low, high in (
                    ("weight", 0.5, 1.5),
                    ("bias", -0.2, 0.2),
                    ("running_mean", -0.2, 0.2),
                    ("running_var", 0.5, 1.5),
                ):
                    getattr(m, name).uniform_(low, high, generator=generator)


def test_fresh_frozen_norm_is_the_identity() -> None:
    x = torch.randn(2, 4, 3, 3)
    torch.testing.assert_close(FrozenBatchNorm(4)(x), x, rtol=1e-6, atol=0)


@pytest.mark.parametrize("bias", [True, False])
def test_conv_norm_equals_the_two_passes_and_their_gradients(bias: bool) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(6, 8, 3, stride=2, padding=2, dilation=2, groups=2, bias=bias).double()
    norm = FrozenBatchNorm(8).double()
    randomise_norms(norm)
    x = torch.randn(2, 6, 9, 11, dtype=torch.float64, requires_grad=True)
    one, two = conv_norm(x, conv, norm), norm(conv(x))
    torch.testing.assert_close(one, two)
    one_grad, two_grad = (torch.autograd.grad(y.square().sum(), [x, *conv.parameters()]) for y in (one, two))
    torch.testing.assert_close(one_grad, two_grad)


def test_loads_the_state_of_a_live_norm_and_gives_its_eval_values() -> None:
    live, frozen = nn.BatchNorm2d(5), FrozenBatchNorm(5)
    randomise_norms(live)
    frozen.load_state_dict(live.state_dict())  # with num_batches_tracked in it
    x = torch.randn(2, 5, 4, 4)
    torch.testing.assert_close(frozen.train()(x), live.eval()(x))
    live.load_state_dict(frozen.state_dict())  # and back, without


def saved_bytes(block: nn.Module, x: Tensor) -> int:
    """Bytes that the backward pass of ``block`` keeps, weights apart."""
    kept: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        if t.ndim == 4 and t.shape[0] == x.shape[0]:
            kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        block(x)
    return sum(kept.values())


def test_a_frozen_block_keeps_only_the_inputs_of_its_convolutions() -> None:
    """1 input of 32 channels, 2 inner maps of 8, 1 output (for its ReLU); no map before a norm or a sum."""
    stage = ResidualStage(number=2, block="bottleneck", blocks=1, mid=8, out=32)
    ours = Bottleneck(32, stage, 1, 1, False, "frozen_bn", False)
    theirs = TorchvisionBottleneck(32, 8, norm_layer=FrozenBatchNorm2d)
    x = torch.randn(3, 32, 10, 10, requires_grad=True)
    assert saved_bytes(ours, x) == 3 * 100 * 4 * (32 + 8 + 8 + 32)
    assert saved_bytes(ours, x) <= saved_bytes(theirs, x)


@pytest.mark.parametrize("norm", ["bn", "gn", "frozen_bn"])
def test_frozen_stages_do_not_learn_and_record_nothing(norm: str) -> None:
    config = DetNetConfig(depths=(1, 1, 1, 1, 1), width=8, norm=norm, freeze_at=2)
    backbone = build_backbone(config).train()
    frozen = ("conv1", "bn1", "layer1")
    before = {k: v.clone() for k, v in backbone.state_dict().items() if k.startswith(frozen)}
    features = backbone(torch.randn(2, 3, 64, 64))
    assert [f.requires_grad for f in features] == [False, True, True, True, True]
    features[-1].sum().backward()
    without = {k.split(".")[0] for k, p in backbone.named_parameters() if p.grad is None}
    assert without == {k.split(".")[0] for k, _ in backbone.named_parameters()} & set(frozen)
    torch.testing.assert_close({k: v for k, v in backbone.state_dict().items() if k in before}, before)


@pytest.mark.parametrize("freeze_at", [0, 1, 3, 5])
def test_freeze_at_counts_the_stem_as_one(freeze_at: int) -> None:
    backbone = build_backbone(ResNetConfig(depth=18, blocks=(1, 1, 1, 1), width=8, freeze_at=freeze_at))
    stages = [backbone.conv1, *(backbone.get_submodule(f"layer{i}") for i in range(1, 5))]
    learning = [all(p.requires_grad for p in s.parameters()) for s in stages]
    assert learning == [n > freeze_at for n in range(1, 6)]
    assert isinstance(backbone.bn1, FrozenBatchNorm if freeze_at else nn.BatchNorm2d)


def test_synchronised_norms_replace_the_live_ones_only() -> None:
    backbone = build_backbone(ResNetConfig(blocks=(1, 1, 1, 1), width=8, freeze_at=2))
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(backbone)
    kinds = [type(m).__name__ for m in converted.modules() if "Norm" in type(m).__name__]
    assert kinds == ["FrozenBatchNorm"] * 5 + ["SyncBatchNorm"] * 12


@pytest.mark.parametrize("norm", ["bn", "frozen_bn"])
@pytest.mark.parametrize(
    "kind",
    ["resnet18", "resnet50", "detnet", "vgg", "darknet19", "darknet53", "mobilenet-v1", "mobilenet-v2", "mobilenet-v3"],
)
def test_folding_changes_nothing_but_the_norms(norm: str, kind: str) -> None:
    torch.manual_seed(0)
    config = {
        "resnet18": ResNetConfig(depth=18, blocks=(1, 1, 1, 1), width=16, norm=norm),
        "resnet50": ResNetConfig(blocks=(1, 1, 2, 1), width=16, norm=norm),
        "detnet": DetNetConfig(depths=(1, 1, 1, 1, 1), width=16, norm=norm),
        "vgg": VGGConfig(depth=11, width=16, norm=norm, fc="reduced", out_levels=(2, 4, 6)),
        "darknet19": DarknetConfig(variant="darknet19", width=0.25, norm=norm),
        "darknet53": DarknetConfig(variant="darknet53", width=0.25, norm=norm),
        "mobilenet-v1": MobileNetConfig(version=1, width=0.5, norm=norm),
        "mobilenet-v2": MobileNetConfig(version=2, width=0.5, norm=norm),
        "mobilenet-v3": MobileNetConfig(version=3, width=0.5, norm=norm, out_levels=(2, 3, 4, 5, 6)),
    }[kind]
    backbone = build_backbone(config).eval()
    randomise_norms(backbone)
    state = {k: v.clone() for k, v in backbone.state_dict().items()}
    folded = fold_norms(backbone)
    x = torch.randn(1, 3, 64, 64)
    for a, b in zip(folded(x), backbone(x), strict=True):
        assert (a - b).abs().max() < 1e-5 * b.abs().max()
    assert not any(isinstance(m, FrozenBatchNorm | nn.BatchNorm2d) for m in folded.modules())
    torch.testing.assert_close(backbone.state_dict(), state, rtol=0, atol=0)
    assert folded.levels == backbone.levels


def test_folding_leaves_what_is_not_fixed() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.BatchNorm2d(4),  # follows no convolution
        nn.Conv2d(4, 4, 1),
        nn.GroupNorm(2, 4),
        nn.Conv2d(4, 4, 1),
        nn.BatchNorm2d(4, track_running_stats=False),
        nn.Conv2d(4, 4, 1, bias=False),
        nn.BatchNorm2d(4, affine=False),
    )
    randomise_norms(nn.Sequential(net[1], net[3]))
    assert [type(m) for m in fold_norms(net.train())] == [type(m) for m in net]
    folded = fold_norms(net.eval())
    assert [i for i, m in enumerate(folded) if isinstance(m, nn.Identity)] == [1, 9]
    x = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(folded(x), net(x))


@pytest.mark.parametrize("bias", [True, False])
def test_transposed_convolutions_fold_too(bias: bool) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.ConvTranspose2d(6, 6, 2, stride=2, bias=bias), nn.BatchNorm2d(6)).eval()
    randomise_norms(net)
    folded = fold_norms(net)
    assert isinstance(folded[1], nn.Identity)
    x = torch.randn(2, 6, 5, 4)
    torch.testing.assert_close(folded(x), net(x))


@pytest.mark.parametrize("eps_place", ["sum", "root"])
def test_l2_norm_scales_every_position_to_its_scale(eps_place: str) -> None:
    torch.manual_seed(0)
    norm = L2Norm(8, 10.0, eps_place)
    x = torch.randn(2, 8, 3, 3)
    x[0, :, 1, 1] = 0  # a position where nothing is active: 0, with a finite gradient
    x.requires_grad_()
    out = norm(x)
    length = out.square().sum(1).sqrt()
    assert length[0, 1, 1] == 0
    torch.testing.assert_close(length[1], torch.full((3, 3), 10.0))
    torch.testing.assert_close(out[1, :, 0, 0], 10 * nn.functional.normalize(x[1, :, 0, 0], dim=0))
    out.sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert norm.weight.grad is not None


def test_the_two_places_of_the_eps_differ_where_maps_are_faint() -> None:
    x = torch.full((1, 4, 1, 1), 1e-5)  # sum of squares 4e-10, root 2e-5
    inside, outside = L2Norm(4, 1.0, "sum")(x), L2Norm(4, 1.0, "root")(x)
    torch.testing.assert_close(inside, torch.full_like(x, 1e-5 / 5e-10**0.5))
    torch.testing.assert_close(outside, torch.full_like(x, 0.5), atol=1e-5, rtol=0)
