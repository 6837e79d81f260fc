"""Import torchvision's detectors: detect the model of a state dict and convert it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from boxwright.backbones.mobilenet import MobileNetConfig
from boxwright.backbones.resnet import DEPTHS, ResNetConfig
from boxwright.data.transforms.resizing import ResizeConfig, WarpConfig
from boxwright.detectors.faster_rcnn import FasterRCNNConfig
from boxwright.detectors.mask_rcnn import MaskRCNNConfig
from boxwright.heads.dense import DenseHeadConfig
from boxwright.necks.fpn import FPNConfig
from boxwright.structures import Classes, InputError
from boxwright.weights.common.foreign_files import tensors_in
from boxwright.weights.common.imported import Imported
from boxwright.weights.torchvision.classes import COCO_COLUMNS, columns_of_classes
from boxwright.weights.torchvision.detectors import (
    SILENT,
    box_convs,
    faster_rcnn_config,
    faster_rcnn_mobilenet_config,
    faster_rcnn_state,
    mask_rcnn_config,
    on_mobilenet,
    retinanet_config,
    retinanet_state,
)
from boxwright.weights.torchvision.names import in_names_of_today
from boxwright.weights.torchvision.ssd import ssd_config, ssd_state, ssdlite_config, ssdlite_state

_TWO_STAGE = "roi_heads.box_predictor.cls_score.weight"
_MASKS = "roi_heads.mask_predictor.mask_fcn_logits.weight"
_RETINANET = "head.classification_head.cls_logits.weight"
_SSD = "head.classification_head.module_list.0.weight"
_SSDLITE = "head.classification_head.module_list.0.1.weight"
_FOREIGN = {
    "roi_heads.keypoint_predictor.": "Keypoint R-CNN, and no detector here predicts keypoints",
    "head.regression_head.bbox_ctrness.": "FCOS, which is not among the detectors here",
}


def recognise_torchvision(tensors: Mapping[str, Tensor]) -> bool:
    """Return True if the tensors of a file are of one of torchvision's detectors, supported or not."""
    state = in_names_of_today(tensors)
    body = any(key.startswith(("backbone.body.", "backbone.features.")) for key in state)
    return body and any(key in state for key in (_TWO_STAGE, _RETINANET, _SSD, _SSDLITE))


def torchvision_sizes(tensors: Mapping[str, Tensor]) -> tuple[int, ...]:
    """Return the short sides of the models that the tensors fit: two for MobileNetV3-Large on FPN, else none."""
    state = in_names_of_today(tensors)
    return (320, 800) if _TWO_STAGE in state and _MASKS not in state and on_mobilenet(state) else ()


def import_torchvision(
    content: Mapping[str, Any],
    classes: Classes | None = None,
    *,
    norm_eps: float | None = None,
    small: bool = False,
) -> Imported:
    """Import the detector in ``content``, a model's state dict, detected by names and shapes.

    Supported are Faster R-CNN, Mask R-CNN and RetinaNet on a ResNet with FPN, each in its first and second version,
    Faster R-CNN on MobileNetV3, SSD300 and SSDlite320. ``classes``: those of the head, see
    :func:`~boxwright.weights.torchvision.classes.columns_of_classes`; None for COCO's for 91 columns, VOC's for 21,
    else numbers.

    The state dict may be the entry "model" of a file, as torchvision's training scripts save it. A state dict does not
    tell two settings. ``norm_eps``: added to a variance by frozen norms of a ResNet; None for 0 in COCO's files, as
    torchvision builds their models, and 1e-5 elsewhere. ``small``: the MobileNetV3 model is the one for images of 320
    pixels.

    Raises InputError for other models, and where ``classes`` do not fit.
    """
    state = in_names_of_today(tensors_in(content))
    for start, what in _FOREIGN.items():
        if any(key.startswith(start) for key in state):
            raise InputError(f"the weights are of torchvision's {what}")
    if not recognise_torchvision(state):
        raise InputError(
            f"no detector of torchvision's: the first of {len(state)} tensors is {next(iter(state), 'none')!r}; a file "
            "of a classifier goes to --backbone-weights"
        )
    if _TWO_STAGE in state:
        return _two_stage(state, classes, norm_eps, small)
    if _RETINANET in state:
        return _retinanet(state, classes, norm_eps)
    return _ssd(state, classes)


def _two_stage(state: dict[str, Tensor], classes: Classes | None, eps: float | None, small: bool) -> Imported:
    bias = state["roi_heads.box_predictor.cls_score.bias"]
    classes, labels = columns_of_classes(len(bias), classes, background=True)
    version = 2 if box_convs(state) else 1
    config: FasterRCNNConfig | MaskRCNNConfig
    if on_mobilenet(state):
        kind, sides = ("_320" if small else ""), ((320, 640) if small else (800, 1333))
        source = f"fasterrcnn_mobilenet_v3_large{kind}_fpn"
        config = faster_rcnn_mobilenet_config(small)
        if _MASKS in state or not any(".block." in key for key in state):
            raise InputError("of torchvision's detectors on MobileNets only Faster R-CNN on MobileNetV3-Large is known")
        norm = "bn" if _live(state) else "frozen_bn"
        assert isinstance(config.backbone, MobileNetConfig)
        config = replace(config, backbone=replace(config.backbone, norm=norm))
    else:
        sides, suffix = (800, 1333), "_v2" if version == 2 else ""
        config = (mask_rcnn_config if _MASKS in state else faster_rcnn_config)(version)  # type: ignore[arg-type]
        backbone = _resnet(state, config.backbone, _norm_eps(state, bias, eps))
        source = f"{'maskrcnn' if _MASKS in state else 'fasterrcnn'}_resnet{backbone.depth}_fpn{suffix}"
        config = replace(config, backbone=backbone)
    return Imported(
        source=f"torchvision {source}",
        config=config,
        classes=classes,
        state=_own(faster_rcnn_state(state, labels), config.backbone, mask_norms=True),
        transforms=(_resize(*sides),),
    )


def _retinanet(state: dict[str, Tensor], classes: Classes | None, eps: float | None) -> Imported:
    bias = state["head.classification_head.cls_logits.bias"]
    cell = len(state["head.regression_head.bbox_reg.bias"]) // 4
    classes, labels = columns_of_classes(len(bias) // cell, classes, background=False)
    normed = "head.classification_head.conv.0.1.weight" in state
    config = retinanet_config(2 if normed else 1)
    backbone = _resnet(state, config.backbone, _norm_eps(state, bias[: len(bias) // cell], eps))
    top = state["backbone.fpn.extra_blocks.p6.weight"].shape[1]
    config = replace(
        config,
        backbone=backbone,
        neck=FPNConfig(extra="conv_p" if top == state["backbone.fpn.layer_blocks.0.0.weight"].shape[0] else "conv_c"),
        head=DenseHeadConfig(norm="gn" if normed else "none"),
    )
    return Imported(
        source=f"torchvision retinanet_resnet{backbone.depth}_fpn{'_v2' if normed else ''}",
        config=config,
        classes=classes,
        state=_own(retinanet_state(state, labels), backbone),
        transforms=(_resize(800, 1333),),
    )


def _ssd(state: dict[str, Tensor], classes: Classes | None) -> Imported:
    lite = _SSDLITE in state
    place = "0.1" if lite else "0"
    cell = len(state[f"head.regression_head.module_list.{place}.bias"]) // 4
    columns = len(state[f"head.classification_head.module_list.{place}.bias"]) // cell
    classes, labels = columns_of_classes(columns, classes, background=True)
    if lite:
        config = ssdlite_config(reduced=len(state["backbone.features.1.1.block.0.0.weight"]) == 480)
        ours = ssdlite_state(state, columns, labels)
    else:
        config, ours = ssd_config(), ssd_state(state, labels)
    return Imported(
        source=f"torchvision {'ssdlite320_mobilenet_v3_large' if lite else 'ssd300_vgg16'}",
        config=config,
        classes=classes,
        state=ours,
        transforms=(WarpConfig(size=config.size, interpolations=("aliased",), levels="fractions"),),
        pad_multiple=1,
    )


def _resize(short: int, long: int) -> ResizeConfig:
    """Return the resizing of torchvision's detectors: without antialiasing, sides rounded down."""
    return ResizeConfig(short=(short,), long=long, interpolation="aliased", rounding="down", levels="fractions")


def _live(state: Mapping[str, Tensor]) -> bool:
    """Return True if the norms of the backbone were trained. Frozen norms have no batch counter."""
    return any(key.startswith("backbone.body.") and key.endswith("num_batches_tracked") for key in state)


def _norm_eps(state: Mapping[str, Tensor], bias: Tensor, given: float | None) -> float:
    """Return the eps of a ResNet's norms: torchvision builds its COCO models with 0 if the norms are frozen. Our
    exports among them are detected by the bias SILENT.
    """
    if given is not None:
        return given
    published = len(bias) == COCO_COLUMNS and not _live(state) and not bool((bias == SILENT).any())
    return 0.0 if published else 1e-5


def _resnet(state: Mapping[str, Tensor], usual: object, eps: float) -> ResNetConfig:
    """Return ``usual`` with the depth of the blocks, and with trained norms where they were trained."""
    assert isinstance(usual, ResNetConfig)
    found = [re.fullmatch(r"backbone\.body\.layer(\d)\.(\d+)\.conv1\.weight", key) for key in state]
    stages = [int(match[1]) for match in found if match]
    blocks = tuple(stages.count(n) for n in range(1, 5))
    block = "bottleneck" if "backbone.body.layer1.0.conv3.weight" in state else "basic"
    depth = next((depth for depth, row in DEPTHS.items() if row == (block, blocks)), None)
    middle = state.get("backbone.body.layer1.0.conv2.weight")
    if depth is None or middle is None or tuple(middle.shape) != (64, 64, 3, 3):
        raise InputError(
            f"the backbone is no ResNet of {', '.join(map(str, DEPTHS))} layers: {blocks} {block} blocks, whose first "
            f"3x3 convolution has the shape {None if middle is None else list(middle.shape)}"
        )
    return replace(usual, depth=depth, norm="bn" if _live(state) else "frozen_bn", norm_eps=eps)


def _own(ours: dict[str, Tensor], backbone: object, mask_norms: bool = False) -> dict[str, Tensor]:
    """Return ``ours`` without the batch counters of norms that are frozen here."""
    frozen: tuple[str, ...] = ("mask_head.",) if mask_norms else ()
    if isinstance(backbone, ResNetConfig):
        stages = ["backbone.bn1.", *(f"backbone.layer{n - 1}." for n in range(2, backbone.freeze_at + 1))]
        frozen += tuple(stages[: backbone.freeze_at])
    elif isinstance(backbone, MobileNetConfig) and backbone.norm == "bn":
        frozen += tuple(f"backbone.features.{n}." for n in range(7))  # of freeze_at = 3
    return {
        name: value
        for name, value in ours.items()
        if not (name.endswith("num_batches_tracked") and name.startswith(frozen or ("-",)))
    }
