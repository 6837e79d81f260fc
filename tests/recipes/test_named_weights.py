"""Commands in the headers of the recipes: the weights that they name load as written there.

Networks are narrow, and files are as their publishers write them; Darknet's alone have no narrow form without a cfg.
"""

import importlib
import pkgutil
import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from boxwright import recipes
from boxwright.backbones import NAMED_BACKBONES, Classifier, DarknetConfig, VGGConfig, build_backbone
from boxwright.checkpoints import backbone_files as pretrained
from boxwright.checkpoints.backbone_files import start_backbone
from boxwright.detectors.build import build_detector
from boxwright.detectors.contract.pixels import DARKNET, IMAGENET
from boxwright.recipes import resolve_recipe
from boxwright.structures import Classes
from boxwright.weights.common.imported_backbone import ImportedBackbone
from tests.support import caffe_reference as ref
from tests.support.backbone_files import (
    narrow,
    write_caffe_resnet,
    write_detnet,
    write_msra,
    write_pretrained,
    write_vgg,
)

MODULES = [info.name for info in pkgutil.iter_modules(recipes.__path__)]


def commands() -> list[list[str]]:
    heads = [importlib.import_module(f"boxwright.recipes.{name}").__doc__ or "" for name in MODULES]
    return [
        shlex.split(" ".join(text.split()))
        for head in heads
        for text in re.findall(r"``(boxwright train[^`]*)``", head)
    ]


def write_caffe_resnet101(folder: Path) -> Path:
    random = ref.Random(3)
    stages = {2: ["a", "b", "c"], 3: ["a", "b1", "b2", "b3"], 4: ["a", *(f"b{n}" for n in range(1, 23))]}
    random.resnet(8, stages | {5: ["a", "b", "c"]}, stem_bias=False)
    random.matrix("fc1000", 10, 256)
    return ref.write(folder / "ResNet-101-model.caffemodel", random.blobs)


def write_torchvision_vgg16(folder: Path) -> Path:
    state = Classifier(build_backbone(VGGConfig(width=8, out_levels=(5,))), 10).state_dict()
    names = {name: name.removeprefix("backbone.").replace("fc.", "classifier.") for name in state}
    torch.save({names[name]: value for name, value in state.items()}, folder / "vgg16.pth")
    return folder / "vgg16.pth"


FILES: dict[str, Callable[[Path], Path]] = {
    "ResNet-101-model.caffemodel": write_caffe_resnet101,
    "ResNet-50-model.caffemodel": lambda folder: write_caffe_resnet(folder)[0],
    "R-50.pkl": lambda folder: write_msra(folder)[0],
    "VGG_ILSVRC_16_layers_fc_reduced.caffemodel": lambda folder: write_vgg(folder, reduced=True)[0],
    "torchvision:vgg16": write_torchvision_vgg16,
    "detnet59.pth": lambda folder: write_detnet(folder)[0],
    "backbone.safetensors": lambda folder: write_pretrained(folder, NAMED_BACKBONES["detnet59"], IMAGENET),
}
DARKNET_FILES = {
    "extraction.conv.weights": "extraction",
    "darknet:darknet19_448.conv.23": "darknet19",
    "darknet:darknet53.conv.74": "darknet53",
}


def write_darknet(variant: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a file with the weights of the backbone ``variant`` at a quarter of its width."""
    config = DarknetConfig(variant=variant, width=0.25, out_levels=(5,))  # type: ignore[arg-type]
    state = {f"backbone.{name}": value for name, value in build_backbone(config).state_dict().items()}
    pixels = DARKNET
    found = ImportedBackbone(f"pjreddie/darknet {variant}", config, pixels, state)
    monkeypatch.setattr(pretrained, "import_backbone", lambda path: found)
    (folder / variant).write_bytes(b"")
    return folder / variant


@pytest.mark.parametrize(
    "words",
    [*commands(), ["", "", "rfcn-r50-voc", "--backbone-weights", "ResNet-50-model.caffemodel"]],
    ids=lambda words: words[2],
)
def test_a_recipe_starts_as_its_head_says(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "--backbone-weights" in words, "the paper's recipes need weights"
    options = dict(zip(words[3::2], words[4::2], strict=True))
    file = options["--backbone-weights"]
    sets = [options["--set"]] if "--set" in options else []
    config = resolve_recipe(words[2], sets=sets).detector
    with torch.device("meta"):
        detector = build_detector(replace(config, backbone=narrow(config.backbone)), Classes.from_names(["a"]))  # type: ignore[call-arg,union-attr]
    path = write_darknet(DARKNET_FILES[file], tmp_path, monkeypatch) if file in DARKNET_FILES else FILES[file](tmp_path)
    assert re.match(rf"backbone from {re.escape(str(path))}: \d+ tensors", start_backbone(detector, path))
