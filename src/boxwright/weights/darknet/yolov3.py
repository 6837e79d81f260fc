"""Import Darknet's YOLOv3, YOLOv3-spp and YOLOv3-tiny.

Our modules are registered in the order of Darknet's files, so only the configuration is read from the cfg. Darknet
numbers scales from coarse to fine, we from fine to coarse.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from boxwright.backbones.darknet import DarknetConfig
from boxwright.detectors.yolov3 import YOLOv3, YOLOv3AssignConfig, YOLOv3Config
from boxwright.heads.yolo_scales import YOLOScalesConfig
from boxwright.structures import InputError
from boxwright.weights.darknet.files import DarknetNetwork, Section
from boxwright.weights.darknet.matching import anchors_of, check_classes, state_in_order


def yolov3_config(sections: Sequence[Section]) -> YOLOv3Config:
    """Return the detector that a cfg describes: yolov3, yolov3-spp, yolov3-tiny, also with other anchors, masks or
    classes.

    Since August 2018 the file yolov3-tiny.cfg has the masks 0,1,2 for its finer scale, but the published weights were
    trained with 1,2,3. Edit that line for them (or ``masks`` here), or their AP50 on COCO falls from .332 to .178.
    Raises InputError where the cfg is none of these.
    """
    layers = [section for section in sections if section.kind == "yolo"]
    place = sections[0].place
    if not layers:
        raise InputError(f"{place}: has no [yolo] layer, so that it is no YOLOv3")
    anchors = anchors_of(layers[0])
    masks = tuple(_mask(layer, len(anchors)) for layer in reversed(layers))
    kinds = [section.kind for section in sections]
    pools = {section.integer("size", 2) for section in sections if section.kind == "maxpool"}
    assign = YOLOv3AssignConfig(ignore_iou=layers[0].number("ignore_thresh", 0.5))
    if "shortcut" in kinds and len(layers) == 3:
        return YOLOv3Config(
            scales=YOLOScalesConfig(spp={5, 9, 13} <= pools), anchors=anchors, masks=masks, assign=assign
        )
    if "shortcut" not in kinds and len(layers) == 2:
        return YOLOv3Config(
            backbone=DarknetConfig(variant="tiny_v3", out_levels=(4, 5)),
            scales=YOLOScalesConfig(channels=(128, 256), style="tiny"),
            anchors=anchors,
            masks=masks,
            assign=assign,
        )
    raise InputError(
        f"{place}: {len(layers)} [yolo] layers {'with' if 'shortcut' in kinds else 'without'} shortcuts are neither "
        "yolov3 or yolov3-spp (3, with) nor yolov3-tiny (2, without)"
    )


def _mask(layer: Section, anchors: int) -> tuple[int, ...]:
    """Return which anchors a layer has, all where it does not say. Raises InputError for one that there is not."""
    mask = layer.numbers("mask") or range(anchors)
    if unknown := [n for n in mask if n not in range(anchors)]:
        raise InputError(
            f"{layer.place}: [yolo] has {unknown[0]:g} in its mask; the {anchors} anchors count from 0 to {anchors - 1}"
        )
    return tuple(int(n) for n in mask)


def yolov3_state(detector: YOLOv3, network: DarknetNetwork) -> dict[str, Tensor]:
    """Return the state dict of ``detector`` from ``network``. Raises InputError where their layers differ."""
    for layer in network.of_kind("yolo"):
        check_classes(layer.section, len(detector.classes))
    return state_in_order(detector, network, network.net.place)
