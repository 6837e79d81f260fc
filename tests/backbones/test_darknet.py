"""Darknet's trunks against a plain reading of their layer lists, and against the sizes of published weight files."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from boxwright.backbones import (
    Classifier,
    DarknetConfig,
    build_backbone,
    conv_bn_leaky,
    count_multiply_adds,
    count_parameters,
)
from boxwright.backbones.darknet import HoldPool
from boxwright.structures import Level

# Layer lists of the cfg files: "3" and "1" are convolutions of that kernel, "7" and "/" of 7 and 3 with stride 2, "M"
# and "m" max pools of stride 2 and 1, "+" the sum with the output three layers back, "|" where a level is read.
LISTS = {
    "darknet19": "3 M 3| M 313| M 313| M 31313| M 31313|",
    "darknet53": "3 / 13+ | / 13+13+ | / " + "13+" * 8 + "| / " + "13+" * 8 + "| / " + "13+" * 4 + "|",
    "tiny_v3": "3 M 3| M 3| M 3| M 3| M 3 m 3|",
    "extraction": "7| M 3| M 1313| M 1313131313| M 1313|",
    "yolov1": "7| M 3| M 1313| M 1313131313| M 13133| / 33|",
    "yolov1_fast": "3 M 3| M 3| M 3| M 3| M 3| M 333|",
    "yolov1_tiny": "3 M 3| M 3| M 3| M 3| M 3| M 33|",
}


def plain(backbone: nn.Module, layers: str, x: Tensor) -> list[Tensor]:
    """Every level of ``backbone``, one operation after the other in the order of the list."""
    blocks = iter([m for m in backbone.modules() if isinstance(m, nn.Sequential)])
    outputs, levels = [x], []
    for symbol in layers.replace(" ", ""):
        match symbol:
            case "M":
                x = F.max_pool2d(x, 2, 2)
            case "m":
                rows = [torch.arange(n, n + 2).clamp(max=x.shape[2] - 1) for n in range(x.shape[2])]
                columns = [torch.arange(n, n + 2).clamp(max=x.shape[3] - 1) for n in range(x.shape[3])]
                taller = torch.stack([x[:, :, r].amax(2) for r in rows], 2)
                x = torch.stack([taller[:, :, :, c].amax(3) for c in columns], 3)
            case "+":
                x = x + outputs[-3]
            case "|":
                levels.append(x)
                continue
            case _:
                conv, norm, _ = next(blocks)
                kernel = 3 if symbol == "/" else int(symbol)
                assert conv.kernel_size == (kernel, kernel)
                stride = 2 if symbol in "/7" else 1
                x = F.leaky_relu(norm(F.conv2d(x, conv.weight, conv.bias, stride, kernel // 2)), 0.1)
        outputs.append(x)
    assert next(blocks, None) is None
    return levels


@pytest.mark.parametrize("every_level", [True, False])
@pytest.mark.parametrize("variant", LISTS)
def test_values_and_gradients_equal_the_layer_list(variant: str, every_level: bool) -> None:
    torch.manual_seed(0)
    layers = LISTS[variant]
    top = layers.count("|")
    levels = tuple(range(1, top + 1)) if every_level else (top,)
    norm = "none" if variant == "yolov1" else "bn"
    backbone = build_backbone(DarknetConfig(variant=variant, width=0.125, norm=norm, out_levels=levels)).double()
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):  # some scales negative: the order of pool and norm must be kept
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
            assert (module.eps, module.momentum) == (1e-5, 0.01)
    x = torch.randn(2, 3, 64, 128, dtype=torch.float64, requires_grad=True)

    def run(maps: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        loss = sum(m.square().mean() for m in maps)
        assert isinstance(loss, Tensor)
        return [m.detach() for m in maps], list(torch.autograd.grad(loss, [x, *backbone.parameters()]))

    expected = plain(backbone, layers, x)
    expected = expected if every_level else expected[-1:]
    torch.testing.assert_close(run(backbone(x)), run(expected), rtol=1e-8, atol=1e-10)


def test_hold_pool_looks_right_and_down_and_never_sees_a_zero_from_outside() -> None:
    x = torch.tensor([[-9.0, -2.0, -3.0], [-4.0, -5.0, -1.0]])[None, None]
    assert HoldPool()(x).tolist() == [[[[-2, -1, -1], [-4, -1, -1]]]]


def test_odd_sides_round_up_as_in_darknet() -> None:
    """maxpool gives (n + 1 - 2) / 2 + 1, integer division, and a stride-2 convolution of padding 1 as much."""
    for variant, size in (("darknet19", 75), ("darknet53", 75), ("yolov1", 449)):
        with torch.device("meta"):
            backbone = build_backbone(DarknetConfig(variant=variant))
            maps = backbone(torch.empty(1, 3, size, size))
        assert [m.shape[-1] for m in maps] == [-(-size // s) for s in (8, 16, 32)]


def floats(module: nn.Module) -> int:
    """Numbers that Darknet stores for ``module``: weights, biases, scales, and the statistics of its norms."""
    return sum(v.numel() for v in module.state_dict().values() if v.is_floating_point())


def trunk(variant: str, **options: object) -> nn.Module:
    return build_backbone(DarknetConfig(variant=variant, **options))


# Bytes of darknet19_448.conv.23 and darknet53.conv.74, and floats of whole detectors, whose heads are added here.
@pytest.mark.parametrize(
    ("make", "count"),
    [
        (lambda: [trunk("darknet19")], (79_327_120 - 16) // 4),
        (lambda: [trunk("darknet53")], (162_482_580 - 20) // 4),
        (lambda: [Classifier(trunk("darknet53"), 1000)], 41_645_640),
        (lambda: [trunk("tiny_v2"), conv_bn_leaky(1024, 512, 3), nn.Conv2d(512, 425, 1)], 11_237_145),
        (
            lambda: [
                trunk("tiny_v3"),
                *(conv_bn_leaky(1024, 256, 1), conv_bn_leaky(256, 512, 3), nn.Conv2d(512, 255, 1)),
                *(conv_bn_leaky(256, 128, 1), conv_bn_leaky(384, 256, 3), nn.Conv2d(256, 255, 1)),
            ],
            8_858_734,
        ),
        (
            lambda: [
                trunk("yolov1", norm="none", out_levels=(6,)),
                *(nn.Linear(50176, 4096), nn.Linear(4096, 1470)),
            ],
            271_703_550,
        ),
        (
            lambda: [
                trunk("yolov1_fast", norm="none", out_levels=(6,)),
                *(nn.Linear(50176, 256), nn.Linear(256, 4096), nn.Linear(4096, 1470)),
            ],
            (180_357_512 - 16) // 4,
        ),
        (lambda: [trunk("yolov1_tiny", out_levels=(6,)), nn.Linear(12544, 1470)], 27_099_950),
    ],
    ids=[
        "darknet19",
        "darknet53",
        "darknet53-classifier",
        "tiny_v2",
        "tiny_v3",
        "yolov1",
        "yolov1_fast",
        "yolov1_tiny",
    ],
)
def test_floats_of_published_weight_files(make, count: int) -> None:
    with torch.device("meta"):
        parts = make()
    assert sum(map(floats, parts)) == count


def test_published_operations() -> None:
    """Two operations a multiply-add: 5.58 Bn for Darknet-19 at 224, 18.57 Bn for Darknet-53 at 256 (paper: 18.7)."""
    with torch.device("meta"):
        darknet19 = Classifier(build_backbone(DarknetConfig(variant="darknet19")), 1000)
        darknet53 = Classifier(build_backbone(DarknetConfig(variant="darknet53")), 1000)
    assert round(2 * count_multiply_adds(darknet19, 224) / 1e9, 2) == 5.58
    assert round(2 * count_multiply_adds(darknet53, 256) / 1e9, 2) == 18.57
    convolutions = [m for m in darknet19.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 19
    assert sum(isinstance(m, nn.Conv2d) for m in darknet53.modules()) == 52
    assert count_parameters(darknet53) == 41_645_640 - 2 * sum(
        m.num_features for m in darknet53.modules() if isinstance(m, nn.BatchNorm2d)
    )


def test_levels_of_the_papers() -> None:
    with torch.device("meta"):
        v2 = build_backbone(DarknetConfig(variant="darknet19", out_levels=(4, 5)))
        v3 = build_backbone(DarknetConfig())
        v1 = build_backbone(DarknetConfig(variant="yolov1", norm="none", out_levels=(6,)))
        (last,) = v1(torch.empty(1, 3, 448, 448))
    assert v2.levels == (Level("C4", 16, 512), Level("C5", 32, 1024))
    assert v3.levels == (Level("C3", 8, 256), Level("C4", 16, 512), Level("C5", 32, 1024))
    assert v1.levels == (Level("C6", 64, 1024),)
    assert last.shape == (1, 1024, 7, 7)


def test_darknet19_averages_the_logits_of_all_positions() -> None:
    torch.manual_seed(0)
    classifier = Classifier(build_backbone(DarknetConfig(variant="darknet19", width=0.125)), 5).eval()
    x = torch.randn(2, 3, 64, 96)
    assert isinstance(classifier.fc, nn.Conv2d)
    expected = F.linear(classifier.backbone(x)[-1].mean((2, 3)), classifier.fc.weight.flatten(1), classifier.fc.bias)
    torch.testing.assert_close(classifier(x), expected)
