"""What every backbone promises: its levels, one graph, autocast, a start that trains."""

import pytest
import torch
from torch import nn

from boxwright.backbones import (
    NAMED_BACKBONES,
    BackboneConfig,
    Classifier,
    DarknetConfig,
    DetNetConfig,
    ResNetConfig,
    VGGConfig,
    build_backbone,
)
from boxwright.structures import InputError, Level

SMALL_DETNET = DetNetConfig(depths=(1, 1, 1, 1, 2), width=8)
SMALL = {
    "basic": ResNetConfig(depth=18, blocks=(1, 1, 1, 1), width=8),
    "bottleneck": ResNetConfig(depth=50, blocks=(1, 1, 2, 1), width=8),
    "bottleneck-frozen": ResNetConfig(depth=50, blocks=(1, 1, 1, 1), width=8, norm="frozen_bn", freeze_at=2),
    "stage6": ResNetConfig(
        depth=50, blocks=(1, 1, 1, 2), width=8, output_stride=16, stage6_blocks=2, out_levels=(3, 4, 5, 6)
    ),
    "c4": ResNetConfig(depth=50, blocks=(1, 1, 1, 1), width=8, out_levels=(4,)),
    "vgg": VGGConfig(depth=13, width=8, norm="bn", out_levels=(1, 3, 5)),
    "vgg-frozen": VGGConfig(depth=11, width=8, norm="frozen_bn", freeze_at=2, out_levels=(3, 4, 5)),
    "vgg-reduced": VGGConfig(width=8, fc="reduced", freeze_at=2, out_levels=(4, 6)),
    "vgg-refinedet": VGGConfig(
        depth=11, width=8, norm="gn", fc="reduced", pool5="2x2s2", fc6_dilation=3, out_levels=(4, 5, 6)
    ),
    "darknet19": DarknetConfig(variant="darknet19", width=0.25, out_levels=(2, 4, 5)),
    "darknet53": DarknetConfig(variant="darknet53", width=0.125, norm="gn", freeze_at=2),
    "darknet-tiny": DarknetConfig(variant="tiny_v3", width=0.25, norm="frozen_bn", freeze_at=3, out_levels=(4, 5)),
    "extraction": DarknetConfig(variant="extraction", width=0.125, out_levels=(1, 5)),
    "yolov1": DarknetConfig(variant="yolov1", width=0.125, norm="none", out_levels=(5, 6)),
    "yolov1-tiny": DarknetConfig(variant="yolov1_tiny", width=0.25, out_levels=(4, 6)),
    "detnet": SMALL_DETNET,
    "detnet-gn": DetNetConfig(depths=(1, 1, 1, 1, 1), width=8, norm="gn", freeze_at=3),
}


@pytest.mark.parametrize("config", [*NAMED_BACKBONES.values(), *SMALL.values()], ids=[*NAMED_BACKBONES, *SMALL])
def test_levels_state_what_forward_returns(config: BackboneConfig) -> None:
    with torch.device("meta"):
        backbone = build_backbone(config)
    assert [level.name for level in backbone.levels] == [f"C{n}" for n in config.out_levels]
    for height, width in ((64, 96), (97, 131)):
        features = backbone(torch.empty(2, 3, height, width, device="meta"))
        expected = [(2, v.channels, -(-height // v.stride), -(-width // v.stride)) for v in backbone.levels]
        assert [tuple(f.shape) for f in features] == expected


def test_published_pyramids() -> None:
    with torch.device("meta"):
        detnet, resnet = build_backbone(DetNetConfig()), build_backbone(ResNetConfig())
    stem = (Level("C2", 4, 256), Level("C3", 8, 512), Level("C4", 16, 1024))
    assert detnet.levels == (*stem, Level("C5", 16, 1024), Level("C6", 16, 1024))
    assert resnet.levels == (*stem, Level("C5", 32, 2048))


@pytest.mark.parametrize("name", ["basic", "bottleneck-frozen", "detnet"])
def test_compiles_as_one_graph_with_the_same_values_and_gradients(name: str) -> None:
    torch.manual_seed(0)
    backbone = build_backbone(SMALL[name]).double()
    compiled = torch.compile(backbone, backend="aot_eager", fullgraph=True)
    x = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    weight = backbone.get_submodule("layer3")[0].conv1.weight
    grads = []
    for run in (backbone, compiled):
        features = run(x)
        (grad,) = torch.autograd.grad(sum(f.square().mean() for f in features), weight)
        grads.append((features, grad))
    torch.testing.assert_close(grads[0], grads[1])


@pytest.mark.parametrize("name", ["bottleneck", "bottleneck-frozen", "detnet-gn"])
def test_autocast_keeps_features_and_gradients_close(name: str) -> None:
    torch.manual_seed(0)
    backbone = build_backbone(SMALL[name]).to(memory_format=torch.channels_last)
    x = torch.randn(2, 3, 64, 64).to(memory_format=torch.channels_last)
    exact = backbone(x)
    with torch.autocast("cpu", torch.bfloat16):
        features = backbone(x)
    features[-1].float().mean().backward()
    for cast, full in zip(features, exact, strict=True):
        assert (cast.float() - full).norm() < 0.1 * full.norm()
        assert cast.is_contiguous(memory_format=torch.channels_last)
    gradient = backbone.get_submodule("layer3")[0].conv2.weight.grad
    assert gradient is not None
    assert gradient.dtype == torch.float32
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize("norm", ["bn", "gn"])
def test_small_detnet_learns_from_scratch(norm: str) -> None:
    torch.manual_seed(0)
    config = DetNetConfig(depths=(1, 1, 1, 1, 1), width=8, norm=norm, zero_init_residual=True)
    model = Classifier(build_backbone(config), 4)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    images, labels = torch.randn(8, 3, 48, 48), torch.arange(8) % 4
    losses = []
    for _ in range(25):
        loss = nn.functional.cross_entropy(model(images), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[0] > 1
    assert losses[-1] < 0.1


def test_zero_init_residual_starts_every_block_as_its_shortcut() -> None:
    x = torch.rand(2, 256, 6, 6)
    for zero in (True, False):
        config = DetNetConfig(depths=(1, 1, 2, 1, 1), width=16, zero_init_residual=zero)
        block = build_backbone(config).get_submodule("layer3")[1]
        assert torch.equal(block(x), x) is zero


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ResNetConfig(depth=49), "ResNetConfig.depth = 49: must be one of 18, 34, 50, 101, 152"),
        (lambda: ResNetConfig(depth=[50]), "ResNetConfig.depth"),
        (lambda: ResNetConfig(blocks=(1, 2, 3)), "ResNetConfig.blocks"),
        (lambda: ResNetConfig(width=12), "ResNetConfig.width = 12: must be a multiple of 8"),
        (lambda: ResNetConfig(norm="batch"), "ResNetConfig.norm = 'batch': must be one of bn, frozen_bn, gn"),
        (lambda: ResNetConfig(depth=18, stride_in_1x1=True), "ResNetConfig.stride_in_1x1"),
        (lambda: ResNetConfig(depth=18, output_stride=16), "ResNetConfig.output_stride"),
        (lambda: ResNetConfig(output_stride=8), "ResNetConfig.output_stride = 8"),
        (lambda: ResNetConfig(stage6_blocks=1), "ResNetConfig.stage6_blocks = 1"),
        (lambda: ResNetConfig(zero_init_residual=True, norm="frozen_bn"), "ResNetConfig.zero_init_residual"),
        (lambda: ResNetConfig(out_levels=(2, 6)), "ResNetConfig.out_levels = (2, 6)"),
        (lambda: ResNetConfig(out_levels=()), "ResNetConfig.out_levels = ()"),
        (lambda: ResNetConfig(out_levels=(3, 2)), "rising order"),
        (lambda: ResNetConfig(out_levels=(2, 3), freeze_at=4), "ResNetConfig.freeze_at = 4"),
        (lambda: ResNetConfig(freeze_at=True), "ResNetConfig.freeze_at = True"),
        (lambda: DetNetConfig(depths=(3, 4, 6, 3)), "DetNetConfig.depths = (3, 4, 6, 3): must be five counts"),
        (lambda: DetNetConfig(depths=(3, 4, 6, 0, 3)), "DetNetConfig.depths"),
        (lambda: DetNetConfig(dilation=0), "DetNetConfig.dilation = 0"),
        (lambda: DetNetConfig(projections=True), "DetNetConfig.projections = True"),
        (lambda: DetNetConfig(width=0), "DetNetConfig.width"),
    ],
)
def test_a_bad_value_is_named_with_its_remedy(make, message: str) -> None:
    with pytest.raises(InputError) as caught:
        make()
    assert message in str(caught.value)


def test_configs_validate_from_plain_values() -> None:
    pydantic = pytest.importorskip("pydantic")
    adapter = pydantic.TypeAdapter(BackboneConfig)
    for config in NAMED_BACKBONES.values():
        assert adapter.validate_json(adapter.dump_json(config)) == config
    with pytest.raises(pydantic.ValidationError, match=r"DetNetConfig\.width = 12"):
        adapter.validate_python({"kind": "detnet", "width": 12})
