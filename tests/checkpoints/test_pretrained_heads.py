"""Heads that begin with a pretrained network's own upper layers: stage 5 on regions, fc6 and fc7."""

from dataclasses import replace
from pathlib import Path

import torch

from boxwright.backbones import Classifier, ResNetConfig, VGGConfig, build_backbone
from boxwright.checkpoints.backbone_files import save_pretrained, start_backbone
from boxwright.config.config_tree import to_tree
from boxwright.detectors.build import build_detector
from boxwright.detectors.contract.pixels import IMAGENET
from boxwright.detectors.faster_rcnn_c4 import FasterRCNNC4, FasterRCNNC4Config
from boxwright.heads.regions.region_heads import LayersHeadConfig, StageHead
from boxwright.structures import Classes
from tests.support.two_stage_cases import RPN, SMALL_C4

CLASSES = Classes.from_names(["a", "b"])


def pretrained(config: ResNetConfig | VGGConfig, path: Path) -> Classifier:
    torch.manual_seed(5)
    model = Classifier(build_backbone(config), 10)
    card = {"backbone": to_tree(config), "pixels": to_tree(IMAGENET), "data": {"name": "toys"}, "top1": None}
    save_pretrained(path, model.state_dict(), card)
    return model.eval()


def test_stage_5_of_the_head_comes_from_the_same_file(tmp_path: Path) -> None:
    config = SMALL_C4["faster_rcnn_c4"]
    assert isinstance(config.backbone, ResNetConfig)
    model = pretrained(replace(config.backbone, out_levels=(4, 5)), tmp_path / "r.safetensors")
    detector = build_detector(config, CLASSES).eval()
    line = start_backbone(detector, tmp_path / "r.safetensors")
    assert f"{sum(1 for name in model.backbone.state_dict())} tensors" in line, "all of them are used"
    assert isinstance(detector, FasterRCNNC4)
    assert isinstance(detector.head, StageHead)
    fourth, fifth = model.backbone(torch.randn(1, 3, 96, 96))
    as_a_region = fourth.permute(0, 2, 3, 1).unsqueeze(1)
    torch.testing.assert_close(detector.head.features(as_a_region)[0], fifth.mean((2, 3)))


def test_fc6_and_fc7_come_with_the_backbone(tmp_path: Path) -> None:
    backbone = VGGConfig(depth=11, width=8, out_levels=(5,))
    model = pretrained(backbone, tmp_path / "v.safetensors")
    head = LayersHeadConfig(hidden=(512, 512))
    detector = build_detector(FasterRCNNC4Config(backbone=backbone, rpn=RPN, head=head), CLASSES).eval()
    assert isinstance(detector, FasterRCNNC4)
    assert "and 2 layers of the head" in start_backbone(detector, tmp_path / "v.safetensors")
    region = torch.randn(1, 64, 7, 7)
    expected = region.flatten(1)
    for layer in list(model.fc)[:6]:  # type: ignore[arg-type]
        expected = layer(expected)
    seen: list[torch.Tensor] = []
    detector.head.scores.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    detector.head(region.permute(0, 2, 3, 1).unsqueeze(1))
    torch.testing.assert_close(seen[0][0], expected)


def test_a_head_of_other_widths_starts_afresh(tmp_path: Path) -> None:
    backbone = VGGConfig(depth=11, width=8, out_levels=(5,))
    pretrained(backbone, tmp_path / "v.safetensors")
    head = LayersHeadConfig(hidden=(256, 512))
    detector = build_detector(FasterRCNNC4Config(backbone=backbone, rpn=RPN, head=head), CLASSES)
    assert "layers of the head" not in start_backbone(detector, tmp_path / "v.safetensors")
