"""Which numbers of a detector belong to which class: what lets weights move between lists of classes by name."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from boxwright.detectors.contract.detector import Detector
from boxwright.detectors.fast_rcnn import FastRCNN
from boxwright.detectors.faster_rcnn import FasterRCNN
from boxwright.detectors.faster_rcnn_c4 import FasterRCNNC4
from boxwright.detectors.mask_rcnn import MaskRCNN
from boxwright.detectors.rcnn import RCNN
from boxwright.detectors.refinedet import RefineDet
from boxwright.detectors.retinanet import RetinaNet
from boxwright.detectors.rfcn import RFCN
from boxwright.detectors.ssd import SSD, MapHead
from boxwright.detectors.yolov1 import YOLOv1
from boxwright.detectors.yolov2 import YOLOv2
from boxwright.detectors.yolov3 import YOLOv3

SHARED = -1
"""In place of a class: the row serves all of them."""


def class_rows(detector: Detector) -> dict[str, Tensor]:
    """For each tensor of the state dict whose first axis counts classes: the class of each row, int64 ``[rows]``.

    0..K-1 are the labels, K is background, :data:`SHARED` (-1) is none. Tensors that do not depend on the classes are
    not listed; of a detector that is not of this library none are.
    """
    count = len(detector.classes)
    foreground = torch.arange(count)
    rows: dict[str, Tensor] = {}
    match detector:
        case FastRCNN() | FasterRCNN() | FasterRCNNC4() | MaskRCNN() | RFCN():
            head = detector.get_submodule("head")
            rows["head.scores"] = _repeated(torch.arange(count + 1), _length(head, "scores"))
            if not detector.config.head.class_agnostic:
                rows["head.deltas"] = _repeated(foreground, _length(head, "deltas"))
            if isinstance(detector, MaskRCNN) and not detector.config.mask.class_agnostic:
                rows["mask_head.predict"] = foreground
        case RetinaNet():
            rows["head.scores"] = foreground.repeat(_length(detector.head, "scores") // count)
        case SSD():
            columns = torch.arange(detector.columns)
            for i, head in enumerate(detector.heads):
                assert isinstance(head, MapHead)
                if head.separable:
                    rows[f"heads.{i}.scores.1"] = columns.repeat(_length(head, "scores.1") // len(columns))
                else:
                    rows[f"heads.{i}.predict"] = _tiled(4, columns, _length(head, "predict"))
        case RefineDet():
            for i, conv in enumerate(detector.odm.convs):
                rows[f"odm.convs.{i}"] = _tiled(4, torch.arange(count + 1), _length(conv, ""))
        case YOLOv3():
            for i, scale in enumerate(detector.scales.scales):
                rows[f"scales.scales.{i}.predict"] = _tiled(5, foreground, _length(scale, "predict"))
        case YOLOv2():
            rows["output"] = _tiled(5, foreground, _length(detector, "output"))
        case YOLOv1():
            numbers = detector.predictions(torch.arange(detector.output.out_features).unsqueeze(0)).classes[0]
            rows["output"] = torch.full((detector.output.out_features,), SHARED)
            rows["output"][numbers.flatten()] = foreground.repeat(len(numbers))
        case RCNN():
            rows["scores"] = torch.arange(count + 1)
        case _:
            pass
    named = {f"{layer}.{part}": index for layer, index in rows.items() for part in ("weight", "bias")}
    return named | _fitted(detector)


def _fitted(detector: Detector) -> dict[str, Tensor]:
    """The same of what is measured or fitted, class by class, rather than learnt."""
    foreground = torch.arange(len(detector.classes))
    match detector:
        case RCNN():
            return dict.fromkeys(("svm_weight", "svm_bias", "box_weight", "box_bias"), foreground)
        case FastRCNN() if "head.statistics.mean" in detector.state_dict():
            rows = len(detector.get_buffer("head.statistics.mean"))
            index = foreground if rows == len(foreground) else torch.full((rows,), SHARED)
            return dict.fromkeys(("head.statistics.mean", "head.statistics.std"), index)
        case _:
            return {}


def _length(module: nn.Module, name: str) -> int:
    """Outputs of the layer ``name``."""
    weight = module.get_submodule(name).weight
    assert isinstance(weight, Tensor)
    return weight.shape[0]


def _repeated(classes: Tensor, length: int) -> Tensor:
    """All rows of a class one after the other."""
    return classes.repeat_interleave(length // len(classes))


def _tiled(shared: int, classes: Tensor, length: int) -> Tensor:
    """For each anchor ``shared`` rows, then one for each class."""
    one = torch.cat([torch.full((shared,), SHARED), classes])
    return one.repeat(length // len(one))
