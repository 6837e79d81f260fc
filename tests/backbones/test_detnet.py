"""DetNet against the reference outputs of a public port, and its ablations."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

from boxwright.backbones import Classifier, DetNetConfig, ResNetConfig, build_backbone

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def load_rule(golden: Path) -> ModuleType:
    """The module that draws the weights and images of the parity fixtures."""
    spec = importlib.util.spec_from_file_location("golden_fill", golden / "fill.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def our_key(key: str) -> str:
    """A key of the port's ImageNet file, in our classifier."""
    return key if key.startswith("fc.") else "backbone." + key.replace("extra_conv", "downsample")


@pytest.mark.parametrize("norm", ["bn", "frozen_bn"])
def test_every_stage_and_the_logits_equal_the_reference(shared_golden: Path, norm: str) -> None:
    fill, case = load_rule(shared_golden), shared_golden / "detnet59_cls"
    spec = json.loads((case / "spec.json").read_text())
    reference = np.load(case / "outputs.npz")
    weights = fill.state_dict(json.loads((case / "keys.json").read_text()), spec["seed"], spec["gains"])
    assert fill.checksum(weights.values()) == spec["weights_crc32"]

    model = Classifier(build_backbone(DetNetConfig(stride_in_1x1=False, norm=norm)), 1000).eval()
    model.load_state_dict({our_key(k): torch.from_numpy(v) for k, v in weights.items()})
    got: dict[str, Tensor] = {}
    model.backbone.get_submodule("layer1").register_forward_pre_hook(lambda _, x: got.update(maxpool=x[0]))
    for entry in spec["images"]:
        image = fill.image(spec["seed"], entry["height"], entry["width"], entry["index"])
        assert fill.checksum([image]) == entry["crc32"]
        x = torch.from_numpy(((image / 255 - MEAN) / STD).astype(np.float32)).permute(2, 0, 1)[None]
        with torch.inference_mode():
            features = model.backbone(x)
            got |= {f"layer{i}": f for i, f in enumerate(features, start=1)}
            got["logits"] = model(x)
        names = [name for name in spec["outputs"] if name.startswith(f"img{entry['index']}/")]
        assert len(names) == 7
        for name in names:
            meta, value = spec["outputs"][name], got[name.split("/")[1]].numpy()
            assert list(value.shape) == meta["shape"]
            expected = reference[name].reshape(-1)
            np.testing.assert_allclose(
                fill.pick(value, meta["step"]), expected, atol=meta["atol"], rtol=meta["rtol"], err_msg=name
            )


def shortcuts(config: DetNetConfig) -> dict[str, list[bool]]:
    """Which blocks of stages 5 and 6 have a projection."""
    with torch.device("meta"):
        backbone = build_backbone(config)
    return {name: [b.downsample is not None for b in backbone.get_submodule(name)] for name in ("layer4", "layer5")}


def test_blocks_b_and_a() -> None:
    assert shortcuts(DetNetConfig()) == {"layer4": [True, False, False], "layer5": [True, False, False]}
    noproj = shortcuts(DetNetConfig(projections=(True, False)))
    assert noproj == {"layer4": [True, False, False], "layer5": [False, False, False]}


@pytest.mark.parametrize("dilation", [1, 2, 3])
def test_dilation_is_in_stages_5_and_6_only(dilation: int) -> None:
    with torch.device("meta"):
        backbone = build_backbone(DetNetConfig(dilation=dilation))
    found = [
        {block.conv2.dilation[0] for block in backbone.get_submodule(f"layer{stage - 1}")} for stage in range(2, 7)
    ]
    assert found == [{1}, {1}, {1}, {dilation}, {dilation}]


def test_stages_2_to_4_are_those_of_resnet50() -> None:
    with torch.device("meta"):
        detnet = build_backbone(DetNetConfig(out_levels=(2, 3, 4)))
        resnet = build_backbone(ResNetConfig(stride_in_1x1=True, out_levels=(2, 3, 4)))
    assert str(detnet) == str(resnet)
    assert detnet.levels == resnet.levels
