"""ResNet against torchvision's with the same weights, and the dilated form against the strided one."""

from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.ops.misc import FrozenBatchNorm2d

from boxwright.backbones import Classifier, ResNetConfig, build_backbone


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
            value.uniform_(0.3, 0.7, generator=generator)


def ours_with_weights_of(reference: nn.Module, depth: int, norm: str) -> Classifier:
    """Our network with the reference's weights: torchvision's names, but for the backbone's prefix."""
    ours = Classifier(build_backbone(ResNetConfig(depth=depth, norm=norm)), 10).double()
    state = {k if k.startswith("fc.") else f"backbone.{k}": v for k, v in reference.state_dict().items()}
    ours.load_state_dict(state)
    return ours


CASES = [
    (18, torchvision.models.resnet18, "bn", True),
    (18, torchvision.models.resnet18, "frozen_bn", True),
    (50, torchvision.models.resnet50, "bn", True),
    (50, torchvision.models.resnet50, "bn", False),
    (50, torchvision.models.resnet50, "frozen_bn", False),
]


@pytest.mark.parametrize(("depth", "make", "norm", "training"), CASES)
def test_values_and_gradients_equal_torchvision(
    depth: int, make: Callable[..., nn.Module], norm: str, training: bool
) -> None:
    """Frozen norms are folded into the convolutions here and a pass of their own there: same values, same gradients."""
    reference = make(num_classes=10, norm_layer=FrozenBatchNorm2d if norm == "frozen_bn" else nn.BatchNorm2d)
    randomise(reference)
    ours = ours_with_weights_of(reference, depth, norm)
    x = torch.randn(2, 3, 45, 70, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def run(model: nn.Module) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        model.train(training)
        inputs = x.clone().requires_grad_()
        logits = model(inputs)
        logits.square().sum().backward()
        assert inputs.grad is not None
        grads = {k.removeprefix("backbone."): p.grad for k, p in model.named_parameters() if p.grad is not None}
        return logits.detach(), inputs.grad, grads

    torch.testing.assert_close(run(ours), run(reference), rtol=1e-8, atol=1e-10)
    if norm == "bn" and training:  # the running statistics moved alike
        torch.testing.assert_close(ours.backbone.bn1.state_dict(), reference.get_submodule("bn1").state_dict())


@pytest.mark.parametrize("stride_in_1x1", [True, False], ids=["v1", "v1.5"])
def test_dilated_stage5_holds_the_strided_one_at_every_second_pixel(stride_in_1x1: bool) -> None:
    """ImageNet weights mean the same in the dilated network: it only computes the positions in between as well."""
    torch.manual_seed(0)
    config = {"depth": 50, "blocks": (1, 1, 1, 3), "width": 8, "stride_in_1x1": stride_in_1x1, "out_levels": (5,)}
    strided, dilated = (build_backbone(ResNetConfig(**config, output_stride=s)).double().eval() for s in (32, 16))
    dilated.load_state_dict(strided.state_dict())
    x = torch.randn(1, 3, 150, 203, dtype=torch.float64)
    (coarse,), (fine,) = strided(x), dilated(x)
    assert fine.shape[-2:] == (10, 13)
    torch.testing.assert_close(fine[:, :, ::2, ::2], coarse)


def test_v1_strides_are_in_the_first_convolution() -> None:
    block = build_backbone(ResNetConfig(blocks=(1, 1, 1, 1), width=8, stride_in_1x1=True)).get_submodule("layer2")[0]
    assert (block.conv1.stride, block.conv2.stride) == ((2, 2), (1, 1))
