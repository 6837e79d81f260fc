"""The adapter to timm: against a stand-in of a few lines, and against timm itself where it is installed."""

import sys
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from boxwright.backbones import (
    NAMED_BACKBONES,
    Classifier,
    TimmConfig,
    build_backbone,
    fold_norms,
    named_backbone,
)
from boxwright.structures import InputError, Level


class FeatureInfo:
    """Channels and strides of the maps that are returned, or of those that are named."""

    def __init__(self, rows: tuple[tuple[int, int], ...], out_indices: tuple[int, ...]) -> None:
        self.rows, self.out_indices = rows, out_indices

    def __len__(self) -> int:
        return len(self.rows)

    def channels(self) -> list[int]:
        return [self.rows[i][0] for i in self.out_indices]

    def reduction(self, indices: list[int]) -> list[int]:
        return [self.rows[i][1] for i in indices]


class NormAct(nn.BatchNorm2d):
    """A norm with its activation inside, as many of timm's networks have."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).relu()


class Network(nn.Module):
    """Strides 2, 4, 4, 8 with channels last on request; built up to the last map that is wanted."""

    rows = ((4, 2), (6, 4), (8, 4), (10, 8))

    def __init__(self, out_indices: tuple[int, ...], output_fmt: str) -> None:
        super().__init__()
        self.feature_info = FeatureInfo(self.rows, out_indices)
        self.output_fmt = output_fmt
        inputs, stride = 3, 1
        self.stages = nn.ModuleList()
        for channels, reduction in self.rows[: max(out_indices) + 1]:
            conv = nn.Conv2d(inputs, channels, 3, reduction // stride, 1, bias=False)
            self.stages.append(nn.Sequential(conv, NormAct(channels)))
            inputs, stride = channels, reduction

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x.permute(0, 2, 3, 1) if self.output_fmt == "NHWC" else x)
        return [maps[i] for i in self.feature_info.out_indices]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """Puts the stand-in in timm's place; gives the networks that were created."""
    created: list[tuple[str, bool]] = []

    def create_model(name: str, pretrained: bool, features_only: bool, out_indices: tuple[int, ...] = (0, 1, 2, 3)):
        assert features_only
        if name == "flat":
            raise RuntimeError("features_only not implemented")
        created.append((name, pretrained))
        return Network(out_indices, "NHWC" if name == "last" else "NCHW")

    timm = ModuleType("timm")
    names = ["first", "last", "flat"]
    timm.__dict__.update(
        create_model=create_model, is_model=names.__contains__, list_models=lambda: names, __version__="1.2.3"
    )
    monkeypatch.setitem(sys.modules, "timm", timm)
    return created


@pytest.mark.parametrize("name", ["first", "last"])
def test_levels_are_the_last_maps_of_their_strides(calls: list[tuple[str, bool]], name: str) -> None:
    backbone = build_backbone(TimmConfig(name=name, out_levels=(1, 2)))
    assert backbone.levels == (Level("C1", 2, 4), Level("C2", 4, 8))
    assert [tuple(f.shape) for f in backbone(torch.randn(2, 3, 32, 48))] == [(2, 4, 16, 24), (2, 8, 8, 12)]
    assert sum(isinstance(m, nn.Conv2d) for m in backbone.modules()) == 3  # the part of stride 8 is not built
    assert Classifier(backbone, 5)(torch.randn(2, 3, 32, 32)).shape == (2, 5)
    assert calls == [(name, False)] * 2


def test_only_what_is_kept_is_pretrained(calls: list[tuple[str, bool]]) -> None:
    build_backbone(TimmConfig(name="first", pretrained=True, out_levels=(3,)))
    assert calls == [("first", False), ("first", True)]


def test_folding_leaves_it_alone(calls: list[tuple[str, bool]]) -> None:
    backbone = build_backbone(TimmConfig(name="first", out_levels=(1, 3))).eval()
    x = torch.randn(1, 3, 16, 16)
    torch.testing.assert_close(fold_norms(backbone)(x), backbone(x), rtol=0, atol=0)


def test_folding_leaves_a_norm_that_does_more_than_normalise() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), NormAct(4), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)).eval()
    folded = fold_norms(net)
    assert [type(m) for m in folded] == [nn.Conv2d, NormAct, nn.Conv2d, nn.Identity]
    x = torch.randn(1, 3, 4, 4)
    torch.testing.assert_close(folded(x), net(x))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "frist"}, "'frist': timm 1.2.3 has no such model; did you mean 'first'?"),
        ({"name": "flat"}, "timm cannot give its feature maps: features_only not implemented"),
        ({"name": "first", "out_levels": (3, 5)}, "first has no map of stride 32; it gives the levels 1, 2, 3"),
        ({"name": ""}, "TimmConfig.name = '': should have at least 1 character"),
        ({"name": "first", "out_levels": (1, 7)}, "each from 1 to 6"),
        ({"name": "first", "pretrained": "yes"}, "TimmConfig.pretrained = 'yes'"),
    ],
)
def test_bad_input(calls: list[tuple[str, bool]], options: dict, message: str) -> None:
    with pytest.raises(InputError) as caught:
        build_backbone(TimmConfig(**options))
    assert message in str(caught.value)


def test_without_timm_the_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match=r"timm:resnet18 needs timm; pip install 'boxwright\[timm\]'"):
        build_backbone(named_backbone("timm:resnet18"))


def test_names() -> None:
    assert named_backbone("vgg16") is NAMED_BACKBONES["vgg16"]
    assert named_backbone("timm:resnet18.a1_in1k") == TimmConfig(name="resnet18.a1_in1k")
    with pytest.raises(InputError, match=r"no backbone 'darknet-53'; did you mean 'darknet53'\? There are resnet18, "):
        named_backbone("darknet-53")


@pytest.mark.parametrize(
    ("name", "channels", "strides"),
    [
        ("resnet18", (64, 128, 256, 512), (4, 8, 16, 32)),
        ("efficientnet_b0", (24, 40, 112, 320), (4, 8, 16, 32)),
        ("swin_tiny_patch4_window7_224", (96, 192, 384, 768), (4, 8, 16, 32)),
        ("vit_tiny_patch16_224", (192,), (16,)),
    ],
)
def test_networks_of_timm(name: str, channels: tuple[int, ...], strides: tuple[int, ...]) -> None:
    pytest.importorskip("timm")
    levels = tuple(s.bit_length() - 1 for s in strides)
    backbone = build_backbone(TimmConfig(name=name, out_levels=levels)).eval()
    assert [(v.channels, v.stride) for v in backbone.levels] == list(zip(channels, strides, strict=True))
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        features, folded = backbone(x), fold_norms(backbone)(x)
    assert [tuple(f.shape) for f in features] == [
        (1, c, 224 // s, 224 // s) for c, s in zip(channels, strides, strict=True)
    ]
    torch.testing.assert_close(folded, features)


def test_a_network_of_timm_compiles_as_one_graph() -> None:
    pytest.importorskip("timm")
    backbone = build_backbone(TimmConfig(name="resnet18", out_levels=(3, 4)))
    compiled = torch.compile(backbone, backend="eager", fullgraph=True)
    x = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(compiled(x), backbone(x))
