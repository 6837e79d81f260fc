"""EfficientNet-Lite: padding as in TensorFlow, and the same features where dilation replaces the stride."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from boxwright.backbones import Classifier, EfficientNetLiteConfig, build_backbone
from boxwright.backbones.efficientnet_lite import SameConv, lite_blocks
from boxwright.structures import InputError, Level


def same(x: Tensor, weight: Tensor, stride: int, groups: int) -> Tensor:
    """TensorFlow's ``SAME``: as much padding as the output of ``ceil(n / stride)`` needs, the odd pixel behind."""
    pads: list[int] = []
    for length in (x.shape[3], x.shape[2]):
        total = max((-(-length // stride) - 1) * stride + weight.shape[2] - length, 0)
        pads += [total // 2, total - total // 2]
    return F.conv2d(F.pad(x, pads), weight, None, stride, 0, 1, groups)


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(12, 12), (13, 12), (12, 13), (15, 9), (1, 2)])
def test_padding_is_tensorflows(kernel: int, stride: int, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    layer = SameConv(4, 4, kernel, stride, norm="bn", groups=4).eval()
    x = torch.randn(2, 4, *size)
    conv = layer[0]
    assert isinstance(conv, nn.Conv2d)
    expected = F.relu6(layer[1](same(x, conv.weight, stride, 4)))
    torch.testing.assert_close(layer(x), expected)


def randomise(model: nn.Module) -> None:
    """Set norm statistics that are no special case, and weights that keep the features in range."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.normal_(0, 0.3, generator=generator)
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)


@pytest.mark.parametrize("version", [0, 2])
@pytest.mark.parametrize("size", [(64, 96), (96, 80), (97, 131)])
def test_dilation_in_place_of_the_stride_computes_the_same_features(version: int, size: tuple[int, int]) -> None:
    """Every second row and column of the map at stride 16 is the map at stride 32, for the same weights."""
    torch.manual_seed(0)
    config = EfficientNetLiteConfig(version=version, out_levels=(4, 5))  # type: ignore[arg-type]
    plain = build_backbone(config).double().eval()
    randomise(plain)
    dilated = build_backbone(replace(config, output_stride=16)).double().eval()
    dilated.load_state_dict(plain.state_dict())
    x = torch.randn(1, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        (c4, c5), (same_c4, wide) = plain(x), dilated(x)
    torch.testing.assert_close(same_c4, c4)
    assert wide.shape[2:] == c4.shape[2:]
    torch.testing.assert_close(wide[:, :, ::2, ::2], c5, rtol=1e-9, atol=1e-12)
    assert wide[:, :, 1::2, 1::2].abs().max() > 0


def test_detnet_splits_the_last_stage_and_keeps_all_tensors() -> None:
    config = EfficientNetLiteConfig(output_stride=16, detnet=True, out_levels=(2, 3, 4, 5, 6))
    detnet, plain = build_backbone(config), build_backbone(EfficientNetLiteConfig(output_stride=16))
    assert detnet.levels == (
        Level("C2", 4, 24),
        Level("C3", 8, 40),
        Level("C4", 16, 112),
        Level("C5", 16, 192),
        Level("C6", 16, 320),
    )
    detnet.load_state_dict(plain.state_dict())
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(detnet.eval()(x)[-1], plain.eval()(x)[-1])


def test_stages_are_those_of_the_table() -> None:
    """Number of blocks and their channels, with the factors 1.1 and 1.2 of Lite2 on all but the ends."""
    widths = [b.outputs for b in lite_blocks(EfficientNetLiteConfig())]
    assert widths == [16, 24, 24, 40, 40, 80, 80, 80, 112, 112, 112, 192, 192, 192, 192, 320]
    wider = [b.outputs for b in lite_blocks(EfficientNetLiteConfig(version=2))]
    assert wider == [16, *[24] * 3, *[48] * 3, *[88] * 4, *[120] * 4, *[208] * 5, 352]


def test_detnet_needs_the_stride_16() -> None:
    with pytest.raises(InputError, match=r"EfficientNetLiteConfig.output_stride = 32: must be 16 with detnet"):
        EfficientNetLiteConfig(detnet=True)


def test_the_classifier_has_the_published_layers() -> None:
    with torch.device("meta"):
        classifier = Classifier(build_backbone(EfficientNetLiteConfig()), 10)
        assert classifier(torch.empty(2, 3, 64, 64)).shape == (2, 10)
    state = classifier.state_dict()
    assert state["fc.last.0.weight"].shape == (1280, 320, 1, 1)
    assert state["fc.linear.weight"].shape == (10, 1280)
