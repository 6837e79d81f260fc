"""Weights files of backbones in the layouts of their publishers."""

import pickle
import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from boxwright.backbones import BackboneConfig, Classifier, build_backbone
from boxwright.backbones.detnet import DetNetConfig
from boxwright.backbones.efficientnet_lite import EfficientNetLiteConfig
from boxwright.checkpoints.backbone_files import save_pretrained
from boxwright.config.config_tree import to_tree
from boxwright.detectors.contract.pixels import PixelConfig
from tests.support import caffe_reference as ref


def narrow(config: BackboneConfig) -> BackboneConfig:
    """Return the configuration with a narrow width, which is a number of channels or a factor.

    EfficientNet-Lite has none, and is small.
    """
    if isinstance(config, EfficientNetLiteConfig):
        return config
    width: Any = getattr(config, "width")  # noqa: B009
    return replace(config, width=8 if isinstance(width, int) else min(width, 0.25))  # type: ignore[call-arg]


@cache
def classifier_of(backbone: BackboneConfig) -> dict[str, Tensor]:
    torch.manual_seed(6)
    return Classifier(build_backbone(narrow(backbone)), 3).state_dict()


def write_pretrained(folder: Path, backbone: BackboneConfig, pixels: PixelConfig) -> Path:
    """Write a file of ``boxwright pretrain`` with the fields that the tests read."""
    card = {
        "backbone": to_tree(narrow(backbone)),
        "pixels": to_tree(pixels),
        "data": {"name": "toys"},
        "top1": None,
    }
    path = folder / "backbone.safetensors"
    save_pretrained(path, classifier_of(backbone), card)
    return path


STAGES = {2: list("abc"), 3: list("abcd"), 4: list("abcdef"), 5: list("abc")}


def write_caffe_resnet(folder: Path) -> tuple[Path, Tensor]:
    random = ref.Random(3)
    random.resnet(8, STAGES, stem_bias=True)
    random.matrix("fc1000", 10, 256)
    path = ref.write(folder / "ResNet-50-model.caffemodel", random.blobs)
    return path, random.blobs["res5c_branch2b"][0]


def write_msra(folder: Path, width: int = 8) -> tuple[Path, Tensor]:
    """Write a ResNet of Detectron as Python 2 pickles it, with a scale and a shift per norm."""
    blobs: dict[str, np.ndarray] = {}
    rng = np.random.default_rng(1)

    def conv(name: str, norm: str, *shape: int) -> None:
        blobs[f"{name}_w"] = rng.normal(0, (2 / np.prod(shape[1:])) ** 0.5, shape).astype(np.float32)
        blobs[f"{norm}_s"] = (0.5 + 0.1 * rng.random(shape[0])).astype(np.float32)
        blobs[f"{norm}_b"] = np.zeros(shape[0], np.float32)

    conv("conv1", "res_conv1_bn", width, 3, 7, 7)
    inputs = width
    for stage, count in zip((2, 3, 4, 5), (3, 4, 6, 3), strict=True):
        mid = width * 2 ** (stage - 2)
        for block in range(count):
            at = f"res{stage}_{block}_branch"
            if block == 0:
                conv(f"{at}1", f"{at}1_bn", 4 * mid, inputs, 1, 1)
            conv(f"{at}2a", f"{at}2a_bn", mid, inputs, 1, 1)
            conv(f"{at}2b", f"{at}2b_bn", mid, mid, 3, 3)
            conv(f"{at}2c", f"{at}2c_bn", 4 * mid, mid, 1, 1)
            inputs = 4 * mid
    blobs |= {"conv1_b": np.zeros(width, np.float32), "fc1000_w": np.zeros((1000, inputs), np.float32)}
    blobs["fc1000_b"] = np.zeros(1000, np.float32)
    (folder / "R-50.pkl").write_bytes(pickle.dumps({"blobs": blobs}, protocol=2))
    return folder / "R-50.pkl", torch.from_numpy(blobs["res5_2_branch2b_w"])


def write_detnet(folder: Path) -> tuple[Path, Tensor]:
    torch.manual_seed(4)
    state = Classifier(build_backbone(DetNetConfig(width=8, stride_in_1x1=False)), 10).state_dict()
    names = {n: re.sub(r"^(layer[45]\.0\.)downsample", r"\1extra_conv", n.removeprefix("backbone.")) for n in state}
    torch.save({f"module.{names[name]}": value for name, value in state.items()}, folder / "detnet59.pth")
    return folder / "detnet59.pth", state["backbone.layer5.0.downsample.0.weight"]


def write_vgg(folder: Path, reduced: bool) -> tuple[Path, ref.Random]:
    random = ref.Random(6)
    random.vgg(8, reduced=reduced)
    if reduced:
        random.conv("fc8", 10, 128, 1)
    else:
        for name, out, inputs in (("fc6", 512, 64 * 49), ("fc7", 512, 512), ("fc8", 10, 512)):
            random.matrix(name, out, inputs)
    return ref.write(folder / "vgg.caffemodel", random.blobs), random
