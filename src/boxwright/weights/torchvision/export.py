"""Export detectors as state dicts that torchvision's own models load."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from boxwright.backbones.mobilenet import MobileNetConfig
from boxwright.backbones.resnet import ResNetConfig
from boxwright.detectors.contract.detector import Detector
from boxwright.detectors.faster_rcnn import FasterRCNNConfig
from boxwright.detectors.mask_rcnn import MaskRCNNConfig
from boxwright.detectors.retinanet import RetinaNetConfig
from boxwright.detectors.ssd import SSDConfig, SSDHeadConfig
from boxwright.structures import InputError
from boxwright.weights.torchvision.classes import columns_to_export
from boxwright.weights.torchvision.detectors import (
    exported_faster_rcnn,
    exported_retinanet,
    faster_rcnn_config,
    faster_rcnn_mobilenet_config,
    mask_rcnn_config,
    retinanet_config,
)
from boxwright.weights.torchvision.ssd import exported_ssd, exported_ssdlite, ssd_config, ssdlite_config

# Settings that a state dict does not carry and inference does not depend on: those of the training, and arguments of
# torchvision's constructor (thresholds, counts, means).
_FREE = {
    *("assign", "loss", "freeze_at", "zero_init_residual", "crowd_ignore", "beta", "samples", "positive_fraction"),
    *("positive_iou", "negative_iou", "negative_floor", "low_quality", "add_truth", "box_loss", "box_weight"),
    *("straddle", "difficult", "target", "target_samples", "weight", "dropout", "prior", "start", "norm_eps"),
    *("post", "pre_nms", "post_nms", "nms_iou", "min_size", "score_threshold", "mean", "std"),
}


def export_torchvision(detector: Detector) -> dict[str, Tensor]:
    """Return the detector's weights for torchvision's model of the same kind, which loads them with ``strict=True``.

    The model is the one that :func:`~boxwright.weights.torchvision.importer.import_torchvision` would name. Its norms
    add 1e-5 to a variance (as all do that are built without published weights; those of SSDlite add 1e-3), and it has
    one column more than there are classes: label ``k`` is ``k + 1`` there. COCO's 80 classes are placed at their ids in
    91 columns, as in torchvision's own files. Thresholds, numbers of boxes, means and deviations are arguments of its
    constructor: pass the detector's. Tensors are on the CPU.

    Raises InputError naming the first setting that torchvision cannot reproduce.
    """
    config = detector.config
    labels, columns = columns_to_export(detector.classes)
    _check(config, _structure(config))
    ours = {name: value.detach().cpu() for name, value in detector.state_dict().items()}
    match config:
        case FasterRCNNConfig() | MaskRCNNConfig():
            ours = _with_eps(ours, "backbone.", _eps(config.backbone), 1e-5)
            theirs = exported_faster_rcnn(ours, labels, columns)
        case RetinaNetConfig():
            ours = _with_eps(ours, "backbone.", _eps(config.backbone), 1e-5)
            theirs = exported_retinanet(ours, labels, columns)
        case SSDConfig(head=SSDHeadConfig(separable=True)):
            ours = _with_eps(ours, "backbone.", _eps(config.backbone), 1e-3)
            for part in ("extras.", "heads."):
                ours = _with_eps(ours, part, config.head.norm_eps, 1e-3)
            theirs = exported_ssdlite(ours, labels, columns)
        case _:
            theirs = exported_ssd(ours, labels, columns)
    # Frozen norms count no batches; torchvision's may.
    for name in [name for name in theirs if name.endswith("running_var")]:
        counter = name.replace("running_var", "num_batches_tracked")
        if "backbone" not in name or _live(config.backbone):
            theirs.setdefault(counter, torch.tensor(0))
    return theirs


def _live(backbone: Any) -> bool:
    return backbone.norm == "bn"


def _eps(backbone: Any) -> float:
    given: float | None = backbone.norm_eps
    if given is None:
        return 1e-3 if backbone.version == 3 else 1e-5
    return given


def _structure(config: Any) -> Any:
    """Return torchvision's configuration of a detector of this structure."""
    match config:
        case FasterRCNNConfig() | MaskRCNNConfig():
            return _two_stage(config)
        case RetinaNetConfig():
            return _retinanet(config)
        case SSDConfig(head=SSDHeadConfig(separable=True)):
            return _ssdlite(config)
        case SSDConfig():
            return ssd_config()
    raise InputError(f"torchvision has no {config.kind}; it has Faster and Mask R-CNN, RetinaNet and SSD")


def _two_stage(config: FasterRCNNConfig | MaskRCNNConfig) -> FasterRCNNConfig | MaskRCNNConfig:
    if isinstance(config, FasterRCNNConfig) and isinstance(config.backbone, MobileNetConfig):
        return faster_rcnn_mobilenet_config()
    usual = (faster_rcnn_config if isinstance(config, FasterRCNNConfig) else mask_rcnn_config)(
        2 if config.head.convs else 1
    )
    return replace(usual, backbone=_resnet_like(config.backbone, usual.backbone))


def _retinanet(config: RetinaNetConfig) -> RetinaNetConfig:
    usual = retinanet_config(1 if config.head.norm == "none" else 2)
    return replace(usual, backbone=_resnet_like(config.backbone, usual.backbone))


def _ssdlite(config: SSDConfig) -> SSDConfig:
    reduced = isinstance(config.backbone, MobileNetConfig) and config.backbone.reduced
    return ssdlite_config(reduced)


def _resnet_like(backbone: Any, usual: Any) -> Any:
    """Return ``usual`` with the depth of ``backbone``: torchvision has all depths."""
    return replace(usual, depth=backbone.depth) if isinstance(backbone, ResNetConfig) else usual


def _check(mine: Any, theirs: Any, place: str = "") -> None:
    """Raise InputError at the first setting that differs and affects the results."""
    if is_dataclass(mine) and type(mine) is type(theirs):
        for field in fields(mine):
            if field.name not in _FREE:
                _check(getattr(mine, field.name), getattr(theirs, field.name), f"{place}.{field.name}".lstrip("."))
        return
    same = {"bn", "frozen_bn"}
    if mine != theirs and not (place.endswith(".norm") and {mine, theirs} <= same):
        raise InputError(
            f"torchvision's model would compute something else: {place} = {_shown(mine)} here and {_shown(theirs)} "
            "there"
        )


def _shown(value: Any) -> str:
    return repr(getattr(value, "kind", value))


def _with_eps(ours: Mapping[str, Tensor], start: str, mine: float, theirs: float) -> dict[str, Tensor]:
    """Batch norms below ``start`` that add ``theirs`` to a variance and still scale as they do with ``mine``."""
    changed = dict(ours)
    if mine == theirs:
        return changed
    for name in ours:
        if name.startswith(start) and name.endswith(".running_var"):
            weight = name.replace("running_var", "weight")
            changed[weight] = ours[weight] * ((ours[name] + theirs) / (ours[name] + mine)).sqrt()
    return changed
