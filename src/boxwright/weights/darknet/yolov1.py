"""Import Darknet's YOLOv1 networks: those of 2015 without batch norm, and those of 2016 with it.

They differ in structure (fully connected or locally connected layers, two or three boxes per cell), so the
configuration is read from the cfg. Our modules are registered in the order of Darknet's files.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor

from boxwright.backbones.darknet import VARIANTS, Conv, DarknetConfig, Variant
from boxwright.detectors.yolov1 import DetectionLossConfig, YOLOv1, YOLOv1Config, YOLOv1HeadConfig
from boxwright.structures import InputError
from boxwright.weights.darknet.files import DarknetNetwork, Section, check_classes, state_in_order


def yolov1_config(sections: Sequence[Section]) -> YOLOv1Config:
    """Return the detector that a cfg describes. Raises InputError where it is not YOLOv1 or has an unknown backbone."""
    net, detection = sections[0], [section for section in sections if section.kind == "detection"]
    if not detection:
        raise InputError(f"{net.place}: has no [detection] layer, so that it is no YOLOv1")
    options = detection[0]
    if options.integer("softmax", 0) or not options.integer("sqrt", 0) or options.integer("coords", 4) != 4:
        raise InputError(f"{options.place}: [detection] must have softmax=0, sqrt=1 and coords=4 to be YOLOv1's")
    grid, height, width = options.integer("side", 7), net.integer("height"), net.integer("width")
    if height != width or height % grid:
        raise InputError(f"{net.place}: the input of {height} x {width} is no square of {grid} x {grid} cells")
    convs = [section for section in sections if section.kind == "convolutional"]
    connected = [section for section in sections if section.kind == "connected"]
    local = [section for section in sections if section.kind == "local"]
    if any((s.integer("size", 1), s.integer("stride", 1), s.integer("pad", 0)) != (3, 1, 1) for s in local[:1]):
        raise InputError(f"{local[0].place}: [local] must have size=3, stride=1 and pad=1 to be YOLOv1's")
    variant = _variant(convs, net.place)
    return YOLOv1Config(
        backbone=DarknetConfig(
            variant=variant,
            norm="bn" if convs[0].integer("batch_normalize", 0) else "none",
            out_levels=(len(VARIANTS[variant]) - 1,),
        ),
        head=YOLOv1HeadConfig(
            local=local[0].integer("filters", 1) if local else None,
            hidden=tuple(section.integer("output", 1) for section in connected[:-1]),
            hidden_norm=any(section.integer("batch_normalize", 0) for section in connected[:-1]),
            dropout=next((s.number("probability", 0.5) for s in sections if s.kind == "dropout"), 0.0),
        ),
        grid=grid,
        cell=height // grid,
        boxes=options.integer("num", 1),
        clip_scores=False,
        loss=DetectionLossConfig(
            coord_scale=options.number("coord_scale", 5),
            object_scale=options.number("object_scale", 1),
            noobject_scale=options.number("noobject_scale", 0.5),
            class_scale=options.number("class_scale", 1),
            rescore=bool(options.integer("rescore", 1)),
        ),
    )


def _variant(convs: Sequence[Section], place: str) -> Variant:
    """Return the backbone with the convolutions of the cfg."""
    wanted = [(s.integer("filters", 1), s.integer("size", 1), s.integer("stride", 1)) for s in convs]
    for name, stages in VARIANTS.items():
        layers = [layer for stage in stages for layer in stage]
        if [(c.channels, c.kernel, c.stride) for c in layers if isinstance(c, Conv)] == wanted:
            return cast(Variant, name)
    raise InputError(f"{place}: its {len(convs)} convolutions are of no trunk of YOLOv1; those known are yolov1 (24), "
                     "yolov1_fast (9) and yolov1_tiny (8)")  # fmt: skip


def yolov1_state(detector: YOLOv1, network: DarknetNetwork) -> dict[str, Tensor]:
    """Return the state dict of ``detector`` from ``network``. Raises InputError where their layers differ."""
    for layer in network.of_kind("detection"):
        check_classes(layer.section, len(detector.classes))
    return state_in_order(detector, network, network.net.place)
