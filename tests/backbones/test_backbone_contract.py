"""The contract of every backbone: declared levels, one graph, autocast, a trainable initialisation."""

import pytest
import torch
from torch import nn

from boxwright.backbones import (
    NAMED_BACKBONES,
    BackboneConfig,
    Classifier,
    DarknetConfig,
    DetNetConfig,
    EfficientNetLiteConfig,
    MobileNetConfig,
    ResNetConfig,
    VGGConfig,
    ZFConfig,
    build_backbone,
)
from boxwright.structures import InputError, Level

SMALL_DETNET = DetNetConfig(depths=(1, 1, 1, 1, 2), width=8)
SMALL = {
    "basic": ResNetConfig(depth=18, blocks=(1, 1, 1, 1), width=8),
    "bottleneck": ResNetConfig(depth=50, blocks=(1, 1, 2, 1), width=8),
    "bottleneck-frozen": ResNetConfig(depth=50, blocks=(1, 1, 1, 1), width=8, norm="frozen_bn", freeze_at=2),
    "c4": ResNetConfig(depth=50, blocks=(1, 1, 1, 1), width=8, out_levels=(4,)),
    "vgg": VGGConfig(depth=13, width=8, norm="bn", out_levels=(1, 3, 5)),
    "vgg-frozen": VGGConfig(depth=11, width=8, norm="frozen_bn", freeze_at=2, out_levels=(3, 4, 5)),
    "vgg-reduced": VGGConfig(width=8, fc="reduced", freeze_at=2, out_levels=(4, 6)),
    "vgg-refinedet": VGGConfig(
        depth=11, width=8, norm="gn", fc="reduced", pool5="2x2s2", fc6_dilation=3, out_levels=(4, 5, 6)
    ),
    "zf": ZFConfig(width=0.25, out_levels=(1, 3, 5)),
    "zf-frozen": ZFConfig(width=0.25, norm="bn", freeze_at=2, out_levels=(2, 5)),
    "darknet19": DarknetConfig(variant="darknet19", width=0.25, out_levels=(2, 4, 5)),
    "darknet53": DarknetConfig(variant="darknet53", width=0.125, norm="gn", freeze_at=2),
    "residual": DarknetConfig(variant="darknet53", width=0.125, out_levels=(1, 2)),
    "darknet-tiny": DarknetConfig(variant="tiny_v3", width=0.25, norm="frozen_bn", freeze_at=3, out_levels=(4, 5)),
    "extraction": DarknetConfig(variant="extraction", width=0.125, out_levels=(1, 5)),
    "yolov1": DarknetConfig(variant="yolov1", width=0.125, norm="none", out_levels=(5, 6)),
    "yolov1-tiny": DarknetConfig(variant="yolov1_tiny", width=0.25, out_levels=(4, 6)),
    "mobilenet-v1": MobileNetConfig(version=1, width=0.25, freeze_at=2, out_levels=(1, 3, 5)),
    "mobilenet-v2": MobileNetConfig(version=2, width=0.35, norm="gn", freeze_at=3),
    "mobilenet-v3": MobileNetConfig(version=3, width=0.35, norm="gn", out_levels=(2, 4, 6)),
    "squeeze": MobileNetConfig(version=3, width=0.35, freeze_at=1, out_levels=(2, 3)),
    "mobilenet-frozen": MobileNetConfig(version=2, width=0.35, norm="frozen_bn", freeze_at=1, out_levels=(1, 3)),
    "lite": EfficientNetLiteConfig(freeze_at=2, out_levels=(1, 3, 5)),
    "lite-detnet": EfficientNetLiteConfig(output_stride=16, detnet=True, norm="gn", out_levels=(4, 5, 6)),
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


@pytest.mark.parametrize("name", SMALL)
def test_what_is_frozen_records_nothing_and_the_rest_learns(name: str) -> None:
    torch.manual_seed(0)
    config = SMALL[name]
    backbone = build_backbone(config).train()
    features = backbone(torch.randn(2, 3, 64, 64))
    assert [f.requires_grad for f in features] == [n > config.freeze_at for n in config.out_levels]
    sum((f * torch.randn_like(f)).sum() for f in features).backward()
    for key, parameter in backbone.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, key
    live = [m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    assert bool(live) == (config.norm == "bn")
    assert all(p.requires_grad for m in live for p in m.parameters())


@pytest.mark.parametrize(
    "config",
    [
        VGGConfig(depth=11, width=8, norm="bn", freeze_at=5, out_levels=(3, 5)),
        VGGConfig(depth=11, width=8, norm="bn", freeze_at=6, fc="reduced", out_levels=(4, 6)),
        DarknetConfig(variant="darknet19", width=0.25, freeze_at=5),
        DarknetConfig(variant="yolov1_fast", width=0.25, freeze_at=6, out_levels=(6,)),
        MobileNetConfig(version=3, width=0.35, freeze_at=6, out_levels=(6,)),
    ],
    ids=lambda config: f"{config.kind}{config.freeze_at}",
)
def test_a_backbone_can_be_frozen_whole(config: BackboneConfig) -> None:
    backbone = build_backbone(config)
    assert not any(p.requires_grad for p in backbone.parameters())
    assert not any(isinstance(m, nn.BatchNorm2d) for m in backbone.modules())


def test_published_pyramids() -> None:
    with torch.device("meta"):
        detnet, resnet = build_backbone(DetNetConfig()), build_backbone(ResNetConfig())
    stem = (Level("C2", 4, 256), Level("C3", 8, 512), Level("C4", 16, 1024))
    assert detnet.levels == (*stem, Level("C5", 16, 1024), Level("C6", 16, 1024))
    assert resnet.levels == (*stem, Level("C5", 32, 2048))


@pytest.mark.parametrize(
    "name",
    [
        "basic",
        "bottleneck-frozen",
        "detnet",
        "vgg-reduced",
        "zf",
        "residual",
        "darknet-tiny",
        "yolov1",
        "mobilenet-frozen",
        "squeeze",
    ],
)
def test_compiles_as_one_graph_with_the_same_values_and_gradients(name: str) -> None:
    torch.manual_seed(0)
    backbone = build_backbone(SMALL[name]).double()
    compiled = torch.compile(backbone, backend="aot_eager", fullgraph=True)
    x = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    weight = next(p for p in backbone.parameters() if p.ndim == 4 and p.requires_grad)
    grads = []
    for run in (backbone, compiled):
        features = run(x)
        (grad,) = torch.autograd.grad(sum(f.square().mean() for f in features), weight)
        grads.append((features, grad))
    torch.testing.assert_close(grads[0], grads[1])


@pytest.mark.parametrize(
    "name",
    [
        "bottleneck",
        "bottleneck-frozen",
        "detnet-gn",
        "vgg",
        "vgg-reduced",
        "darknet53",
        "darknet-tiny",
        "residual",
        "yolov1",
        "mobilenet-v2",
        "mobilenet-v3",
    ],
)
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
    gradient = next(p for p in backbone.parameters() if p.ndim == 4 and p.requires_grad).grad
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
        (lambda: ResNetConfig(depth=49), "ResNetConfig.depth = 49: should be 18, 34, 50, 101 or 152"),
        (lambda: ResNetConfig(depth=[50]), "ResNetConfig.depth"),
        (lambda: ResNetConfig(blocks=(1, 2, 3)), "ResNetConfig.blocks"),
        (lambda: ResNetConfig(width=12), "ResNetConfig.width = 12: should be a multiple of 8"),
        (lambda: ResNetConfig(norm="batch"), "ResNetConfig.norm = 'batch': should be 'bn', 'frozen_bn' or 'gn'"),
        (lambda: ResNetConfig(depth=18, stride_in_1x1=True), "ResNetConfig.stride_in_1x1"),
        (lambda: ResNetConfig(depth=18, output_stride=16), "ResNetConfig.output_stride"),
        (lambda: ResNetConfig(output_stride=8), "ResNetConfig.output_stride = 8"),
        (lambda: ResNetConfig(zero_init_residual=True, norm="frozen_bn"), "ResNetConfig.zero_init_residual"),
        (lambda: ResNetConfig(out_levels=(2, 6)), "ResNetConfig.out_levels = (2, 6)"),
        (lambda: ResNetConfig(out_levels=()), "ResNetConfig.out_levels = ()"),
        (lambda: ResNetConfig(out_levels=(3, 2)), "rising order"),
        (lambda: ResNetConfig(out_levels=(2, 3), freeze_at=4), "ResNetConfig.freeze_at = 4"),
        (lambda: ResNetConfig(freeze_at=True), "ResNetConfig.freeze_at = True"),
        (lambda: VGGConfig(depth=12), "VGGConfig.depth = 12: should be 11, 13, 16 or 19"),
        (lambda: VGGConfig(norm="batch"), "VGGConfig.norm = 'batch': should be 'none', 'bn', 'frozen_bn' or 'gn'"),
        (lambda: VGGConfig(width=4), "VGGConfig.width = 4: should be a multiple of 8"),
        (lambda: VGGConfig(out_levels=(4, 6)), "VGGConfig.out_levels = (4, 6): must be stages in rising order, each"),
        (lambda: VGGConfig(out_levels=("C4",)), "VGGConfig.out_levels.0 = 'C4': should be a valid integer"),
        (lambda: VGGConfig(fc="reduced"), "VGGConfig.out_levels = (3, 4, 5): must be stages that end with 6"),
        (lambda: VGGConfig(pool5="2x2s2"), "VGGConfig.pool5 = '2x2s2': must be left out without fc = reduced"),
        (lambda: VGGConfig(fc6_dilation=3), "VGGConfig.fc6_dilation = 3: must be left out"),
        (lambda: VGGConfig(freeze_at=6), "VGGConfig.freeze_at = 6"),
        (lambda: ZFConfig(width=0.05), "ZFConfig.width = 0.05: should be greater than or equal to 0.083"),
        (lambda: ZFConfig(freeze_at=6), "ZFConfig.freeze_at = 6"),
        (lambda: DarknetConfig(variant="darknet20"), "DarknetConfig.variant = 'darknet20': should be 'darknet19'"),
        (lambda: DarknetConfig(width=0), "DarknetConfig.width = 0: should be greater than 0"),
        (lambda: DarknetConfig(out_levels=(5, 6)), "DarknetConfig.out_levels = (5, 6): must be stages"),
        (lambda: DarknetConfig(variant="yolov1", out_levels=(1, 7)), "each from 1 to 6"),
        (lambda: DarknetConfig(norm="layer"), "DarknetConfig.norm = 'layer'"),
        (lambda: MobileNetConfig(version=4), "MobileNetConfig.version = 4: should be 1, 2 or 3"),
        (lambda: MobileNetConfig(version=1, out_levels=(4, 6)), "MobileNetConfig.out_levels = (4, 6)"),
        (lambda: MobileNetConfig(width=True), "MobileNetConfig.width = True"),
        (lambda: MobileNetConfig(norm="none"), "MobileNetConfig.norm = 'none'"),
        (lambda: DetNetConfig(depths=(3, 4, 6, 3)), "DetNetConfig.depths.4: must be given"),
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
    with pytest.raises(pydantic.ValidationError, match=r"multiple of 8"):
        adapter.validate_json('{"kind": "detnet", "width": 12}')
