"""Import Darknet's YOLOv2 and Tiny YOLOv2, of both generations.

Our modules are registered in the order of Darknet's files, so only the configuration is read from the cfg.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from boxwright.anchors.matching.cell_matcher import YOLOv2AssignConfig
from boxwright.backbones.darknet import DarknetConfig
from boxwright.detectors.yolov2 import RegionLossConfig, YOLOv2, YOLOv2Config, YOLOv2HeadConfig
from boxwright.structures import InputError
from boxwright.weights.darknet.files import DarknetNetwork, Section
from boxwright.weights.darknet.matching import anchors_of, check_classes, state_in_order

TRUNK = {True: 18, False: 7}
"""Number of convolutions of Darknet-19 without its classifier, and of the tiny backbone."""


def yolov2_config(sections: Sequence[Section]) -> YOLOv2Config:
    """Return the detector that a cfg describes: yolov2, yolov2-tiny, and the same networks for other data.

    The first generation (2016) stacks all 512 channels of the finer map, the second reduces them to 64 first. Raises
    InputError where the cfg is neither.
    """
    place, region = sections[0].place, [section for section in sections if section.kind == "region"]
    if not region:
        raise InputError(f"{place}: has no [region] layer, so that it is no YOLOv2")
    options, kinds = region[0], [section.kind for section in sections]
    if not options.integer("softmax", 0) or options.integer("coords", 4) != 4:
        raise InputError(f"{options.place}: [region] must have softmax=1 and coords=4 to be YOLOv2's")
    if "tree" in options.options or "map" in options.options:
        raise InputError(f"{options.place}: [region] has a tree of classes, as YOLO9000, which no detector here has")
    passing = "reorg" in kinds
    last = kinds.index("route") if passing and "route" in kinds else len(kinds)
    filters = [section.integer("filters", 1) for section in sections if section.kind == "convolutional"]
    straight = sum(kind == "convolutional" for kind in kinds[:last])
    end = straight if passing else len(filters) - 2
    before = sections[kinds.index("reorg") - 1] if passing else None
    return YOLOv2Config(
        backbone=DarknetConfig(variant="darknet19", out_levels=(4, 5))
        if passing
        else DarknetConfig(variant="tiny_v2", out_levels=(5,)),
        head=YOLOv2HeadConfig(
            convs=tuple(filters[TRUNK[passing] : end]),
            passthrough="C4" if passing else None,
            narrow=before.integer("filters", 1) if before is not None and before.kind == "convolutional" else None,
            merged=filters[-2] if len(filters) > 1 else 1,
        ),
        anchors=anchors_of(options),
        assign=YOLOv2AssignConfig(
            quiet=options.number("thresh", 0.5),
            match="anchor" if options.integer("bias_match", 0) else "prediction",
        ),
        loss=RegionLossConfig(
            coord_scale=options.number("coord_scale", 1),
            object_scale=options.number("object_scale", 1),
            noobject_scale=options.number("noobject_scale", 1),
            class_scale=options.number("class_scale", 1),
            rescore=bool(options.integer("rescore", 0)),
            favour_small=True,  # as the current code does that reads these files
        ),
    )


def yolov2_state(detector: YOLOv2, network: DarknetNetwork) -> dict[str, Tensor]:
    """Return the state dict of ``detector`` from ``network``. Raises InputError where their layers differ."""
    for layer in network.of_kind("region"):
        check_classes(layer.section, len(detector.classes))
    state = state_in_order(detector, network, network.net.place)
    return state | {"seen": torch.tensor(network.seen, dtype=detector.seen.dtype)}
