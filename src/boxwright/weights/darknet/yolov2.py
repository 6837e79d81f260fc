"""Darknet's YOLOv2 and Tiny YOLOv2, of both generations, in our layout.

Our modules are registered in the order of Darknet's files, so only the configuration has to be found in the cfg.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from boxwright.backbones.darknet import DarknetConfig
from boxwright.detectors.yolov2 import RegionLossConfig, YOLOv2, YOLOv2Config
from boxwright.structures import InputError
from boxwright.weights.darknet.files import DarknetNetwork, Section, check_classes, state_in_order

TRUNK = {True: 18, False: 7}
"""Convolutions of Darknet-19 without its classifier, and of the tiny trunk."""


def yolov2_config(sections: Sequence[Section]) -> YOLOv2Config:
    """The detector that the sections of a cfg describe: yolov2, yolov2-tiny, and the same for other data.

    The first generation (2016) stacks all 512 channels of the finer map, the second narrows them to 64 before.
    InputError where the cfg is neither.
    """
    place, region = sections[0].place, [section for section in sections if section.kind == "region"]
    if not region:
        raise InputError(f"{place}: has no [region] layer, so that it is no YOLOv2")
    options, kinds = region[0], [section.kind for section in sections]
    if not options.integer("softmax", 1) or options.integer("coords", 4) != 4:
        raise InputError(f"{options.place}: [region] must have softmax=1 and coords=4 to be YOLOv2's")
    numbers = options.numbers("anchors")
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
        convs=tuple(filters[TRUNK[passing] : end]),
        passthrough="C4" if passing else None,
        narrow=before.integer("filters", 1) if before is not None and before.kind == "convolutional" else None,
        merged=filters[-2] if len(filters) > 1 else 1,
        anchors=tuple((numbers[i], numbers[i + 1]) for i in range(0, len(numbers) - 1, 2)),
        loss=RegionLossConfig(
            coord_scale=options.number("coord_scale", 1),
            object_scale=options.number("object_scale", 5),
            noobject_scale=options.number("noobject_scale", 1),
            class_scale=options.number("class_scale", 1),
            quiet=options.number("thresh", 0.6),
            rescore=bool(options.integer("rescore", 1)),
            match="anchor" if options.integer("bias_match", 1) else "prediction",
            favour_small=True,  # what the code does that reads these files today
        ),
    )


def yolov2_state(detector: YOLOv2, network: DarknetNetwork) -> dict[str, Tensor]:
    """The state dict of ``detector`` from a network that was read with its weights. InputError where they differ."""
    for layer in network.of_kind("region"):
        check_classes(layer.section, len(detector.classes))
    state = state_in_order(detector, network, network.net.place)
    return state | {"seen": torch.tensor(network.seen, dtype=detector.seen.dtype)}
