"""Facts about recipes and backbones for ``boxwright models``: family, role, network, published AP."""

from __future__ import annotations

import re
from typing import Any, Literal

from boxwright.backbones.build import BackboneConfig
from boxwright.config.recipe import Recipe, Source

Role = Literal["paper", "modern", "small", "ablation"]

ABLATION = re.compile(
    r"-(anchors-\dx\d|gamma-|alpha-|no-|softmax$|svm-overlap$|tune-truth$|k3$|conv4$|conv5-s32$|multi-scale$)"
)
"""Ends of the names of recipes that change one thing of a paper's detector, to see what it brings."""

DARKNETS = {
    "darknet19": "Darknet-19",
    "darknet53": "Darknet-53",
    "extraction": "Extraction",
    "yolov1": "YOLO's own",
    "yolov1_fast": "YOLO's own, 9 layers",
    "tiny_v2": "tiny Darknet",
    "tiny_v3": "tiny Darknet",
}

BACKBONES = {
    "resnet18": "ResNet-18",
    "resnet34": "ResNet-34",
    "resnet50": "ResNet-50, stride in the 3x3 (v1.5)",
    "resnet50-v1": "ResNet-50 of the paper, stride in the 1x1",
    "resnet50-dilated": "the same, dilated, with stride 16 to the end",
    "resnet101": "ResNet-101, stride in the 3x3 (v1.5)",
    "resnet101-v1": "ResNet-101 of the paper",
    "resnet152": "ResNet-152, stride in the 3x3 (v1.5)",
    "detnet59": "DetNet-59 of the paper",
    "detnet59-v1.5": "with the stride in the 3x3",
    "detnet59-noproj": "without the projection of stage 6",
    "detnet59-nodilation": "without dilation",
    "vgg11": "VGG-11",
    "vgg16": "VGG-16",
    "vgg16-bn": "VGG-16 with batch norm",
    "vgg16-reduced": "VGG-16 with fc6 and fc7 as convolutions (SSD)",
    "vgg16-refinedet": "the same, as RefineDet has it",
    "vgg19": "VGG-19",
    "zf": "Zeiler and Fergus' network",
    "darknet19": "YOLOv2's",
    "darknet53": "YOLOv3's",
    "darknet-tiny": "tiny YOLOv3's",
    "darknet-extraction": "YOLOv1's, as it was pretrained",
    "darknet-yolov1": "YOLOv1's, with its detection layers",
    "darknet-yolov1-fast": "Fast YOLOv1's",
    "mobilenet-v1": "MobileNetV1",
    "mobilenet-v2": "MobileNetV2",
    "mobilenet-v3": "MobileNetV3-Large",
    "efficientnet-lite0": "EfficientNet-Lite0",
    "efficientnet-lite1": "EfficientNet-Lite1",
    "efficientnet-lite2": "EfficientNet-Lite2",
    "efficientnet-lite0-detnet": "EfficientNet-Lite0 with DetNet's strides",
    "detnet-small": "a small DetNet for the CPU",
    "resnet-small": "a small ResNet of the same cost or less",
    "resnet17-small": "a small ResNet of 17 layers",
    "resnet44-small": "a small ResNet of 44 layers",
    "detnet-small-noproj": "detnet-small without the projection",
    "vgg-small": "a small VGG with batch norm",
    "darknet-small": "Darknet-19 of a quarter of the width",
    "mobilenet-small": "MobileNetV1 of half the width",
}
"""Descriptions of the named backbones."""


def backbone_facts(name: str) -> dict[str, Any]:
    """Return the facts of a named backbone, with the keys of `recipe_facts`."""
    return {"family": None, "role": None, "description": BACKBONES[name], "published": None, "measured_on": None}


def recipe_facts(recipe: Recipe) -> dict[str, Any]:
    """Return family, role, description and published metrics of a recipe.

    ``published`` are the metrics of the recipe's source, from 0 to 1; ``measured_on`` the data set and split.
    """
    published = recipe.source.expected
    return {
        "family": family_of(recipe.detector.kind),
        "role": role_of(recipe.name),
        "description": network_of(recipe),
        "published": None if published is None else dict(published),
        "measured_on": None if published is None else measured_on(recipe.source),
    }


def family_of(kind: str) -> str:
    """Return the family of a kind of detector: Faster R-CNN with a pyramid and with one map are of one family."""
    return kind.removesuffix("_c4").replace("_", "-")


def role_of(name: str) -> Role:
    """Return the role of a recipe by its name: the paper's, a modern one, a small one for the CPU, or an ablation."""
    if ABLATION.search(name):
        return "ablation"
    if "-small" in name or "-lite" in name:
        return "small"
    return "modern" if name.endswith("-modern") else "paper"


def measured_on(source: Source) -> str | None:
    """Return the data set of the published metrics, as the note of a source names it: COCO or VOC07."""
    if "COCO" in source.note:
        return "COCO"
    return "VOC07" if re.search(r"VOC ?(20)?07", source.note) else None


def network_of(recipe: Recipe) -> str:
    """Return the backbone of a recipe and what follows it, such as ``ResNet-50 FPN``."""
    detector = recipe.detector
    label = backbone_label(detector.backbone)
    if detector.kind in ("faster_rcnn", "retinanet"):  # Mask R-CNN has no other
        return f"{label} FPN"
    return f"{label} C4" if detector.kind == "faster_rcnn_c4" and "Net-" in label else label


def backbone_label(config: BackboneConfig) -> str:
    """Return the name of a backbone as papers write it; smaller ones of ours are called small."""
    match config.kind:
        case "resnet":
            if config.blocks is not None:
                return "small ResNet"
            return f"ResNet-{config.depth}" + (" dilated" if config.output_stride == 16 else "")
        case "detnet":
            return "DetNet-59" if config.width == 64 else "small DetNet"
        case "vgg":
            return f"VGG-{config.depth}" if config.width == 64 else "small VGG"
        case "zf":
            return "ZF" if config.width == 1 else "small ZF"
        case "darknet":
            return DARKNETS[config.variant] if config.width == 1 else "small Darknet"
        case "mobilenet":
            return f"MobileNetV{config.version}" if config.width == 1 else "small MobileNet"
        case "darknet_layers":
            return f"{len(config.layers)} layers of a cfg"
        case "efficientnet_lite":
            return f"EfficientNet-Lite{config.version}" + (" as DetNet" if config.detnet else "")
        case "timm":
            return config.name
