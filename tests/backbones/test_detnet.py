"""DetNet against the reference outputs of a public port, and its ablations."""

from pathlib import Path

import pytest
import torch

from boxwright.backbones import Classifier, DetNetConfig, ResNetConfig, build_backbone
from tests.support.detnet_reference import check_classifier
from tests.support.golden import GoldenCase


def our_key(key: str) -> str:
    """A key of the port's ImageNet file, in our classifier."""
    return key if key.startswith("fc.") else "backbone." + key.replace("extra_conv", "downsample")


@pytest.mark.parametrize("norm", ["bn", "frozen_bn"])
def test_every_stage_and_the_logits_equal_the_reference(shared_golden: Path, norm: str) -> None:
    case = GoldenCase(shared_golden / "detnet59_cls")
    model = Classifier(build_backbone(DetNetConfig(stride_in_1x1=False, norm=norm)), 1000).eval()
    model.load_state_dict({our_key(key): value for key, value in case.weights.items()})
    check_classifier(case, model)


def shortcuts(config: DetNetConfig) -> dict[str, list[bool]]:
    """List the blocks of stages 5 and 6 that have a projection."""
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
