"""Import SSD300 of amdegroot/ssd.pytorch (VGG-16), and Caffe's weights that were converted for it.

Its files are plain state dicts, with or without ``module.`` before every key. There, scores and offsets of a map are
separate convolutions and background is class 0. Here they are one convolution and background is last.
:func:`ssd_config` states the other conventions of the training.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from boxwright.anchors.priors import PriorConfig
from boxwright.backbones.vgg import VGGConfig
from boxwright.data.transforms.resizing import WarpConfig
from boxwright.detectors.contract.pixels import SSD_RGB
from boxwright.detectors.ssd import SSDAssignConfig, SSDConfig, SSDHeadConfig
from boxwright.heads.postprocess import PostprocessConfig
from boxwright.structures import Classes, InputError
from boxwright.weights.common.class_names import COCO, default_classes
from boxwright.weights.common.foreign_files import tensors_in
from boxwright.weights.common.heads import check_class_count, joined_head
from boxwright.weights.common.imported import Imported
from boxwright.weights.common.imported_backbone import ImportedBackbone
from boxwright.weights.common.state_checks import refuse_keys, rows_of

_FC = {31: "fc6", 33: "fc7"}
COCO_CLASSES = 200
"""Classes of the port's model of COCO, whose configuration says 201 with background."""
VOC_SIZES = (30, 60, 111, 162, 213, 264, 315)
"""Sizes of the port's default boxes for 20 classes."""
COCO_SIZES = (21, 45, 99, 153, 207, 261, 315)
"""Sizes of the port's default boxes for every other number of classes, its users' own data included."""


def ssd_config(classes: int = 20) -> SSDConfig:
    """Return the configuration that reproduces the port's model of so many ``classes``.

    The port has two tables of default boxes, named after VOC and COCO, and takes the first for 20 classes only. It
    takes RGB, and resizes as OpenCV does: ``WarpConfig(size=(300, 300),
    interpolations=("opencv",))``. It intends to keep 200 detections per image, but keeps all that NMS leaves of the
    best 200 of each class.
    """
    return SSDConfig(
        l2_eps="root",
        head=SSDHeadConfig(start="glorot"),
        priors=PriorConfig(sizes=VOC_SIZES if classes == 20 else COCO_SIZES, clip="all"),
        assign=SSDAssignConfig(forced="parallel", difficult=False),
        pixels=SSD_RGB,
        post=PostprocessConfig(
            score_threshold=0.01,
            nms_iou=0.45,
            per_class=200,
            candidates=200 * classes,
            detections=200 * classes,
            clip=False,
            min_size=0,
        ),
    )


def ssd_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert the port's state dict. Raises InputError naming keys of other models."""
    given = tensors_in(state)
    ours: dict[str, Tensor] = {}
    unknown = []
    for key, value in given.items():
        if head := re.fullmatch(r"(loc|conf)\.(\d)\.(weight|bias)", key):
            other = f"{'conf' if head[1] == 'loc' else 'loc'}.{head[2]}.{head[3]}"
            if other not in given:
                raise InputError(f"the state dict has {key!r} but not {other!r}; is the file whole?")
            if head[1] == "loc":
                ours[f"heads.{head[2]}.predict.{head[3]}"] = joined_head(value, given[other])
        elif name := _name(key):
            ours[name] = value
        else:
            unknown.append(key)
    if unknown:
        raise InputError(
            f"{len(unknown)} keys are not of ssd.pytorch, the first is {unknown[0]!r}; other models have importers of "
            "their own"
        )
    return ours


def recognise_ssd_pytorch(tensors: Mapping[str, Tensor]) -> bool:
    """Return True for the tensors of the port, or those that were converted for it."""
    return {"L2Norm.weight", "loc.0.weight", "conf.0.weight"} <= tensors.keys()


def import_ssd_pytorch(state: Mapping[str, Tensor], classes: Classes | None = None) -> Imported:
    """Import the port's SSD300.

    ``classes``: None for names of VOC or COCO by their number, else ``class_0`` and so on. The port's own training on
    COCO makes a head of 200 classes of which it uses the first 80; they get COCO's names. Raises InputError for missing
    keys, for keys of another model, and for another number of names.
    """
    tensors = tensors_in(state)
    if not recognise_ssd_pytorch(tensors):
        raise InputError(
            f"no SSD300 of ssd.pytorch: among {len(tensors)} keys there is no L2Norm.weight, loc.0.weight or "
            "conf.0.weight"
        )
    ours = ssd_state(tensors)
    count = len(ours.get("heads.0.predict.bias", ())) // 4 - 5  # four boxes in a cell of the first map
    check_class_count(count, classes)
    return Imported(
        source="ssd.pytorch ssd300_vgg16",
        config=ssd_config(count),
        classes=classes or port_classes(count),
        state=ours,
        transforms=(WarpConfig(size=(300, 300), interpolations=("opencv",)),),
        pad_multiple=1,
    )


def port_classes(count: int) -> Classes:
    """Return default names: those of VOC or COCO by their number, and COCO's for the first 80 of 200."""
    if count != COCO_CLASSES:
        return default_classes(count)
    return Classes.from_names([*COCO.names, *(f"class_{k}" for k in range(len(COCO), count))])


def recognise_reduced_vgg(tensors: Mapping[str, Tensor]) -> bool:
    """Return True for ``vgg16_reducedfc.pth``, the VGG-16 from which the port's trainings start."""
    return {"0.weight", "28.weight", "31.weight", "33.weight"} <= tensors.keys()


def import_reduced_vgg(tensors: Mapping[str, Tensor]) -> ImportedBackbone:
    """Import the port's reduced VGG-16 of ImageNet, of any width. Raises InputError for unknown tensors.

    The weights come from Caffe, but the port feeds them RGB.
    """
    source = "ssd.pytorch vgg16_reducedfc"
    state = {name: value for key, value in tensors.items() if (name := _name(f"vgg.{key}"))}
    refuse_keys([key for key in tensors if _name(f"vgg.{key}") is None], source)
    width = rows_of(tensors, "0.weight", source)
    config = VGGConfig(width=width, fc="reduced", out_levels=(4, 6))
    return ImportedBackbone(source, config, ssd_config().pixels, state)


def _name(key: str) -> str | None:
    """Return our name of a tensor that keeps its shape; None for keys that the port does not have."""
    if key == "L2Norm.weight":
        return "l2.weight"
    if found := re.fullmatch(r"vgg\.(\d+)\.(weight|bias)", key):
        index = int(found[1])
        return f"backbone.{_FC.get(index, f'features.{index}')}.{found[2]}"
    if found := re.fullmatch(r"extras\.(\d)\.(weight|bias)", key):
        block, second = divmod(int(found[1]), 2)
        return f"extras.{block}.{'1' if second else '0.0'}.{found[2]}"
    return None
