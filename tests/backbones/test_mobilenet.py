"""MobileNet V2 and V3 against torchvision's with the same weights, V1 against its table."""

from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from boxwright.backbones import Classifier, MobileNetConfig, build_backbone, count_parameters
from boxwright.structures import Level

REFERENCES = {2: torchvision.models.mobilenet_v2, 3: torchvision.models.mobilenet_v3_large}


def randomise(model: nn.Module) -> None:
    """Weights and norm statistics that are no special case, in double precision."""
    generator = torch.Generator().manual_seed(3)
    model.double()
    for name, value in model.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 1.5, generator=generator)
        elif name.endswith(("running_mean", "bias")):
            value.normal_(0, 0.1, generator=generator)
        elif value.ndim == 1:
            value.uniform_(0.5, 1.5, generator=generator)


def our_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's names, but for the prefixes."""
    prefixes = {"features.": "backbone.features.", "classifier.": "fc.layers."}
    return {prefixes[p] + k.removeprefix(p): v for k, v in state.items() for p in prefixes if k.startswith(p)}


@pytest.mark.parametrize("version", [2, 3])
def test_logits_equal_torchvision(version: int) -> None:
    reference = REFERENCES[version](num_classes=10)
    randomise(reference)
    config = MobileNetConfig(version=version, out_levels=(2, 3, 4, 5, 6))
    ours = Classifier(build_backbone(config), 10).double()
    ours.load_state_dict(our_names(reference.state_dict()))
    x = torch.randn(2, 3, 70, 45, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(x), reference.eval()(x), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("training", [True, False])
def test_levels_and_gradients_equal_torchvision(version: int, training: bool) -> None:
    """The five levels are the maps before each stride, and torchvision's statistics move alike."""
    reference: nn.Sequential = REFERENCES[version](width_mult=0.5).features
    randomise(reference)
    config = MobileNetConfig(version=version, width=0.5, out_levels=(1, 2, 3, 4, 5, 6))
    ours = build_backbone(config).double()
    ours.get_submodule("features").load_state_dict(reference.state_dict())
    x = torch.randn(2, 3, 64, 96, dtype=torch.float64, requires_grad=True)

    def taps(x: Tensor) -> list[Tensor]:
        maps: list[Tensor] = []
        for layer in reference:
            before, x = x, layer(x)
            if x.shape[-1] < before.shape[-1]:
                maps.append(before)
        return [*maps[1:], before, x]

    def run(module: nn.Module, forward: Callable[[Tensor], list[Tensor]]) -> tuple[list[Tensor], list[Tensor]]:
        module.train(training)
        maps = forward(x)
        loss = sum(m.square().mean() for m in maps)
        assert isinstance(loss, Tensor)
        return [m.detach() for m in maps], list(torch.autograd.grad(loss, [x, *module.parameters()]))

    torch.testing.assert_close(run(ours, ours), run(reference, taps), rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(ours.get_submodule("features").state_dict(), reference.state_dict())


@pytest.mark.parametrize("width", [0.35, 0.75, 1.4])
@pytest.mark.parametrize("version", [2, 3])
def test_state_dict_is_torchvisions_at_every_width(version: int, width: float) -> None:
    with torch.device("meta"):
        reference = REFERENCES[version](width_mult=width)
        config = MobileNetConfig(version=version, width=width, out_levels=(6,))
        ours = Classifier(build_backbone(config), 1000)
    expected = {k: v.shape for k, v in our_names(reference.state_dict()).items()}
    assert {k: v.shape for k, v in ours.state_dict().items()} == expected


def test_the_classifier_adds_the_last_convolution_that_the_pyramid_leaves_out() -> None:
    with torch.device("meta"):
        for version in (2, 3):
            whole, pyramid = (
                Classifier(build_backbone(MobileNetConfig(version=version, out_levels=levels)), 1000)
                for levels in ((6,), (2, 3, 4, 5))
            )
            assert count_parameters(whole) == count_parameters(pyramid)
            assert whole(torch.empty(1, 3, 64, 64)).shape == pyramid(torch.empty(1, 3, 64, 64)).shape == (1, 1000)


def test_v1_equals_its_table() -> None:
    torch.manual_seed(0)
    backbone = build_backbone(MobileNetConfig(version=1, width=0.25, out_levels=(1, 2, 3, 4, 5))).double()
    convs = iter([m for m in backbone.modules() if isinstance(m, nn.Conv2d)])
    norms = iter([m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)])
    x = torch.randn(2, 3, 75, 64, dtype=torch.float64)
    backbone.eval()

    def step(x: Tensor, stride: int, groups: int) -> Tensor:
        conv = next(convs)
        return F.relu(next(norms)(F.conv2d(x, conv.weight, None, stride, conv.kernel_size[0] // 2, 1, groups)))

    out, maps = step(x, 2, 1), []
    channels = 8
    for width, stride in zip(
        (64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024),
        (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1),
        strict=True,
    ):
        if stride == 2:
            maps.append(out)
        out = step(step(out, stride, channels), 1, 1)
        channels = width // 4
        assert out.shape[1] == channels
    torch.testing.assert_close(backbone(x), [*maps, out])


def test_levels_of_the_versions() -> None:
    for version, channels in ((1, (128, 256, 512, 1024)), (2, (24, 32, 96, 320)), (3, (24, 40, 112, 160))):
        with torch.device("meta"):
            backbone = build_backbone(MobileNetConfig(version=version))
        strides = (4, 8, 16, 32)
        assert backbone.levels == tuple(
            Level(f"C{n}", s, c) for n, s, c in zip((2, 3, 4, 5), strides, channels, strict=True)
        )
