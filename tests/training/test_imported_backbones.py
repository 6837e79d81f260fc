"""A classifier of another publisher as the start of a detector."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from boxwright.backbones.build import build_backbone
from boxwright.backbones.classifier import Classifier
from boxwright.backbones.resnet import ResNetConfig
from boxwright.detectors.rfcn import RFCN, RFCNConfig, RFCNHeadConfig
from boxwright.structures import Classes, InputError
from boxwright.training.pretrained import read_card, save_imported, start_backbone
from boxwright.weights.caffe_models import MSRA
from boxwright.weights.imported_backbone import ImportedBackbone

BACKBONE = ResNetConfig(depth=50, blocks=(1, 1, 1, 1), width=8, stride_in_1x1=True, stem_pool="ceil")


def imported() -> ImportedBackbone:
    torch.manual_seed(0)
    state = Classifier(build_backbone(BACKBONE), 5).state_dict()
    return ImportedBackbone("MSRA ResNet-50", BACKBONE, MSRA, state)


def detector(**changes: object) -> RFCN:
    backbone = replace(BACKBONE, norm="frozen_bn", out_levels=(4, 5), **changes)  # type: ignore[arg-type]
    config = RFCNConfig(backbone=backbone, head=RFCNHeadConfig(channels=8), pixels=MSRA)
    return RFCN(config, Classes.from_names(["one"]))


def test_a_detector_starts_from_it(tmp_path: Path) -> None:
    given = imported()
    save_imported(tmp_path / "msra.safetensors", given)
    assert read_card(tmp_path / "msra.safetensors")["source"] == "MSRA ResNet-50"
    started = detector()
    assert "learnt on ImageNet" in start_backbone(started, tmp_path / "msra.safetensors")
    for name, value in started.backbone.state_dict().items():
        assert torch.equal(value, given.state[f"backbone.{name}"]), name
    with pytest.raises(InputError, match="stem_pool = 'ceil' there and 'padded' here"):
        start_backbone(detector(stem_pool="padded"), tmp_path / "msra.safetensors")


def test_half_a_network_is_not_saved(tmp_path: Path) -> None:
    given = imported()
    half = {name: value for name, value in given.state.items() if "layer4" not in name}
    with pytest.raises(
        InputError, match=r"half.safetensors: no whole checkpoint of MSRA ResNet-50: \d+ of \d+ tensors"
    ):
        save_imported(tmp_path / "half.safetensors", given._replace(state=half))
    assert not (tmp_path / "half.safetensors").exists()
