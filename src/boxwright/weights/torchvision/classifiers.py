"""Import torchvision's ImageNet classifiers as backbones: ResNet, VGG, MobileNetV2 and MobileNetV3-Large."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from boxwright.backbones.mobilenet import MobileNetConfig
from boxwright.backbones.resnet import DEPTHS as RESNETS
from boxwright.backbones.resnet import ResNetConfig
from boxwright.backbones.vgg import DEPTHS as VGGS
from boxwright.backbones.vgg import VGGConfig
from boxwright.detectors.contract.pixels import IMAGENET, TORCHVISION_SSD
from boxwright.structures import InputError
from boxwright.weights.common.imported_backbone import ImportedBackbone


def recognise_torchvision_classifier(state: Mapping[str, Tensor]) -> bool:
    """Return True if ``state`` is that of a torchvision ResNet, VGG or MobileNet."""
    resnet = {"conv1.weight", "bn1.weight", "layer1.0.conv1.weight", "layer4.0.conv1.weight"} <= state.keys()
    vgg = "features.0.weight" in state and any(re.fullmatch(r"classifier\.[036]\.weight", key) for key in state)
    return resnet or vgg or "features.0.0.weight" in state


def import_torchvision_classifier(state: Mapping[str, Tensor]) -> ImportedBackbone:
    """Import the classifier in ``state``, detected by names and shapes, of any width.

    VGG-16's file for SSD ("features") has finite values in its convolutions only, and takes its pixels as Caffe does.
    Raises InputError for other models.
    """
    if "layer1.0.conv1.weight" in state:
        return _resnet(state)
    if "features.0.weight" in state:
        return _vgg(state)
    if "features.0.0.weight" in state:
        return _mobilenet(state)
    raise InputError(
        f"no classifier of torchvision's that is known here (ResNet, VGG, MobileNetV2, MobileNetV3-Large): its first "
        f"tensor is {next(iter(state), 'none')!r}"
    )


def _resnet(state: Mapping[str, Tensor]) -> ImportedBackbone:
    found = [re.fullmatch(r"layer(\d)\.(\d+)\.conv1\.weight", key) for key in state]
    stages = [int(match[1]) for match in found if match]
    blocks = tuple(stages.count(n) for n in range(1, 5))
    block = "bottleneck" if "layer1.0.conv3.weight" in state else "basic"
    depth = next((depth for depth, row in RESNETS.items() if row == (block, blocks)), None)
    width = state["conv1.weight"].shape[0]
    middle = state.get(f"layer1.0.conv{2 if block == 'bottleneck' else 1}.weight")
    if depth is None or middle is None or tuple(middle.shape) != (width, width, 3, 3):
        raise InputError(
            f"a residual network of {blocks} {block} blocks, but no plain ResNet; wide and grouped ones "
            "are not supported"
        )
    return ImportedBackbone(
        f"torchvision resnet{depth}",
        ResNetConfig(depth=depth, width=width),  # type: ignore[arg-type]
        IMAGENET,
        {key if key.startswith("fc.") else f"backbone.{key}": value for key, value in state.items()},
    )


def _vgg(state: Mapping[str, Tensor]) -> ImportedBackbone:
    convs = sum(key.startswith("features.") and value.dim() == 4 for key, value in state.items())
    depth = next((depth for depth, row in VGGS.items() if sum(row) == convs), None)
    if depth is None:
        raise InputError(f"a chain of {convs} convolutions, but no VGG of {', '.join(map(str, VGGS))} layers")
    normed = "features.1.running_var" in state
    backbone = {f"backbone.{key}": value for key, value in state.items() if not key.startswith("classifier.")}
    rest = {key.replace("classifier.", "fc."): v for key, v in state.items() if key.startswith("classifier.")}
    whole = "fc.0.bias" in rest and bool(rest["fc.0.bias"].isfinite().all())
    return ImportedBackbone(
        f"torchvision vgg{depth}{'_bn' if normed else ''}{'' if whole else ', features'}",
        VGGConfig(depth=depth, norm="bn" if normed else "none", width=state["features.0.weight"].shape[0]),  # type: ignore[arg-type]
        IMAGENET if whole else TORCHVISION_SSD,
        backbone | (rest if whole else {}),
    )


def _mobilenet(state: Mapping[str, Tensor]) -> ImportedBackbone:
    version = 3 if any(".block." in key for key in state) else 2
    last, stem = ("features.16.0.weight", 16) if version == 3 else ("features.18.0.weight", 32)
    if last not in state or state["features.0.0.weight"].shape[0] != stem:
        raise InputError("layers of a MobileNet, but neither MobileNetV2 nor MobileNetV3-Large of full width")
    names = {key: key.replace("classifier.", "fc.layers.") for key in state if key.startswith("classifier.")}
    return ImportedBackbone(
        f"torchvision mobilenet_v{version}{'_large' if version == 3 else ''}",
        MobileNetConfig(version=version, out_levels=(2, 3, 4, 5, 6)),
        IMAGENET,
        {names.get(key, f"backbone.{key}"): value for key, value in state.items()},
    )


def reduced_layers(classifier: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return fc6 and fc7 of VGG's reduced form (SSD §3, DeepLab) from the ``classifier`` of a full VGG-16.

    They keep every fourth unit, and every third of the 7 x 7 positions that a unit of fc6 reads. The dilation of the
    reduced fc6 spreads them again.
    """
    fc6, fc7 = classifier["0.weight"], classifier["3.weight"]
    kernels = fc6.unflatten(1, (-1, 7, 7))[::4, :, ::3, ::3]
    return {
        "fc6.weight": kernels.contiguous(),
        "fc6.bias": classifier["0.bias"][::4].contiguous(),
        "fc7.weight": fc7[::4, ::4, None, None].contiguous(),
        "fc7.bias": classifier["3.bias"][::4].contiguous(),
    }
