"""Import a YOLO detector or a pretrained backbone from Darknet's cfg and weights files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch

from boxwright.backbones.build import build_backbone
from boxwright.backbones.darknet import VARIANTS, Conv, DarknetConfig, Layer, Residual, Variant
from boxwright.data.transforms.configs import TransformConfig
from boxwright.data.transforms.resizing import LetterboxConfig, WarpConfig
from boxwright.detectors.build import DetectorConfig, build_detector
from boxwright.detectors.contract.detector import Detector
from boxwright.detectors.contract.pixels import DARKNET
from boxwright.detectors.yolov1 import YOLOv1
from boxwright.detectors.yolov2 import YOLOv2
from boxwright.detectors.yolov3 import YOLOv3
from boxwright.structures import Classes, InputError
from boxwright.weights.common.class_names import default_classes
from boxwright.weights.common.imported import Imported, build_imported
from boxwright.weights.common.imported_backbone import ImportedBackbone
from boxwright.weights.darknet.files import (
    DarknetLayer,
    Section,
    count_floats,
    plan_layers,
    read_cfg,
    read_darknet,
    read_sections,
)
from boxwright.weights.darknet.matching import check_convolutions, classes_of, state_in_order
from boxwright.weights.darknet.yolov1 import yolov1_config, yolov1_state
from boxwright.weights.darknet.yolov2 import yolov2_config, yolov2_state
from boxwright.weights.darknet.yolov3 import yolov3_config, yolov3_state

_DETECTING = {"detection": "YOLOv1", "region": "YOLOv2", "yolo": "YOLOv3"}


def import_darknet(cfg: Path | str, weights: Path | str, classes: Classes | None = None) -> Imported:
    """Import a YOLOv1, v2 or v3, tiny and SPP variants included.

    ``classes``: names in the order of the training; None for names of VOC or COCO by their number, else ``class_0`` and
    so on. YOLOv1, and YOLOv2 of 2016, stretch an image to the network's input; later versions letterbox it. Raises
    InputError where the files do not fit each other or the classes, or hold no YOLO.
    """
    network = read_darknet(cfg, weights)
    sections = [network.net, *(layer.section for layer in network.layers)]
    kinds = {section.kind for section in sections} & _DETECTING.keys()
    if len(kinds) != 1:
        raise InputError(f"{cfg}: has no [detection], [region] or [yolo] layers of one kind, so that it is no YOLO")
    (kind,) = kinds
    if classes is None:
        classes = default_classes(classes_of(network.of_kind(kind)[0].section))
    size = (network.net.integer("height"), network.net.integer("width"))
    config: DetectorConfig
    transform: TransformConfig = LetterboxConfig(
        size=size, fill=(127.5, 127.5, 127.5), interpolation="corners", levels="fractions", margins="halves"
    )
    if kind == "detection":
        config = yolov1_config(sections)
    elif kind == "region":
        config = yolov2_config(sections)
    else:
        config = yolov3_config(sections)
    if kind != "detection":
        check_convolutions(sections, kind)
    with torch.device("meta"):  # only the order of its layers is needed
        detector = build_detector(config, classes)
    if isinstance(detector, YOLOv1):
        state = yolov1_state(detector, network)
    elif isinstance(detector, YOLOv2):
        state = yolov2_state(detector, network)
    else:
        assert isinstance(detector, YOLOv3)
        state = yolov3_state(detector, network)
    if isinstance(detector, YOLOv1) or (isinstance(detector, YOLOv2) and _of_2016(detector)):
        transform = WarpConfig(size=size, interpolations=("corners",), levels="fractions")
    return Imported(
        source=f"pjreddie/darknet {Path(cfg).stem} ({_DETECTING[kind]})",
        config=config,
        classes=classes,
        state=state,
        transforms=(transform,),
        pad_multiple=1,
    )


def _of_2016(detector: YOLOv2) -> bool:
    """Return True if the network stacks the finer map without reducing it, as the first generation did."""
    return detector.config.head.passthrough is not None and detector.config.head.narrow is None


def load_darknet(cfg: Path | str, weights: Path | str, classes: Classes | None = None) -> Detector:
    """The detector of :func:`import_darknet`, in eval mode."""
    return build_imported(import_darknet(cfg, weights, classes), str(weights))


def import_darknet_backbone(weights: Path | str, cfg: Path | str | None = None) -> ImportedBackbone:
    """Import the backbone in the file ``weights``, and its classifier where there is one.

    ``cfg``: of a classifier (darknet19.cfg, darknet53.cfg) or of a detector. The weights may end after any layer from
    the last one of the backbone on, as pretrained files do: ``darknet19_448.conv.23``, ``darknet53.conv.74``. None: the
    length of the file tells the backbone, with or without a classifier of ImageNet's 1000 classes. Raises InputError
    where the layers belong to no known backbone, or include those of a detector.
    """
    sections = _sections_by_length(weights) if cfg is None else read_cfg(cfg)
    network = read_sections(sections, weights, prefix=True, origin=str(cfg or "its length"))
    layers = [layer for layer in network.layers if layer.arrays]
    kinds = {layer.section.kind for layer in network.layers}
    if found := kinds & _DETECTING.keys():
        raise InputError(
            f"{weights}: a whole {_DETECTING[found.pop()]}, where a backbone was expected; a detector goes to --weights"
        )
    variant, length = _trunk(layers, "region" in {section.kind for section in sections}, str(cfg or weights))
    norm = "bn" if "scale" in layers[0].arrays else "none"
    config = DarknetConfig(variant=variant, norm=norm, out_levels=(len(VARIANTS[variant]) - 1,))
    with torch.device("meta"):
        backbone = build_backbone(config)
    trunk = network._replace(layers=tuple(layers[:length]))
    state = {f"backbone.{name}": value for name, value in state_in_order(backbone, trunk, str(weights)).items()}
    if "softmax" in kinds and len(layers) == length + 1:
        arrays = layers[length].arrays
        weight = arrays["weight"]
        # Darknet-19 applies the layer to the map and then averages, Darknet-53 the other way round, and so does ours.
        state["fc.weight"] = weight if variant == "darknet19" else weight.flatten(1)
        state["fc.bias"] = arrays["bias"]
    pixels = DARKNET
    cut = any(section.kind in _DETECTING for section in sections)
    data = "data that its file does not name" if cut else "ImageNet"
    return ImportedBackbone(f"pjreddie/darknet {variant}", config, pixels, state, data)


def _sections_by_length(weights: Path | str) -> list[Section]:
    """Return the cfg of the backbone, with or without a classifier of 1000 classes, that has as many parameters as the
    file.
    """
    found = count_floats(weights)
    for variant in VARIANTS:
        for norm in (True, False):
            sections = _sections(variant, norm)
            for length in (len(sections), len(sections) - 2):
                plan = plan_layers(sections[:length])
                if found == sum(math.prod(shape) for *_, arrays in plan for shape in arrays.values()):
                    return sections[:length]
    raise InputError(
        f"{weights}: holds {found:,.10g} floats, which is the length of no trunk that is known, alone or with a "
        f"classifier of 1000 classes: {', '.join(VARIANTS)}. If it is whole, put its cfg beside it, as "
        f"{Path(weights).stem}.cfg; a detector's file goes to --weights"
    )


def _sections(variant: str, norm: bool) -> list[Section]:
    """Return a cfg of the backbone and a classifier of 1000 classes, its last two sections."""
    sections = [Section("net", -1, variant, {"height": "256", "width": "256"})]

    def add(kind: str, **options: int) -> None:
        texts = {name: str(value) for name, value in options.items()}
        sections.append(Section(kind, len(sections) - 1, variant, texts))

    for layer in (layer for stage in VARIANTS[variant] for layer in stage):
        if not (convolutions := _convolutions(layer)):
            add("maxpool", size=2, stride=2 if layer == "pool" else 1)
        for filters, size, stride in convolutions:
            add("convolutional", batch_normalize=int(norm), filters=filters, size=size, stride=stride, pad=1)
    add("convolutional", filters=1000, size=1, stride=1, pad=1)
    add("softmax")
    return sections


def _trunk(layers: Sequence[DarknetLayer], region: bool, place: str) -> tuple[Variant, int]:
    """Return the longest known backbone at the beginning of the layers, and its number of layers."""
    given = [_shape(layer.section) for layer in layers]
    fitting = []
    for name, stages in VARIANTS.items():
        own = [conv for stage in stages for layer in stage for conv in _convolutions(layer)]
        if given[: len(own)] == own and name != ("tiny_v3" if region else "tiny_v2"):
            fitting.append((len(own), name))
    if not fitting:
        raise InputError(
            f"{place}: the {len(given)} layers with weights begin with no whole trunk; those known are "
            f"{', '.join(VARIANTS)}"
        )
    length, name = max(fitting)
    return cast(Variant, name), length


def _convolutions(layer: Layer | str) -> list[tuple[int, int, int]]:
    """Return channels, kernel and stride of each convolution in an entry of the table."""
    if isinstance(layer, Conv):
        return [(layer.channels, layer.kernel, layer.stride)]
    if isinstance(layer, Residual):
        return [(layer.channels // 2, 1, 1), (layer.channels, 3, 1)] * layer.count
    return []


def _shape(section: Section) -> tuple[int, int, int] | None:
    if section.kind != "convolutional":
        return None
    return section.integer("filters", 1), section.integer("size", 1), section.integer("stride", 1)
