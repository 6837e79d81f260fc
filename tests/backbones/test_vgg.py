"""VGG against torchvision's with the same weights, its reduced form against torchvision's SSD, and Caffe's sizes."""

from types import SimpleNamespace

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import vgg as reference_vgg
from torchvision.models.detection import ssd as reference_ssd

from boxwright.backbones import Classifier, VGGConfig, build_backbone, count_parameters
from boxwright.structures import Level


def narrow(letter: str, width: int) -> list[str | int]:
    """torchvision's table of a VGG with ``width`` channels in place of 64."""
    return [v if isinstance(v, str) else v * width // 64 for v in reference_vgg.cfgs[letter]]


def taps(features: nn.Sequential, x: Tensor) -> list[Tensor]:
    """The map before each pool of torchvision's features."""
    maps = []
    for layer in features:
        if isinstance(layer, nn.MaxPool2d):
            maps.append(x.clone())  # the next layer may work in place
        x = layer(x)
    return maps


@pytest.mark.parametrize(("depth", "letter"), [(11, "A"), (13, "B"), (16, "D"), (19, "E")])
@pytest.mark.parametrize("norm", ["none", "bn"])
@pytest.mark.parametrize("out_levels", [(1, 2, 3, 4, 5), (5,)], ids=["all", "last"])
def test_values_and_gradients_equal_torchvision(
    depth: int, letter: str, norm: str, out_levels: tuple[int, ...]
) -> None:
    """With every level returned each ReLU comes before its pool; with the last alone it comes after."""
    torch.manual_seed(depth)
    reference = reference_vgg.make_layers(narrow(letter, 8), batch_norm=norm == "bn").double()
    config = VGGConfig(depth=depth, width=8, norm=norm, ceil_mode=False, out_levels=out_levels)
    ours = build_backbone(config).double()
    ours.get_submodule("features").load_state_dict(reference.state_dict())
    x = torch.randn(2, 3, 70, 49, dtype=torch.float64, requires_grad=True)

    def run(maps: list[Tensor], weight: nn.Parameter) -> tuple[list[Tensor], tuple[Tensor, ...]]:
        loss = sum((m.square() * torch.arange(m.shape[1])[:, None, None]).sum() for m in maps)
        assert isinstance(loss, Tensor)
        return [m.detach() for m in maps], torch.autograd.grad(loss, [x, weight])

    theirs = [m for n, m in enumerate(taps(reference, x), start=1) if n in out_levels]
    conv, reference_conv = ours.get_parameter("features.0.weight"), reference[0].weight
    torch.testing.assert_close(run(ours(x), conv), run(theirs, reference_conv), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("name", ["vgg11", "vgg13", "vgg16", "vgg19", "vgg16_bn", "vgg19_bn"])
def test_state_dict_is_torchvisions(name: str) -> None:
    norm = "bn" if name.endswith("bn") else "none"
    with torch.device("meta"):
        reference = torchvision.models.get_model(name)
        ours = Classifier(build_backbone(VGGConfig(depth=int(name[3:5]), norm=norm)), 1000)
    names = {"backbone.features": "features", "fc": "classifier"}
    shapes = {k: v.shape for k, v in reference.state_dict().items()}
    renamed = {}
    for key, value in ours.state_dict().items():
        prefix = next(p for p in names if key.startswith(p))
        renamed[names[prefix] + key.removeprefix(prefix)] = value.shape
    assert renamed == shapes


@pytest.mark.parametrize("size", [(224, 224), (96, 150)])
def test_classifier_equals_torchvision(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    ours = Classifier(build_backbone(VGGConfig(depth=11, width=8, ceil_mode=False)), 10).eval()
    reference = SimpleNamespace(
        features=reference_vgg.make_layers(narrow("A", 8)),
        avgpool=nn.AdaptiveAvgPool2d(7),
        classifier=nn.Sequential(*ours.fc),
    )
    reference.features.load_state_dict(ours.backbone.get_submodule("features").state_dict())
    assert [m.in_features for m in ours.fc if isinstance(m, nn.Linear)] == [64 * 49, 512, 512]
    x = torch.randn(2, 3, *size)
    torch.testing.assert_close(ours(x), reference_vgg.VGG.forward(reference, x))


def test_reduced_form_equals_the_extractor_of_torchvisions_ssd() -> None:
    """At 44 pixels only pool3 meets an odd side (11), and it alone rounds up there."""
    torch.manual_seed(0)
    features = reference_vgg.make_layers(reference_vgg.cfgs["D"])
    reference = reference_ssd._vgg_extractor(SimpleNamespace(features=features), False, 5)
    ours = build_backbone(VGGConfig(fc="reduced", out_levels=(4, 6)))
    state = {f"features.{k}": v for k, v in features.state_dict().items()}
    reference.extra = reference.extra[:1]  # without SSD's own layers
    fc6, fc7 = reference.extra[0][-1][1], reference.extra[0][-1][3]
    state |= {f"fc6.{k}": v for k, v in fc6.state_dict().items()}
    state |= {f"fc7.{k}": v for k, v in fc7.state_dict().items()}
    ours.load_state_dict(state)
    x = torch.randn(1, 3, 44, 44)
    with torch.no_grad():
        conv4_3, fc7_map = ours(x)
        theirs = list(reference(x).values())
    assert conv4_3.shape[-2:] == (6, 6)
    torch.testing.assert_close(20 * F.normalize(conv4_3), theirs[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(fc7_map, theirs[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("config", "size", "sides"),
    [
        (VGGConfig(fc="reduced", out_levels=(1, 2, 3, 4, 5, 6)), 300, (300, 150, 75, 38, 19, 19)),
        (VGGConfig(ceil_mode=False, fc="reduced", out_levels=(3, 4, 5, 6)), 300, (75, 37, 18, 18)),
        (VGGConfig(fc="reduced", out_levels=(4, 6)), 512, (64, 32)),
        (VGGConfig(fc="reduced", pool5="2x2s2", fc6_dilation=3, out_levels=(4, 5, 6)), 320, (40, 20, 10)),
        (VGGConfig(fc="reduced", pool5="2x2s2", fc6_dilation=3, out_levels=(4, 5, 6)), 512, (64, 32, 16)),
    ],
)
def test_sizes_of_the_papers(config: VGGConfig, size: int, sides: tuple[int, ...]) -> None:
    with torch.device("meta"):
        maps = build_backbone(config)(torch.empty(1, 3, size, size))
    assert tuple(m.shape[-1] for m in maps) == sides


def test_published_parts() -> None:
    """Convolutions as Huang et al. count them (arXiv 1611.10012); RefineDet's fc6 has dilation 3 and stride 32."""
    with torch.device("meta"):
        convolutions = build_backbone(VGGConfig())
        refinedet = build_backbone(VGGConfig(fc="reduced", pool5="2x2s2", fc6_dilation=3, out_levels=(4, 5, 6)))
    assert count_parameters(convolutions) == 14_714_688
    assert count_parameters(refinedet) == 14_714_688 + (512 * 9 + 1) * 1024 + 1025 * 1024
    assert refinedet.levels == (Level("C4", 8, 512), Level("C5", 16, 512), Level("C6", 32, 1024))
    fc6 = refinedet.get_submodule("fc6")
    assert isinstance(fc6, nn.Conv2d)
    assert (fc6.dilation, fc6.padding) == ((3, 3), (3, 3))


def test_pool_before_relu_keeps_a_quarter_for_the_backward_pass() -> None:
    """The map before a pool is kept once, by the pool; the ReLU behind it keeps a quarter of it."""
    kept: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        if t.is_floating_point() and t.ndim == 4 and t.shape[0] == 2:
            kept[t.untyped_storage().data_ptr()] = t.numel()
        return t

    backbone = build_backbone(VGGConfig(depth=11, width=8, out_levels=(2,)))
    x = torch.randn(2, 3, 32, 32)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        backbone(x)
    conv1, pool1, conv2 = 2 * 8 * 32 * 32, 2 * 8 * 16 * 16, 2 * 16 * 16 * 16
    assert sum(kept.values()) == x.numel() + conv1 + pool1 + conv2
