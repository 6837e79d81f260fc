"""Import and export detectron2's detectors: Faster R-CNN on ResNet C4, dilated C5 and FPN; Mask R-CNN and RetinaNet on
FPN.

Published files are pickles of numpy arrays, ``{"model": ..., "__author__": ...}``, and its own checkpoints torch files
with the same ``model``; :func:`boxwright.weights.common.foreign_files.read_foreign` reads both.

Settings that a state dict does not tell are taken from detectron2's model zoo: anchors (unless the file has them) and
thresholds. Weights whose pixels are not divided by a standard deviation are MSRA's, with the stride in the first 1x1
convolution.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from boxwright.anchors.generator import AnchorConfig, AnchorGenerator
from boxwright.data.transforms.resizing import ResizeConfig
from boxwright.detectors.build import DetectorConfig
from boxwright.detectors.contract.detector import Detector
from boxwright.detectors.contract.pixels import IMAGENET_255_BGR, PixelConfig
from boxwright.detectors.faster_rcnn import FasterRCNNConfig
from boxwright.detectors.faster_rcnn_c4 import FasterRCNNC4Config
from boxwright.detectors.mask_rcnn import MaskRCNNConfig
from boxwright.detectors.retinanet import RetinaNetConfig
from boxwright.heads.regions.region_heads import StageHeadConfig
from boxwright.structures import Classes, InputError, Level
from boxwright.weights.common.foreign_files import tensors_in
from boxwright.weights.common.imported import Imported
from boxwright.weights.common.state_checks import (
    Depth,
    chosen_classes,
    refuse_keys,
    refuse_model,
    resnet_depth,
    rows_of,
)
from boxwright.weights.detectron.configs import (
    faster_rcnn_c4_config,
    faster_rcnn_config,
    faster_rcnn_dc5_config,
    mask_rcnn_config,
    retinanet_config,
)
from boxwright.weights.detectron.layout import Kind, to_ours, to_theirs

_OTHER_MODELS: tuple[tuple[str, str], ...] = (
    (r"roi_heads\.box_(head|predictor)\.\d\.", "Cascade R-CNN"),
    (r"roi_heads\.keypoint_head\.", "Keypoint R-CNN"),
    (r"sem_seg_head\.", "Panoptic FPN"),
    (r"roi_heads\.mask_(point|coarse)_head\.|roi_heads\.mask_head\.(point|coarse)_head\.", "PointRend"),
    (r"proposal_generator\.rpn_head\.(anchor_deltas|objectness_logits)\.\d\.", "a model with other heads"),
)
_READ = "Faster R-CNN on C4, DC5 or FPN, or RetinaNet or Mask R-CNN on FPN"


def recognise_detectron2(tensors: Mapping[str, Tensor]) -> bool:
    """Return True if the tensors of a file are of a detector of detectron2, supported or not."""
    return any(re.match(r"backbone\.(bottom_up\.)?(res\d\.\d+\.|stem\.conv1\.)", name) for name in tensors)


def import_detectron2(
    content: Mapping[str, Any], classes: Classes | None = None, stride_in_1x1: bool | None = None
) -> Imported:
    """Import the detector in ``content``, the result of :func:`read_foreign`: the whole file, or its ``model`` alone.

    Model, depth, number of classes and class-agnostic boxes are detected from the tensors. ``classes``: names in the
    checkpoint's order; None for COCO's for 80, VOC's for 20, else ``class_0``, ... ``stride_in_1x1``: position of the
    strides in the ResNet; None follows the pixels of the file (MSRA's: in the 1x1).

    Raises InputError for other files, for unsupported models (Cascade, Keypoint and Panoptic R-CNN, Mask R-CNN on C4,
    ResNeXt), for another number of classes, and for missing tensors.
    """
    every = tensors_in(content)
    if not recognise_detectron2(every):
        first = next(iter(every), "there are no tensors at all")
        raise InputError(
            "no detector of detectron2's: none of its tensors is called backbone.bottom_up.res2.0.conv1.weight or the "
            f"like, but {first}; give a file of its model zoo: {_READ}"
        )
    state = _without_constants(every)
    kind = _kind_of(state)
    source = f"detectron2 {_title(state, kind)}"
    root = "backbone." if kind in ("c4", "dc5") else "backbone.bottom_up."
    depth = resnet_depth(state, re.escape(root) + r"res4\.(\d+)\.", source)
    ours, unknown = to_ours(state, kind)
    refuse_keys(unknown, source)
    config = _config(state, kind, depth, source)
    config = _with_pixels(config, every, stride_in_1x1)
    config = _with_anchors(config, every, kind)
    if isinstance(config, RetinaNetConfig):
        boxes, scores = (rows_of(state, f"head.{part}.weight", source) for part in ("bbox_pred", "cls_score"))
        count = scores * 4 // max(boxes, 1)
        ours["average_positives"] = torch.tensor(100.0)  # not in its checkpoints; the initial value of its training
    else:
        count = rows_of(state, "roi_heads.box_predictor.cls_score.weight", source) - 1
    return Imported(
        source=f"{source} R{depth}",
        config=config,
        classes=chosen_classes(count, classes, source),
        state=ours,
        transforms=(ResizeConfig(short=(800,), long=1333, interpolation="pillow"),),
        pad_multiple=1 if kind in ("c4", "dc5") else 32,
    )


def export_detectron2(detector: Detector) -> dict[str, Tensor]:
    """Return the tensors of ``detector`` under detectron2's names, not copied, to be saved as ``{"model": ...}``.

    Supported are the architectures that :func:`import_detectron2` reads. ``pixel_mean`` and ``pixel_std`` are included
    where they are not MSRA's. The configuration there must state what tensors do not tell (depth, strides, anchors,
    thresholds). Raises InputError where detectron2 has no name for a layer, or cannot reproduce a setting of the
    detector.
    """
    config = detector.config
    kind = _kind_of_config(config)
    _check_exportable(config)
    state = {
        name: value.detach()
        for name, value in detector.state_dict().items()
        if not name.endswith("num_batches_tracked") and name != "average_positives"
    }
    theirs, unknown = to_theirs(state, kind)
    if unknown:
        raise InputError(
            f"detectron2 has no name for {len(unknown)} of the {len(state)} tensors of this {config.kind}, the first "
            f"{unknown[0]}; it can take {_READ}, on a ResNet, with its own heads"
        )
    pixels: PixelConfig = config.pixels
    if pixels != IMAGENET_255_BGR:
        order = [2, 1, 0] if pixels.bgr else [0, 1, 2]
        for name, values in (("pixel_mean", pixels.mean), ("pixel_std", pixels.std)):
            theirs[name] = torch.tensor([values[i] for i in order]).reshape(3, 1, 1)
    return theirs


def _without_constants(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    unused = re.compile(r"pixel_(mean|std)|.*anchor_generator\..*|.*\.num_batches_tracked")
    return {name: value for name, value in state.items() if not unused.fullmatch(name)}


def _kind_of(state: Mapping[str, Tensor]) -> Kind:
    """Return the model of a state dict. Raises InputError for models that only detectron2 has."""
    for pattern, title in _OTHER_MODELS:
        if found := next((name for name in state if re.match(pattern, name)), None):
            refuse_model("detectron2's", f"{title} ({found})", _READ)
    if any(name.startswith("head.") for name in state):
        return "retinanet"
    if any(name.startswith("roi_heads.res5.") for name in state):
        if any(name.startswith("roi_heads.mask_head.") for name in state):
            refuse_model("detectron2's", "Mask R-CNN on C4", "Mask R-CNN on FPN")
        return "c4"
    if any(name.startswith("backbone.fpn_") for name in state):
        return "fpn"
    if any(name.startswith("roi_heads.") for name in state):
        return "dc5"
    raise InputError(
        f"a checkpoint of detectron2's with a backbone but no detector's head among its {len(state)} tensors; is the "
        f"file whole? The importer reads {_READ}"
    )


def _title(state: Mapping[str, Tensor], kind: Kind) -> str:
    if kind == "fpn":
        masks = any(name.startswith("roi_heads.mask_head.") for name in state)
        return f"{'mask' if masks else 'faster'}_rcnn FPN"
    return {"c4": "faster_rcnn C4", "dc5": "faster_rcnn DC5", "retinanet": "retinanet FPN"}[kind]


def _config(state: Mapping[str, Tensor], kind: Kind, depth: Depth, source: str) -> DetectorConfig:
    if kind == "retinanet":
        return retinanet_config(depth)
    agnostic = rows_of(state, "roi_heads.box_predictor.bbox_pred.weight", source) == 4
    agnostic = agnostic and rows_of(state, "roi_heads.box_predictor.cls_score.weight", source) > 2
    if kind == "c4":
        config = faster_rcnn_c4_config(depth)
        return replace(config, head=replace(config.head, class_agnostic=agnostic))
    if kind == "dc5":
        config = faster_rcnn_dc5_config(depth)
        return replace(config, head=replace(config.head, class_agnostic=agnostic))
    convs = [name for name in state if re.fullmatch(r"roi_heads\.mask_head\.mask_fcn\d\.weight", name)]
    if "mask" in source:
        masks = mask_rcnn_config(depth)
        head = replace(masks.mask, convs=max(len(convs), 1))
        return replace(masks, head=replace(masks.head, class_agnostic=agnostic), mask=head)
    boxes = faster_rcnn_config(depth)
    return replace(boxes, head=replace(boxes.head, class_agnostic=agnostic))


def _with_pixels(config: Any, state: Mapping[str, Tensor], stride_in_1x1: bool | None) -> Any:
    """Set the pixels stated in the file, if any. The order of the mean tells the channels: blue has the lowest."""
    pixels = IMAGENET_255_BGR
    if "pixel_mean" in state and "pixel_std" in state:
        mean, std = (tuple(state[name].flatten().tolist()) for name in ("pixel_mean", "pixel_std"))
        bgr = mean[0] < mean[-1]
        mean, std = (tuple(round(v, 4) for v in (reversed(values) if bgr else values)) for values in (mean, std))
        pixels = PixelConfig(mean=mean, std=std, bgr=bgr)
    if stride_in_1x1 is None:
        stride_in_1x1 = pixels.std == (1.0, 1.0, 1.0)
    return replace(config, pixels=pixels, backbone=replace(config.backbone, stride_in_1x1=stride_in_1x1))


def _with_anchors(config: Any, state: Mapping[str, Tensor], kind: Kind) -> Any:
    """Set the anchors of the first cells, stored in files of before 2020, where they are not those of the model zoo."""
    pattern = r"(?:proposal_generator\.)?anchor_generator\.cell_anchors\.(\d+)"
    cells = {int(found[1]): value for name, value in state.items() if (found := re.fullmatch(pattern, name))}
    if not cells:
        return config
    usual = config.anchors if kind == "retinanet" else config.rpn.anchors
    levels = [Level(f"P{i}", 1, 1) for i in range(len(usual.sizes))]
    boxes = [cells[i].double() for i in sorted(cells)]
    expected = [torch.tensor(cell, dtype=torch.float64) for cell in AnchorGenerator(usual, levels).cells]
    same = len(boxes) == len(expected)
    if same and all(a.shape == b.shape and (a - b).abs().max() < 0.01 for a, b in zip(boxes, expected, strict=True)):
        return config
    if any((cell[:, :2] + cell[:, 2:]).abs().max() > 0.01 for cell in boxes):
        refuse_model("detectron2's", "detector with anchors that are not centred on their cells", "one with offset 0")
    shapes = tuple(tuple((float(w), float(h)) for w, h in (cell[:, 2:] - cell[:, :2]).tolist()) for cell in boxes)
    anchors = AnchorConfig(shapes=shapes)
    return (
        replace(config, anchors=anchors)
        if kind == "retinanet"
        else replace(config, rpn=replace(config.rpn, anchors=anchors))
    )


def _kind_of_config(config: Any) -> Kind:
    match config:
        case FasterRCNNConfig() | MaskRCNNConfig():
            return "fpn"
        case FasterRCNNC4Config(head=StageHeadConfig()):
            return "c4"
        case FasterRCNNC4Config():
            return "dc5"
        case RetinaNetConfig():
            return "retinanet"
        case _:
            raise InputError(f"detectron2 has no {config.kind}; it can take {_READ}")


_FIXED: dict[str, Any] = {
    "backbone.kind": "resnet",
    "backbone.width": 64,
    "backbone.blocks": None,
    "neck.output_convs": "all",
    "neck.upsample": "nearest",
    "neck.passed_down": "merged",
    "neck.extra_relu": True,
    "rpn.objectness": "sigmoid",
    "rpn.coder.offset": 0.0,
    "rpn.nms.scope": "level",
    "rpn.anchors.rounding": "none",
    "rpn.anchors.centre": "corner",
    "anchors.rounding": "none",
    "anchors.centre": "corner",
    "anchors.order": "size",
    "head.coder.offset": 0.0,
    "head.ranks": (),
    "head.stride": None,
    "coder.offset": 0.0,
    "pooled_levels": 4,
}
"""Settings that affect the results and that detectron2 has in one form only."""


def _check_exportable(config: Any) -> None:
    for path, wanted in _FIXED.items():
        value = config
        for part in path.split("."):
            value = getattr(value, part, _ABSENT)
        if value is not _ABSENT and value != wanted:
            raise InputError(f"detectron2 computes {path} = {wanted!r} only, but this {config.kind} has {value!r}")


_ABSENT = object()
