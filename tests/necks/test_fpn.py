"""FPN against torchvision's, against the reference outputs of a public port, and by hand on equal strides."""

import importlib.util
import json
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from boxwright.backbones import NAMED_BACKBONES, DetNetConfig, build_backbone, fold_norms
from boxwright.necks import FPN, FPNConfig
from boxwright.structures import InputError, Level

RESNET = tuple(Level(f"C{n}", 2**n, 8 * 2 ** (n - 2)) for n in range(2, 6))
DETNET = (*RESNET[:3], Level("C5", 16, 32), Level("C6", 16, 32))


def features_of(levels: tuple[Level, ...], size: tuple[int, int]) -> list[Tensor]:
    """Maps that ``levels`` promise for an image of ``size``."""
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(2, v.channels, -(-size[0] // v.stride), -(-size[1] // v.stride), generator=generator)
        for v in levels
    ]


@pytest.mark.parametrize("size", [(64, 96), (97, 131)], ids=str)
@pytest.mark.parametrize("extra", ["pool", "none", "auto"])
def test_equals_torchvision_on_resnet_strides(size: tuple[int, int], extra: str) -> None:
    torch.manual_seed(0)
    pool = None if extra == "none" else LastLevelMaxPool()
    reference = FeaturePyramidNetwork([v.channels for v in RESNET], 16, pool)
    ours = FPN(RESNET, FPNConfig(channels=16, extra=extra))
    for i, name in enumerate(("P2", "P3", "P4", "P5")):
        ours.lateral[name].conv.load_state_dict(reference.inner_blocks[i][0].state_dict())
        ours.output[name].conv.load_state_dict(reference.layer_blocks[i][0].state_dict())
    x = features_of(RESNET, size)
    copies = [f.clone() for f in x]
    expected = list(reference(OrderedDict(enumerate(x))).values())
    outputs = ours(x)
    torch.testing.assert_close(outputs, expected)
    torch.testing.assert_close(x, copies, rtol=0, atol=0)  # sums in place, but never in the caller's maps


@pytest.mark.parametrize("extra", ["conv_c", "conv_p"])
def test_added_levels_equal_torchvisions(extra: str) -> None:
    """P6 reads C5 or P5; P7 reads the ReLU of P6, which itself is not activated."""
    torch.manual_seed(0)
    levels, source = RESNET[1:], RESNET[-1].channels if extra == "conv_c" else 16
    reference = FeaturePyramidNetwork([v.channels for v in levels], 16, LastLevelP6P7(source, 16))
    ours = FPN(levels, FPNConfig(channels=16, extra=extra))
    assert [(v.name, v.stride) for v in ours.levels] == [("P3", 8), ("P4", 16), ("P5", 32), ("P6", 64), ("P7", 128)]
    for i, name in enumerate(("P3", "P4", "P5")):
        ours.lateral[name].conv.load_state_dict(reference.inner_blocks[i][0].state_dict())
        ours.output[name].conv.load_state_dict(reference.layer_blocks[i][0].state_dict())
    for name in ("P6", "P7"):
        ours.extra[name].conv.load_state_dict(getattr(reference.extra_blocks, name.lower()).state_dict())
    x = features_of(levels, (97, 131))
    outputs = ours(x)
    torch.testing.assert_close(outputs, list(reference(OrderedDict(enumerate(x))).values()))
    assert outputs[3].min() < 0


def test_detnets_sixth_stage_is_a_level_and_p7_has_the_stated_stride() -> None:
    backbone = build_backbone(DetNetConfig(depths=(1, 1, 1, 1, 1), width=8, out_levels=(3, 4, 5, 6)))
    fpn = FPN(backbone.levels, FPNConfig(channels=8, extra="conv_c", extra_strides=(2,)))
    assert [(v.name, v.stride) for v in fpn.levels] == [("P3", 8), ("P4", 16), ("P5", 16), ("P6", 16), ("P7", 32)]
    x = torch.randn(1, 3, 96, 64)
    for level, out in zip(fpn.levels, fpn(backbone(x)), strict=True):
        assert out.shape[2:] == (96 // level.stride, 64 // level.stride)


def test_equal_strides_are_summed_without_upsampling() -> None:
    torch.manual_seed(0)
    fpn = FPN(DETNET, FPNConfig(channels=8))
    x = features_of(DETNET, (64, 96))
    m6 = fpn.lateral["P6"](x[4])
    m5 = fpn.lateral["P5"](x[3]) + m6
    m4 = fpn.lateral["P4"](x[2]) + m5
    m3 = fpn.lateral["P3"](x[1]) + F.interpolate(m4, scale_factor=2)
    m2 = fpn.lateral["P2"](x[0]) + F.interpolate(m3, scale_factor=2)
    expected = [fpn.output[f"P{i}"](m) for i, m in zip(range(2, 7), (m2, m3, m4, m5, m6), strict=True)]
    torch.testing.assert_close(fpn(x), expected)


@pytest.mark.parametrize(
    ("levels", "extra", "strides"),
    [
        (DETNET, "auto", [4, 8, 16, 16, 16]),
        (DETNET, "pool", [4, 8, 16, 16, 16, 32]),
        (RESNET, "auto", [4, 8, 16, 32, 64]),
        (RESNET, "none", [4, 8, 16, 32]),
        (RESNET[1:3], "pool", [8, 16, 32]),
        ((*RESNET[:3], Level("C5", 16, 64)), "auto", [4, 8, 16, 16, 32]),  # ResNet with a dilated stage 5
    ],
)
@pytest.mark.parametrize("size", [(64, 96), (97, 131)], ids=str)
def test_levels_state_what_forward_returns(
    levels: tuple[Level, ...], extra: str, strides: list[int], size: tuple[int, int]
) -> None:
    fpn = FPN(levels, FPNConfig(channels=8, extra=extra))
    first = int(levels[0].name[1:])
    assert fpn.levels == tuple(Level(f"P{first + i}", s, 8) for i, s in enumerate(strides))
    outputs = fpn(features_of(levels, size))
    assert [tuple(p.shape) for p in outputs] == [(2, 8, -(-size[0] // s), -(-size[1] // s)) for s in strides]


@pytest.mark.parametrize("norm", ["none", "bn", "gn"])
def test_initial_values_and_bias(norm: str) -> None:
    fpn = FPN(DETNET, FPNConfig(channels=64, norm=norm))
    convs = [m for m in fpn.modules() if isinstance(m, nn.Conv2d)]
    assert len(convs) == 10
    for conv in convs:
        bound = (3 / conv.weight[0].numel()) ** 0.5  # Kaiming uniform with a = 1
        assert 0.9 * bound < conv.weight.abs().max() <= bound
        assert (conv.bias is None) == (norm != "none")
        assert conv.bias is None or not conv.bias.any()


@pytest.mark.parametrize("config", [FPNConfig(channels=8), FPNConfig(channels=8, norm="bn")], ids=["plain", "bn"])
def test_compiles_as_one_graph_with_a_backbone_and_folds(config: FPNConfig) -> None:
    torch.manual_seed(0)
    backbone = build_backbone(DetNetConfig(depths=(1, 1, 1, 1, 1), width=8))
    model = nn.Sequential(backbone, FPN(backbone.levels, config)).double()
    x = torch.randn(2, 3, 65, 96, dtype=torch.float64)
    model(x)  # moves the running statistics off their start
    model.eval()
    eager = model(x)
    torch.testing.assert_close(torch.compile(model, backend="aot_eager", fullgraph=True)(x), eager)
    folded = fold_norms(model)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    torch.testing.assert_close(folded(x), eager)


def port_key(key: str) -> str | None:
    """A key of the port's detector file, in ``Sequential(backbone, FPN)``; None for what is neither."""
    names = {"toplayer": "P6", "latlayer1": "P5", "latlayer2": "P4", "latlayer3": "P3", "latlayer4": "P2"}
    part, _, rest = key.removeprefix("RCNN_").partition(".")
    if part in names:
        return f"1.lateral.{names[part]}.conv.{rest}"
    if part in ("smooth1", "smooth2"):
        return f"1.output.{'P3' if part == 'smooth1' else 'P2'}.conv.{rest}"
    if part == "layer0":
        return f"0.{'conv1' if rest.startswith('0.') else 'bn1'}.{rest[2:]}"
    if part.startswith("layer"):
        return f"0.{part}.{rest.removeprefix('0.').replace('extra_conv', 'downsample')}"
    return None


def test_equals_the_reference_outputs_of_detnet_pytorch(shared_golden: Path) -> None:
    loader = importlib.util.spec_from_file_location("golden_fill", shared_golden / "fill.py")
    assert loader is not None
    assert loader.loader is not None
    fill = importlib.util.module_from_spec(loader)
    loader.loader.exec_module(fill)
    case = shared_golden / "detnet59_fpn_voc"
    spec = json.loads((case / "spec.json").read_text())
    reference = np.load(case / "outputs.npz")
    keys = json.loads((case / "keys.json").read_text())
    names = {key for key, _ in keys}
    state = {
        ours: torch.from_numpy(np.asarray(fill.tensor(key, shape, spec["seed"], names, spec["gains"])))
        for key, shape in keys
        if (ours := port_key(key)) is not None
    }
    backbone = build_backbone(DetNetConfig(stride_in_1x1=False, norm="frozen_bn"))
    config = FPNConfig(output_convs="upsampled", upsample="bilinear_align_corners", passed_down="smoothed")
    model = nn.Sequential(backbone, FPN(backbone.levels, config)).eval()
    model.load_state_dict(state)
    entry = spec["images"][0]  # the one that is not resized
    image = fill.image(spec["seed"], entry["height"], entry["width"], entry["index"])
    mean, std = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)
    x = torch.from_numpy((image.astype(np.float32) / 255 - mean) / std).permute(2, 0, 1)[None]
    with torch.inference_mode():
        outputs = model(x)
    for level, value in zip(model[1].levels, outputs, strict=True):
        name = f"img0/{level.name.lower()}"
        meta = spec["outputs"][name]
        assert list(value.shape) == meta["shape"]
        got, expected = fill.pick(value.numpy(), meta["step"]), reference[name].reshape(-1)
        np.testing.assert_allclose(got, expected, atol=meta["atol"], rtol=meta["rtol"], err_msg=name)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"channels": 12}, "FPNConfig.channels = 12: should be a multiple of 8"),
        ({"extra": "p6"}, "FPNConfig.extra = 'p6': should be 'auto', 'pool', 'none'"),
        ({"output_convs": "some"}, "FPNConfig.output_convs = 'some'"),
        ({"upsample": "bilinear"}, "FPNConfig.upsample = 'bilinear'"),
        ({"passed_down": ""}, "FPNConfig.passed_down = ''"),
        ({"norm": "frozen_bn"}, "FPNConfig.norm = 'frozen_bn'"),
        ({"extra_strides": (2, 3)}, "FPNConfig.extra_strides.1 = 3: should be 1 or 2"),
    ],
)
def test_a_bad_value_is_named_with_its_remedy(values: dict, message: str) -> None:
    with pytest.raises(InputError) as caught:
        FPNConfig(**values)
    assert message in str(caught.value)


@pytest.mark.parametrize("levels", [(), tuple(reversed(RESNET))], ids=["none", "coarse first"])
def test_levels_out_of_order_are_refused(levels: tuple[Level, ...]) -> None:
    with pytest.raises(InputError, match="finest to the coarsest"):
        FPN(levels, FPNConfig())


def test_gives_five_levels_on_either_kind_of_backbone() -> None:
    for config in map(NAMED_BACKBONES.get, ("resnet18", "resnet50-dilated", "resnet-small", "detnet-small")):
        assert config is not None
        with torch.device("meta"):
            backbone = build_backbone(config)
            outputs = FPN(backbone.levels, FPNConfig(channels=32))(backbone(torch.empty(1, 3, 97, 131)))
        assert len(outputs) == 5
