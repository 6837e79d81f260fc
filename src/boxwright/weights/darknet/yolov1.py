"""Import Darknet's YOLOv1 networks: those of 2015 without batch norm, and those of 2016 with it.

They differ in structure (fully connected or locally connected layers, two or three boxes per cell), so the
configuration is read from the cfg. A network that is none of the published ones is built layer by layer. Our modules
are registered in the order of Darknet's files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast, get_args

from torch import Tensor

from boxwright.backbones.darknet import VARIANTS, Conv, DarknetConfig, Variant
from boxwright.backbones.darknet_layers import Activation, DarknetLayerConfig, DarknetLayersConfig
from boxwright.detectors.yolov1 import DetectionLossConfig, YOLOv1, YOLOv1Config, YOLOv1HeadConfig
from boxwright.structures import InputError
from boxwright.weights.darknet.files import DarknetNetwork, Section
from boxwright.weights.darknet.matching import check_classes, state_in_order


def yolov1_config(sections: Sequence[Section]) -> YOLOv1Config:
    """Return the detector that a cfg describes.

    Its layers may be convolutional, local, connected, max pools and dropouts, in any order up to the connected layer
    before the detection. Raises InputError where it is not YOLOv1, or has others.
    """
    net, detection = sections[0], [section for section in sections if section.kind == "detection"]
    if not detection:
        raise InputError(f"{net.place}: has no [detection] layer, so that it is no YOLOv1")
    options = detection[0]
    if options.integer("coords", 1) != 4:
        raise InputError(f"{options.place}: [detection] must have coords=4 to be YOLOv1's")
    grid, height, width = options.integer("side", 7), net.integer("height"), net.integer("width")
    if height != width or height % grid:
        raise InputError(f"{net.place}: the input of {height} x {width} is no square of {grid} x {grid} cells")
    layers = _layers_before_the_last(sections)
    backbone, head = _named_trunk(layers) or (
        DarknetLayersConfig(size=(height, width), layers=layers),
        YOLOv1HeadConfig(hidden=(), dropout=0.0),
    )
    if not options.integer("sqrt", 0):
        head = replace(head, sides="shares")
    return YOLOv1Config(
        backbone=backbone,
        head=head,
        grid=grid,
        cell=height // grid,
        boxes=options.integer("num", 1),
        clip_scores=False,
        loss=DetectionLossConfig(
            coord_scale=options.number("coord_scale", 1),
            object_scale=options.number("object_scale", 1),
            noobject_scale=options.number("noobject_scale", 1),
            class_scale=options.number("class_scale", 1),
            rescore=bool(options.integer("rescore", 0)),
            kind="softmax" if options.integer("softmax", 0) else "squared",
        ),
    )


def _layers_before_the_last(sections: Sequence[Section]) -> tuple[DarknetLayerConfig, ...]:
    """Return the layers before the connected layer that the detection reads, which must be the last of its kind."""
    kinds = [section.kind for section in sections]
    end = kinds.index("detection")
    last = end - 1
    while last > 0 and kinds[last] == "dropout":
        last -= 1
    if kinds[last] != "connected" or sections[last].options.get("activation", "logistic") != "linear":
        raise InputError(
            f"{sections[end].place}: [detection] must follow a [connected] layer with activation=linear to be YOLOv1's"
        )
    if end + 1 < len(sections):
        raise InputError(
            f"{sections[end + 1].place}: [{kinds[end + 1][:60]}] follows the [detection], the last of YOLOv1"
        )
    net = sections[0]
    size = net.integer("height"), net.integer("width")
    return tuple(layer_config(s) for s in sections[1:last] if not _does_nothing(s, size))


def _does_nothing(section: Section, size: tuple[int, int]) -> bool:
    """Return True for a crop of the whole input, as cfgs of 2015 have it for the colours of training."""
    crop = section.integer("crop_height", 1), section.integer("crop_width", 1)
    return section.kind == "crop" and section.index == 0 and crop == size and section.integer("noadjust", 0) == 1


def layer_config(section: Section) -> DarknetLayerConfig:
    """Return the layer that ``section`` describes. Raises InputError for a kind or an activation that is not read."""
    kind = section.kind
    if kind == "dropout":
        return DarknetLayerConfig(kind=kind, probability=section.number("probability", 0.5))
    if kind == "maxpool":
        stride = section.count("stride", 1)
        side = section.count("size", stride)
        return DarknetLayerConfig(kind=kind, size=side, stride=stride, padding=section.integer("padding", side - 1))
    if kind not in ("convolutional", "local", "connected"):
        raise InputError(
            f"{section.place}: [{kind[:60]}] is none of the layers of YOLOv1 that are read: convolutional, local, "
            "connected, maxpool and dropout"
        )
    activation = section.options.get("activation", "logistic")
    if activation not in get_args(Activation):
        raise InputError(
            f"{section.place}: [{kind}] has activation={activation[:60]}; those that are read are "
            f"{', '.join(get_args(Activation))}"
        )
    if any(section.integer(name, 0) for name in ("binary", "xnor")):
        raise InputError(f"{section.place}: [{kind}] has binary weights, which are not read")
    norm, act = bool(section.integer("batch_normalize", 0)), cast(Activation, activation)
    if kind == "connected":
        return DarknetLayerConfig(kind=kind, channels=section.count("output", 1), norm=norm, activation=act)
    channels, size, stride = section.count("filters", 1), section.count("size", 1), section.count("stride", 1)
    pad = section.integer("pad", 0)
    if kind == "local":  # its padding is 1 whatever the size
        return DarknetLayerConfig(
            kind=kind, channels=channels, size=size, stride=stride, padding=int(bool(pad)), activation=act
        )
    return DarknetLayerConfig(
        kind=kind, channels=channels, size=size, stride=stride, norm=norm, activation=act,
        groups=section.count("groups", 1), padding=size // 2 if pad else section.integer("padding", 0),
    )  # fmt: skip


def _named_trunk(layers: Sequence[DarknetLayerConfig]) -> tuple[DarknetConfig, YOLOv1HeadConfig] | None:
    """Return the backbone and head of one of the published networks; None for all others."""
    length = next((n for n, layer in enumerate(layers) if layer.kind not in ("convolutional", "maxpool")), len(layers))
    rest = [layer for layer in layers[length:] if layer.kind != "dropout"]
    local, hidden = (rest[:1], rest[1:]) if rest and rest[0].kind == "local" else ([], rest)
    plain = DarknetLayerConfig(kind="local", size=3, padding=1, activation="leaky")
    if any(replace(layer, channels=1) != plain for layer in local):
        return None
    norms = {layer.norm for layer in hidden}
    if len(norms) > 1 or any((layer.kind, layer.activation) != ("connected", "leaky") for layer in hidden):
        return None
    for name in VARIANTS:
        for norm in (True, False):
            if tuple(layers[:length]) == _trunk(name, norm):
                backbone = DarknetConfig(
                    variant=cast(Variant, name), norm="bn" if norm else "none", out_levels=(len(VARIANTS[name]) - 1,)
                )
                dropout = next((layer.probability for layer in layers if layer.kind == "dropout"), 0.0)
                return backbone, YOLOv1HeadConfig(
                    local=local[0].channels if local else None,
                    hidden=tuple(layer.channels for layer in hidden),
                    hidden_norm=norms == {True},
                    dropout=dropout,
                )
    return None


def _trunk(name: str, norm: bool) -> tuple[DarknetLayerConfig, ...]:
    """Return the layers of a published network; those with others than convolutions and pools have none."""
    table = [layer for stage in VARIANTS[name] for layer in stage]
    if not all(isinstance(layer, Conv) or layer == "pool" for layer in table):
        return ()
    return tuple(
        DarknetLayerConfig(
            kind="convolutional", channels=layer.channels, size=layer.kernel, stride=layer.stride,
            padding=layer.kernel // 2, norm=norm, activation="leaky",
        ) if isinstance(layer, Conv) else DarknetLayerConfig(kind="maxpool", size=2, stride=2, padding=1)
        for layer in table
    )  # fmt: skip


def yolov1_state(detector: YOLOv1, network: DarknetNetwork) -> dict[str, Tensor]:
    """Return the state dict of ``detector`` from ``network``. Raises InputError where their layers differ."""
    for layer in network.of_kind("detection"):
        check_classes(layer.section, len(detector.classes))
    return state_in_order(detector, network, network.net.place)
